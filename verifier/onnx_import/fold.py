"""Operators on constants, computed once: float64, int64 and bool arrays, sizes checked first."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from verifier.errors import NonFiniteWeights
from verifier.onnx_import import counted
from verifier.onnx_import.moves import MOVES, axes_of, axis_of, broadcast_shape
from verifier.onnx_import.tensors import element_type, nearest
from verifier.onnx_import.values import Constant, checked_size

if TYPE_CHECKING:
    from verifier.onnx_import.call import Call

Array: TypeAlias = np.ndarray
Folder: TypeAlias = Callable[["Call"], Constant]


#: Constants of any size that the file may state in a few bytes: weights of a model for tests.
DECLARED: Final = frozenset({"Constant", "ConstantOfShape"})


def fold(call: Call) -> list[Constant]:
    """The constants that leave an operator whose operands are all constant.

    Raises:
        Unrepresented: there is no folder for this operator.
        NonFiniteWeights: a result is nan or infinite.
    """
    with np.errstate(all="ignore"):
        if call.op in MOVES:
            first = call.inputs[0]
            assert isinstance(first, Constant)  # noqa: S101 (the caller's own condition)
            moved = _moved(call, first)
            results = [Constant(np.array(array, order="C"), first.dtype) for array in moved]
        elif call.op in FOLDERS:
            results = [FOLDERS[call.op](call)]
        else:
            raise call.unsupported("its operands are all constant")
    for result in results:
        if result.array.dtype.kind == "f" and not _is_finite(result.array):
            raise NonFiniteWeights(
                f"node {call.name!r} ({call.op}): a constant becomes nan or infinite",
                node=call.name,
                fix="train or export again: every constant has to be finite",
            )
    return results


def _is_finite(array: Array) -> bool:
    """Whether all entries are: where the sum is, which takes no memory, they are."""
    with np.errstate(all="ignore"):
        return bool(np.isfinite(array.sum()) or np.isfinite(array).all())


def _moved(call: Call, first: Constant) -> tuple[Array, ...]:
    """Moved numbers; padding fills with its own value, not with an index."""
    if call.op != "Pad" or call.attributes.text("mode", "constant") != "constant":
        return MOVES[call.op](call, first.array)
    index = MOVES["Pad"](call, np.arange(first.array.size).reshape(first.shape))[0]
    padded = np.append(first.array.reshape(-1), pad_value(call))
    return (padded[index],)


def pad_value(call: Call) -> float:
    """What constant padding fills with."""
    if call.opset < 11:
        return call.attributes.number("value", 0.0)
    value = call.optional_array(2)
    return 0.0 if value is None else float(value.reshape(-1)[0])


def _elementwise(function: Callable[..., Array], dtype: str = "") -> Folder:
    """A numpy function of broadcast operands; the result has the first one's type."""

    def folder(call: Call) -> Constant:
        operands = [call.array(place) for place in range(len(call.inputs))]
        checked_size(broadcast_shape(call, *(operand.shape for operand in operands)), call.name)
        return Constant.of(np.asarray(function(*operands)), dtype or _dtype(call))

    return folder


def _dtype(call: Call, place: int = 0) -> str:
    value = call.inputs[place]
    return value.dtype if value is not None else "float32"


def _divide(a: Array, b: Array) -> Array:
    if a.dtype.kind == "i":  # towards zero, as in C; a zero divisor is refused as infinite
        return np.asarray(np.trunc(np.true_divide(a, b)).astype(np.int64) if b.all() else np.inf)
    return np.asarray(a / b)


def _variadic(function: Callable[[Array, Array], Array]) -> Folder:
    def folder(call: Call) -> Constant:
        operands = [call.array(place) for place in range(len(call.inputs))]
        checked_size(broadcast_shape(call, *(operand.shape for operand in operands)), call.name)
        result = operands[0]
        for operand in operands[1:]:
            result = function(result, operand)
        return Constant.of(np.asarray(result), _dtype(call))

    return folder


def _reduce(function: Callable[..., Array], since: int) -> Folder:
    def folder(call: Call) -> Constant:
        x = call.array(0)
        axes = axes_of(call, 1, x.ndim, since=since)
        keep = bool(call.attributes.integer("keepdims", 1))
        nothing = call.attributes.integer("noop_with_empty_axes", 0) if since <= call.opset else 0
        if not axes and nothing:
            return Constant(x, _dtype(call))
        return Constant.of(np.asarray(function(x, axis=axes or None, keepdims=keep)), _dtype(call))

    return folder


def _l2(x: Array, axis: tuple[int, ...] | None, keepdims: bool) -> Array:
    return np.asarray(np.sqrt(np.sum(x * x, axis=axis, keepdims=keepdims)))


def _l1(x: Array, axis: tuple[int, ...] | None, keepdims: bool) -> Array:
    return np.asarray(np.sum(np.abs(x), axis=axis, keepdims=keepdims))


def _constant(call: Call) -> Constant:
    tensor = call.attributes.tensor("value")
    if tensor is not None:
        return tensor
    for name, dtype in (
        ("value_int", "int64"),
        ("value_ints", "int64"),
        ("value_float", "float32"),
        ("value_floats", "float32"),
    ):
        if name in call.attributes.values:
            numbers = call.attributes.values[name]
            call.attributes.ignore(name)
            return Constant.of(np.asarray(numbers, np.dtype(dtype)), dtype)
    raise call.unsupported("the constant is no tensor of numbers")


def _constant_of_shape(call: Call) -> Constant:
    shape = call.integers(0) or ()
    value = call.attributes.tensor("value")
    if min(shape, default=0) < 0:
        raise call.attributes.invalid("shape", f"is {shape}")
    checked_size(shape, call.name)
    if value is None:
        return Constant(np.zeros(shape), "float32")
    return Constant(np.full(shape, value.array.reshape(-1)[0]), value.dtype)


def _cast(call: Call) -> Constant:
    x = call.array(0)
    kind = element_type(call.attributes.integer("to"), call.name)
    call.attributes.ignore("saturate", "round_mode")
    if 1 < kind.packed:
        raise call.unsupported(f"it makes {kind.name}")
    if kind.is_float:
        rounded = nearest(x.astype(np.float64), kind.name)  # which the file asks for
        return Constant.of(np.full(x.shape, np.inf) if rounded is None else rounded, kind.name)
    return Constant.of(x.astype(kind.dtype), kind.name)


def _concat(call: Call) -> Constant:
    arrays = [call.array(place) for place in range(len(call.inputs))]
    axis = axis_of(call, call.attributes.integer("axis"), arrays[0].ndim)
    total = list(arrays[0].shape)
    total[axis] = sum(array.shape[axis] for array in arrays)
    checked_size(tuple(total), call.name)
    return Constant.of(np.concatenate(arrays, axis), _dtype(call))


def _range(call: Call) -> Constant:
    start, limit, step = (call.array(place).reshape(-1)[0] for place in range(3))
    if step == 0:
        raise call.attributes.invalid("delta", "is 0")
    count = max(math.ceil((limit - start) / step), 0)
    checked_size((count,), call.name)
    return Constant.of(start + step * np.arange(count), _dtype(call))


def _matmul(call: Call) -> Constant:
    a, b = call.array(0), call.array(1)
    rows = a.shape[:-1] if 1 < a.ndim else ()
    checked_size((*(b.shape[:-2] if a.ndim < b.ndim else ()), *rows, b.shape[-1]), call.name)
    return Constant.of(np.asarray(a @ b), _dtype(call))


def _gemm(call: Call) -> Constant:
    a, b = call.array(0), call.array(1)
    a = a.T if call.attributes.integer("transA", 0) else a
    b = b.T if call.attributes.integer("transB", 0) else b
    c = call.optional_array(2)
    checked_size((a.shape[0], b.shape[1]), call.name)
    result = call.attributes.number("alpha", 1.0) * (a @ b)
    beta = call.attributes.number("beta", 1.0)
    return Constant.of(result if c is None else result + beta * c, _dtype(call))


def _clip(call: Call) -> Constant:
    x = call.array(0)
    if call.opset < 11:
        least, greatest = call.attributes.floats("min"), call.attributes.floats("max")
        raise call.unsupported(f"limits {least}, {greatest} are attributes")
    lower, upper = call.optional_array(1), call.optional_array(2)
    x = x if lower is None else np.maximum(x, lower)
    return Constant.of(x if upper is None else np.minimum(x, upper), _dtype(call))


def _where(call: Call) -> Constant:
    condition, a, b = (call.array(place) for place in range(3))
    checked_size(broadcast_shape(call, condition.shape, a.shape, b.shape), call.name)
    return Constant.of(np.where(condition, a, b), _dtype(call, 1))


def _shape(call: Call) -> Constant:
    shape = call.shape(0)
    start = call.attributes.integer("start", 0) if 15 <= call.opset else 0
    end = call.attributes.optional_integer("end") if 15 <= call.opset else None
    return Constant(np.array(shape[slice(start, end)], np.int64), "int64")


def _size(call: Call) -> Constant:
    return Constant(np.array(math.prod(call.shape(0)), np.int64), "int64")


def _pow(a: Array, b: Array) -> Array:
    whole = a.dtype.kind != "f"
    return np.asarray(np.power(a, b.astype(np.int64)) if whole else np.power(a, b))


def _sigmoid(x: Array) -> Array:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))


def _reciprocal(x: Array) -> Array:
    return np.asarray(1.0 / x)


def _relu(x: Array) -> Array:
    return np.asarray(np.maximum(x, 0))


def _softplus(x: Array) -> Array:
    return np.asarray(np.logaddexp(0.0, x))


SHAPE_FOLDERS: Final[Mapping[str, Folder]] = {"Shape": _shape, "Size": _size}

FOLDERS: Final[Mapping[str, Folder]] = {
    "Abs": _elementwise(np.abs),
    "Add": _elementwise(np.add),
    "And": _elementwise(np.logical_and, "bool"),
    "Cast": _cast,
    "Ceil": _elementwise(np.ceil),
    "Clip": _clip,
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Cos": _elementwise(np.cos),
    "Div": _elementwise(_divide),
    "Equal": _elementwise(np.equal, "bool"),
    "Exp": _elementwise(np.exp),
    "Floor": _elementwise(np.floor),
    "Gemm": _gemm,
    "Greater": _elementwise(np.greater, "bool"),
    "GreaterOrEqual": _elementwise(np.greater_equal, "bool"),
    "Less": _elementwise(np.less, "bool"),
    "LessOrEqual": _elementwise(np.less_equal, "bool"),
    "Log": _elementwise(np.log),
    "MatMul": _matmul,
    "Max": _variadic(np.maximum),
    "Min": _variadic(np.minimum),
    "Mod": _elementwise(np.mod),
    "Mul": _elementwise(np.multiply),
    "Neg": _elementwise(np.negative),
    "Not": _elementwise(np.logical_not, "bool"),
    "Or": _elementwise(np.logical_or, "bool"),
    "Pow": _elementwise(_pow),
    "Range": _range,
    "Reciprocal": _elementwise(_reciprocal),
    "ReduceL1": _reduce(_l1, 18),
    "ReduceL2": _reduce(_l2, 18),
    "ReduceMax": _reduce(np.max, 18),
    "ReduceMean": _reduce(np.mean, 18),
    "ReduceMin": _reduce(np.min, 18),
    "ReduceProd": _reduce(np.prod, 18),
    "ReduceSum": _reduce(np.sum, 13),
    "Relu": _elementwise(_relu),
    "Shape": _shape,
    "Sigmoid": _elementwise(_sigmoid),
    "Sign": _elementwise(np.sign),
    "Sin": _elementwise(np.sin),
    "Size": _size,
    "Softplus": _elementwise(_softplus),
    "Sqrt": _elementwise(np.sqrt),
    "Sub": _elementwise(np.subtract),
    "Sum": _variadic(np.add),
    "Tanh": _elementwise(np.tanh),
    "Where": _where,
    **dict.fromkeys(counted.DEQUANTISERS, counted.dequantised),
    **dict.fromkeys(counted.QUANTISERS, counted.quantised),
}
