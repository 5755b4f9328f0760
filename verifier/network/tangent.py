"""The increments of a network over a region as a network of affine nodes and gates alone.

d(x y) = y dx + x dy: over a region the factors of a product lie within intervals, so that its
increment is a sum of two gates, one that multiplies dx by a number within the bounds of y, and one
that multiplies dy by a number within those of x. Gates of a product p:

    "p:left"    multiplies the increment of the left factor, by values of the right one,
    "p:right"   the other way round.

Every matrix of the Clarke Jacobian is the Jacobian of the result for some numbers within the
ranges, independent of each other. What bounds those is all that Jacobians and increments need.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.network.graph import Network, Node
from verifier.network.linear_map import Identity
from verifier.network.nodes import Elementwise, Product, Term, linear

Range: TypeAlias = tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]


def left_gate(product: str) -> str:
    """What multiplies the increment of a product's left factor."""
    return f"{product}:left"


def right_gate(product: str) -> str:
    """What multiplies the increment of a product's right factor."""
    return f"{product}:right"


def tangent(network: Network, ranges: Mapping[str, Range] | None = None) -> Network:
    """The network with every product in the place of which its increment stands.

    Args:
        network: lowered or not.
        ranges: what the gates multiply by, where that holds for all inputs.
    """
    if not any(isinstance(node, Product) for node in network.nodes):
        return network
    return replace(network, nodes=tuple(_tangents(network, ranges or {})))


def _tangents(network: Network, ranges: Mapping[str, Range]) -> Iterator[Node]:
    for node in network.nodes:
        if not isinstance(node, Product):
            yield node
            continue
        gates = (left_gate(node.name), node.left), (right_gate(node.name), node.right)
        for gate, factor in gates:
            multiplier = Multiplier(node.size, ranges.get(gate))
            yield Elementwise(gate, factor, multiplier, gate=gate)
        yield linear(node.name, [Term(gate, Identity(node.size)) for gate, _ in gates])


@dataclass(frozen=True, slots=True, eq=False)
class Multiplier:
    """s x for a number s of which nothing is known but its range, and that of a region not here."""

    size: int
    range: Range | None = None  #: what s lies within for all inputs

    def forward(self, x: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
        """No number: it is no function."""
        return torch.full_like(x, torch.nan)

    def slope_range(self) -> Range:
        """The range; all slopes where there is none."""
        if self.range is not None:
            return self.range
        endless = torch.full((self.size,), torch.inf, dtype=torch.float64)
        return -endless, endless

    def slope_range_on(
        self,
        lower: Float64[Tensor, "*batch n"],
        upper: Float64[Tensor, "*batch n"],  # noqa: ARG002 (whatever the increment)
    ) -> tuple[Float64[Tensor, "*batch n"], Float64[Tensor, "*batch n"]]:
        """All slopes."""
        endless = torch.full_like(lower, torch.inf)
        return -endless, endless

    def image(
        self, lower: Float64[Tensor, "*batch n"], upper: Float64[Tensor, "*batch n"]
    ) -> tuple[Float64[Tensor, "*batch n"], Float64[Tensor, "*batch n"]]:
        """All values."""
        return self.slope_range_on(lower, upper)

    def offsets(
        self,
        lower: Float64[Tensor, "*batch n"],
        upper: Float64[Tensor, "*batch n"],
        below: Float64[Tensor, "*batch n"],  # noqa: ARG002 (whatever the slopes)
        above: Float64[Tensor, "*batch n"],  # noqa: ARG002
    ) -> tuple[Float64[Tensor, "*batch n"], Float64[Tensor, "*batch n"]]:
        """None that are finite."""
        return self.slope_range_on(lower, upper)

    def relaxation(
        self, lower: Float64[Tensor, "*batch n"], upper: Float64[Tensor, "*batch n"]
    ) -> tuple[
        Float64[Tensor, "*batch n"],
        Float64[Tensor, "*batch n"],
        Float64[Tensor, "*batch n"],
        Float64[Tensor, "*batch n"],
    ]:
        """None that are finite."""
        flat, (least, greatest) = torch.zeros_like(lower), self.slope_range_on(lower, upper)
        return flat, least, flat, greatest
