"""Every step of a covariance gives an upper bound: the differences are factored in rationals."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from tests.checker.oracles import Matrix, is_psd, product, transposed
from verifier.checker.batches import (
    adjoint,
    imaginary_part,
    inverse_root,
    moved,
    multiplied,
    norm_up,
    real_part,
)
from verifier.checker.blocks import Block, Rows
from verifier.checker.definite import NotProved
from verifier.checker.hermitian import Covariance, identity, require_formable

CASES = [(real, spread) for real in (True, False) for spread in (0, 12)]


def embedded(matrix: np.ndarray) -> Matrix:
    """[[A, -B], [B, A]] of A + iB, in rationals; A itself where real."""
    if not np.iscomplexobj(matrix):
        return [[Fraction(float(x)) for x in row] for row in matrix]
    one, other = real_part(matrix), imaginary_part(matrix)
    upper = np.concatenate([one, -other], axis=1)
    lower = np.concatenate([other, one], axis=1)
    return [[Fraction(float(x)) for x in row] for row in np.concatenate([upper, lower])]


def exact(covariance: Covariance, frequency: int = 0) -> Matrix:
    """J(f), in rationals."""
    rows = embedded(covariance.full().value[frequency])
    exponent = covariance.exponent.tolist() * (len(rows) // covariance.size)
    return [
        [x * Fraction(2) ** (one + other) for x, other in zip(row, exponent, strict=True)]
        for row, one in zip(rows, exponent, strict=True)
    ]


def minus(left: Matrix, right: Matrix) -> Matrix:
    return [
        [a - b for a, b in zip(one, other, strict=True)]
        for one, other in zip(left, right, strict=True)
    ]


def drawn(rng: np.random.Generator, size: int, *, real: bool, spread: int) -> Covariance:
    """Two frequencies; rows of scales up to 2^spread apart."""
    rows = rng.standard_normal((2, size, size + 1))
    if not real:
        rows = rows + 1j * rng.standard_normal(rows.shape)
    value = rows @ adjoint(rows) / size
    value = (value + adjoint(value)) / 2
    return Covariance(value, rng.integers(-spread, spread + 1, size))


@pytest.mark.parametrize(("real", "spread"), CASES)
def test_a_linear_map_is_bounded_with_its_error(real: bool, spread: int) -> None:
    rng = np.random.default_rng(spread)
    for _ in range(3):
        start = drawn(rng, 4, real=real, spread=spread)
        value = rng.standard_normal((2, 3, 4)) * 2.0 ** rng.integers(-spread, spread + 1, (1, 3, 1))
        if not real:
            value = value + 1j * rng.standard_normal(value.shape)
        error = np.abs(value).max(axis=0) * 1e-9
        sign = rng.choice([-1.0, 1.0], value.shape)
        for loose in (None, error):
            found = start.carried(Rows(value, loose))
            true = value if loose is None else value + sign * error * 0.999
            for frequency in range(2):
                linear = embedded(true[frequency])
                middle = product(linear, exact(start, frequency))
                image = product(middle, transposed(linear))
                assert is_psd(minus(exact(found, frequency), image))


@pytest.mark.parametrize(("real", "spread"), CASES)
def test_blocks_are_one_map(real: bool, spread: int) -> None:
    """[[1, K], [1, 0], [0, L]] of two signals of two entries each."""
    rng = np.random.default_rng(spread)
    start = drawn(rng, 4, real=real, spread=spread)
    value = np.zeros((2, 6, 4), np.float64 if real else np.complex128)
    value[:, :2, :2] = value[:, 2:4, :2] = np.eye(2)
    value[:, :2, 2:] = rng.standard_normal((2, 2, 2)) * (1.0 if real else 1j)
    value[:, 4:, 2:] = rng.standard_normal((2, 2, 2))
    places = ((0, 0, True), (0, 2, False), (2, 0, True), (4, 2, False))
    blocks = tuple(Block(slice(i, i + 2), slice(j, j + 2), unit) for i, j, unit in places)
    found = start.carried(Rows(value, None, blocks))
    for frequency in range(2):
        linear = embedded(value[frequency])
        image = product(product(linear, exact(start, frequency)), transposed(linear))
        assert is_psd(minus(exact(found, frequency), image))
    one = start.carried(Rows(value))
    assert np.array_equal(one.exponent, found.exponent)
    assert np.allclose(one.value, found.value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("real", "spread"), CASES)
def test_a_gate_s_step_is_bounded(real: bool, spread: int) -> None:
    """[[X - J, J_t], [J_t*, D - J_tt]] >= 0 says X >= J + J_t (D - J_tt)^-1 J_t*."""
    rng = np.random.default_rng(spread)
    start = drawn(rng, 4, real=real, spread=spread)
    place = np.array([1, 3])
    diagonal = np.ldexp(np.abs(start.value[:, place, place]).max(axis=0), 2 * start.exponent[place])
    scale = diagonal * 4
    found = start.corrected(place, scale)
    for frequency in range(2):
        before, after = exact(start, frequency), exact(found, frequency)
        half = 4 if not real else 0
        rows = [*place.tolist(), *(place + half).tolist()] if half else place.tolist()
        gap = [[-before[i][j] for j in rows] for i in rows]
        for k, level in enumerate([*scale.tolist()] * (2 if half else 1)):
            gap[k][k] += Fraction(level)
        cross = [[row[j] for j in rows] for row in before]
        top = [d + c for d, c in zip(minus(after, before), cross, strict=True)]
        low = [c + g for c, g in zip(transposed(cross), gap, strict=True)]
        assert is_psd(top + low)
    for share in (0.1, 1e-3):
        with pytest.raises(NotProved, match="too small"):
            start.corrected(place, diagonal * share)


@pytest.mark.parametrize(("real", "spread"), CASES)
def test_what_leaves_a_gate_is_bounded(real: bool, spread: int) -> None:
    rng = np.random.default_rng(spread)
    start = drawn(rng, 4, real=real, spread=spread)
    place, middle, noise = np.array([2, 3]), np.array([0.3, 0.0]), np.array([0.7, 1e5])
    found = start.gated(place, middle, noise)
    factor = np.array([1.0, 1.0, *middle])
    count = 4 if real else 8
    linear = [[Fraction(0)] * count for _ in range(count)]
    for k in range(count):
        linear[k][k] = Fraction(factor[k % 4])
    for frequency in range(2):
        image = product(product(linear, exact(start, frequency)), linear)
        for k in range(count):
            image[k][k] += Fraction([0.0, 0.0, *noise][k % 4])
        assert is_psd(minus(exact(found, frequency), image))


def test_picking_and_extending_round_nothing() -> None:
    start = drawn(np.random.default_rng(0), 3, real=True, spread=5)
    twice = exact(start.picked(np.array([2, 0, 2])))
    whole = exact(start)
    assert twice == [[whole[i][j] for j in (2, 0, 2)] for i in (2, 0, 2)]
    longer = exact(start.extended(np.array([0.3])))
    assert [row[:3] for row in longer[:3]] == whole
    assert longer[3] == [0, 0, 0, Fraction(0.3)]


def test_the_start_is_exact_and_entries_that_do_not_vary_are_zero() -> None:
    found = exact(identity(2, np.array([0.3, 0.0, 7.0]), real=False), 1)
    assert [found[k][k] for k in range(6)] == [Fraction(x) for x in (0.3, 0.0, 7.0)] * 2


@pytest.mark.parametrize("real", [True, False])
def test_an_inverse_is_bounded_by_its_root(real: bool) -> None:
    """X* X / (1 - h) - T^-1 >= 0 is X T X* >= (1 - h) I."""
    rng = np.random.default_rng(0)
    gap = drawn(rng, 4, real=real, spread=0).value + 1e-3 * np.eye(4)
    root, share = inverse_root(gap)
    for frequency in range(2):
        linear = embedded(root[frequency])
        image = product(product(linear, embedded(gap[frequency])), transposed(linear))
        for k in range(len(image)):
            image[k][k] -= 1 - Fraction(float(share[frequency]))
        assert is_psd(image)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_beyond_float64_prove_nothing(bad: float) -> None:
    start = drawn(np.random.default_rng(0), 2, real=True, spread=0)
    with pytest.raises(NotProved):
        start.carried(Rows(np.full((1, 1, 2), bad)))
    with pytest.raises(NotProved):
        Covariance(np.full((1, 2, 2), bad), np.zeros(2, np.int64)).carried(Rows(np.ones((1, 1, 2))))
    with pytest.raises(NotProved):
        inverse_root(np.full((1, 2, 2), bad))
    with pytest.raises(NotProved):
        start.gated(np.array([0]), np.array([bad]), np.array([1.0]))
    with pytest.raises(NotProved):
        require_formable(10**6)


def test_complex_products_are_what_they_say() -> None:
    rng = np.random.default_rng(0)
    left = rng.standard_normal((1, 3, 4)) + 1j * rng.standard_normal((1, 3, 4))
    right = rng.standard_normal((2, 4, 2)) + 1j * rng.standard_normal((2, 4, 2))
    assert np.allclose(multiplied(left, right), left @ right)
    assert np.allclose(multiplied(left.real, right), left.real @ right)
    far = moved(left, np.full((3, 4), -1050))
    assert np.allclose(moved(far, np.full((3, 4), 1050)), left, rtol=1e-6)
    assert np.all(np.linalg.norm(right, axis=(1, 2)) <= norm_up(right))
