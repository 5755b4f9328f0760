"""Sums, products and functions of constants.

Every float operation rounds once, which E pays for together with what the operands' errors do, and
with what underflows: a product of two numbers that are not 0 is not 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from verifier.checker import enclosures, waves
from verifier.checker.enclosures import TINY, U
from verifier.checker.folded import (
    UP,
    Fold,
    between,
    ends_of,
    finite,
    integers,
    pair_of,
    size_of,
)
from verifier.checker.operands import MAX_INTEGER, Call, Constant
from verifier.checker.restricted import Log
from verifier.checker.tensors import FLOATS
from verifier.errors import ExpansionTooLarge, NonFiniteWeights

MAX_WORK = 2**34  #: multiplications of one product of constants


def _add(call: Call) -> list[Constant]:
    return _sum(call, 1)


def _subtract(call: Call) -> list[Constant]:
    return _sum(call, -1)


def _sum(call: Call, sign: int) -> list[Constant]:
    first, second = pair_of(call)
    with np.errstate(over="ignore"):
        value = np.asarray(first.value + sign * second.value)
    if first.dtype not in FLOATS:
        sizes = (np.abs(item.value.astype(np.float64)) for item in (first, second))
        return integers(call, value, sum(sizes, np.array(0.0)))
    error = (first.spread + second.spread + np.abs(value) * U) * UP
    return finite(call, value, error, first.dtype)


def _is_power_of_two(value: np.ndarray | np.float64) -> np.ndarray | np.bool_:
    mantissa, exponent = np.frexp(value)
    return np.asarray((np.abs(mantissa) == 0.5) & (np.abs(exponent) < 500))


def _multiply(call: Call) -> list[Constant]:
    first, second = pair_of(call)
    if first.dtype not in FLOATS:
        estimate = first.value.astype(np.float64) * second.value.astype(np.float64)
        with np.errstate(over="ignore"):
            return integers(call, np.asarray(first.value * second.value), estimate)
    a, b = size_of(first), size_of(second)
    with np.errstate(over="ignore"):
        value = first.value * second.value
        is_scaling = (_is_power_of_two(a) | _is_power_of_two(b)) & (np.abs(value) > 1e-290)
        # 0 times a number of unknown error is as unknown, also where the error underflows.
        exact = (first.spread == 0) & (second.spread == 0) & (is_scaling | (a == 0) | (b == 0))
        error = a * second.spread + b * first.spread + first.spread * second.spread
        error = np.where(exact, 0.0, error * UP + np.abs(value) * U + 4 * TINY)
    return finite(call, value, error if np.any(error) else None, first.dtype)


def quotient(call: Call, first: Constant, second: Constant) -> Constant:
    """The quotient. Raises NonFiniteWeights where the divisor may be 0."""
    a, b = size_of(first), size_of(second)
    if np.any(b <= second.spread * UP):
        raise NonFiniteWeights(
            f"{call.node.op} by zero", fix="export finite weights", node=call.node.name
        )
    with np.errstate(over="ignore", under="ignore"):
        value = first.value / second.value
        exact = (_is_power_of_two(b) & (np.abs(value) > 1e-290)) | (a == 0)
        exact = exact & (first.spread == 0) & (second.spread == 0)
        # What underflows beside a divisor is divided by it too.
        shift = first.spread + (np.abs(value) * (1 + 2 * U) + TINY) * second.spread + TINY
        error = shift / ((b - second.spread) * (1 - 4 * U)) * UP + np.abs(value) * U + 2 * TINY
        error = np.where(exact, 0.0, error)
    return finite(call, value, error if np.any(error) else None, first.dtype)[0]


def _divide(call: Call) -> list[Constant]:
    first, second = pair_of(call)
    if first.dtype in FLOATS:
        return [quotient(call, first, second)]
    if np.any(second.value == 0):
        call.invalid("division by zero")
    whole = np.abs(first.value) // np.abs(second.value)  # towards zero, as ONNX has it
    value = whole * np.sign(first.value) * np.sign(second.value)
    # The magnitude of the least int64 is none.
    sizes = (np.abs(item.value.astype(np.float64)).max(initial=0.0) for item in (first, second))
    return integers(call, value, np.array(max(sizes)))


def _negate(call: Call) -> list[Constant]:
    call.arity(1, 1)
    found = call.constant(0)
    if found.dtype not in FLOATS:
        return integers(call, -found.value.astype(np.int64), found.value.astype(np.float64))
    return [Constant(-found.value, found.dtype, found.error)]


def _absolute(call: Call) -> list[Constant]:
    call.arity(1, 1)
    found = call.constant(0)
    if found.dtype not in FLOATS:
        return integers(call, np.abs(found.value), found.value.astype(np.float64))
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


def product(call: Call, first: Constant, second: Constant, dtype: str) -> list[Constant]:
    """W_2 W_1 with the error of rigour's product rule, rounded upwards."""
    a, b = first.value, second.value
    terms = a.shape[-1] + 2
    gamma = terms * U / (1 - terms * U) * UP
    size, other = np.abs(a), np.abs(b)
    with np.errstate(over="ignore", invalid="ignore"):
        value = a @ b
        # Every term of each of the four products may underflow.
        error = (size @ other) * gamma + 4 * terms * TINY
        if first.error is not None:
            error = error + first.error @ (other + second.spread)
        if second.error is not None:
            error = error + size @ second.error
        error = error * (1 + 4 * gamma)
    return finite(call, np.asarray(value), np.asarray(error), dtype)


# --- Functions -----------------------------------------------------------------------------------


def _monotone(function: Callable[[np.ndarray], enclosures.Enclosure]) -> Fold:
    """The fold of an increasing function."""

    def fold(call: Call) -> list[Constant]:
        call.arity(1, 1)
        dtype = call.one_float_type()
        lower, upper = ends_of(call.constant(0))
        with np.errstate(over="ignore"):
            return between(call, function(lower)[0], function(upper)[1], dtype)

    return fold


def square_root(call: Call, operand: Constant) -> Constant:
    """The root; IEEE rounds it correctly. Raises NonFiniteWeights where it may not exist."""
    lower, upper = ends_of(operand)
    if np.any(lower < 0):
        raise NonFiniteWeights(
            f"{call.node.op}: the root of a negative number", fix="export finite weights",
            node=call.node.name,
        )  # fmt: skip
    low = np.maximum(np.nextafter(np.sqrt(lower), -np.inf), 0.0)
    return between(call, low, np.nextafter(np.sqrt(upper), np.inf), operand.dtype)[0]


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
        size = size_of(base)
        with np.errstate(over="ignore"):
            value = base.value * base.value
            error = (2 * size * base.spread + base.spread**2 + value * U) * UP + 4 * TINY
        result = finite(call, value, error, base.dtype)[0]
    elif abs(exponent) not in (0.5, 1.0):
        call.not_checkable(f"a power of {exponent}")
    return [result if exponent > 0 else quotient(call, one, result)]


def _remainder(call: Call) -> list[Constant]:
    first, second = pair_of(call)
    if first.dtype in FLOATS:
        call.not_checkable("a remainder of floats")
    if call.integer("fmod", 0) or np.any(second.value == 0):
        call.invalid("fmod of integers, or division by zero")
    return [Constant(np.mod(first.value, second.value), first.dtype)]


def _rounded(function: Callable[[np.ndarray], np.ndarray]) -> Fold:
    """Floor, sign and the like, of exact numbers."""

    def fold(call: Call) -> list[Constant]:
        call.arity(1, 1)
        call.one_float_type()
        return [Constant(function(call.exact(0).value), call.constant(0).dtype)]

    return fold


def _wave(quarters: int) -> Fold:
    """Sine and cosine: no difference of values exceeds that of the operands."""

    def fold(call: Call) -> list[Constant]:
        call.arity(1, 1)
        dtype = call.one_float_type()
        operand = call.constant(0)
        low, high = waves.wave(operand.value, quarters)
        return between(call, low - operand.spread, high + operand.spread, dtype)

    return fold


def _relu(call: Call) -> list[Constant]:
    call.arity(1, 1)
    call.one_float_type()
    found = call.constant(0)
    return [Constant(np.maximum(found.value, 0.0), found.dtype, found.error)]


def _logarithm(call: Call) -> list[Constant]:
    call.arity(1, 1)
    dtype = call.one_float_type()
    lower, upper = ends_of(call.constant(0))
    curve = Log()
    if not np.all(curve.holds(lower, upper)):
        raise NonFiniteWeights(
            "the logarithm of what is not positive", fix="export again", node=call.node.name
        )
    return between(call, curve.values(lower)[0], curve.values(upper)[1], dtype)


def _general_product(call: Call) -> list[Constant]:
    """alpha A B + beta C of constants."""
    call.arity(2, 3)
    dtype = call.one_float_type()
    a, b = (
        _turned(call, call.constant(place), name) for place, name in ((0, "transA"), (1, "transB"))
    )
    if a.shape[1] != b.shape[0]:
        call.mismatch(f"{a.shape} times {b.shape}")
    shape = call.allowed([a.shape[0], b.shape[1]])
    if math.prod(shape) * a.shape[1] > MAX_WORK:
        raise ExpansionTooLarge(
            "a product of constants", fix="export folded weights", node=call.node.name
        )
    whole = _times(call, product(call, a, b, dtype)[0], call.number("alpha", 1.0))
    beta = call.number("beta", 1.0)
    if call.optional(2) is None:
        return [whole]
    addend = _times(call, call.constant(2), beta)
    if call.broadcast(addend.shape, shape) != shape:
        call.mismatch(f"C has shape {addend.shape}")
    with np.errstate(over="ignore"):
        value = np.asarray(whole.value + addend.value)
    error = (whole.spread + addend.spread + np.abs(value) * U) * UP
    return finite(call, value, error, dtype)


def _turned(call: Call, operand: Constant, flag: str) -> Constant:
    if operand.value.ndim != 2:
        call.mismatch(f"a factor of shape {operand.shape}")
    if not call.integer(flag, 0):
        return operand
    error = None if operand.error is None else operand.error.T
    return Constant(operand.value.T, operand.dtype, error)


def _times(call: Call, operand: Constant, factor: float) -> Constant:
    if factor == 1.0:
        return operand
    with np.errstate(over="ignore"):
        value = operand.value * factor
        error = (operand.spread * abs(factor) + np.abs(value) * U) * UP + 4 * TINY
    return finite(call, value, error, operand.dtype)[0]


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
    if found.dtype not in FLOATS and np.any(np.abs(value.astype(np.float64)) > MAX_INTEGER):
        call.not_checkable("large integers")
    return [Constant(np.clip(value, least, greatest).astype(kind), found.dtype, found.error)]


ARITHMETIC: Mapping[str, Fold] = {
    "Abs": _absolute,
    "Add": _add,
    "Ceil": _rounded(np.ceil),
    "Clip": _clip,
    "Cos": _wave(1),
    "Div": _divide,
    "Exp": _monotone(enclosures.exp),
    "Floor": _rounded(np.floor),
    "Gemm": _general_product,
    "Log": _logarithm,
    "MatMul": _product_of_matrices,
    "Max": _extreme(greatest=True),
    "Min": _extreme(greatest=False),
    "Mod": _remainder,
    "Mul": _multiply,
    "Neg": _negate,
    "Pow": _power,
    "Reciprocal": _reciprocal,
    "Relu": _relu,
    "Sigmoid": _monotone(enclosures.sigmoid),
    "Sign": _rounded(np.sign),
    "Sin": _wave(0),
    "Softplus": _monotone(enclosures.softplus),
    "Sqrt": _sqrt,
    "Sub": _subtract,
    "Tanh": _monotone(enclosures.tanh),
}
