"""Softmax, its logarithm, and normalisation layers.

A layer y = gamma (x - mean)/sqrt(var + eps) + beta is three nodes: "<y>:centred", an affine one,
the core "<y>:normal", and an affine one for gamma and beta, named as the tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import torch

from verifier.errors import NonFiniteWeights, ShapeMismatch
from verifier.network.blocks import Block, LogSoftmax, Normalise, Softmax
from verifier.network.graph import Grouped, Node
from verifier.network.linear_map import Adjoint, Diagonal, Gather, LinearMap
from verifier.network.nodes import Affine, Term
from verifier.onnx_import.convert.emitted import (
    Emitted,
    gather,
    grouped,
    index_tensor,
    indices,
    scaled,
    tensor,
    then,
)
from verifier.onnx_import.moves import axis_of
from verifier.onnx_import.values import Signal

if TYPE_CHECKING:
    from jaxtyping import Bool, Int64
    from torch import Tensor

    from verifier.onnx_import.call import Call

Array: TypeAlias = np.ndarray
Rule: TypeAlias = Callable[["Call"], Emitted]


def along(call: Call, x: Signal, axes: tuple[int, ...]) -> Int64[Tensor, "groups n"]:
    """The flat indices of every group that runs along these axes."""
    count = prod(x.shape[axis] for axis in axes)
    if count == 0:
        raise _misfit(call, "a group has no entries")
    rest = [axis for axis in range(len(x.shape)) if axis not in axes]
    rows = indices(x.shape).transpose(*rest, *axes).reshape(-1, count)
    return index_tensor(rows).reshape(rows.shape)


def _softmax(make: Callable[[Tensor], Block]) -> Rule:
    def rule(call: Call) -> Emitted:
        x = call.signal(0)
        return grouped(call, x, make(_softmax_groups(call, x)), x.shape)

    return rule


def _softmax_groups(call: Call, x: Signal) -> Int64[Tensor, "groups n"]:
    since = 13
    axis = call.attributes.integer("axis", 1 if call.opset < since else -1)
    axis = axis_of(call, axis, len(x.shape))
    # Before opset 13 the axes from `axis` on are one.
    return along(call, x, tuple(range(axis, len(x.shape))) if call.opset < since else (axis,))


def masked_softmax(call: Call, keeps: Array) -> Emitted:
    """The softmax of the entries that are kept."""
    x = call.signal(0)
    groups = _softmax_groups(call, x)
    return grouped(call, x, Softmax(groups, kept_within(call, groups, keeps)), x.shape)


def kept_within(
    call: Call, groups: Int64[Tensor, "groups n"], keeps: Array
) -> Bool[Tensor, "groups n"] | None:
    """Which entries of each group are kept; None: all.

    Raises:
        NonFiniteWeights: a group has none.
    """
    if keeps.all():
        return None
    kept = torch.from_numpy(np.array(keeps.reshape(-1)))[groups]
    if not kept.any(dim=1).all():
        raise NonFiniteWeights(
            f"node {call.name!r} ({call.op}): all entries of one sum are minus infinity",
            node=call.name,
            fix="leave at least one entry of every row of the mask",
        )
    return kept


# --- Normalisation layers ------------------------------------------------------------------------


def _means(groups: Int64[Tensor, "groups n"]) -> LinearMap:
    """Every entry's mean over its group."""
    owner = np.empty(groups.numel(), np.int64)
    owner[groups.numpy()] = np.arange(groups.shape[0])[:, None]
    back = Gather(index_tensor(owner), groups.shape[0])
    return then(scaled(Adjoint(back), 1.0 / groups.shape[1]), back)


def centring(name: str, x: Signal, groups: Int64[Tensor, "groups n"]) -> Affine:
    """What is left of every group without its mean."""
    identity = gather(indices(x.shape), x.size)
    terms = (Term(x.node, identity), Term(x.node, scaled(_means(groups), -1.0)))
    return Affine(name, terms, tensor(np.zeros(x.size)))


def _layer(
    call: Call,
    groups: Int64[Tensor, "groups n"],
    gamma: Array | None,
    beta: Array | None,
    *,
    centres: bool,
) -> Emitted:
    """The layer; gamma and beta broadcast to x."""
    x = call.signal(0)
    epsilon = call.attributes.number("epsilon", 1e-5)
    if not 0 <= epsilon:
        raise call.attributes.invalid("epsilon", f"is {epsilon}; it must not be negative")
    identity, zero = gather(indices(x.shape), x.size), np.zeros(x.size)
    nodes: list[Node] = []
    source = x.node
    if centres:
        centred = centring(f"{call.output}:centred", x, groups)
        nodes.append(centred)
        source = centred.name
    core, width = f"{call.output}:normal", float(groups.shape[1])
    function = Normalise(groups=groups, epsilon=epsilon, form="root", divisor=width)
    nodes.append(Grouped(core, source, function))
    factor = zero + 1.0 if gamma is None else np.broadcast_to(gamma, x.shape).reshape(x.size)
    shift = zero if beta is None else np.broadcast_to(beta, x.shape).reshape(x.size)
    scale = identity if gamma is None else Diagonal(tensor(factor))
    nodes.append(Affine(call.output, (Term(core, scale),), tensor(shift)))
    return Emitted(tuple(nodes), x.shape)


def _parameter(call: Call, place: int, shape: tuple[int, ...]) -> Array | None:
    """Numbers that broadcast to the shape of the trailing axes."""
    array = call.optional_array(place)
    if array is not None and np.broadcast_shapes(array.shape, shape) != shape:
        raise _misfit(call, f"operand {place} has shape {list(array.shape)}")
    return array


def _trailing(*, centres: bool) -> Rule:
    """Over the axes from `axis` on: LayerNormalization, RMSNormalization."""

    def rule(call: Call) -> Emitted:
        x = call.signal(0)
        call.attributes.integer("stash_type", 1)
        axis = axis_of(call, call.attributes.integer("axis", -1), len(x.shape))
        groups = along(call, x, tuple(range(axis, len(x.shape))))
        # The scale of RMSNormalization may run along all axes.
        gamma = _parameter(call, 1, x.shape[axis:] if centres else x.shape)
        beta = _parameter(call, 2, x.shape[axis:]) if centres else None
        return _layer(call, groups, gamma, beta, centres=centres)

    return rule


def _by_channel(call: Call, place: int, count: int, each: int = 1) -> Array:
    """Numbers along the second axis, each as often as it counts."""
    array, rank = call.array(place), len(call.shape(0))
    if array.shape != (count,):
        raise _misfit(call, f"operand {place} has shape {list(array.shape)}; [{count}] is wanted")
    return np.repeat(array, each).reshape(-1, *(1 for _ in range(rank - 2)))


def _instance(call: Call) -> Emitted:
    """InstanceNormalization: every channel of every image by itself."""
    x = call.signal(0)
    if len(x.shape) < 3:
        raise _misfit(call, f"its operand has {len(x.shape)} axes")
    groups = along(call, x, tuple(range(2, len(x.shape))))
    gamma, beta = (_by_channel(call, place, x.shape[1]) for place in (1, 2))
    return _layer(call, groups, gamma, beta, centres=True)


def _group(call: Call) -> Emitted:
    """GroupNormalization: groups of channels; before opset 21 one gamma and beta a group."""
    x, count = call.signal(0), call.attributes.integer("num_groups")
    call.attributes.integer("stash_type", 1)
    if len(x.shape) < 3 or count < 1 or x.shape[1] % count:
        raise _misfit(call, f"{count} groups of the channels of shape {list(x.shape)}")
    rows = indices(x.shape).reshape(x.shape[0] * count, -1)
    groups = index_tensor(rows).reshape(rows.shape)
    numbers = (count, x.shape[1] // count) if call.opset < 21 else (x.shape[1], 1)
    gamma, beta = (_by_channel(call, place, *numbers) for place in (1, 2))
    return _layer(call, groups, gamma, beta, centres=True)


def _misfit(call: Call, what: str) -> ShapeMismatch:
    return ShapeMismatch(
        f"node {call.name!r} ({call.op}): {what}",
        node=call.name,
        fix="export the model again with a current exporter",
    )


RULES: Final[Mapping[str, Rule]] = {
    "GroupNormalization": _group,
    "InstanceNormalization": _instance,
    "LayerNormalization": _trailing(centres=True),
    "LogSoftmax": _softmax(LogSoftmax),
    "RMSNormalization": _trailing(centres=False),
    "Softmax": _softmax(Softmax),
}
