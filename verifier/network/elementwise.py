"""What every method may ask a scalar activation, and the activations.

Facts are for the search, in plain float64; the checker has its own, proved.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Float64
from torch import Tensor

from verifier.network.activations.arcs import Asinh, Atan, Cosh, Sinh
from verifier.network.activations.kinked import Celu, Elu, HardSwish, Selu
from verifier.network.activations.linear import (
    Abs,
    Bent,
    Clip,
    Confined,
    HardSigmoid,
    LeakyRelu,
    PRelu,
    Relu,
    SoftShrink,
)
from verifier.network.activations.restricted import Exp, Log, LogSigmoid, Power, RootOfSquare
from verifier.network.activations.scaled import Scaled
from verifier.network.activations.smooth import (
    Erf,
    Gelu,
    GeluTanh,
    Mish,
    Sigmoid,
    Silu,
    Softplus,
    Softsign,
    Tanh,
)
from verifier.network.activations.waves import Cos, Sin

__all__ = [
    "Abs",
    "Activation",
    "Asinh",
    "Atan",
    "Bent",
    "Celu",
    "Clip",
    "Confined",
    "Cos",
    "Cosh",
    "Elu",
    "Erf",
    "Exp",
    "Gelu",
    "GeluTanh",
    "HardSigmoid",
    "HardSwish",
    "LeakyRelu",
    "Log",
    "LogSigmoid",
    "Mish",
    "PRelu",
    "Power",
    "Relu",
    "RootOfSquare",
    "Scaled",
    "Selu",
    "Sigmoid",
    "Silu",
    "Sin",
    "Sinh",
    "SoftShrink",
    "Softplus",
    "Softsign",
    "Tanh",
]


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

    def offsets(
        self,
        lower: Float64[Tensor, "*batch n"],
        upper: Float64[Tensor, "*batch n"],
        below: Float64[Tensor, "*batch n"],
        above: Float64[Tensor, "*batch n"],
    ) -> tuple[Float64[Tensor, "*batch n"], Float64[Tensor, "*batch n"]]:
        """(c, d) with below x + c <= f(x) <= above x + d on [lower, upper], for any slopes."""
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
