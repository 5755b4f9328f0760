"""Logarithms and powers of the checker against 50 digits, without tolerance."""

import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.checker.curves import Curve
from verifier.checker.restricted import Log, Power, log, power
from verifier.checker.waves import cosine, sine

DIGITS = Fraction(1, 10**40)  #: how far the oracle itself may be off
POSITIVE = st.one_of(
    st.integers(1, 96).map(lambda k: k / 16),
    st.floats(1e-3, 1e3),
    st.floats(1e-9, 1e9),
)
BOTH = st.one_of(POSITIVE, POSITIVE.map(lambda x: -x))
SLOPE = st.one_of(st.floats(-3, 3), st.sampled_from([0.0, 0.5, 1.0, -1.0]))


def _power(exponent: float) -> Callable[[Decimal], Decimal]:
    def of(x: Decimal) -> Decimal:
        if exponent == int(exponent):
            return x ** int(exponent)
        return (x.ln() * Decimal(exponent)).exp()

    return of


CURVES: dict[str, tuple[Curve, Callable[[Decimal], Decimal], bool]] = {
    "log": (Log(), lambda x: x.ln(), False),
    "root": (Power(0.5), lambda x: x.sqrt(), False),
    "inverse root": (Power(-0.5), lambda x: 1 / x.sqrt(), False),
    "three halves": (Power(1.5), _power(1.5), False),
    "0.3": (Power(0.3), _power(0.3), False),
    "-1.75": (Power(-1.75), _power(-1.75), False),
    "reciprocal": (Power(-1.0), _power(-1.0), True),
    "inverse square": (Power(-2.0), _power(-2.0), True),
    "inverse cube": (Power(-3.0), _power(-3.0), True),
    "fourth": (Power(4.0), _power(4.0), True),
    "fifth": (Power(5.0), _power(5.0), True),
}
every_curve = pytest.mark.parametrize("name", CURVES)


def exact(name: str, x: float) -> Fraction:
    with localcontext() as context:
        context.prec = 110
        return Fraction(CURVES[name][1](Decimal(x)))


def ends(name: str, x: float, y: float) -> tuple[float, float]:
    """An interval of the domain: both ends positive, or both negative where that is in it."""
    if not CURVES[name][2]:
        x, y = abs(x), abs(y)
    left, right = sorted((x, math.copysign(y, x)))
    return left, right


@every_curve
@given(x=BOTH, y=BOTH, share=st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_values_and_secants_lie_within(name: str, x: float, y: float, share: float) -> None:
    left, right = ends(name, x, y)
    point = min(left + (right - left) * share, right)
    curve, interval = CURVES[name][0], (np.array([left]), np.array([right]))
    lower, upper = curve.image(*interval)
    least, greatest = curve.slope_range_on(*interval)
    value = exact(name, point)
    rise, run = value - exact(name, left), Fraction(point) - Fraction(left)
    assert Fraction(lower.item()) - DIGITS <= value <= Fraction(upper.item()) + DIGITS
    assert Fraction(least.item()) * run - DIGITS <= rise
    assert rise <= Fraction(greatest.item()) * run + DIGITS


@every_curve
@given(x=BOTH, y=BOTH, below=SLOPE, above=SLOPE, share=st.sampled_from([0.0, 0.3, 0.8, 1.0]))
def test_lines_of_any_slope_hold(
    name: str, x: float, y: float, below: float, above: float, share: float
) -> None:
    left, right = ends(name, x, y)
    point = min(left + (right - left) * share, right)
    low, high = CURVES[name][0].offsets(
        np.array([left]), np.array([right]), np.array([below]), np.array([above])
    )
    value = exact(name, point)
    assert Fraction(below) * Fraction(point) + Fraction(low.item()) <= value + DIGITS
    assert value - DIGITS <= Fraction(above) * Fraction(point) + Fraction(high.item())


@every_curve
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_good_lines_touch(name: str, side: float) -> None:
    """On [1, 2], and [-2, -1], lines are nearly as close as lines can be."""
    side = side if CURVES[name][2] else 1.0
    left, right = np.array([min(side, 2 * side)]), np.array([max(side, 2 * side)])
    curve = CURVES[name][0]
    below, above = curve.lines(left, right)
    low, high = curve.offsets(left, right, below, above)
    x = np.linspace(left[0], right[0], 65)
    value = np.array([float(exact(name, float(point))) for point in x])
    scale = np.ptp(value)
    assert np.min(value - (below * x + low)) <= 2e-3 * scale
    assert np.min(above * x + high - value) <= 2e-3 * scale


@given(x=st.floats(2.0**-999, 2.0**999))
def test_the_logarithm_is_enclosed_narrowly(x: float) -> None:
    lower, upper = log(np.array([x]))
    with localcontext() as context:
        context.prec = 60
        value = Decimal(x).ln()
        assert Decimal(lower.item()) <= value <= Decimal(upper.item())
    assert upper - lower <= 1e-12 * max(abs(lower.item()), 1e-300)


@given(x=POSITIVE, exponent=st.sampled_from([2.0, -3.0, 0.5, 0.7, -1.3, 100.0]))
def test_powers_are_enclosed_narrowly(x: float, exponent: float) -> None:
    lower, upper = power(np.array([x]), exponent)
    with localcontext() as context:
        context.prec = 60
        value = (Decimal(x).ln() * Decimal(exponent)).exp()
        assert Decimal(lower.item()) * (1 - Decimal("1e-50")) <= value
        assert value * (1 - Decimal("1e-50")) <= Decimal(upper.item())
    assert not upper < np.inf or upper - lower <= 1e-9 * lower


@pytest.mark.parametrize(
    ("curve", "lower", "upper"),
    [
        (Log(), 0.0, 1.0),
        (Power(0.5), 0.0, 1.0),
        (Power(0.5), -1.0, 1.0),
        (Power(-1.0), -1.0, 2.0),
        (Power(-1.0), 0.0, 1.0),
        (Power(-2.0), -1.0, 1.0),
        (Power(1.5), -1.0, 1.0),
        (Log(), math.nan, 1.0),
        (Power(-1.0), math.nan, math.nan),
        (Power(-1.0), 1.0, math.inf),
    ],
)
def test_beyond_the_domain_nothing_is_known(curve: Curve, lower: float, upper: float) -> None:
    interval = np.array([lower]), np.array([upper])
    flat = np.zeros(1)
    for least, greatest in (
        curve.image(*interval),
        curve.slope_range_on(*interval),
        curve.offsets(*interval, flat, flat),
    ):
        assert (least.item(), greatest.item()) == (-math.inf, math.inf)


@given(k=st.integers(-100000, 100000), quarter=st.sampled_from([0, 1]))
def test_a_wave_reaches_its_peaks_on_long_intervals(k: int, quarter: int) -> None:
    curve = (sine(), cosine())[quarter]
    left, right = np.array([k * 1.5]), np.array([k * 1.5 + 6.3])
    assert [end.item() for end in curve.image(left, right)] == [-1.0, 1.0]
