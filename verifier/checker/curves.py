"""What a scalar function tells of itself, and all that proofs ask of it, derived from that.

A `Curve` states enclosures of f(x) and of f'(x) at float64 points, the places where its bend
changes, and the bend of every piece between them: convex, concave or straight. Then

    slopes     f' is monotone on a piece, so its ends and the breaks inside hold every slope;
    offsets    where f - a x is convex or straight, its greatest value is at an end; where it is
               concave, any point p gives  f(x) - a x <= f(p) - a p + (f'(p) - a)(x - p),    (1)
               so a guess at the place where f' = a proves a bound, however bad the guess;
    image      the offsets of slope 0.

A break is known only as a short interval, with a range of the slopes on it, since its place may be
irrational. At a kink `slopes` answers with the hull of both sides: the Clarke slopes.
Every answer is rounded outward; an overflow answers with an infinite bound.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from verifier.checker.enclosures import TINY, U
from verifier.errors import NotLipschitzGlobally

if TYPE_CHECKING:
    from jaxtyping import Bool, Float64

    from verifier.checker.enclosures import Enclosure, Points

    Vector: TypeAlias = Float64[np.ndarray, " n"]
    Pair: TypeAlias = tuple[Vector, Vector]
    Mask: TypeAlias = Bool[np.ndarray, " n"]

_FEW = 8 * U
_SAMPLES = 17  # odd: the middle is one of them
_INSET = 2.0**-30
_SIGN_BIT = np.int64(-(2**63))

CONVEX, STRAIGHT, CONCAVE = 1, 0, -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """A place where the bend changes: within [lower, upper], where every slope is within `slopes`.

    Numbers, or one for each entry of the signal.
    """

    lower: float | Points
    upper: float | Points
    slope_lower: float | Points
    slope_upper: float | Points


class Curve(ABC):
    """A continuous scalar function, piecewise convex or concave: a `network.Scalar`."""

    @abstractmethod
    def values(self, x: Points) -> Enclosure:
        """f(x) lies within."""

    @abstractmethod
    def slopes(self, x: Points) -> Enclosure:
        """f'(x), at a kink both one-sided slopes, lie within."""

    @property
    @abstractmethod
    def breaks(self) -> tuple[Break, ...]:
        """Where the bend changes, from left to right."""

    @property
    @abstractmethod
    def bends(self) -> tuple[int, ...]:
        """The bend of each piece, from left to right: one more than there are breaks."""

    @property
    @abstractmethod
    def tails(self) -> tuple[float | Points, float | Points]:
        """The hull of the limits of f' at minus and plus infinity."""

    def tiled(self, _count: int, /) -> Curve:
        """The function of copies of the signal: the same, where no entry has numbers of its own."""
        return self

    # --- What follows from it --------------------------------------------------------------------

    def slope_range(self, size: int) -> Pair:
        """Every secant anywhere has a slope within [lower, upper]. Raises NotLipschitzGlobally."""
        lower, upper = self._slope_hull()
        if not (np.all(np.isfinite(lower)) and np.all(np.isfinite(upper))):
            raise NotLipschitzGlobally(
                f"{type(self).__name__}: its slope grows without end",
                fix="ask for a bound on a region",
            )
        return np.broadcast_to(lower, (size,)).copy(), np.broadcast_to(upper, (size,)).copy()

    def _slope_hull(self) -> Enclosure:
        lower, upper = (np.asarray(tail, dtype=np.float64) for tail in self.tails)
        for item in self.breaks:
            lower = np.minimum(lower, item.slope_lower)
            upper = np.maximum(upper, item.slope_upper)
        return lower, upper

    def slope_range_on(self, lower: Vector, upper: Vector) -> Pair:
        """Every Clarke slope, hence every secant, on the closed [lower, upper] lies within."""
        finite = np.isfinite(lower) & np.isfinite(upper)
        left, right = np.where(finite, lower, 0.0), np.where(finite, upper, 0.0)
        with np.errstate(all="ignore"):
            low_left, high_left = self.slopes(left)
            low_right, high_right = self.slopes(right)
        low, high = np.minimum(low_left, low_right), np.maximum(high_left, high_right)
        for item in self.breaks:
            inside = (item.lower <= right) & (left <= item.upper)
            low = np.where(inside, np.minimum(low, item.slope_lower), low)
            high = np.where(inside, np.maximum(high, item.slope_upper), high)
        least, greatest = self._slope_hull()
        low, high = np.maximum(low, least), np.minimum(high, greatest)
        return np.where(finite, low, least), np.where(finite, high, greatest)

    def slopes_inside(self, lower: Vector, upper: Vector) -> Pair:
        """Every slope on the open (lower, upper) lies within."""
        return self.slope_range_on(lower, upper)

    def image(self, lower: Vector, upper: Vector) -> Pair:
        """Every value on the closed [lower, upper] lies within."""
        least, greatest = self._slope_hull()
        if np.all(0.0 <= least):
            return self._ends(lower, upper)
        if np.all(greatest <= 0.0):
            return self._ends(upper, lower)
        zero = np.zeros_like(lower)
        return self.offsets(lower, upper, zero, zero)

    def _ends(self, least: Vector, greatest: Vector) -> Pair:
        finite_least, finite_greatest = np.isfinite(least), np.isfinite(greatest)
        with np.errstate(all="ignore"):
            low, _ = self.values(np.where(finite_least, least, 0.0))
            _, high = self.values(np.where(finite_greatest, greatest, 0.0))
        low = np.where(finite_least & ~np.isnan(low), low, -np.inf)
        return low, np.where(finite_greatest & ~np.isnan(high), high, np.inf)

    def offsets(self, lower: Vector, upper: Vector, below: Vector, above: Vector) -> Pair:
        """(c, d) with below x + c <= f(x) <= above x + d on [lower, upper], for any slopes."""
        finite = np.isfinite(lower) & np.isfinite(upper)
        left, right = np.where(finite, lower, 0.0), np.where(finite, upper, 0.0)
        with np.errstate(all="ignore"):
            down = -self._excess(left, right, below, -1)
            up = self._excess(left, right, above, 1)
        # What overflowed on the way is nan or infinite, and no bound is what is left to say.
        down = np.where(finite & np.isfinite(down), down, -np.inf)
        return down, np.where(finite & np.isfinite(up), up, np.inf)

    def _excess(self, left: Vector, right: Vector, slope: Vector, sign: int) -> Vector:
        """No sign (f(x) - slope x) on [left, right] exceeds it."""
        best = np.maximum(self._height(left, slope, sign), self._height(right, slope, sign))
        for item in self.breaks:
            start, end = np.maximum(left, item.lower), np.minimum(right, item.upper)
            steepest = np.maximum(
                sign * (item.slope_lower - slope), sign * (item.slope_upper - slope)
            )
            here = np.where(start <= end, start, left)
            run = np.where(start <= end, end - start, 0.0)
            climb = np.maximum(steepest, 0.0) * run
            found = self._height(here, slope, sign) + climb * (1 + _FEW)
            best = np.where(np.isnan(found), np.inf, np.maximum(best, found + np.abs(found) * U))
        for bend, start, end in self._pieces(left, right):
            if bend * sign == CONCAVE:
                found = self._summit(start, end, slope, sign)
                best = np.where(start <= end, np.maximum(best, found), best)
        return best

    def _pieces(self, left: Vector, right: Vector) -> list[tuple[int, Vector, Vector]]:
        """(bend, start, end) of the pieces within [left, right]; start > end where outside.

        Only concave pieces are asked for: the ends of the others are `left`, `right` or breaks.
        """
        edges = [-np.inf, *(item.upper for item in self.breaks)]
        stops = [*(item.lower for item in self.breaks), np.inf]
        return [
            (bend, np.maximum(left, edge), np.minimum(right, stop))
            for bend, edge, stop in zip(self.bends, edges, stops, strict=True)
        ]

    def _height(self, x: Vector, slope: Vector, sign: int) -> Vector:
        """What sign (f(x) - slope x) does not exceed."""
        low, high = self.values(x)
        value = high if sign > 0 else -low
        product = sign * slope * x
        return (value - product) + (np.abs(value) + np.abs(product)) * _FEW + 2 * TINY

    def _summit(self, start: Vector, end: Vector, slope: Vector, sign: int) -> Vector:
        """The bound (1) on a piece where sign f is concave; the better of two points."""
        empty = start > end
        start, end = np.where(empty, 0.0, start), np.where(empty, 0.0, end)
        guess = self._bisected(start, end, slope, sign)
        # A little inside: at a kink the hull of slopes would spoil (1).
        inset = (end / 2 - start / 2) * _INSET
        inner = np.clip(guess, start + inset, np.maximum(end - inset, start + inset))
        inner = np.clip(inner, start, end)
        return np.fmin(
            self._tangent(start, end, guess, slope, sign),
            self._tangent(start, end, inner, slope, sign),
        )

    def _tangent(
        self, start: Vector, end: Vector, point: Vector, slope: Vector, sign: int
    ) -> Vector:
        low, high = self.slopes(point)
        rising = (high if sign > 0 else -low) - sign * slope
        falling = sign * slope - (low if sign > 0 else -high)
        climb = np.maximum(
            np.maximum(rising, 0.0) * (end - point), np.maximum(falling, 0.0) * (point - start)
        )
        # The differences of slopes are rounded: their error, times the width, is paid here.
        width = np.maximum(end - point, point - start)
        scale = np.maximum(np.abs(low), np.abs(high)) + np.abs(slope)
        found = self._height(point, slope, sign) + climb * (1 + _FEW) + scale * _FEW * width
        return found + np.abs(found) * _FEW

    def _bisected(self, start: Vector, end: Vector, slope: Vector, sign: int) -> Vector:
        """About the last place of [start, end] where sign f' is not below sign slope. A guess."""
        # A little inside, for the ends may be kinks.
        inset = (end / 2 - start / 2) * _INSET
        rises_at_start = sign * self._slope_estimate(start + inset) >= sign * slope
        rises_at_end = sign * self._slope_estimate(end - inset) >= sign * slope
        guess = np.where(rises_at_end, end, start)
        # Only concave pieces come here, and no curve that has one has parameters for each entry.
        inside = np.flatnonzero(rises_at_start & ~rises_at_end)
        if inside.size:
            guess[inside] = self._crossing(start[inside], end[inside], slope[inside], sign)
        return guess

    def _slope_estimate(self, x: Points) -> Points:
        low, high = self.slopes(x)
        return low / 2 + high / 2

    def _crossing(self, start: Vector, end: Vector, slope: Vector, sign: int) -> Vector:
        # Halves the order of the floats, not their values: 64 steps end for every interval.
        low, high = _ordinal(start), _ordinal(end)
        for _ in range(64):
            middle = (low >> 1) + (high >> 1) + ((low | high) & 1)
            rises = sign * self._slope_estimate(_float_at(middle)) >= sign * slope
            low, high = np.where(rises, middle, low), np.where(rises, high, middle - 1)
            high = np.maximum(high, low)
            if np.all(low == high):
                break
        return np.clip(_float_at(low), start, end)

    def lines(self, lower: Vector, upper: Vector) -> Pair:
        """Slopes of lines (below, above) that are nearly closest to f at the middle of [l, u]."""
        finite = np.isfinite(lower) & np.isfinite(upper)
        left, right = np.where(finite, lower, 0.0), np.where(finite, upper, 0.0)
        share = np.linspace(0.0, 1.0, _SAMPLES)[:, None]
        with np.errstate(all="ignore"):
            x = left + (right - left) * share
            low, high = self.values(x)
            middle = _SAMPLES // 2
            tangent = self._slope_estimate(x[middle])
            height = (low + high) / 2
            below = hull_slope(x, -height, -tangent)
            above = hull_slope(x, height, tangent)
        return (
            np.where(np.isfinite(below), -below, 0.0),
            np.where(np.isfinite(above), above, 0.0),
        )


def hull_slope(
    x: Float64[np.ndarray, "samples n"], height: Float64[np.ndarray, "samples n"], tangent: Vector
) -> Vector:
    """The slope of the samples' concave hull at the middle one."""
    middle = len(x) // 2
    best: Vector = height[middle]
    slope = tangent
    # The end points come first: on ties the chord is taken.
    for i in range(middle):
        for j in range(len(x) - 1, middle, -1):
            chord = (height[j] - height[i]) / (x[j] - x[i])
            there = height[i] + chord * (x[middle] - x[i])
            better: Mask = there > best
            best, slope = np.where(better, there, best), np.where(better, chord, slope)
    return slope


def _ordinal(x: Vector) -> np.ndarray:
    """The place of a float in the order of all floats."""
    bits = x.view(np.int64)
    return np.where(bits >= 0, bits, _SIGN_BIT - bits)


def _float_at(place: np.ndarray) -> Vector:
    return np.where(place >= 0, place, _SIGN_BIT - place).view(np.float64)
