from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verifier.checker.arithmetic import (
    Magnitude,
    enlarged,
    env_ok,
    gamma,
    greatest,
    norm_up,
    root_down,
    root_of_squares,
    root_up,
    squares_up,
    sum_up,
    total,
)

QUICK = settings(max_examples=150, deadline=None, derandomize=True)
SIZES = st.floats(min_value=0, max_value=1e308, allow_subnormal=True)


def value_of(magnitude: Magnitude) -> Fraction:
    return Fraction(magnitude.mantissa) * Fraction(2) ** magnitude.exponent


def test_this_process_computes_as_assumed() -> None:
    assert env_ok()


@QUICK
@given(SIZES, SIZES)
def test_magnitudes_round_up(x: float, y: float) -> None:
    one, other = Magnitude.of(x), Magnitude.of(y)
    assert value_of(one) == Fraction(x)
    assert Fraction(x) * Fraction(y) <= value_of(one * other)
    assert Fraction(x) + Fraction(y) <= value_of(one + other)
    assert Fraction(x) <= value_of(one.root()) ** 2
    assert Fraction(x) == Fraction(one.upper())
    assert greatest((one, other)).upper() == max(x, y)


@QUICK
@given(SIZES, SIZES)
def test_magnitudes_are_tight(x: float, y: float) -> None:
    one, other = Magnitude.of(x), Magnitude.of(y)
    share = 1 + Fraction(1, 2**50)
    assert value_of(one * other) <= Fraction(x) * Fraction(y) * share
    assert value_of(one + other) <= (Fraction(x) + Fraction(y)) * share
    assert value_of(root_of_squares((one, other))) ** 2 <= (
        (Fraction(x) ** 2 + Fraction(y) ** 2) * share
    )


def test_a_product_beyond_float64_keeps_its_logarithm() -> None:
    product = Magnitude.of(1e300) * Magnitude.of(1e300)
    assert product.upper() == math.inf
    logarithm = product.log10()
    assert logarithm is not None
    assert 600 <= logarithm <= 600 + 1e-9


def test_a_product_below_float64_is_not_rounded_to_zero() -> None:
    assert (Magnitude.of(1e-300) * Magnitude.of(1e-300)).upper() == 5e-324


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_what_is_no_magnitude_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="no finite magnitude"):
        Magnitude.of(bad)


def test_a_sum_without_terms_is_zero() -> None:
    assert total(()).upper() == 0.0
    assert total(()).log10() is None


@QUICK
@given(SIZES)
def test_roots_enclose(x: float) -> None:
    assert Fraction(root_down(x)) ** 2 <= Fraction(x) <= Fraction(root_up(x)) ** 2


@QUICK
@given(st.lists(st.floats(-1e150, 1e150), min_size=1, max_size=20))
def test_sums_and_norms_round_up(values: list[float]) -> None:
    array = np.array(values)
    exact = sum((Fraction(v) ** 2 for v in values), Fraction(0))
    assert exact <= Fraction(squares_up(array))
    assert exact <= Fraction(norm_up(array)) ** 2
    assert sum((abs(Fraction(v)) for v in values), Fraction(0)) <= Fraction(sum_up(np.abs(array)))


def test_a_norm_of_subnormals_rounds_up() -> None:
    values = np.array([3.0, 4.0]) * 2.0**-1074
    assert 25 * Fraction(2) ** -2148 <= Fraction(norm_up(values)) ** 2


def test_gamma_is_an_upper_end() -> None:
    unit = Fraction(1, 2**53)
    for count in (1, 3, 1000, 10**6):
        assert count * unit / (1 - count * unit) <= Fraction(gamma(count))
    with pytest.raises(ValueError, match="too long"):
        gamma(10**14)


def test_enlarged_sums_cover_any_order() -> None:
    rng = np.random.default_rng(5)
    terms = np.exp(rng.normal(0, 30, 997))
    exact = sum((Fraction(float(t)) for t in terms), Fraction(0))
    for _ in range(20):
        added = np.cumsum(rng.permutation(terms))[-1]
        assert exact <= Fraction(float(enlarged(np.array([added]), 997)[0]))
