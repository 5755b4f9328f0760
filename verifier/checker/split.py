"""Proof kind `split`: a network cut at blocks, and a proof of each part.

If every path from the input to the output leads through nodes t_1, .., t_k in turn, then

    f = f_k o phi_k o .. o phi_1 o f_0,    L(f) <= L(f_0) |phi_1| L(f_1) .. |phi_k| L(f_k)     (1)

with what enters and leaves t_i measured in one norm for each; over a region |phi_i| is that on the
bounds of what enters. The first part has the claim's
inputs, input norm and region, the last one its outputs and output norm; all others are about all
entries, everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from verifier.checker.definite import NotProved
from verifier.checker.forward import forward_bounds
from verifier.checker.linearised import constant_over
from verifier.checker.lowering import lowered, sources
from verifier.checker.network import Affine, Blocks, Network, Node, Product
from verifier.norms import NormPair, leading_to
from verifier.property import All, Property

if TYPE_CHECKING:
    from verifier.certificate import Single, SplitProof
    from verifier.checker.arithmetic import Magnitude
    from verifier.checker.intervals import Interval
    from verifier.norms import Norm


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One f_i with its proof and what that is to prove; and the constant of the node behind it."""

    proof: Single
    network: Network
    asked: Property
    constant: Magnitude | None  #: None behind the last part


def parts_of_split(proof: SplitProof, network: Network, asked: Property) -> tuple[Part, ...]:
    """The parts, in order.

    Raises:
        NotProved: a path leads past one of the nodes, or there is not one proof for each part.
        NotLipschitzGlobally: a node has no constant.
    """
    if len(proof.parts) != len(proof.passages) + 1:
        raise NotProved(f"{len(proof.passages)} cuts, and {len(proof.parts)} proofs of parts")
    parts: list[Part] = []
    entering = _entering(proof, network, asked)
    rest, norm = network, asked.norm
    for passage, single in zip(proof.passages, proof.parts, strict=False):
        block = _block(rest, passage.node)
        part = replace(asked, norm=leading_to(norm, passage.norm), outputs=All())
        constant = _constant(block, passage.norm, entering.get(block.name))
        before = _before(rest, block)
        parts.append(Part(proof=single, network=before, asked=part, constant=constant))
        rest, norm = _behind(rest, block), NormPair(passage.norm, asked.norm.output)
        asked = Property(norm=norm, outputs=asked.outputs)
    last = Part(proof=proof.parts[-1], network=rest, asked=asked, constant=None)
    return (*parts, last)


def _entering(proof: SplitProof, network: Network, asked: Property) -> dict[str, Interval]:
    """Bounds of what enters each block over the region, where the proof says how to find them."""
    if proof.forward is None:
        return {}
    small = lowered(network, sorts="compare", keeps_blocks=True)
    signals = forward_bounds(network, small, asked.place, proof.forward)
    blocks = [node for node in small.network.nodes if isinstance(node, Blocks)]
    return {node.name: signals[node.source] for node in blocks}


def _constant(block: Blocks, norm: Norm, entering: Interval | None) -> Magnitude:
    if entering is not None:
        return constant_over(block, entering, norm)
    return block.function.constant(norm, block.groups.shape[1])


def _block(network: Network, name: str) -> Blocks:
    for node in network.nodes:
        if node.name == name and isinstance(node, Blocks):
            return node
    raise NotProved(f"there is no block {name!r} to cut at, in this order")


def _before(network: Network, block: Blocks) -> Network:
    """The network up to what enters the block."""
    needed, kept = {block.source}, list[Node]()
    for node in reversed(network.nodes):
        if node.name in needed:
            kept.append(node)
            needed |= set(sources(node))
    return replace(
        network,
        nodes=tuple(reversed(kept)),
        output=block.source,
        output_size=network.tensors[block.source],
        tensors={key: network.tensors[key] for key in {"", *needed}},
    )


def _behind(network: Network, block: Blocks) -> Network:
    """The network behind the block, whose output is its input.

    Raises:
        NotProved: it reads something else.
    """
    needed, kept = {network.output}, list[Node]()
    for node in reversed(network.nodes):
        if node.name in needed and node.name != block.name:
            kept.append(node)
            needed |= set(sources(node))
    if "" in needed:
        raise NotProved(f"a path leads past node {block.name!r}")
    sizes = {key: network.tensors[key] for key in needed - {block.name}}
    return Network(
        input_size=block.size,
        output="" if network.output == block.name else network.output,
        output_size=network.output_size,
        nodes=tuple(_renamed(node, block.name) for node in reversed(kept)),
        tensors={**sizes, "": block.size},
    )


def _renamed(node: Node, name: str) -> Node:
    if isinstance(node, Affine):
        terms = (replace(term, source="") if term.source == name else term for term in node.terms)
        return replace(node, terms=tuple(terms))
    if isinstance(node, Product):
        left, right = ("" if source == name else source for source in (node.left, node.right))
        return replace(node, left=left, right=right)
    return replace(node, source="") if node.source == name else node
