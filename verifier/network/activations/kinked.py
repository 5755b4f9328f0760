"""Activations with curved pieces that meet in kinks."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.network.activations.piecewise import Piecewise


@dataclass(frozen=True, slots=True, eq=False)
class HardSwish(Piecewise):
    """x min(max(x/6 + 1/2, 0), 1): a parabola between -3 and 3."""

    @property
    def breaks(self) -> tuple[float, ...]:
        """The two kinks; between them the derivative rises."""
        return (-3.0, 3.0)

    def forward(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """`x min(max(x/6 + 1/2, 0), 1)`."""
        return x * (x / 6 + 0.5).clamp(0, 1)

    def sides(
        self, x: Float64[Tensor, "*batch n"]
    ) -> tuple[Float64[Tensor, "*batch n"], Float64[Tensor, "*batch n"]]:
        """0, x/3 + 1/2, 1."""
        inner, zero = x / 3 + 0.5, torch.zeros_like(x)
        left = torch.where(x <= -3, zero, torch.where(x <= 3, inner, 1.0))
        right = torch.where(x < -3, zero, torch.where(x < 3, inner, 1.0))
        return left, right


@dataclass(frozen=True, slots=True, eq=False)
class _Exponential(Piecewise):
    """scale x for 0 <= x, and scale height (e^(x/length) - 1) below."""

    @property
    @abstractmethod
    def _shape(self) -> tuple[float, float, float]:
        """(scale, height, length)."""

    @property
    def breaks(self) -> tuple[float, ...]:
        """Where the pieces meet: a kink unless height = length."""
        return (0.0,)

    def forward(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """The line, or the exponential piece."""
        scale, height, length = self._shape
        return scale * torch.where(x < 0, height * (x.clamp(max=0) / length).expm1(), x)

    def sides(
        self, x: Float64[Tensor, "*batch n"]
    ) -> tuple[Float64[Tensor, "*batch n"], Float64[Tensor, "*batch n"]]:
        """Scale height/length e^(x/length), or scale."""
        scale, height, length = self._shape
        curved = scale * (height / length) * (x.clamp(max=0) / length).exp()
        return torch.where(x <= 0, curved, scale), torch.where(x < 0, curved, scale)


@dataclass(frozen=True, slots=True, eq=False)
class Elu(_Exponential):
    """x for 0 <= x, alpha (e^x - 1) below."""

    alpha: float

    @property
    def _shape(self) -> tuple[float, float, float]:
        return 1.0, self.alpha, 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Selu(_Exponential):
    """gamma x for 0 <= x, gamma alpha (e^x - 1) below."""

    alpha: float
    gamma: float

    @property
    def _shape(self) -> tuple[float, float, float]:
        return self.gamma, self.alpha, 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Celu(_Exponential):
    """x for 0 <= x, alpha (e^(x/alpha) - 1) below; 0 < alpha."""

    alpha: float

    def __post_init__(self) -> None:
        if not 0 < self.alpha:
            raise ValueError(f"CELU with alpha {self.alpha}: 0 < alpha is expected")

    @property
    def _shape(self) -> tuple[float, float, float]:
        return 1.0, self.alpha, self.alpha
