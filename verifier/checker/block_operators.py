"""Operators that become blocks: softmax, its logarithm, and normalisation layers.

A layer y = gamma (x - mean)/sqrt(var + eps) + beta is a centring x - mean, the core of
`normalise`, named "<tensor>:normal", and an affine node for gamma and beta, named by the tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from verifier.checker.builder import Builder, indices, scaled
from verifier.checker.enclosures import U
from verifier.checker.linear import flat
from verifier.checker.maps import Composed, Dense, Gather, identity
from verifier.checker.network import Blocks, Term
from verifier.checker.normalise import Normalise
from verifier.checker.operands import Call, Constant, Signal
from verifier.checker.softmax import LogSoftmax, Softmax

if TYPE_CHECKING:
    from jaxtyping import Bool, Int64

    from verifier.checker.network import BlockFunction

Rule: TypeAlias = Callable[[Builder, Call], Signal]

_EPSILON = float(np.float32(1e-5))


def _added(
    builder: Builder,
    name: str,
    source: Signal,
    groups: Int64[np.ndarray, "groups n"],
    function: BlockFunction,
) -> Signal:
    builder.add(
        Blocks(name=name, size=source.size, source=source.source, groups=groups, function=function)
    )
    return Signal(name, source.shape, source.dtype)


def along(call: Call, shape: tuple[int, ...], axes: tuple[int, ...]) -> np.ndarray:
    """The flat indices of every group that runs along these axes."""
    count = math.prod(shape[axis] for axis in axes)
    if count == 0:
        call.mismatch("a group without entries")
    rest = [axis for axis in range(len(shape)) if axis not in axes]
    return indices(shape).transpose(*rest, *axes).reshape(-1, count)


def _softmax(function: BlockFunction) -> Rule:
    def rule(builder: Builder, call: Call) -> Signal:
        call.arity(1, 1)
        signal = call.signal(0)
        return _added(builder, call.node.name, signal, _softmax_groups(call, signal), function)

    return rule


def _softmax_groups(call: Call, signal: Signal) -> np.ndarray:
    rank = len(signal.shape)
    # Before opset 13 the axes from `axis` on are one.
    axis = call.axis(call.integer("axis", 1 if call.opset < 13 else -1), rank)
    axes = tuple(range(axis, rank)) if call.opset < 13 else (axis,)
    return along(call, signal.shape, axes)


def masked_softmax(builder: Builder, call: Call, keeps: np.ndarray) -> Signal:
    """The softmax of the entries that are kept."""
    call.arity(1, 1)
    signal = call.signal(0)
    groups = _softmax_groups(call, signal)
    function = Softmax(kept_within(call, groups, keeps))
    return _added(builder, call.node.name, signal, groups, function)


def kept_within(
    call: Call, groups: Int64[np.ndarray, "groups n"], keeps: np.ndarray
) -> Bool[np.ndarray, "groups n"] | None:
    """Which entries of every group are kept; None: all. One has to be, else 0/0 is asked for."""
    if np.all(keeps):
        return None
    kept = keeps.reshape(-1)[groups]
    if not np.all(kept.any(axis=1)):
        raise call.not_finite()
    return kept


# --- Normalisation layers ------------------------------------------------------------------------


def centred(
    builder: Builder, name: str, source: Signal, groups: Int64[np.ndarray, "groups n"]
) -> Signal:
    """What is left of every group without its mean."""
    count = groups.shape[1]
    weight = -1.0 / count
    exact = count & (count - 1) == 0
    error = None if exact else np.full((1, count), -weight * U * (1 + 16 * U))
    owner = np.empty(source.size, np.int64)
    owner[groups] = np.arange(len(groups))[:, None]
    gathered = Composed(
        Gather(groups.reshape(-1), source.size),
        Dense(np.full((1, count), weight), error, len(groups)),
    )
    means = Composed(gathered, Gather(owner, len(groups)))
    terms = [Term(source.source, identity(source.size)), Term(source.source, means)]
    builder.affine(name, source.size, terms)
    return Signal(name, source.shape, source.dtype)


def _layer(
    builder: Builder,
    call: Call,
    groups: Int64[np.ndarray, "groups n"],
    parameters: tuple[Constant | None, Constant | None],
    *,
    centres: bool,
) -> Signal:
    """The layer; gamma and beta broadcast to the signal."""
    name, signal = call.node.name, call.signal(0)
    epsilon = call.number("epsilon", _EPSILON)
    if not 0 <= epsilon:
        call.invalid(f"epsilon {epsilon}")
    source = centred(builder, f"{name}:centred", signal, groups) if centres else signal
    core = Normalise(name=name, epsilon=epsilon, form="root", divisor=float(groups.shape[1]))
    normal = _added(builder, f"{name}:normal", source, groups, core)
    gamma, beta = (None if one is None else flat(one, signal.shape) for one in parameters)
    to = (
        identity(signal.size)
        if gamma is None
        else scaled(identity(signal.size), gamma.value, gamma.error)
    )
    return builder.linear(call, signal.shape, [Term(normal.source, to)], beta)


def _fitting(call: Call, place: int, shape: tuple[int, ...]) -> Constant | None:
    """A parameter that broadcasts to the shape of the trailing axes."""
    found = call.optional(place)
    if found is None:
        return None
    constant = call.constant(place)
    if call.broadcast(constant.shape, shape) != shape:
        call.mismatch(f"a parameter of shape {constant.shape}")
    return constant


def _trailing(*, centres: bool) -> Rule:
    """Over the axes from `axis` on: LayerNormalization, RMSNormalization."""

    def rule(builder: Builder, call: Call) -> Signal:
        call.arity(2, 3 if centres else 2)
        call.one_float_type()
        call.integer("stash_type", 1)
        signal = call.signal(0)
        rank = len(signal.shape)
        axis = call.axis(call.integer("axis", -1), rank)
        groups = along(call, signal.shape, tuple(range(axis, rank)))
        # RMSNormalization is defined by a product with its scale, of any shape that spreads to x's.
        inner = signal.shape[axis:] if centres else signal.shape
        parameters = _fitting(call, 1, inner), _fitting(call, 2, inner) if centres else None
        return _layer(builder, call, groups, parameters, centres=centres)

    return rule


def _by_channel(call: Call, place: int, count: int, each: int = 1) -> Constant:
    """Numbers along the second axis, each as often as it counts."""
    constant, rank = call.constant(place), len(call.signal(0).shape)
    if constant.shape != (count,):
        call.mismatch(f"a parameter of shape {constant.shape} where {count} are wanted")
    form = (count * each, *(1 for _ in range(rank - 2)))
    error = None if constant.error is None else np.repeat(constant.error, each).reshape(form)
    return Constant(np.repeat(constant.value, each).reshape(form), constant.dtype, error)


def _instance(builder: Builder, call: Call) -> Signal:
    """InstanceNormalization: every channel of every image by itself."""
    call.arity(3, 3)
    call.one_float_type()
    signal = call.signal(0)
    rank = len(signal.shape)
    if rank < 3:
        call.mismatch(f"{rank} axes")
    groups = along(call, signal.shape, tuple(range(2, rank)))
    gamma, beta = (_by_channel(call, place, signal.shape[1]) for place in (1, 2))
    return _layer(builder, call, groups, (gamma, beta), centres=True)


def _group(builder: Builder, call: Call) -> Signal:
    """GroupNormalization: groups of channels; before opset 21 one gamma and beta a group."""
    call.arity(3, 3)
    call.one_float_type()
    call.integer("stash_type", 1)
    signal, count = call.signal(0), call.integer("num_groups", 0)
    rank = len(signal.shape)
    if rank < 3 or not 0 < count or signal.shape[1] % count:
        call.mismatch(f"{count} groups of the channels of shape {signal.shape}")
    each = signal.shape[1] // count
    groups = indices(signal.shape).reshape(signal.shape[0] * count, -1)
    numbers = (count, each) if call.opset < 21 else (signal.shape[1], 1)
    gamma, beta = (_by_channel(call, place, *numbers) for place in (1, 2))
    return _layer(builder, call, groups, (gamma, beta), centres=True)


RULES: Mapping[str, Rule] = {
    "GroupNormalization": _group,
    "InstanceNormalization": _instance,
    "LayerNormalization": _trailing(centres=True),
    "LogSoftmax": _softmax(LogSoftmax()),
    "RMSNormalization": _trailing(centres=False),
    "Softmax": _softmax(Softmax()),
}
