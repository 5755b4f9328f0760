"""Entries of several tensors put at places that the file fixes: selections, scatters, folds.

Where            a where a constant condition holds, else b
ScatterElements  the data, with updates at constant places: instead of its entries, or added
ScatterND        the same by slices
Col2Im           patches added where they overlap
CumSum           sums of what comes before
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from verifier.errors import ShapeMismatch
from verifier.network.linear_map import Adjoint, Dense, LinearMap
from verifier.onnx_import.convert import blocked
from verifier.onnx_import.convert.emitted import Emitted, affine, gather, indices, tensor, then
from verifier.onnx_import.moves import (
    FILL,
    axis_of,
    broadcast_shape,
    elements_at,
    slices_at,
)
from verifier.onnx_import.values import Constant, Shape, Signal, checked_size

if TYPE_CHECKING:
    from verifier.onnx_import.call import Call

Array: TypeAlias = np.ndarray


def _where(call: Call) -> Emitted:
    condition = call.input(0)
    if not isinstance(condition, Constant):
        raise blocked.reason(call)
    shape = broadcast_shape(call, *(call.shape(place) for place in range(3)))
    checked_size(shape, call.name)
    holds = np.broadcast_to(condition.array, shape)
    terms: list[tuple[Signal, LinearMap]] = []
    bias = np.zeros(shape)
    for place, here in ((1, holds), (2, ~holds)):
        value = call.input(place)
        if isinstance(value, Signal):
            index = np.where(here, np.broadcast_to(indices(value.shape), shape), FILL)
            terms.append((value, gather(index, value.size)))
        else:
            bias = np.where(here, call.array(place), bias)
    return affine(call, shape, terms, bias)


def _scatter_elements(call: Call) -> Emitted:
    if call.op == "Scatter" and 11 <= call.opset:
        raise call.unsupported(f"opset {call.opset} has no such operator")
    shape = call.shape(0)
    axis = axis_of(call, call.attributes.integer("axis", 0), len(shape))
    return _scattered(call, elements_at(call, indices(shape), axis))


def _scatter_nd(call: Call) -> Emitted:
    return _scattered(call, slices_at(call, indices(call.shape(0)), 0))


def _scattered(call: Call, target: Array) -> Emitted:
    """Updates at the flat places `target` of the data."""
    shape = call.shape(0)
    reduction = call.attributes.text("reduction", "none")
    if reduction not in ("none", "add"):
        raise call.unsupported(f"its reduction is {reduction!r}")
    if target.shape != call.shape(2):
        raise ShapeMismatch(
            f"node {call.name!r} ({call.op}): {list(call.shape(2))} updates for "
            f"{list(target.shape)} places",
            node=call.name,
            fix="export the model again",
        )
    kept = indices(shape).reshape(-1)
    if reduction == "none":
        if len(np.unique(target)) < target.size:
            raise call.unsupported("two updates have one place, in an order that is not defined")
        kept = np.where(np.isin(kept, target), FILL, kept)
    terms: list[tuple[Signal, LinearMap]] = []
    bias = np.zeros(prod(shape))
    places = gather(target, prod(shape))
    match call.input(0):
        case Signal() as data:
            terms.append((data, gather(kept, data.size)))
        case _:
            bias = np.where(kept == FILL, 0.0, call.array(0).reshape(-1))
    match call.input(2):
        case Signal() as updates:
            terms.append((updates, Adjoint(places)))
        case _:
            np.add.at(bias, target.reshape(-1), call.array(2).reshape(-1))
    return affine(call, shape, terms, bias.reshape(shape))


def _col2im(call: Call) -> Emitted:
    x = call.signal(0)
    image, block = call.integers(1) or (), call.integers(2) or ()
    rank = len(image)
    pads = call.attributes.integers("pads") or (0,) * (2 * rank)
    strides = call.attributes.integers("strides") or (1,) * rank
    dilations = call.attributes.integers("dilations") or (1,) * rank
    channels = x.shape[1] // prod(block)
    shape: Shape = checked_size((x.shape[0], channels, *image), call.name)
    checked_size((prod(block), *image), call.name)
    index = indices(shape)
    for axis in range(rank):
        place = 2 + 2 * axis  # earlier axes are two by now: within the block, and its start
        reach = image[axis] + pads[axis] + pads[rank + axis] - dilations[axis] * (block[axis] - 1)
        starts = np.arange(0, reach, strides[axis]) - pads[axis]
        positions = starts + dilations[axis] * np.arange(block[axis])[:, None]
        inside = (0 <= positions) & (positions < image[axis])
        taken = np.take(index, np.where(inside, positions, 0), place)
        outside = ~inside.reshape(*inside.shape, *(1,) * (rank - axis - 1))
        index = np.where(outside, FILL, taken)
    order = (0, 1, *range(2, 2 + 2 * rank, 2), *range(3, 2 + 2 * rank, 2))
    index = index.transpose(order)
    if index.size != x.size or prod(index.shape[2 + rank :]) != x.shape[2]:
        raise call.attributes.invalid("image_shape", f"{image} does not fit {list(x.shape)}")
    return affine(call, shape, [(x, Adjoint(gather(index, prod(shape))))])


def _cumsum(call: Call) -> Emitted:
    x = call.signal(0)
    axis = axis_of(call, int(call.array(1).reshape(-1)[0]), len(x.shape))
    count = x.shape[axis]
    checked_size((count, count), call.name)
    matrix = np.tri(count, k=-call.attributes.integer("exclusive", 0))
    if call.attributes.integer("reverse", 0):
        matrix = matrix.T
    order = np.moveaxis(indices(x.shape), axis, -1)
    dense = Dense(tensor(matrix), x.size // count)
    back = np.moveaxis(indices(order.shape), -1, axis)
    return affine(
        call, x.shape, [(x, then(then(gather(order, x.size), dense), gather(back, x.size)))]
    )


RULES: Final[Mapping[str, Callable[[Call], Emitted]]] = {
    "Col2Im": _col2im,
    "CumSum": _cumsum,
    "Scatter": _scatter_elements,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "Where": _where,
}
