"""Sine and cosine: enclosures at points, and what follows on intervals of any length.

x = k pi/2 + r with an integer k, |k| < 2^20: P1 has 33 bits, so that k P1 and x - k P1 are exact;
products with P2, the rest of pi/2 to 53 bits, leave r with an error below 2^-52, |r| < 0.79.
Taylor's polynomials of degree 17 and 18 leave 2^-60 there, and Horner's rule less than 24 u. All
together below 2^-47, absolutely; beyond 2^20 nothing is said but [-1, 1].

Around a peak, for half a period, a wave is concave: with any point p of that arc

    f(x) - a x <= f(p) - a p + (f'(p) - a)(x - p),                                        (1)

and with p near the place where f' = a this is near the greatest value. Between two arcs it is
convex, so that it is greatest where they end, or at an end of the interval. The inflections are
known to within a rounding: arcs are taken a little longer, where f'' is as little as that.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import factorial
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.curves import CONVEX, Break, Curve

if TYPE_CHECKING:
    from verifier.checker.curves import Mask, Pair, Vector
    from verifier.checker.enclosures import Enclosure, Points

_P1 = float.fromhex("0x1.921fb544p+0")
_P2 = float.fromhex("0x1.0b4611a626331p-34")
_HALF_PI = float.fromhex("0x1.921fb54442d18p+0")
_FARTHEST = 2.0**20
_ERROR = 2.0**-47
_ARCS = 16  #: on longer intervals nothing is said but [-1, 1]
_ROOM = 2.0**-45
_SLACK = 2.0**-46
_NEAR = 2.0**-20  #: of a period: peaks this near to an interval count as inside of it
_SINE = [(-1.0) ** n / factorial(2 * n + 1) for n in range(8, -1, -1)]
_COSINE = [(-1.0) ** n / factorial(2 * n) for n in range(9, -1, -1)]


def wave(x: Points, quarters: int) -> Enclosure:
    """Of sin(x + quarters pi/2)."""
    near = np.abs(x) < _FARTHEST
    inside = np.where(near, x, 0.0)
    k = np.rint(inside / _HALF_PI)
    r = (inside - k * _P1) - k * _P2
    square = r * r
    sine, cosine = np.full_like(r, _SINE[0]), np.full_like(r, _COSINE[0])
    for coefficient in _SINE[1:]:
        sine = sine * square + coefficient
    for coefficient in _COSINE[1:]:
        cosine = cosine * square + coefficient
    turn = np.mod(k + quarters, 4.0)
    value = np.where(np.mod(turn, 2.0) == 0, sine * r, cosine)
    value = np.where(turn >= 2, -value, value)
    low, high = np.maximum(value - _ERROR, -1.0), np.minimum(value + _ERROR, 1.0)
    return np.where(near, low, -1.0), np.where(near, high, 1.0)


def _range(lower: Vector, upper: Vector, quarters: int) -> Pair:
    """From the least to the greatest value of the wave on [lower, upper]."""
    ends = [wave(end, quarters) for end in (lower, upper)]
    least = np.minimum(ends[0][0], ends[1][0])
    greatest = np.maximum(ends[0][1], ends[1][1])
    # The wave is 1 at (1 - quarters) pi/2 and -1 half a period from there.
    top = _meets(lower, upper, 1.0 - quarters)
    bottom = _meets(lower, upper, 3.0 - quarters)
    return np.where(bottom, -1.0, least), np.where(top, 1.0, greatest)


def _meets(lower: Vector, upper: Vector, at: float) -> Mask:
    """Whether [lower, upper] may have a point at pi/2 + 2 pi k; yes where that is not sure."""
    first, last = ((end / _HALF_PI - at) / 4.0 for end in (lower, upper))
    known = (np.abs(lower) < _FARTHEST) & (np.abs(upper) < _FARTHEST)
    return ~known | (np.ceil(first - _NEAR) <= np.floor(last + _NEAR))


@dataclass(frozen=True, eq=False)
class Wave(Curve):
    """sin(x + quarters pi/2): sine for 0, cosine for 1."""

    quarters: int

    def values(self, x: Points) -> Enclosure:
        """The wave."""
        return wave(x, self.quarters)

    def slopes(self, x: Points) -> Enclosure:
        """A quarter ahead."""
        return wave(x, self.quarters + 1)

    @property
    def breaks(self) -> tuple[Break, ...]:
        """None that are listed: every fact below is the wave's own."""
        return ()

    @property
    def bends(self) -> tuple[int, ...]:
        """Not used."""
        return (CONVEX,)

    @property
    def tails(self) -> tuple[float | Points, float | Points]:
        """[-1, 1]."""
        return -1.0, 1.0

    def slope_range_on(self, lower: Vector, upper: Vector) -> Pair:
        """Every slope on the closed [lower, upper] lies within."""
        return _range(lower, upper, self.quarters + 1)

    def image(self, lower: Vector, upper: Vector) -> Pair:
        """Every value on the closed [lower, upper] lies within."""
        return _range(lower, upper, self.quarters)

    def offsets(self, lower: Vector, upper: Vector, below: Vector, above: Vector) -> Pair:
        """(c, d) with below x + c <= f(x) <= above x + d on [lower, upper], for any slopes."""
        finite = np.isfinite(lower) & np.isfinite(upper)
        left, right = np.where(finite, lower, 0.0), np.where(finite, upper, 0.0)
        with np.errstate(all="ignore"):
            # The negative is the wave half a period ahead.
            down = -_excess(left, right, -below, self.quarters + 2)
            up = _excess(left, right, above, self.quarters)
        known = finite & np.isfinite(down) & np.isfinite(up)
        return np.where(known, down, -np.inf), np.where(known, up, np.inf)


def _excess(left: Vector, right: Vector, slope: Vector, quarters: int) -> Vector:
    """What f - slope x does not exceed on [left, right], by (1) on every arc that it meets."""
    ends = (left, right)
    flat = np.maximum(*(_beyond(np.ones_like(x), slope * x) for x in ends))
    best = np.maximum(*(_beyond(wave(x, quarters)[1], slope * x) for x in ends))
    turn = -np.arcsin(np.clip(slope, -1.0, 1.0))
    first = np.floor((left / _HALF_PI - (2.0 - quarters)) / 4.0)
    last = np.ceil((right / _HALF_PI - (0.0 - quarters)) / 4.0)
    few = (last - first < _ARCS) & (np.maximum(np.abs(left), np.abs(right)) < _FARTHEST)
    count = int(np.max(np.where(few, last - first, 0.0), initial=0.0)) + 1
    for arc in range(count):
        peak = (1.0 - quarters + 4.0 * (first + arc)) * _HALF_PI
        half = _HALF_PI + _ROOM * (1.0 + np.abs(peak))
        start, end = np.maximum(left, peak - half), np.minimum(right, peak + half)
        at = np.clip(peak + turn, start, np.maximum(end, start))
        low, high = wave(at, quarters + 1)
        climb = np.maximum(np.maximum(high - slope, 0.0) * (end - at), 0.0)
        climb = np.maximum(climb, np.maximum(slope - low, 0.0) * (at - start))
        found = _beyond(wave(at, quarters)[1] + climb, slope * at)
        best = np.where((start <= end) & few, np.maximum(best, found), best)
    return np.where(few, np.fmin(best, flat), flat)


def _beyond(value: Vector, product: Vector) -> Vector:
    """Value - product, beyond the rounding of all that leads to it."""
    return value - product + _SLACK * (np.abs(value) + np.abs(product) + 1.0)


def sine() -> Wave:
    """sin x."""
    return Wave(0)


def cosine() -> Wave:
    """cos x."""
    return Wave(1)
