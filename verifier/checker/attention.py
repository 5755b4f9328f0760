"""The Attention operator, with an axis for the heads or without one.

    y = softmax(scale Q K' + mask) V,    scale = 1/sqrt(depth) where it is not given

Of a tensor y: "y:scores:products" and "y:scores" are Q K' and what the softmax is of, "y:shares"
the softmax, "y:products" its products with V.

Heads of keys and values are each used by as many heads of queries, one after another. Where
`is_causal` is set, a query sees the keys up to its own place; truths as a mask, and minus infinity
in one, say what is seen.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.block_operators import kept_within
from verifier.checker.builder import Builder, indices, rearranged, scaled
from verifier.checker.enclosures import U
from verifier.checker.linear import flat
from verifier.checker.maps import Adjoint, Composed, Gather
from verifier.checker.network import Blocks, Term
from verifier.checker.operands import Call, Constant, Masked, Signal
from verifier.checker.products import product
from verifier.checker.softmax import Softmax

if TYPE_CHECKING:
    from verifier.checker.network import Map


def attention(builder: Builder, call: Call) -> Signal:
    """Attention."""
    call.arity(3, 7)
    _check_plain(call)
    (q, queries), (k, keys), (v, values) = (_headed(call, place) for place in range(3))
    batch, heads, steps, depth = queries.shape
    count, width = values.shape[2:]
    own = keys.shape[1]
    if 0 in (*queries.shape, *keys.shape, *values.shape) or heads % max(own, 1):
        call.mismatch(f"Q, K and V of shapes {q.shape}, {k.shape} and {v.shape}")
    if keys.shape != (batch, own, count, depth) or values.shape[:2] != (batch, own):
        call.mismatch(f"Q, K and V of shapes {q.shape}, {k.shape} and {v.shape}")
    keys, values = (np.repeat(places, heads // own, axis=1) for places in (keys, values))
    name = call.node.name
    shape = (batch, heads, steps, count)
    _scores(builder, call, shape, (q, queries), (k, keys))
    grid = call.allowed((batch, heads, steps, width, count))
    left = np.broadcast_to(indices(shape)[:, :, :, None], grid)
    right = np.broadcast_to(values.transpose(0, 1, 3, 2)[:, :, None], grid)
    shares = (f"{name}:shares", left, math.prod(shape))
    _product(builder, f"{name}:products", shares, (v.source, right, v.size))
    total = _sums(math.prod(grid[:-1]), count)
    out = grid[:-1]
    if len(q.shape) == 3:
        # Heads lie side by side again.
        total = Composed(total, rearranged(out, (0, 2, 1, 3)))
        out = (batch, steps, heads * width)
    return builder.linear(call, out, [Term(f"{name}:products", total)])


def _scores(
    builder: Builder,
    call: Call,
    shape: tuple[int, ...],
    query: tuple[Signal, np.ndarray],
    key: tuple[Signal, np.ndarray],
) -> None:
    """scale Q K' + mask, and the softmax of it."""
    (q, queries), (k, keys) = query, key
    scores, size = f"{call.node.name}:scores", math.prod(shape)
    depth = queries.shape[-1]
    grid = call.allowed((*shape, depth))
    left = np.broadcast_to(queries[:, :, :, None], grid)
    right = np.broadcast_to(keys[:, :, None], grid)
    _product(builder, f"{scores}:products", (q.source, left, q.size), (k.source, right, k.size))
    factor, error = _scale(call, depth)
    sums = scaled(_sums(size, depth), np.full(size, factor), np.full(size, error))
    bias, seen = _mask(call, shape, q.dtype)
    builder.affine(scores, size, [Term(f"{scores}:products", sums)], bias)
    groups = np.arange(size).reshape(-1, shape[-1])
    builder.add(
        Blocks(
            name=f"{call.node.name}:shares",
            size=size,
            source=scores,
            groups=groups,
            function=Softmax(kept_within(call, groups, seen)),
        )
    )


def _headed(call: Call, place: int) -> tuple[Signal, np.ndarray]:
    """An operand, and its flat indices as [batch, head, step, width]."""
    signal = call.signal(place)
    places = indices(signal.shape)
    heads = call.integer("q_num_heads" if place == 0 else "kv_num_heads", 0)
    if len(signal.shape) == 3:
        batch, steps, width = signal.shape
        if heads < 1 or width % heads:
            call.invalid(f"{heads} heads of {width} entries")
        places = places.reshape(batch, steps, heads, width // heads).transpose(0, 2, 1, 3)
    if places.ndim != 4 or len(signal.shape) != len(call.operand(0).shape):
        call.not_checkable(f"an operand of shape {signal.shape}")
    return signal, places


def _scale(call: Call, depth: int) -> tuple[float, float]:
    """What the scores are multiplied by, with its error."""
    if not call.has("scale"):
        # A correctly rounded root and a correctly rounded quotient.
        factor = 1.0 / math.sqrt(depth)
        return factor, factor * (4 * U)
    factor = call.number("scale", 0.0)
    if not 0 < factor:
        call.not_checkable(f"scale {factor}, whose root Q and K are multiplied by")
    return factor, 0.0


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


def _mask(call: Call, shape: tuple[int, ...], dtype: str) -> tuple[Constant | None, np.ndarray]:
    """What is added to the scores, and which of them are seen."""
    seen = np.ones(shape, np.bool_)
    if call.integer("is_causal", 0):
        if shape[2] != shape[3]:
            call.not_checkable(f"is_causal of {shape[2]} queries and {shape[3]} keys")
        seen = seen & np.tri(shape[3], dtype=np.bool_)
    given = call.operands[3] if len(call.operands) > 3 else None
    if given is None:
        return None, seen
    mask = given.inner if isinstance(given, Masked) else call.constant(3)
    # From opset 24 on a shorter last axis is filled up with minus infinity, one of length 1 too.
    fits = 2 <= len(mask.shape) <= 4 and mask.shape[-1] == shape[-1]
    fits = fits and call.broadcast(mask.shape, shape) == shape
    if not isinstance(mask, Constant) or mask.dtype not in (dtype, "bool") or not fits:
        call.not_checkable(f"a mask of {mask.dtype} and shape {mask.shape}")
    if mask.dtype == "bool":
        return None, seen & mask.value
    if isinstance(given, Masked):
        seen = seen & given.keeps
    return flat(mask, shape), seen


def _check_plain(call: Call) -> None:
    """Nothing that is not written out: caps, caches."""
    if call.integer("qk_matmul_output_mode", 0):
        call.not_checkable("qk_matmul_output_mode")
    if call.number("softcap", 0.0):
        call.not_checkable("softcap")
    for name in ("kv_num_heads", "q_num_heads", "softmax_precision"):
        call.integer(name, 0)
    if any(item is not None for item in call.operands[4:]):
        call.not_checkable("a cache")
