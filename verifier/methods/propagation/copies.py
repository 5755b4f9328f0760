"""Entries that are only copied from elsewhere: bounds of all copies are those of one.

The factors of a matrix product repeat each entry of its operands, and every derivative by one of
its products is a derivative by a sum of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from verifier.network.graph import Network, Node
from verifier.network.linear_map import Adjoint, Gather, Identity, LinearMap
from verifier.network.nodes import Affine


@dataclass(frozen=True, slots=True, eq=False)
class Copied:
    """Entry i of the copy is entry index[i] of the signal."""

    signal: str
    index: Int64[Tensor, " n"]


def values_of(network: Network, signal: str) -> Copied:
    """Where the values of a signal are copied from; itself where they are made anew."""
    makers = {node.name: node for node in network.nodes}
    index = torch.arange(network.sizes[signal])
    while isinstance(node := makers.get(signal), Affine) and len(node.terms) == 1:
        inner = _picks(node.terms[0].map)
        if inner is None or bool(node.bias.any()):
            break
        signal, index = node.terms[0].source, inner[index]
    return Copied(signal, index)


def derivatives_by(network: Network, readers: Mapping[str, Sequence[Node]], signal: str) -> Copied:
    """Where the derivatives by a signal are copied from: by a later one that only spreads it."""
    index = torch.arange(network.sizes[signal])
    while signal != network.output and len(found := readers.get(signal, ())) == 1:
        node = found[0]
        if not isinstance(node, Affine):
            break
        maps = [term.map for term in node.terms if term.source == signal]
        inner = _picks(Adjoint(maps[0])) if len(maps) == 1 else None
        if inner is None:
            break
        signal, index = node.name, inner[index]
    return Copied(signal, index)


def ancestors(network: Network) -> frozenset[str]:
    """The nodes that the output depends on, itself included."""
    live = {network.output}
    for node in reversed(network.nodes):
        if node.name in live:
            live |= set(node.sources)
    return frozenset(live)


def readers_of(network: Network, live: frozenset[str]) -> dict[str, list[Node]]:
    """The nodes that read each signal, of those that the output depends on."""
    readers: dict[str, list[Node]] = {}
    for node in network.nodes:
        for source in dict.fromkeys(node.sources) if node.name in live else ():
            readers.setdefault(source, []).append(node)
    return readers


def _picks(linear: LinearMap) -> Int64[Tensor, " out"] | None:
    """The entries that a map picks; None where it does anything else."""
    match linear:
        case Identity():
            return torch.arange(linear.size)
        case Gather(index=index):
            return index if bool((0 <= index).all()) else None
        case Adjoint(of=Adjoint(of=inner)):
            return _picks(inner)
        case Adjoint(of=Identity() as inner):
            return _picks(inner)
        case _:
            return None
