"""Gated functions: GELU, SiLU and Mish, with proofs of where they bend.

    gate       x s(2c (x + k x^3)), s the sigmoid: SiLU is c = 1/2, k = 0; the tanh form of GELU is
               c = sqrt(2/pi), k = 0.044715, for (1 + tanh u)/2 = s(2u)
    erf gate   t (1 + erf t): GELU is its half at t = x / sqrt 2, times sqrt 2
    mish       x tanh(log(1 + e^x))

The gate. With u = c (x + k x^3) its second derivative has the sign of

    r(x) = 1 + 6 k x^2 - c x (1 + 3 k x^2)^2 tanh u,                                      (1)

an even function. For 0 < x, r(x) = 0 says (1 + 6 k x^2) / (1 + 3 k x^2)^2 = c x tanh u. The left
side does not grow (its derivative by x^2 is -18 k^2 x^2 / (1 + 3 k x^2)^3), the right side grows
from 0 without end. So there is exactly one root b, and the gate is convex between -b and b,
concave outside. That of the erf gate has the sign of 1 - t^2.

Mish. With e = e^x and D = e^2 + 2e + 2 its second derivative is 8 e n(x) / D^3,

    n(x) = (x + 2) + (x + 4) e + (3 - 3x/2) e^2 + (1 - x) e^3.                              (2)

For x <= 0, n' = 1 + (x + 5) e + (9/2 - 3x) e^2 + (2 - 3x) e^3 > 0, since -e^-6 <= (x + 5) e. For
0 <= x, (n / e^3)' = -(3x + 5) / e^3 - (2x + 7) / e^2 - (9/2 - 3x/2) / e - 1 < 0, since the third
term is at most (3/2) e^-4. n(0) = 10, and n is negative far out: there is one root on each side,
and mish is convex between them, concave outside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from verifier.checker import enclosures
from verifier.checker.curves import CONCAVE, CONVEX, Break
from verifier.checker.enclosures import TINY, TWO_BY_ROOT_PI, U, lower_of, upper_of
from verifier.checker.scalars import ABOVE_TWO_BY_ROOT_PI, Smooth

if TYPE_CHECKING:
    from verifier.checker.enclosures import Enclosure, Points

Pair: TypeAlias = tuple[float, float]  #: a number, and a bound on its error

_FAR_LEFT = -6.0
_FAR = 1000.0  #: e^(-2c |x|) is 0 in float64 beyond it, for every c from 0.4 up
_ROUNDED = 8 * U


class ErfGate(Smooth):
    """T (1 + erf t): convex on [-1, 1], concave outside."""

    break_places = (-1.0, 1.0)
    piece_bends = (CONCAVE, CONVEX, CONCAVE)
    limits = (0.0, 2.0)
    curvature = 2.26  #: 4 / sqrt(pi), rounded up

    @staticmethod
    def _sum(t: Points) -> Enclosure:
        """1 + erf t."""
        low, high = enclosures.erf(t)
        return np.maximum(lower_of(1.0 + low, 2 * U), 0.0), upper_of(1.0 + high, 2 * U)

    def values(self, x: Points) -> Enclosure:
        """X (1 + erf x); left of -6 it is above -e^-36 / sqrt(pi)."""
        low, high = self._sum(x)
        negative, far = x < 0, x < _FAR_LEFT
        lower = np.where(negative, lower_of(x * high), lower_of(x * low))
        upper = np.where(negative, upper_of(x * low), upper_of(x * high))
        lower = np.where(far, -(2.0**-52), lower)
        return lower, np.where(negative, np.minimum(np.where(far, 0.0, upper), 0.0), upper)

    def slopes(self, x: Points) -> Enclosure:
        """1 + erf x + 2/sqrt(pi) x e^(-x^2); left of -6 within [-6 2/sqrt(pi) e^-36, erfc 6]."""
        low, high = self._sum(x)
        small, large = enclosures.gauss(x)
        with np.errstate(under="ignore"):
            small = np.maximum(lower_of(TWO_BY_ROOT_PI * small * np.abs(x)), 0.0)
            large = upper_of(ABOVE_TWO_BY_ROOT_PI * large * np.minimum(np.abs(x), 1e6))
        negative, far = x < 0, x < _FAR_LEFT
        lower = np.where(negative, low - large, low + small)
        upper = np.where(negative, high - small, high + large)
        scale = (high + large) * (4 * U)
        lower, upper = lower - scale, upper + scale
        return np.where(far, -(2.0**-49), lower), np.where(far, 2.0**-54, upper)


def _root(function: Callable[[Points], Enclosure], positive: float, negative: float) -> Pair:
    """An interval in which a function that changes its sign once does so."""
    ends = function(np.array([positive]))[0][0], function(np.array([negative]))[1][0]
    if not (ends[0] > 0 and ends[1] < 0):
        raise ArithmeticError("the signs at the ends are not known")
    for _ in range(200):
        middle = positive / 2 + negative / 2
        low, high = function(np.array([middle]))
        if low[0] > 0 and middle != positive:
            positive = middle
        elif high[0] < 0 and middle != negative:
            negative = middle
        else:
            break
    # The middle's sign is not known: look for known ones close to it.
    return _narrowed(function, positive, negative)


def _narrowed(function: Callable[[Points], Enclosure], positive: float, negative: float) -> Pair:
    middle = positive / 2 + negative / 2
    width = 2.0**-50 * abs(middle)
    turn = 1.0 if positive < negative else -1.0
    while width < abs(negative - positive):
        here, there = middle - turn * width, middle + turn * width
        low, _ = function(np.array([here]))
        _, high = function(np.array([there]))
        if low[0] > 0 and high[0] < 0:
            return here, there
        width *= 2.0
    return positive, negative


def _between(curve: Gate | Mish, left: float, right: float) -> Break:
    """The break that lies between two places."""
    low, high = curve.slopes(np.array([left]))
    spread = curve.curvature * (right - left) * (1 + _ROUNDED)
    return Break(
        lower=left,
        upper=right,
        slope_lower=float(low[0] - spread) - TINY,
        slope_upper=float(high[0] + spread) + TINY,
    )


@dataclass(frozen=True, eq=False)
class Gate(Smooth):
    """X s(2c (x + k x^3)), 0.4 <= c, 0 <= k; c and k up to the relative error 2^-52."""

    c: float
    k: float
    piece_bends = (CONCAVE, CONVEX, CONCAVE)
    limits = (0.0, 1.0)
    #: |f''| = s(1-s) |...| stays below 2 for both forms: 1/2 and 1.13 times, at 0
    curvature = 2.0

    def _inner(self, x: Points) -> Points:
        """2c (x + k x^3) up to the relative error 2^-49."""
        return 2.0 * self.c * x * (1.0 + self.k * x * x)

    def _open(self, x: Points) -> tuple[Points, Points, Points, Points]:
        """Enclosures of s(w) and of s(-w)."""
        w = self._inner(x)
        ends = w - np.abs(w) * 2.0**-49, w + np.abs(w) * 2.0**-49
        low, high = enclosures.sigmoid(ends[0])[0], enclosures.sigmoid(ends[1])[1]
        return low, high, enclosures.sigmoid(-ends[1])[0], enclosures.sigmoid(-ends[0])[1]

    def values(self, x: Points) -> Enclosure:
        """X s(w); beyond +-1000 it is x, or 0, up to 2^-900."""
        inside = np.clip(x, -_FAR, _FAR)
        low, high, _, _ = self._open(inside)
        negative = x < 0
        lower = np.where(negative, lower_of(inside * high), lower_of(inside * low))
        upper = np.where(negative, upper_of(inside * low), upper_of(inside * high))
        upper = np.where(negative, np.minimum(upper, 0.0), np.minimum(upper, x))
        lower = np.where(x > _FAR, lower_of(x), np.where(x < -_FAR, -(2.0**-900), lower))
        return lower, np.where(x > _FAR, x, np.where(x < -_FAR, 0.0, upper))

    def slopes(self, x: Points) -> Enclosure:
        """s(w) + x w' s(w) s(-w), w' = 2c (1 + 3k x^2)."""
        inside = np.clip(x, -_FAR, _FAR)
        low, high, other_low, other_high = self._open(inside)
        with np.errstate(under="ignore"):
            steep = 2.0 * self.c * np.abs(inside) * (1.0 + 3.0 * self.k * inside * inside)
            small = np.maximum(lower_of(steep * low * other_low, 2.0**-48), 0.0)
            large = upper_of(steep * high * other_high, 2.0**-48)
        negative = x < 0
        lower = np.where(negative, low - large, low + small)
        upper = np.where(negative, high - small, high + large)
        scale = (high + large) * (4 * U)
        lower, upper = lower - scale, upper + scale
        lower = np.where(x > _FAR, 1.0 - U, np.where(x < -_FAR, -(2.0**-900), lower))
        return lower, np.where(x > _FAR, 1.0 + 2 * U, np.where(x < -_FAR, 2.0**-900, upper))

    def _bend(self, x: Points) -> Enclosure:
        """R(x) of (1), for 0 < x < 10."""
        square = x * x
        low, high = enclosures.tanh(self._inner(x) / 2.0)
        # tanh has slopes up to 1: the error 2^-49 of u costs at most that of u itself.
        shift = np.abs(self._inner(x)) * 2.0**-49
        steep = self.c * x * (1.0 + 3.0 * self.k * square) ** 2
        base = 1.0 + 6.0 * self.k * square
        error = (base + steep * (1.0 + shift)) * 2.0**-47
        return (
            base - steep * (high + shift) - error,
            base - steep * (low - shift) + error,
        )

    @property
    def breaks(self) -> tuple[Break, ...]:
        """The roots of (1)."""
        return self._roots

    @cached_property
    def _roots(self) -> tuple[Break, ...]:
        left, right = _root(self._bend, 0.5, 10.0)
        return (_between(self, -right, -left), _between(self, left, right))


class Mish(Smooth):
    """X tanh(log(1 + e^x)) = x p / (p + 2), p = e (e + 2)."""

    piece_bends = (CONCAVE, CONVEX, CONCAVE)
    limits = (0.0, 1.0)
    curvature = 1.0  #: 8 e |n| / D^3 at the breaks, where n is almost 0

    @staticmethod
    def _gate(x: Points) -> tuple[Points, Points]:
        """T = p / (p + 2) and T' = 4 e (e + 1) / (p + 2)^2, up to the relative error 2^-43."""
        low, high = enclosures.exp(-np.abs(x))
        q = low / 2 + high / 2  # e on the left of 0, 1/e on the right
        p = q * (q + 2.0)
        mirrored = 1.0 + 2.0 * q
        below = 2.0 * q * q
        with np.errstate(under="ignore"):
            value = np.where(x < 0, p / (p + 2.0), mirrored / (mirrored + below))
            left = 4.0 * q * (q + 1.0) / (p + 2.0) ** 2
            slope = np.where(x < 0, left, 4.0 * q * q * (1.0 + q) / (mirrored + below) ** 2)
        return value, slope

    def values(self, x: Points) -> Enclosure:
        """X T; far left it is 0 up to 2^-900."""
        inside = np.clip(x, -_FAR, _FAR)
        with np.errstate(under="ignore"):
            value = inside * self._gate(inside)[0]
        lower, upper = lower_of(value, 2.0**-42), upper_of(value, 2.0**-42)
        upper = np.minimum(np.where(x < 0, np.minimum(upper, 0.0), upper), np.maximum(x, 0.0))
        lower = np.where(x > _FAR, lower_of(x), np.where(x < -_FAR, -(2.0**-900), lower))
        return lower, np.where(x > _FAR, x, upper)

    def slopes(self, x: Points) -> Enclosure:
        """T + x T'."""
        inside = np.clip(x, -_FAR, _FAR)
        with np.errstate(under="ignore"):
            gate, slope = self._gate(inside)
            product = inside * slope
        value = gate + product
        error = (gate + np.abs(product)) * 2.0**-42 + 2 * TINY
        lower, upper = value - error, value + error
        lower = np.where(x > _FAR, 1.0 - U, np.where(x < -_FAR, -(2.0**-900), lower))
        return lower, np.where(x > _FAR, 1.0 + 2 * U, np.where(x < -_FAR, 2.0**-900, upper))

    @staticmethod
    def _bend(x: Points) -> Enclosure:
        """The n(x) of (2), for |x| <= 10."""
        low, high = enclosures.exp(x)
        e = low / 2 + high / 2
        terms = [x + 2.0, (x + 4.0) * e, (3.0 - 1.5 * x) * e * e, (1.0 - x) * e * e * e]
        size = sum(np.abs(term) for term in terms) + 2.0
        value = terms[0] + terms[1] + terms[2] + terms[3]
        return value - size * 2.0**-42, value + size * 2.0**-42

    @property
    def breaks(self) -> tuple[Break, ...]:
        """The roots of (2)."""
        return self._roots

    @cached_property
    def _roots(self) -> tuple[Break, ...]:
        inner, outer = sorted(_root(self._bend, -1.0, -5.0))
        left = _between(self, inner, outer)
        inner, outer = sorted(_root(self._bend, 1.0, 5.0))
        return left, _between(self, inner, outer)
