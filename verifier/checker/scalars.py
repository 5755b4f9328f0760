"""The elementwise functions of ONNX as curves: what each states of itself, and nothing derived."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from verifier.checker import enclosures
from verifier.checker.curves import CONCAVE, CONVEX, STRAIGHT, Break, Curve, hull_slope
from verifier.checker.enclosures import TINY, TWO_BY_ROOT_PI, U, lower_of, upper_of

if TYPE_CHECKING:
    from verifier.checker.curves import Pair, Vector
    from verifier.checker.enclosures import Enclosure, Points

ABOVE_TWO_BY_ROOT_PI = float(np.nextafter(TWO_BY_ROOT_PI, 2.0))


@dataclass(frozen=True, eq=False)
class PiecewiseLinear(Curve):
    """slopes[i] x + intercepts[i] between knots[i-1] and knots[i], which are short intervals.

    Continuous: the caller states it. Numbers, or arrays with one for each entry.
    """

    knots: tuple[tuple[float | Points, float | Points], ...]
    pieces: tuple[tuple[float | Points, float | Points], ...]  #: (slope, intercept)

    @property
    def is_absolute(self) -> bool:
        """Whether it is |x|: numbers, not arrays, of these two pieces."""
        return all(isinstance(slope, float) for slope, _ in self.pieces) and self.pieces == (
            (-1.0, 0.0),
            (1.0, 0.0),
        )

    def tiled(self, count: int, /) -> PiecewiseLinear:
        """With the numbers of entries as often as the entries are there."""
        if count == 1:
            return self
        return PiecewiseLinear(_tiled(self.knots, count), _tiled(self.pieces, count))

    def _at(self, x: Points, piece: int) -> Enclosure:
        slope, intercept = self.pieces[piece]
        product = slope * x
        value = product + intercept
        # Slopes 0, 1 and -1 through the origin, and constants, are not rounded at all.
        exact = (np.isin(slope, (-1.0, 0.0, 1.0)) & (np.asarray(intercept) == 0)) | (
            np.asarray(slope) == 0
        )
        error = (np.abs(product) + np.abs(intercept)) * (4 * U) + TINY
        return np.where(exact, value, value - error), np.where(exact, value, value + error)

    def values(self, x: Points) -> Enclosure:
        """The piece's line; where a knot may lie, the hull of both."""
        low, high = self._at(x, 0)
        for place, (start, end) in enumerate(self.knots, start=1):
            here_low, here_high = self._at(x, place)
            within = (start <= x) & (x <= end)
            low = np.where(x > end, here_low, np.where(within, np.minimum(low, here_low), low))
            high = np.where(x > end, here_high, np.where(within, np.maximum(high, here_high), high))
        return low, high

    def slopes(self, x: Points) -> Enclosure:
        """The piece's slope; at a knot both."""
        low = high = np.broadcast_to(self.pieces[0][0], np.shape(x)).astype(np.float64)
        for place, (start, end) in enumerate(self.knots, start=1):
            slope = self.pieces[place][0]
            within = (start <= x) & (x <= end)
            low = np.where(x > end, slope, np.where(within, np.minimum(low, slope), low))
            high = np.where(x > end, slope, np.where(within, np.maximum(high, slope), high))
        return low, high

    def slopes_inside(self, lower: Vector, upper: Vector) -> Pair:
        """The slopes of the pieces that meet the open (lower, upper), wherever the knots lie.

        Of a point the slope that is nearest to 0.
        """
        starts = [-np.inf, *(start for start, _ in self.knots)]
        ends = [*(end for _, end in self.knots), np.inf]
        low, high = np.full_like(lower, np.inf), np.full_like(lower, -np.inf)
        for (slope, _), start, end in zip(self.pieces, starts, ends, strict=True):
            meets = (start < upper) & (lower < end)
            low = np.where(meets, np.minimum(low, slope), low)
            high = np.where(meets, np.maximum(high, slope), high)
        # What stays at a point has no derivative to multiply: any slope is right, and one is taken.
        least, greatest = self.slope_range_on(lower, upper)
        single = np.where(np.abs(greatest) < np.abs(least), greatest, least)
        least = greatest = single
        inside = lower < upper
        return np.where(inside, low, least), np.where(inside, high, greatest)

    def lines(self, lower: Vector, upper: Vector) -> Pair:
        """Of the hulls, whose corners are ends and knots, at the middle; at a knot its left piece.

        The knots stand twice, left of the middle and right of it; an end where they are not there.
        """
        finite = np.isfinite(lower) & np.isfinite(upper)
        left, right = np.where(finite, lower, 0.0), np.where(finite, upper, 0.0)
        middle = left / 2 + right / 2
        tangent = np.broadcast_to(self.pieces[0][0], middle.shape).astype(np.float64)
        for (slope, _), (_, end) in zip(self.pieces[1:], self.knots, strict=True):
            tangent = np.where(end < middle, slope, tangent)
        knots = [np.broadcast_to(start, middle.shape) for start, _ in self.knots]
        x = np.stack(
            [
                left,
                *(np.where((left < k) & (k < middle), k, left) for k in knots),
                middle,
                *(np.where((middle < k) & (k < right), k, right) for k in knots),
                right,
            ]
        )
        with np.errstate(all="ignore"):
            low, high = self.values(x)
            height = (low + high) / 2
            below, above = hull_slope(x, -height, -tangent), hull_slope(x, height, tangent)
        return (
            np.where(np.isfinite(below), -below, 0.0),
            np.where(np.isfinite(above), above, 0.0),
        )

    @property
    def breaks(self) -> tuple[Break, ...]:
        """The knots."""
        return tuple(
            Break(
                lower=start,
                upper=end,
                slope_lower=np.minimum(self.pieces[place][0], self.pieces[place + 1][0]),
                slope_upper=np.maximum(self.pieces[place][0], self.pieces[place + 1][0]),
            )
            for place, (start, end) in enumerate(self.knots)
        )

    @property
    def bends(self) -> tuple[int, ...]:
        """Straight everywhere."""
        return (STRAIGHT,) * len(self.pieces)

    @property
    def tails(self) -> tuple[float | Points, float | Points]:
        """The outermost slopes."""
        first, last = self.pieces[0][0], self.pieces[-1][0]
        return np.minimum(first, last), np.maximum(first, last)


@dataclass(frozen=True, eq=False)
class Confined(PiecewiseLinear):
    """x, where something other than its interval says that x lies within [least, greatest]."""

    knots: tuple[tuple[float | Points, float | Points], ...] = ()
    pieces: tuple[tuple[float | Points, float | Points], ...] = ((1.0, 0.0),)
    least: float = -np.inf
    greatest: float = np.inf

    def tiled(self, _count: int, /) -> Confined:
        """The same."""
        return self

    def image(self, lower: Vector, upper: Vector) -> Pair:
        """The part of the interval where x can be."""
        return np.clip(lower, self.least, self.greatest), np.clip(upper, self.least, self.greatest)


def _tiled(
    pairs: tuple[tuple[float | Points, float | Points], ...], count: int
) -> tuple[tuple[float | Points, float | Points], ...]:
    return tuple(
        (
            one if np.ndim(one) == 0 else np.tile(one, count),
            other if np.ndim(other) == 0 else np.tile(other, count),
        )
        for one, other in pairs
    )


def relu() -> PiecewiseLinear:
    """max(x, 0)."""
    return leaky(0.0)


def leaky(slope: float | Points) -> PiecewiseLinear:
    """X for 0 <= x, slope x below."""
    return PiecewiseLinear(((0.0, 0.0),), ((slope, 0.0), (1.0, 0.0)))


def absolute() -> PiecewiseLinear:
    """|x|."""
    return leaky(-1.0)


def clip(least: float | Points | None, greatest: float | Points | None) -> PiecewiseLinear:
    """max(least, min(x, greatest)) with least <= greatest; an absent one does not limit."""
    knots: list[tuple[float | Points, float | Points]] = []
    pieces: list[tuple[float | Points, float | Points]] = [(1.0, 0.0)]
    if least is not None:
        knots.append((least, least))
        pieces.insert(0, (0.0, least))
    if greatest is not None:
        knots.append((greatest, greatest))
        pieces.append((0.0, greatest))
    return PiecewiseLinear(tuple(knots), tuple(pieces))


def hard_sigmoid(alpha: float, beta: float) -> PiecewiseLinear:
    """max(0, min(1, alpha x + beta)), 0 < alpha."""
    low, high = -beta / alpha, (1.0 - beta) / alpha
    return PiecewiseLinear(
        (_around(low), _around(high, abs(beta / alpha))), ((0.0, 0.0), (alpha, beta), (0.0, 1.0))
    )


def soft_shrink(limit: float) -> PiecewiseLinear:
    """X - limit above limit, x + limit below -limit, 0 between."""
    return PiecewiseLinear(
        ((-limit, -limit), (limit, limit)), ((1.0, limit), (0.0, 0.0), (1.0, -limit))
    )


def _around(value: float, scale: float = 0.0) -> tuple[float, float]:
    error = (abs(value) + scale) * 8 * U + TINY
    return value - error, value + error


class Smooth(Curve):
    """Shared by functions whose breaks are floats: the slopes there are those of `slopes`."""

    break_places: ClassVar[tuple[float, ...]] = ()
    piece_bends: ClassVar[tuple[int, ...]]
    limits: ClassVar[tuple[float, float]]  #: the hull of the slopes' limits at both infinities

    @property
    def bends(self) -> tuple[int, ...]:
        """The bend of each piece."""
        return self.piece_bends

    @property
    def tails(self) -> tuple[float | Points, float | Points]:
        """The limits."""
        return self.limits

    @property
    def breaks(self) -> tuple[Break, ...]:
        """The places, with the slopes there."""
        return tuple(self._break(place) for place in self.break_places)

    def _break(self, place: float) -> Break:
        low, high = self.slopes(np.array([place]))
        return Break(
            lower=place, upper=place, slope_lower=float(low[0]), slope_upper=float(high[0])
        )


class Tanh(Smooth):
    """tanh: convex left of 0, concave right of it; its slope is 1 - tanh^2."""

    break_places = (0.0,)
    piece_bends = (CONVEX, CONCAVE)
    limits = (0.0, 1.0)

    def values(self, x: Points) -> Enclosure:
        """Tanh x."""
        return enclosures.tanh(x)

    def slopes(self, x: Points) -> Enclosure:
        """1 - tanh^2 = (1 - t)(1 + t)."""
        low, high = enclosures.tanh(np.abs(x))
        lower = np.maximum(lower_of((1.0 - high) * (1.0 + high)), 0.0)
        return lower, np.minimum(upper_of((1.0 - low) * (1.0 + low)), 1.0)


class Sigmoid(Smooth):
    """1 / (1 + e^-x): convex left of 0, concave right of it; its slope is s (1 - s)."""

    break_places = (0.0,)
    piece_bends = (CONVEX, CONCAVE)
    limits = (0.0, 0.0)

    def values(self, x: Points) -> Enclosure:
        """Sigmoid of x."""
        return enclosures.sigmoid(x)

    def slopes(self, x: Points) -> Enclosure:
        """s(x) s(-x), which has no cancellation."""
        size = np.abs(x)
        low, high = enclosures.sigmoid(size)
        other_low, other_high = enclosures.sigmoid(-size)
        lower = np.maximum(lower_of(low * other_low), 0.0)
        return lower, np.minimum(upper_of(high * other_high), 0.25)


class Erf(Smooth):
    """erf: convex left of 0, concave right of it; its slope is 2/sqrt(pi) e^(-x^2)."""

    break_places = (0.0,)
    piece_bends = (CONVEX, CONCAVE)
    limits = (0.0, 0.0)

    def values(self, x: Points) -> Enclosure:
        """Erf x."""
        return enclosures.erf(x)

    def slopes(self, x: Points) -> Enclosure:
        """2/sqrt(pi) e^(-x^2)."""
        low, high = enclosures.gauss(x)
        lower = np.maximum(lower_of(TWO_BY_ROOT_PI * low), 0.0)
        upper = upper_of(ABOVE_TWO_BY_ROOT_PI * high)
        return lower, np.minimum(upper, ABOVE_TWO_BY_ROOT_PI)


class Softplus(Smooth):
    """log(1 + e^x): convex; its slope is the sigmoid."""

    piece_bends = (CONVEX,)
    limits = (0.0, 1.0)

    def values(self, x: Points) -> Enclosure:
        """log(1 + e^x)."""
        return enclosures.softplus(x)

    def slopes(self, x: Points) -> Enclosure:
        """The sigmoid."""
        return enclosures.sigmoid(x)
