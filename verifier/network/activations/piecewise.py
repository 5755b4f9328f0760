"""What follows from the few facts that a scalar function f states about itself.

A function states its value, its one-sided derivatives, and the `breaks` between which its
derivative is monotone or constant: its kinks and its points of inflection. Then, on [l, u],

    slopes      the derivative is extreme at l, at u, or at a break within;              (1)
    offsets     f(x) - s x is extreme at l, at u, at a break within, or where f' = s,
                and between two breaks f' takes the value s at one place;                (2)
    image       is (2) with s = 0;                                                       (3)
    relaxation  the line of least area above f is the one that supports the concave hull
                of f at the middle of [l, u], since the area under it is u - l times its
                height there; below f likewise with the convex hull.                     (4)

A break outside [l, u] is moved to the nearer end: so (1) and (2) need no case distinction.
Facts are for the search, in plain float64: the checker has its own, proved.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

_FAR = 1e100  #: from here on every function below equals its asymptote in float64
_HALVINGS = 40  #: the error of a value at a stationary point is quadratic: (2^-40)^2 of the width
_SUPPORTS = 4  #: steps to a hull; three reach every corner of a function with two breaks


@dataclass(frozen=True, slots=True, eq=False)
class Piecewise(ABC):
    """A continuous scalar function of every entry, with a derivative monotone between breaks."""

    size: int

    @property
    @abstractmethod
    def breaks(self) -> tuple[float, ...]:
        """Kinks and points of inflection, ascending."""

    @abstractmethod
    def forward(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """The function of every entry."""

    @abstractmethod
    def sides(
        self, x: Float64[Tensor, "*batch n"]
    ) -> tuple[Float64[Tensor, "*batch n"], Float64[Tensor, "*batch n"]]:
        """The derivatives from the left and from the right."""

    @property
    def kinks(self) -> tuple[float, ...]:
        """Breaks where the derivative jumps, as far as they are float64 numbers."""
        return self.breaks

    def slope_range(self) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]:
        """Every secant anywhere has a slope within [lower, upper]."""
        far = torch.full((self.size,), _FAR, dtype=torch.float64)
        return self.slope_range_on(-far, far)

    def slope_range_on(
        self, lower: Float64[Tensor, "*batch n"], upper: Float64[Tensor, "*batch n"]
    ) -> tuple[Float64[Tensor, "*batch n"], Float64[Tensor, "*batch n"]]:
        """Every Clarke slope on the closed [lower, upper] lies within, both ends are reached."""
        slopes = torch.cat(self.sides(self._landmarks(lower, upper)))
        return slopes.amin(dim=0), slopes.amax(dim=0)

    def image(
        self, lower: Float64[Tensor, "*batch n"], upper: Float64[Tensor, "*batch n"]
    ) -> tuple[Float64[Tensor, "*batch n"], Float64[Tensor, "*batch n"]]:
        """Every value on the closed [lower, upper] lies within, both ends are reached."""
        level = torch.zeros_like(lower)
        return self.offsets(lower, upper, level, level)

    def offsets(
        self,
        lower: Float64[Tensor, "*batch n"],
        upper: Float64[Tensor, "*batch n"],
        below: Float64[Tensor, "*batch n"],
        above: Float64[Tensor, "*batch n"],
    ) -> tuple[Float64[Tensor, "*batch n"], Float64[Tensor, "*batch n"]]:
        """(c, d) with below x + c <= f(x) <= above x + d on [lower, upper], for any slopes.

        The greatest such c and the least such d; differentiable in the slopes and in the ends.
        """
        least = self._heights(self._extreme(lower, upper, below), below).amin(dim=0)
        greatest = self._heights(self._extreme(lower, upper, above), above).amax(dim=0)
        return least, greatest

    def relaxation(
        self, lower: Float64[Tensor, "*batch n"], upper: Float64[Tensor, "*batch n"]
    ) -> tuple[
        Float64[Tensor, "*batch n"],
        Float64[Tensor, "*batch n"],
        Float64[Tensor, "*batch n"],
        Float64[Tensor, "*batch n"],
    ]:
        """(a, b, c, d) with a x + b <= f(x) <= c x + d on [lower, upper], each of least area."""
        below = self._support(lower, upper, -1.0)
        above = self._support(lower, upper, 1.0)
        least, greatest = self.offsets(lower, upper, below, above)
        return below, least, above, greatest

    def _landmarks(
        self, lower: Float64[Tensor, "*batch n"], upper: Float64[Tensor, "*batch n"]
    ) -> Float64[Tensor, "points *batch n"]:
        """The ends and the breaks between them, ascending."""
        inner = [
            torch.minimum(torch.maximum(torch.full_like(lower, at), lower), upper)
            for at in self.breaks
        ]
        return torch.stack([lower, *inner, upper])

    def _extreme(
        self,
        lower: Float64[Tensor, "*batch n"],
        upper: Float64[Tensor, "*batch n"],
        slope: Float64[Tensor, "*batch n"],
    ) -> Float64[Tensor, "points *batch n"]:
        """Points of [lower, upper], the ends first, where f(x) - slope x may be extreme: (2)."""
        marks = self._landmarks(lower, upper)
        return torch.cat([marks, self._stationary(marks.detach(), slope.detach())])

    def _stationary(
        self, marks: Float64[Tensor, "points *batch n"], slope: Float64[Tensor, "*batch n"]
    ) -> Float64[Tensor, "pieces *batch n"]:
        """The point between each two marks where f' = slope; near a mark where there is none."""
        left, right = marks[:-1], marks[1:]
        rises = self.sides(left)[1] < self.sides(right)[0]
        for _ in range(_HALVINGS):
            middle = (left + right) / 2
            ahead = (self.sides(middle)[0] < slope) == rises
            left = torch.where(ahead, middle, left)
            right = torch.where(ahead, right, middle)
        return (left + right) / 2

    def _heights(
        self, points: Float64[Tensor, "points *batch n"], slope: Float64[Tensor, "*batch n"]
    ) -> Float64[Tensor, "points *batch n"]:
        """f(x) - slope x at every point."""
        return self.forward(points) - slope * points

    def _support(
        self,
        lower: Float64[Tensor, "*batch n"],
        upper: Float64[Tensor, "*batch n"],
        side: float,
    ) -> Float64[Tensor, "*batch n"]:
        """The slope of (4): the line supports f from above (side 1) or from below (side -1).

        [left, right] is the chord of two points of the hull around the middle. The point of f
        farthest beyond the chord is a third one, and takes the place of left or right: a Newton
        step towards the tangent through an end. On a curved part of the hull the line sought is
        the tangent at the middle.
        """
        middle = (lower + upper) / 2
        left, right = lower, upper
        least, greatest = self.slope_range_on(lower, upper)
        for _ in range(_SUPPORTS):
            chord = self._chord(left, right).clamp(least, greatest)
            points = self._extreme(lower, upper, chord)
            farthest = (side * self._heights(points, chord)).argmax(dim=0, keepdim=True)
            touch = points.gather(0, farthest).squeeze(0)
            inside = (left < touch) & (touch < right)
            # A tie at the middle takes the piece on the left: for ReLU the slope 0.
            left = torch.where(inside & (touch < middle), touch, left)
            right = torch.where(inside & (middle <= touch), touch, right)
        chord = self._chord(left, right).clamp(least, greatest)
        tangent = self.sides(middle)[0]
        by_chord, by_tangent = (
            side * slope * middle
            + (side * self._heights(self._extreme(lower, upper, slope), slope)).amax(dim=0)
            for slope in (chord, tangent)
        )
        return torch.where(by_tangent < by_chord, tangent, chord)

    def _chord(
        self, left: Float64[Tensor, "*batch n"], right: Float64[Tensor, "*batch n"]
    ) -> Float64[Tensor, "*batch n"]:
        """The slope of the secant; at equal points any number, which the caller clamps."""
        run = torch.where(left < right, right - left, 1.0)
        return (self.forward(right) - self.forward(left)) / run


@dataclass(frozen=True, slots=True, eq=False)
class PiecewiseLinear(Piecewise):
    """A continuous function that is linear between breaks, and states the slopes there."""

    @property
    @abstractmethod
    def slopes(self) -> tuple[float | Float64[Tensor, " n"], ...]:
        """The slopes from left to right, one more than breaks."""

    def sides(
        self, x: Float64[Tensor, "*batch n"]
    ) -> tuple[Float64[Tensor, "*batch n"], Float64[Tensor, "*batch n"]]:
        """The slopes of the pieces that x ends and starts; one and the same within a piece."""
        first, *others = self.slopes
        left = right = torch.zeros_like(x) + first
        for at, slope in zip(self.breaks, others, strict=True):
            left = torch.where(at < x, slope, left)
            right = torch.where(at <= x, slope, right)
        return left, right

    def _stationary(
        self,
        marks: Float64[Tensor, "points *batch n"],
        slope: Float64[Tensor, "*batch n"],  # noqa: ARG002 (the same for every slope)
    ) -> Float64[Tensor, "pieces *batch n"]:
        """None: a linear function is extreme at its ends."""
        return marks[:0]


@dataclass(frozen=True, slots=True, eq=False)
class Smooth(Piecewise):
    """A function with a derivative everywhere."""

    @property
    def kinks(self) -> tuple[float, ...]:
        """None."""
        return ()

    @abstractmethod
    def derivative(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """The derivative at every entry."""

    def sides(
        self, x: Float64[Tensor, "*batch n"]
    ) -> tuple[Float64[Tensor, "*batch n"], Float64[Tensor, "*batch n"]]:
        """The derivative, twice."""
        slope = self.derivative(x)
        return slope, slope
