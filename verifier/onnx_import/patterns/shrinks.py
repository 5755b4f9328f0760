"""Soft shrinkage as exporters write it with comparisons.

For 0 < t,

where(t < |x|, x - t sign(x), 0 x)
where(t < x, x - t, 0) + where(x < -t, x + t, 0)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from verifier.onnx_import.call import Call
    from verifier.onnx_import.reader import Operator


@runtime_checkable
class Back(Protocol):
    """What made a tensor, and which number it is."""

    def operator(self, name: str, op: str) -> Operator | None:
        """The operator that made a tensor, if it was this one."""
        ...

    def scalar(self, name: str) -> float | None:
        """A constant that is one number."""
        ...


def shrunk(call: Call, written: Back) -> tuple[str, float] | None:
    """(x, t), if this operator is the last one of such a form."""
    if call.op == "Where":
        return _by_sign(call.operator.inputs, written)
    for one, other in (call.operator.inputs, call.operator.inputs[::-1]):
        above, below = _side(one, "Greater", written), _side(other, "Less", written)
        if above is not None and below is not None and above[0] == below[0]:
            return above if 0 < above[1] == -below[1] else None
    return None


def _by_sign(inputs: tuple[str, ...], written: Back) -> tuple[str, float] | None:
    test = written.operator(inputs[0], "Greater")
    size = None if test is None else written.operator(test.inputs[0], "Abs")
    value = written.operator(inputs[1], "Sub")
    if test is None or size is None or value is None:
        return None
    x, limit = size.inputs[0], written.scalar(test.inputs[1])
    moved = _factor(value.inputs[1], "Sign", x, written)
    is_zero = written.scalar(inputs[2]) == 0.0 or _factor(inputs[2], "", x, written) == 0.0
    if limit is None or not 0 < limit or value.inputs[0] != x or moved != limit or not is_zero:
        return None
    return x, limit


def _factor(name: str, op: str, x: str, written: Back) -> float | None:
    """C where the tensor is c op(x), or c x."""
    product = written.operator(name, "Mul")
    for one, other in (product.inputs, product.inputs[::-1]) if product is not None else ():
        maker = written.operator(one, op)
        if (one if not op else "" if maker is None else maker.inputs[0]) == x:
            return written.scalar(other)
    return None


def _side(name: str, op: str, written: Back) -> tuple[str, float] | None:
    """(x, t) where the tensor is where(x op t, x - t, 0)."""
    chosen = written.operator(name, "Where")
    test = None if chosen is None else written.operator(chosen.inputs[0], op)
    if chosen is None or test is None or written.scalar(chosen.inputs[2]) != 0.0:
        return None
    x, limit = test.inputs[0], written.scalar(test.inputs[1])
    shift = _shift(chosen.inputs[1], x, written)
    return (x, limit) if limit is not None and shift == -limit else None


def _shift(name: str, x: str, written: Back) -> float | None:
    """C where the tensor is x + c."""
    if (less := written.operator(name, "Sub")) is not None:
        number = written.scalar(less.inputs[1])
        return None if number is None or less.inputs[0] != x else -number
    total = written.operator(name, "Add")
    for one, other in (total.inputs, total.inputs[::-1]) if total is not None else ():
        if one == x:
            return written.scalar(other)
    return None
