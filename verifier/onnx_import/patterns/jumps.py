"""Functions that are meant to be continuous and are not as they are written, told apart by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from verifier.onnx_import.patterns.turns import is_folded_mirror

if TYPE_CHECKING:
    from verifier.onnx_import.call import Call, Unrepresented
    from verifier.onnx_import.patterns.compounds import Written

_EXPORTER: Final = (
    "export with torch's older exporter (torch.onnx.export(..., dynamo=False)), which "
)


def known_jump(call: Call, written: Written) -> Unrepresented | None:
    """What is said of the operator that ends such a function."""
    if call.op == "Where" and _is_softplus(call, written):
        return call.blocked(
            "discontinuous-op",
            "it is softplus below a threshold and x above it, and jumps there by log(1 + e^-t): no "
            "Lipschitz constant exists",
            f"{_EXPORTER}writes Softplus alone",
        )
    if call.op == "Concat" and is_folded_mirror(call, written):
        return call.blocked(
            "discontinuous-op",
            "it is a mirror whose sines and cosines were folded to numbers: rounded, its two sides "
            "no longer meet, and the jump grows with x, so that no Lipschitz constant exists",
            f"{_EXPORTER}keeps the angles",
        )
    return None


def _is_softplus(call: Call, written: Written) -> bool:
    """where(t < k x, x, softplus(k x)/k)."""
    if len(call.operator.inputs) != 3:
        return False
    test, x, soft = call.operator.inputs
    above = written.operator(test, "Greater")
    _, factors = written.factors(soft)
    softplus = written.operator(factors[0], "Softplus") if len(factors) == 1 else None
    if above is None or softplus is None:
        return False
    inner = written.factors(softplus.inputs[0])[1]
    return inner == [x] and above.inputs[0] == softplus.inputs[0]
