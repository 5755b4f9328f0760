from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from tests.checker.oracles import exact, is_psd, product, spectral_norm_at_most, transposed
from verifier.checker.carry import Carried
from verifier.checker.definite import SpectralTest, proves_psd
from verifier.checker.maps import Dense
from verifier.checker.operator_norms import map_norm, matrix_norm
from verifier.norms import Norm, NormPair

KINDS = (
    "gaussian",
    "integers",
    "decades",
    "rank-one",
    "orthogonal",
    "subnormal",
    "huge",
    "duplicates",
    "zeros",
    "ones",
)


def sample(kind: str, rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    plain = rng.standard_normal((rows, columns))
    whole = rng.standard_normal((max(rows, columns),) * 2)
    return {
        "gaussian": plain,
        "integers": rng.integers(-5, 6, (rows, columns)).astype(np.float64),
        "decades": plain * 10.0 ** rng.integers(-12, 13, (rows, columns)),
        "rank-one": np.outer(plain[:, 0], plain[0]),
        "orthogonal": np.linalg.qr(whole)[0][:rows, :columns],
        "subnormal": plain * 2.0**-1065,
        "huge": plain * 1e300,
        "duplicates": np.repeat(plain[:, :1], columns, axis=1),
        "zeros": np.zeros((rows, columns)),
        "ones": np.ones((rows, columns)),
    }[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_spectral_bounds_hold_exactly(kind: str) -> None:
    rng = np.random.default_rng(KINDS.index(kind))
    for rows, columns in ((1, 1), (3, 2), (2, 5), (7, 7), (9, 4)):
        matrix = sample(kind, rng, rows, columns)
        bound = SpectralTest(matrix).bound()
        assert spectral_norm_at_most(matrix, bound)
        scale = np.abs(matrix).max() or 1.0
        assert bound <= np.linalg.norm(matrix / scale, 2) * scale * (1 + 1e-11) + 1e-300


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("zeros",)])
def test_a_norm_below_the_truth_is_not_proved(kind: str) -> None:
    rng = np.random.default_rng(100 + KINDS.index(kind))
    for rows, columns in ((2, 2), (5, 3), (6, 6)):
        matrix = sample(kind, rng, rows, columns)
        test = SpectralTest(matrix)
        bound = test.bound()
        for share in (1e-15, 1e-14, 1e-13, 1e-12, 1e-11, 1e-10, 1e-3):
            claimed = bound * (1 - share)
            if test.proves(claimed):
                assert spectral_norm_at_most(matrix, claimed)


def test_integer_norms_are_not_undercut_by_one_bit() -> None:
    matrix = np.array([[3.0, 0.0], [0.0, 1.0]])
    test = SpectralTest(matrix)
    assert test.proves(3.0 * (1 + 1e-13))
    assert not test.proves(np.nextafter(3.0, 0))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0, -np.inf, 0.0])
def test_a_claimed_norm_that_is_no_number_is_not_proved(bad: float) -> None:
    assert not SpectralTest(np.eye(2)).proves(bad)


def test_the_error_of_a_matrix_enters_its_norm() -> None:
    value, error = np.diag([1.0, 0.5]), np.full((2, 2), 1e-3)
    test = SpectralTest(value, error)
    worst = value + error
    assert not test.proves(float(np.linalg.norm(worst, 2)) * (1 - 1e-9))
    assert spectral_norm_at_most(worst, test.bound())


def test_a_matrix_with_a_negative_eigenvalue_is_never_accepted() -> None:
    rng = np.random.default_rng(7)
    accepted = 0
    for case in range(300):
        size = int(rng.integers(1, 7))
        half = rng.integers(-4, 5, (size, size)).astype(np.float64)
        scale = np.ldexp(1.0, rng.integers(-20, 21, size))
        matrix = (half @ half.T) * scale * scale[:, None]
        dent = [0.0, 1e-16, 1e-14, 1e-10, -1e-8, -1e-3][case % 6]
        matrix = matrix - dent * np.diag(np.diag(matrix))
        if proves_psd(matrix, lambda _: 0.0):
            accepted += 1
            assert is_psd(exact(matrix))
    assert accepted > 20


def test_the_error_of_a_matrix_can_take_its_definiteness() -> None:
    matrix = np.eye(3)
    assert proves_psd(matrix, lambda _: 0.9)
    assert not proves_psd(matrix, lambda _: 1.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e308, 0.0, -1.0, 1e-320])
def test_a_bad_diagonal_is_not_accepted(bad: float) -> None:
    assert not proves_psd(np.diag([1.0, bad]), lambda _: 0.0)


def test_a_bad_entry_is_not_accepted() -> None:
    matrix = np.eye(2)
    matrix[0, 1] = matrix[1, 0] = np.nan
    assert not proves_psd(matrix, lambda _: 0.0)
    assert not proves_psd(np.eye(2), lambda _: float("nan"))


@pytest.mark.parametrize("output", list(Norm))
@pytest.mark.parametrize("given", list(Norm))
def test_operator_norms_hold_at_sign_vectors(given: Norm, output: Norm) -> None:
    """Vertices, units and rows of W: |W x|_q <= bound |x|_p, exactly."""
    rng = np.random.default_rng(11)
    for _ in range(8):
        matrix = rng.integers(-9, 10, (3, 4)).astype(np.float64) / 4
        bound = matrix_norm(Carried(matrix), NormPair(given, output))
        points = [*np.eye(4), *rng.choice([-1.0, 1.0], (6, 4)), *matrix]
        for point in points:
            image = [Fraction(float(v)) for v in (matrix @ point)]
            start = [Fraction(float(v)) for v in point]
            assert square(image, output) <= Fraction(bound) ** 2 * square(start, given)


def square(values: list[Fraction], norm: Norm) -> Fraction:
    match norm:
        case Norm.L1:
            return sum((abs(v) for v in values), Fraction(0)) ** 2
        case Norm.L2:
            return sum((v * v for v in values), Fraction(0))
        case Norm.LINF:
            return max(abs(v) for v in values) ** 2


def test_map_norms_bound_the_matrix() -> None:
    matrix = np.random.default_rng(3).standard_normal((4, 6))
    assert np.abs(matrix).sum(axis=0).max() <= map_norm(Dense(matrix), Norm.L1)
    assert np.abs(matrix).sum(axis=1).max() <= map_norm(Dense(matrix), Norm.LINF)
    assert spectral_norm_at_most(matrix, map_norm(Dense(matrix), Norm.L2))


def test_the_rational_oracle_knows_a_square() -> None:
    half = exact(np.array([[1.0, 2.0], [3.0, 4.0]]))
    square_of = product(transposed(half), half)
    assert is_psd(square_of)
    square_of[0][0] -= Fraction(10)
    assert not is_psd(square_of)
