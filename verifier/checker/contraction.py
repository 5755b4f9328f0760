"""0 <= D - R'R where R has few rows: the norm of R D^(-1/2) decides, on the shorter side.

For D > 0,  0 <= D - R'R  if and only if  |R D^(-1/2)|_2 <= 1,  which one Cholesky factor shows that
has as many rows as R. With a border, for 0 < s,

    0 <= [[s, -y], [-y', D - R'R]]  if and only if  0 <= D - R'R - y'y/s,                     (1)

so that the border is one more row, y/sqrt(s).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.arithmetic import LEAST, UNIT, above, below, enlarged, gamma
from verifier.checker.carry import Carried
from verifier.checker.definite import SpectralTest

if TYPE_CHECKING:
    from jaxtyping import Float64


def is_contraction(rows: Carried, diagonal: Float64[np.ndarray, " n"]) -> bool:
    """Whether 0 <= D - R'R is shown for all R within the error; D is positive."""
    # 1/sqrt(D) is two roundings off, the product one more: 4u cover them.
    inverse = 1 / np.sqrt(diagonal)
    value = rows.value * inverse
    error = enlarged(rows.errors() * inverse + (4 * UNIT) * np.abs(value), 8) + LEAST
    if not (np.all(np.isfinite(value)) and np.all(np.isfinite(error))):
        return False
    return SpectralTest(value, error).proves(1.0)


def with_border(rows: Carried, border: Carried, corner: float) -> Carried:
    """The rows and y/sqrt(s) of (1)."""
    root = math.sqrt(corner)
    value = border.value / root
    # The root and the quotient round.
    error = enlarged(border.errors() / root + (4 * UNIT) * np.abs(value), 4) + LEAST
    return Carried(
        np.concatenate([rows.value, value.reshape(1, -1)]),
        np.concatenate([rows.errors(), error.reshape(1, -1)]),
    )


def are_contractions(
    value: Float64[np.ndarray, "batch rows n"], error: Float64[np.ndarray, "batch rows n"]
) -> bool:
    """Whether |W_true|_2 <= 1 is shown of every W of a batch, |W_true - W| <= E.

    With |W|_2 + |E|_F <= 1, and G = fl(W W') or fl(W'W), the smaller one: for a number
    l <= (1 - |E|_F)^2 it follows from 0 <= l I - G - D for every |D|_2 <= gamma |W|_F^2, by (1) of
    `verifier.checker.definite`. All numbers are below 2, so that nothing need be scaled.
    """
    if not (np.all(np.isfinite(value)) and np.all(np.isfinite(error))):
        return False
    rows, columns = value.shape[1:]
    turned = value.transpose(0, 2, 1)
    gram = value @ turned if rows <= columns else turned @ value
    size, terms = min(rows, columns), max(rows, columns)
    mass = _squares(value)
    core = 1 - above(np.sqrt(_squares(error)))
    level = below(below(core) ** 2)
    trace = size * level
    # The shift is subtracted from the level, then the diagonal: two roundings of numbers below 2.
    shift = enlarged(
        gamma(terms + 2) * mass
        + gamma(size + 3) * (1 + 4 * gamma(size + 3)) * trace
        + 8 * UNIT
        + 8 * size * (size + terms + 4) * LEAST,
        8,
    )
    if not (np.all(0 < core) and np.all(shift < 1)):
        return False
    own = np.arange(size, dtype=np.int64)
    matrix = -gram
    matrix[:, own, own] += (level - shift)[:, None]
    if not np.all(0 < matrix[:, own, own]):
        return False
    try:
        factor = np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return False
    return bool(np.all(np.isfinite(factor)) and np.all(0 < factor[:, own, own]))


def _squares(value: Float64[np.ndarray, "batch rows n"]) -> Float64[np.ndarray, " batch"]:
    """Numbers that |W|_F^2 does not exceed."""
    return enlarged(np.square(value).sum(axis=(1, 2)), value.shape[1] * value.shape[2])
