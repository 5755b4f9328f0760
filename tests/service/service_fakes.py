"""Stand-ins for what the children call: verifications that do what their model's bytes say.

The service's children import this module by name, as they import the verifier's own functions.
A model is a JSON text here; every certificate in it is one that the fake checker can recompute.
"""

import hashlib
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verifier.certificate import (
    Certificate,
    Claim,
    ProductItem,
    ProductProof,
    Witness,
    decimal_upper,
    log10_upper,
    verdict_of,
)
from verifier.errors import DiscontinuousOp, InvalidRequest, NotOnnx
from verifier.norms import Norm
from verifier.property import Request


@dataclass(frozen=True)
class Progress:
    phase: str
    upper: float | None
    lower: float | None
    seconds: float


@dataclass(frozen=True)
class Verdict:
    valid: bool
    code: str
    reason: str
    node: str | None = None


def model(*steps: object, bound: float = 4.0) -> bytes:
    """A model whose true bound is `bound`, and whose verification takes these steps."""
    return json.dumps({"bound": bound, "steps": steps, "inputs": 3, "outputs": 2}).encode()


def inspect(data: bytes) -> dict[str, object]:
    plan = _plan(data)
    for step in plan["steps"]:
        if step == "die-reading":
            os.kill(os.getpid(), signal.SIGKILL)
    return {"input_shape": [plan["inputs"]], "output_shape": [plan["outputs"]], "layers": []}


def verify(
    data: bytes,
    request: Request,
    *,
    on_certificate: Callable[[Certificate], None],
    on_progress: Callable[[Progress], None],
) -> Certificate:
    plan = _plan(data)
    region = request.property.region
    if getattr(region, "dimension", plan["inputs"]) != plan["inputs"]:
        raise InvalidRequest("the region has another dimension", fix="give 3 numbers")
    on_progress(Progress("product", None, None, 0.0))
    for step in plan["steps"]:
        _take(step, data, request, on_certificate)
    return certificate(data, request, plan["bound"])


def _take(
    step: Any, data: bytes, request: Request, on_certificate: Callable[[Certificate], None]
) -> None:
    match step:
        case ["publish", bound]:
            on_certificate(certificate(data, request, bound))
        case ["wait-for", path]:
            while not Path(path).exists():
                time.sleep(0.01)
        case ["touch", path]:
            Path(path).touch()
        case ["count", path]:
            with Path(path).open("a") as log:
                log.write(f"{os.getpid()}\n")
        case ["die-once", path] if not Path(path).exists():
            Path(path).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        case ["grow", amount]:
            held = bytearray(amount)
            held[::4096] = b"x" * len(held[::4096])
            time.sleep(60)
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            # Native code that never comes back to the interpreter: no Python signal handler runs.
            import ctypes

            ctypes.PyDLL(None).sleep(600)
        case "jump":
            raise DiscontinuousOp("node 'sign_1' jumps", fix="use a continuous op", node="sign_1")
        case "crash":
            raise ZeroDivisionError("a defect")
        case _:
            pass


def certificate(data: bytes, request: Request, bound: float) -> Certificate:
    claimed = decimal_upper(bound)
    lower = Witness(value=1.0, x=(1.0, 0.0, 0.0), y=(0.0, 0.0, 0.0))
    return Certificate(
        claim=Claim(
            model=f"sha256:{hashlib.sha256(data).hexdigest()}",
            property=request.property,
            bound=claimed,
            log10_bound=log10_upper(claimed),
        ),
        proof=ProductProof(patterns=(), items=(ProductItem(internal=Norm.L2),)),
        lower_bound=lower,
        target=request.target,
        verdict=verdict_of(claimed, lower, request.target),
        producer={"version": "test", "torch": None, "seed": 0},
        resources={"seconds": 0.1},
    )


def check(certificate: Certificate, data: bytes) -> Verdict:
    """Accepts every bound from the model's own up."""
    true = _plan(data)["bound"]
    if certificate.claim.bound is None or certificate.claim.bound < true:
        return Verdict(False, "bound-not-proved", f"{certificate.claim.bound} is below {true}")
    return Verdict(True, "valid", "")


def _plan(data: bytes) -> dict[str, Any]:
    try:
        plan = json.loads(data)
    except ValueError as error:
        raise NotOnnx("the bytes are no model", fix="send a model") from error
    if not isinstance(plan, dict) or "steps" not in plan:
        raise NotOnnx("the bytes are no model", fix="send a model")
    return plan
