"""The arc tangent, the inverse hyperbolic sine, and the hyperbolic sine and cosine."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from verifier.network.activations.piecewise import Smooth
from verifier.network.activations.restricted import Restricted


@dataclass(frozen=True, slots=True, eq=False)
class Atan(Smooth):
    """atan(x)."""

    @property
    def breaks(self) -> tuple[float, ...]:
        """The point of inflection."""
        return (0.0,)

    def forward(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """atan(x)."""
        return x.atan()

    def derivative(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """1 / (1 + x^2)."""
        return (1 + x.square()).reciprocal()


@dataclass(frozen=True, slots=True, eq=False)
class Asinh(Smooth):
    """log(x + sqrt(1 + x^2))."""

    @property
    def breaks(self) -> tuple[float, ...]:
        """The point of inflection."""
        return (0.0,)

    def forward(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """asinh(x)."""
        return x.asinh()

    def derivative(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """1 / sqrt(1 + x^2)."""
        return torch.hypot(x, torch.ones_like(x)).reciprocal()


@dataclass(frozen=True, slots=True, eq=False)
class _Hyperbolic(Restricted):
    """Defined everywhere; finite in float64 only within some 710 of 0."""

    def _holds(
        self, lower: Float64[Tensor, "*batch n"], upper: Float64[Tensor, "*batch n"]
    ) -> Bool[Tensor, "*batch n"]:
        return torch.maximum(-lower, upper).cosh() < torch.inf


@dataclass(frozen=True, slots=True, eq=False)
class Sinh(_Hyperbolic):
    """(e^x - e^-x)/2."""

    @property
    def breaks(self) -> tuple[float, ...]:
        """The point of inflection."""
        return (0.0,)

    def forward(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """sinh(x)."""
        return x.sinh()

    def derivative(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """cosh(x)."""
        return x.cosh()


@dataclass(frozen=True, slots=True, eq=False)
class Cosh(_Hyperbolic):
    """(e^x + e^-x)/2: convex."""

    def forward(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """cosh(x)."""
        return x.cosh()

    def derivative(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """sinh(x)."""
        return x.sinh()
