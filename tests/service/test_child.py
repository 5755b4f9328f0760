"""The child process of the command line: whatever becomes of it, the parent has an answer."""

import json
import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from service import child
from service.failures import FAILED, REFUSED, Failure
from verifier.property import Budget, Request

CERTIFICATE = {"id": "sha256:0"}

#: A child that has read its task, then does what a test wants; `say` answers like the real one.
PREAMBLE = """
import base64, json, os, signal, sys, time
header = json.loads(sys.stdin.buffer.readline())
model = sys.stdin.buffer.read(header["size"])
def say(**message):
    print(json.dumps(message), flush=True)
"""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Replaces the child by the script that the test is parametrised with."""
    monkeypatch.setattr(child, "CHILD", ("-c", PREAMBLE + request.param))


@pytest.mark.usefixtures("script")
@pytest.mark.parametrize(
    "script",
    ["say(progress={'phase': header['task']}); say(certificate={'id': model.decode()})"],
    indirect=True,
)
def test_messages_arrive() -> None:
    heard: list[child.Json] = []
    outcome = child.certify(b"abc", Request(), heard.append)
    assert heard == [{"phase": "certify"}]
    assert outcome.certificate == {"id": "abc"}
    assert outcome.failure is None


@pytest.mark.usefixtures("script")
@pytest.mark.parametrize(
    ("script", "code", "detail"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "resource-exhausted", "killed"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "worker-lost", "SIGSEGV"),
        ("1 / 0", "worker-lost", "ZeroDivisionError: division by zero"),
        ("sys.exit(7)", "worker-lost", "exit status 7"),
    ],
    indirect=["script"],
)
def test_death_is_a_failure_that_says_why(code: str, detail: str) -> None:
    failure = child.inspect(b"").failure
    assert failure is not None
    assert (failure.error["code"], failure.exit_code) == (code, FAILED)
    assert detail in (failure.error["detail"] or "")


@pytest.mark.usefixtures("script")
@pytest.mark.parametrize(
    "script",
    ["say(certificate={'id': 'sha256:0'}); print('{\"cert', end='', flush=True); 1 / 0"],
    indirect=True,
)
def test_death_in_the_middle_of_an_answer_keeps_those_before() -> None:
    outcome = child.certify(b"", Request())
    assert outcome.certificate == CERTIFICATE
    assert outcome.failure is not None


@pytest.mark.usefixtures("script")
@pytest.mark.parametrize(
    "script",
    [
        "start = sys.stdin.buffer.read(header['checkpoint'] or 0)\n"
        "say(checkpoint=base64.b64encode(start + b'+').decode())\n"
        "say(certificate={'id': start.decode()})"
    ],
    indirect=True,
)
def test_a_checkpoint_goes_to_the_child_and_comes_back(tmp_path: Path) -> None:
    place = tmp_path / "file"
    assert child.certify(b"", Request()).certificate == {"id": ""}
    assert list(tmp_path.iterdir()) == []
    for before in ("", "+", "++"):
        assert child.certify(b"", Request(), None, place).certificate == {"id": before}
        assert place.read_text() == before + "+"
    assert list(tmp_path.iterdir()) == [place]
    lost = child.certify(b"", Request(), None, tmp_path / "no folder" / "file")
    assert lost.failure is not None
    assert "cannot be written" in (lost.failure.error["detail"] or "")


@pytest.mark.usefixtures("script")
@pytest.mark.parametrize(
    "script",
    ["say(ring=[1, {'label': 2, 'radius': 0.5, 'certificate': {}}]); os.kill(os.getpid(), 9)"],
    indirect=True,
)
def test_radii_are_kept_when_the_search_dies() -> None:
    outcome = child.radii(b"", {"centers": [[0.0], [1.0]], "norm": "l2"}, 1.0)
    assert outcome.failure is not None
    assert outcome.radii is not None
    assert outcome.radii["radii"] == [
        {"center": 0, "label": None, "radius": 0.0, "certificate": None},
        {"center": 1, "label": 2, "radius": 0.5, "certificate": {}},
    ]


@pytest.mark.usefixtures("script")
@pytest.mark.parametrize("script", ["say(certificate=dict(os.environ))"], indirect=True)
def test_the_child_is_told_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads a model that may be a stranger's."""
    monkeypatch.setenv("LIPCERT_API_KEY", "lck_secret")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    told = child.certify(b"", Request()).certificate
    assert told is not None
    assert (told["OMP_NUM_THREADS"], told["OMP_WAIT_POLICY"]) == ("7", "PASSIVE")
    assert "lck_secret" not in str(told)


@pytest.mark.usefixtures("script")
@pytest.mark.parametrize("script", ["time.sleep(600)"], indirect=True)
def test_whatever_ends_a_run_ends_its_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect on this side leaves no process, no open pipe and no timer behind."""
    started: list[subprocess.Popen[bytes]] = []

    def fail(process: subprocess.Popen[bytes], *_: object) -> None:
        started.append(process)
        raise ZeroDivisionError

    monkeypatch.setattr(child, "_listen", fail)
    with pytest.raises(ZeroDivisionError):
        child.inspect(bytes(2**22))
    (process,) = started
    assert process.returncode == -signal.SIGKILL
    assert all(pipe is not None and pipe.closed for pipe in (process.stdin, process.stdout))
    for timer in [one for one in threading.enumerate() if isinstance(one, threading.Timer)]:
        timer.join(60.0)
        assert not timer.is_alive()


@pytest.mark.usefixtures("script")
@pytest.mark.parametrize("script", ["os.close(0); os.kill(os.getpid(), 9)"], indirect=True)
def test_child_that_dies_before_reading_is_a_failure() -> None:
    outcome = child.inspect(bytes(2**22))
    assert outcome.failure is not None


@pytest.mark.usefixtures("script")
@pytest.mark.parametrize(
    "script",
    ["say(certificate={'id': 'sha256:0'}); say(progress={'phase': 'x'}); time.sleep(600)"],
    indirect=True,
)
def test_run_beyond_every_limit_is_ended_and_keeps_its_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Time is up when the child has told its bound, however long that took it."""
    timers: list[threading.Timer] = []

    class Timer(threading.Timer):
        """One that waits for the test."""

        def start(self) -> None:
            timers.append(self)

    def pass_time(_: child.Json) -> None:
        timers[0].function()

    monkeypatch.setattr(threading, "Timer", Timer)
    outcome = child.certify(b"", Request(budget=Budget(seconds=0.1)), pass_time)
    assert timers[0].interval == 1.5 * 0.1 + child.GRACE_S
    assert outcome.certificate == CERTIFICATE
    assert outcome.failure is not None
    assert outcome.failure.error["code"] == "timeout"


@pytest.mark.usefixtures("script")
@pytest.mark.parametrize(
    "script",
    ["say(certificate={'id': 'sha256:0'}); say(progress={'phase': 'x'}); time.sleep(600)"],
    indirect=True,
)
def test_interrupt_ends_the_child_and_keeps_its_bound() -> None:
    def interrupt(_: child.Json) -> None:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()

    # A shell's background process, as these tests may be one, is started with it ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        outcome = child.certify(b"", Request(), interrupt)
    finally:
        signal.signal(signal.SIGINT, before)
    assert outcome.interrupted
    assert outcome.certificate == CERTIFICATE
    assert outcome.failure is None


@pytest.mark.usefixtures("script")
@pytest.mark.parametrize(
    "script",
    ["say(failure={'error': {'code': 'not-onnx', 'detail': 'no'}, 'exit_code': 3})"],
    indirect=True,
)
def test_refusal_arrives() -> None:
    assert child.inspect(b"").failure == Failure({"code": "not-onnx", "detail": "no"}, 3)


def test_real_child_refuses_what_is_no_model() -> None:
    failure = child.inspect(b"no model").failure
    assert failure is not None
    assert failure.exit_code == REFUSED
    assert json.dumps(dict(failure.error))
