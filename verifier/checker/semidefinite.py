"""Inequalities 0 <= D - R' diag(sign) R, one of them bordered, shown by one factorisation.

If |R_true - R| <= E_R entrywise, then for every scaling S

    |S (R' diag(sign) R - R_true' diag(sign) R_true) S|_2 <= 2 |RS|_2 |E_R S|_F + |E_R S|_F^2
    |S (fl(R' diag(sign) R) - R' diag(sign) R) S|_2      <= gamma_(k+2) | |RS|'|RS| |_2,    (1)

k the rows of R. Where these are fewer than the columns, what is factored is as small as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.arithmetic import LEAST, UNIT, enlarged, gamma, root_up, squares_up
from verifier.checker.carry import Carried
from verifier.checker.definite import NotProved, column_sums_bound, proves_psd, row_sums_bound
from verifier.checker.squares import Squares

if TYPE_CHECKING:
    from jaxtyping import Float64


@dataclass(frozen=True, slots=True, kw_only=True)
class Inequality:
    """0 <= D - R' diag(sign) R; in (2), with a border in its first row and column besides."""

    diagonal: Float64[np.ndarray, " n"]
    squares: Squares
    border: Carried | None = None  #: one row, without the corner


def require_psd(inequality: Inequality, level: str) -> None:
    """The inequality holds.

    Raises:
        NotProved: it is not shown.
    """
    if not holds(inequality):
        raise NotProved(f"the matrix inequality of `{level}` is not shown to hold")


def holds(given: Inequality) -> bool:
    """Whether 0 <= D - R' diag(sign) R is shown for all R and borders within the error."""
    turned = _turned(given)
    given = given if turned is None else turned
    rows, size = given.squares.rows.value, len(given.diagonal)
    sizes = given.diagonal + np.square(rows[given.squares.sign < 0]).sum(axis=0)
    # Numpy sees the product of a matrix with itself, and forms one half of it.
    left = rows if turned is not None else rows * given.squares.sign[:, None]
    matrix = -(left.T @ rows)
    matrix[np.arange(size), np.arange(size)] += given.diagonal
    if given.border is None:
        return proves_psd(matrix, lambda scale: _scaled_error(given, scale), sizes)
    border, border_error = given.border.value, given.border.errors()
    matrix[0, 1:] += border
    matrix[1:, 0] += border
    # The border is added to what cuts with inputs have there: one rounding of the sum.
    border_error = enlarged(border_error + 2 * UNIT * np.abs(matrix[0, 1:]), 2)

    def error(scale: Float64[np.ndarray, " n"]) -> float:
        # |[[0, e'], [e, 0]]|_2 = |e|_2.
        edge = root_up(squares_up(border_error * scale[1:])) * float(scale[0])
        return _scaled_error(given, scale) + edge * (1 + 4 * UNIT)

    return proves_psd(matrix, error, sizes)


def _turned(given: Inequality) -> Inequality | None:
    """An inequality of fewer rows that holds if and only if this one does; None where none is seen.

    With G = R, the border c' above it where there is one, and 0 < D, both Schur complements of
    [[s, c', 0], [c, D, R'], [0, R, I]] give

        0 <= [[s, c'], [c, D - R'R]]   <=>   0 <= blkdiag(s, I) - (G D^-1/2)(G D^-1/2)'.    (2)
    """
    rows, bordered = given.squares.rows, given.border is not None
    weights = given.diagonal[int(bordered) :]
    # Cuts may read the 1 that the border belongs to; their squares are of both signs.
    unread = not (bordered and (np.any(rows.value[:, 0]) or np.any(rows.errors()[:, 0])))
    plain = bool(np.all(0 < given.squares.sign)) and bool(np.all(0 < weights)) and unread
    if not plain or len(weights) <= rows.rows + 1:
        return None
    value, error = rows.value, rows.errors()
    diagonal = np.ones(rows.rows)
    if given.border is not None:
        value = np.concatenate([given.border.value[None, :], value[:, 1:]])
        error = np.concatenate([given.border.errors()[None, :], error[:, 1:]])
        diagonal = np.concatenate([given.diagonal[:1], diagonal])
    # The root, the quotient and the product round.
    root = 1 / np.sqrt(weights)
    value = value * root
    error = enlarged(error * root + (6 * UNIT) * np.abs(value), 4) + LEAST
    squares = Squares(Carried(value.T, error.T), np.ones(len(weights)))
    return Inequality(diagonal=diagonal, squares=squares)


def _scaled_error(given: Inequality, scale: Float64[np.ndarray, " n"]) -> float:
    """A number that |S E S|_2 does not exceed, E all errors of D - R' diag(sign) R, by (1)."""
    rows = given.squares.rows.value * scale
    count = len(rows)
    sums = float(column_sums_bound(rows, None).max(initial=0.0)) * float(
        row_sums_bound(rows, None).max(initial=0.0)
    )
    square = min(squares_up(rows), sums * (1 + 4 * UNIT))  # of | |RS| |_2
    spread = root_up(squares_up(given.squares.rows.errors() * scale))
    largest = float((given.diagonal * np.square(scale)).max(initial=0.0))
    size = len(scale)
    underflow = LEAST * size * (count + 4) * (1 + float(scale.max(initial=1.0))) ** 2
    error = (
        2 * root_up(square) * spread
        + spread * spread
        + gamma(count + 4) * square
        # The diagonal of D, of the sum, and of the scaled rows above.
        + 8 * UNIT * largest
        + underflow
    ) * (1 + 64 * UNIT)
    return error if math.isfinite(error) else math.inf
