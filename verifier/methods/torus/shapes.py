"""The spatial shape of the input: signals are flat, and only convolutions say what they read."""

from __future__ import annotations

from math import prod

from verifier.methods.torus.terms import pieces
from verifier.network.graph import Network
from verifier.network.linear_map import Convolution, Diagonal, Gather, LinearMap
from verifier.network.nodes import Affine, Elementwise


def spatial_shape(network: Network) -> tuple[int, ...] | None:
    """That of the first convolution which reads the input through maps that keep places."""
    reached = {""}
    for node in network.nodes:
        if isinstance(node, Elementwise) and node.source in reached:
            reached.add(node.name)
        for term in node.terms if isinstance(node, Affine) else ():
            if term.source not in reached:
                continue
            conv = _first_convolution(term.map)
            if conv is not None:
                spatial = conv.in_shape[1:]
                return None if network.input_size % prod(spatial) else spatial
            if all(isinstance(piece, Diagonal | Gather) for piece in pieces(term.map)):
                reached.add(node.name)
    return None


def _first_convolution(linear: LinearMap) -> Convolution | None:
    """The convolution that reads what enters, behind scalings and moves at most."""
    for piece in pieces(linear):
        if isinstance(piece, Convolution):
            return piece
        if not isinstance(piece, Diagonal | Gather):
            return None
    return None
