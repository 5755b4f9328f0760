"""Operators that take integers and round to integers: QLinearConv, QLinearMatMul, QGemm, ...

    q_y = clip(round(f(s_1 (q_1 - z_1), s_2 (q_2 - z_2), ...) / s_y) + z_y, least, greatest)

with f the operator on numbers that the name says, and a bias of 32 bits that counts in s_1 s_2.
What stands for q_y is f of what stands for the integers that enter, within the ends of its own
grid.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from verifier.onnx_import.convert import RULES
from verifier.onnx_import.convert.emitted import Emitted
from verifier.onnx_import.convert.layouts import LAYOUTS, Layout
from verifier.onnx_import.convert.steps import Rounded, clipped, grid_of, jumps
from verifier.onnx_import.counted import FOREIGN, RANGES
from verifier.onnx_import.values import Constant, Signal, Stepped

if TYPE_CHECKING:
    from verifier.onnx_import.call import Call
    from verifier.onnx_import.values import Value


def rounded(call: Call) -> Rounded | Emitted:
    """What stands for the result; of QGemm without a step for it, the numbers themselves."""
    layout = LAYOUTS[call.op]
    places = layout.taken or range(2, len(call.inputs), 3)
    inputs: list[Value] = [_numbers(call, place, layout) for place in places]
    if layout.bias is not None and call.input(layout.bias) is not None:
        inputs.append(_bias(call, layout))
    if layout.op == "Mul" and not any(isinstance(value, Constant) for value in inputs):
        raise jumps(call, "it multiplies two signals")
    dtype = next(value.dtype for value in inputs if isinstance(value, Signal))
    _require_plain(call)
    is_number = call.input(layout.given) is None
    name = call.output if is_number else f"{call.output}:real"
    operator = replace(call.operator, op=layout.op, outputs=(name,))
    made = RULES[layout.op](replace(call, operator=operator, inputs=tuple(inputs)))
    if is_number:
        return made
    grid = grid_of(call, dtype, layout.given, layout.given + 1, _kind(call, layout.given + 1))
    last = clipped(call, Signal(made.nodes[-1].name, made.shape, dtype), grid)
    return Rounded(Emitted((*made.nodes, *last.emitted.nodes), made.shape), grid)


def _require_plain(call: Call) -> None:
    """Attributes that only the operator on integers has, by which it would be another one."""
    if call.op == f"{FOREIGN}QGemm" and call.attributes.number("alpha", 1.0) != 1.0:
        raise call.unsupported("its alpha is not 1")
    if "Pool" in call.op and call.attributes.integer("channels_last", 0):
        raise call.unsupported("its channels come last")


def _numbers(call: Call, place: int, layout: Layout) -> Signal | Constant:
    """What integers count that enter: a signal of the same grid, or a constant."""
    value = call.input(place)
    if isinstance(value, Stepped):
        if grid_of(call, value.signal.dtype, place + 1, place + 2, value.dtype) != value.grid:
            raise jumps(call, f"operand {place} is counted in another step, or from another zero")
        return value.signal
    if not isinstance(value, Constant):
        raise jumps(call, f"operand {place} is not quantised")
    axis = layout.axis(call) if layout.axis is not None and place == layout.taken[1] else None
    if value.dtype not in RANGES or _kind(call, place + 2) not in {"", value.dtype}:
        raise call.unsupported(f"operand {place} is {value.dtype}, or its zero point is not")
    step, zero = (_spread(call, value, place + more, axis) for more in (1, 2))
    return Constant.of(np.asarray((value.array - zero) * step), _kind(call, place + 1))


def _spread(call: Call, weight: Constant, place: int, axis: int | None) -> np.ndarray:
    """Steps or zero points, as they broadcast onto a weight."""
    if call.input(place) is None:
        return np.zeros((), np.int64)
    array = call.array(place)
    if array.size == 1 and array.ndim <= 1:
        return array.reshape(())
    if axis is None or array.shape != (weight.shape[axis],):
        raise call.unsupported(f"operand {place} has shape {array.shape}")
    shape = [1] * weight.array.ndim
    shape[axis] = array.size
    return array.reshape(shape)


def _bias(call: Call, layout: Layout) -> Constant:
    """Integers that count in the product of both steps."""
    first, second = (call.array(place + 1).reshape(-1) for place in layout.taken)
    assert layout.bias is not None  # noqa: S101 (the caller's own condition)
    if _kind(call, layout.bias) != "int32":
        raise call.unsupported("its bias is not int32")
    kind = _kind(call, layout.taken[0] + 1)
    return Constant.of(np.asarray(call.array(layout.bias) * (first * second)), kind)


def _kind(call: Call, place: int) -> str:
    """The type of an operand, empty where it is left out."""
    value = call.input(place)
    return "" if value is None else value.dtype
