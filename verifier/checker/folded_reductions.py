"""Sums, lengths and extremes of constants along axes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from verifier.checker.enclosures import TINY, U
from verifier.checker.folded import UP, Fold, finite, integers, size_of
from verifier.checker.folded_arithmetic import square_root
from verifier.checker.operands import MAX_INTEGER, Call, Constant
from verifier.checker.reductions import reduced_axes
from verifier.checker.tensors import FLOATS
from verifier.errors import DtypeUnsupported


def _reduce_sum(call: Call) -> list[Constant]:
    operand = call.constant(0)
    if operand.dtype in FLOATS:
        return [_summed(call, operand, since=13)]
    axes, keeps = reduced_axes(call, operand.value.ndim, since=13)
    value = np.asarray(operand.value.sum(axis=axes, keepdims=keeps))
    return integers(call, value, np.asarray(np.abs(operand.value.astype(np.float64)).sum()))


def _reduce_l2(call: Call) -> list[Constant]:
    operand = call.constant(0)
    if operand.dtype not in FLOATS:
        raise DtypeUnsupported("ReduceL2 of integers", fix="use floats", node=call.node.name)
    axes, _ = reduced_axes(call, operand.value.ndim, since=18)
    if not axes and call.integer("noop_with_empty_axes", 0):
        call.not_checkable("noop_with_empty_axes")
    with np.errstate(over="ignore"):
        square = operand.value * operand.value
        error = 2 * size_of(operand) * operand.spread + operand.spread**2 + square * U
    squares = Constant(square, operand.dtype, error * UP + 4 * TINY)
    return [square_root(call, _summed(call, squares, since=18))]


def _summed(call: Call, operand: Constant, since: int) -> Constant:
    """The sums of floats, in whatever order."""
    axes, keeps = reduced_axes(call, operand.value.ndim, since=since)
    count = operand.value.size + 2
    gamma = count * U / (1 - count * U) * UP
    with np.errstate(over="ignore", invalid="ignore"):
        value = np.asarray(operand.value.sum(axis=axes, keepdims=keeps))
        error = np.abs(operand.value).sum(axis=axes, keepdims=keeps) * gamma
        error = (error + operand.spread.sum(axis=axes, keepdims=keeps)) * (1 + 4 * gamma)
    return finite(call, value, np.asarray(error), operand.dtype)[0]


def _reduce_mean(call: Call) -> list[Constant]:
    operand = call.constant(0)
    if operand.dtype not in FLOATS or 0 in operand.shape:
        call.not_checkable("a mean of integers, or of nothing")
    total = _summed(call, operand, since=18)
    count = operand.value.size // total.value.size
    value = total.value / count
    error = total.spread / count * UP + np.abs(value) * U + TINY
    return finite(call, value, error, operand.dtype)


def _reduce_product(call: Call) -> list[Constant]:
    operand = call.constant(0)
    axes, keeps = reduced_axes(call, operand.value.ndim, since=18)
    with np.errstate(over="ignore", under="ignore"):
        size = np.prod(np.abs(operand.value.astype(np.float64)), axis=axes, keepdims=keeps)
        value = np.asarray(np.prod(operand.value, axis=axes, keepdims=keeps))
    if operand.dtype not in FLOATS:
        return integers(call, value, np.asarray(size))
    whole = operand.error is None and np.array_equal(operand.value, np.trunc(operand.value))
    if not whole or np.any(size > MAX_INTEGER):
        call.not_checkable("a product of numbers that are not whole, or a large one")
    return [Constant(value, operand.dtype)]


def _reduce_extreme(greatest: bool) -> Fold:
    def fold(call: Call) -> list[Constant]:
        operand = call.constant(0)
        axes, keeps = reduced_axes(call, operand.value.ndim, since=18)
        if 0 in operand.shape:
            call.not_checkable("nothing to reduce")
        choose = np.max if greatest else np.min
        value = np.asarray(choose(operand.value, axis=axes, keepdims=keeps))
        if operand.error is None:
            return [Constant(value, operand.dtype)]
        error = np.asarray(np.max(operand.error, axis=axes, keepdims=keeps))
        return [Constant(value, operand.dtype, error)]

    return fold


def _cumulated(call: Call) -> list[Constant]:
    call.arity(2, 2)
    operand = call.constant(0)
    axis = call.axis(int(call.scalar(1)), operand.value.ndim)
    if operand.dtype in FLOATS or call.integer("exclusive", 0) or call.integer("reverse", 0):
        call.not_checkable("sums of floats, or of another order")
    size = np.abs(operand.value.astype(np.float64)).sum()
    return integers(call, np.cumsum(operand.value, axis=axis), np.asarray(size))


REDUCTIONS: Mapping[str, Fold] = {
    "CumSum": _cumulated,
    "ReduceL2": _reduce_l2,
    "ReduceMax": _reduce_extreme(greatest=True),
    "ReduceMean": _reduce_mean,
    "ReduceMin": _reduce_extreme(greatest=False),
    "ReduceProd": _reduce_product,
    "ReduceSum": _reduce_sum,
}
