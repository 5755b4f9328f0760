"""What README and docs show is run: commands, Python, requests, calls of the service.

The word behind a block's fence says what it is, and no other word is known here:

    sh              commands of lipcert, run in order in one folder
    sh service      commands of a shell, run against a service
    console         commands behind "$ ", and what they print
    json            a request, for `lipcert certify --spec`
    json several    the same about a model of several inputs, `SEVERAL`
    python          a program
    python client   a program of the light installation: run by test_light_install
    python fixture  a test of pytest
    python receiver a program that is sent webhooks: run by test_webhook_routes
    text            shown, not run

Budgets are cut, and the cheapest method takes the place of `auto`: what is tested is that the pages
say what the programs do, not how tight a bound is. MODEL stands for a file of the reader's,
and sha256:.. for the model that was sent first.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from hashlib import sha256
from io import StringIO
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from docs_blocks import PAGES, ROOT, Block, blocks_of
from onnx import TensorProto
from service_process import Service

from service import child, child_work, cli
from service.child import Outcome
from service.pytest_plugin import assert_lipschitz
from tests.onnx_import.graphs import info, model, node

SECONDS = 0.5
SERVICE = "sh service"
SEVERAL = model(
    [
        node("Div", ["logits", "temperature"], ["scaled"]),
        node("Softmax", ["scaled"], ["probabilities"], axis=1),
        node("ArgMax", ["logits"], ["label"], axis=1),
    ],
    inputs=[info("logits", (1, "sequence")), info("temperature", (1,))],
    outputs=[
        info("probabilities", (1, "sequence")),
        info("label", (1, 1), TensorProto.INT64),
    ],
)
LEFT = {"python client", "python receiver", "text"}


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    text: str


Lipcert = Callable[[str], Said]


@pytest.fixture
def lipcert(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Lipcert:
    """Runs a line of a page in this process, its child included, on a short budget."""

    def run(
        header: child.Json,
        model: bytes,
        _limit: float,
        show: Callable[[child.Json], None],
        kept: child.KeptFile | None = None,
    ) -> Outcome:
        outcome = Outcome()

        def answer(message: child.Json) -> None:
            child.take(json.loads(json.dumps(message)), outcome, show)

        start = b"" if kept is None else kept.read()
        child_work.work({**header, "request": _short(header["request"])}, model, start, answer)
        return outcome

    def lipcert(line: str) -> Said:
        program, *arguments = shlex.split(line, comments=True)
        assert program == "lipcert", line
        capsys.readouterr()
        code = cli.run(arguments)
        said = capsys.readouterr()
        return Said(code, said.out + said.err)

    monkeypatch.setattr(child, "run", run)
    return lipcert


def _short(request: object) -> object:
    """The request on a short budget; where any method will do, the cheapest."""
    if request is None:
        return None
    asked = cast("dict[str, Any]", request)  # Any: JSON
    if "budget" not in asked:
        return {**asked, "seconds": SECONDS}
    is_bound = asked["property"]["kind"] == "lipschitz" and asked["method"] == "auto"
    method = {"method": "product"} if is_bound else {}
    return {**asked, **method, "budget": {**asked["budget"], "seconds": SECONDS}}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a reader is: in the repository, with files of their own."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    shutil.copy(ROOT / "examples/digit.npy", tmp_path / "digit.npy")
    shutil.copy(ROOT / "examples/maxmin_mlp.onnx", tmp_path / "model.onnx")
    (tmp_path / "several.onnx").write_bytes(SEVERAL)
    np.save(tmp_path / "images.npy", np.zeros((2, 64)))
    np.save(tmp_path / "x.npy", np.zeros(64))
    np.save(tmp_path / "w.npy", np.ones(64))
    np.save(tmp_path / "P.npy", np.eye(64))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES)
def test_every_block_has_a_known_mark(page: str) -> None:
    assert {block.kind for block in blocks_of(page)} <= {*RUNNERS, SERVICE, *LEFT}


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.usefixtures("folder")
def test_what_a_page_shows_is_what_happens(page: str, lipcert: Lipcert) -> None:
    for block in blocks_of(page):
        if block.kind in RUNNERS:
            RUNNERS[block.kind](block, lipcert)


def test_the_service_answers_what_a_page_calls(
    folder: Path, own_service: Callable[..., Service]
) -> None:
    """In the order of the pages: after the block that makes the first key, keys are needed."""
    service = own_service()
    command = folder / "bin/lipcert"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m service.cli "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "LIPCERT_DATA": str(service.settings.data),
    }
    called = [block for page in PAGES for block in blocks_of(page) if block.kind == SERVICE]
    sent = f"sha256:{sha256((folder / 'examples/relu_mlp.onnx').read_bytes()).hexdigest()}"
    curl = 'curl() { command curl --fail-with-body --silent --show-error "$@"; }\n'
    for block in called:
        text = block.text.replace("http://127.0.0.1:8321", service.url)
        text = text.replace("sha256:..", sent).replace("[[..]]", "[[0.0, 0.0, 0.0]]")
        done = subprocess.run(
            ["/bin/bash", "-eu", "-c", curl + text],
            cwd=folder,
            env=environment,
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{block.text}\n{done.stdout}{done.stderr}"
    assert called


# --- one runner for each kind --------------------------------------------------------------------


def _commands(block: Block, lipcert: Lipcert) -> None:
    for line in block.text.replace("\\\n", " ").splitlines():
        said = lipcert(re.sub(r"\bMODEL\b", "examples/relu_mlp.onnx", line))
        assert said.code == 0, f"{line}\n{said.text}"


def _console(block: Block, lipcert: Lipcert) -> None:
    """Of what is printed: the names of rows, and refusals word by word."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        line, *shown = part.splitlines()
        said = lipcert(line)
        refusals = [text for text in shown if " Fix: " in text]
        rows = [text.split("  ")[0] for text in shown if "  " in text]
        assert said.code == (3 if refusals else 0), f"{line}\n{said.text}"
        assert [text for text in (*refusals, *rows) if text not in said.text] == []


def _request(block: Block, lipcert: Lipcert) -> None:
    Path("spec.json").write_text(block.text, encoding="utf-8")
    name = "several.onnx" if block.kind.endswith("several") else "examples/relu_mlp.onnx"
    said = lipcert(f"lipcert certify {name} --spec spec.json")
    assert said.code in (0, 1, 2), said.text  # proved, refuted, undecided


def _program(block: Block, _lipcert: Lipcert) -> None:
    printed = StringIO()
    with redirect_stdout(printed):
        exec(re.sub(r'"seconds": \d+', '"seconds": 1', block.text), {})  # noqa: S102 - our own page
    assert printed.getvalue().split()[-1] == "True"


def _fixture(block: Block, _lipcert: Lipcert) -> None:
    names: dict[str, Any] = {}
    exec(block.text, names)  # noqa: S102 - our own page
    tests = [value for name, value in names.items() if name.startswith("test_")]
    assert tests
    for test in tests:
        test(assert_lipschitz)


RUNNERS: dict[str, Callable[[Block, Lipcert], None]] = {
    "console": _console,
    "json": _request,
    "json several": _request,
    "python": _program,
    "python fixture": _fixture,
    "sh": _commands,
}
