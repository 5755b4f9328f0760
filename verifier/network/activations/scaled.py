"""A positive multiple of an activation: compounds whose last constant is another operator's."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float64
from torch import Tensor

from verifier.network.activations.piecewise import Piecewise


@dataclass(frozen=True, slots=True, eq=False)
class Scaled(Piecewise):
    """factor f(x), 0 < factor."""

    function: Piecewise
    factor: float

    @property
    def breaks(self) -> tuple[float, ...]:
        """Those of f."""
        return self.function.breaks

    @property
    def kinks(self) -> tuple[float, ...]:
        """Those of f."""
        return self.function.kinks

    def forward(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """Factor f(x)."""
        return self.factor * self.function.forward(x)

    def sides(
        self, x: Float64[Tensor, "*batch n"]
    ) -> tuple[Float64[Tensor, "*batch n"], Float64[Tensor, "*batch n"]]:
        """The multiples of f's derivatives."""
        left, right = self.function.sides(x)
        return self.factor * left, self.factor * right
