"""Scalar functions of every entry, and maxima over entries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf, prod
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from verifier.errors import InvalidAttribute, NonDeterministicOp
from verifier.network import elementwise as functions
from verifier.network.graph import Grouped
from verifier.network.grouped import GroupSort, Maximum
from verifier.network.linear_map import Adjoint, LinearMap
from verifier.network.nodes import Affine, Elementwise, Term
from verifier.onnx_import.convert.emitted import (
    Emitted,
    affine,
    elementwise,
    gather,
    grouped,
    index_tensor,
    indices,
    maximum,
    scaled,
    spread,
    tensor,
    then,
)
from verifier.onnx_import.moves import axes_of, axis_of, broadcast_shape
from verifier.onnx_import.values import Constant, Signal, checked_size

if TYPE_CHECKING:
    from verifier.onnx_import.call import Call

Array: TypeAlias = np.ndarray
Rule: TypeAlias = Callable[["Call"], Emitted]


def _plain(function: Callable[[int], functions.Activation]) -> Rule:
    """A function without parameters."""

    def rule(call: Call) -> Emitted:
        x = call.signal(0)
        return elementwise(call, x, function(x.size))

    return rule


def _leaky_relu(call: Call) -> Emitted:
    x = call.signal(0)
    slope = call.attributes.number("alpha", 0.01)
    return elementwise(call, x, functions.LeakyRelu(x.size, slope))


def _prelu(call: Call) -> Emitted:
    x, slopes = call.signal(0), call.array(1)
    spread_out = np.broadcast_to(slopes, x.shape).reshape(x.size)
    return elementwise(call, x, functions.PRelu(x.size, tensor(spread_out)))


def _elu(call: Call) -> Emitted:
    x = call.signal(0)
    return elementwise(call, x, functions.Elu(x.size, call.attributes.number("alpha", 1.0)))


def _selu(call: Call) -> Emitted:
    x = call.signal(0)
    alpha = call.attributes.number("alpha", 1.67326319217681884765625)
    gamma = call.attributes.number("gamma", 1.05070102214813232421875)
    if gamma <= 0:
        raise call.attributes.invalid("gamma", f"is {gamma}; it has to be positive")
    return elementwise(call, x, functions.Selu(x.size, alpha, gamma))


def _celu(call: Call) -> Emitted:
    x = call.signal(0)
    alpha = call.attributes.number("alpha", 1.0)
    if alpha <= 0:
        raise call.attributes.invalid("alpha", f"is {alpha}; it has to be positive")
    return elementwise(call, x, functions.Celu(x.size, alpha))


def _hard_sigmoid(call: Call) -> Emitted:
    x = call.signal(0)
    alpha, beta = call.attributes.number("alpha", 0.2), call.attributes.number("beta", 0.5)
    if alpha <= 0:
        raise call.attributes.invalid("alpha", f"is {alpha}; it has to be positive")
    return elementwise(call, x, functions.HardSigmoid(x.size, alpha, beta))


def _gelu(call: Call) -> Emitted:
    x = call.signal(0)
    if call.op == "Gelu" and call.attributes.text("approximate", "none") == "tanh":
        return elementwise(call, x, functions.GeluTanh(x.size))
    return elementwise(call, x, functions.Gelu(x.size))


def _swish(call: Call) -> Emitted:
    x, alpha = call.signal(0), call.attributes.number("alpha", 1.0)
    if alpha <= 0:
        raise call.unsupported(f"alpha is {alpha}")
    return elementwise(call, x, functions.Silu(x.size, alpha))


def _clip(call: Call) -> Emitted:
    x = call.signal(0)
    if call.opset < 11:
        lower = call.attributes.number("min", -inf)
        upper = call.attributes.number("max", inf)
    else:
        lower, upper = _limit(call, 1, -inf), _limit(call, 2, inf)
    if upper < lower:
        raise InvalidAttribute(
            f"node {call.name!r} (Clip): limits {lower} and {upper} are crossed",
            node=call.name,
            fix="give limits with min <= max",
        )
    if lower == -inf and upper == inf:
        return affine(call, x.shape, [(x, gather(indices(x.shape), x.size))])
    return elementwise(call, x, functions.Clip(x.size, lower, upper))


def _limit(call: Call, place: int, default: float) -> float:
    array = call.optional_array(place)
    return default if array is None else float(array.reshape(()))


def _shrink(call: Call) -> Emitted:
    bias, limit = call.attributes.number("bias", 0.0), call.attributes.number("lambd", 0.5)
    if bias != limit:
        raise _jumps(call, f"it jumps at +-{limit}, since its bias is {bias}")
    if limit < 0:
        raise call.unsupported(f"lambd is {limit}")
    x = call.signal(0)
    if limit == 0:
        return affine(call, x.shape, [(x, gather(indices(x.shape), x.size))])
    return elementwise(call, x, functions.SoftShrink(x.size, limit))


def _thresholded_relu(call: Call) -> Emitted:
    x = call.signal(0)
    alpha = call.attributes.number("alpha", 1.0)
    if alpha != 0:
        raise _jumps(call, f"it jumps from 0 to {alpha} at {alpha}")
    return elementwise(call, x, functions.Relu(x.size))


def _jumps(call: Call, what: str) -> Exception:
    return call.blocked(
        "discontinuous-op",
        f"{what}: no Lipschitz constant exists",
        "leave the operator out of the exported model, or replace it by a continuous one",
    )


def _extreme(call: Call, sign: int) -> Emitted:
    """Max or Min of several tensors: stacked into one signal, then windows across the parts."""
    shape = broadcast_shape(call, *(call.shape(place) for place in range(len(call.inputs))))
    count, size = len(call.inputs), prod(checked_size(shape, call.name))
    signals = [value for value in call.inputs if isinstance(value, Signal)]
    limits = [value for value in call.inputs if isinstance(value, Constant)]
    if (len(signals), len(limits)) == (1, 1) and signals[0].shape == shape:
        return _limited(call, signals[0], np.broadcast_to(limits[0].array, shape), sign)
    checked_size((count, size), call.name)
    places = indices((count, size))
    bias = np.zeros((count, size))
    terms: list[Term] = []
    for part, value in enumerate(call.inputs):
        if isinstance(value, Signal):
            put: LinearMap = Adjoint(gather(places[part], count * size))
            spread_out = spread(call, value, shape)
            terms.append(Term(value.node, then(spread_out, put)))
        elif isinstance(value, Constant):
            bias[part] = np.broadcast_to(value.array, shape).reshape(size)
    stacked = f"{call.output}:stacked"
    windows = index_tensor(places.T).reshape(size, count)
    return Emitted(
        (
            Affine(stacked, tuple(terms), tensor(bias.reshape(-1))),
            Grouped(call.output, stacked, Maximum(windows, count * size, sign)),
        ),
        shape,
    )


def _limited(call: Call, x: Signal, limit: Array, sign: int) -> Emitted:
    """max(x, c) or min(x, c): of numbers c that differ, c + relu(x - c) or c - relu(c - x)."""
    first = float(limit.reshape(-1)[0]) if limit.size else 0.0
    if (limit == first).all():
        ends = (first, inf) if sign == 1 else (-inf, first)
        return elementwise(call, x, functions.Clip(x.size, *ends))
    entering, over = f"{call.output}:in", f"{call.output}:over"
    flat = tensor(limit.reshape(-1))
    turned = scaled(gather(indices(x.shape), x.size), float(sign))
    nodes = (
        Affine(entering, (Term(x.node, turned),), -sign * flat),
        Elementwise(over, entering, functions.Relu(x.size), gate=over),
        Affine(call.output, (Term(over, turned),), flat),
    )
    return Emitted(nodes, x.shape)


def _max(call: Call) -> Emitted:
    return _extreme(call, 1)


def _min(call: Call) -> Emitted:
    return _extreme(call, -1)


def _reduce_extreme(call: Call, sign: int) -> Emitted:
    x = call.signal(0)
    axes = axes_of(call, 1, len(x.shape), since=18)
    keep = bool(call.attributes.integer("keepdims", 1))
    nothing = call.attributes.integer("noop_with_empty_axes", 0) if 18 <= call.opset else 0
    if not axes:
        axes = () if nothing else tuple(range(len(x.shape)))
    others = [axis for axis in range(len(x.shape)) if axis not in axes]
    shape = tuple(x.shape[axis] for axis in others)
    windows = indices(x.shape).transpose(*others, *sorted(axes)).reshape(*shape, -1)
    made = maximum(call, x, windows, shape, sign)
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
    return Emitted(made.nodes, kept if keep else shape)


def _reduce_max(call: Call) -> Emitted:
    return _reduce_extreme(call, 1)


def _reduce_min(call: Call) -> Emitted:
    return _reduce_extreme(call, -1)


def _top_k(call: Call) -> Emitted:
    """All entries of an axis, sorted: a sort of groups that are the axis."""
    x = call.signal(0)
    axis = axis_of(call, call.attributes.integer("axis", -1), len(x.shape))
    largest = call.attributes.integer("largest", 1) if 11 <= call.opset else 1
    if 11 <= call.opset and not call.attributes.integer("sorted", 1):
        raise NonDeterministicOp(
            f"node {call.name!r} (TopK) has sorted = 0: the order of its result is not defined",
            node=call.name,
            fix="export with sorted=True",
        )
    count = call.attributes.integer("k") if call.opset < 10 else int(call.array(1).reshape(()))
    if not 1 <= count <= x.shape[axis]:
        raise call.attributes.invalid("k", f"is {count} of {x.shape[axis]} entries")
    rows = np.moveaxis(indices(x.shape), axis, -1).reshape(-1, x.shape[axis])
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    places = rows[:, ::-1] if largest else rows
    sort = GroupSort(
        index_tensor(rows).reshape(rows.shape), index_tensor(places).reshape(rows.shape)
    )
    if count == x.shape[axis]:
        return grouped(call, x, sort, x.shape)
    # A selection is the first entries of the whole axis, sorted.
    whole = f"{call.output}:sorted"
    first = np.take(indices(x.shape), range(count), axis)
    node = Affine(call.output, (Term(whole, gather(first, x.size)),), tensor(np.zeros(first.size)))
    return Emitted((Grouped(whole, x.node, sort), node), first.shape)


def _power(call: Call) -> Emitted:
    """x^p for one number p."""
    x, exponents = call.signal(0), call.array(1)
    if exponents.size != 1 or broadcast_shape(call, x.shape, exponents.shape) != x.shape:
        raise call.unsupported("its exponent is not one number")
    exponent = float(exponents.reshape(()))
    if exponent == 0:
        raise call.unsupported("its exponent is 0")
    if exponent == 1:
        return affine(call, x.shape, [(x, gather(indices(x.shape), x.size))])
    return elementwise(call, x, functions.Power(x.size, exponent))


def _root(call: Call) -> Emitted:
    x = call.signal(0)
    return elementwise(call, x, functions.Power(x.size, 0.5))


def _reciprocal(call: Call) -> Emitted:
    x = call.signal(0)
    return elementwise(call, x, functions.Power(x.size, -1.0))


RULES: Final[Mapping[str, Rule]] = {
    "Abs": _plain(functions.Abs),
    "Asinh": _plain(functions.Asinh),
    "Atan": _plain(functions.Atan),
    "Celu": _celu,
    "Clip": _clip,
    "Cos": _plain(functions.Cos),
    "Cosh": _plain(functions.Cosh),
    "Elu": _elu,
    "Erf": _plain(functions.Erf),
    "Exp": _plain(functions.Exp),
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _plain(functions.HardSwish),
    "LeakyRelu": _leaky_relu,
    "Log": _plain(functions.Log),
    "Max": _max,
    "Min": _min,
    "Mish": _plain(functions.Mish),
    "PRelu": _prelu,
    "Pow": _power,
    "Reciprocal": _reciprocal,
    "ReduceMax": _reduce_max,
    "ReduceMin": _reduce_min,
    "Relu": _plain(functions.Relu),
    "Selu": _selu,
    "Shrink": _shrink,
    "Sigmoid": _plain(functions.Sigmoid),
    "Sin": _plain(functions.Sin),
    "Sinh": _plain(functions.Sinh),
    "Softplus": _plain(functions.Softplus),
    "Softsign": _plain(functions.Softsign),
    "Sqrt": _root,
    "Swish": _swish,
    "Tanh": _plain(functions.Tanh),
    "ThresholdedRelu": _thresholded_relu,
    "TopK": _top_k,
    "com.microsoft::Gelu": _gelu,
}
