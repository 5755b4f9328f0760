"""Proof kind `torus`: the block recursion of convolutions, one frequency at a time.

With one scale for each channel, D commutes with shifts, and so does every covariance on the torus
of `verifier.checker.torus_structure`: in the orthonormal Fourier transform it is one Hermitian
matrix of channels for each frequency, and the recursion of `verifier.checker.recursion` holds for
each by itself. Maps become their symbols B(f), and strides average what falls on one frequency:

    J'(g) = (1/s) sum_j B(f_j) J(f_j) B(f_j)*,   f_j = g + j n/s.                           (1)

Flat signals z = R y read the window of a tensor y of n places, the crop. With the transform
R(f) = sum_p R_p e^(2 pi i f.p/n) of their rows,

    J_z = (1/n) sum_f R(f) J(f) R(f)*,                                                      (2)

over all frequencies; from there on the recursion is that of flat signals. The sums are over the
chosen frequencies and the conjugates of their values, which bound those of the opposite ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from verifier.checker.crop import cropped
from verifier.checker.definite import NotProved
from verifier.checker.flat import FlatState, run_flat
from verifier.checker.frontier import Frontier
from verifier.checker.lowering import lowered, sources
from verifier.checker.network import Elementwise
from verifier.checker.recursion import input_factor, item_bounds
from verifier.checker.torus_masks import MASK
from verifier.checker.torus_state import TorusState
from verifier.checker.torus_structure import torus_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from jaxtyping import Float64

    from verifier.certificate import TorusProof
    from verifier.checker.arithmetic import Magnitude
    from verifier.checker.items import Selection
    from verifier.checker.network import Network, Node
    from verifier.norms import NormPair


def prove_torus(
    proof: TorusProof, network: Network, pair: NormPair, selected: Selection
) -> tuple[Magnitude, ...]:
    """The bounds that the proof proves, one for each item.

    Raises:
        NotProved: the sides do not fit, a mask or scales are missing, out of range, or too small.
        NotLipschitzGlobally: a node has no slope range.
    """
    small = lowered(network, "keep")
    torus = torus_of(small.network, proof.sides, proof.masks.keys())
    frontier = Frontier(torus.nodes, torus.output, torus.widths(), torus.ranks())
    state = TorusState(torus)
    used: set[str] = set()
    while (node := frontier.next_gate()) is not None and node.name in torus.tensors:
        if not isinstance(node, Elementwise):
            raise NotProved(f"node {node.name!r} is no gate of a torus")
        cut = frontier.cut(node.source)
        state.move(frontier, cut)
        frontier.move_to(cut)
        scales = _scales_of(node, proof, small.gates, used)
        state.pass_gate(node, cut, frontier.pass_gate(node), scales)
    wanted = torus.output if node is None else sources(node)[0]
    flat = FlatState(cropped(torus, frontier, state, wanted), torus.sizes)
    used |= run_flat(frontier, flat, torus.output, small.gates, proof.scales)
    if unknown := sorted(set(proof.scales) - used):
        raise NotProved(f"scales for {unknown}, which are no gates of the network")
    return item_bounds(flat.covariance, pair, selected, input_factor(pair, selected))


def _scales_of(
    node: Node, proof: TorusProof, gates: Mapping[str, str], used: set[str]
) -> Float64[np.ndarray, " channels"]:
    """The scales of a gate, or of a mask."""
    if node.name.endswith(MASK):
        return proof.masks[node.name.removesuffix(MASK)]
    name = gates[node.name]
    if name not in proof.scales:
        raise NotProved(f"node {name!r} has no scales")
    used.add(name)
    return proof.scales[name]
