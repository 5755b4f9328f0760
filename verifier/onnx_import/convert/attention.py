"""The Attention operator, with an axis for the heads or without one.

    y = softmax(scale Q K' + mask) V

Of a tensor y: "y:scores:products" and "y:scores" are Q K' and what the softmax is of, "y:shares"
the softmax, "y:products" its products with V.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod, sqrt
from typing import TYPE_CHECKING, Final

import numpy as np

from verifier.network.blocks import Softmax
from verifier.network.graph import Grouped, Node
from verifier.network.linear_map import Adjoint, LinearMap
from verifier.network.nodes import Affine, Term, linear
from verifier.onnx_import.convert.blocks import kept_within
from verifier.onnx_import.convert.emitted import (
    Emitted,
    gather,
    index_tensor,
    indices,
    scaled,
    tensor,
    then,
)
from verifier.onnx_import.convert.products import MAX_PRODUCTS, product_of
from verifier.onnx_import.moves import broadcast_shape
from verifier.onnx_import.values import Constant, Masked, Shape, Signal

if TYPE_CHECKING:
    from verifier.onnx_import.call import Call


def _attention(call: Call) -> Emitted:
    _refuse_others(call)
    (q, query), (k, key), (v, value) = (_headed(call, place) for place in range(3))
    batch, (steps, depth), (count, width) = query.shape[:2], query.shape[2:], value.shape[2:]
    # A head of keys and values may serve several heads of queries, one after another.
    shared = batch[1] // max(key.shape[1], 1)
    if key.shape != (batch[0], key.shape[1], count, depth) or value.shape[:2] != key.shape[:2]:
        raise call.unsupported(f"Q, K and V have shapes {q.shape}, {k.shape} and {v.shape}")
    if not shared or key.shape[1] * shared != batch[1]:
        raise call.unsupported(f"it has {batch[1]} heads of queries, {key.shape[1]} of keys")
    key, value = (np.repeat(index, shared, axis=1) for index in (key, value))
    shape = (*batch, steps, count)
    if MAX_PRODUCTS < prod(shape) * max(depth, width):
        raise call.unsupported(f"it adds up more than {MAX_PRODUCTS:,} products of entries")
    shares = _shares(call, shape, (q, query), (k, key))
    grid = (*batch, steps, width, count)
    left = np.broadcast_to(indices(shape)[..., :, None, :], grid)
    right = np.broadcast_to(np.swapaxes(value, -1, -2)[..., None, :, :], grid)
    parts = [(shares[-1].name, gather(left, prod(shape))), (v.node, gather(right, v.size))]
    total = _sums(prod(grid[:-1]), count)
    out = grid[:-1]
    if len(q.shape) == 3:
        joined = np.swapaxes(indices(out), 1, 2)
        total, out = then(total, gather(joined, prod(out))), (batch[0], steps, batch[1] * width)
    whole = linear(call.output, [Term(f"{call.output}:products", total)])
    return Emitted((*shares, *product_of(f"{call.output}:products", parts), whole), out)


def _shares(
    call: Call, shape: Shape, query: tuple[Signal, np.ndarray], key: tuple[Signal, np.ndarray]
) -> list[Node]:
    """The softmax of the scores, and what it is made of."""
    scores = f"{call.output}:scores"
    depth = query[1].shape[-1]
    grid = (*shape, depth)
    left = np.broadcast_to(query[1][..., :, None, :], grid)
    right = np.broadcast_to(key[1][..., None, :, :], grid)
    parts = [(one.node, gather(places, one.size)) for (one, _), places in
             zip((query, key), (left, right), strict=True)]  # fmt: skip
    scale = call.attributes.number("scale") if "scale" in call.attributes.values else None
    sums = scaled(_sums(prod(shape), depth), 1 / sqrt(depth) if scale is None else scale)
    added, keeps = _mask(call, shape)
    rows = index_tensor(np.arange(prod(shape))).reshape(-1, shape[-1])
    softmax = Softmax(rows, kept_within(call, rows, keeps))
    return [
        *product_of(f"{scores}:products", parts),
        Affine(scores, (Term(f"{scores}:products", sums),), tensor(added.reshape(-1))),
        Grouped(f"{call.output}:shares", scores, softmax),
    ]


def _headed(call: Call, place: int) -> tuple[Signal, np.ndarray]:
    """An operand, and its indices as [batch, head, step, width]."""
    signal = call.signal(place)
    index = indices(signal.shape)
    if index.ndim == 3:
        heads = call.attributes.integer("q_num_heads" if place == 0 else "kv_num_heads")
        if heads < 1 or index.shape[2] % heads:
            raise call.attributes.invalid("q_num_heads", f"is {heads}, for {index.shape[2]}")
        index = np.swapaxes(index.reshape(*index.shape[:2], heads, -1), 1, 2)
    if index.ndim != 4:
        raise call.unsupported(f"operand {place} has {index.ndim} axes")
    return signal, index


def _sums(size: int, inner: int) -> LinearMap:
    return Adjoint(gather(np.repeat(np.arange(size), inner), size))


def _mask(call: Call, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """What is added to the scores, and which of them count at all."""
    keeps = np.ones(shape, np.bool_)
    if call.attributes.integer("is_causal", 0):
        if shape[-1] != shape[-2]:
            raise call.unsupported(f"is_causal of {shape[-2]} queries and {shape[-1]} keys")
        keeps &= np.tri(shape[-1], dtype=np.bool_)
    mask = call.input(3)
    if mask is None:
        return np.zeros(shape), keeps
    stored = mask.inner if isinstance(mask, Masked) else mask
    if not isinstance(stored, Constant) or stored.array.dtype.kind not in "fb":
        raise call.unsupported("its mask is no constant, or is of integers")
    # From opset 24 on a shorter last axis is filled up with minus infinity, one of length 1 too.
    fits = 2 <= len(stored.shape) <= 4 and stored.shape[-1] == shape[-1]
    if not fits or broadcast_shape(call, stored.shape, shape) != shape:
        raise call.unsupported(f"its mask has shape {list(stored.shape)}")
    if isinstance(mask, Masked):
        keeps &= mask.keeps
    if stored.array.dtype.kind == "b":
        return np.zeros(shape), keeps & stored.array
    return np.broadcast_to(stored.array, shape), keeps


def _refuse_others(call: Call) -> None:
    """What is not written out: caps, caches."""
    if call.attributes.integer("qk_matmul_output_mode", 0):
        raise call.unsupported("qk_matmul_output_mode is not 0")
    if call.attributes.number("softcap", 0.0):
        raise call.unsupported("it has softcap")
    call.attributes.ignore("kv_num_heads", "q_num_heads", "softmax_precision")
    if any(value is not None for value in call.inputs[4:]):
        raise call.unsupported("it has a cache")


RULES: Final[Mapping[str, Callable[[Call], Emitted]]] = {"Attention": _attention}
