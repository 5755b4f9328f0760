"""Functions with a restricted domain, or with slopes that grow without end.

A fact on an interval that leaves the domain is infinite: it says that nothing is known there.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from verifier.network.activations.piecewise import Smooth

_Interval: TypeAlias = tuple[Float64[Tensor, "*batch n"], Float64[Tensor, "*batch n"]]


@dataclass(frozen=True, slots=True, eq=False)
class Restricted(Smooth):
    """A function that is smooth within its domain; its slopes have no bound there."""

    @property
    def breaks(self) -> tuple[float, ...]:
        """None: the derivative is monotone on every interval of the domain."""
        return ()

    @abstractmethod
    def _holds(
        self, lower: Float64[Tensor, "*batch n"], upper: Float64[Tensor, "*batch n"]
    ) -> Bool[Tensor, "*batch n"]:
        """Whether the slopes on [lower, upper] are finite, and it lies in the domain."""

    def slope_range(self) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]:
        """All slopes."""
        endless = torch.full((self.size,), torch.inf, dtype=torch.float64)
        return -endless, endless

    def slope_range_on(
        self, lower: Float64[Tensor, "*batch n"], upper: Float64[Tensor, "*batch n"]
    ) -> tuple[Float64[Tensor, "*batch n"], Float64[Tensor, "*batch n"]]:
        """Every slope on the closed [lower, upper] lies within."""
        holds, ends = self._within(lower, upper)
        return _or_endless(holds, Smooth.slope_range_on(self, *ends))

    def offsets(
        self,
        lower: Float64[Tensor, "*batch n"],
        upper: Float64[Tensor, "*batch n"],
        below: Float64[Tensor, "*batch n"],
        above: Float64[Tensor, "*batch n"],
    ) -> tuple[Float64[Tensor, "*batch n"], Float64[Tensor, "*batch n"]]:
        """(c, d) with below x + c <= f(x) <= above x + d on [lower, upper]."""
        holds, ends = self._within(lower, upper)
        return _or_endless(holds, Smooth.offsets(self, *ends, below, above))

    def relaxation(
        self, lower: Float64[Tensor, "*batch n"], upper: Float64[Tensor, "*batch n"]
    ) -> tuple[
        Float64[Tensor, "*batch n"],
        Float64[Tensor, "*batch n"],
        Float64[Tensor, "*batch n"],
        Float64[Tensor, "*batch n"],
    ]:
        """(a, b, c, d) with a x + b <= f(x) <= c x + d on [lower, upper]."""
        holds, ends = self._within(lower, upper)
        below, _, above, _ = Smooth.relaxation(self, *ends)
        below, above = torch.where(holds, below, 0.0), torch.where(holds, above, 0.0)
        least, greatest = self.offsets(lower, upper, below, above)
        return below, least, above, greatest

    def _within(
        self, lower: Float64[Tensor, "*batch n"], upper: Float64[Tensor, "*batch n"]
    ) -> tuple[Bool[Tensor, "*batch n"], _Interval]:
        """Where facts hold, and intervals with 1 in the place of the others."""
        holds = self._holds(lower, upper)
        return holds, (torch.where(holds, lower, 1.0), torch.where(holds, upper, 1.0))


def _or_endless(holds: Bool[Tensor, "*batch n"], found: _Interval) -> _Interval:
    least, greatest = found
    return torch.where(holds, least, -torch.inf), torch.where(holds, greatest, torch.inf)


@dataclass(frozen=True, slots=True, eq=False)
class Exp(Restricted):
    """e^x."""

    def forward(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """e^x."""
        return x.exp()

    def derivative(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """e^x."""
        return x.exp()

    def _holds(
        self,
        lower: Float64[Tensor, "*batch n"],  # noqa: ARG002 (it falls to 0 on the left)
        upper: Float64[Tensor, "*batch n"],
    ) -> Bool[Tensor, "*batch n"]:
        return upper.exp() < torch.inf


@dataclass(frozen=True, slots=True, eq=False)
class Log(Restricted):
    """The natural logarithm, for 0 < x."""

    def forward(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """log(x)."""
        return x.log()

    def derivative(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """1/x."""
        return x.reciprocal()

    def _holds(
        self,
        lower: Float64[Tensor, "*batch n"],
        upper: Float64[Tensor, "*batch n"],
    ) -> Bool[Tensor, "*batch n"]:
        return (0 < lower) & (lower.reciprocal() < torch.inf) & (upper < torch.inf)


@dataclass(frozen=True, slots=True, eq=False)
class Power(Restricted):
    """x^p for a constant p other than 0 and 1: squares, roots, reciprocals.

    For integers p all x but 0 where p < 0; for others 0 < x, and 0 as well where 1 < p.
    """

    exponent: float

    @property
    def breaks(self) -> tuple[float, ...]:
        """0, where an odd power bends the other way."""
        return (0.0,) if self._is_whole and 0 < self.exponent else ()

    @property
    def _is_whole(self) -> bool:
        return self.exponent == int(self.exponent)

    def forward(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """x^p."""
        return x**self.exponent

    def derivative(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """p x^(p - 1)."""
        return self.exponent * x ** (self.exponent - 1)

    def _holds(
        self, lower: Float64[Tensor, "*batch n"], upper: Float64[Tensor, "*batch n"]
    ) -> Bool[Tensor, "*batch n"]:
        ends = torch.stack((lower, upper))
        finite = (self.forward(ends).isfinite() & self.derivative(ends).isfinite()).all(dim=0)
        if self._is_whole:
            return finite if 0 < self.exponent else finite & ((0 < lower) | (upper < 0))
        return finite & ((0 <= lower) if 1 < self.exponent else (0 < lower))


@dataclass(frozen=True, slots=True, eq=False)
class RootOfSquare(Smooth):
    """sqrt(c + a x^2) with 0 < a, 0 < c: convex, with slopes between -sqrt(a) and sqrt(a)."""

    scale: float  #: a
    shift: float  #: c

    def __post_init__(self) -> None:
        if not (0 < self.scale and 0 < self.shift):
            raise ValueError(f"scale {self.scale}, shift {self.shift}: positive ones are expected")

    @property
    def breaks(self) -> tuple[float, ...]:
        """None: the derivative rises."""
        return ()

    def forward(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """sqrt(c + a x^2)."""
        return (self.shift + self.scale * x.square()).sqrt()

    def derivative(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """a x / sqrt(c + a x^2), in a form that does not overflow."""
        size = x.abs()
        root = (self.shift / size.clamp(min=1e-300).square() + self.scale).sqrt()
        return self.scale * torch.where(size < 1e-150, 0.0, x.sign() / root)


@dataclass(frozen=True, slots=True, eq=False)
class LogSigmoid(Smooth):
    """-log(1 + e^-x): concave."""

    @property
    def breaks(self) -> tuple[float, ...]:
        """None: the derivative falls."""
        return ()

    def forward(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """-log(1 + e^-x)."""
        return -torch.logaddexp(-x, torch.zeros_like(x))

    def derivative(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """1 / (1 + e^x)."""
        return (-x).sigmoid()
