"""Sine and cosine."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.network.activations.piecewise import Smooth


@dataclass(frozen=True, slots=True, eq=False)
class _Wave(Smooth):
    """sin(x + shift): infinitely many breaks, of which the ones next to the ends suffice.

    Among stationary points of f(x) - s x a whole number of periods apart, f is the same and s x
    is monotone: the first and the last one in [l, u] are extreme.
    """

    @property
    @abstractmethod
    def _shift(self) -> float:
        """Sine or cosine."""

    @property
    def breaks(self) -> tuple[float, ...]:
        """None that are fixed: they depend on the interval."""
        return ()

    def slope_range(self) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]:
        """[-1, 1]."""
        ones = torch.ones(self.size, dtype=torch.float64)
        return -ones, ones

    def image(
        self, lower: Float64[Tensor, "*batch n"], upper: Float64[Tensor, "*batch n"]
    ) -> tuple[Float64[Tensor, "*batch n"], Float64[Tensor, "*batch n"]]:
        """Every value on the closed [lower, upper] lies within, both ends are reached."""
        least, greatest = Smooth.image(self, lower, upper)
        # Far from 0 the places of peaks are not known, and on a whole period they do not matter.
        whole = 2 * math.pi <= upper - lower
        return torch.where(whole, -1.0, least), torch.where(whole, 1.0, greatest)

    def _landmarks(
        self, lower: Float64[Tensor, "*batch n"], upper: Float64[Tensor, "*batch n"]
    ) -> Float64[Tensor, "points *batch n"]:
        """The ends, and the first points of inflection where the function rises and falls."""
        rise, fall = (
            self._next(torch.full_like(lower, at - self._shift), lower, upper)[0]
            for at in (0.0, math.pi)
        )
        return torch.stack([lower, rise, fall, upper])

    def _stationary(
        self, marks: Float64[Tensor, "points *batch n"], slope: Float64[Tensor, "*batch n"]
    ) -> Float64[Tensor, "pieces *batch n"]:
        """The first and the last place of each of the two with cos(x + shift) = slope."""
        turn = slope.clamp(-1, 1).acos()
        ends = marks[0], marks[-1]
        return torch.stack(
            [*self._next(turn - self._shift, *ends), *self._next(-turn - self._shift, *ends)]
        )

    @staticmethod
    def _next(
        at: Float64[Tensor, "*batch n"],
        lower: Float64[Tensor, "*batch n"],
        upper: Float64[Tensor, "*batch n"],
    ) -> tuple[Float64[Tensor, "*batch n"], Float64[Tensor, "*batch n"]]:
        """The first and the last point at + 2 pi k of [lower, upper]; an end where none is."""
        period = 2 * math.pi
        first = at + period * ((lower - at) / period).ceil()
        last = at + period * ((upper - at) / period).floor()
        return (
            torch.minimum(torch.maximum(first, lower), upper),
            torch.minimum(torch.maximum(last, lower), upper),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Sin(_Wave):
    """sin(x)."""

    @property
    def _shift(self) -> float:
        return 0.0

    def forward(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """sin(x)."""
        return x.sin()

    def derivative(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """cos(x)."""
        return x.cos()


@dataclass(frozen=True, slots=True, eq=False)
class Cos(_Wave):
    """cos(x)."""

    @property
    def _shift(self) -> float:
        return math.pi / 2

    def forward(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """cos(x)."""
        return x.cos()

    def derivative(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """-sin(x)."""
        return -x.sin()
