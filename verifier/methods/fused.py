"""The linear maps between nonlinear nodes: what is left of a network when affine nodes are fused.

A nonlinear node is entered by v_t = sum_s M_ts z_s + b, where z_s leaves node s (z_"" is the
network's input) and M_ts sums all linear paths from s to t. The output is the target "".
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from verifier.network.graph import Grouped, Network
from verifier.network.nodes import Affine, Elementwise

BLOCK_ENTRIES = 2**24  #: a block with more entries than this is never formed
BLOCK_RANK = 2048  #: nor one whose smaller side is longer than this


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """A nonlinear node, or the output, with the blocks that enter it."""

    name: str  #: "" for the network's output
    node: Elementwise | Grouped | None  #: None for the network's output
    blocks: Mapping[str, Float64[Tensor, "rows columns"]]  #: by source; all that reach it


def can_form(rows: int, columns: int) -> bool:
    """Whether a matrix is small enough to be formed, and its l2 norm proved."""
    return rows * columns <= BLOCK_ENTRIES and min(rows, columns) <= BLOCK_RANK


def can_fuse(network: Network) -> bool:
    """Whether every pair of nonlinear nodes that a linear path joins makes a block in bounds."""
    sizes = network.sizes
    return all(
        can_form(sizes[signal], sizes[source])
        for _, _, signal in _targets(network)
        for source in sources_of(network, signal)
    )


def fused_within(
    network: Network, varying: Int64[Tensor, " selected"], work: float
) -> Iterator[Target]:
    """The targets whose blocks are cheapest, until their Gram matrices cost `work` products."""
    sizes = network.sizes
    costs = [
        (
            sum(_gram_work(sizes[signal], sizes[source]) for source in sources_of(network, signal)),
            place,
        )
        for place, (_, _, signal) in enumerate(_targets(network))
    ]
    chosen, spent = set[int](), 0.0
    for cost, place in sorted(costs):
        spent += cost
        if work < spent:
            break
        chosen.add(place)
    for place, (name, node, signal) in enumerate(_targets(network)):
        if place in chosen:
            yield _target(network, name, node, signal, varying)


def _gram_work(rows: int, columns: int) -> float:
    return float(rows) * columns * min(rows, columns) if can_form(rows, columns) else math.inf


def fused(network: Network, varying: Int64[Tensor, " selected"]) -> Iterator[Target]:
    """The targets in topological order, the output last; blocks from "" keep varying inputs."""
    for name, node, signal in _targets(network):
        yield _target(network, name, node, signal, varying)


def _target(
    network: Network,
    name: str,
    node: Elementwise | Grouped | None,
    signal: str,
    varying: Int64[Tensor, " selected"],
) -> Target:
    blocks = _blocks_into(network, signal)
    if "" in blocks:
        blocks[""] = blocks[""][:, varying]
    return Target(name, node, blocks)


def _targets(network: Network) -> Iterator[tuple[str, Elementwise | Grouped | None, str]]:
    """(name, node, entering signal) of every target."""
    for node in network.nodes:
        if isinstance(node, Elementwise | Grouped):
            yield node.name, node, node.source
    yield "", None, network.output


def _affine_nodes(network: Network) -> dict[str, Affine]:
    return {node.name: node for node in network.nodes if isinstance(node, Affine)}


def sources_of(network: Network, signal: str) -> set[str]:
    """The nonlinear nodes, and the input, on which a signal depends linearly."""
    affine, found, pending = _affine_nodes(network), set[str](), [signal]
    seen: set[str] = set()
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in affine:
            pending.extend(affine[name].sources)
        else:
            found.add(name)
    return found


def _blocks_into(network: Network, signal: str) -> dict[str, Float64[Tensor, "rows columns"]]:
    """Every M_ts of one target, by pulling the identity back through the affine nodes."""
    affine = _affine_nodes(network)
    size = network.sizes[signal]
    rows = {signal: torch.eye(size, dtype=torch.float64)}
    # Reverse topological order: a node's rows are complete before they go on to its sources.
    for name in reversed(affine):
        if name not in rows:
            continue
        here = rows.pop(name)
        for term in affine[name].terms:
            back = term.map.adjoint(here)
            rows[term.source] = rows[term.source] + back if term.source in rows else back
    return rows
