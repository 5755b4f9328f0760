"""The sandbox: what an enclosed process attempts and must not get, layer by layer."""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from service_fakes import model
from service_process import Service

from service import sandbox
from service.environment import without_secrets
from service.sandbox import landlock, seccomp
from service.serve import require_sandbox
from service.settings import Settings
from verifier.errors import InvalidRequest

ROOT = Path(__file__).parents[2]
NOBODY = 65534
SYSTEM_PYTHON = Path("/usr/bin/python3")

#: Runs in a fresh interpreter: encloses itself, attempts, and tells what became of it.
ATTEMPT = """
import json, os, sys
from pathlib import Path
from service.sandbox import enclose
order = json.loads(sys.argv[1])
{before}
held = enclose(map(Path, order["readable"]), map(Path, order["writable"]))
def attempt():
{code}
try:
    outcome = attempt()
except OSError as error:
    outcome = "denied" if error.errno in (1, 13) else repr(error)
print(json.dumps([held, outcome]))
"""

Attempt = Callable[..., object]


@pytest.fixture(scope="module")
def copied() -> Iterator[Path]:
    """The sandbox's modules where every user can read them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(ROOT / "service/sandbox", folder / "service/sandbox")
        for module in ("__init__.py", "lifeline.py"):
            shutil.copy(ROOT / "service" / module, folder / "service" / module)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755)
        yield folder


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user can read."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(params=["own user", "nobody"])
def attempt(request: pytest.FixtureRequest, copied: Path) -> Attempt:
    """What becomes of some code in an enclosed process; "denied" where the kernel says so."""
    if landlock.abi() < 6 or not seccomp.is_available():
        pytest.skip("this kernel has no Landlock of ABI 6, or no seccomp")
    interpreter, modules, before = sys.executable, ROOT, ""
    if request.param == "nobody":
        if os.getuid() != 0 or not SYSTEM_PYTHON.exists():
            pytest.skip("this user cannot become another one, or there is no system's Python")
        interpreter, modules = str(SYSTEM_PYTHON), copied
        before = f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})"

    def attempt(
        code: str, readable: tuple[Path, ...] = (), writable: tuple[Path, ...] = ()
    ) -> object:
        order = {"readable": [*map(str, readable)], "writable": [*map(str, writable)]}
        lines = "\n".join(f"    {line}" for line in code.strip().splitlines())
        done = subprocess.run(
            [interpreter, "-c", ATTEMPT.format(before=before, code=lines), json.dumps(order)],
            env={**os.environ, "PYTHONPATH": str(modules)},
            capture_output=True,
            check=False,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        held, outcome = json.loads(done.stdout)
        assert held == "full"
        return outcome

    return attempt


DENIED = {
    "a file of the system": "open('/etc/passwd').read()",
    "a home": "os.listdir('/root')",
    "another process": "os.listdir(f'/proc/{os.getppid()}/fd')",
    "a new file": "open('/tmp/escaped', 'w')",
    "a link": "os.symlink('/etc/passwd', 'escaped')",
    "a hard link": "os.link('/etc/passwd', '/tmp/escaped')",
    "tcp": "import socket; socket.socket(socket.AF_INET, socket.SOCK_STREAM)",
    "udp": "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "a local socket": "import socket; socket.socket(socket.AF_UNIX)",
    "a pair of sockets": "import socket; socket.socketpair()",
    "netlink": "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "a program": "os.execv('/bin/true', ['true'])",
    "a child": "os.fork()",
    "a spawned program": "import subprocess; subprocess.run(['/bin/true'])",
    "a kill": "os.kill(os.getppid(), 0)",
    "its own limits": "import resource as r; r.prlimit(0, r.RLIMIT_NOFILE, (9, 9))",
    "a session": "os.setsid()",
    "memory as a file": "os.memfd_create('x')",
    "a device": "os.mknod('/tmp/escaped', 0o20666, os.makedev(1, 1))",
}


@pytest.mark.parametrize("what", DENIED)
def test_what_is_beyond_its_input_is_denied(what: str, attempt: Attempt) -> None:
    code = DENIED[what].rpartition("; ")
    statements = f"{code[0]}\n" if code[0] else ""
    assert attempt(f"{statements}return str({code[2]})") == "denied"
    assert not Path("/tmp/escaped").exists()  # noqa: S108 - where the attempts would leave it


def test_named_files_are_reached_and_no_others(attempt: Attempt, folder: Path) -> None:
    given, kept, out = folder / "given", folder / "kept", folder / "out"
    for file in (given, kept, out):
        file.write_text("text", encoding="utf-8")
        file.chmod(0o666)
    code = f"return open({str(given)!r}).read() + str(open({str(out)!r}, 'w').write('new'))"
    assert attempt(code, (given,), (out,)) == "text3"
    assert out.read_text(encoding="utf-8") == "new"
    assert attempt(f"return open({str(kept)!r}).read()", (given,), (out,)) == "denied"
    assert attempt(f"return open({str(given)!r}, 'w').name", (given,), (out,)) == "denied"
    assert attempt(f"os.unlink({str(out)!r})", (given,), (out,)) == "denied"


def test_a_link_does_not_lead_out(attempt: Attempt, folder: Path) -> None:
    (folder / "link").symlink_to("/etc/passwd")
    assert attempt(f"return open({str(folder / 'link')!r}).read()", (folder,)) == "denied"


@pytest.mark.parametrize("attempt", ["own user"], indirect=True)
def test_threads_and_numerical_libraries_work(attempt: Attempt) -> None:
    code = """
import threading
import numpy as np
found = []
threads = [threading.Thread(target=lambda: found.append(np.eye(300) @ np.eye(300))) for _ in "ab"]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
import torch
torch.set_num_threads(2)
found.append(torch.linalg.cholesky(torch.eye(300, dtype=torch.float64)))
return len(found)
"""
    assert attempt(code) == 3


def test_threads_started_later_are_enclosed_too(attempt: Attempt) -> None:
    code = """
import threading
said = []
def peek():
    try:
        said.append(open("/etc/passwd").read())
    except PermissionError:
        said.append("denied")
thread = threading.Thread(target=peek)
thread.start()
thread.join()
return said[0]
"""
    assert attempt(code) == "denied"


def test_every_child_of_the_service_is_enclosed(service: Service) -> None:
    """Reading a model, bounding it and checking the certificate: each attempts to get out."""
    job = service.submit(service.upload(model("escape")), wait=30)
    assert job["state"] == "succeeded", job
    assert service.client.get("/readyz").json()["sandbox"] == "full"


def test_the_children_are_told_no_secrets() -> None:
    said = {"PATH": "/bin", "OMP_NUM_THREADS": "1", "LIPCERT_API_KEY": "lck_", "AWS_TOKEN": "x"}
    assert without_secrets(said) == {"PATH": "/bin", "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])  # noqa: S104 - not bound
def test_what_is_required_has_to_be_there(host: str) -> None:
    settings = Settings(host=host)
    require_sandbox(settings, "full")
    require_sandbox(replace(settings, require_sandbox=False), "none")
    with pytest.raises(InvalidRequest, match="none"):
        require_sandbox(replace(settings, require_sandbox=True), "none")
    if host != "127.0.0.1":
        with pytest.raises(InvalidRequest, match="partial"):
            require_sandbox(settings, "partial(seccomp)")


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"landlock": True, "seccomp": True}, "full"),
        ({"landlock": False, "seccomp": True}, "partial(landlock)"),
        ({"landlock": False, "seccomp": False}, "none"),
    ],
)
def test_what_is_missing_is_named(held: dict[str, bool], said: str) -> None:
    assert sandbox.level(held) == said


HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


@pytest.mark.parametrize("machine", HEADERS)
def test_system_calls_have_the_kernels_numbers(machine: str) -> None:
    header = HEADERS[machine]
    if not header.exists():
        pytest.skip(f"{header} is not installed")
    found = re.findall(r"#define __NR3?2?6?4?_?(\w+)\s+(\d+)", header.read_text(encoding="utf-8"))
    kernels = {name: int(number) for name, number in found}
    place = 0 if machine == "x86_64" else 1
    ours = {name: numbers[place] for name, numbers in seccomp.DENIED.items()}
    ours |= {"clone": seccomp.CLONE[machine], "prlimit64": seccomp.PRLIMIT[machine]}
    ours |= {"clone3": seccomp.CLONE3} | (seccomp.DENIED_X86_64 if place == 0 else {})
    known = {name: number for name, number in ours.items() if name in kernels}
    assert known == {name: kernels[name] for name in known}
    assert len(ours) - len(known) <= 5  # calls that are newer than the header


def test_this_machine_is_told_what_it_would_get() -> None:
    assert sandbox.available() == "full" or platform.system() != "Linux" or landlock.abi() == 0
