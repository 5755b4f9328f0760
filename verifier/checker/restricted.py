"""Logarithms and powers: curves that a domain restricts, or whose slopes grow without end.

On an interval that leaves the domain every answer is infinite: nothing is known there.

log. x = m 2^k exactly, sqrt(1/2) <= m <= sqrt 2, log m = 2 s (1 + s^2/3 + s^4/5 + ...) with
s = (m - 1)/(m + 1), |s| < 0.172: m - 1 is exact, s has the relative error 2.1 u, 20 terms leave
2^-100, Horner's rule at most 42 u. k HI is exact (`enclosures`), and since |log m| < 0.35 while
|k| ln 2 > 0.69, what is added does not cancel: all errors are below 2^-46 (|k| ln 2 + |log m|).

x^n by n - 1 products: (n - 1) u, and n eta where they underflow, which they only do where |x| < 1.
x^p = e^(p log x) elsewhere, from the ends of the enclosure of the exponent.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker import enclosures
from verifier.checker.curves import CONCAVE, CONVEX, Break, Curve
from verifier.checker.enclosures import LN2_HI, LN2_LO, TINY, U, lower_of, upper_of

if TYPE_CHECKING:
    from verifier.checker.curves import Mask, Pair, Vector
    from verifier.checker.enclosures import Enclosure, Points

_LOG_COEFFICIENTS = [1.0 / (2 * n + 1) for n in range(19, -1, -1)]
_LOG_ERROR = 2.0**-45
_SMALLEST, _LARGEST = 2.0**-1000, 2.0**1000  #: within which no formula below leaves float64
GREATEST_POWER = 64  #: of whole exponents that are multiplied out


def log(x: Points) -> Enclosure:
    """Of log x, for 2^-1000 <= x <= 2^1000."""
    mantissa, exponent = np.frexp(x)
    small = mantissa < np.sqrt(0.5)
    mantissa = np.where(small, 2.0 * mantissa, mantissa)
    k = exponent - small.astype(np.float64)
    s = (mantissa - 1.0) / (mantissa + 1.0)
    square, series = s * s, np.full_like(s, _LOG_COEFFICIENTS[0])
    for coefficient in _LOG_COEFFICIENTS[1:]:
        series = series * square + coefficient
    part = 2.0 * s * series
    value = k * LN2_HI + (k * LN2_LO + part)
    error = _LOG_ERROR * (np.abs(k) * 0.7 + np.abs(part)) + TINY
    return value - error, value + error


def power(x: Points, exponent: float) -> Enclosure:
    """Of x^p; for p that is no whole number, or a large one, 0 < x, or 0 <= x where 0 < p."""
    if exponent == 0.5:
        root = np.sqrt(x)
        return np.maximum(lower_of(root), 0.0), upper_of(root)
    count = abs(exponent)
    if count <= GREATEST_POWER and count == int(count):
        return _whole_power(x, int(exponent))
    low, high = log(np.where(0 < x, x, 1.0))
    ends = np.minimum(exponent * low, exponent * high), np.maximum(exponent * low, exponent * high)
    least, _ = enclosures.exp(lower_of(ends[0]))
    _, greatest = enclosures.exp(upper_of(ends[1]))
    return np.where(0 < x, least, 0.0), np.where(0 < x, greatest, 0.0)


def _whole_power(x: Points, exponent: int) -> Enclosure:
    count = abs(exponent)
    value = np.ones_like(x)
    for _ in range(count):
        value = value * x
    if exponent < 0:
        value = 1.0 / value
    share, lost = (count + 4) * 2 * U, (count + 2) * TINY
    return lower_of(value, share) - lost, upper_of(value, share) + lost


class Restricted(Curve):
    """A curve on a domain."""

    @abstractmethod
    def holds(self, lower: Vector, upper: Vector) -> Mask:
        """Whether [lower, upper] lies in the domain, far enough from where slopes are infinite."""

    def slope_range_on(self, lower: Vector, upper: Vector) -> Pair:
        """Every slope on the closed [lower, upper] lies within."""
        holds, ends = self._within(lower, upper)
        return _or_endless(holds, Curve.slope_range_on(self, *ends))

    def image(self, lower: Vector, upper: Vector) -> Pair:
        """Every value on the closed [lower, upper] lies within."""
        holds, ends = self._within(lower, upper)
        return _or_endless(holds, Curve.image(self, *ends))

    def offsets(self, lower: Vector, upper: Vector, below: Vector, above: Vector) -> Pair:
        """(c, d) with below x + c <= f(x) <= above x + d on [lower, upper], for any slopes."""
        holds, ends = self._within(lower, upper)
        return _or_endless(holds, Curve.offsets(self, *ends, below, above))

    def lines(self, lower: Vector, upper: Vector) -> Pair:
        """Good slopes (below, above); 0 outside of the domain."""
        holds, ends = self._within(lower, upper)
        below, above = Curve.lines(self, *ends)
        return np.where(holds, below, 0.0), np.where(holds, above, 0.0)

    def _within(self, lower: Vector, upper: Vector) -> tuple[Mask, Pair]:
        with np.errstate(all="ignore"):
            holds = self.holds(lower, upper) & (lower <= upper)
        return holds, (np.where(holds, lower, 1.0), np.where(holds, upper, 1.0))


def _or_endless(holds: Mask, found: Pair) -> Pair:
    least, greatest = found
    return np.where(holds, least, -np.inf), np.where(holds, greatest, np.inf)


class Log(Restricted):
    """log x: concave, for 0 < x."""

    @property
    def breaks(self) -> tuple[Break, ...]:
        """None."""
        return ()

    @property
    def bends(self) -> tuple[int, ...]:
        """Concave."""
        return (CONCAVE,)

    @property
    def tails(self) -> tuple[float | Points, float | Points]:
        """Endless towards 0."""
        return 0.0, np.inf

    def values(self, x: Points) -> Enclosure:
        """Log x."""
        return log(x)

    def slopes(self, x: Points) -> Enclosure:
        """1/x."""
        value = 1.0 / x
        return lower_of(value), upper_of(value)

    def holds(self, lower: Vector, upper: Vector) -> Mask:
        """0 < x."""
        return (lower >= _SMALLEST) & (upper <= _LARGEST)


@dataclass(frozen=True, eq=False)
class Power(Restricted):
    """x^p for p other than 0 and 1, where p - 1 is a float64.

    Whole exponents: all x, other than 0 where p < 0; x^p = +-(-x)^p there. Others: 0 < x, and 0 as
    well where 1 < p.
    """

    exponent: float

    @property
    def _is_whole(self) -> bool:
        count = abs(self.exponent)
        return count <= GREATEST_POWER and count == int(count)

    @property
    def _is_odd(self) -> bool:
        return self._is_whole and int(self.exponent) % 2 == 1

    @property
    def breaks(self) -> tuple[Break, ...]:
        """0, where an odd power bends the other way."""
        flat = Break(lower=0.0, upper=0.0, slope_lower=0.0, slope_upper=0.0)
        return (flat,) if self._is_odd and 0 < self.exponent else ()

    @property
    def bends(self) -> tuple[int, ...]:
        """On 0 < x, and for whole p > 1 on both sides."""
        if self._is_odd and 0 < self.exponent:
            return CONCAVE, CONVEX
        return (CONCAVE,) if 0 < self.exponent < 1 else (CONVEX,)

    @property
    def tails(self) -> tuple[float | Points, float | Points]:
        """Endless; on 0 < x of one sign."""
        if self.exponent < 0:
            return -np.inf, 0.0
        is_even = self._is_whole and not self._is_odd
        return (-np.inf if is_even else 0.0), np.inf

    def values(self, x: Points) -> Enclosure:
        """x^p."""
        return power(x, self.exponent)

    def slopes(self, x: Points) -> Enclosure:
        """p x^(p - 1)."""
        low, high = power(x, self.exponent - 1.0)
        ends = self.exponent * low, self.exponent * high
        return lower_of(np.minimum(*ends)), upper_of(np.maximum(*ends))

    def holds(self, lower: Vector, upper: Vector) -> Mask:
        """Where x^(p - 1), x^p and their inverses stay within float64."""
        size = np.maximum(np.abs(lower), np.abs(upper))
        nearest = np.minimum(np.abs(lower), np.abs(upper))
        most = 2.0 ** (1000.0 / (abs(self.exponent) + 1.0))
        fits = size <= most
        if self._is_whole and 0 < self.exponent:
            return fits
        if 1 < self.exponent:
            return fits & (0 <= lower)
        fits = fits & (nearest >= 1.0 / most)
        return fits & ((0 < lower) | (upper < 0)) if self._is_whole else fits & (0 < lower)

    # --- The other side of 0, where p is whole and negative: f(-x) = sign f(x) -----------------

    def slope_range_on(self, lower: Vector, upper: Vector) -> Pair:
        """Every slope on the closed [lower, upper] lies within."""
        mirrored, ends = self._mirrored(lower, upper)
        least, greatest = Restricted.slope_range_on(self, *ends)
        turned = mirrored & (not self._is_odd)
        return np.where(turned, -greatest, least), np.where(turned, -least, greatest)

    def image(self, lower: Vector, upper: Vector) -> Pair:
        """Every value on the closed [lower, upper] lies within."""
        mirrored, ends = self._mirrored(lower, upper)
        least, greatest = Restricted.image(self, *ends)
        turned = mirrored & self._is_odd
        return np.where(turned, -greatest, least), np.where(turned, -least, greatest)

    def offsets(self, lower: Vector, upper: Vector, below: Vector, above: Vector) -> Pair:
        """(c, d) with below x + c <= f(x) <= above x + d on [lower, upper], for any slopes.

        With y = -x: f(y) = f(x) turns the slopes; -f(y) = f(x) exchanges the sides.
        """
        mirrored, ends = self._mirrored(lower, upper)
        if self._is_odd:
            flat, steep = np.where(mirrored, above, below), np.where(mirrored, below, above)
            least, greatest = Restricted.offsets(self, *ends, flat, steep)
            return np.where(mirrored, -greatest, least), np.where(mirrored, -least, greatest)
        flat, steep = np.where(mirrored, -below, below), np.where(mirrored, -above, above)
        return Restricted.offsets(self, *ends, flat, steep)

    def lines(self, lower: Vector, upper: Vector) -> Pair:
        """Good slopes (below, above)."""
        mirrored, ends = self._mirrored(lower, upper)
        below, above = Restricted.lines(self, *ends)
        if self._is_odd:
            return np.where(mirrored, above, below), np.where(mirrored, below, above)
        return np.where(mirrored, -below, below), np.where(mirrored, -above, above)

    def _mirrored(self, lower: Vector, upper: Vector) -> tuple[Mask, Pair]:
        mirrored = (upper < 0) & (self._is_whole and self.exponent < 0)
        return mirrored, (np.where(mirrored, -upper, lower), np.where(mirrored, -lower, upper))
