"""MatMul of a signal and a stack of constant matrices that differ."""

from __future__ import annotations

import math

import numpy as np

from verifier.checker.builder import Builder, indices, scaled
from verifier.checker.maps import Adjoint, Composed, Gather
from verifier.checker.network import Term
from verifier.checker.operands import Call, Constant, Signal


def stacked(
    builder: Builder, call: Call, first: Constant | Signal, second: Constant | Signal
) -> Signal:
    """A stack of different matrices and a signal: entry by entry, and added up."""
    if len(first.shape) < 2 or len(second.shape) < 2:
        call.not_checkable("a vector and a stack of matrices")
    if first.shape[-1] != second.shape[-2]:
        call.mismatch(f"{first.shape} times {second.shape}")
    outer = call.broadcast(first.shape[:-2], second.shape[:-2])
    shape = call.allowed((*outer, first.shape[-2], second.shape[-1]))
    grid = call.allowed((*shape, first.shape[-1]))

    def read(array: np.ndarray, *, is_first: bool) -> np.ndarray:
        """The operand's entry for every product, with the axis that is added up last."""
        array = array[..., :, None, :] if is_first else np.swapaxes(array, -1, -2)[..., None, :, :]
        return np.broadcast_to(array, grid).reshape(-1)

    owner = np.repeat(np.arange(math.prod(shape)), grid[-1])
    sums = Adjoint(Gather(owner, math.prod(shape)))
    signal, weight = (first, second) if isinstance(first, Signal) else (second, first)
    if not isinstance(signal, Signal) or not isinstance(weight, Constant):
        call.not_checkable("no factor, or both, depend on the input")
    is_first = signal is first
    places = read(indices(signal.shape), is_first=is_first)
    values = read(weight.value, is_first=not is_first)
    error = None if weight.error is None else read(weight.error, is_first=not is_first)
    factors = scaled(Gather(places, signal.size), values, error)
    return builder.linear(call, shape, [Term(signal.source, Composed(factors, sums))])
