"""Plain `lipcert`, as `pip install lipcert` brings it: light, and enough for checks and gates.

A fresh virtual environment, with packages from wherever pip finds them; without any, it skips.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from docs_blocks import PAGES, blocks_of
from service_process import Service, settings_in

from service.settings import EntryPoints

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "examples/maxmin_mlp.onnx"
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "verifier", "service")
HEAVY = {
    "clarabel",
    "cvxpy",
    "fastapi",
    "onnx",
    "onnxruntime",
    "scipy",
    "scs",
    "sqlalchemy",
    "torch",
}
UNREACHABLE = (
    "No matching distribution|Could not find a version|Connection|Network|Temporary failure"
)
POLICY = {
    "version": 1,
    "rules": [{"name": "one", "property": {"norm": "l2"}, "method": "product", "max_bound": 1.01}],
}

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a program of the environment, in an empty folder, as nobody's source tree."""
    folder = tmp_path_factory.mktemp("light")
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:  # a copy: pip builds where the sources are
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    pip = [sys.executable, "-m", "pip", "--python", folder / "venv/bin/python", "install"]
    options = ["--quiet", "--no-compile", "--constraint", ROOT / "constraints.txt"]
    done = subprocess.run([*pip, *options, source], check=False, capture_output=True, text=True)
    if done.returncode and re.search(UNREACHABLE, done.stderr):
        pytest.skip(f"packages cannot be had: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr

    def run(program: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
        environment = {
            n: v for n, v in os.environ.items() if not n.startswith(("PYTHON", "LIPCERT"))
        }
        command = [folder / "venv/bin" / program, *map(str, arguments)]
        return subprocess.run(
            command, cwd=folder, env=environment, check=False, capture_output=True, text=True
        )

    return run


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that proves."""
    settings = settings_in(tmp_path_factory.mktemp("real"))
    more = {"entry_points": EntryPoints(), "memory_bytes": 4 * 2**30, "check_s": 60.0}
    with closing(Service(replace(settings, **more))) as running:
        yield running


def test_nothing_heavy_is_installed(light: Run) -> None:
    code = "import importlib.metadata as m; print(*{d.name.lower() for d in m.distributions()})"
    installed = set(light("python", "-c", code).stdout.split())
    assert "lipcert" in installed
    assert installed & HEAVY == set()


def test_the_client_proves_elsewhere_and_checks_here(
    light: Run, real: Service, tmp_path: Path
) -> None:
    code = (
        "import json; from pathlib import Path; from service.client import Client\n"
        f"model = Path({str(MODEL)!r}).read_bytes()\n"
        f"with Client({real.url!r}) as lipcert:\n"
        "    found = lipcert.certify(model, {'method': 'product', 'budget': {'seconds': 20}})\n"
        "    assert lipcert.check(found, model).valid\n"
        "print(json.dumps(found))"
    )
    done = light("python", "-c", code)
    assert done.returncode == 0, done.stderr
    certificate, policy = tmp_path / "bound.json", tmp_path / "policy.json"
    certificate.write_text(done.stdout, encoding="utf-8")
    checked = light("lipcert", "check", certificate, "--model", MODEL)
    assert (checked.returncode, "valid" in checked.stdout) == (0, True), checked.stderr
    policy.write_text(json.dumps(POLICY), encoding="utf-8")
    gate = light("lipcert", "gate", MODEL, "--policy", policy, "--server", real.url)
    assert gate.returncode == 0, gate.stderr
    for group in ("gates", "webhooks"):
        listed = light("lipcert", group, "list", "--server", real.url)
        assert (listed.returncode, listed.stdout) == (0, ""), listed.stderr


def test_what_the_pages_say_of_the_client_runs_here(light: Run, real: Service) -> None:
    programs = [b.text for page in PAGES for b in blocks_of(page) if b.kind == "python client"]
    assert programs
    for program in programs:
        text = program.replace("http://127.0.0.1:8321", real.url)
        text = text.replace('"examples/', f'"{ROOT}/examples/').replace(
            '"seconds": 10', '"seconds": 2'
        )
        done = light("python", "-c", text)
        assert done.stdout.split()[-1] == "True", done.stderr


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["certify", MODEL], "lipcert[verify]"),
        (["serve"], "lipcert[serve,verify]"),
        (["api-keys", "list"], "lipcert[serve]"),
    ],
    ids=["certify", "serve", "api-keys"],
)
def test_the_rest_says_what_to_install(light: Run, arguments: list[object], extra: str) -> None:
    done = light("lipcert", *arguments)
    assert done.returncode == 3
    assert f"pip install '{extra}'" in done.stderr
    assert "Traceback" not in done.stderr
