"""What is factored in the order of the rows holds exactly where the whole matrix does."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from verifier.checker.carry import Carried
from verifier.checker.semidefinite import Inequality, holds
from verifier.checker.squares import Squares


def rationals(matrix: np.ndarray) -> list[list[Fraction]]:
    return [[Fraction(float(entry)) for entry in row] for row in matrix]


def is_definite(matrix: list[list[Fraction]]) -> bool:
    """Whether all pivots of the exact elimination are positive."""
    rest = [list(row) for row in matrix]
    for k in range(len(rest)):
        if rest[k][k] <= 0:
            return False
        for i in range(k + 1, len(rest)):
            factor = rest[i][k] / rest[k][k]
            rest[i] = [a - factor * b for a, b in zip(rest[i], rest[k], strict=True)]
    return True


def whole(
    diagonal: np.ndarray, rows: np.ndarray, border: np.ndarray | None, corner: float
) -> list[list[Fraction]]:
    """[[s, c'], [c, D - R'R]], or D - R'R, in exact arithmetic."""
    exact = rationals(rows)
    size = len(diagonal)
    inner = [
        [
            (Fraction(float(diagonal[i])) if i == j else Fraction(0))
            - sum((row[i] * row[j] for row in exact), Fraction(0))
            for j in range(size)
        ]
        for i in range(size)
    ]
    if border is None:
        return inner
    edge = [Fraction(float(entry)) for entry in border]
    return [
        [Fraction(corner), *edge],
        *([edge[i], *inner[i]] for i in range(size)),
    ]


def shown(
    diagonal: np.ndarray,
    rows: np.ndarray,
    border: np.ndarray | None,
    corner: float,
    error: float = 0.0,
) -> bool:
    if border is None:
        wide, full, edge = rows, diagonal, None
    else:
        wide = np.concatenate([np.zeros((len(rows), 1)), rows], axis=1)
        full, edge = np.concatenate([[corner], diagonal]), Carried(border)
    squares = Squares(Carried(wide, np.full_like(wide, error)), np.ones(len(rows)))
    return holds(Inequality(diagonal=full, squares=squares, border=edge))


@pytest.mark.parametrize("bordered", [False, True])
@pytest.mark.parametrize(("count", "size"), [(1, 5), (3, 6), (5, 4), (2, 9)])
@pytest.mark.parametrize("seed", range(4))
def test_shown_is_true_and_what_has_room_is_shown(
    seed: int, count: int, size: int, bordered: bool
) -> None:
    rng = np.random.default_rng(seed)
    diagonal = 2.0 ** rng.integers(-20, 21, size)
    rows = rng.standard_normal((count, size)) * np.sqrt(diagonal) / np.sqrt(count * size)
    border = rng.standard_normal(size) * np.sqrt(diagonal) if bordered else None
    corner = 3.0 * size
    for share in (0.2, 0.9, 0.999, 1.001, 1.1, 2.0):
        # The bound of the smallest scale at which the inequality is singular is between them.
        scaled = rows * share * critical(diagonal, rows, border, corner)
        truth = is_definite(whole(diagonal, scaled, border, corner))
        assert shown(diagonal, scaled, border, corner) is (truth and share < 1)


def critical(
    diagonal: np.ndarray, rows: np.ndarray, border: np.ndarray | None, corner: float
) -> float:
    """About the factor of the rows at which the inequality is singular."""
    inner = rows / np.sqrt(diagonal)
    core = np.eye(len(diagonal))
    if border is not None:
        edge = border / np.sqrt(diagonal)
        core = core - np.outer(edge, edge) / corner
    inverse = np.linalg.inv(core)
    return float(np.linalg.eigvalsh(inner @ inverse @ inner.T)[-1] ** -0.5)


def test_an_error_of_the_rows_takes_room() -> None:
    diagonal, rows = np.ones(6), np.full((2, 6), 0.25)
    assert shown(diagonal, rows, None, 0.0)
    assert not shown(diagonal, rows, None, 0.0, error=0.25)


def test_a_weight_of_zero_holds_nothing() -> None:
    """Input 1 costs nothing and is read: 0 <= D - R'R fails, and D^-1/2 does not exist."""
    diagonal, rows = np.array([1.0, 0.0, 1.0, 1.0]), np.array([[0.5, 0.5, 0.0, 0.0]])
    assert not shown(diagonal, rows, None, 0.0)
