"""What the child of `service.child` does: one task, told and answered through its pipes.

It reads its task, gives up what it does not need (`sandbox`), and only then looks at the model.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, TypeAlias, cast

from service import sandbox
from service.failures import FAILED, REFUSED, failure_of
from service.producer import told_in
from verifier.errors import LipcertError, RequestRefused, ResourceExhausted
from verifier.radius_json import parse_question

if TYPE_CHECKING:
    from verifier.verify import Progress

Json: TypeAlias = dict[str, object]


def main() -> None:
    """Does one task, and answers on what was standard output."""
    # Libraries print to descriptor 1: it becomes standard error, and the answers go elsewhere.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    header = cast("Json", json.loads(sys.stdin.buffer.readline()))
    model = sys.stdin.buffer.read(cast("int", header["size"]))
    start = sys.stdin.buffer.read(cast("int", header["checkpoint"] or 0))
    held = sandbox.enclose()  # before there are other threads
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def answer(message: Json) -> None:
        answers.write(json.dumps(told_in(message, held)) + "\n")
        answers.flush()

    work(header, model, start, answer)


def work(header: Json, model: bytes, start: bytes, answer: Callable[[Json], None]) -> None:
    """Does one task, perhaps from a checkpoint; what it cannot do it answers, too."""
    try:
        _do(header, model, start, answer)
    except LipcertError as error:
        failure = failure_of(error)
        answer({"failure": {"error": dict(failure.error), "exit_code": failure.exit_code}})
    except MemoryError:
        error = ResourceExhausted("the run needs more memory", fix="ask for method product")
        answer({"failure": {"error": error.to_json(), "exit_code": FAILED}})
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(("verifier", "service")):
            raise  # ours: a defect, not a light installation
        light = RequestRefused(
            f"this installation cannot certify: module {error.name!r} is missing",
            fix="pip install 'lipcert[verify]'",
        )
        answer({"failure": {"error": light.to_json(), "exit_code": REFUSED}})


def _end_with_parent() -> None:
    # Not sys.stdin: its lock, held by a thread, would stop the interpreter from ending.
    while os.read(0, 4096):
        pass
    os._exit(1)  # the parent is gone: nobody wants the answer


def _do(header: Json, model: bytes, start: bytes, answer: Callable[[Json], None]) -> None:
    from verifier.certificate_json import certificate_json
    from verifier.request_json import parse_request
    from verifier.verify import inspect as summary_of
    from verifier.verify import verify

    if header["task"] == "inspect":
        asked = header["request"]
        answer({"summary": summary_of(model, None if asked is None else parse_request(asked))})
        return
    if header["task"] == "radius":
        _answer_radii(header, model, answer)
        return

    def keep(data: bytes) -> None:
        answer({"checkpoint": b64encode(data).decode()})

    best = verify(
        model,
        parse_request(header["request"]),
        on_certificate=lambda certificate: answer({"certificate": certificate_json(certificate)}),
        on_progress=lambda progress: answer({"progress": _progress_json(progress)}),
        on_checkpoint=None if header.get("checkpoint") is None else keep,
        checkpoint=start or None,
    )
    answer({"certificate": certificate_json(best)})


def _progress_json(progress: Progress) -> Json:
    return {
        "phase": progress.phase,
        "iteration": progress.iteration,
        "open": progress.open,
        "upper": progress.upper,
        "lower": progress.lower,
        "seconds": progress.seconds,
    }


def _answer_radii(header: Json, model: bytes, answer: Callable[[Json], None]) -> None:
    from verifier.radius import Ring, radii

    began = time.monotonic()

    def tell(center: int, low: float, high: float) -> None:
        spent = time.monotonic() - began
        phase = f"center {center}: radius proved {low}, at most {high}"
        answer({"progress": {"phase": phase, "upper": None, "lower": None, "seconds": spent}})

    def keep(center: int, ring: Ring) -> None:
        answer({"ring": [center, asdict(ring.to_json())]})

    found = radii(model, parse_question(header["request"]), tell, keep)
    answer({"radii": found.to_json()})


if __name__ == "__main__":
    main()
