"""Elementwise functions with several bends, and a curve whose axes are rescaled.

    elu        alpha (e^x - 1) below 0, x above
    gate       x s(2c (x + k x^3)), s the sigmoid: SiLU is c = 1/2, k = 0; the tanh form of GELU is
               c = sqrt(2/pi), k = 0.044715, for (1 + tanh u)/2 = s(2u)
    erf gate   t (1 + erf t): GELU is its half at t = x / sqrt 2, times sqrt 2
    hard swish x max(0, min(1, x/6 + 1/2))

The bend of the gate. With u = c (x + k x^3) its second derivative has the sign of

    r(x) = 1 + 6 k x^2 - c x (1 + 3 k x^2)^2 tanh u,                                      (1)

an even function. For 0 < x, r(x) = 0 says (1 + 6 k x^2) / (1 + 3 k x^2)^2 = c x tanh u. The left
side does not grow (its derivative by x^2 is -18 k^2 x^2 / (1 + 3 k x^2)^3), the right side grows
from 0 without end. So there is exactly one root b, and the gate is convex between -b and b, concave
outside. That of the erf gate has the sign of 1 - t^2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from verifier.checker import enclosures
from verifier.checker.curves import CONCAVE, CONVEX, STRAIGHT, Break, Curve
from verifier.checker.enclosures import TINY, TWO_BY_ROOT_PI, U, lower_of, upper_of
from verifier.checker.scalars import ABOVE_TWO_BY_ROOT_PI, Smooth

if TYPE_CHECKING:
    from verifier.checker.enclosures import Enclosure, Points

Pair: TypeAlias = tuple[float, float]  #: a number, and a bound on its error

_FAR_LEFT = -6.0
_FAR = 1000.0  #: e^(-2c |x|) is 0 in float64 beyond it, for every c from 0.4 up
_ROUNDED = 8 * U


@dataclass(frozen=True, eq=False)
class Elu(Smooth):
    """alpha (e^x - 1) below 0, x above; a kink at 0 unless alpha is 1."""

    alpha: float = 1.0
    break_places = (0.0,)
    limits = (0.0, 1.0)

    @property
    def bends(self) -> tuple[int, ...]:
        """Convex below 0 where 0 <= alpha."""
        return (CONVEX if self.alpha >= 0 else CONCAVE, STRAIGHT)

    @property
    def curvature(self) -> float:
        """No second derivative, on either side of 0, exceeds it."""
        return abs(self.alpha)

    def values(self, x: Points) -> Enclosure:
        """The side's value."""
        low, high = enclosures.expm1(np.minimum(x, 0.0))
        below, above = (low, high) if self.alpha >= 0 else (high, low)
        positive = x >= 0
        return (
            np.where(positive, x, lower_of(self.alpha * below)),
            np.where(positive, x, upper_of(self.alpha * above)),
        )

    def slopes(self, x: Points) -> Enclosure:
        """The side's slope; at 0 both."""
        low, high = enclosures.exp(np.minimum(x, 0.0))
        high = np.minimum(high, 1.0)
        ends = (self.alpha * low, self.alpha * high)
        lower, upper = lower_of(np.minimum(*ends)), upper_of(np.maximum(*ends))
        # alpha e^x lies between 0 and alpha: the rounding must not leave that.
        lower = np.maximum(lower, min(0.0, self.alpha))
        upper = np.minimum(upper, max(0.0, self.alpha))
        lower = np.where(x > 0, 1.0, np.where(x == 0, np.minimum(lower, 1.0), lower))
        return lower, np.where(x > 0, 1.0, np.where(x == 0, np.maximum(upper, 1.0), upper))


class HardSwish(Smooth):
    """X max(0, min(1, x/6 + 1/2)): a parabola on [-3, 3], kinks at its ends."""

    break_places = (-3.0, 3.0)
    piece_bends = (STRAIGHT, CONVEX, STRAIGHT)
    limits = (0.0, 1.0)

    def values(self, x: Points) -> Enclosure:
        """The piece's value."""
        inside = np.clip(x, -3.0, 3.0)
        product = inside * (inside + 3.0) / 6.0
        right, left = x >= 3, x <= -3
        lower = np.where(right, x, np.where(left, 0.0, lower_of(product)))
        return lower, np.where(right, x, np.where(left, 0.0, upper_of(product)))

    def slopes(self, x: Points) -> Enclosure:
        """(2x + 3) / 6 inside; at the ends both sides."""
        inside = np.clip(x, -3.0, 3.0)
        slope = (2.0 * inside + 3.0) / 6.0
        error = 16 * U  # all of it below 3/2, four operations
        lower, upper = np.maximum(slope - error, -0.5), np.minimum(slope + error, 1.5)
        lower = np.where(x >= 3, 1.0, np.where(x < -3, 0.0, lower))
        return lower, np.where(x > 3, 1.0, np.where(x <= -3, 0.0, upper))


class Softsign(Smooth):
    """X / (1 + |x|): convex left of 0, concave right of it."""

    break_places = (0.0,)
    piece_bends = (CONVEX, CONCAVE)
    limits = (0.0, 0.0)
    curvature = 2.0

    def values(self, x: Points) -> Enclosure:
        """X / (1 + |x|)."""
        value = x / (1.0 + np.abs(x))
        return np.maximum(lower_of(value), -1.0), np.minimum(upper_of(value), 1.0)

    def slopes(self, x: Points) -> Enclosure:
        """1 / (1 + |x|)^2."""
        root = 1.0 / (1.0 + np.abs(x))
        value = root * root
        return np.maximum(lower_of(value), 0.0), np.minimum(upper_of(value), 1.0)


class RootOfSquare(Smooth):
    """sqrt(1 + x^2): convex."""

    piece_bends = (CONVEX,)
    limits = (-1.0, 1.0)
    curvature = 1.0

    @staticmethod
    def _root(x: Points) -> Points:
        size = np.abs(x)
        near = np.minimum(size, 1e9)  # beyond, 1 is less than a rounding of x^2
        return np.where(size > 1e9, size, np.sqrt(1.0 + near * near))

    def values(self, x: Points) -> Enclosure:
        """IEEE rounds the root correctly."""
        root = self._root(x)
        return np.maximum(lower_of(root), 1.0), upper_of(root)

    def slopes(self, x: Points) -> Enclosure:
        """X / sqrt(1 + x^2)."""
        value = x / self._root(x)
        return np.maximum(lower_of(value), -1.0), np.minimum(upper_of(value), 1.0)


class Square(Smooth):
    """x^2: convex, and no slope bounds it globally."""

    piece_bends = (CONVEX,)
    limits = (-np.inf, np.inf)

    def values(self, x: Points) -> Enclosure:
        """x^2."""
        square = x * x
        return np.maximum(lower_of(square), 0.0), upper_of(square)

    def slopes(self, x: Points) -> Enclosure:
        """2x, exactly."""
        return 2.0 * x, 2.0 * x


class Exp(Smooth):
    """e^x: convex, and no slope bounds it globally."""

    piece_bends = (CONVEX,)
    limits = (0.0, np.inf)

    def values(self, x: Points) -> Enclosure:
        """e^x."""
        return enclosures.exp(x)

    def slopes(self, x: Points) -> Enclosure:
        """e^x."""
        return enclosures.exp(x)


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
    while width < abs(negative - positive):
        left, right = middle - width, middle + width
        low, _ = function(np.array([left]))
        _, high = function(np.array([right]))
        if low[0] > 0 and high[0] < 0:
            return left, right
        width *= 2.0
    return positive, negative


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
        return (self._between(-right, -left), self._between(left, right))

    def _between(self, left: float, right: float) -> Break:
        low, high = self.slopes(np.array([left]))
        spread = self.curvature * (right - left) * (1 + _ROUNDED)
        return Break(
            lower=left,
            upper=right,
            slope_lower=float(low[0] - spread) - TINY,
            slope_upper=float(high[0] + spread) + TINY,
        )


@dataclass(frozen=True, eq=False)
class Rescaled(Curve):
    """outer base(inner x), with outer and inner known up to an error; neither may be 0.

    The base states `curvature`, a bound on its second derivative away from kinks; a kink of the
    base lies at 0, or the inner scale is exact and a power of two.
    """

    base: Curve
    inner: Pair
    outer: Pair
    curvature_of_base: float

    def _argument(self, x: Points) -> tuple[Points, Points]:
        """(fl(inner x), a bound on its distance from the exact one)."""
        scale, error = self.inner
        t = scale * x
        exact = error == 0 and abs(scale) == 1.0
        distance = np.abs(x) * error * (1 + _ROUNDED) + (0.0 if exact else np.abs(t) * U + TINY)
        return t, np.broadcast_to(distance, np.shape(t))

    def _outer(self, low: Points, high: Points, factor: Pair) -> Enclosure:
        """The products of [low, high] with a number known up to an error."""
        scale, error = factor
        size = np.maximum(np.abs(low), np.abs(high))
        ends = scale * low, scale * high
        slack = size * error * (1 + _ROUNDED)
        if not (error == 0 and abs(scale) == 1.0):
            slack = slack + size * abs(scale) * (4 * U) + TINY
        return np.minimum(*ends) - slack, np.maximum(*ends) + slack

    def values(self, x: Points) -> Enclosure:
        """The base's value, moved by its steepest slope times the argument's error."""
        t, distance = self._argument(x)
        low, high = self.base.values(t)
        steepest = self._steepest(t, distance)
        shift = np.where(distance > 0, steepest * distance * (1 + _ROUNDED) + TINY, 0.0)
        return self._outer(low - shift, high + shift, self.outer)

    def _steepest(self, t: Points, distance: Points) -> Points:
        low, high = self._base_slopes(t, distance)
        return np.maximum(np.abs(low), np.abs(high))

    def _base_slopes(self, t: Points, distance: Points) -> Enclosure:
        low, high = self.base.slopes(t)
        shift = np.where(distance > 0, self.curvature_of_base * distance * (1 + _ROUNDED), 0.0)
        least, greatest = self._base_range
        return np.maximum(low - shift, least), np.minimum(high + shift, greatest)

    @cached_property
    def _base_range(self) -> tuple[float, float]:
        least, greatest = self.base.slope_range(1)
        return float(least[0]), float(greatest[0])

    @cached_property
    def _product(self) -> Pair:
        """Both scales multiplied, with the error."""
        (a, e), (b, d) = self.inner, self.outer
        value = a * b
        error = (abs(a) * d + abs(b) * e + e * d) * (1 + 16 * U)
        is_exact = error == 0 and (abs(a) == 1.0 or abs(b) == 1.0)
        return value, error if is_exact else error + abs(value) * (2 * U) + TINY

    def slopes(self, x: Points) -> Enclosure:
        """Both scales times the base's slope."""
        low, high = self._base_slopes(*self._argument(x))
        return self._outer(low, high, self._product)

    @property
    def breaks(self) -> tuple[Break, ...]:
        """Those of the base, divided by inner; in the other order where inner is negative."""
        return self._moved_breaks

    @cached_property
    def _moved_breaks(self) -> tuple[Break, ...]:
        found = [self._moved(item) for item in self.base.breaks]
        return tuple(found if self.inner[0] > 0 else found[::-1])

    def _moved(self, item: Break) -> Break:
        scale, error = self.inner
        ends = np.array([item.lower, item.upper], dtype=np.float64).reshape(-1) / scale
        relative = 0.0 if error == 0 and abs(scale) == 1.0 else error / abs(scale) * 2 + 4 * U
        left, right = float(ends.min()), float(ends.max())
        left, right = left - abs(left) * relative, right + abs(right) * relative
        spread = self.curvature_of_base * (right - left) * abs(scale) * 2.0
        low = np.array([item.slope_lower], dtype=np.float64).reshape(-1) - spread
        high = np.array([item.slope_upper], dtype=np.float64).reshape(-1) + spread
        least, greatest = self._outer(low, high, self._product)
        return Break(
            lower=left, upper=right, slope_lower=float(least[0]), slope_upper=float(greatest[0])
        )

    @property
    def bends(self) -> tuple[int, ...]:
        """Those of the base, turned over where outer is negative."""
        found = tuple(bend if self.outer[0] > 0 else -bend for bend in self.base.bends)
        return found if self.inner[0] > 0 else found[::-1]

    @property
    def tails(self) -> tuple[float | Points, float | Points]:
        """The base's, times outer inner."""
        low, high = (np.array([tail], dtype=np.float64).reshape(-1) for tail in self.base.tails)
        least, greatest = self._outer(low, high, self._product)
        return float(least[0]), float(greatest[0])


# sqrt(1/2) and sqrt(2/pi) to the nearest float64: their relative error is below 2^-53.
_ROOT_HALF = float.fromhex("0x1.6a09e667f3bcdp-1")
_ROOT_TWO_BY_PI = float.fromhex("0x1.9884533d43651p-1")


def erf_gate(inner: Pair, outer: Pair) -> Rescaled:
    """Outer t (1 + erf t), t = inner x."""
    return Rescaled(ErfGate(), inner, outer, ErfGate.curvature)


def gelu() -> Rescaled:
    """X (1 + erf(x / sqrt 2)) / 2."""
    error = _ROOT_HALF * U
    return erf_gate((_ROOT_HALF, error), (_ROOT_HALF, error))


@cache
def gelu_tanh() -> Gate:
    """X (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2."""
    return Gate(_ROOT_TWO_BY_PI, 0.044715)


@cache
def silu() -> Gate:
    """X / (1 + e^-x)."""
    return Gate(0.5, 0.0)


def selu(alpha: float, gamma: float) -> Rescaled:
    """Gamma elu_alpha."""
    return Rescaled(Elu(alpha), (1.0, 0.0), (gamma, 0.0), abs(alpha))


def celu(alpha: float) -> Rescaled:
    """Alpha elu_1(x / alpha), 0 < alpha."""
    inverse = 1.0 / alpha
    return Rescaled(Elu(1.0), (inverse, inverse * U), (alpha, 0.0), 1.0)
