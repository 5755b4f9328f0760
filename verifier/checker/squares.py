"""Quadratic forms as signed sums of squares of rows over xi, each row with its proved error.

A term of the matrix inequality that is not of one sign is written sum_k sign_k (R_k xi)^2. What
bounds the rounding of R'R then bounds that of R' diag(sign) R: |diag(sign)|_2 = 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.arithmetic import enlarged, gamma
from verifier.checker.carry import Carried
from verifier.checker.definite import NotProved

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float64

#: Weights other than 0 lie in 2^-150 .. 2^150, so that their squares are multipliers in range.
WEIGHT_EXPONENT = 150


@dataclass(frozen=True, slots=True)
class Squares:
    """sum_k sign_k (R_k xi)^2, the rows R with |true - value| <= error."""

    rows: Carried
    sign: Float64[np.ndarray, " k"]

    @staticmethod
    def stacked(parts: Sequence[Squares], size: int) -> Squares:
        """The sum of the forms, over xi of this size."""
        value = np.concatenate([np.zeros((0, size)), *(p.rows.value for p in parts)])
        error = np.concatenate([np.zeros((0, size)), *(p.rows.errors() for p in parts)])
        return Squares(
            Carried(value, error), np.concatenate([np.zeros(0), *(p.sign for p in parts)])
        )


def combined(parts: Sequence[tuple[Float64[np.ndarray, " k"], Carried]]) -> Carried:
    """sum_i c_i R_i, row by row; the true c_i may be two roundings off.

    Each product adds one rounding, each sum one; gamma of six more than the terms covers them, and
    what underflows is below `enlarged`'s share.
    """
    shape = parts[0][1].value.shape
    value, mass, spread = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for weight, rows in parts:
        value += weight[:, None] * rows.value
        mass += np.abs(weight)[:, None] * np.abs(rows.value)
        spread += np.abs(weight)[:, None] * rows.errors()
    count = len(parts)
    share = gamma(count + 6)
    return Carried(value, enlarged(spread * (1 + share) + share * mass, 4 * count + 16))


def require_weights(values: Float64[np.ndarray, " n"], name: str) -> None:
    """Each is 0 or of a magnitude within 2^-150 .. 2^150; nan is neither.

    Raises:
        NotProved: one is out of range.
    """
    limit, size = 2.0**WEIGHT_EXPONENT, np.abs(values)
    if not np.all((size == 0) | ((1 / limit <= size) & (size <= limit))):
        raise NotProved(f"weights of {name}: each has to be 0 or in 2^-150 .. 2^150")
