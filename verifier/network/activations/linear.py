"""Activations made of straight pieces."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.network.activations.piecewise import PiecewiseLinear


@dataclass(frozen=True, slots=True, eq=False)
class Abs(PiecewiseLinear):
    """|x|."""

    @property
    def breaks(self) -> tuple[float, ...]:
        """The kink."""
        return (0.0,)

    @property
    def slopes(self) -> tuple[float, ...]:
        """Mirrored at 0."""
        return (-1.0, 1.0)

    def forward(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """|x|."""
        return x.abs()


@dataclass(frozen=True, slots=True, eq=False)
class Relu(PiecewiseLinear):
    """max(x, 0)."""

    @property
    def breaks(self) -> tuple[float, ...]:
        """The kink."""
        return (0.0,)

    @property
    def slopes(self) -> tuple[float, ...]:
        """Off, on."""
        return (0.0, 1.0)

    def forward(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """max(x, 0)."""
        return x.clamp(min=0)


@dataclass(frozen=True, slots=True, eq=False)
class LeakyRelu(PiecewiseLinear):
    """x, times `slope` where it is negative."""

    slope: float

    @property
    def breaks(self) -> tuple[float, ...]:
        """The kink."""
        return (0.0,)

    @property
    def slopes(self) -> tuple[float, ...]:
        """Leaking, on."""
        return (self.slope, 1.0)

    def forward(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """Either x or slope x."""
        return torch.where(x < 0, self.slope * x, x)


@dataclass(frozen=True, slots=True, eq=False)
class Bent(PiecewiseLinear):
    """height at `at`, and straight on both sides of it."""

    at: float
    height: float
    below: float  #: the slope left of `at`
    above: float  #: the slope right of it

    @property
    def breaks(self) -> tuple[float, ...]:
        """The kink."""
        return (self.at,)

    @property
    def slopes(self) -> tuple[float, ...]:
        """Left, right."""
        return (self.below, self.above)

    def forward(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """One line or the other."""
        run = x - self.at
        return self.height + torch.where(run < 0, self.below * run, self.above * run)


@dataclass(frozen=True, slots=True, eq=False)
class PRelu(PiecewiseLinear):
    """x, times the entry's own slope where it is negative."""

    negative: Float64[Tensor, " n"]  #: the slope of every entry

    @property
    def breaks(self) -> tuple[float, ...]:
        """The kink."""
        return (0.0,)

    @property
    def slopes(self) -> tuple[float | Float64[Tensor, " n"], ...]:
        """Leaking, on."""
        return (self.negative, 1.0)

    def forward(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """Either x or slope x."""
        return torch.where(x < 0, self.negative * x, x)


@dataclass(frozen=True, slots=True, eq=False)
class Clip(PiecewiseLinear):
    """x, kept within [lower, upper]; an end may be infinite."""

    lower: float
    upper: float

    def __post_init__(self) -> None:
        if not self.lower <= self.upper:
            raise ValueError(f"clip to [{self.lower}, {self.upper}]: the limits are crossed")

    @property
    def breaks(self) -> tuple[float, ...]:
        """The two limits."""
        return (self.lower, self.upper)

    @property
    def slopes(self) -> tuple[float, ...]:
        """Held, free, held."""
        return (0.0, 1.0, 0.0)

    def forward(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """The nearest number within the limits."""
        return x.clamp(self.lower, self.upper)


@dataclass(frozen=True, slots=True, eq=False)
class Confined(PiecewiseLinear):
    """x, where something other than its interval says that x lies within [lower, upper]."""

    lower: float
    upper: float

    @property
    def breaks(self) -> tuple[float, ...]:
        """None."""
        return ()

    @property
    def slopes(self) -> tuple[float, ...]:
        """Straight."""
        return (1.0,)

    def forward(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """x."""
        return x

    def image(
        self, lower: Float64[Tensor, "*batch n"], upper: Float64[Tensor, "*batch n"]
    ) -> tuple[Float64[Tensor, "*batch n"], Float64[Tensor, "*batch n"]]:
        """The part of the interval where x can be."""
        return lower.clamp(self.lower, self.upper), upper.clamp(self.lower, self.upper)


@dataclass(frozen=True, slots=True, eq=False)
class SoftShrink(PiecewiseLinear):
    """x moved by `limit` towards 0, and 0 where it is nearer; 0 < limit."""

    limit: float

    @property
    def breaks(self) -> tuple[float, ...]:
        """The two limits."""
        return (-self.limit, self.limit)

    @property
    def slopes(self) -> tuple[float, ...]:
        """Free, held, free."""
        return (1.0, 0.0, 1.0)

    def forward(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """What is left beyond the limits."""
        return x - x.clamp(-self.limit, self.limit)


@dataclass(frozen=True, slots=True, eq=False)
class HardSigmoid(PiecewiseLinear):
    """alpha x + beta, kept within [0, 1]; 0 < alpha."""

    alpha: float
    beta: float

    def __post_init__(self) -> None:
        if not 0 < self.alpha:
            raise ValueError(f"hard sigmoid with alpha {self.alpha}: 0 < alpha is expected")

    @property
    def breaks(self) -> tuple[float, ...]:
        """Where 0 and where 1 is reached."""
        return (-self.beta / self.alpha, (1 - self.beta) / self.alpha)

    @property
    def kinks(self) -> tuple[float, ...]:
        """None that is known to be a float64 number: quotients round."""
        return ()

    @property
    def slopes(self) -> tuple[float, ...]:
        """Held, rising, held."""
        return (0.0, self.alpha, 0.0)

    def forward(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """min(max(alpha x + beta, 0), 1)."""
        return (self.alpha * x + self.beta).clamp(0, 1)
