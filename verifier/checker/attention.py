"""The Attention operator, on tensors with one axis for the heads.

    y = softmax(scale Q K' + mask) V,    scale = 1/sqrt(depth) where it is not given

Of a tensor y: "y:scores:products" and "y:scores" are Q K' and what the softmax is of, "y:shares"
the softmax, "y:products" its products with V.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.builder import Builder, indices, scaled
from verifier.checker.enclosures import U
from verifier.checker.linear import flat
from verifier.checker.maps import Adjoint, Gather
from verifier.checker.network import Blocks, Term
from verifier.checker.operands import Call, Constant, Signal
from verifier.checker.products import product
from verifier.checker.softmax import Softmax

if TYPE_CHECKING:
    from verifier.checker.network import Map


def attention(builder: Builder, call: Call) -> Signal:
    """Attention."""
    call.arity(3, 6)
    q, k, v = (call.signal(place) for place in range(3))
    _check_plain(call, q, k, v)
    (batch, heads, steps, depth), (count, width) = q.shape, v.shape[2:]
    if k.shape != (batch, heads, count, depth) or v.shape[:2] != (batch, heads):
        call.mismatch(f"Q, K and V of shapes {q.shape}, {k.shape} and {v.shape}")
    if 0 in (*q.shape, count, width):
        call.mismatch(f"nothing in Q, K or V of shapes {q.shape}, {k.shape} and {v.shape}")
    name = call.node.name
    scores, shares = f"{name}:scores", f"{name}:shares"
    shape = (batch, heads, steps, count)
    grid = call.allowed((*shape, depth))
    left = np.broadcast_to(indices(q.shape)[:, :, :, None], grid)
    right = np.broadcast_to(indices(k.shape)[:, :, None], grid)
    _product(builder, f"{scores}:products", (q.source, left, q.size), (k.source, right, k.size))
    size = math.prod(shape)
    factor, error = 1.0 / math.sqrt(depth), 0.0
    if call.has("scale"):
        factor = call.number("scale", 0.0)
        if not 0 < factor:
            call.not_checkable(f"scale {factor}, whose root Q and K are multiplied by")
    else:
        # A correctly rounded root and a correctly rounded quotient.
        error = factor * (4 * U)
    sums = scaled(_sums(size, depth), np.full(size, factor), np.full(size, error))
    builder.affine(scores, size, [Term(f"{scores}:products", sums)], _mask(call, shape))
    builder.add(
        Blocks(
            name=shares,
            size=size,
            source=scores,
            groups=np.arange(size).reshape(-1, count),
            function=Softmax(),
        )
    )
    grid = call.allowed((batch, heads, steps, width, count))
    left = np.broadcast_to(indices(shape)[:, :, :, None], grid)
    right = np.broadcast_to(indices(v.shape).transpose(0, 1, 3, 2)[:, :, None], grid)
    _product(builder, f"{name}:products", (shares, left, size), (v.source, right, v.size))
    total = math.prod(grid[:-1])
    return builder.linear(call, grid[:-1], [Term(f"{name}:products", _sums(total, count))])


def _product(
    builder: Builder,
    name: str,
    left: tuple[str, np.ndarray, int],
    right: tuple[str, np.ndarray, int],
) -> None:
    factors = [
        (source, Gather(np.ascontiguousarray(places).reshape(-1), size))
        for source, places, size in (left, right)
    ]
    product(builder, name, factors[0], factors[1])


def _sums(size: int, inner: int) -> Map:
    return Adjoint(Gather(np.repeat(np.arange(size), inner), size))


def _mask(call: Call, shape: tuple[int, ...]) -> Constant | None:
    """What is added to the scores."""
    if call.optional(3) is None:
        return None
    mask = call.constant(3)
    # From opset 24 on a shorter last axis is filled up with minus infinity, one of length 1 too.
    fits = 2 <= len(mask.shape) <= 4 and mask.shape[-1] == shape[-1]
    fits = fits and call.broadcast(mask.shape, shape) == shape
    if mask.dtype != call.signal(0).dtype or not fits:
        call.not_checkable(f"a mask of {mask.dtype} and shape {mask.shape}")
    return flat(mask, shape)


def _check_plain(call: Call, *signals: Signal) -> None:
    """Nothing that is not written out: causal masks, caps, caches, heads inside of an axis."""
    for name in ("is_causal", "qk_matmul_output_mode"):
        if call.integer(name, 0):
            call.not_checkable(name)
    if call.number("softcap", 0.0):
        call.not_checkable("softcap")
    for name in ("kv_num_heads", "q_num_heads", "softmax_precision"):
        call.integer(name, 0)
    if any(item is not None for item in call.operands[4:]):
        call.not_checkable("a cache")
    if any(len(signal.shape) != 4 for signal in signals):
        call.not_checkable("operands without an axis for the heads")
