"""Constants computed from constants: pairs (W, E) with |W_true - W| <= E entrywise.

Integers and comparisons are exact. Every float operation rounds once, which E pays for together
with what the operands' errors do; a result that may be infinite or undefined is refused. Sizes are
checked before anything is computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from verifier.checker import enclosures
from verifier.checker.enclosures import TINY, U
from verifier.checker.movements import MOVEMENTS, moved_constants
from verifier.checker.operands import MAX_INTEGER, Call, Constant
from verifier.checker.reductions import reduced_axes
from verifier.checker.tensors import FLOATS, Tensor
from verifier.errors import DtypeUnsupported, ExpansionTooLarge, NonFiniteWeights

Fold: TypeAlias = Callable[[Call], list[Constant]]
#: numpy answers with scalars where arrays have no axes; `Constant` makes arrays of them again
Points: TypeAlias = "np.ndarray | np.number"

_UP = 1 + 16 * U
#: magnitudes up to which integers are neither wrapped nor rounded
_LARGEST = {"int32": 2**31 - 1, "int64": MAX_INTEGER}
#: relative and absolute rounding of the float types that Cast may round to
_ROUNDINGS = {"float16": (2.0**-11, 2.0**-25), "float32": (2.0**-24, 2.0**-150)}
_FLOAT_KINDS = {"float16": np.float16, "float32": np.float32, "float64": np.float64}
_TYPE_NUMBERS = {1: "float32", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "float64"}


def _finite(call: Call, value: Points, error: Points | None, dtype: str) -> list[Constant]:
    if not np.all(np.isfinite(value)) or (error is not None and not np.all(np.isfinite(error))):
        raise NonFiniteWeights(
            f"{call.node.op} of constants is not finite", fix="export finite weights",
            node=call.node.name,
        )  # fmt: skip
    return [Constant(np.asarray(value), dtype, None if error is None else np.asarray(error))]


def _size(operand: Constant) -> np.ndarray:
    # numpy answers with scalars where arrays have no axes.
    return np.asarray(np.abs(operand.value))


def _between(call: Call, lower: Points, upper: Points, dtype: str) -> list[Constant]:
    """The pair of an interval that holds the true value."""
    value = lower / 2 + upper / 2
    error = np.maximum(upper - value, value - lower) * _UP + np.abs(value) * (2 * U) + TINY
    return _finite(call, value, error, dtype)


def _ends(operand: Constant) -> tuple[np.ndarray, np.ndarray]:
    if operand.error is None:
        return operand.value, operand.value
    down = np.nextafter(operand.value - operand.error, -np.inf)
    return np.asarray(down), np.asarray(np.nextafter(operand.value + operand.error, np.inf))


# --- Arithmetic ----------------------------------------------------------------------------------


def _pair(call: Call) -> tuple[Constant, Constant]:
    call.arity(2, 2)
    first, second = call.constant(0), call.constant(1)
    if first.dtype != second.dtype:
        raise DtypeUnsupported(
            f"{call.node.op} of {first.dtype} and {second.dtype}", fix="use one type",
            node=call.node.name,
        )  # fmt: skip
    call.broadcast(first.shape, second.shape)
    return first, second


def _integers(call: Call, value: Points, estimate: Points) -> list[Constant]:
    # The estimate in float64 tells of a result that the type would have wrapped.
    dtype = call.constant(0).dtype
    if dtype not in _LARGEST:
        call.invalid(f"{dtype} are no numbers")
    if np.any(np.abs(estimate) > _LARGEST[dtype]):
        raise ExpansionTooLarge(
            f"{call.node.op} of large integers", fix="export again", node=call.node.name
        )
    return [Constant(np.asarray(value, dtype=np.int64), dtype)]


def _add(call: Call) -> list[Constant]:
    return _sum(call, 1)


def _subtract(call: Call) -> list[Constant]:
    return _sum(call, -1)


def _sum(call: Call, sign: int) -> list[Constant]:
    first, second = _pair(call)
    with np.errstate(over="ignore"):
        value = np.asarray(first.value + sign * second.value)
    if first.dtype not in FLOATS:
        sizes = (np.abs(item.value.astype(np.float64)) for item in (first, second))
        return _integers(call, value, sum(sizes, np.array(0.0)))
    error = (first.spread + second.spread + np.abs(value) * U) * _UP
    return _finite(call, value, error, first.dtype)


def _is_power_of_two(value: np.ndarray | np.float64) -> np.ndarray | np.bool_:
    mantissa, exponent = np.frexp(value)
    return np.asarray((np.abs(mantissa) == 0.5) & (np.abs(exponent) < 500))


def _multiply(call: Call) -> list[Constant]:
    first, second = _pair(call)
    if first.dtype not in FLOATS:
        estimate = first.value.astype(np.float64) * second.value.astype(np.float64)
        with np.errstate(over="ignore"):
            return _integers(call, np.asarray(first.value * second.value), estimate)
    a, b = _size(first), _size(second)
    with np.errstate(over="ignore"):
        value = first.value * second.value
        is_scaling = (_is_power_of_two(a) | _is_power_of_two(b)) & (np.abs(value) > 1e-290)
        # 0 times a number of unknown error is as unknown, also where the error underflows.
        exact = (first.spread == 0) & (second.spread == 0) & (is_scaling | (a == 0) | (b == 0))
        error = a * second.spread + b * first.spread + first.spread * second.spread
        error = np.where(exact, 0.0, error * _UP + np.abs(value) * U + 4 * TINY)
    return _finite(call, value, error if np.any(error) else None, first.dtype)


def quotient(call: Call, first: Constant, second: Constant) -> Constant:
    """The quotient. Raises NonFiniteWeights where the divisor may be 0."""
    a, b = _size(first), _size(second)
    if np.any(b <= second.spread * _UP):
        raise NonFiniteWeights(
            f"{call.node.op} by zero", fix="export finite weights", node=call.node.name
        )
    with np.errstate(over="ignore", under="ignore"):
        value = first.value / second.value
        exact = (_is_power_of_two(b) & (np.abs(value) > 1e-290)) | (a == 0)
        exact = exact & (first.spread == 0) & (second.spread == 0)
        # What underflows beside a divisor is divided by it too.
        shift = first.spread + (np.abs(value) * (1 + 2 * U) + TINY) * second.spread + TINY
        error = shift / ((b - second.spread) * (1 - 4 * U)) * _UP + np.abs(value) * U + 2 * TINY
        error = np.where(exact, 0.0, error)
    return _finite(call, value, error if np.any(error) else None, first.dtype)[0]


def _divide(call: Call) -> list[Constant]:
    first, second = _pair(call)
    if first.dtype in FLOATS:
        return [quotient(call, first, second)]
    if np.any(second.value == 0):
        call.invalid("division by zero")
    whole = np.abs(first.value) // np.abs(second.value)  # towards zero, as ONNX has it
    value = whole * np.sign(first.value) * np.sign(second.value)
    return _integers(call, value, value.astype(np.float64))


def _negate(call: Call) -> list[Constant]:
    call.arity(1, 1)
    found = call.constant(0)
    if found.dtype not in FLOATS:
        return _integers(call, -found.value.astype(np.int64), found.value.astype(np.float64))
    return [Constant(-found.value, found.dtype, found.error)]


def _absolute(call: Call) -> list[Constant]:
    call.arity(1, 1)
    found = call.constant(0)
    if found.dtype not in FLOATS:
        return _integers(call, np.abs(found.value), found.value.astype(np.float64))
    return [Constant(np.abs(found.value), found.dtype, found.error)]


def _extreme(greatest: bool) -> Fold:
    choose = np.maximum if greatest else np.minimum

    def fold(call: Call) -> list[Constant]:
        operands = [call.constant(place) for place in range(len(call.operands))]
        if not operands or len({operand.dtype for operand in operands}) > 1:
            call.invalid("no operands, or of several types")
        call.broadcast(*(operand.shape for operand in operands))
        value, error = operands[0].value, operands[0].spread
        for operand in operands[1:]:
            value, error = choose(value, operand.value), np.maximum(error, operand.spread)
        return [Constant(value, operands[0].dtype, error if np.any(error) else None)]

    return fold


def _product_of_matrices(call: Call) -> list[Constant]:
    first, second = call.constant(0), call.constant(1)
    call.arity(2, 2)
    dtype = call.one_float_type()
    a, b = first.value, second.value
    if a.ndim == 0 or b.ndim == 0 or a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
        call.mismatch(f"{a.shape} times {b.shape}")
    outer = call.broadcast(a.shape[:-2], b.shape[:-2])
    rows, columns = a.shape[-2:-1], b.shape[-1:] if b.ndim > 1 else ()
    call.allowed([*outer, *rows, *columns])
    if math.prod([*outer, *rows, *columns]) * a.shape[-1] > MAX_WORK:
        raise ExpansionTooLarge(
            "a product of constants", fix="export folded weights", node=call.node.name
        )
    return product(call, first, second, dtype)


MAX_WORK = 2**34  #: multiplications of one product of constants


def product(call: Call, first: Constant, second: Constant, dtype: str) -> list[Constant]:
    """W_2 W_1 with the error of rigour's product rule, rounded upwards."""
    a, b = first.value, second.value
    terms = a.shape[-1] + 2
    gamma = terms * U / (1 - terms * U) * _UP
    size, other = np.abs(a), np.abs(b)
    with np.errstate(over="ignore", invalid="ignore"):
        value = a @ b
        error = (size @ other) * gamma + (terms + 1) * TINY
        if first.error is not None:
            error = error + first.error @ (other + second.spread)
        if second.error is not None:
            error = error + size @ second.error
        error = error * (1 + 4 * gamma)
    return _finite(call, np.asarray(value), np.asarray(error), dtype)


# --- Functions -----------------------------------------------------------------------------------


def _monotone(function: Callable[[np.ndarray], enclosures.Enclosure]) -> Fold:
    """The fold of an increasing function."""

    def fold(call: Call) -> list[Constant]:
        call.arity(1, 1)
        dtype = call.one_float_type()
        lower, upper = _ends(call.constant(0))
        with np.errstate(over="ignore"):
            return _between(call, function(lower)[0], function(upper)[1], dtype)

    return fold


def square_root(call: Call, operand: Constant) -> Constant:
    """The root; IEEE rounds it correctly. Raises NonFiniteWeights where it may not exist."""
    lower, upper = _ends(operand)
    if np.any(lower < 0):
        raise NonFiniteWeights(
            f"{call.node.op}: the root of a negative number", fix="export finite weights",
            node=call.node.name,
        )  # fmt: skip
    low = np.maximum(np.nextafter(np.sqrt(lower), -np.inf), 0.0)
    return _between(call, low, np.nextafter(np.sqrt(upper), np.inf), operand.dtype)[0]


def _sqrt(call: Call) -> list[Constant]:
    call.arity(1, 1)
    call.one_float_type()
    return [square_root(call, call.constant(0))]


def _reciprocal(call: Call) -> list[Constant]:
    call.arity(1, 1)
    dtype = call.one_float_type()
    return [quotient(call, Constant(np.array(1.0), dtype), call.constant(0))]


def _power(call: Call) -> list[Constant]:
    call.arity(2, 2)
    base, exponent = call.constant(0), call.scalar(1)
    if call.broadcast(base.shape, call.constant(1).shape) != base.shape:
        call.mismatch("its exponent has more axes than what it is applied to")
    one = Constant(np.array(1.0), base.dtype)
    if base.dtype not in FLOATS:
        call.not_checkable("a power of integers")
    root = exponent in (0.5, -0.5)
    result = square_root(call, base) if root else base
    if abs(exponent) == 2:
        size = _size(base)
        value = base.value * base.value
        error = (2 * size * base.spread + base.spread**2 + value * U) * _UP + 4 * TINY
        result = _finite(call, value, error, base.dtype)[0]
    elif abs(exponent) not in (0.5, 1.0):
        call.not_checkable(f"a power of {exponent}")
    return [result if exponent > 0 else quotient(call, one, result)]


def _clip(call: Call) -> list[Constant]:
    call.arity(1, 3)
    found = call.constant(0)
    value = found.value
    if call.opset < 11:
        least, greatest = call.number("min", -np.inf), call.number("max", np.inf)
    else:
        least = call.scalar(1) if call.optional(1) is not None else -np.inf
        greatest = call.scalar(2) if call.optional(2) is not None else np.inf
    if least > greatest:
        call.invalid("its limits are crossed")
    kind = value.dtype
    if found.dtype not in FLOATS and np.any(np.abs(value) > MAX_INTEGER):
        call.not_checkable("large integers")
    return [Constant(np.clip(value, least, greatest).astype(kind), found.dtype, found.error)]


# --- Reductions ----------------------------------------------------------------------------------


def _reduce_sum(call: Call) -> list[Constant]:
    return [_summed(call, call.constant(0))]


def _summed(call: Call, operand: Constant) -> Constant:
    axes, keeps = reduced_axes(call, operand.value.ndim, since=13)
    value = np.asarray(operand.value.sum(axis=axes, keepdims=keeps))
    if operand.dtype not in FLOATS:
        estimate = np.abs(operand.value.astype(np.float64)).sum()
        return _integers(call, value, np.asarray(estimate))[0]
    count = operand.value.size + 2
    gamma = count * U / (1 - count * U) * _UP
    error = np.abs(operand.value).sum(axis=axes, keepdims=keeps) * gamma
    error = (error + operand.spread.sum(axis=axes, keepdims=keeps)) * (1 + 4 * gamma)
    return _finite(call, value, np.asarray(error), operand.dtype)[0]


def _reduce_l2(call: Call) -> list[Constant]:
    operand = call.constant(0)
    if operand.dtype not in FLOATS:
        raise DtypeUnsupported("ReduceL2 of integers", fix="use floats", node=call.node.name)
    size = _size(operand)
    square = operand.value * operand.value
    error = (2 * size * operand.spread + operand.spread**2 + square * U) * _UP + 4 * TINY
    axes, _ = reduced_axes(call, operand.value.ndim, since=18)
    if not axes and call.integer("noop_with_empty_axes", 0):
        call.not_checkable("noop_with_empty_axes")
    total = _summed_since_18(call, Constant(square, operand.dtype, error))
    return [square_root(call, total)]


def _summed_since_18(call: Call, operand: Constant) -> Constant:
    axes, keeps = reduced_axes(call, operand.value.ndim, since=18)
    count = operand.value.size + 2
    gamma = count * U / (1 - count * U) * _UP
    value = np.asarray(operand.value.sum(axis=axes, keepdims=keeps))
    error = np.abs(operand.value).sum(axis=axes, keepdims=keeps) * gamma
    error = (error + operand.spread.sum(axis=axes, keepdims=keeps)) * (1 + 4 * gamma)
    return _finite(call, value, np.maximum(error, 0.0), operand.dtype)[0]


def _reduce_extreme(greatest: bool) -> Fold:
    def fold(call: Call) -> list[Constant]:
        operand = call.constant(0)
        axes, keeps = reduced_axes(call, operand.value.ndim, since=18)
        if 0 in operand.shape:
            call.not_checkable("nothing to reduce")
        choose = np.max if greatest else np.min
        value = np.asarray(choose(operand.value, axis=axes, keepdims=keeps))
        if operand.error is None:
            return [Constant(value, operand.dtype)]
        error = np.asarray(np.max(operand.error, axis=axes, keepdims=keeps))
        return [Constant(value, operand.dtype, error)]

    return fold


# --- Making, measuring, converting ---------------------------------------------------------------


def _constant(call: Call) -> list[Constant]:
    call.arity(0, 0)
    tensor = call.tensor("value")
    if tensor is not None:
        return [Constant(tensor.array, tensor.dtype)]
    if call.has("value_float"):
        return [Constant(np.array(call.number("value_float", 0.0)), "float32")]
    if call.has("value_int"):
        return [Constant(np.array(call.integer("value_int", 0)), "int64")]
    floats = call.list_of_numbers("value_floats")
    if floats is not None:
        return [Constant(np.array(floats, dtype=np.float64), "float32")]
    integers = call.list_of_integers("value_ints")
    if integers is None:
        call.not_checkable("a constant that is no tensor")
    return [Constant(np.array(integers, dtype=np.int64), "int64")]


def _constant_of_shape(call: Call) -> list[Constant]:
    call.arity(1, 1)
    shape = call.allowed(call.integers(0))
    tensor = call.tensor("value")
    filling = Tensor(dtype="float32", array=np.zeros(1)) if tensor is None else tensor
    if filling.array.size != 1:
        call.invalid("its value is not one number")
    return [Constant(np.broadcast_to(filling.array.reshape(()), shape), filling.dtype)]


def _range(call: Call) -> list[Constant]:
    call.arity(3, 3)
    if call.constant(0).dtype not in ("int64", "int32"):
        start, limit, delta = (call.scalar(place) for place in range(3))
        if delta == 0 or abs((limit - start) / delta) > 2**24:
            raise ExpansionTooLarge("Range", fix="export again", node=call.node.name)
        call.not_checkable("a range of floats")
    start, limit, delta = (int(call.scalar(place)) for place in range(3))
    if delta == 0:
        call.invalid("delta 0")
    if max(abs(start), abs(limit), abs(delta)) > _LARGEST[call.constant(0).dtype]:
        call.not_checkable("large integers")
    found = range(start, limit, delta)
    call.allowed([len(found)])
    return [Constant(np.array(found, dtype=np.int64), call.constant(0).dtype)]


def _cast(call: Call) -> list[Constant]:
    call.arity(1, 1)
    call.integer("saturate", 1)
    call.string("round_mode", "up")
    operand, target = call.constant(0), _TYPE_NUMBERS.get(call.integer("to", 0))
    if target is None:
        raise DtypeUnsupported("Cast", fix="use float32", node=call.node.name)
    return [converted(call, operand, target)]


def converted(call: Call, operand: Constant, target: str) -> Constant:
    """The same numbers in another type. Refused where the type would change them."""
    value = operand.value
    if operand.dtype == target:
        return operand
    if target in FLOATS:
        number = value.astype(np.float64)
        with np.errstate(over="ignore"):
            rounded = number.astype(_FLOAT_KINDS[target]).astype(np.float64)
        if not np.all(np.isfinite(rounded)) or (
            operand.dtype not in FLOATS and np.any((value < -MAX_INTEGER) | (MAX_INTEGER < value))
        ):
            call.not_checkable(f"a Cast of large numbers to {target}")
        if operand.error is None and not np.array_equal(rounded, number):
            call.not_checkable(f"a Cast to {target} that rounds")
        return Constant(number, target, _cast_error(number, operand, target))
    largest = _LARGEST.get(target, np.inf)
    if operand.error is not None or np.any(np.abs(value.astype(np.float64)) > largest):
        call.not_checkable(f"a Cast to {target}")
    kind = np.bool_ if target == "bool" else np.int64
    whole = np.trunc(value) if operand.dtype in FLOATS and target != "bool" else value
    return Constant(whole.astype(kind), target)


def _cast_error(number: np.ndarray, operand: Constant, target: str) -> np.ndarray | None:
    """What covers the number that is kept and also the one that a narrower type rounds it to."""
    if operand.error is None or target not in _ROUNDINGS or operand.dtype == "float16":
        return operand.error
    relative, least = _ROUNDINGS[target]
    largest = np.abs(number) + operand.error
    return (operand.error + largest * relative + least) * _UP


def _comparison(
    compare: Callable[[np.ndarray, np.ndarray], np.ndarray], *, is_logical: bool = False
) -> Fold:
    def fold(call: Call) -> list[Constant]:
        first, _ = _pair(call)
        if is_logical and first.dtype != "bool":
            call.invalid(f"{first.dtype} are no truth values")
        return [Constant(np.asarray(compare(call.exact(0).value, call.exact(1).value)), "bool")]

    return fold


def _not(call: Call) -> list[Constant]:
    call.arity(1, 1)
    if call.constant(0).dtype != "bool":
        call.invalid("its operand is no truth value")
    return [Constant(~call.constant(0).value.astype(np.bool_), "bool")]


def _where(call: Call) -> list[Constant]:
    call.arity(3, 3)
    condition, first, second = (call.constant(place) for place in range(3))
    if condition.dtype != "bool" or first.dtype != second.dtype:
        call.invalid("operands of wrong types")
    call.broadcast(condition.shape, first.shape, second.shape)
    value = np.where(condition.value, first.value, second.value)
    error = np.where(condition.value, first.spread, second.spread)
    return [Constant(value, first.dtype, error if np.any(error) else None)]


FOLDS: Mapping[str, Fold] = {
    "Abs": _absolute,
    "Add": _add,
    "And": _comparison(np.logical_and, is_logical=True),
    "Cast": _cast,
    "Clip": _clip,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Div": _divide,
    "Equal": _comparison(np.equal),
    "Exp": _monotone(enclosures.exp),
    "Greater": _comparison(np.greater),
    "GreaterOrEqual": _comparison(np.greater_equal),
    "Less": _comparison(np.less),
    "LessOrEqual": _comparison(np.less_equal),
    "MatMul": _product_of_matrices,
    "Max": _extreme(greatest=True),
    "Min": _extreme(greatest=False),
    "Mul": _multiply,
    "Neg": _negate,
    "Not": _not,
    "Or": _comparison(np.logical_or, is_logical=True),
    "Pow": _power,
    "Range": _range,
    "Reciprocal": _reciprocal,
    "ReduceL2": _reduce_l2,
    "ReduceMax": _reduce_extreme(greatest=True),
    "ReduceMin": _reduce_extreme(greatest=False),
    "ReduceSum": _reduce_sum,
    "Sigmoid": _monotone(enclosures.sigmoid),
    "Softplus": _monotone(enclosures.softplus),
    "Sqrt": _sqrt,
    "Sub": _subtract,
    "Tanh": _monotone(enclosures.tanh),
    "Where": _where,
    **dict.fromkeys(MOVEMENTS, moved_constants),
}
