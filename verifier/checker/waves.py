"""Sine and cosine: enclosures at points, and what follows on intervals of any length.

x = k pi/2 + r with an integer k, |k| < 2^20: P1 has 33 bits, so that k P1 and x - k P1 are exact;
products with P2, the rest of pi/2 to 53 bits, leave r with an error below 2^-52, |r| < 0.79.
Taylor's polynomials of degree 17 and 18 leave 2^-60 there, and Horner's rule less than 24 u. All
together below 2^-47, absolutely; beyond 2^20 nothing is said but [-1, 1].

An interval shorter than half a period has one point of inflection near it at most: there a wave, or
its negative, is convex on the left and concave on the right. On cells [a, b] of a longer one

    f - s x is within (b - a)^2/8 of its chord, for |f''| <= 1.                           (1)
"""

from __future__ import annotations

from dataclasses import dataclass
from math import factorial
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.curves import CONCAVE, CONVEX, Break, Curve
from verifier.checker.enclosures import U

if TYPE_CHECKING:
    from verifier.checker.curves import Mask, Pair, Vector
    from verifier.checker.enclosures import Enclosure, Points

_P1 = float.fromhex("0x1.921fb544p+0")
_P2 = float.fromhex("0x1.0b4611a626331p-34")
_HALF_PI = float.fromhex("0x1.921fb54442d18p+0")
_FARTHEST = 2.0**20
_ERROR = 2.0**-47
_CELLS = 128
_SHORT = 3.0  #: less than pi
_INFLECTION = 2.0**-45  #: relative: of what is known of one
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
        with np.errstate(all="ignore"):
            down, up = self._on_cells(lower, upper, below, above)
            turns = np.rint(((lower + upper) / (2 * _HALF_PI) + self.quarters) / 2.0)
            far = np.maximum(np.abs(lower), np.abs(upper))
            is_short = (upper - lower < _SHORT) & (far < _FARTHEST)
            is_even = np.mod(turns, 2.0) == 0
        for chosen, sign in ((is_short & is_even, 1), (is_short & ~is_even, -1)):
            places = np.flatnonzero(chosen)
            if len(places):
                arc = _Arc(
                    self.quarters if sign == 1 else self.quarters + 2,
                    (2.0 * turns[places] - self.quarters) * _HALF_PI,
                )
                ends = (lower[places], upper[places])
                slopes = below[places], above[places]
                down[places], up[places] = _turned(arc, ends, slopes, sign)
        return down, up

    def _on_cells(self, lower: Vector, upper: Vector, below: Vector, above: Vector) -> Pair:
        """The same by (1), and by the wave's own bounds."""
        finite = np.isfinite(lower) & np.isfinite(upper)
        left, right = np.where(finite, lower, 0.0), np.where(finite, upper, 0.0)
        down, up = np.full_like(left, np.inf), np.full_like(left, -np.inf)
        widest, last = np.zeros_like(left), left
        for cell in range(_CELLS + 1):
            at = right if cell == _CELLS else left + (right - left) * (cell / _CELLS)
            at = np.clip(at, last, right)
            low, high = self.values(at)
            down = np.minimum(down, _beyond(low, below * at, -1.0))
            up = np.maximum(up, _beyond(high, above * at, 1.0))
            widest = np.maximum(widest, np.square(at - last) / 8 * (1 + 16 * U))
            last = at
        ends = (left, right)
        flat = np.minimum.reduce([_beyond(-np.ones_like(x), below * x, -1.0) for x in ends])
        steep = np.maximum.reduce([_beyond(np.ones_like(x), above * x, 1.0) for x in ends])
        down, up = np.fmax(down - widest, flat), np.fmin(up + widest, steep)
        known = finite & np.isfinite(down) & np.isfinite(up)
        return np.where(known, down, -np.inf), np.where(known, up, np.inf)


@dataclass(frozen=True, eq=False)
class _Arc(Curve):
    """A wave where it is convex, then concave: around one point of inflection for each entry."""

    quarters: int
    inflection: Vector

    def values(self, x: Points) -> Enclosure:
        """The wave."""
        return wave(x, self.quarters)

    def slopes(self, x: Points) -> Enclosure:
        """A quarter ahead."""
        return wave(x, self.quarters + 1)

    @property
    def breaks(self) -> tuple[Break, ...]:
        """The point of inflection, where the slope is 1."""
        room = _INFLECTION * (1.0 + np.abs(self.inflection))
        steep = 1.0 - room
        return (
            Break(
                lower=self.inflection - room,
                upper=self.inflection + room,
                slope_lower=steep,
                slope_upper=np.ones_like(room),
            ),
        )

    @property
    def bends(self) -> tuple[int, ...]:
        """As it says."""
        return CONVEX, CONCAVE

    @property
    def tails(self) -> tuple[float | Points, float | Points]:
        """[-1, 1]."""
        return -1.0, 1.0


def _turned(arc: _Arc, ends: Pair, slopes: Pair, sign: int) -> Pair:
    """The offsets of sign times the arc."""
    below, above = slopes
    if sign == 1:
        return Curve.offsets(arc, *ends, below, above)
    low, high = Curve.offsets(arc, *ends, -above, -below)
    return -high, -low


def _beyond(value: Vector, product: Vector, side: float) -> Vector:
    """Value - product, beyond the rounding of both, of the difference and of one more sum."""
    slack = 2.0**-49 * (np.abs(value) + np.abs(product) + 1.0)
    return value - product + side * slack


def sine() -> Wave:
    """sin x."""
    return Wave(0)


def cosine() -> Wave:
    """cos x."""
    return Wave(1)
