"""What every fold of constants answers with: a pair (W, E), finite, or integers in their type."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from verifier.checker.enclosures import TINY, U
from verifier.checker.operands import MAX_INTEGER, Call, Constant
from verifier.errors import DtypeUnsupported, ExpansionTooLarge, NonFiniteWeights

Fold: TypeAlias = Callable[[Call], list[Constant]]
#: numpy answers with scalars where arrays have no axes; `Constant` makes arrays of them again
Points: TypeAlias = "np.ndarray | np.number"

UP = 1 + 16 * U
#: magnitudes up to which integers are neither wrapped nor rounded
LARGEST = {"int32": 2**31 - 1, "int64": MAX_INTEGER}


def finite(call: Call, value: Points, error: Points | None, dtype: str) -> list[Constant]:
    """The constant. Raises NonFiniteWeights where it is not finite."""
    if not np.all(np.isfinite(value)) or (error is not None and not np.all(np.isfinite(error))):
        raise NonFiniteWeights(
            f"{call.node.op} of constants is not finite", fix="export finite weights",
            node=call.node.name,
        )  # fmt: skip
    return [Constant(np.asarray(value), dtype, None if error is None else np.asarray(error))]


def size_of(operand: Constant) -> np.ndarray:
    """The magnitudes of the values."""
    # numpy answers with scalars where arrays have no axes.
    return np.asarray(np.abs(operand.value))


def between(call: Call, lower: Points, upper: Points, dtype: str) -> list[Constant]:
    """The pair of an interval that holds the true value."""
    value = lower / 2 + upper / 2
    error = np.maximum(upper - value, value - lower) * UP + np.abs(value) * (2 * U) + TINY
    return finite(call, value, error, dtype)


def ends_of(operand: Constant) -> tuple[np.ndarray, np.ndarray]:
    """Numbers that the true value lies between."""
    if operand.error is None:
        return operand.value, operand.value
    down = np.nextafter(operand.value - operand.error, -np.inf)
    return np.asarray(down), np.asarray(np.nextafter(operand.value + operand.error, np.inf))


def pair_of(call: Call) -> tuple[Constant, Constant]:
    """Two operands of one type that broadcast."""
    call.arity(2, 2)
    first, second = call.constant(0), call.constant(1)
    if first.dtype != second.dtype:
        raise DtypeUnsupported(
            f"{call.node.op} of {first.dtype} and {second.dtype}", fix="use one type",
            node=call.node.name,
        )  # fmt: skip
    call.broadcast(first.shape, second.shape)
    return first, second


def integers(call: Call, value: Points, estimate: Points) -> list[Constant]:
    """Integers, in the type of the first operand. Refused where that type may wrap them."""
    # The estimate in float64 tells of a result that the type would have wrapped.
    dtype = call.constant(0).dtype
    if dtype not in LARGEST:
        call.invalid(f"{dtype} are no numbers")
    if np.any(np.abs(estimate) > LARGEST[dtype]):
        raise ExpansionTooLarge(
            f"{call.node.op} of large integers", fix="export again", node=call.node.name
        )
    return [Constant(np.asarray(value, dtype=np.int64), dtype)]
