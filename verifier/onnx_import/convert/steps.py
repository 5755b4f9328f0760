"""Integers on the data path: rounded numbers, counted in steps.

    QuantizeLinear       q = clip(round(x/s) + z, least, greatest)                             (1)
    DequantizeLinear     y = s (q - z)                                                         (2)

Without the rounding s (q - z) is clip(x, s (least - z), s (greatest - z)), and the rounded one is
half a step from that at most, since clip moves no two numbers apart. So the integers are
represented by that clip; (2) by the same numbers gives it back, and whatever only moves or chooses
integers does to it what it does to them. This is for requests that ask for `real-idealised`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt
from typing import TYPE_CHECKING, Final

import numpy as np

from verifier.network import elementwise as functions
from verifier.onnx_import.convert.emitted import Emitted, elementwise
from verifier.onnx_import.counted import (
    QUANTISERS,
    RANGES,
    along,
    check_output,
    integers_of,
)
from verifier.onnx_import.patterns import trace
from verifier.onnx_import.values import Constant, Grid, Signal, Stepped

if TYPE_CHECKING:
    from verifier.onnx_import.call import Call, Unrepresented
    from verifier.onnx_import.values import Value

#: What does to the numbers that integers count what it does to the integers.
MOVERS: Final = frozenset(
    {"Clip", "Concat", "Flatten", "Gather", "Identity", "MaxPool", "Reshape", "Slice", "Split"}
    | {"Squeeze", "Transpose", "Unsqueeze"}
)
_CLIPS: Final = 12  #: the opset from which integers are clipped
_FEW: Final = frozenset({"int4", "uint4"})  #: bits, which run times do not put out
_ROOM: Final = 1 + 1e-9  #: for what the checker rounds up


@dataclass(frozen=True, slots=True)
class Rounded:
    """The nodes of a rounded tensor without the rounding, and how far that may be from it."""

    emitted: Emitted
    grid: Grid

    @property
    def deviation(self) -> float:
        """Half a step for every entry, in the length of all."""
        return sqrt(self.emitted.nodes[-1].size) * self.grid.step / 2 * _ROOM


def rounds(call: Call) -> bool:
    """Whether integers on the data path enter or leave the operator."""
    return call.op in QUANTISERS or any(isinstance(value, Stepped) for value in call.inputs)


def quantised(call: Call) -> Rounded:
    """(1) without its rounding."""
    x = call.signal(0)
    grid = grid_of(call, x.dtype, 1, 2, integers_of(call))
    return clipped(call, x, grid)


def clipped(call: Call, x: Signal, grid: Grid) -> Rounded:
    """A signal within the ends of a grid."""
    lower, upper = grid.ends
    return Rounded(elementwise(call, x, functions.Clip(x.size, lower, upper)), grid)


def dequantised(call: Call) -> Signal:
    """(2): what stands for the integers, if it is (1) with the same numbers that they come from."""
    stepped = call.input(0)
    if not isinstance(stepped, Stepped):
        raise call.unsupported("operand 0 is not quantised")
    grid = grid_of(call, stepped.signal.dtype, 1, 2, stepped.grid.kind)
    if grid != stepped.grid:
        raise jumps(
            call, "it counts in another step, or from another zero point, than its operand does"
        )
    check_output(call, stepped.signal.dtype)
    traces = trace.base(call.output, stepped.shape)
    return replace(stepped.signal, traces=traces)


def moved_operands(call: Call) -> tuple[Call, Grid]:
    """The operator on what stands for its integers, and the grid of what leaves."""
    stepped = [value for value in call.inputs if isinstance(value, Stepped)]
    others = [value for value in call.inputs[1:] if isinstance(value, Signal)]
    grid = stepped[0].grid
    joined = call.op == "Concat" and len(stepped) < len(call.inputs)
    if call.op not in MOVERS or others or joined or any(one.grid != grid for one in stepped):
        raise jumps(
            call, f"it takes {grid.kind} as integers, which are only dequantised, moved or chosen"
        )
    if not isinstance(call.input(0), Stepped):
        raise jumps(call, f"its operand {len(call.inputs) - 1} is quantised")
    inputs = [v.signal if isinstance(v, Stepped) else v for v in call.inputs]
    if call.op == "Clip":
        inputs[1:] = [None if v is None else _limit(call, v, stepped[0]) for v in inputs[1:]]
    return replace(call, inputs=tuple(inputs)), grid


def _limit(call: Call, value: Value, stepped: Stepped) -> Constant:
    """The number that a limit of integers counts."""
    grid = stepped.grid
    if not isinstance(value, Constant) or value.dtype != grid.kind or call.opset < _CLIPS:
        raise jumps(call, f"its limits are no {grid.kind}")
    return Constant.of(np.asarray(grid.step * (value.array - grid.zero)), stepped.signal.dtype)


def jumps(call: Call, what: str) -> Unrepresented:
    """The answer to integers that are put to another use."""
    return call.blocked(
        "discontinuous-op",
        f"{what}: its result jumps, and no continuous function stands for it",
        "quantise in the form of QuantizeLinear and DequantizeLinear around float operators "
        "(onnxruntime.quantization: QuantFormat.QDQ)",
    )


def grid_of(call: Call, dtype: str, scale: int, zero: int, kind: str) -> Grid:
    """The grid that two constants of an operator say.

    Args:
        call: the operator.
        dtype: of the numbers that are counted.
        scale: the operand that is the step.
        zero: the operand that is the zero point; 0 where it is left out.
        kind: the type of the integers, which the zero point has too.
    """
    step, start = _number(call, scale, "its step"), 0
    given = call.input(zero)
    if given is not None:
        start = _number(call, zero, "its zero point")
    if kind not in RANGES.keys() - _FEW or (given is not None and given.dtype != kind):
        raise jumps(call, f"it counts in {kind}, from a zero point of another type or none known")
    counted = call.input(scale)
    if counted is None or counted.dtype != dtype:
        raise jumps(call, f"its step is no {dtype}, as what it counts is")
    if not 0 < step:
        raise call.attributes.invalid("y_scale", f"is {step}; it has to be positive")
    if along(call)[1]:
        raise jumps(call, "its step differs from block to block")
    return Grid(float(step), int(start), *RANGES[kind], kind)


def _number(call: Call, place: int, what: str) -> float | int:
    """A constant operand that is one number, of the type that it has."""
    value = call.input(place)
    if not isinstance(value, Constant):
        raise jumps(call, f"{what} depends on the input")
    if value.array.size != 1 or 1 < value.array.ndim:
        raise jumps(call, f"{what} differs along an axis")
    return value.array.reshape(()).item()
