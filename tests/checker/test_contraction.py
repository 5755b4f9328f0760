"""Inequalities with few rows: decided on their side, against exact rationals."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from tests.checker.oracles import is_psd
from verifier.checker.carry import Carried
from verifier.checker.contraction import are_contractions, is_contraction, with_border

SHARES = (1e-16, 1e-13, 1e-9, 1e-3, 0.5)


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """R, and a D that R'R reaches: 0 <= D - R'R holds by little, or by little not."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(-9, 10, (3, 7)) / 8 * 2.0 ** rng.integers(-20, 20)
    diagonal = rng.integers(1, 9, 7) / 4 * 2.0 ** rng.integers(-12, 12, 7)
    top = np.linalg.norm(rows / np.sqrt(diagonal), 2)
    return rows / top, diagonal


def exact_matrix(rows: np.ndarray, diagonal: np.ndarray) -> list[list[Fraction]]:
    """D - R'R."""
    parts = [[Fraction(float(x)) for x in row] for row in rows]
    return [
        [
            (Fraction(float(d)) if i == j else Fraction(0))
            - sum((row[i] * row[j] for row in parts), Fraction(0))
            for j in range(len(diagonal))
        ]
        for i, d in enumerate(diagonal)
    ]


@pytest.mark.parametrize("share", [*SHARES, *(-share for share in SHARES), 0.0])
@pytest.mark.parametrize("seed", range(12))
def test_what_is_shown_is_true(seed: int, share: float) -> None:
    rows, diagonal = drawn(seed)
    shrunk = rows * (1 - share)
    if is_contraction(Carried(shrunk), diagonal):
        assert is_psd(exact_matrix(shrunk, diagonal))


@pytest.mark.parametrize("seed", range(12))
def test_what_holds_by_little_is_shown(seed: int) -> None:
    rows, diagonal = drawn(seed)
    assert is_contraction(Carried(rows * (1 - 1e-11)), diagonal)


def test_an_error_counts() -> None:
    """R may be larger than it looks."""
    rows, diagonal = drawn(0)
    error = np.full(rows.shape, 1e-3) * np.sqrt(diagonal)
    assert is_contraction(Carried(rows * 0.9, error), diagonal)
    assert not is_contraction(Carried(rows * 0.999, error), diagonal)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e308])
def test_what_is_no_number_shows_nothing(value: float) -> None:
    rows, diagonal = drawn(1)
    rows[0, 0] = value
    with np.errstate(all="ignore"):
        assert not is_contraction(Carried(rows), diagonal * 1e-300)


@pytest.mark.parametrize("share", [1e-13, 1e-6, -1e-13, -1e-6])
@pytest.mark.parametrize("seed", range(6))
def test_a_border_is_one_more_row(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    rows, diagonal = drawn(seed)
    rows, corner = rows / 2, float(rng.integers(1, 9) / 4)
    border = rng.integers(-9, 10, (1, 7)) / 8 * np.sqrt(diagonal)
    whole = with_border(Carried(rows), Carried(border), corner)
    top = np.linalg.norm(whole.value / np.sqrt(diagonal), 2)
    # A border of this size meets the inequality, or by little not.
    diagonal = diagonal * top**2 * (1 + share)
    inner = exact_matrix(rows, diagonal)
    edge = [Fraction(float(y)) for y in border[0]]
    matrix = [[Fraction(corner), *edge], *([y, *row] for y, row in zip(edge, inner, strict=True))]
    if is_contraction(whole, diagonal):
        assert is_psd(matrix)
    else:
        assert share < 1e-9


# --- Many at once --------------------------------------------------------------------------------


def spectral_batch(seed: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Matrices whose norms float64 finds to be 1."""
    rng = np.random.default_rng(seed)
    value = rng.integers(-9, 10, shape) / 8 * 2.0 ** rng.integers(-8, 8, shape)
    return value / np.linalg.norm(value, 2, axis=(1, 2), keepdims=True)


@pytest.mark.parametrize("shape", [(3, 2, 5), (3, 5, 2), (1, 4, 4)])
@pytest.mark.parametrize("share", [1e-15, 1e-13, 1e-9, 0.0, -1e-15, -1e-12, -1e-6])
@pytest.mark.parametrize("seed", range(8))
def test_contractions_that_are_shown_are_some(
    seed: int, share: float, shape: tuple[int, int, int]
) -> None:
    value = spectral_batch(seed, shape) * (1 - share)
    shown = are_contractions(value, np.zeros_like(value))
    assert shown <= all(is_psd(exact_matrix(each, np.ones(shape[2]))) for each in value)
    assert shown or share < 1e-12


def test_one_of_many_that_is_none_is_seen() -> None:
    value = spectral_batch(1, (5, 3, 4)) * 0.99
    zero = np.zeros_like(value)
    assert are_contractions(value, zero)
    value[3] *= 1.02
    assert not are_contractions(value, zero)


def test_errors_of_many_count() -> None:
    value = spectral_batch(2, (5, 3, 4)) * 0.99
    error = np.zeros_like(value)
    error[2, 0, 0] = 0.0099
    assert are_contractions(value, error)
    error[2, 0, 0] = 0.0101
    assert not are_contractions(value, error)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1e200])
def test_many_with_no_number_show_nothing(wrong: float) -> None:
    value = spectral_batch(3, (5, 3, 4)) / 2
    error = np.zeros_like(value)
    with np.errstate(all="ignore"):
        for array in (value, error):
            array[1, 1, 1] = wrong
            assert not are_contractions(value, error)
