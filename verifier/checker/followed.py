r"""Derivatives of blocks that follow their values: gates of signals that are known.

    softmax       dp = p o (dv - 1 p'dv)
    normalised    dz = rho o (dv - z (z'dv)/d),    rho = 1/s                                (1)

are made of sums within groups and of products with p, z and rho, which are signals of the network
with lines of their own. So in the Jacobian each is a gate that follows a signal, as the factors of
products are, in the place of a matrix of which nothing is known but M +- E. Of a block t the gates
are "t\0inner" and "t\0outer", by p, or by z and rho, and "t\0own", the second one by z.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.block_maps import derivatives, grouped, sparse
from verifier.checker.block_values import inverse_node
from verifier.checker.enclosures import U
from verifier.checker.joint_products import SlopeLines, identity_lines
from verifier.checker.linearised import Cap, linear
from verifier.checker.maps import Adjoint, Diagonal, Gather, identity
from verifier.checker.network import Affine, Blocks, Elementwise, Term
from verifier.checker.normalise import Normalise
from verifier.checker.second_order import has_remainder
from verifier.checker.softmax import Softmax
from verifier.checker.surroundings import Surroundings
from verifier.checker.tangent import Multiplier

if TYPE_CHECKING:
    from verifier.checker.constraints import Slopes
    from verifier.checker.network import Network, Node
    from verifier.checker.substitution import Substitution


@dataclass(slots=True)
class Followed:
    """A network for increments with (1) in the place of blocks, and what is known of its gates."""

    network: Network
    slopes: dict[str, Slopes] = field(default_factory=dict[str, "Slopes"])
    lines: dict[str, SlopeLines] = field(default_factory=dict[str, SlopeLines])
    signals: dict[str, str] = field(default_factory=dict[str, str])  #: which each gate follows
    caps: dict[str, Cap] = field(default_factory=dict[str, Cap])

    def gate(self, walk: Substitution, name: str, source: str, signal: str) -> Elementwise:
        """A gate that multiplies by the values of a signal."""
        known = walk.signals[signal]
        self.slopes[name] = known.lower[0], known.upper[0]
        self.lines[name] = identity_lines(known.magnitude()[0])
        self.signals[name] = signal
        size = walk.sizes[signal]
        return Elementwise(name=name, size=size, source=source, function=Multiplier())


def followed(network: Network, walk: Substitution) -> Followed:
    """The network with (1); the walk learns the signals rho.

    Raises:
        NotProved: a derivative is not bounded.
    """
    found = Followed(network)
    nodes: list[Node] = []
    for node in network.nodes:
        if isinstance(node, Blocks) and _is_followed(node):
            nodes.extend(_parts(node, found, walk))
        else:
            nodes.append(node)
    sizes = {**network.tensors, **{node.name: node.size for node in nodes}}
    found.network = replace(network, nodes=tuple(nodes), tensors=sizes)
    return found


def _is_followed(node: Blocks) -> bool:
    return has_remainder(node.function) and isinstance(node.function, Softmax | Normalise)


def _parts(node: Blocks, found: Followed, walk: Substitution) -> list[Node]:
    """(1), from what enters to what leaves."""
    name, size = node.name, node.size
    entering = linear(f"{name}\0in", node.source, identity(size))
    lower, upper = grouped(node, walk.signals[node.source])
    cap = Cap.over(node, lower, upper)
    known = sparse(node, *derivatives(node, lower, upper))
    found.caps[entering.name] = replace(cap, derivatives=known)
    inner = found.gate(walk, f"{name}\0inner", entering.name, name)
    nodes: list[Node] = [entering, inner, *_means(node, inner.name)]
    follows = name
    if isinstance(node.function, Normalise):
        follows = _learnt(node, walk)
        nodes.append(found.gate(walk, f"{name}\0own", nodes[-1].name, name))
    rest = _difference(f"{name}\0rest", entering.name, nodes[-1].name, size)
    outer = found.gate(walk, f"{name}\0outer", rest.name, follows)
    return [*nodes, rest, outer, linear(name, outer.name, identity(size))]


def _means(node: Blocks, source: str) -> list[Affine]:
    """The sum of each group, over d if the block has one, for each of its entries."""
    owner = np.empty(node.size, np.int64)
    count = len(node.groups)
    owner[node.groups] = np.arange(count)[:, None]
    to_groups = Gather(owner, count)
    total = linear(f"{node.name}\0sum", source, Adjoint(to_groups))
    nodes = [total]
    if isinstance(node.function, Normalise):
        weight = np.full(count, 1.0 / node.function.divisor)
        # Exact for powers of two; the error stands for the rounding of others.
        share = Diagonal(weight, 2 * U * weight)
        nodes.append(linear(f"{node.name}\0mean", total.name, share))
    return [*nodes, linear(f"{node.name}\0each", nodes[-1].name, to_groups)]


def _difference(name: str, first: str, second: str, size: int) -> Affine:
    zero = np.zeros(size)
    minus = Term(second, Diagonal(np.full(size, -1.0)))
    terms = Term(first, identity(size)), minus
    return Affine(name=name, size=size, terms=terms, bias=zero, bias_error=zero)


def _learnt(node: Blocks, walk: Substitution) -> str:
    """The signal rho, which joins the walk behind the block."""
    name = f"{node.name}\0inverse"
    makers = {other.name: other for other in walk.nodes}
    found, bounds = inverse_node(node, name, Surroundings(makers, walk))
    place = list(makers).index(node.name) + 1
    walk.nodes = [*walk.nodes[:place], found, *walk.nodes[place:]]
    walk.sizes = {**walk.sizes, name: node.size}
    walk.signals[name] = bounds
    walk.signals[name] = bounds.intersected(walk.bounds(name)).required_finite(name)
    return name
