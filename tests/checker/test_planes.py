"""Planes around products, in rationals: no tolerance."""

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from verifier.checker.intervals import Interval
from verifier.checker.planes import planes

END = st.one_of(
    st.integers(-64, 64).map(lambda k: k / 16),
    st.floats(-1e3, 1e3),
    st.floats(-1e-9, 1e-9),
    st.floats(-1e150, 1e150),
)
SHARE = st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0])


def interval(ends: tuple[float, float]) -> Interval:
    left, right = sorted(ends)
    return Interval(np.array([[left]]), np.array([[right]]))


def within(known: Interval, share: float) -> float:
    low, high = known.lower.item(), known.upper.item()
    return min(max(low + (high - low) * share, low), high)


@given(x=st.tuples(END, END), y=st.tuples(END, END), at=st.tuples(SHARE, SHARE),
       slopes=st.one_of(st.none(), st.tuples(END, END)))  # fmt: skip
def test_products_lie_between_the_planes(
    x: tuple[float, float],
    y: tuple[float, float],
    at: tuple[float, float],
    slopes: tuple[float, float] | None,
) -> None:
    """Whatever slopes a proof brings."""
    left, right = interval(x), interval(y)
    given = None if slopes is None else (np.array([slopes[0]]), np.array([slopes[1]]))
    lines = planes(left, right, given)
    assert lines.beside is not None
    assert lines.beside_above is not None
    a, b = (Fraction(within(known, share)) for known, share in zip((left, right), at, strict=True))

    def plane(slope: np.ndarray, beside: np.ndarray, offset: np.ndarray) -> Fraction:
        return Fraction(slope.item()) * a + Fraction(beside.item()) * b + Fraction(offset.item())

    assert plane(lines.below, lines.beside, lines.low) <= a * b
    assert a * b <= plane(lines.above, lines.beside_above, lines.high)


def test_planes_touch_at_corners() -> None:
    """Shares 0 and 1 are the planes through two edges: exact there up to rounding."""
    left, right = interval((-1.0, 2.0)), interval((0.5, 3.0))
    lines = planes(left, right, (np.array([0.5]), np.array([3.0])))
    assert lines.beside is not None
    assert lines.beside_above is not None
    corner = -1.0 * 0.5 + lines.beside.item() * 0.5 + lines.low.item()
    assert abs(corner - -0.5) <= 1e-12
    corner = -1.0 * 3.0 + lines.beside_above.item() * 3.0 + lines.high.item()
    assert abs(corner - -3.0) <= 1e-12
