"""Dense maps, sums, scalings, means: operators that are affine in one or several signals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from verifier.errors import NonFiniteWeights, ShapeMismatch, TrainingModeOp
from verifier.network.linear_map import Adjoint, Dense, Diagonal, LinearMap
from verifier.onnx_import.convert.emitted import (
    Emitted,
    affine,
    gather,
    index_tensor,
    indices,
    scaled,
    spread,
    tensor,
    then,
)
from verifier.onnx_import.convert.products import (
    divided,
    general_product,
    matrix_product,
    multiplied,
    scaled_by,
)
from verifier.onnx_import.fold import pad_value
from verifier.onnx_import.moves import FILL, MOVES, axes_of, axis_of, broadcast_shape
from verifier.onnx_import.values import Constant, Shape, Signal, checked_size

if TYPE_CHECKING:
    from verifier.onnx_import.call import Call

Array: TypeAlias = np.ndarray
Rule: TypeAlias = Callable[["Call"], Emitted]


def _summed(call: Call, signs: tuple[float, ...]) -> Emitted:
    """A signed sum of broadcast signals and constants."""
    shape = broadcast_shape(call, *(call.shape(place) for place in range(len(call.inputs))))
    terms: list[tuple[Signal, LinearMap]] = []
    bias = np.zeros(checked_size(shape, call.name))
    for value, sign in zip(call.inputs, signs, strict=True):
        match value:
            case Signal():
                terms.append((value, scaled(spread(call, value, shape), sign)))
            case Constant():
                bias = bias + sign * value.array
            case _:
                raise call.unsupported("an operand is missing")
    return affine(call, shape, terms, bias)


def _add(call: Call) -> Emitted:
    return _summed(call, (1.0, 1.0))


def _sub(call: Call) -> Emitted:
    return _summed(call, (1.0, -1.0))


def _sum(call: Call) -> Emitted:
    return _summed(call, (1.0,) * len(call.inputs))


def _mean(call: Call) -> Emitted:
    return _summed(call, (1.0 / len(call.inputs),) * len(call.inputs))


def _neg(call: Call) -> Emitted:
    x = call.signal(0)
    return affine(call, x.shape, [(x, scaled(gather(indices(x.shape), x.size), -1.0))])


def _mul(call: Call) -> Emitted:
    a, b = call.input(0), call.input(1)
    match a, b:
        case Signal(), Constant():
            return scaled_by(call, a, b.array)
        case Constant(), Signal():
            return scaled_by(call, b, a.array)
        case Signal(), Signal():
            return multiplied(call, a, b)
        case _:
            raise call.unsupported("an operand is missing")


def _div(call: Call) -> Emitted:
    if isinstance(b := call.input(1), Signal):
        return divided(call, b)
    divisor = call.array(1)
    if not divisor.all():
        raise NonFiniteWeights(
            f"node {call.name!r} (Div): a constant divisor is 0",
            node=call.name,
            fix="divide by constants other than 0",
        )
    return scaled_by(call, call.signal(0), np.asarray(1.0 / divisor))


def _matmul(call: Call) -> Emitted:
    a, b = call.input(0), call.input(1)
    match a, b:
        case Signal(), Constant():
            return _times_matrix(call, a, b.array)
        case Constant(), Signal():
            return _matrix_times(call, a.array, b)
        case Signal(), Signal():
            return matrix_product(call, a, b)
        case _:
            raise call.unsupported("an operand is missing")


def _times_matrix(call: Call, x: Signal, weight: Array) -> Emitted:
    """X W along x's last axis."""
    matrix = weight[:, None] if weight.ndim == 1 else weight
    if prod(matrix.shape[:-2]) != 1:
        return _stacked_matmul(call)
    matrix = matrix.reshape(matrix.shape[-2:])
    _check_inner(call, x.shape[-1:], matrix.shape[:1])
    lead = x.shape[:-1]
    missing = weight.ndim - max(len(x.shape), 2)
    shape = (*(1,) * max(missing, 0), *lead, *(matrix.shape[1:] if 1 < weight.ndim else ()))
    return affine(call, shape, [(x, Dense(tensor(matrix.T), prod(lead)))])


def _matrix_times(call: Call, weight: Array, x: Signal) -> Emitted:
    """W x along x's last axis but one."""
    if len(x.shape) == 1:
        _check_inner(call, weight.shape[-1:], x.shape)
        rows = weight.reshape(-1, weight.shape[-1])
        return affine(call, weight.shape[:-1], [(x, Dense(tensor(rows)))])
    matrix = weight[None, :] if weight.ndim == 1 else weight
    if prod(matrix.shape[:-2]) != 1:
        return _stacked_matmul(call)
    matrix = matrix.reshape(matrix.shape[-2:])
    lead, inner, columns = x.shape[:-2], x.shape[-2:-1], prod(x.shape[-1:])
    _check_inner(call, matrix.shape[1:], inner)
    turned = gather(np.swapaxes(indices(x.shape), -1, -2), x.size)
    dense = Dense(tensor(matrix), prod(lead) * columns)
    back = np.swapaxes(indices((*lead, columns, len(matrix))), -1, -2)
    linear = then(then(turned, dense), gather(back, dense.out_size))
    rows = () if weight.ndim == 1 else matrix.shape[:1]
    missing = (1,) * max(weight.ndim - len(x.shape), 0)
    return affine(call, (*missing, *lead, *rows, columns), [(x, linear)])


def _stacked_matmul(call: Call) -> Emitted:
    """A stack of different matrices: written out as one, where that is small."""
    place = 0 if isinstance(call.input(0), Signal) else 1
    x, constant = call.signal(place), call.array(1 - place)
    if len(x.shape) < 2 or constant.ndim < 2:
        raise call.unsupported("a vector meets a stack of matrices")
    missing = (1,) * max(constant.ndim - len(x.shape), 0)

    def times(rows: Array) -> Array:
        stacks = rows.reshape(len(rows), *missing, *x.shape)
        return stacks @ constant if place == 0 else constant @ stacks

    return written_out(call, x, times)


def written_out(call: Call, x: Signal, linear: Callable[[Array], Array]) -> Emitted:
    """A linear function as the matrix of its values on the unit vectors.

    `linear` maps arrays of x's shape with one batch axis in front.
    """
    zeros = np.zeros((1, *x.shape))
    shape = linear(zeros).shape[1:]
    checked_size((x.size, *shape), call.name)
    columns = linear(np.eye(x.size).reshape(x.size, *x.shape))
    return affine(call, shape, [(x, Dense(tensor(columns.reshape(x.size, -1).T)))])


def _check_inner(call: Call, left: tuple[int, ...], right: tuple[int, ...]) -> None:
    if left != right:
        raise ShapeMismatch(
            f"node {call.name!r} ({call.op}): columns {left} meet rows {right}",
            node=call.name,
            fix="export the model again",
        )


def _gemm(call: Call) -> Emitted:
    """Alpha A' B' + beta C."""
    if isinstance(a := call.input(0), Signal) and isinstance(b := call.input(1), Signal):
        return general_product(call, a, b)
    return _gemm_with_matrix(call)


def _gemm_with_matrix(call: Call) -> Emitted:
    """The same with one of A and B constant."""
    alpha = call.attributes.number("alpha", 1.0)
    turn_a = bool(call.attributes.integer("transA", 0))
    turn_b = bool(call.attributes.integer("transB", 0))
    a, b = call.input(0), call.input(1)
    match a, b:
        case Signal(), Constant():
            x, weight, turn, turn_weight = a, b.array, turn_a, turn_b
        case Constant(), Signal():  # (A B)' = B' A'
            x, weight, turn, turn_weight = b, a.array, not turn_b, not turn_a
        case _:
            raise call.unsupported("an operand is missing")
    if (len(x.shape), weight.ndim) != (2, 2):
        raise call.unsupported(f"its factors have {len(x.shape)} and {weight.ndim} axes")
    index = indices(x.shape)
    index = index.T if turn else index
    matrix = weight.T if turn_weight else weight
    _check_inner(call, index.shape[1:], matrix.shape[:1])
    weight = matrix.T if alpha == 1.0 else alpha * matrix.T
    dense = Dense(tensor(weight), index.shape[0])
    linear, shape = then(gather(index, x.size), dense), (index.shape[0], matrix.shape[1])
    if x is b:
        back = np.ascontiguousarray(indices(shape).T)
        linear, shape = then(linear, gather(back, dense.out_size)), back.shape
    return _with_addend(call, shape, x, linear)


def _with_addend(call: Call, shape: Shape, x: Signal, linear: LinearMap) -> Emitted:
    beta = call.attributes.number("beta", 1.0)
    addend = call.input(2)
    match addend:
        case None:
            return affine(call, shape, [(x, linear)])
        case Signal():
            more = scaled(spread(call, addend, shape), beta)
            return affine(call, shape, [(x, linear), (addend, more)])
        case _:
            return affine(call, shape, [(x, linear)], beta * call.array(2))


def _batch_normalization(call: Call) -> Emitted:
    """Gamma (x - mean)/sqrt(var + eps) + beta by channel."""
    x = call.signal(0)
    call.attributes.ignore("momentum")
    extra = any(call.operator.outputs[1:])
    training = call.attributes.integer("training_mode", 0) if 14 <= call.opset else extra
    if training:
        raise TrainingModeOp(
            f"node {call.name!r} (BatchNormalization) is in training mode",
            node=call.name,
            fix="export the model in evaluation mode (model.eval())",
        )
    if call.opset < 9 and call.attributes.integer("spatial", 1) != 1:
        raise call.unsupported("it has spatial = 0")
    gamma, beta, mean, variance = (call.array(place) for place in range(1, 5))
    shifted = variance + call.attributes.number("epsilon", 1e-5)
    if not (0 < shifted).all():
        raise NonFiniteWeights(
            f"node {call.name!r} (BatchNormalization): variance + epsilon is not positive",
            node=call.name,
            fix="train or export again",
        )
    by_channel = (-1, *(1,) * (len(x.shape) - 2))
    factor = gamma / np.sqrt(shifted)
    bias = (beta - mean * factor).reshape(by_channel)
    scale = np.broadcast_to(factor.reshape(by_channel), x.shape).reshape(x.size)
    return affine(call, x.shape, [(x, Diagonal(tensor(scale)))], bias)


def _reduce(call: Call, since: int, *, mean: bool) -> Emitted:
    """Sums over axes: the adjoint of a broadcast."""
    x = call.signal(0)
    axes = axes_of(call, 1, len(x.shape), since=since)
    keep = bool(call.attributes.integer("keepdims", 1))
    nothing = call.attributes.integer("noop_with_empty_axes", 0) if since <= call.opset else 0
    if not axes:
        axes = () if nothing else tuple(range(len(x.shape)))
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
    owner = np.broadcast_to(indices(kept), x.shape)
    linear: LinearMap = Adjoint(gather(owner, prod(kept)))
    factor = 1.0 / prod(x.shape[axis] for axis in axes) if mean else 1.0
    shape = kept if keep else tuple(n for axis, n in enumerate(x.shape) if axis not in axes)
    return affine(call, shape, [(x, scaled(linear, factor))])


def _reduce_sum(call: Call) -> Emitted:
    return _reduce(call, 13, mean=False)


def _reduce_mean(call: Call) -> Emitted:
    return _reduce(call, 18, mean=True)


def _global_average_pool(call: Call) -> Emitted:
    x = call.signal(0)
    kept = (*x.shape[:2], *(1,) * (len(x.shape) - 2))
    owner = np.broadcast_to(indices(kept), x.shape)
    linear = Adjoint(gather(owner, prod(kept)))
    return affine(call, kept, [(x, scaled(linear, 1.0 / prod(x.shape[2:])))])


def _concat(call: Call) -> Emitted:
    """Every operand put at its place: the adjoint of a slice."""
    shapes = [call.shape(place) for place in range(len(call.inputs))]
    axis = axis_of(call, call.attributes.integer("axis"), len(shapes[0]))
    if len({(*shape[:axis], *shape[axis + 1 :]) for shape in shapes}) != 1:
        raise ShapeMismatch(
            f"node {call.name!r} (Concat): shapes {[list(shape) for shape in shapes]} differ "
            f"beyond axis {axis}",
            node=call.name,
            fix="export the model again",
        )
    total = list(shapes[0])
    total[axis] = sum(shape[axis] for shape in shapes)
    whole = indices(checked_size(tuple(total), call.name))
    ends = np.cumsum([shape[axis] for shape in shapes])[:-1]
    bias = np.zeros(tuple(total))
    terms: list[tuple[Signal, LinearMap]] = []
    for value, part in zip(call.inputs, np.split(whole, ends, axis), strict=True):
        if isinstance(value, Signal):
            terms.append((value, Adjoint(gather(part, whole.size))))
        elif isinstance(value, Constant):
            bias.reshape(-1)[part.reshape(-1)] = value.array.reshape(-1)
    return affine(call, tuple(total), terms, bias)


def _scaler(call: Call) -> Emitted:
    """ai.onnx.ml: (x - offset) scale along the last axis."""
    x = call.signal(0)
    offset = np.array(call.attributes.floats("offset") or (0.0,))
    scale = np.array(call.attributes.floats("scale") or (1.0,))
    if 2 < len(x.shape) and 1 < max(offset.size, scale.size):
        raise call.unsupported("it does not say which axis the features are")
    factor = np.broadcast_to(scale, x.shape)
    return affine(call, x.shape, [(x, Diagonal(tensor(factor.reshape(x.size))))], -offset * factor)


def _zip_map(call: Call) -> Emitted:
    """ai.onnx.ml: the same numbers, keyed by labels; in their order where labels ascend."""
    attributes = call.attributes
    attributes.ignore("classlabels_strings", "classlabels_int64s")
    names = ("classlabels_int64s", "classlabels_strings")
    labels = next((attributes.values[name] for name in names if name in attributes.values), ())
    if not isinstance(labels, tuple) or list(labels) != sorted(set(labels), key=_label):
        raise call.unsupported("its labels do not ascend")
    return _cast(call)


def _label(label: object) -> tuple[float, str]:
    return (float(label), "") if isinstance(label, int | float) else (0.0, str(label))


def _cast(call: Call) -> Emitted:
    """Between float types, which is the identity over the reals."""
    x = call.signal(0)
    return affine(call, x.shape, [(x, gather(indices(x.shape), x.size))])


def moved(call: Call) -> list[Emitted]:
    """An operator that only moves entries, with one or several outputs."""
    x = call.signal(0)
    results: list[Emitted] = []
    for place, index in enumerate(MOVES[call.op](call, indices(x.shape))):
        checked_size(index.shape, call.name)
        bias = None
        if call.op == "Pad" and (index == FILL).any():
            bias = np.where(index == FILL, pad_value(call), 0.0)
        made = affine(call, index.shape, [(x, gather(index, x.size))], bias)
        named = tuple(replace(node, name=call.operator.outputs[place]) for node in made.nodes)
        results.append(Emitted(named, made.shape))
    return results


RULES: Final[Mapping[str, Rule]] = {
    "Add": _add,
    "BatchNormalization": _batch_normalization,
    "Cast": _cast,
    "Concat": _concat,
    "Div": _div,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average_pool,
    "MatMul": _matmul,
    "Mean": _mean,
    "Mul": _mul,
    "Neg": _neg,
    "ReduceMean": _reduce_mean,
    "ReduceSum": _reduce_sum,
    "Sub": _sub,
    "Sum": _sum,
    "ai.onnx.ml::Scaler": _scaler,
    "ai.onnx.ml::ZipMap": _zip_map,
}

__all__ = ["RULES", "Rule", "index_tensor", "moved", "written_out"]
