"""Functions that are meant to be continuous and are not as they are written, told apart by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from verifier.onnx_import.patterns.folded_seconds import folded_second
from verifier.onnx_import.patterns.turns import is_folded_mirror

if TYPE_CHECKING:
    from verifier.onnx_import.call import Call, Unrepresented
    from verifier.onnx_import.patterns.compounds import Written

_EXPORTER: Final = (
    "export with torch's older exporter (torch.onnx.export(..., dynamo=False)), which "
)
_SEMANTICS: Final = 'semantics "real-idealised"'


def known_jump(call: Call, written: Written) -> Unrepresented | None:
    """What is said of the operator that ends such a function."""
    if call.op == "Where" and softplus_of(call, written) is not None:
        return call.blocked(
            "discontinuous-op",
            "it is softplus below a threshold and x above it, and jumps there by log(1 + e^-t): no "
            "Lipschitz constant exists",
            f"{_EXPORTER}writes Softplus alone, or ask for {_SEMANTICS}",
        )
    if call.op == "Concat" and is_folded_mirror(call, written):
        return call.blocked(
            "discontinuous-op",
            "it is a mirror whose sines and cosines were folded to numbers: rounded, its two sides "
            "no longer meet, and the jump grows with x, so that no Lipschitz constant exists",
            f"{_EXPORTER}keeps the angles, or ask for {_SEMANTICS}",
        )
    if folded_second(call, written) is not None:
        return call.blocked(
            "discontinuous-op",
            "it is a second-order mirror whose sines, cosines and thresholds were folded to "
            "numbers: rounded, its sides no longer meet, and the jump grows with x, so that no "
            "Lipschitz constant exists",
            f"{_EXPORTER}keeps the angles, or ask for {_SEMANTICS}",
        )
    return None


@dataclass(frozen=True, slots=True)
class Thresholded:
    """where(threshold < steepness x, x, scale softplus(steepness x))."""

    x: str
    threshold: float
    steepness: float
    scale: float


def softplus_of(call: Call, written: Written) -> Thresholded | None:
    """The softplus, if this Where ends one with a threshold."""
    if len(call.operator.inputs) != 3:
        return None
    test, x, soft = call.operator.inputs
    above = written.operator(test, "Greater")
    scale, factors = written.factors(soft)
    softplus = written.operator(factors[0], "Softplus") if len(factors) == 1 else None
    if above is None or softplus is None or above.inputs[0] != softplus.inputs[0]:
        return None
    steepness, inner = written.factors(softplus.inputs[0])
    threshold = written.scalar(above.inputs[1])
    if inner != [x] or threshold is None:
        return None
    return Thresholded(x, threshold, steepness, scale)
