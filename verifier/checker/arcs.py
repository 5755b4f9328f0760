"""The arc tangent, the inverse hyperbolic sine, and the hyperbolic sine and cosine.

atan on [0, 1]. atan z = 2 atan(z / (1 + sqrt(1 + z^2))), twice, leads below 0.199. Each step has
the relative error 3.1 u, and neither it nor the arc tangent enlarges a relative error; Taylor's
polynomial of degree 25 leaves 0.0396^13 / 27 < 2^-60, and Horner's rule less than 30 u. Beyond 1,
atan x = pi/2 - atan(1/x), with pi/2 off by 0.6 u: all together below 48 u < 2^-47 of the value.

asinh x = log(x + sqrt(1 + x^2)) for 0 <= x: the argument, at least 1, has the relative error 3.1 u,
by which the logarithm moves. Its slope is 1 / sqrt(1 + x^2).

sinh x = (m + m/(1 + m))/2 with m = e^x - 1 for 0 <= x, both rising in m. It is odd, cosh is even,
and each is the slope of the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from verifier.checker import enclosures
from verifier.checker.curves import CONCAVE, CONVEX
from verifier.checker.enclosures import U, lower_of, upper_of
from verifier.checker.restricted import log
from verifier.checker.scalars import Smooth

if TYPE_CHECKING:
    from verifier.checker.enclosures import Enclosure, Points

_HALF_PI = float.fromhex("0x1.921fb54442d18p+0")  #: below pi/2; the next float is above
_ABOVE_HALF_PI = float(np.nextafter(_HALF_PI, 2.0))
_RELATIVE = 2.0**-45
_COEFFICIENTS = [(-1.0) ** n / (2 * n + 1) for n in range(12, -1, -1)]
_FAR = 2.0**400  #: squares are far from where float64 ends


def atan(x: Points) -> Enclosure:
    """The arc tangent, with the sign of x, no more than |x| and pi/2."""
    size = np.abs(x)
    beyond = 1.0 < size
    z = np.where(beyond, 1.0 / np.where(beyond, size, 1.0), size)
    for _ in range(2):
        z = z / (1.0 + np.sqrt(1.0 + z * z))
    square = z * z
    series = np.full_like(z, _COEFFICIENTS[0])
    for coefficient in _COEFFICIENTS[1:]:
        series = series * square + coefficient
    near = 4.0 * (z * series)
    value = np.where(beyond, _HALF_PI - near, near)
    lower = np.maximum(lower_of(value, _RELATIVE), 0.0)
    upper = np.minimum(np.minimum(upper_of(value, _RELATIVE), _ABOVE_HALF_PI), size)
    lower = np.minimum(lower, upper)
    return np.where(x < 0, -upper, lower), np.where(x < 0, -lower, upper)


def asinh(x: Points) -> Enclosure:
    """The inverse hyperbolic sine, with the sign of x and no more than |x|."""
    size = np.minimum(np.abs(x), _FAR)
    low, high = log(size + np.sqrt(1.0 + size * size))
    lower = np.maximum(low - 8 * U, 0.0)
    upper = np.minimum(np.where(np.abs(x) > _FAR, np.inf, high + 8 * U), np.abs(x))
    lower = np.minimum(lower, upper)
    return np.where(x < 0, -upper, lower), np.where(x < 0, -lower, upper)


def sinh(x: Points) -> Enclosure:
    """The hyperbolic sine."""
    low, high = enclosures.expm1(np.abs(x))
    with np.errstate(over="ignore", invalid="ignore"):
        lower = np.maximum(lower_of((low + low / (1.0 + low)) / 2), 0.0)
        upper = upper_of((high + high / (1.0 + high)) / 2)
    upper = np.where(np.isnan(upper), np.inf, upper)
    return np.where(x < 0, -upper, lower), np.where(x < 0, -lower, upper)


def cosh(x: Points) -> Enclosure:
    """The hyperbolic cosine."""
    (low, high), (least, most) = enclosures.exp(np.abs(x)), enclosures.exp(-np.abs(x))
    with np.errstate(over="ignore"):
        return np.maximum(lower_of((low + least) / 2), 1.0), upper_of((high + most) / 2)


class Atan(Smooth):
    """atan: convex left of 0, concave right of it; its slope is 1 / (1 + x^2)."""

    break_places = (0.0,)
    piece_bends = (CONVEX, CONCAVE)
    limits = (0.0, 0.0)

    def values(self, x: Points) -> Enclosure:
        """Atan x."""
        return atan(x)

    def slopes(self, x: Points) -> Enclosure:
        """1 / (1 + x^2)."""
        size = np.minimum(np.abs(x), _FAR)
        value = 1.0 / (1.0 + size * size)
        lower = np.where(np.abs(x) > _FAR, 0.0, lower_of(value))
        return np.maximum(lower, 0.0), np.minimum(upper_of(value), 1.0)


class Asinh(Smooth):
    """asinh: convex left of 0, concave right of it; its slope is 1 / sqrt(1 + x^2)."""

    break_places = (0.0,)
    piece_bends = (CONVEX, CONCAVE)
    limits = (0.0, 0.0)

    def values(self, x: Points) -> Enclosure:
        """Asinh x."""
        return asinh(x)

    def slopes(self, x: Points) -> Enclosure:
        """1 / sqrt(1 + x^2)."""
        size = np.minimum(np.abs(x), _FAR)
        value = 1.0 / np.sqrt(1.0 + size * size)
        lower = np.where(np.abs(x) > _FAR, 0.0, lower_of(value))
        return np.maximum(lower, 0.0), np.minimum(upper_of(value), 1.0)


class Sinh(Smooth):
    """sinh: concave left of 0, convex right of it; no slope bounds it globally."""

    break_places = (0.0,)
    piece_bends = (CONCAVE, CONVEX)
    limits = (1.0, np.inf)

    def values(self, x: Points) -> Enclosure:
        """Sinh x."""
        return sinh(x)

    def slopes(self, x: Points) -> Enclosure:
        """Cosh x."""
        return cosh(x)


class Cosh(Smooth):
    """cosh: convex; no slope bounds it globally."""

    piece_bends = (CONVEX,)
    limits = (-np.inf, np.inf)

    def values(self, x: Points) -> Enclosure:
        """Cosh x."""
        return cosh(x)

    def slopes(self, x: Points) -> Enclosure:
        """Sinh x."""
        return sinh(x)


__all__ = ["Asinh", "Atan", "Cosh", "Sinh", "asinh", "atan", "cosh", "sinh"]
