"""An activation with rescaled axes: compounds whose constants are other operators'."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float64
from torch import Tensor

from verifier.network.activations.piecewise import Piecewise


@dataclass(frozen=True, slots=True, eq=False)
class Scaled(Piecewise):
    """factor f(inner x); neither is 0."""

    function: Piecewise
    factor: float
    inner: float = 1.0

    @property
    def breaks(self) -> tuple[float, ...]:
        """Those of f, divided by inner."""
        return tuple(sorted(place / self.inner for place in self.function.breaks))

    @property
    def kinks(self) -> tuple[float, ...]:
        """Those of f."""
        return self.function.kinks

    def forward(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """Factor f(inner x)."""
        return self.factor * self.function.forward(self.inner * x)

    def sides(
        self, x: Float64[Tensor, "*batch n"]
    ) -> tuple[Float64[Tensor, "*batch n"], Float64[Tensor, "*batch n"]]:
        """The multiples of f's derivatives; left and right change places where inner < 0."""
        left, right = self.function.sides(self.inner * x)
        if self.inner < 0:
            left, right = right, left
        slope = self.factor * self.inner
        return slope * left, slope * right
