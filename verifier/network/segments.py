"""A network cut at its blocks, where every path from the input to the output leads through them.

f = f_k o phi_k o .. o phi_1 o f_0 with blocks phi, and f_i of affine nodes and gates: then what is
known of each f_i makes a bound of f, for Lipschitz constants multiply.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from verifier.errors import CapabilityBlocked
from verifier.network.blocks import Block
from verifier.network.graph import Grouped, Network, Node
from verifier.network.nodes import Affine, Elementwise, Product


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """One f_i, and the block that it leads to; None at the output."""

    network: Network
    block: Grouped | None

    @property
    def has_gates(self) -> bool:
        """Whether anything but affine nodes is in it."""
        return any(not isinstance(node, Affine) for node in self.network.nodes)


def segments(network: Network) -> tuple[Segment, ...]:
    """The parts, in order.

    Raises:
        CapabilityBlocked: a path passes by a block.
    """
    found: list[Segment] = []
    for node in network.nodes:
        if not isinstance(node, Grouped) or not isinstance(node.group, Block):
            continue
        inner = _inner(found[-1].block, network) if found and found[-1].block else network
        found.append(Segment(_before(inner, node), node))
    last = found[-1].block if found else None
    return (*found, Segment(network if last is None else _inner(last, network), None))


def _before(network: Network, block: Grouped) -> Network:
    """The network up to what enters the block."""
    source = next(
        node.source
        for node in network.nodes
        if node.name == block.name and isinstance(node, Grouped)
    )
    return replace(network, nodes=_reaching(network.nodes, source), output=source)


def _inner(block: Grouped, network: Network) -> Network:
    """The network behind a block, whose output is its input.

    Raises:
        CapabilityBlocked: it reads something else.
    """
    needed, kept = {network.output}, list[Node]()
    for node in reversed(network.nodes):
        if node.name in needed and node.name != block.name:
            kept.append(node)
            needed |= set(node.sources)
    if "" in needed:
        raise CapabilityBlocked(
            f"node {block.name!r} ({type(block.group).__name__}): a path leads past it, and it is "
            "not made of affine maps and gates, which inequalities and branch and bound need",
            node=block.name,
            fix='ask for method "product", or over a region for "propagation"',
        )
    nodes = tuple(_renamed(node, block.name) for node in reversed(kept))
    output = "" if network.output == block.name else network.output
    return Network(nodes=nodes, input_size=block.size, output=output)


def _renamed(node: Node, name: str) -> Node:
    match node:
        case Affine():
            terms = (
                replace(term, source="") if term.source == name else term for term in node.terms
            )
            return replace(node, terms=tuple(terms))
        case Product():
            left, right = ("" if source == name else source for source in node.sources)
            return replace(node, left=left, right=right)
        case Elementwise() | Grouped():
            return replace(node, source="") if node.source == name else node


def _reaching(nodes: tuple[Node, ...], output: str) -> tuple[Node, ...]:
    needed, kept = {output}, list[Node]()
    for node in reversed(nodes):
        if node.name in needed:
            kept.append(node)
            needed |= set(node.sources)
    return tuple(reversed(kept))
