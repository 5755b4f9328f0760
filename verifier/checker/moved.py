"""Movements of signals, perhaps beside constants: one affine node for each result."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from verifier.checker.builder import Builder, indices
from verifier.checker.maps import Gather
from verifier.checker.movements import MOVEMENTS, MOVES_ALL, pad_value
from verifier.checker.network import Term
from verifier.checker.operands import Call, Constant, Operand, Signal


def moved_by(builder: Builder, call: Call) -> list[Signal | None]:
    """The results of a movement of a signal, or of signals and constants."""
    count = len(call.operands) if call.node.op in MOVES_ALL else 1
    operands = [call.operand(place) for place in range(count)]
    if len({operand.dtype for operand in operands}) > 1:
        call.one_float_type()
    arrays: list[np.ndarray] = []
    starts = [0]
    for operand in operands:
        arrays.append(indices(operand.shape) + starts[-1])
        starts.append(starts[-1] + math.prod(operand.shape))
    fill = pad_value(call) if call.node.op == "Pad" else 0.0
    results = MOVEMENTS[call.node.op](call, arrays, -1)
    names = call.node.outputs
    return [
        _gathered(builder, name, operands, starts, moved, fill) if name else None
        for name, moved in zip(names, results, strict=False)
    ]


def _gathered(
    builder: Builder,
    name: str,
    operands: Sequence[Operand],
    starts: list[int],
    moved: np.ndarray,
    fill: float,
) -> Signal:
    """The result whose entries are those that `moved` points at."""
    shape, index = moved.shape, np.ascontiguousarray(moved).reshape(-1)
    first = operands[0]
    unmoved = np.array_equal(index, np.arange(math.prod(first.shape)))
    if len(operands) == 1 and isinstance(first, Signal) and unmoved:
        return Signal(first.source, shape, first.dtype)
    terms: dict[str, np.ndarray] = {}
    bias = np.where(index == -1, fill, 0.0)
    error = np.zeros(index.size)
    for operand, start in zip(operands, starts, strict=False):
        here = (index >= start) & (index < start + math.prod(operand.shape))
        local = np.where(here, index - start, 0)
        if isinstance(operand, Signal):
            so_far = terms.get(operand.source, np.full(index.size, -1))
            terms[operand.source] = np.where(here, local, so_far)
        elif operand.value.size:
            bias = np.where(here, operand.value.reshape(-1)[local], bias)
            error = np.where(here, operand.spread.reshape(-1)[local], error)
    is_linear = not (np.any(bias) or np.any(error))
    builder.affine(
        name,
        index.size,
        [Term(key, Gather(where, builder.sizes[key])) for key, where in terms.items()],
        None if is_linear else Constant(bias, first.dtype, error),
    )
    return Signal(name, shape, first.dtype)
