"""The spatial shape of the input: signals are flat, and only convolutions say what they read."""

from __future__ import annotations

from math import prod

from verifier.methods.torus.terms import pieces
from verifier.network.graph import Network
from verifier.network.linear_map import Convolution, Diagonal, Gather
from verifier.network.nodes import Affine, Elementwise


def spatial_shape(network: Network) -> tuple[int, ...] | None:
    """That of the first convolution which reads the input through maps that keep places."""
    reached = {""}
    for node in network.nodes:
        match node:
            case Elementwise() if node.source in reached:
                reached.add(node.name)
            case Affine():
                for term in node.terms:
                    if term.source not in reached:
                        continue
                    for piece in pieces(term.map):
                        if isinstance(piece, Convolution):
                            spatial = piece.in_shape[1:]
                            return spatial if network.input_size % prod(spatial) == 0 else None
                        if not isinstance(piece, Diagonal | Gather):
                            break
                    else:
                        reached.add(node.name)
            case _:
                pass
    return None
