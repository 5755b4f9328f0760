"""Stand-ins for what the children call: verifications that do what their model's bytes say.

The service's children import this module by name, as they import the verifier's own functions.
A model is a JSON text here; every certificate in it is one that the fake checker can recompute.
Other text is no model; bytes that are no text are one without steps.
"""

# ruff: noqa: ANN401 - the plans are JSON, and JSON is anything
import ctypes
import hashlib
import inspect as inspector
import json
import mmap
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from verifier.certificate import (
    Assumption,
    Certificate,
    Claim,
    Idealised,
    ItemBound,
    ProductItem,
    ProductProof,
    Witness,
    decimal_upper,
    log10_upper,
    verdict_of,
)
from verifier.errors import DiscontinuousOp, DynamicShape, InvalidRequest, NotOnnx
from verifier.norms import Norm, NormPair
from verifier.property import Margins, Property, Request
from verifier.radius_json import Question

#: What a bound rests on where weights are frozen that a caller could replace.
ASSUMED = (Assumption(code="overridable-initializer", node="w", value=f"sha256:{'0' * 64}"),)
NEAR = (Idealised(node="w", pattern="folded-mirror", absolute=0.0, relative=1e-7),)


@dataclass(frozen=True)
class Progress:
    """As the verifier's."""

    phase: str
    upper: float | None
    lower: float | None
    seconds: float
    iteration: int | None = None
    gap: float | None = None
    open: int | None = None


@dataclass(frozen=True)
class Ring:
    """As the verifier's."""

    label: int
    radius: float
    certificate: Certificate


@dataclass(frozen=True)
class Robust:
    """As the checker's."""

    valid: bool
    code: str
    reason: str
    label: int | None = None
    radius: float | None = None


@dataclass(frozen=True)
class Verdict:
    """As the checker's."""

    valid: bool
    code: str
    reason: str
    node: str | None = None


def model(*steps: object, bound: float = 4.0, **members: object) -> bytes:
    """A model whose true bound is `bound`, and whose verification takes these steps."""
    plan = {"bound": bound, "steps": steps, "inputs": 3, "outputs": 2, **members}
    return json.dumps(plan).encode()


def inspect(data: bytes) -> dict[str, object]:
    plan = _plan(data)
    for step in plan["steps"]:
        if step == "die-reading":
            _die()
        if step == "escape":
            _escape()
        if isinstance(step, list) and step[0] == "read-after":
            _wait_for(step[1])
        if step == "symbolic":
            raise DynamicShape("a dimension 'N' is not fixed", fix="bind it")
    sizes = {"input": {"size": plan["inputs"]}, "output": {"size": plan["outputs"]}}
    return {**sizes, **plan.get("summary", {})}


def verify(
    data: bytes,
    request: Request,
    *,
    on_certificate: Callable[[Certificate], None],
    on_progress: Callable[[Progress], None],
    on_checkpoint: Callable[[bytes], None],
    checkpoint: bytes | None,
) -> Certificate:
    """Does the steps; ["keep", text] leaves a checkpoint, from which no step is done again."""
    plan = _plan(data)
    region = request.property.region
    if getattr(region, "dimension", plan["inputs"]) != plan["inputs"]:
        raise InvalidRequest("the region has another dimension", fix="give 3 numbers")
    on_progress(Progress("product", None, None, 0.0))
    for step in plan["steps"]:
        if step == "divide":
            on_progress(Progress("branch: dividing", None, None, 0.1, iteration=2, open=34))
        if _is_done(step, checkpoint, on_checkpoint):
            break
        _take(step, data, request, on_certificate)
    if "lie" in plan["steps"]:
        return certificate(data, request, 0.9 * plan["bound"])
    if "other question" in plan["steps"]:
        return certificate(data, replace(request, target=9.0), plan["bound"])
    return certificate(data, request, plan["bound"])


def _is_done(
    step: object, checkpoint: bytes | None, on_checkpoint: Callable[[bytes], None]
) -> bool:
    """Do what is about checkpoints; whether the earlier run had come this far."""
    if step == "refuse-checkpoint" and checkpoint is not None:
        raise InvalidRequest("of another version", fix="start anew", pointer="/checkpoint")
    if step == "hang-resumed" and checkpoint is not None:
        _hang(None)
    if isinstance(step, list) and cast("list[Any]", step)[0] == "keep":
        text = str(cast("list[Any]", step)[1]).encode()
        if checkpoint == text:
            return True
        on_checkpoint(text)
    return False


def radii(
    data: bytes,
    question: Question,
    on_progress: Callable[[int, float, float], None],
    on_ring: Callable[[int, Ring], None],
) -> None:
    """Does the steps; ["ring", [center, radius]] claims a ball."""
    plan = _plan(data)
    on_progress(0, 0.0, 1.0)
    for step in plan["steps"]:
        if isinstance(step, list) and cast("list[Any]", step)[0] == "ring":
            place, radius = cast("list[Any]", step)[1]
            on_ring(place, Ring(0, radius, ring_certificate(data, question, place, radius)))
        else:
            _take(step, data, Request(), lambda _: None)


def _take(
    step: object, data: bytes, request: Request, on_certificate: Callable[[Certificate], None]
) -> None:
    """Do one step of a model's plan: a word, or a word and its argument."""
    word, argument = cast("list[Any]", step) if isinstance(step, list) else (str(step), None)
    if word == "publish":
        on_certificate(certificate(data, request, float(str(argument))))
    elif word in _STEPS:
        _STEPS[word](argument)


def _wait_for(path: Any) -> None:
    while not Path(path).exists():
        time.sleep(0.01)


def _count(path: Any) -> None:
    with Path(path).open("a") as log:
        log.write(f"{os.getpid()}\n")


def _die(_: Any = None) -> None:
    signal.raise_signal(signal.SIGKILL)  # a kill is not the sandbox's to allow


def _die_once(path: Any) -> None:
    if not Path(path).exists():
        Path(path).touch()
        _die()


def _grow(amount: Any) -> None:
    held = bytearray(amount)
    held[::4096] = b"x" * len(held[::4096])


def _grow_shared(amount: Any) -> None:
    held = mmap.mmap(-1, amount)
    for page in range(0, amount, 4096):
        held[page] = 1
    time.sleep(600)


def _hang(_: Any) -> None:
    """Native code that holds the interpreter: no Python signal handler and no thread runs."""
    ctypes.PyDLL(None).sleep(600)


def _escape(_: Any = None) -> None:
    """What a hostile model would try first; a defect where any of it works."""
    for attempt in (
        lambda: Path("/etc/passwd").read_text(),
        lambda: Path("/tmp/escaped").touch(),  # noqa: S108 - a place that everyone may write in
        os.fork,
        socket.socket,
        lambda: os.kill(os.getppid(), 0),
    ):
        with suppress(PermissionError):
            attempt()
            raise AssertionError("the sandbox is open")


def _jump(_: Any) -> None:
    raise DiscontinuousOp("node 'sign_1' jumps", fix="use a continuous op", node="sign_1")


def _crash(_: Any) -> None:
    raise ZeroDivisionError("a defect")


def _pipe() -> Any:
    """The worker's end of the pipe to its supervisor, as a hostile model would find it."""
    frame = inspector.currentframe()
    while frame is not None and "reports" not in frame.f_locals:
        frame = frame.f_back
    assert frame is not None
    return frame.f_locals["reports"]


def _close(_: Any) -> None:
    _pipe().close()
    time.sleep(600)


def _send(text: bytes) -> Callable[[Any], None]:
    def send(_: Any) -> None:
        _pipe().send_bytes(text)
        time.sleep(600)

    return send


_STEPS: dict[str, Callable[[Any], None]] = {
    "closed": _close,
    "count": _count,
    "crash": _crash,
    "die": _die,
    "die-once": _die_once,
    "escape": _escape,
    "garbage": _send(b"Pnot json"),
    "grow": _grow,
    "grow-shared": _grow_shared,
    "hang": _hang,
    "jump": _jump,
    "oversized": _send(b"C" + b"x" * 300_000),
    "wait-for": _wait_for,
    "wait-s": time.sleep,
}


def certificate(data: bytes, request: Request, bound: float) -> Certificate:
    claimed = decimal_upper(bound)
    lower = Witness(value=1.0, x=(1.0, 0.0, 0.0), y=(0.0, 0.0, 0.0))
    return Certificate(
        claim=Claim(
            model=f"sha256:{hashlib.sha256(data).hexdigest()}",
            property=request.property,
            bound=claimed,
            log10_bound=log10_upper(claimed),
            assumptions=ASSUMED if request.options.get("freeze_initializers") else (),
            idealised=NEAR if request.semantics == "real-idealised" else (),
        ),
        proof=ProductProof(patterns=(), items=(ProductItem(internal=Norm.L2),)),
        lower_bound=lower,
        target=request.target,
        verdict=verdict_of(claimed, lower, request.target),
        producer={"version": "test", "torch": None, "seed": 0},
        resources={"seconds": 0.1},
    )


def ring_certificate(data: bytes, question: Question, place: int, radius: float) -> Certificate:
    """The one margin's bound, on the ball."""
    asked = Property(
        scope="local",
        norm=NormPair(question.norm, Norm.LINF),
        region=question.ball(place, radius),
        outputs=Margins(((0, 1),)),
    )
    plain = certificate(data, Request(property=asked), 1.0)
    bounds = (ItemBound(bound=plain.claim.bound, margin=(0, 1)),)
    return replace(plain, claim=replace(plain.claim, bounds=bounds), lower_bound=None)


def check_radius(certificate: Certificate, data: bytes) -> Robust:
    """Accepts every radius up to the model's own bound; the label is 0."""
    radius = getattr(certificate.claim.property.region, "radius", None)
    if radius is None or _plan(data)["bound"] < radius:
        return Robust(False, "proof-refuted", f"{radius} is too large")
    return Robust(True, "valid", "", label=0, radius=radius)


def check(certificate: Certificate, data: bytes) -> Verdict:
    """Accepts every bound from the model's own up."""
    true = _plan(data)["bound"]
    if "escape" in _plan(data)["steps"]:
        _escape()
    for step in _plan(data)["steps"]:
        if step[0] == "check-waits-for":
            _wait_for(step[1])
    if "not checkable" in _plan(data)["steps"]:
        return Verdict(False, "not-checkable", "op_7 is unknown to the checker", "op_7")
    if certificate.claim.bound is None or certificate.claim.bound < true:
        return Verdict(False, "bound-not-proved", f"{certificate.claim.bound} is below {true}")
    return Verdict(True, "valid", "")


def _plan(data: bytes) -> dict[str, Any]:
    try:
        plan = json.loads(data.decode())
    except UnicodeDecodeError:
        return {"bound": 4.0, "steps": [], "inputs": 3, "outputs": 2}
    except ValueError as error:
        raise NotOnnx("the bytes are no model", fix="send a model") from error
    if not isinstance(plan, dict) or "steps" not in plan:
        raise NotOnnx("the bytes are no model", fix="send a model")
    return plan
