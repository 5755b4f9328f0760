"""The Attention operator, on tensors with one axis for the heads.

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
from verifier.network.linear_map import Adjoint
from verifier.network.nodes import Affine, Term, linear
from verifier.onnx_import.convert.emitted import (
    Emitted,
    gather,
    index_tensor,
    indices,
    scaled,
    tensor,
)
from verifier.onnx_import.convert.products import MAX_PRODUCTS, product_of
from verifier.onnx_import.moves import broadcast_shape

if TYPE_CHECKING:
    from verifier.onnx_import.call import Call


def _attention(call: Call) -> Emitted:
    q, k, v = (call.signal(place) for place in range(3))
    _refuse_others(call, (len(q.shape), len(k.shape), len(v.shape)))
    batch, (steps, depth), (count, width) = q.shape[:2], q.shape[2:], v.shape[2:]
    if k.shape != (*batch, count, depth) or v.shape[:2] != batch:
        raise call.unsupported(f"Q, K and V have shapes {q.shape}, {k.shape} and {v.shape}")
    shape = (*batch, steps, count)
    if MAX_PRODUCTS < prod(shape) * max(depth, width):
        raise call.unsupported(f"it adds up more than {MAX_PRODUCTS:,} products of entries")
    scale = call.attributes.number("scale") if "scale" in call.attributes.values else None
    scores, shares = f"{call.output}:scores", f"{call.output}:shares"
    grid = (*shape, depth)
    left = np.broadcast_to(indices(q.shape)[..., :, None, :], grid)
    right = np.broadcast_to(indices(k.shape)[..., None, :, :], grid)
    parts = [(q.node, gather(left, q.size)), (k.node, gather(right, k.size))]
    factor = 1 / sqrt(depth) if scale is None else scale
    sums = scaled(_sums(prod(shape), depth), factor)
    bias = np.broadcast_to(_mask(call, shape), shape).reshape(-1)
    rows = np.arange(prod(shape)).reshape(-1, count)
    nodes: list[Node] = [
        *product_of(f"{scores}:products", parts),
        Affine(scores, (Term(f"{scores}:products", sums),), tensor(bias)),
        Grouped(shares, scores, Softmax(index_tensor(rows).reshape(rows.shape))),
    ]
    grid = (*batch, steps, width, count)
    left = np.broadcast_to(indices(shape)[..., :, None, :], grid)
    right = np.broadcast_to(np.swapaxes(indices(v.shape), -1, -2)[..., None, :, :], grid)
    parts = [(shares, gather(left, prod(shape))), (v.node, gather(right, v.size))]
    whole = linear(call.output, [Term(f"{call.output}:products", _sums(prod(grid[:-1]), count))])
    return Emitted((*nodes, *product_of(f"{call.output}:products", parts), whole), grid[:-1])


def _sums(size: int, inner: int) -> Adjoint:
    return Adjoint(gather(np.repeat(np.arange(size), inner), size))


def _mask(call: Call, shape: tuple[int, ...]) -> np.ndarray:
    """What is added to the scores."""
    mask = call.optional_array(3)
    if mask is None:
        return np.zeros(1)
    # From opset 24 on a shorter last axis is filled up with minus infinity, one of length 1 too.
    fits = 2 <= mask.ndim <= 4 and mask.shape[-1] == shape[-1]
    if mask.dtype.kind != "f" or not fits or broadcast_shape(call, mask.shape, shape) != shape:
        raise call.unsupported(f"its mask has shape {list(mask.shape)}, or is no sum")
    return mask


def _refuse_others(call: Call, ranks: tuple[int, ...]) -> None:
    """What is not written out: causal masks, caps, caches, heads inside of an axis."""
    for name in ("is_causal", "qk_matmul_output_mode"):
        if call.attributes.integer(name, 0):
            raise call.unsupported(f"{name} is not 0")
    if call.attributes.number("softcap", 0.0):
        raise call.unsupported("it has softcap")
    call.attributes.ignore("kv_num_heads", "q_num_heads", "softmax_precision")
    if any(value is not None for value in call.inputs[4:]) or ranks != (4, 4, 4):
        raise call.unsupported(f"it has a cache, or its operands {ranks} axes")


RULES: Final[Mapping[str, Callable[[Call], Emitted]]] = {"Attention": _attention}
