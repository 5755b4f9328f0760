"""Blocks over a region as affine nodes that are known up to an error.

For x in a box around c where all derivatives lie in M +- E, entry by entry,

    f(x) = M x + b,    b in f(c) - M c +- E |x - c|,                                        (1)

by the mean value theorem, one output at a time; rows for which the image of the box is narrower
take M = 0, b in the image. And f(x) - f(y) = W (x - y), where W, the mean of derivatives along the
segment, lies in M +- E. So with the error in its bias the node is right for values, and with the
error in its map it is right for increments and, reversed, for Jacobians: whoever accounts for the
errors of folded constants needs to know nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.arithmetic import LEAST, Magnitude, above, below, enlarged, gamma
from verifier.checker.carry import Sparse
from verifier.checker.definite import NotProved
from verifier.checker.intervals import Interval
from verifier.checker.maps import identity
from verifier.checker.network import Affine, Blocks, Term
from verifier.norms import Norm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Float64, Int64

    from verifier.checker.network import Map, Network, Node

BLOCK_ENTRIES = 2**24  #: of the derivatives of one node


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
    found = node.function.constant_on(norm, *_grouped(node, entering))
    if not np.all(np.isfinite(found)):
        raise NotProved(f"node {node.name!r} has no constant over the region")
    return Magnitude.of(float(found.max(initial=0.0)))


def value_node(node: Blocks, entering: Interval) -> tuple[Affine, Interval]:
    """(1) over one row of bounds, and what is known of the values.

    Raises:
        NotProved: a bound is not finite, there are several rows, or the blocks are too large.
    """
    lower, upper = _grouped(node, entering)
    image = node.function.image(lower, upper)
    middle, spread = _derivatives(node, lower, upper)
    centre = np.clip(Interval(lower, upper).centred()[0], lower, upper)
    reach = above(np.maximum(upper - centre, centre - lower))
    at_centre = node.function.image(centre, centre)
    least, most = _offsets(middle, spread, centre, reach, at_centre)
    # The narrower of the two, row by row.
    flat = ~(most - least < image[1] - image[0])
    middle = np.where(flat[..., None], 0.0, middle)
    low, high = np.where(flat, image[0], least), np.where(flat, image[1], most)
    bias, error = Interval(low, high).centred()
    found = Affine(
        name=node.name,
        size=node.size,
        terms=(Term(node.source, _sparse(node, middle, None)),),
        bias=_flat(node, bias),
        bias_error=_flat(node, error),
    )
    known = Interval(_flat(node, image[0])[None], _flat(node, image[1])[None])
    return found, known.required_finite(node.name)


@dataclass(frozen=True, slots=True)
class Cap:
    """|g J|_inf <= sums |g|_inf within each group, for rows g and all J of a block."""

    leaving: str  #: the signal that leaves the block
    groups: Int64[np.ndarray, "groups n"]
    sums: Float64[np.ndarray, "groups 1"]

    def of(self, gradient: Interval) -> Interval:
        """What is known of g J by that."""
        greatest = gradient.magnitude()[:, self.groups].max(axis=-1, keepdims=True)
        limit = np.empty_like(gradient.lower)
        limit[:, self.groups] = above(greatest * self.sums)
        return Interval(-limit, limit)


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
        lower, upper = _grouped(node, signals[node.source])
        if near:
            lower, upper = np.nextafter(lower, -np.inf), np.nextafter(upper, np.inf)
        entering = f"{node.name}\0in"
        sizes[entering] = node.size
        caps[entering] = Cap(
            node.name, node.groups, node.function.constant_on(Norm.L1, lower, upper)
        )
        block = _sparse(node, *_derivatives(node, lower, upper))
        nodes.append(_linear(entering, node.source, identity(node.size)))
        nodes.append(_linear(node.name, entering, block))
    return Linearised(replace(network, nodes=tuple(nodes), tensors=sizes), caps)


def _linear(name: str, source: str, linear: Map) -> Affine:
    zero = np.zeros(linear.out_size)
    terms = (Term(source, linear),)
    return Affine(name=name, size=linear.out_size, terms=terms, bias=zero, bias_error=zero)


def _grouped(
    node: Blocks, entering: Interval
) -> tuple[Float64[np.ndarray, "groups n"], Float64[np.ndarray, "groups n"]]:
    if len(entering.lower) != 1:
        raise NotProved(f"node {node.name!r} is bounded around one region at a time")
    if node.groups.size * node.groups.shape[1] > BLOCK_ENTRIES:
        raise NotProved(f"the derivatives of node {node.name!r} are too many")
    return entering.lower[0][node.groups], entering.upper[0][node.groups]


def _derivatives(
    node: Blocks, lower: Float64[np.ndarray, "groups n"], upper: Float64[np.ndarray, "groups n"]
) -> tuple[Float64[np.ndarray, "groups n n"], Float64[np.ndarray, "groups n n"]]:
    """M and E. An end that is 0 stays 0: signs of derivatives are told from M and E."""
    low, high = node.function.derivatives(lower, upper)
    if not (np.all(np.isfinite(low)) and np.all(np.isfinite(high)) and np.all(low <= high)):
        raise NotProved(f"node {node.name!r} has no finite derivatives over the region")
    middle = np.where(low == high, low, low / 2 + high / 2)
    spread = np.where(low == high, 0.0, above(np.maximum(high - middle, middle - low)))
    signed = (0 <= low) | (high <= 0)
    # [0, h] within M +- M for M = h/2, whatever rounding does to narrower ones.
    crosses = signed & (np.abs(middle) < spread)
    half = np.where(0 <= low, high, low) / 2
    middle = np.where(crosses, half, middle)
    return middle, np.where(crosses, np.abs(half), spread)


def _offsets(
    middle: Float64[np.ndarray, "groups n n"],
    spread: Float64[np.ndarray, "groups n n"],
    centre: Float64[np.ndarray, "groups n"],
    reach: Float64[np.ndarray, "groups n"],
    value: tuple[Float64[np.ndarray, "groups n"], Float64[np.ndarray, "groups n"]],
) -> tuple[Float64[np.ndarray, "groups n"], Float64[np.ndarray, "groups n"]]:
    """Ends of b in (1)."""
    count = centre.shape[-1]
    moved = (middle @ centre[..., None])[..., 0]
    mass = (np.abs(middle) @ np.abs(centre)[..., None])[..., 0]
    loose = enlarged((spread @ reach[..., None])[..., 0], count)
    loose = enlarged(loose + gamma(count + 2) * mass + count * LEAST, count + 4)
    low, high = below(value[0] - moved), above(value[1] - moved)
    return below(low - loose), above(high + loose)


def _flat(node: Blocks, rows: Float64[np.ndarray, "groups n"]) -> Float64[np.ndarray, " size"]:
    result = np.empty(node.size)
    result[node.groups] = rows
    return result


def _sparse(
    node: Blocks,
    middle: Float64[np.ndarray, "groups n n"],
    spread: Float64[np.ndarray, "groups n n"] | None,
) -> Sparse:
    width = node.groups.shape[1]
    index = np.empty((node.size, width), np.int64)
    index[node.groups] = node.groups[:, None, :]
    weight = np.empty((node.size, width))
    weight[node.groups] = middle
    error: Float64[np.ndarray, "size n"] | None = None
    if spread is not None:
        error = np.empty((node.size, width))
        error[node.groups] = spread
    return Sparse(index, weight, node.size, error)
