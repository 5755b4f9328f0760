"""Constants computed from constants: pairs (W, E) with |W_true - W| <= E entrywise.

Integers and comparisons are exact; what floats are is for `folded_arithmetic` and
`folded_reductions` to say. A result that may be infinite or undefined is refused. Sizes are checked
before anything is computed. Here constants are made, converted, compared and chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from verifier.checker.counted import DEQUANTISERS, QUANTISERS, dequantised, quantised
from verifier.checker.folded import LARGEST, UP, Fold, pair_of
from verifier.checker.folded_arithmetic import ARITHMETIC
from verifier.checker.folded_reductions import REDUCTIONS
from verifier.checker.indexed import elements_at, slices_at
from verifier.checker.movements import MOVEMENTS, moved_constants
from verifier.checker.operands import MAX_INTEGER, Call, Constant
from verifier.checker.tensors import FLOATS, Tensor
from verifier.errors import DtypeUnsupported, ExpansionTooLarge

#: relative and absolute rounding of the float types that Cast may round to
_ROUNDINGS = {"float16": (2.0**-11, 2.0**-25), "float32": (2.0**-24, 2.0**-150)}
_FLOAT_KINDS = {"float16": np.float16, "float32": np.float32, "float64": np.float64}
_TYPE_NUMBERS = {1: "float32", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "float64"}


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
    if max(abs(start), abs(limit), abs(delta)) > LARGEST[call.constant(0).dtype]:
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
    largest = LARGEST.get(target, np.inf)
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
    return (operand.error + largest * relative + least) * UP


def _comparison(
    compare: Callable[[np.ndarray, np.ndarray], np.ndarray], *, is_logical: bool = False
) -> Fold:
    def fold(call: Call) -> list[Constant]:
        first, _ = pair_of(call)
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


def _eye(call: Call) -> list[Constant]:
    call.arity(1, 1)
    operand = call.constant(0)
    target = _TYPE_NUMBERS.get(call.integer("dtype", 0)) if call.has("dtype") else operand.dtype
    if operand.value.ndim != 2 or target not in {*FLOATS, *LARGEST}:
        call.not_checkable(f"EyeLike of {operand.shape} and {target}")
    shift = min(max(call.integer("k", 0), -operand.shape[0]), operand.shape[1])
    kind = np.float64 if target in FLOATS else np.int64
    return [Constant(np.eye(*operand.shape, k=shift, dtype=kind), target)]


def _non_zero(call: Call) -> list[Constant]:
    call.arity(1, 1)
    if call.constant(0).value.ndim == 0:
        call.not_checkable("NonZero of a number")
    return [Constant(np.asarray(np.stack(np.nonzero(call.exact(0).value)), np.int64), "int64")]


def _scattered(call: Call, places: np.ndarray) -> list[Constant]:
    """The data with the updates at these flat places, which all differ."""
    call.arity(3, 3)
    data, updates = call.constant(0), call.constant(2)
    if call.string("reduction", "none") != "none" or np.unique(places).size < places.size:
        call.not_checkable("updates of constants that are reduced, or of one place")
    if data.dtype != updates.dtype or places.shape != updates.shape:
        call.mismatch(f"{updates.shape} updates of {updates.dtype}")
    value, error = data.value.reshape(-1).copy(), data.spread.reshape(-1).copy()
    value[places], error[places] = updates.value, updates.spread
    shape = data.shape
    return [
        Constant(value.reshape(shape), data.dtype, error.reshape(shape) if np.any(error) else None)
    ]


def _scatter_elements(call: Call) -> list[Constant]:
    shape = call.constant(0).shape
    flat = np.arange(math.prod(shape)).reshape(shape)
    return _scattered(call, elements_at(call, flat, call.axis(call.integer("axis", 0), len(shape))))


def _scatter_nd(call: Call) -> list[Constant]:
    shape = call.constant(0).shape
    return _scattered(call, slices_at(call, np.arange(math.prod(shape)).reshape(shape), 0))


FOLDS: Mapping[str, Fold] = {
    **ARITHMETIC,
    **REDUCTIONS,
    **dict.fromkeys(DEQUANTISERS, dequantised),
    **dict.fromkeys(MOVEMENTS, moved_constants),
    **dict.fromkeys(QUANTISERS, quantised),
    "And": _comparison(np.logical_and, is_logical=True),
    "Cast": _cast,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "EyeLike": _eye,
    "Equal": _comparison(np.equal),
    "Greater": _comparison(np.greater),
    "GreaterOrEqual": _comparison(np.greater_equal),
    "Less": _comparison(np.less),
    "LessOrEqual": _comparison(np.less_equal),
    "NonZero": _non_zero,
    "Not": _not,
    "Or": _comparison(np.logical_or, is_logical=True),
    "Range": _range,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "Where": _where,
}
