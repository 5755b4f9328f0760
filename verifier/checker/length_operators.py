"""Norms over windows and axes, and operators that divide by them, of nodes that are known.

Of a tensor t: "t:magnitudes" is |x|, "t:squares" x^2, "t:parts" the entries of windows, "t:length"
their lengths, "t:sums" sums, "t:shares" log-softmax, "t:reciprocal" and "t:factors" what x is
multiplied by.

    log sum_j exp(x_j) = x_i - log softmax(x)_i
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from verifier.checker import compounds, scalars
from verifier.checker.block_operators import along, centred
from verifier.checker.builder import Builder, indices, scaled
from verifier.checker.enclosures import TINY, U
from verifier.checker.length import Length
from verifier.checker.maps import Adjoint, Composed, Gather
from verifier.checker.network import Blocks, Elementwise, Product, Term
from verifier.checker.normalise import Normalise
from verifier.checker.operands import Call, Constant, Signal
from verifier.checker.reductions import reduced_axes
from verifier.checker.restricted import Log, Power
from verifier.checker.roots import lengths
from verifier.checker.softmax import LogSoftmax
from verifier.checker.windows import pooling

if TYPE_CHECKING:
    from jaxtyping import Int64

    from verifier.checker.network import Map, Scalar

    Groups = Int64[np.ndarray, "groups n"]

Rule: TypeAlias = Callable[[Builder, Call], Signal]

_UP = 1 + 16 * U
_WIDEST = 2**10  #: channels that a local response looks at


def _curve(builder: Builder, name: str, source: str, function: Scalar) -> str:
    size = builder.sizes[source]
    builder.add(Elementwise(name=name, size=size, source=source, function=function))
    return name


def _sums(groups: Groups, size: int) -> Map:
    """The sum of every group; -1 adds nothing."""
    owner = np.repeat(np.arange(len(groups)), groups.shape[1])
    gathered = Gather(np.ascontiguousarray(groups).reshape(-1), size)
    return Composed(gathered, Adjoint(Gather(owner, len(groups))))


def _number(size: int, value: float) -> Constant:
    return Constant(np.full(size, value), "float64")


# --- Windows and axes ----------------------------------------------------------------------------


def pooled(builder: Builder, call: Call) -> Signal:
    """LpPool: a place outside of the image adds nothing."""
    signal, channels, window = pooling(call)
    rank = len(window.sizes)
    index = np.zeros((*window.counts, *window.widths), dtype=np.int64)
    inside = np.ones(index.shape, dtype=np.bool_)
    for axis, size in enumerate(window.sizes):
        places = window.places(axis)
        form = [1] * (2 * rank)
        form[axis], form[rank + axis] = places.shape
        index = index * size + np.clip(places, 0, size - 1).reshape(form)
        inside &= ((places >= 0) & (places < size)).reshape(form)
    one = index.reshape(math.prod(window.counts), -1)
    starts = np.arange(channels)[:, None, None] * math.prod(window.sizes)
    groups = np.where(inside.reshape(one.shape), one + starts, -1).reshape(-1, one.shape[1])
    return _norms(builder, call, signal, groups, (1, channels, *window.counts))


def pooled_whole(builder: Builder, call: Call) -> Signal:
    """GlobalLpPool."""
    call.arity(1, 1)
    signal = call.signal(0)
    rank = len(signal.shape)
    if rank < 3:
        call.mismatch(f"{rank} axes")
    groups = along(call, signal.shape, tuple(range(2, rank)))
    shape = (*signal.shape[:2], *(1 for _ in range(rank - 2)))
    return _norms(builder, call, signal, groups, shape)


def _norms(
    builder: Builder, call: Call, signal: Signal, groups: Groups, shape: tuple[int, ...]
) -> Signal:
    p = call.integer("p", 2)
    if p == 1:
        return _summed(builder, call, signal, groups, shape, ("magnitudes", scalars.absolute()))
    if p != 2:
        call.not_checkable(f"p {p}")
    name = f"{call.node.name}:parts"
    picked = Gather(np.ascontiguousarray(groups).reshape(-1), signal.size)
    builder.affine(name, groups.size, [Term(signal.source, picked)])
    places = np.arange(groups.size).reshape(groups.shape)
    return lengths(builder, call, name, places, shape)


def _summed(
    builder: Builder,
    call: Call,
    signal: Signal,
    groups: Groups,
    shape: tuple[int, ...],
    function: tuple[str, Scalar],
) -> Signal:
    """Sums of a function of every entry."""
    part, curve = function
    values = _curve(builder, f"{call.node.name}:{part}", signal.source, curve)
    return builder.linear(call, shape, [Term(values, _sums(groups, signal.size))])


def _reduced(call: Call) -> tuple[Signal, Groups, tuple[int, ...]]:
    """(the signal, groups that become one entry each, what is left of its shape)."""
    signal = call.signal(0)
    rank = len(signal.shape)
    axes, keeps = reduced_axes(call, rank, since=18)
    if not axes and call.integer("noop_with_empty_axes", 0):
        # The specification's result is x, that of run times the norm of every entry.
        call.not_checkable("noop_with_empty_axes")
    groups = along(call, signal.shape, axes)
    if keeps:
        return signal, groups, tuple(1 if a in axes else n for a, n in enumerate(signal.shape))
    return signal, groups, tuple(n for a, n in enumerate(signal.shape) if a not in axes)


def reduce_l1(builder: Builder, call: Call) -> Signal:
    """ReduceL1."""
    return _summed(builder, call, *_reduced(call), ("magnitudes", scalars.absolute()))


def reduce_l2(builder: Builder, call: Call) -> Signal:
    """ReduceL2."""
    signal, groups, shape = _reduced(call)
    return lengths(builder, call, signal.source, groups, shape)


def reduce_sum_square(builder: Builder, call: Call) -> Signal:
    """ReduceSumSquare."""
    return _summed(builder, call, *_reduced(call), ("squares", compounds.Square()))


def reduce_log_sum(builder: Builder, call: Call) -> Signal:
    """ReduceLogSum."""
    signal, groups, shape = _reduced(call)
    name = f"{call.node.name}:sums"
    builder.affine(name, len(groups), [Term(signal.source, _sums(groups, signal.size))])
    return builder.elementwise(call, Signal(name, shape, signal.dtype), Log())


def reduce_log_sum_exp(builder: Builder, call: Call) -> Signal:
    """ReduceLogSumExp."""
    signal, groups, shape = _reduced(call)
    name = f"{call.node.name}:shares"
    _block(builder, name, signal.source, groups, LogSoftmax())
    first = Gather(np.ascontiguousarray(groups[:, 0]), signal.size)
    minus = scaled(first, np.full(len(groups), -1.0), None)
    return builder.linear(call, shape, [Term(signal.source, first), Term(name, minus)])


def _block(
    builder: Builder,
    name: str,
    source: str,
    groups: Groups,
    function: Length | LogSoftmax | Normalise,
) -> None:
    builder.add(
        Blocks(name=name, size=groups.size, source=source, groups=groups, function=function)
    )


# --- Quotients -----------------------------------------------------------------------------------


def _back(groups: Groups, size: int) -> Gather:
    """To every entry what its group has."""
    owner = np.empty(size, np.int64)
    owner[groups] = np.arange(len(groups))[:, None]
    return Gather(owner, len(groups))


def _divided(builder: Builder, call: Call, source: str, divisor: str) -> Signal:
    """The quotient of two signals of one size."""
    signal, name = call.signal(0), call.node.name
    inverse = _curve(builder, f"{name}:reciprocal", divisor, Power(-1.0))
    builder.add(Product(name=name, size=signal.size, left=source, right=inverse))
    return Signal(name, signal.shape, signal.dtype)


def normalised(builder: Builder, call: Call) -> Signal:
    """LpNormalization: x divided by its l1 or l2 norm."""
    call.arity(1, 1)
    signal, name = call.signal(0), call.node.name
    rank, p = len(signal.shape), call.integer("p", 2)
    groups = along(call, signal.shape, (call.axis(call.integer("axis", -1), rank),))
    if p == 2:
        _block(
            builder, name, signal.source, groups,
            Normalise(name=name, epsilon=0.0, form="root", divisor=1.0),
        )  # fmt: skip
        return Signal(name, signal.shape, signal.dtype)
    if p != 1:
        call.not_checkable(f"p {p}")
    values = _curve(builder, f"{name}:magnitudes", signal.source, scalars.absolute())
    onto = Composed(_sums(groups, signal.size), _back(groups, signal.size))
    builder.affine(f"{name}:sums", signal.size, [Term(values, onto)])
    return _divided(builder, call, signal.source, f"{name}:sums")


def mean_variance(builder: Builder, call: Call) -> Signal:
    """MeanVarianceNormalization: (x - mean)/(deviation + 1e-9)."""
    call.arity(1, 1)
    signal, name = call.signal(0), call.node.name
    given = call.list_of_integers("axes")
    axes = call.axes((0, 2, 3) if given is None else given, len(signal.shape))
    if not axes:
        call.not_checkable("axes that are an empty list")
    groups = along(call, signal.shape, tuple(sorted(axes)))
    source = centred(builder, f"{name}:centred", signal, groups).source
    _block(builder, f"{name}:length", source, groups, Length())
    first = Gather(np.ascontiguousarray(groups[:, 0]), signal.size)
    # A correctly rounded root and a correctly rounded quotient.
    share = np.full(signal.size, 1.0 / math.sqrt(groups.shape[1]))
    onto = scaled(Composed(first, _back(groups, signal.size)), share, share * (3 * U * _UP))
    floor = _number(signal.size, float(np.float32(1e-9)))
    builder.affine(f"{name}:sums", signal.size, [Term(f"{name}:length", onto)], floor)
    return _divided(builder, call, source, f"{name}:sums")


def local_response(builder: Builder, call: Call) -> Signal:
    """LRN: x (bias + alpha/size sum of squares of nearby channels)^-beta."""
    call.arity(1, 1)
    signal, name = call.signal(0), call.node.name
    size = call.integer("size", 0)
    alpha = call.number("alpha", float(np.float32(1e-4)))
    beta, bias = call.number("beta", 0.75), call.number("bias", 1.0)
    if (
        size % 2 == 0
        or not 0 < size <= _WIDEST
        or len(signal.shape) < 2
        or beta <= 0
        or bias <= 0
        or alpha < 0
    ):
        call.not_checkable(f"size {size}, alpha {alpha}, beta {beta}, bias {bias}")
    count = signal.shape[1]
    call.allowed([signal.size, size])
    groups = np.full((signal.size, size), -1)
    places = np.moveaxis(indices(signal.shape), 1, 0)
    for c in range(count):
        for k in range(size):
            near = c + k - (size - 1) // 2
            if 0 <= near < count:
                groups[places[c], k] = places[near]
    squares = _curve(builder, f"{name}:squares", signal.source, compounds.Square())
    share = np.full(signal.size, alpha / size)
    onto = scaled(_sums(groups, signal.size), share, share * (U * _UP) + TINY)
    builder.affine(f"{name}:sums", signal.size, [Term(squares, onto)], _number(signal.size, bias))
    factors = _curve(builder, f"{name}:factors", f"{name}:sums", Power(-beta))
    builder.add(Product(name=name, size=signal.size, left=signal.source, right=factors))
    return Signal(name, signal.shape, signal.dtype)


RULES: Mapping[str, Rule] = {
    "GlobalLpPool": pooled_whole,
    "LRN": local_response,
    "LpNormalization": normalised,
    "LpPool": pooled,
    "MeanVarianceNormalization": mean_variance,
    "ReduceL1": reduce_l1,
    "ReduceL2": reduce_l2,
    "ReduceLogSum": reduce_log_sum,
    "ReduceLogSumExp": reduce_log_sum_exp,
    "ReduceSumSquare": reduce_sum_square,
}
