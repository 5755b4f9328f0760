"""The slopes of secants: an activation's own everywhere, or those that a region leaves.

Over a convex region the segment from x to y stays within it, and every pre-activation between its
forward bounds; the secant's slope is a mean of Clarke slopes there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.certificate import ForwardProof, SlopeRange
from verifier.methods.domain import Domain
from verifier.methods.propagation import affordable
from verifier.network.activations.piecewise import PiecewiseLinear
from verifier.network.everywhere import require_bounded_everywhere
from verifier.network.graph import Network
from verifier.network.nodes import Elementwise, Product
from verifier.network.tangent import left_gate, right_gate
from verifier.regions import Bounded

WIDENED = 1e-9  #: share by which intervals grow, so that they hold the checker's, rounded outward
_SLOPES_WIDENED = 1e-11


@dataclass(frozen=True, slots=True, eq=False)
class Slopes:
    """Every secant of each entry of a gate has a slope within [lower, upper]."""

    lower: Float64[Tensor, " n"]
    upper: Float64[Tensor, " n"]

    def proved(self) -> SlopeRange:
        """The same, as certificates store it."""
        return SlopeRange(lower=self.lower.numpy(), upper=self.upper.numpy())


def global_slopes(network: Network) -> dict[str, Slopes]:
    """The slopes of every elementwise node's secants anywhere, by gate.

    Raises:
        NotLipschitzGlobally: an activation, or a product, has secants of every slope.
    """
    require_bounded_everywhere(network)
    slopes: dict[str, Slopes] = {}
    for node in network.nodes:
        if isinstance(node, Elementwise):
            slopes[node.gate] = Slopes(*node.function.slope_range())
    return slopes


def local_slopes(network: Network, region: Bounded) -> tuple[dict[str, Slopes], ForwardProof]:
    """The slopes of every gate's secants within a region, and how to prove them.

    Args:
        network: without groups; the gates are those of its tangent.
        region: convex, as all regions are.
    """
    forward, entering = affordable(network, Domain.of(region, network.input_size))
    slopes: dict[str, Slopes] = {}
    for node in network.nodes:
        match node:
            case Elementwise():
                slopes[node.gate] = _slopes_on(node, *entering[node.gate])
            case Product():
                left, right = left_gate(node.name), right_gate(node.name)
                slopes[left], slopes[right] = _widened(*entering[right]), _widened(*entering[left])
            case _:
                pass
    return slopes, forward.proof


def _widened(lower: Float64[Tensor, " n"], upper: Float64[Tensor, " n"]) -> Slopes:
    """The values of a factor, which multiply the other one's increment."""
    reach = torch.maximum(lower.abs(), upper.abs())
    pad = WIDENED * (reach + 1e-3 * reach.max())
    return Slopes(lower - pad, upper + pad)


def _slopes_on(
    node: Elementwise, lower: Float64[Tensor, " n"], upper: Float64[Tensor, " n"]
) -> Slopes:
    reach = torch.maximum(lower.abs(), upper.abs())
    pad = WIDENED * (reach + 1e-3 * reach.max())
    least, greatest = node.function.slope_range_on(lower - pad, upper + pad)
    grown = _SLOPES_WIDENED * torch.maximum(least.abs(), greatest.abs())
    if isinstance(node.function, PiecewiseLinear):
        # A straight piece's slope is no rounded number: the gate stays linear there.
        grown = torch.where(least < greatest, grown, 0.0)
    else:
        # In a tail the checker's enclosure is as wide as what cancels there: 1, or the input.
        grown = grown + _SLOPES_WIDENED + 2.0**-50 * reach
    return Slopes(least - grown, greatest + grown)
