"""Regions: membership is exact, float64 ends lie outside, and the empty is refused."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.errors import RegionEmptyInterior
from verifier.norms import Norm
from verifier.regions import Ball, CenterBox, Clip, EndsBox, Everywhere

FINITE = st.floats(min_value=-1e6, max_value=1e6)
RADIUS = st.floats(min_value=1e-12, max_value=1e6)


@given(center=st.lists(FINITE, min_size=1, max_size=5), radius=RADIUS)
def test_interval_encloses_the_exact_box(center: list[float], radius: float) -> None:
    lower, upper = CenterBox(center=tuple(center), radius=radius).interval()
    for low, middle, high in zip(lower, center, upper, strict=True):
        assert Fraction(float(low)) <= Fraction(middle) - Fraction(radius)
        assert Fraction(middle) + Fraction(radius) <= Fraction(float(high))


@given(center=FINITE, radius=RADIUS)
def test_interval_is_at_most_one_float_too_wide(center: float, radius: float) -> None:
    lower, upper = CenterBox(center=(center,), radius=radius).interval()
    inside = math.nextafter(float(lower[0]), math.inf), math.nextafter(float(upper[0]), -math.inf)
    assert Fraction(center) - Fraction(radius) < Fraction(inside[0])
    assert Fraction(inside[1]) < Fraction(center) + Fraction(radius)


def test_membership_is_decided_in_rationals() -> None:
    """0.1 + 0.2 rounds up to a float64 that lies outside of [0.1 - 0.2, 0.1 + 0.2]."""
    box = CenterBox(center=(0.1,), radius=0.2)
    assert not box.contains([0.1 + 0.2])
    assert box.contains([math.nextafter(0.1 + 0.2, 0)])


@given(center=FINITE, radius=RADIUS, steps=st.integers(-2, 2), lower=st.booleans())
def test_membership_next_to_an_end_is_that_of_rationals(
    center: float, radius: float, steps: int, lower: bool
) -> None:
    box = CenterBox(center=(center,), radius=radius)
    x = center - radius if lower else center + radius
    for _ in range(abs(steps)):
        x = math.nextafter(x, math.copysign(math.inf, steps))
    assert box.contains([x]) is (abs(Fraction(x) - Fraction(center)) <= Fraction(radius))


def test_ends_belong_to_the_box() -> None:
    box = EndsBox(lower=(0.0, -1.0), upper=(1.0, -1.0))
    assert box.contains([0.0, -1.0])
    assert box.contains([1.0, -1.0])
    assert not box.contains([1.0, math.nextafter(-1.0, 0)])


@pytest.mark.parametrize(
    ("norm", "inside", "outside"),
    [
        (Norm.L1, [0.5, -0.5], [0.5, 0.75]),
        (Norm.L2, [0.6, 0.0], [0.75, 0.75]),
        (Norm.LINF, [1.0, -1.0], [1.0, 1.25]),
    ],
)
def test_ball_is_closed_in_its_norm(norm: Norm, inside: list[float], outside: list[float]) -> None:
    ball = Ball(norm=norm, center=(0.0, 0.0), radius=1.0)
    assert ball.contains(inside)
    assert ball.contains([1.0, 0.0])
    assert not ball.contains(outside)


@pytest.mark.parametrize("region", [CenterBox(center=(0.0,), radius=1.0), Everywhere()])
@pytest.mark.parametrize("coordinate", [math.nan, math.inf])
def test_no_region_holds_what_is_not_a_point(
    region: CenterBox | Everywhere, coordinate: float
) -> None:
    assert not region.contains([coordinate])


def test_point_of_another_dimension_is_outside() -> None:
    assert not CenterBox(center=(0.0, 0.0), radius=1.0).contains([0.0])
    assert not Ball(norm=Norm.L2, center=(0.0, 0.0), radius=1.0).contains([0.0])


def test_clip_cuts_the_box() -> None:
    box = CenterBox(center=(0.0, 1.0), radius=0.5, clip=Clip(lower=0.0, upper=1.0))
    lower, upper = box.interval()
    assert lower.tolist() == [0.0, 0.5]
    assert upper.tolist() == [0.5, 1.0]


def test_radius_of_zero_fixes_one_coordinate() -> None:
    lower, upper = CenterBox(center=(0.5, 0.5), radius=(0.0, 0.25)).interval()
    assert lower.tolist() == [0.5, 0.25]
    assert upper.tolist() == [0.5, 0.75]


def test_empty_intersection_is_refused() -> None:
    with pytest.raises(RegionEmptyInterior, match="coordinate 1"):
        CenterBox(center=(0.0, 3.0), radius=1.0, clip=Clip(lower=0.0, upper=1.0))


def test_single_point_is_refused() -> None:
    with pytest.raises(RegionEmptyInterior, match="single point"):
        EndsBox(lower=(1.0, 2.0), upper=(1.0, 2.0))


@pytest.mark.parametrize("radius", [0.0, -1.0, math.inf, math.nan])
def test_ball_without_interior_is_refused(radius: float) -> None:
    with pytest.raises(RegionEmptyInterior):
        Ball(norm=Norm.L2, center=(0.0,), radius=radius)
