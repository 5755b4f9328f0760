"""One run of the verifier in a child process of its own, as the command line wants it.

A crash or a kill in native code is then a clean failure, and what was proved before it is kept. The
child is `python -m service.child_work`; both sides speak JSON, one object a line:

    to the child      {"task": "inspect" | "certify" | "radius", "request": ..., "size": n,
                      "checkpoint": m or null}, then n model bytes and m of a checkpoint, perhaps
                      0; null: none is wanted
    from the child    {"progress": ...}  {"certificate": ...}  {"summary": ...}  {"ring": ...}
                      {"radii": ...}  {"checkpoint": its bytes in base64}  {"failure": ...}

Standard input stays open while the parent lives: at its end the child ends, too. What libraries
print goes to standard error, of which the parent shows no more than the last line of a crash.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from base64 import b64decode
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias, cast

from service.environment import without_secrets
from service.failures import Failure, failure_of
from verifier.errors import (
    InvalidRequest,
    JobFailed,
    OutOfBudget,
    ResourceExhausted,
    WorkerLost,
)
from verifier.radius_json import Question, RingJson, answer_json, parse_question, unanswered

if TYPE_CHECKING:
    from verifier.property import Request

Json: TypeAlias = dict[str, object]

#: The child, after the interpreter. -P: no package of that name in the working directory.
CHILD = ("-P", "-m", "service.child_work")

#: What a run may take beyond its budget (imports, the import of the model, the last check) before
#: it is ended from outside: a backstop, the verifier keeps to the budget by itself.
GRACE_S = 120.0


@dataclass(slots=True)
class Outcome:
    """What a run said. Certificates may be there although the run failed after them."""

    certificate: Json | None = None
    summary: Json | None = None
    radii: Json | None = None
    rings: dict[int, Json] = field(default_factory=dict[int, Json])  #: the best of every center
    failure: Failure | None = None
    interrupted: bool = False  #: Ctrl-C


def inspect(model: bytes, request: Request | None = None) -> Outcome:
    """What the importer understood of a model, perhaps with what a request binds and chooses."""
    from verifier.request_json import request_json

    members = None if request is None else request_json(request)
    return run({"task": "inspect", "request": members}, model, GRACE_S, _quiet)


def certify(
    model: bytes,
    request: Request,
    on_progress: Callable[[Json], None] | None = None,
    checkpoint: Path | None = None,
) -> Outcome:
    """The best checked certificate within the budget; Ctrl-C ends the run and keeps it.

    Args:
        model: the bytes of an ONNX file.
        request: what is asked.
        on_progress: told how far the run is.
        checkpoint: the file that branch and bound goes on from, if it is there, and is kept in.
    """
    from verifier.request_json import request_json

    limit = 1.5 * request.budget.seconds + GRACE_S
    header: Json = {"task": "certify", "request": request_json(request)}
    file = None if checkpoint is None else KeptFile(checkpoint)
    return run(header, model, limit, on_progress or _quiet, file)


@dataclass(frozen=True, slots=True)
class KeptFile:
    """Where a checkpoint is kept. The child may open no files: its bytes go through the pipes."""

    path: Path

    def read(self) -> bytes:
        """What an earlier run left; empty where there is no file.

        Raises:
            InvalidRequest: the file cannot be read.
        """
        from service.files import read_bytes
        from verifier.checkpoint import MOST_BYTES

        if not self.path.exists():
            return b""
        return read_bytes(self.path, "the checkpoint", 2 * MOST_BYTES)

    def write(self, text: str) -> None:
        """Keep what a child sent.

        Raises:
            InvalidRequest: the file cannot be written.
        """
        from service.files import replace_bytes

        replace_bytes(self.path, b64decode(text))


def radii(
    model: bytes, question: Json, seconds: float, on_progress: Callable[[Json], None] | None = None
) -> Outcome:
    """The largest proved radius around every point of a question; Ctrl-C keeps the best so far."""
    header: Json = {"task": "radius", "request": question}
    outcome = run(header, model, 1.5 * seconds + GRACE_S, on_progress or _quiet)
    if outcome.radii is None and outcome.rings:
        outcome.radii = _radii_so_far(model, parse_question(question), outcome.rings)
    return outcome


def _radii_so_far(model: bytes, question: Question, rings: Mapping[int, Json]) -> Json:
    none = unanswered(question.label)
    each = [
        RingJson(**cast("Any", rings[place])) if place in rings else none
        for place in range(len(question.centers))
    ]
    return answer_json(f"sha256:{sha256(model).hexdigest()}", question.norm.value, each)


def _quiet(_: Json) -> None:
    """Progress that nobody looks at."""


# --- The parent's side ---------------------------------------------------------------------------


def run(
    header: Json,
    model: bytes,
    limit_s: float,
    show: Callable[[Json], None],
    kept: KeptFile | None = None,
) -> Outcome:
    """One task, in a child; it is ended after `limit_s` seconds."""
    outcome = Outcome()
    start = None if kept is None else kept.read()
    header = {**header, "size": len(model), "checkpoint": None if start is None else len(start)}
    with tempfile.TemporaryFile() as errors, _child(errors) as process:
        timer = threading.Timer(limit_s, process.kill)
        timer.start()
        try:
            _send(process, header, model + (start or b""))
            _listen(process, outcome, show, kept)
        except KeyboardInterrupt:
            outcome.interrupted = True
            process.kill()
        except InvalidRequest as error:  # the checkpoint's file cannot be written
            outcome.failure = failure_of(error)
            process.kill()
        finally:
            is_late = not timer.is_alive()
            timer.cancel()  # else this process would wait for it at its end
        status = process.wait()
        if status != 0 and outcome.failure is None and not outcome.interrupted:
            outcome.failure = failure_of(_death(status, errors, is_late=is_late))
    return outcome


@contextmanager
def _child(errors: IO[bytes]) -> Generator[subprocess.Popen[bytes]]:
    """A child, which has ended after the block, however that ended."""
    process = subprocess.Popen(  # noqa: S603 - our own module, in this interpreter
        [sys.executable, *CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        start_new_session=True,  # Ctrl-C is the parent's to handle
        env=_environment(),
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with suppress(BrokenPipeError):  # what it has not read is lost with it
                if pipe is not None:
                    pipe.close()


def _environment() -> dict[str, str]:
    """What the child sees: no secrets, and how threads of linear algebra wait for each other.

    By default they spin: beside other programs that made a run four times as long.
    """
    known = without_secrets(os.environ)
    # The code that this process runs, wherever it is started.
    home = str(Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, (home, known.get("PYTHONPATH"))))
    fixed = {"PYTHONPATH": path, "ORT_DISABLE_TELEMETRY": "1"}
    return {"OMP_WAIT_POLICY": "PASSIVE", **known, **fixed}


def _send(process: subprocess.Popen[bytes], header: Json, data: bytes) -> None:
    if process.stdin is None:
        raise WorkerLost("the child has no standard input", fix="run it again")
    with suppress(BrokenPipeError):  # the child is dead already: its status says why
        process.stdin.write(json.dumps(header).encode() + b"\n")
        process.stdin.write(data)
        process.stdin.flush()


def _listen(
    process: subprocess.Popen[bytes],
    outcome: Outcome,
    show: Callable[[Json], None],
    kept: KeptFile | None,
) -> None:
    for line in process.stdout or ():
        if not line.endswith(b"\n"):
            return  # killed in the middle of an answer
        message = cast("Json", json.loads(line))
        if "checkpoint" not in message:
            take(message, outcome, show)
        elif kept is not None:
            kept.write(str(message["checkpoint"]))


def take(message: Json, outcome: Outcome, show: Callable[[Json], None]) -> None:
    """Takes one message of the child into the outcome."""
    (kind, value), *_ = message.items()
    match kind:
        case "progress":
            show(cast("Json", value))
        case "certificate":
            outcome.certificate = cast("Json", value)
        case "summary":
            outcome.summary = cast("Json", value)
        case "ring":
            center, ring = cast("tuple[int, Json]", value)
            outcome.rings[center] = ring
        case "radii":
            outcome.radii = cast("Json", value)
        case _:
            failure = cast("Json", value)
            outcome.failure = Failure(
                cast("Mapping[str, str | None]", failure["error"]),
                cast("int", failure["exit_code"]),
            )


def _death(status: int, errors: IO[bytes], *, is_late: bool) -> JobFailed:
    """What to say of a child that died without a word."""
    if is_late:
        return OutOfBudget(
            "the run did not stop at its budget and was ended", fix="give it more seconds"
        )
    if status == -signal.SIGKILL:
        return ResourceExhausted(
            "the process was killed, most likely for its memory",
            fix="ask for a cheaper method, such as product, or use a machine with more memory",
        )
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    cause = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    last = f": {lines[-1]}" if lines else ""
    return WorkerLost(f"the process died ({cause}){last}", fix="report it, with the model")
