"""Activations with a derivative everywhere, and at most two points of inflection."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.network.activations.piecewise import Smooth


@dataclass(frozen=True, slots=True, eq=False)
class Tanh(Smooth):
    """tanh(x)."""

    @property
    def breaks(self) -> tuple[float, ...]:
        """The point of inflection."""
        return (0.0,)

    def forward(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """tanh(x)."""
        return x.tanh()

    def derivative(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """1 - tanh(x)^2, without its cancellation."""
        return 4 * _bell(2 * x)


@dataclass(frozen=True, slots=True, eq=False)
class Sigmoid(Smooth):
    """1 / (1 + e^-x)."""

    @property
    def breaks(self) -> tuple[float, ...]:
        """The point of inflection."""
        return (0.0,)

    def forward(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """1 / (1 + e^-x)."""
        return x.sigmoid()

    def derivative(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """s(x) s(-x)."""
        return _bell(x)


@dataclass(frozen=True, slots=True, eq=False)
class Softplus(Smooth):
    """log(1 + e^x): convex."""

    @property
    def breaks(self) -> tuple[float, ...]:
        """None: the derivative rises."""
        return ()

    def forward(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """log(1 + e^x)."""
        return _softplus(x)

    def derivative(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """1 / (1 + e^-x)."""
        return x.sigmoid()


@dataclass(frozen=True, slots=True, eq=False)
class Erf(Smooth):
    """erf(x) = 2/sqrt(pi) times the integral of exp(-t^2) from 0 to x."""

    @property
    def breaks(self) -> tuple[float, ...]:
        """The point of inflection."""
        return (0.0,)

    def forward(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """erf(x)."""
        return x.erf()

    def derivative(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """2/sqrt(pi) exp(-x^2)."""
        return 2 / math.sqrt(math.pi) * (-x.square()).exp()


@dataclass(frozen=True, slots=True, eq=False)
class Softsign(Smooth):
    """x / (1 + |x|)."""

    @property
    def breaks(self) -> tuple[float, ...]:
        """The point of inflection."""
        return (0.0,)

    def forward(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """`x / (1 + |x|)`."""
        return x / (1 + x.abs())

    def derivative(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """1 / (1 + |x|)^2."""
        return (1 + x.abs()).reciprocal().square()

    def slope_range(self) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]:
        """[0, 1]: 0 is approached too slowly to be met in float64."""
        ones = torch.ones(self.size, dtype=torch.float64)
        return torch.zeros_like(ones), ones


@dataclass(frozen=True, slots=True, eq=False)
class Gelu(Smooth):
    """x Phi(x), Phi the normal distribution function: GELU by erf."""

    @property
    def breaks(self) -> tuple[float, ...]:
        """(x Phi)'' = (2 - x^2) phi."""
        return (-math.sqrt(2), math.sqrt(2))

    def forward(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """`x Phi(x)`."""
        return x * _normal(x)

    def derivative(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """Phi(x) + x phi(x)."""
        density = (-x.square() / 2).exp() / math.sqrt(2 * math.pi)
        return _normal(x) + x * density


@dataclass(frozen=True, slots=True, eq=False)
class GeluTanh(Smooth):
    """x (1 + tanh g(x))/2 with g(x) = sqrt(2/pi) (x + 0.044715 x^3): GELU by tanh."""

    @property
    def breaks(self) -> tuple[float, ...]:
        """Where f'' = 0, to the nearest float64."""
        return (-1.4185040087908284, 1.4185040087908284)

    def forward(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """`x s(2 g(x))`, s the sigmoid."""
        return x * (2 * self._inner(x)).sigmoid()

    def derivative(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """`s + 2 x g' s (1 - s)`."""
        rise = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x.square())
        inner = 2 * self._inner(x)
        return inner.sigmoid() + 2 * x * rise * _bell(inner)

    @staticmethod
    def _inner(x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        return math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)


@dataclass(frozen=True, slots=True, eq=False)
class Silu(Smooth):
    """x s(c x), s the sigmoid: SiLU for c = 1, QuickGELU for 1.702; 0 < c."""

    scale: float = 1.0  #: c

    def __post_init__(self) -> None:
        if not 0 < self.scale:
            raise ValueError(f"SiLU with scale {self.scale}: 0 < scale is expected")

    @property
    def breaks(self) -> tuple[float, ...]:
        """Where f'' = 0: x tanh(x/2) = 2 for c = 1, to the nearest float64."""
        return (-2.3993572805154677 / self.scale, 2.3993572805154677 / self.scale)

    def forward(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """`x s(c x)`."""
        return x * (self.scale * x).sigmoid()

    def derivative(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """`s + c x s (1 - s)`."""
        inner = self.scale * x
        return inner.sigmoid() + inner * _bell(inner)


@dataclass(frozen=True, slots=True, eq=False)
class Mish(Smooth):
    """x tanh(log(1 + e^x))."""

    @property
    def breaks(self) -> tuple[float, ...]:
        """Where f'' = 0, to the nearest float64."""
        return (-2.256376396360793, 1.4905711794854285)

    def forward(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """`x tanh(softplus(x))`."""
        return x * _softplus(x).tanh()

    def derivative(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """tanh(p) + x s(x) (1 - tanh(p)^2) with p = softplus(x)."""
        inner = _softplus(x)
        return inner.tanh() + x * x.sigmoid() * 4 * _bell(2 * inner)


def _softplus(x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
    """log(1 + e^x)."""
    # not torch's softplus: from 20 on that is x itself, wrong by 2e-9
    return torch.logaddexp(x, torch.zeros_like(x))


def _bell(x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
    """s(x) s(-x), the derivative of the sigmoid s."""
    return x.sigmoid() * (-x).sigmoid()


def _normal(x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
    """The normal distribution function, by erfc since erf cancels for x < 0."""
    return torch.special.erfc(x / -math.sqrt(2)) / 2
