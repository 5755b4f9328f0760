"""Scalar activations, each with the facts that methods read.

Facts are for the search, in plain float64; the checker has its own, proved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float64
from torch import Tensor


@runtime_checkable
class Activation(Protocol):
    """A scalar function of every entry of a signal of `size` entries; batched over rows."""

    @property
    def size(self) -> int:
        """The number of entries."""
        ...

    def forward(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """The function of every entry."""
        ...

    def slope_range(self) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]:
        """Every secant anywhere has a slope within [lower, upper]; infinite where there is none."""
        ...

    def slope_range_on(
        self, lower: Float64[Tensor, "*batch n"], upper: Float64[Tensor, "*batch n"]
    ) -> tuple[Float64[Tensor, "*batch n"], Float64[Tensor, "*batch n"]]:
        """Every Clarke slope on the closed [lower, upper] lies within."""
        ...

    def image(
        self, lower: Float64[Tensor, "*batch n"], upper: Float64[Tensor, "*batch n"]
    ) -> tuple[Float64[Tensor, "*batch n"], Float64[Tensor, "*batch n"]]:
        """Every value on the closed [lower, upper] lies within."""
        ...

    def relaxation(
        self, lower: Float64[Tensor, "*batch n"], upper: Float64[Tensor, "*batch n"]
    ) -> tuple[
        Float64[Tensor, "*batch n"],
        Float64[Tensor, "*batch n"],
        Float64[Tensor, "*batch n"],
        Float64[Tensor, "*batch n"],
    ]:
        """(a, b, c, d) with a x + b <= f(x) <= c x + d on [lower, upper]."""
        ...


@dataclass(frozen=True, slots=True)
class Abs:
    """|x|: slopes -1 and 1, and everything between at 0."""

    size: int

    def forward(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """|x|."""
        return x.abs()

    def slope_range(self) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]:
        """[-1, 1]."""
        ones = torch.ones(self.size, dtype=torch.float64)
        return -ones, ones

    def slope_range_on(
        self, lower: Float64[Tensor, "*batch n"], upper: Float64[Tensor, "*batch n"]
    ) -> tuple[Float64[Tensor, "*batch n"], Float64[Tensor, "*batch n"]]:
        """-1 where the interval reaches 0 or below, 1 where it reaches 0 or above."""
        ones = torch.ones_like(lower)
        return torch.where(0 < lower, ones, -ones), torch.where(upper < 0, -ones, ones)

    def image(
        self, lower: Float64[Tensor, "*batch n"], upper: Float64[Tensor, "*batch n"]
    ) -> tuple[Float64[Tensor, "*batch n"], Float64[Tensor, "*batch n"]]:
        """From the distance to 0 to the farther end."""
        least = torch.maximum(lower, -upper).clamp(min=0)
        return least, torch.maximum(lower.abs(), upper.abs())

    def relaxation(
        self, lower: Float64[Tensor, "*batch n"], upper: Float64[Tensor, "*batch n"]
    ) -> tuple[
        Float64[Tensor, "*batch n"],
        Float64[Tensor, "*batch n"],
        Float64[Tensor, "*batch n"],
        Float64[Tensor, "*batch n"],
    ]:
        """Below: the branch of the farther end. Above: the chord."""
        below = torch.where(0 <= lower + upper, 1.0, -1.0).to(lower)
        chord = (upper.abs() - lower.abs()) / (upper - lower)
        above = torch.where(lower < upper, chord, below)
        return below, torch.zeros_like(lower), above, upper.abs() - above * upper
