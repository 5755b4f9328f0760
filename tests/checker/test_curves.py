"""Facts of scalar functions: slopes, images and lines, against 50 digits and without tolerance."""

# ruff: noqa: E501, RUF032  (a case a line; the float is meant)

import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.checker import compounds, restricted, scalars, waves
from verifier.checker.curves import Curve
from verifier.errors import NotCheckable, NotLipschitzGlobally

Oracle = Callable[[Decimal], Decimal]
ZERO, ONE, HALF = Decimal(0), Decimal(1), Decimal("0.5")
PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899")


def sigmoid(x: Decimal) -> Decimal:
    return 1 / (1 + (-x).exp())


def erf(x: Decimal) -> Decimal:
    if abs(x) > 12:
        return ONE.copy_sign(x)
    term = total = x
    n = 0
    while abs(term) > Decimal("1e-60"):
        n += 1
        term = -term * x * x / n
        total += term / (2 * n + 1)
    return total * 2 / PI.sqrt()


def softplus(x: Decimal) -> Decimal:
    return max(x, ZERO) + (1 + (-abs(x)).exp()).ln()  # of 110 digits, 95 are right at -30


def elu(alpha: float) -> Oracle:
    return lambda x: x if x >= 0 else Decimal(alpha) * (x.exp() - 1)


def gelu_tanh(x: Decimal) -> Decimal:
    return x * sigmoid(2 * (2 / PI).sqrt() * (x + Decimal("0.044715") * x**3))


def sine(x: Decimal) -> Decimal:
    term = total = x
    n = 0
    while n < 2 * abs(x) or abs(term) > Decimal("1e-60"):
        n += 1
        term = -term * x * x / ((2 * n) * (2 * n + 1))
        total += term
    return total


CURVES: dict[str, tuple[Curve, Oracle]] = {
    "abs": (scalars.absolute(), abs),
    "bent": (scalars.PiecewiseLinear(((0.5, 0.5),), ((-2.0, 0.0), (0.25, -1.125))), lambda x: -2 * x if x < HALF else x / 4 - Decimal(1.125)),
    "celu": (compounds.celu(0.75), lambda x: x if x >= 0 else ((x / Decimal(0.75)).exp() - 1) * Decimal(0.75)),
    "clip": (scalars.clip(-1.0, 2.5), lambda x: min(max(x, -ONE), Decimal(2.5))),
    "cos": (waves.cosine(), lambda x: sine(x + PI / 2)),
    "cube": (restricted.Power(3.0), lambda x: x**3),
    "elu": (compounds.Elu(1.0), elu(1.0)),
    "elu_half": (compounds.Elu(0.5), elu(0.5)),
    "elu_negative": (compounds.Elu(-0.5), elu(-0.5)),
    "erf": (scalars.Erf(), erf),
    "exp": (compounds.Exp(), lambda x: x.exp()),
    "gelu": (compounds.gelu(), lambda x: x * (1 + erf(x / Decimal(2).sqrt())) / 2),
    "gelu_tanh": (compounds.gelu_tanh(), gelu_tanh),
    "hard_sigmoid": (scalars.hard_sigmoid(0.2, 0.5), lambda x: min(max(Decimal(0.2) * x + HALF, ZERO), ONE)),
    "hard_swish": (compounds.HardSwish(), lambda x: x * max(ZERO, min(ONE, x / 6 + HALF))),
    "leaky": (scalars.leaky(0.1), lambda x: x if x >= 0 else Decimal(0.1) * x),
    "leaky_steep": (scalars.leaky(-2.0), lambda x: x if x >= 0 else -2 * x),
    "log_sigmoid": (compounds.Rescaled(scalars.Softplus(), (-1.0, 0.0), (-1.0, 0.0), 0.25), lambda x: -softplus(-x)),
    "mish": (compounds.mish(), lambda x: x * (2 * sigmoid(2 * softplus(x)) - 1)),
    "quick_gelu": (compounds.Rescaled(compounds.silu(), (1.75, 0.0), (1 / 1.75, 1e-16), 2.0), lambda x: x * sigmoid(Decimal(1.75) * x)),
    "relu": (scalars.relu(), lambda x: max(x, ZERO)),
    "root": (compounds.RootOfSquare(), lambda x: (1 + x * x).sqrt()),
    "selu": (compounds.selu(1.6732631921768188, 1.0507010221481323), lambda x: Decimal(1.0507010221481323) * elu(1.6732631921768188)(x)),
    "sigmoid": (scalars.Sigmoid(), sigmoid),
    "silu": (compounds.silu(), lambda x: x * sigmoid(x)),
    "sin": (waves.sine(), sine),
    "soft_shrink": (scalars.soft_shrink(0.5), lambda x: (max(abs(x) - HALF, ZERO)).copy_sign(x)),
    "softplus": (scalars.Softplus(), softplus),
    "softsign": (compounds.Softsign(), lambda x: x / (1 + abs(x))),
    "square": (compounds.Square(), lambda x: x * x),
    "tanh": (scalars.Tanh(), lambda x: 2 * sigmoid(2 * x) - 1),
}  # fmt: skip
GLOBAL = sorted(set(CURVES) - {"cube", "exp", "square"})

POINT = st.one_of(
    st.integers(-96, 96).map(lambda k: k / 16),  # kinks, equal and adjacent ends
    st.floats(-30, 30),
    st.floats(-1e-3, 1e-3),
)
SLOPE = st.one_of(st.floats(-3, 3), st.sampled_from([0.0, 0.5, 1.0, -1.0]))


def exact(name: str, x: float) -> Fraction:
    with localcontext() as context:
        context.prec = 110
        return Fraction(CURVES[name][1](Decimal(x)))


#: how far an oracle of 110 digits may be off: not a tolerance for what is tested
DIGITS = Fraction(1, 10**45)


@pytest.mark.parametrize("name", sorted(CURVES))
@given(x=POINT, y=POINT, share=st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_values_lie_within_the_image(name: str, x: float, y: float, share: float) -> None:
    left, right = sorted((x, y))
    point = min(left + (right - left) * share, right)
    lower, upper = CURVES[name][0].image(np.array([left]), np.array([right]))
    assert Fraction(lower.item()) - DIGITS <= exact(name, point) <= Fraction(upper.item()) + DIGITS


@pytest.mark.parametrize("name", sorted(CURVES))
@given(x=POINT, y=POINT, share=st.sampled_from([0.5, 0.75, 1.0]))
def test_secants_lie_within_the_slopes(name: str, x: float, y: float, share: float) -> None:
    left, right = sorted((x, y))
    end = min(left + (right - left) * share, right)
    lower, upper = CURVES[name][0].slope_range_on(np.array([left]), np.array([right]))
    rise, run = exact(name, end) - exact(name, left), Fraction(end) - Fraction(left)
    assert Fraction(lower.item()) * run - DIGITS <= rise <= Fraction(upper.item()) * run + DIGITS


@pytest.mark.parametrize("name", sorted(CURVES))
@given(x=POINT, y=POINT, share=st.sampled_from([0.5, 0.75, 1.0]))
def test_secants_lie_within_the_inner_slopes(name: str, x: float, y: float, share: float) -> None:
    left, right = sorted((x, y))
    end = min(left + (right - left) * share, right)
    lower, upper = CURVES[name][0].slopes_inside(np.array([left]), np.array([right]))
    rise, run = exact(name, end) - exact(name, left), Fraction(end) - Fraction(left)
    assert Fraction(lower.item()) * run - DIGITS <= rise <= Fraction(upper.item()) * run + DIGITS


@pytest.mark.parametrize("name", GLOBAL)
@given(x=POINT, y=POINT)
def test_secants_lie_within_the_global_slopes(name: str, x: float, y: float) -> None:
    left, right = sorted((x, y))
    lower, upper = CURVES[name][0].slope_range(1)
    rise, run = exact(name, right) - exact(name, left), Fraction(right) - Fraction(left)
    assert Fraction(lower.item()) * run - DIGITS <= rise <= Fraction(upper.item()) * run + DIGITS


@pytest.mark.parametrize("name", sorted(CURVES))
@given(x=POINT, y=POINT, below=SLOPE, above=SLOPE, share=st.sampled_from([0.0, 0.3, 0.5, 0.8, 1.0]))
def test_lines_of_any_slope_hold(
    name: str, x: float, y: float, below: float, above: float, share: float
) -> None:
    left, right = sorted((x, y))
    point = min(left + (right - left) * share, right)
    low, high = CURVES[name][0].offsets(
        np.array([left]), np.array([right]), np.array([below]), np.array([above])
    )
    value = exact(name, point)
    assert Fraction(below) * Fraction(point) + Fraction(low.item()) <= value + DIGITS
    assert value - DIGITS <= Fraction(above) * Fraction(point) + Fraction(high.item())


@pytest.mark.parametrize("name", sorted(CURVES))
def test_good_lines_touch(name: str) -> None:
    """On [-1, 2] the lines are nearly as close as lines can be: weakness is a bug too."""
    curve = CURVES[name][0]
    left, right = np.array([-1.0]), np.array([2.0])
    below, above = curve.lines(left, right)
    low, high = curve.offsets(left, right, below, above)
    x = np.linspace(-1.0, 2.0, 3001)
    value = np.array([float(exact(name, float(point))) for point in x[::50]])
    assert np.min(value - (below * x[::50] + low)) <= 2e-3
    assert np.min(above * x[::50] + high - value) <= 2e-3


@pytest.mark.parametrize("name", GLOBAL)
def test_global_slopes_are_reached(name: str) -> None:
    curve = CURVES[name][0]
    lower, upper = curve.slope_range(1)
    far = np.geomspace(40, 1e9, 100)
    low, high = curve.slopes(np.concatenate([-far, np.linspace(-40, 40, 160001), far]))
    assert lower.item() >= np.min(low) - 1e-8
    assert upper.item() <= np.max(high) + 1e-8


@pytest.mark.parametrize("name", ["cube", "exp", "square"])
def test_functions_without_a_global_constant_say_so(name: str) -> None:
    with pytest.raises(NotLipschitzGlobally):
        CURVES[name][0].slope_range(3)


@pytest.mark.parametrize("name", sorted(CURVES))
@pytest.mark.parametrize("slope", [0.0, 1.0, -1e300])
def test_huge_intervals_have_ordered_answers(name: str, slope: float) -> None:
    left = np.array([-1e300, -1.7e308, -np.inf, 0.0, 1e300])
    right = np.array([1e300, 1.7e308, np.inf, 1.7e308, 1.1e300])
    curve, a = CURVES[name][0], np.full(5, slope)
    for low, high in (
        curve.image(left, right),
        curve.slope_range_on(left, right),
        curve.offsets(left, right, a, a),
    ):
        assert np.all(low <= high)


def test_gelu_slope_exceeds_one() -> None:
    """rigour: [-0.128904145185, 1.128904145185], outward by no more than 1e-11."""
    lower, upper = compounds.gelu().slope_range(1)
    assert -0.128904145185 - 1e-11 <= lower.item() <= -0.128904145185
    assert 1.128904145185 <= upper.item() <= 1.128904145185 + 1e-11


def test_selu_default_exceeds_the_papers() -> None:
    """The float32 attributes of ONNX give 1.758099346343031, above the paper's 1.758099340847."""
    curve = compounds.selu(1.67326319217681884765625, 1.05070102214813232421875)
    _, upper = curve.slope_range(1)
    exact_end = Fraction(1.67326319217681884765625) * Fraction(1.05070102214813232421875)
    assert exact_end <= Fraction(upper.item()) <= exact_end * (1 + Fraction(1, 10**14))


def test_a_factor_of_unknown_sign_is_refused() -> None:
    """Its sign says which pieces are convex: -1/2 +- 1 may be 1/2, and the image would be wrong."""
    for inner, outer in (
        ((1.0, 0.0), (-0.5, 1.0)),
        ((1.0, 0.0), (0.0, 1.0)),
        ((1.0, 0.5), (1.0, 0.0)),
    ):
        with pytest.raises(NotCheckable):
            compounds.Rescaled(compounds.silu(), inner, outer, compounds.Gate.curvature)


def test_parameters_may_differ_from_entry_to_entry() -> None:
    curve = scalars.leaky(np.array([0.25, -1.0, 3.0]))
    lower, upper = curve.slope_range(3)
    assert lower.tolist() == [0.25, -1.0, 1.0]
    assert upper.tolist() == [1.0, 1.0, 3.0]
    low, high = curve.image(np.full(3, -2.0), np.full(3, 1.0))
    assert np.all(low <= [-0.5, 0.0, -6.0])
    assert np.all([1.0, 2.0, 1.0] <= high)
    assert math.isclose(high[1], 2.0)
