"""A positive multiple of an activation: compounds whose last constant is another operator's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Float64
from torch import Tensor

if TYPE_CHECKING:
    from verifier.network.elementwise import Activation


@dataclass(frozen=True, slots=True)
class Scaled:
    """factor f(x), 0 < factor."""

    function: Activation
    factor: float

    @property
    def size(self) -> int:
        """The number of entries."""
        return self.function.size

    def forward(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """Factor f(x)."""
        return self.factor * self.function.forward(x)

    def slope_range(self) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]:
        """The multiple of f's range."""
        lower, upper = self.function.slope_range()
        return self.factor * lower, self.factor * upper

    def slope_range_on(
        self, lower: Float64[Tensor, "*batch n"], upper: Float64[Tensor, "*batch n"]
    ) -> tuple[Float64[Tensor, "*batch n"], Float64[Tensor, "*batch n"]]:
        """The multiple of f's range."""
        least, greatest = self.function.slope_range_on(lower, upper)
        return self.factor * least, self.factor * greatest

    def image(
        self, lower: Float64[Tensor, "*batch n"], upper: Float64[Tensor, "*batch n"]
    ) -> tuple[Float64[Tensor, "*batch n"], Float64[Tensor, "*batch n"]]:
        """The multiple of f's image."""
        least, greatest = self.function.image(lower, upper)
        return self.factor * least, self.factor * greatest

    def offsets(
        self,
        lower: Float64[Tensor, "*batch n"],
        upper: Float64[Tensor, "*batch n"],
        below: Float64[Tensor, "*batch n"],
        above: Float64[Tensor, "*batch n"],
    ) -> tuple[Float64[Tensor, "*batch n"], Float64[Tensor, "*batch n"]]:
        """The multiples of f's offsets, for the slopes divided by the factor."""
        factor = self.factor
        down, up = self.function.offsets(lower, upper, below / factor, above / factor)
        return factor * down, factor * up

    def relaxation(
        self, lower: Float64[Tensor, "*batch n"], upper: Float64[Tensor, "*batch n"]
    ) -> tuple[
        Float64[Tensor, "*batch n"],
        Float64[Tensor, "*batch n"],
        Float64[Tensor, "*batch n"],
        Float64[Tensor, "*batch n"],
    ]:
        """The multiples of f's lines."""
        a, b, c, d = self.function.relaxation(lower, upper)
        return self.factor * a, self.factor * b, self.factor * c, self.factor * d
