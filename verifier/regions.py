"""The sets on which a claim holds: everywhere, a box, a ball. All convex, all closed.

Numbers are kept as the request gave them: a box with center c and radius r is the set of real
points with |x_k - c_k| <= r_k exactly, which float64 ends c - r and c + r need not be. Whoever
needs float64 ends takes `interval`, rounded outward; membership is decided in rationals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from verifier.errors import RegionEmptyInterior
from verifier.norms import Norm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float64

Vector: TypeAlias = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Everywhere:
    """All of R^n: the region of a global claim."""

    def contains(self, point: Sequence[float]) -> bool:
        """Whether a point lies in the region."""
        return all(math.isfinite(coordinate) for coordinate in point)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """The input domain that a region is intersected with: lower <= x_k <= upper."""

    lower: float
    upper: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CenterBox:
    """|x_k - center_k| <= radius_k, intersected with `clip`. One radius stands for all."""

    center: Vector
    radius: float | Vector
    clip: Clip | None = None

    def __post_init__(self) -> None:
        # Where float64 numbers lie within each pair of ends, nothing is to be decided exactly.
        fits = not isinstance(self.radius, tuple) or len(self.radius) == self.dimension
        if not (fits and self._is_plainly_wide()):
            _refuse_empty(*self._exact_ends())

    @property
    def dimension(self) -> int:
        """The number of coordinates."""
        return len(self.center)

    def _is_plainly_wide(self) -> bool:
        lower, upper = self._rounded_ends(outward=False)
        is_finite = np.all(np.isfinite(lower)) and np.all(np.isfinite(upper))
        return bool(is_finite and np.all(lower <= upper) and np.any(lower < upper))

    def _exact_ends(self) -> tuple[list[Fraction], list[Fraction]]:
        radii = self.radius if isinstance(self.radius, tuple) else (self.radius,) * self.dimension
        lower = [Fraction(c) - Fraction(r) for c, r in zip(self.center, radii, strict=True)]
        upper = [Fraction(c) + Fraction(r) for c, r in zip(self.center, radii, strict=True)]
        return _clipped(lower, upper, self.clip)

    def interval(self) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
        """Float64 ends, rounded outward: the box lies within [lower, upper]."""
        lower, upper = self._rounded_ends(outward=True)
        if np.all(np.isfinite(lower)) and np.all(np.isfinite(upper)):
            return lower, upper
        return _outward(*self._exact_ends())

    def contains(self, point: Sequence[float]) -> bool:
        """Whether a point lies in the box, decided exactly."""
        if len(point) != self.dimension or not all(map(math.isfinite, point)):
            return False
        # No float64 lies between a real end and the nearest float64 that is within.
        lower, upper = self._rounded_ends(outward=False)
        x = np.array(point, dtype=np.float64)
        return bool(np.all((lower <= x) & (x <= upper)))

    def _rounded_ends(
        self, *, outward: bool
    ) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
        """The ends in float64, each rounded out of the box, or each into it; infinite beyond."""
        center, radius = np.array(self.center), np.array(self.radius)
        lower = _rounded_sum(center, -radius, downward=outward)
        upper = _rounded_sum(center, radius, downward=not outward)
        if self.clip is None:
            return lower, upper
        return np.maximum(lower, self.clip.lower), np.minimum(upper, self.clip.upper)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndsBox:
    """lower_k <= x_k <= upper_k, intersected with `clip`. Equal ends: that coordinate is fixed."""

    lower: Vector
    upper: Vector
    clip: Clip | None = None

    def __post_init__(self) -> None:
        _refuse_empty(*self._exact_ends())

    @property
    def dimension(self) -> int:
        """The number of coordinates."""
        return len(self.lower)

    def _exact_ends(self) -> tuple[list[Fraction], list[Fraction]]:
        return _clipped(
            [Fraction(x) for x in self.lower], [Fraction(x) for x in self.upper], self.clip
        )

    def interval(self) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
        """Float64 ends; the box lies within [lower, upper]."""
        return _outward(*self._exact_ends())

    def contains(self, point: Sequence[float]) -> bool:
        """Whether a point lies in the box, decided exactly."""
        return _within(point, *self._exact_ends())


@dataclass(frozen=True, slots=True, kw_only=True)
class Ball:
    """|x - center|_norm <= radius, intersected with `clip`, within which the center lies."""

    norm: Norm
    center: Vector
    radius: float
    clip: Clip | None = None

    def __post_init__(self) -> None:
        if not 0 < self.radius < math.inf:
            raise RegionEmptyInterior(
                f"the ball's radius is {self.radius}", fix="give a finite radius above 0"
            )
        if self.clip is None:
            return
        lower, upper = self.clip.lower, self.clip.upper
        if not (lower < upper and all(lower <= x <= upper for x in self.center)):
            raise RegionEmptyInterior(
                f"the ball's center does not lie within [{lower}, {upper}]",
                fix="give a center inside `clip`, lower < upper",
            )

    @property
    def dimension(self) -> int:
        """The number of coordinates."""
        return len(self.center)

    def interval(self) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
        """Float64 ends of the least box around the ball, rounded outward, and clipped."""
        radius = Fraction(self.radius)
        lower, upper = [x - radius for x in self._exact()], [x + radius for x in self._exact()]
        return _outward(*_clipped(lower, upper, self.clip))

    def contains(self, point: Sequence[float]) -> bool:
        """Whether a point lies in the region, decided exactly."""
        if len(point) != self.dimension or not all(map(math.isfinite, point)):
            return False
        clip = self.clip
        if clip is not None and not all(clip.lower <= x <= clip.upper for x in point):
            return False
        offsets = [abs(Fraction(x) - c) for x, c in zip(point, self._exact(), strict=True)]
        radius = Fraction(self.radius)
        match self.norm:
            case Norm.L1:
                return sum(offsets) <= radius
            case Norm.L2:
                return sum(offset * offset for offset in offsets) <= radius * radius
            case Norm.LINF:
                return max(offsets) <= radius

    def _exact(self) -> list[Fraction]:
        return [Fraction(c) for c in self.center]


Box: TypeAlias = CenterBox | EndsBox
Bounded: TypeAlias = Box | Ball
Place: TypeAlias = Everywhere | Bounded


@dataclass(frozen=True, slots=True)
class Centers:
    """One region around each of many centers, alike but for the center. Not convex: no region.

    It has neither ends nor points, so that what knows one region at a time fails on it.
    """

    parts: tuple[CenterBox | Ball, ...]

    def __post_init__(self) -> None:
        if len({part.dimension for part in self.parts}) != 1:
            raise ValueError("there are no centers, or they have different dimensions")
        if len({replace(part, center=self.parts[0].center) for part in self.parts}) != 1:
            raise ValueError("the regions around the centers differ in more than the center")

    @property
    def dimension(self) -> int:
        """The number of coordinates."""
        return self.parts[0].dimension


Region: TypeAlias = Place | Centers


def _clipped(
    lower: list[Fraction], upper: list[Fraction], clip: Clip | None
) -> tuple[list[Fraction], list[Fraction]]:
    if clip is None:
        return lower, upper
    low, high = Fraction(clip.lower), Fraction(clip.upper)
    return [max(x, low) for x in lower], [min(x, high) for x in upper]


def _refuse_empty(lower: list[Fraction], upper: list[Fraction]) -> None:
    """A claim about fewer than two points is vacuous, and mostly a mistake."""
    for index, (low, high) in enumerate(zip(lower, upper, strict=True)):
        if high < low:
            raise RegionEmptyInterior(
                f"coordinate {index} of the region is empty: [{float(low)}, {float(high)}]",
                fix="give lower <= upper, a radius above 0, and a center inside `clip`",
            )
    if lower == upper:
        raise RegionEmptyInterior(
            "the region is a single point", fix="give a radius above 0 to some coordinate"
        )


def _rounded_sum(
    one: Float64[np.ndarray, " n"], other: Float64[np.ndarray, "*n"], *, downward: bool
) -> Float64[np.ndarray, " n"]:
    """One + other, rounded down or up: the error of a float64 sum is a float64 (Knuth)."""
    with np.errstate(over="ignore", invalid="ignore"):
        total = one + other
        back = total - one
        lost = (one - (total - back)) + (other - back)
    if downward:
        return np.where(lost < 0, np.nextafter(total, -np.inf), total)
    return np.where(0 < lost, np.nextafter(total, np.inf), total)


def _outward(
    lower: list[Fraction], upper: list[Fraction]
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    down = [math.nextafter(f, -math.inf) if x < Fraction(f) else f for x, f in _nearest(lower)]
    up = [math.nextafter(f, math.inf) if Fraction(f) < x else f for x, f in _nearest(upper)]
    return np.array(down), np.array(up)


def _nearest(values: list[Fraction]) -> list[tuple[Fraction, float]]:
    return [(value, float(value)) for value in values]


def _within(point: Sequence[float], lower: list[Fraction], upper: list[Fraction]) -> bool:
    if len(point) != len(lower) or not all(map(math.isfinite, point)):
        return False
    ends = zip(lower, point, upper, strict=True)
    return all(low <= Fraction(x) <= high for low, x, high in ends)
