"""Propagation without a search: the proof names a technique, and the checker does the rest.

So it is where a network has blocks, whose values and derivatives over a region only the checker
knows. A claim of 0 makes it say what it finds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from verifier.certificate import Candidate, ForwardProof, PropagationProof
from verifier.errors import TooLarge
from verifier.estimate import available_bytes
from verifier.methods.items import items_of, varying_inputs
from verifier.methods.propagation.candidate import Options, refuse_everywhere
from verifier.methods.propagation.joint import bends
from verifier.methods.propagation.work import MOST_JACOBIAN, multiplications
from verifier.network.blocks import Block, Normalise, Softmax, has_many_derivatives
from verifier.network.graph import Grouped, Network, Node
from verifier.network.nodes import Affine
from verifier.property import Property

_ENTRY_BYTES = 32  #: of the bounds of one derivative, and of what they are made from
_GATES_OF_BLOCK = 3  #: at most, where its derivatives follow its values


def candidates(network: Network, asked: Property, options: Options) -> Iterator[Candidate]:
    """Intervals first, then lines where they cost little enough, the closest last.

    Raises:
        InvalidRequest: the property selects what does not exist, or is not local.
        TooLarge: a block has too many derivatives.
    """
    refuse_everywhere(asked)
    varying_inputs(asked, network.input_size)
    items = items_of(asked, network.output_size)
    lowered = network.lowered("compare", keeps_blocks=True)
    techniques: list[Literal["interval", "linear", "joint"]] = ["interval"]
    _refuse_large(lowered)
    rows = sum(len(item.rows) for item in items)
    _refuse_unheld(lowered, rows)
    work = _work(lowered, rows)
    if options.technique == "linear" and work < MOST_JACOBIAN:
        techniques.append("linear")
        is_followed = any(_is_followed(node) for node in lowered.nodes)
        dear = work * (_GATES_OF_BLOCK if is_followed else 1) >= MOST_JACOBIAN
        if (is_followed or bends(lowered)) and not dear:
            techniques.append("joint")
    for technique in techniques:
        forward = ForwardProof(technique="interval" if technique == "interval" else "linear")
        yield Candidate(
            method="propagation",
            estimates=(0.0,) * len(items),
            proof=PropagationProof(patterns=network.patterns, forward=forward, technique=technique),
        )


def _is_followed(node: Node) -> bool:
    """Whether derivatives of the node follow its values."""
    return isinstance(node, Grouped) and isinstance(node.group, Softmax | Normalise)


def _refuse_large(lowered: Network) -> None:
    for node in lowered.nodes:
        block = node.group if isinstance(node, Grouped) else None
        if isinstance(block, Block) and has_many_derivatives(block):
            raise TooLarge(
                f"node {node.name!r} ({type(block).__name__}) has more derivatives than are "
                "bounded over a region",
                node=node.name,
                fix='ask for method "product" or "lipsdp"',
            )


def _refuse_unheld(lowered: Network, rows: int) -> None:
    held = _ENTRY_BYTES * rows * sum(lowered.sizes.values())
    if available_bytes() < held:
        raise TooLarge(
            f"bounds of the derivatives of {rows} outputs by all signals take about "
            f"{held / 1e9:.1f} GB",
            fix='ask about some outputs, by indices, or for method "product"',
        )


def _work(lowered: Network, rows: int) -> float:
    """Multiplications, about: all that is bounded, carried through all maps, forwards and back."""
    maps = sum(
        multiplications(term.map)
        for node in lowered.nodes
        if isinstance(node, Affine)
        for term in node.terms
    )
    neurons = sum(node.size for node in lowered.nodes if not isinstance(node, Affine))
    return 2.0 * (1 + rows) * (neurons + lowered.input_size) * maps
