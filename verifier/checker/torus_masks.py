"""Masks of tensors, and the slopes with which gates mask.

Outside of a tensor's window a signal on a torus may be anything. A gate whose slope range holds 0
may leave 0 there, whatever enters; a mask is a gate with slopes [0, 1] that is the identity within.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.definite import NotProved
from verifier.checker.network import Affine, Elementwise, Product
from verifier.checker.scalars import relu

if TYPE_CHECKING:
    from collections.abc import Collection

    from verifier.checker.constraints import Slopes
    from verifier.checker.network import Network, Node

MASK = "\0mask"  #: behind the name of the tensor that a mask reads


def masked(network: Network, masks: Collection[str]) -> tuple[tuple[Node, ...], str]:
    """The nodes with masks, each read in place of the tensor that it masks."""

    def read(name: str) -> str:
        return name + MASK if name in masks else name

    nodes: list[Node] = []
    for node in network.nodes:
        if isinstance(node, Affine):
            terms = tuple(replace(term, source=read(term.source)) for term in node.terms)
            nodes.append(replace(node, terms=terms))
        elif isinstance(node, Product):
            raise NotProved(f"node {node.name!r} multiplies signals, which no torus does")
        else:
            nodes.append(replace(node, source=read(node.source)))
        if node.name in masks:
            # Of a mask only the slopes are used, and they are those of ReLU.
            mask = Elementwise(
                name=node.name + MASK, size=node.size, source=node.name, function=relu()
            )
            nodes.append(mask)
    return tuple(nodes), read(network.output)


def widened(node: Elementwise, channels: int) -> Slopes:
    """For each channel a slope range that holds those of all its places, and 0."""
    lower, upper = node.function.slope_range(node.size)
    if not np.all(lower <= upper):
        raise NotProved(f"node {node.name!r} has no slope range")
    least = np.minimum(lower.reshape(channels, -1).min(axis=1), 0.0)
    return least, np.maximum(upper.reshape(channels, -1).max(axis=1), 0.0)
