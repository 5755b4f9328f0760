"""What lines would cost, counted before they are carried: multiplications with the maps.

Counts and no clock decide what is run: the same question has the same answer on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.methods.propagation.copies import ancestors, derivatives_by, readers_of
from verifier.network.graph import Network
from verifier.network.linear_map import Adjoint, Composed, Convolution, Dense, LinearMap
from verifier.network.nodes import Elementwise, Lowered, Product

MOST_FORWARD = 5e10  #: multiplications for the bounds of all pre-activations, by lines
MOST_JACOBIAN = 1e10  #: and for the Jacobian's, which semidefinite bounds better where it is large
MOST_BEFORE = 1e9  #: for those where semidefinite bounds follow, which are better in any case


def multiplications(linear: LinearMap) -> int:
    """Of one row with the map, or with its adjoint."""
    match linear:
        case Dense():
            return linear.weight.numel()
        case Convolution():
            return linear.out_size * linear.kernel[0].numel()
        case Adjoint():
            return multiplications(linear.of)
        case Composed():
            return multiplications(linear.first) + multiplications(linear.second)
        case _:
            return max(linear.in_size, linear.out_size)


def of_node(node: Lowered) -> int:
    """Of one row with all that a node does."""
    if isinstance(node, Elementwise | Product):
        return len(node.sources) * node.size
    return sum(multiplications(term.map) for term in node.terms)


def pulled_back(lowered: Network) -> dict[str, int]:
    """Of one linear function of a signal, from there to the input; at most."""
    costs, total = {"": 0}, 0
    for node in _nodes(lowered):
        total += of_node(node)
        costs[node.name] = total
    return costs


def jacobian_work(
    lowered: Network,
    slopes: Mapping[str, tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]],
    rows: int,
    inputs: int,
) -> float:
    """Of bounds by lines of every derivative at an open gate and at the inputs, both ways."""
    behind, work = 0, 0.0
    readers = readers_of(lowered, ancestors(lowered))
    for node in reversed(_nodes(lowered)):
        if isinstance(node, Elementwise):
            least, greatest = slopes[node.gate]
            origin = derivatives_by(lowered, readers, node.name)
            work += 2.0 * rows * len(torch.unique(origin.index[least < greatest])) * behind
        behind += of_node(node)
    return work + 2.0 * rows * inputs * behind


def _nodes(lowered: Network) -> list[Lowered]:
    nodes: list[Lowered] = []
    for node in lowered.nodes:
        if not isinstance(node, Lowered):
            raise TypeError(f"node {node.name!r} is not lowered")
        nodes.append(node)
    return nodes
