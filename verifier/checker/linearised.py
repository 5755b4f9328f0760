"""Blocks over a region as affine nodes that are known up to an error.

For x in a box around c where all derivatives lie in M +- E, entry by entry,

    f(x) - f(y) = W (x - y),

where W, the mean of derivatives along the segment, lies in M +- E. So with the error in its map the
node is right for increments and, reversed, for Jacobians: whoever accounts for the errors of folded
constants needs to know nothing else. For values there is an error in the bias (`block_values`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.arithmetic import Magnitude, above
from verifier.checker.block_maps import derivatives, grouped, sparse
from verifier.checker.definite import NotProved
from verifier.checker.intervals import Interval, affine_image
from verifier.checker.maps import Adjoint, identity
from verifier.checker.network import Affine, Blocks, Term
from verifier.norms import Norm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Float64, Int64

    from verifier.checker.carry import Sparse
    from verifier.checker.network import Map, Network, Node

    Rows = Float64[np.ndarray, "groups n"]


def blocks_image(node: Blocks, entering: Interval) -> Interval:
    """What is known of the values, row by row of the bounds.

    Raises:
        NotProved: a bound is not finite.
    """
    ends = node.function.image(entering.lower[:, node.groups], entering.upper[:, node.groups])
    lower, upper = np.empty((2, len(entering.lower), node.size))
    lower[:, node.groups], upper[:, node.groups] = ends
    return Interval(lower, upper).required_finite(node.name)


def constant_over(node: Blocks, entering: Interval, norm: Norm) -> Magnitude:
    """A number that |f(x) - f(y)| / |x - y| does not exceed within the bounds, in one norm.

    Raises:
        NotProved: there is none that is finite.
    """
    found = node.function.constant_on(norm, *grouped(node, entering))
    if not np.all(np.isfinite(found)):
        raise NotProved(f"node {node.name!r} has no constant over the region")
    return Magnitude.of(float(found.max(initial=0.0)))


@dataclass(frozen=True, slots=True)
class Cap:
    """What is known of g J for rows g and all J of a block, beside how g is carried through it.

    |g J|_inf <= sums |g|_inf within each group; and where the block's gates follow signals, J lies
    in `derivatives` anyway.
    """

    leaving: str  #: the signal that leaves the block
    groups: Int64[np.ndarray, "groups n"]
    sums: Float64[np.ndarray, "groups 1"]
    derivatives: Sparse | None = None  #: with its error

    @staticmethod
    def over(node: Blocks, lower: Rows, upper: Rows) -> Cap:
        """By the norm alone."""
        return Cap(node.name, node.groups, node.function.constant_on(Norm.L1, lower, upper))

    def of(self, gradient: Interval) -> Interval:
        """What is known of g J by that."""
        greatest = gradient.magnitude()[:, self.groups].max(axis=-1, keepdims=True)
        limit = np.empty_like(gradient.lower)
        limit[:, self.groups] = above(greatest * self.sums)
        known = Interval(-limit, limit)
        if self.derivatives is None:
            return known
        back = linear(self.leaving, "g", Adjoint(self.derivatives))
        return known.intersected(affine_image(back, {"g": gradient}))


@dataclass(frozen=True, slots=True)
class Linearised:
    """A network without blocks, for increments; what enters them is a signal of its own."""

    network: Network
    caps: Mapping[str, Cap]  #: by the signal that enters the block


def increments_over(
    network: Network, signals: Mapping[str, Interval], *, near: bool = False
) -> Linearised:
    """The network with every block as an affine map W in M +- E of what enters it.

    Args:
        network: affine nodes, gates and blocks.
        signals: bounds of what enters them.
        near: whether W holds also a little beyond the bounds, as at points near the region.

    Raises:
        NotProved: a derivative is not bounded.
    """
    nodes: list[Node] = []
    caps: dict[str, Cap] = {}
    sizes = dict(network.tensors)
    for node in network.nodes:
        if not isinstance(node, Blocks):
            nodes.append(node)
            continue
        lower, upper = grouped(node, signals[node.source])
        if near:
            lower, upper = np.nextafter(lower, -np.inf), np.nextafter(upper, np.inf)
        entering = f"{node.name}\0in"
        sizes[entering] = node.size
        caps[entering] = Cap.over(node, lower, upper)
        block = sparse(node, *derivatives(node, lower, upper))
        nodes.append(linear(entering, node.source, identity(node.size)))
        nodes.append(linear(node.name, entering, block))
    return Linearised(replace(network, nodes=tuple(nodes), tensors=sizes), caps)


def linear(name: str, source: str, onto: Map) -> Affine:
    """A linear map of one signal as a node."""
    zero = np.zeros(onto.out_size)
    terms = (Term(source, onto),)
    return Affine(name=name, size=onto.out_size, terms=terms, bias=zero, bias_error=zero)
