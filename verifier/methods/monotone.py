"""A pair that refutes a monotone property: the output falls where it should not, or rises.

With U >= dh/dx_i for h = f_j over the region, h - U x_i has slopes in x_i of at most 0, and is the
steepest where h falls the most; with L <= dh/dx_i, h - L x_i is the steepest where h rises the
most. So the search for a steep pair finds the pair that refutes, where it finds one at all.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from verifier.certificate import Witness
from verifier.methods import witness
from verifier.methods.clock import Clock
from verifier.network.graph import Network
from verifier.network.linear_map import Dense
from verifier.network.nodes import Affine, Term
from verifier.property import All, Indices, Monotone, Property

_SHIFTED = "\0shifted"  #: the affine node behind; no tensor of a file has such a name


def search(
    network: Network, asked: Property, ends: tuple[float, float], clock: Clock, seed: int
) -> Witness | None:
    """A pair that may refute the property, unproved; None where none was found.

    Args:
        network: f.
        asked: of kind monotone.
        ends: proved bounds of the derivative over the region.
        clock: ends the search.
        seed: of its random numbers.
    """
    sign = asked.monotone
    if sign is None:
        raise ValueError("only properties of kind monotone are refuted by a pair")
    slope = ends[1] if sign.direction == "increasing" else ends[0]
    steepest = Property(
        scope=asked.scope, region=asked.region, inputs=Indices((sign.input,)), outputs=All()
    )
    return witness.search(_shifted(network, sign, slope), steepest, clock, seed)


def _shifted(network: Network, sign: Monotone, slope: float) -> Network:
    """X -> f_output(x) - slope x_input."""
    row = torch.zeros(1, network.output_size, dtype=torch.float64)
    row[0, sign.output] = 1
    tilt = torch.zeros(1, network.input_size, dtype=torch.float64)
    tilt[0, sign.input] = -slope
    terms = (Term(network.output, Dense(row)), Term("", Dense(tilt)))
    node = Affine(_SHIFTED, terms, torch.zeros(1, dtype=torch.float64))
    return replace(network, nodes=(*network.nodes, node), output=_SHIFTED)
