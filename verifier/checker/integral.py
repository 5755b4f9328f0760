"""Operators that take integers and round to integers: QLinearConv, QLinearMatMul, QGemm, ...

    n_y = c(round(f(s_1 n_1, s_2 n_2, ...) / s_y))         n = q - z, c the clip of `steps`

with f an operator on numbers, and a bias of 32 bits that counts in s_1 s_2. So s_y n_y is within
s_y/2 of clip(f(..)), which stands for q_y; f is of what stands for the integers that enter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.counted import FOREIGN, RANGES, grid_of, steps_of, zeros_of
from verifier.checker.enclosures import TINY, U
from verifier.checker.folded import UP, finite
from verifier.checker.operands import Call, Constant, Grid, Signal, Stepped

if TYPE_CHECKING:
    from verifier.checker.operands import Anything


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where the operands are: integers, step and zero point, one after another."""

    op: str  #: on numbers
    taken: Sequence[int] = (0, 3)  #: places of integers that enter
    given: int = 6  #: the place of the step that leaves; the zero point follows
    bias: int | None = None
    #: Along which the steps of the second operand may differ, where they may.
    axis: Callable[[Call], int] | None = None


def _columns(call: Call) -> int:
    return 0 if call.integer("transB", 0) else -1


_ONE = {
    "QLinearAveragePool": "AveragePool",
    "QLinearGlobalAveragePool": "GlobalAveragePool",
    "QLinearLeakyRelu": "LeakyRelu",
    "QLinearSigmoid": "Sigmoid",
}
LAYOUTS: Mapping[str, Layout] = {
    "QLinearConv": Layout(op="Conv", bias=8, axis=lambda _: 0),
    "QLinearMatMul": Layout(op="MatMul", axis=lambda _: -1),
    f"{FOREIGN}QGemm": Layout(op="Gemm", bias=6, given=7, axis=_columns),
    f"{FOREIGN}QLinearAdd": Layout(op="Add"),
    f"{FOREIGN}QLinearMul": Layout(op="Mul"),
    f"{FOREIGN}QLinearConcat": Layout(op="Concat", taken=(), given=0),
    **{f"{FOREIGN}{name}": Layout(op=op, taken=(0,), given=3) for name, op in _ONE.items()},
}


def on_numbers(call: Call) -> Call:
    """The operator on the numbers that integers stand for; what it makes is not yet rounded."""
    layout = LAYOUTS[call.node.op]
    places = layout.taken or range(2, len(call.operands), 3)
    operands: list[Anything | None] = [_numbers(call, place, layout) for place in places]
    if layout.bias is not None and call.optional(layout.bias) is not None:
        operands.append(_bias(call, layout, layout.bias))
    if call.node.op == f"{FOREIGN}QGemm" and call.number("alpha", 1.0) != 1.0:
        call.not_checkable("alpha is not 1")
    if "Pool" in call.node.op and call.integer("channels_last", 0) != 0:
        call.not_checkable("its channels come last")
    name = call.node.name
    inner = name if _is_number(call, layout) else f"{name}:real"
    node = replace(call.node, op=layout.op, inputs=(), outputs=(inner,))
    return call.on(operands, node)


def grid_after(call: Call, dtype: str) -> Grid | None:
    """What integers that leave count, of numbers of that type; None where numbers leave."""
    layout = LAYOUTS[call.node.op]
    if _is_number(call, layout):
        return None
    kind = call.operand(layout.given + 1).dtype
    return grid_of(call, dtype, kind, layout.given, layout.given + 1)


def _is_number(call: Call, layout: Layout) -> bool:
    return call.optional(layout.given) is None


def _numbers(call: Call, place: int, layout: Layout) -> Signal | Constant:
    """What integers count: the signal that stands for them, of the same grid, or constants."""
    found = call.any_operand(place)
    if isinstance(found, Stepped):
        if grid_of(call, found.signal.dtype, found.dtype, place + 1, place + 2) != found.grid:
            call.not_checkable(f"operand {place} is counted in another step, or from another zero")
        return found.signal
    weight, step = call.exact(place), steps_of(call, place + 1)
    if weight.dtype not in RANGES:
        call.not_checkable(f"a weight of {weight.dtype}")
    zero = zeros_of(call, place + 2, weight.dtype)
    axis = layout.axis(call) if layout.axis is not None and place == layout.taken[1] else None
    value = (weight.value - _spread(call, weight, zero, axis)) * _spread(
        call, weight, step.value, axis
    )
    return finite(call, value, None, step.dtype)[0]


def _spread(call: Call, weight: Constant, array: np.ndarray, axis: int | None) -> np.ndarray:
    """Steps or zero points, as they broadcast onto a weight."""
    if array.size == 1 and array.ndim <= 1:
        return array.reshape(())
    if axis is None or weight.value.ndim == 0 or array.shape != (weight.shape[axis],):
        call.mismatch(f"steps of shape {array.shape} beside {weight.shape}")
    shape = [1] * weight.value.ndim
    shape[axis] = array.size
    return array.reshape(shape)


def _bias(call: Call, layout: Layout, place: int) -> Constant:
    """Integers that count in the product of both steps: 48 bits, and 80 with them."""
    found = call.exact(place)
    if found.dtype != "int32":
        call.invalid(f"a bias of {found.dtype}")
    first, second = (steps_of(call, taken + 1) for taken in layout.taken)
    step = first.value.reshape(-1) * second.value.reshape(-1)
    call.broadcast(found.shape, step.shape)
    value = found.value * step
    return finite(call, value, (np.abs(value) * U + TINY) * UP, first.dtype)[0]
