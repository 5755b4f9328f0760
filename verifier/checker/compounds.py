"""Elementwise functions with several bends, and a curve whose axes are rescaled.

elu        alpha (e^x - 1) below 0, x above
hard swish x max(0, min(1, x/6 + 1/2))
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker import enclosures
from verifier.checker.curves import CONCAVE, CONVEX, STRAIGHT, Break, Curve
from verifier.checker.enclosures import TINY, U, lower_of, upper_of
from verifier.checker.gates import ErfGate, Gate, Mish, Pair
from verifier.checker.scalars import Smooth
from verifier.errors import NotCheckable

if TYPE_CHECKING:
    from verifier.checker.enclosures import Enclosure, Points

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


@dataclass(frozen=True, eq=False)
class Rescaled(Curve):
    """outer base(inner x), with outer and inner known up to an error; neither may be 0.

    The base states `curvature`, a bound on its second derivative away from kinks; a kink of the
    base lies at 0, or the inner scale is exact and a power of two.

    Raises:
        NotCheckable: the error of inner or outer is half of it or more. Of an unknown sign it is
            not known which pieces are convex.
    """

    base: Curve
    inner: Pair
    outer: Pair
    curvature_of_base: float

    def __post_init__(self) -> None:
        for value, error in (self.inner, self.outer):
            if not 2 * error < abs(value):
                raise NotCheckable(
                    f"a factor {value} that is known up to {error}",
                    fix="export with constants of usual size",
                )

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


@cache
def mish() -> Mish:
    """X tanh(log(1 + e^x))."""
    return Mish()


def selu(alpha: float, gamma: float) -> Rescaled:
    """Gamma elu_alpha."""
    return Rescaled(Elu(alpha), (1.0, 0.0), (gamma, 0.0), abs(alpha))


def celu(alpha: float) -> Rescaled:
    """Alpha elu_1(x / alpha), 0 < alpha."""
    inverse = 1.0 / alpha
    return Rescaled(Elu(1.0), (inverse, inverse * U), (alpha, 0.0), 1.0)
