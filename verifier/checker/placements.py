"""Operators that put entries of several tensors at places which the file fixes.

With y the result, flat, and t_k the place of entry k of the updates u:

    Where                        y_i = a_i where the condition, a constant, holds, else b_i
    ScatterElements, ScatterND   y_i = x_i + sum of u_k with t_k = i          reduction "add"
                                 y_i = u_k if t_k = i, else x_i               "none", all t_k differ
    Col2Im                       y_i = sum of the entries of patches that lie at i
    CumSum                       y_i = sum of x_j for j <= i of an axis, or j < i, or the other way
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from verifier.checker.builder import Builder, indices, rearranged
from verifier.checker.indexed import elements_at, slices_at
from verifier.checker.linear import added, flat
from verifier.checker.maps import Adjoint, Composed, Dense, Gather
from verifier.checker.network import Term
from verifier.checker.operands import Call, Constant, Operand, Signal


def where(builder: Builder, call: Call) -> Signal:
    """Where, by a constant."""
    call.arity(3, 3)
    condition, first, second = (call.operand(place) for place in range(3))
    if not isinstance(condition, Constant):
        call.not_checkable("its condition depends on the input")
    if condition.dtype != "bool" or first.dtype != second.dtype:
        call.invalid("operands of wrong types")
    shape = call.broadcast(condition.shape, first.shape, second.shape)
    holds = np.broadcast_to(condition.value, shape).reshape(-1)
    terms: list[Term] = []
    bias: Constant | None = None
    for operand, here in ((first, holds), (second, ~holds)):
        if isinstance(operand, Signal):
            index = np.broadcast_to(indices(operand.shape), shape).reshape(-1)
            terms.append(Term(operand.source, Gather(np.where(here, index, -1), operand.size)))
        else:
            bias = _kept(flat(operand, shape), here)
    return builder.linear(call, shape, terms, bias)


def _kept(constant: Constant, here: np.ndarray) -> Constant:
    """The constant, 0 elsewhere."""
    value = np.where(here, constant.value, 0.0)
    return Constant(value, constant.dtype, np.where(here, constant.spread, 0.0))


def scatter_elements(builder: Builder, call: Call) -> Signal:
    """ScatterElements with constant indices, and what it was before opset 11."""
    if call.node.op == "Scatter" and call.opset >= 11:
        call.not_checkable(f"opset {call.opset} has no such operator")
    shape = call.operand(0).shape
    axis = call.axis(call.integer("axis", 0), len(shape))
    return _scattered(builder, call, elements_at(call, indices(shape), axis))


def scatter_nd(builder: Builder, call: Call) -> Signal:
    """ScatterND with constant indices."""
    return _scattered(builder, call, slices_at(call, indices(call.operand(0).shape), 0))


def _scattered(builder: Builder, call: Call, target: np.ndarray) -> Signal:
    """The data with updates at the flat places `target`."""
    call.arity(3, 3)
    data, updates = call.operand(0), call.operand(2)
    reduction = call.string("reduction", "none")
    if reduction not in ("none", "add") or data.dtype != updates.dtype:
        call.not_checkable(f"reduction {reduction!r} of {data.dtype} and {updates.dtype}")
    if target.shape != updates.shape:
        call.mismatch(f"{updates.shape} updates of {target.shape}")
    size = math.prod(data.shape)
    places = target.reshape(-1)
    kept = np.arange(size)
    if reduction == "none":
        if np.unique(places).size < places.size:
            call.not_checkable("two updates of one place")
        kept[places] = -1
    terms: list[Term] = []
    bias: Constant | None = None
    if isinstance(data, Signal):
        terms.append(Term(data.source, Gather(kept, size)))
    else:
        bias = _kept(flat(data, data.shape), kept >= 0)
    if isinstance(updates, Signal):
        terms.append(Term(updates.source, Adjoint(Gather(places, size))))
    else:
        bias = _with_updates(call, bias, updates, places, size)
    return builder.linear(call, data.shape, terms, bias)


def _with_updates(
    call: Call, bias: Constant | None, updates: Operand, places: np.ndarray, size: int
) -> Constant:
    """The bias and constant updates at their places, each of which is used once."""
    if not isinstance(updates, Constant) or np.unique(places).size < places.size:
        call.not_checkable("constants that are added up at one place")
    value, error = np.zeros(size), np.zeros(size)
    value[places] = updates.value.reshape(-1)
    error[places] = updates.spread.reshape(-1)
    return added(bias, Constant(value, updates.dtype, error))


def column_to_image(builder: Builder, call: Call) -> Signal:
    """Col2Im."""
    call.arity(3, 3)
    signal = call.signal(0)
    image, block = call.integers(1), call.integers(2)
    rank = len(image)
    pads = call.list_of_integers("pads") or (0,) * (2 * rank)
    steps = call.list_of_integers("strides") or (1,) * rank
    gaps = call.list_of_integers("dilations") or (1,) * rank
    if {len(block), len(steps), len(gaps), len(pads) // 2} != {rank} or len(pads) % 2:
        call.invalid("its sizes are of different lengths")
    if len(signal.shape) != 3 or min((*image, *block, *steps, *gaps), default=0) < 1:
        call.invalid("its sizes or its input")
    batch, depth, count = signal.shape
    if min(pads) < 0 or depth % math.prod(block):
        call.mismatch(f"{depth} entries of a column in blocks {block[:8]}")
    shape = call.allowed((batch, depth // math.prod(block), *image))
    axes = [
        _positions(image[a], block[a], pads[a], pads[rank + a], steps[a], gaps[a])
        for a in range(rank)
    ]
    if math.prod(axis.shape[1] for axis in axes) != count:
        call.mismatch(f"{count} columns")
    call.allowed(signal.shape)
    index = np.arange(batch * shape[1]).reshape(batch, shape[1])
    for size, positions in zip(image, axes, strict=True):
        far = index[..., None, None] * size + positions
        index = np.where((index[..., None, None] < 0) | (positions < 0), -1, far)
    order = (0, 1, *range(2, 2 + 2 * rank, 2), *range(3, 2 + 2 * rank, 2))
    places = np.ascontiguousarray(index.transpose(order)).reshape(-1)
    return builder.linear(
        call, shape, [Term(signal.source, Adjoint(Gather(places, math.prod(shape))))]
    )


def _positions(size: int, width: int, before: int, after: int, step: int, gap: int) -> np.ndarray:
    """[within the block, start] -> where on the axis; -1 beyond its ends."""
    starts = np.arange(0, size + before + after - gap * (width - 1), step)
    found = starts - before + gap * np.arange(width)[:, None]
    return np.where((found >= 0) & (found < size), found, -1)


def cumulated(builder: Builder, call: Call) -> Signal:
    """CumSum."""
    call.arity(2, 2)
    signal = call.signal(0)
    rank = len(signal.shape)
    where_to = call.exact(1)
    if where_to.dtype not in ("int64", "int32") or where_to.value.size != 1:
        call.invalid("its axis is no integer")
    axis = call.axis(int(where_to.value.reshape(-1)[0]), rank)
    count = signal.shape[axis]
    call.allowed((count, count))
    sums = np.tri(count, k=-1 if call.integer("exclusive", 0) else 0)
    if call.integer("reverse", 0):
        sums = np.ascontiguousarray(sums.T)
    order = (*(a for a in range(rank) if a != axis), axis)
    turned = tuple(signal.shape[a] for a in order)
    back = rearranged(turned, tuple(order.index(a) for a in range(rank)))
    dense = Dense(sums, None, signal.size // count)
    to = Composed(Composed(rearranged(signal.shape, order), dense), back)
    return builder.linear(call, signal.shape, [Term(signal.source, to)])


RULES: Mapping[str, Callable[[Builder, Call], Signal]] = {
    "Col2Im": column_to_image,
    "CumSum": cumulated,
    "Scatter": scatter_elements,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
    "Where": where,
}
