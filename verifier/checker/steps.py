"""Integers on the data path, by the numbers that they count before they are rounded.

    QuantizeLinear       q = clip(round(x/s) + z, least, greatest)                             (1)
    DequantizeLinear     y = s (q - z)                                                         (2)

With n = q - z, and c the clip to the integers least - z and greatest - z, n = c(round(x/s)). It is
within 1/2 of c(x/s), since c moves no two numbers apart and round moves none by more. So s n is
within s/2 of s c(x/s) = clip(x, s (least - z), s (greatest - z)), which stands for q. The ends are
exact: 24 bits times 17. (2) with the same s and z is that signal itself; an operator that only
places or chooses integers of one grid does the same to what they count, for 0 < s. So does a clip,
to what its limits count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from verifier.checker import scalars
from verifier.checker.arithmetic import root_up, up
from verifier.checker.counted import QUANTISERS, along, check_type_of_result, grid_of, kind_of
from verifier.checker.network import Elementwise
from verifier.checker.operands import Call, Constant, Grid, Signal, Stepped

if TYPE_CHECKING:
    from verifier.checker.builder import Builder
    from verifier.checker.operands import Anything

#: What does to the numbers that integers count what it does to the integers.
MOVERS = frozenset(
    {"Clip", "Concat", "Flatten", "Gather", "Identity", "MaxPool", "Reshape", "Slice", "Split"}
    | {"Squeeze", "Transpose", "Unsqueeze"}
)
_CLIPS = 12  #: the opset from which integers are clipped


def rounds(call: Call) -> bool:
    """Whether integers that depend on the input enter or leave."""
    return call.node.op in QUANTISERS or any(isinstance(item, Stepped) for item in call.operands)


def quantised(builder: Builder, call: Call) -> tuple[Stepped, float]:
    """(1) without rounding, and half a step of every entry in the length of all."""
    call.arity(2, 3)
    signal = call.signal(0)
    grid = grid_of(call, signal.dtype, kind_of(call))
    _refuse_blocks(call)
    return clipped(builder, call.node.name, signal, grid)


def clipped(builder: Builder, name: str, signal: Signal, grid: Grid) -> tuple[Stepped, float]:
    """The signal within the ends of the grid, by that name, and how far it is from rounded."""
    least, greatest = grid.ends
    builder.add(
        Elementwise(
            name=name,
            size=signal.size,
            source=signal.source,
            function=scalars.clip(least, greatest),
        )
    )
    within = Signal(name, signal.shape, signal.dtype)
    return Stepped(within, grid), up(root_up(float(signal.size)) * (grid.step / 2))


def dequantised(call: Call) -> Signal:
    """(2), of integers of its own grid."""
    call.arity(2, 3)
    stepped = call.any_operand(0)
    if not isinstance(stepped, Stepped):
        call.not_checkable("operand 0 is not quantised")
    _refuse_blocks(call)
    check_type_of_result(call, stepped.signal.dtype)
    if grid_of(call, stepped.signal.dtype, stepped.grid.kind) != stepped.grid:
        call.not_checkable("another step or zero point than its operand has")
    return stepped.signal


def placed(call: Call) -> tuple[Call, Grid]:
    """The operator on what stands for its integers, which have one grid."""
    name, operands = call.node.op, call.operands
    first = operands[0] if operands else None
    if name not in MOVERS or not isinstance(first, Stepped):
        call.not_checkable("it takes integers that depend on the input")
    for item in operands[1:]:
        is_alike = isinstance(item, Stepped) and item.grid == first.grid
        is_fixed = item is None or isinstance(item, Constant)
        if not (is_alike if name == "Concat" else is_fixed):
            call.not_checkable("it takes integers of several grids")
    inner = [item.signal if isinstance(item, Stepped) else item for item in operands]
    if name == "Clip":
        inner[1:] = [None if item is None else _limit(call, item, first) for item in inner[1:]]
    return call.on(inner), first.grid


def _limit(call: Call, item: Anything, stepped: Stepped) -> Constant:
    """The number that a limit of integers counts, exactly."""
    grid = stepped.grid
    if not isinstance(item, Constant) or item.dtype != grid.kind or call.opset < _CLIPS:
        call.not_checkable(f"its limits are no {grid.kind}")
    return Constant(np.asarray(grid.step * (item.value - grid.zero)), stepped.signal.dtype)


def _refuse_blocks(call: Call) -> None:
    if along(call)[1]:
        call.not_checkable("steps that differ from block to block")
