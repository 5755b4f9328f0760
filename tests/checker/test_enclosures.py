"""Enclosures against 60 digits: no tolerance."""

from collections.abc import Callable
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.checker import arcs, enclosures

PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899")


def log1p(z: Decimal) -> Decimal:
    # 60 digits of 1 + z would lose a small z.
    return (1 + z).ln() if z > Decimal("1e-15") else z - z * z / 2 + z * z * z / 3


def erf(x: Decimal) -> Decimal:
    if abs(x) > 6:
        return (1 - Decimal("1e-17")).copy_sign(x)
    term = total = x
    n = 0
    while abs(term) > Decimal("1e-75"):
        n += 1
        term = -term * x * x / n
        total += term / (2 * n + 1)
    return total * 2 / PI.sqrt()


def test_arcs_have_ordered_narrow_enclosures() -> None:
    """Their values are held to decimals among the curves."""
    ends = np.array([-1.7e308, -1e200, -711.0, -1e-320, -0.0, 0.0, 5e-324, 1.0, 711.0, 1.7e308])
    near = np.linspace(-5, 5, 1001)
    for function in (arcs.atan, arcs.asinh, arcs.sinh, arcs.cosh):
        lower, upper = function(ends)
        assert np.all(lower <= upper)
        lower, upper = function(near)
        assert np.all(upper - lower <= 1e-12 * np.maximum(np.abs(lower), 1e-3))


ORACLES: dict[str, Callable[[Decimal], Decimal]] = {
    "erf": erf,
    "exp": lambda x: x.exp(),
    "expm1": lambda x: x.exp() - 1,
    "gauss": lambda x: (-x * x).exp(),
    "sigmoid": lambda x: 1 / (1 + (-x).exp()),
    "softplus": lambda x: max(x, Decimal(0)) + log1p((-abs(x)).exp()),
    "tanh": lambda x: ((2 * x).exp() - 1) / ((2 * x).exp() + 1),
}
POINT = st.one_of(
    st.floats(-8, 8),
    st.floats(-700, 700),
    st.floats(-1e-6, 1e-6),
    st.integers(-64, 64).map(lambda k: k / 16),
).filter(lambda x: x == 0 or abs(x) > 1e-30)  # below, the oracle's 90 digits do not suffice


@pytest.mark.parametrize("name", sorted(ORACLES))
@given(x=POINT)
def test_the_value_lies_within(name: str, x: float) -> None:
    lower, upper = getattr(enclosures, name)(np.array([x]))
    with localcontext() as context:
        context.prec = 90
        exact = ORACLES[name](Decimal(x))
        assert Decimal(lower.item()) <= exact <= Decimal(upper.item())


@pytest.mark.parametrize("name", sorted(ORACLES))
def test_enclosures_are_narrow_where_the_function_is_not_tiny(name: str) -> None:
    x = np.linspace(-5, 5, 1001)
    lower, upper = getattr(enclosures, name)(x)
    assert np.all(upper - lower <= 1e-12 * np.maximum(np.abs(lower), 1e-3))


@pytest.mark.parametrize("name", sorted(ORACLES))
def test_the_ends_of_float64_have_ordered_enclosures(name: str) -> None:
    ends = np.array([-1.7e308, -1e300, -746.0, -1e-320, -0.0, 0.0, 5e-324, 709.9, 1e300, 1.7e308])
    lower, upper = getattr(enclosures, name)(ends)
    assert np.all(lower <= upper)
