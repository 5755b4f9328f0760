"""Norms of windows and of axes, and what is divided by them.

Of a tensor t: "t:magnitudes" is |x|, "t:squares" x^2, "t:parts" the entries of windows, "t:length"
their lengths, "t:sums" sums, "t:shares" the log-softmax of a group, "t:reciprocal" and "t:factors"
what x is multiplied by.

    log sum_j exp(x_j) = x_i - log softmax(x)_i
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod, sqrt
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from verifier.network import elementwise as functions
from verifier.network.blocks import Length, LogSoftmax, Normalise
from verifier.network.graph import Grouped, Node
from verifier.network.linear_map import Adjoint, LinearMap
from verifier.network.nodes import Affine, Elementwise, Product, Term
from verifier.onnx_import.convert.blocks import along, centring
from verifier.onnx_import.convert.emitted import (
    Emitted,
    elementwise,
    gather,
    grouped,
    index_tensor,
    indices,
    scaled,
    tensor,
    then,
)
from verifier.onnx_import.convert.windows import image_window, window_places
from verifier.onnx_import.moves import axes_of, axis_of
from verifier.onnx_import.patterns.squares import lengths
from verifier.onnx_import.values import Shape, Signal, checked_size

if TYPE_CHECKING:
    from verifier.network.elementwise import Activation
    from verifier.onnx_import.call import Call

Array: TypeAlias = np.ndarray
Rule: TypeAlias = Callable[["Call"], Emitted]

WIDEST: Final = 2**10  #: channels that a local response looks at
DEVIATION_FLOOR: Final = float(np.float32(1e-9))  #: what MeanVarianceNormalization adds


def _of(call: Call, part: str, x: str, function: Activation) -> Elementwise:
    """A function of every entry, as a part of the operator."""
    name = f"{call.output}:{part}"
    return Elementwise(name, x, function, gate=name)


def _sums(groups: Array, size: int) -> LinearMap:
    """The sum of every group; -1 adds nothing."""
    owner = np.repeat(np.arange(len(groups)), groups.shape[1])
    return then(gather(groups, size), Adjoint(gather(owner, len(groups))))


def _named(name: str, terms: list[Term], bias: float = 0.0) -> Affine:
    return Affine(name, tuple(terms), tensor(np.full(terms[0].map.out_size, bias)))


# --- Windows and axes ----------------------------------------------------------------------------


def _lp_pool(call: Call) -> Emitted:
    x, window = call.signal(0), image_window(call)
    spatial = x.shape[2:]
    shape = checked_size((*x.shape[:2], *window.out), call.name)
    checked_size((*shape, prod(window.kernel)), call.name)
    places = window_places(window, spatial)
    index = indices((prod(x.shape[:2]), prod(spatial)))[:, np.maximum(places, 0)]
    groups = np.where(places < 0, -1, index).reshape(prod(shape), -1)
    return _norms(call, x, groups, shape)


def _global_lp_pool(call: Call) -> Emitted:
    x = call.signal(0)
    groups = along(call, x, tuple(range(2, len(x.shape)))).numpy()
    return _norms(call, x, groups, (*x.shape[:2], *(1,) * (len(x.shape) - 2)))


def _norms(call: Call, x: Signal, groups: Array, shape: Shape) -> Emitted:
    """The lp norms of windows, p = 1 or 2."""
    match call.attributes.integer("p", 2):
        case 1:
            return _sums_of(call, x, groups, shape, "magnitudes", functions.Abs(x.size))
        case 2:
            parts = _named(f"{call.output}:parts", [Term(x.node, gather(groups, x.size))])
            places = np.arange(groups.size).reshape(groups.shape)
            made = lengths(call, parts.name, places, shape)
            return Emitted((parts, *made.nodes), shape)
        case p:
            raise call.unsupported(f"p is {p}")


def _sums_of(
    call: Call, x: Signal, groups: Array, shape: Shape, part: str, function: Activation
) -> Emitted:
    values = _of(call, part, x.node, function)
    total = _named(call.output, [Term(values.name, _sums(groups, x.size))])
    return Emitted((values, total), shape)


def _reduced(call: Call) -> tuple[Signal, Array, Shape]:
    """(x, the groups that become one entry each, what is left of x's shape)."""
    x = call.signal(0)
    rank = len(x.shape)
    axes = axes_of(call, 1, rank, since=18)
    keep = bool(call.attributes.integer("keepdims", 1))
    nothing = call.attributes.integer("noop_with_empty_axes", 0) if 18 <= call.opset else 0
    if nothing and not axes:
        # The specification's result is x, that of run times the norm of every entry.
        raise call.unsupported("it reduces nothing (noop_with_empty_axes)")
    axes = axes or tuple(range(rank))
    groups = along(call, x, tuple(sorted(axes))).numpy()
    kept = tuple(1 if axis in axes else n for axis, n in enumerate(x.shape))
    return x, groups, kept if keep else tuple(n for a, n in enumerate(x.shape) if a not in axes)


def _reduce_l1(call: Call) -> Emitted:
    x, groups, shape = _reduced(call)
    return _sums_of(call, x, groups, shape, "magnitudes", functions.Abs(x.size))


def _reduce_l2(call: Call) -> Emitted:
    x, groups, shape = _reduced(call)
    return lengths(call, x.node, groups, shape)


def _reduce_sum_square(call: Call) -> Emitted:
    x, groups, shape = _reduced(call)
    return _sums_of(call, x, groups, shape, "squares", functions.Power(x.size, 2.0))


def _reduce_log_sum(call: Call) -> Emitted:
    x, groups, shape = _reduced(call)
    sums = _named(f"{call.output}:sums", [Term(x.node, _sums(groups, x.size))])
    log = elementwise(call, Signal(sums.name, shape, x.dtype), functions.Log(len(groups)))
    return Emitted((sums, *log.nodes), shape)


def _reduce_log_sum_exp(call: Call) -> Emitted:
    x, groups, shape = _reduced(call)
    name = f"{call.output}:shares"
    shares = Grouped(name, x.node, LogSoftmax(index_tensor(groups).reshape(groups.shape)))
    first = gather(np.ascontiguousarray(groups[:, 0]), x.size)
    whole = _named(call.output, [Term(x.node, first), Term(name, scaled(first, -1.0))])
    return Emitted((shares, whole), shape)


# --- Quotients -----------------------------------------------------------------------------------


def _lp_normalization(call: Call) -> Emitted:
    x = call.signal(0)
    axis = axis_of(call, call.attributes.integer("axis", -1), len(x.shape))
    groups = along(call, x, (axis,))
    match call.attributes.integer("p", 2):
        case 2:
            return grouped(call, x, Normalise(groups=groups, epsilon=0.0, form="root"), x.shape)
        case 1:
            values = _of(call, "magnitudes", x.node, functions.Abs(x.size))
            onto = then(_sums(groups.numpy(), x.size), _back(groups.numpy(), x.size))
            sums = _named(f"{call.output}:sums", [Term(values.name, onto)])
            return _divided(call, x, x.node, [values, sums])
        case p:
            raise call.unsupported(f"p is {p}")


def _back(groups: Array, size: int) -> LinearMap:
    """To every entry what its group has."""
    owner = np.empty(size, np.int64)
    owner[groups] = np.arange(len(groups))[:, None]
    return gather(owner, len(groups))


def _divided(call: Call, x: Signal, left: str, before: list[Node]) -> Emitted:
    """A signal of x's shape by the last of the nodes."""
    inverse = _of(call, "reciprocal", before[-1].name, functions.Power(x.size, -1.0))
    whole = Product(name=call.output, left=left, right=inverse.name, size=x.size)
    return Emitted((*before, inverse, whole), x.shape)


def _mean_variance(call: Call) -> Emitted:
    """(x - mean)/(deviation + 1e-9)."""
    x = call.signal(0)
    axes = call.attributes.integers("axes") or (0, 2, 3)
    axes = tuple(sorted(axis_of(call, axis, len(x.shape)) for axis in axes))
    groups = along(call, x, axes)
    centred = centring(f"{call.output}:centred", x, groups)
    name = f"{call.output}:length"
    length = Grouped(name, centred.name, Length(groups))
    first = gather(groups.numpy()[:, 0].copy(), x.size)
    onto = scaled(then(first, _back(groups.numpy(), x.size)), 1.0 / sqrt(groups.shape[1]))
    sums = _named(f"{call.output}:sums", [Term(name, onto)], DEVIATION_FLOOR)
    return _divided(call, x, centred.name, [centred, length, sums])


def _lrn(call: Call) -> Emitted:
    """x (bias + alpha/size sum of squares of nearby channels)^-beta."""
    x, size = call.signal(0), call.attributes.integer("size")
    alpha, beta = call.attributes.number("alpha", 1e-4), call.attributes.number("beta", 0.75)
    bias = call.attributes.number("bias", 1.0)
    if (
        size % 2 == 0
        or not 0 < size <= WIDEST
        or len(x.shape) < 2
        or not 0 < beta
        or not 0 < bias
        or alpha < 0
    ):
        raise call.unsupported(f"size {size}, alpha {alpha}, beta {beta}, bias {bias}")
    checked_size((x.size, size), call.name)
    channels = np.arange(x.shape[1])[:, None] + np.arange(size) - (size - 1) // 2
    inside = (0 <= channels) & (channels < x.shape[1])
    near = indices(x.shape)[:, np.clip(channels, 0, x.shape[1] - 1)]
    form = (1, *channels.shape, *(1,) * (len(x.shape) - 2))
    groups = np.moveaxis(np.where(inside.reshape(form), near, -1), 2, -1).reshape(x.size, size)
    squares = _of(call, "squares", x.node, functions.Power(x.size, 2.0))
    onto = scaled(_sums(groups, x.size), alpha / size)
    sums = _named(f"{call.output}:sums", [Term(squares.name, onto)], bias)
    factors = _of(call, "factors", sums.name, functions.Power(x.size, -beta))
    whole = Product(name=call.output, left=x.node, right=factors.name, size=x.size)
    return Emitted((squares, sums, factors, whole), x.shape)


RULES: Final[Mapping[str, Rule]] = {
    "GlobalLpPool": _global_lp_pool,
    "LRN": _lrn,
    "LpNormalization": _lp_normalization,
    "LpPool": _lp_pool,
    "MeanVarianceNormalization": _mean_variance,
    "ReduceL1": _reduce_l1,
    "ReduceL2": _reduce_l2,
    "ReduceLogSum": _reduce_log_sum,
    "ReduceLogSumExp": _reduce_log_sum_exp,
    "ReduceSumSquare": _reduce_sum_square,
}
