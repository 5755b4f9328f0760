"""The torus: never below a Jacobian that the constraints admit, whatever the padding."""

from __future__ import annotations

import itertools

import pytest
import torch

from tests.methods.lipsdp_networks import vertex_jacobians
from tests.methods.torus_networks import NETWORKS
from verifier.certificate import Candidate
from verifier.methods import torus
from verifier.methods.clock import Clock
from verifier.methods.lipsdp import Options
from verifier.methods.lipsdp.form import form_of
from verifier.methods.lipsdp.slopes import global_slopes
from verifier.network.graph import Network
from verifier.onnx_import import load
from verifier.property import Property

SEEDS = (0, 1)
CASES = list(itertools.product(NETWORKS, SEEDS))


def network_of(name: str, seed: int) -> Network:
    network = load(NETWORKS[name](seed), differential=False).network
    assert network is not None
    return network


def admitted_norm(network: Network) -> float:
    """The largest norm among Jacobians that slopes at the ends of their ranges give."""
    lowered = network.lowered("keep")
    form = form_of(lowered, torch.arange(network.input_size), global_slopes(lowered))
    return max(float(torch.linalg.matrix_norm(j, 2)) for j in vertex_jacobians(form, 256))


def found(network: Network, steps: int = 1) -> list[Candidate]:
    """The first candidates."""
    every = torus.candidates(network, Property(), Options(), Clock.start(60.0))
    return list(itertools.islice(every, steps))


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_no_bound_is_below_an_admitted_jacobian(name: str, seed: int) -> None:
    network = network_of(name, seed)
    (candidate,) = found(network)
    assert admitted_norm(network) <= candidate.estimates[0]
