"""The torus: never below a Jacobian that the constraints admit, and what the checker proves."""

from __future__ import annotations

import itertools
import math
from functools import cache

import pytest
import torch
from torch import Tensor

from tests.methods.lipsdp_networks import NETWORKS as DENSE
from tests.methods.lipsdp_networks import vertex_jacobians
from tests.methods.torus_networks import NETWORKS, leaky, relu, two_layers
from verifier.certificate import Candidate, Certificate, TorusProof
from verifier.errors import TooLarge
from verifier.methods import product, torus
from verifier.methods.clock import Clock
from verifier.methods.items import items_of
from verifier.methods.lipsdp import Options
from verifier.methods.lipsdp.form import Form, form_of
from verifier.methods.lipsdp.slopes import global_slopes
from verifier.methods.progress import Aim, Step
from verifier.network.graph import Network
from verifier.norms import Norm, NormPair
from verifier.onnx_import import load
from verifier.property import Each, Margins, Property
from verifier.proving import Case, prove
from verifier.regions import Ball, Everywhere

L2 = Property()
WITH_MASKS = {"max-min", "normalised between", "padded average", "two convolutions"}


def loaded(model: bytes) -> Network:
    network = load(model, differential=False).network
    assert network is not None
    return network


@cache
def network_of(name: str) -> Network:
    return loaded(NETWORKS[name](0))


def found(network: Network, asked: Property = L2, most: int = 2) -> list[Candidate]:
    """The first candidates."""
    every = torus.candidates(network, asked, Options(), Clock.start(60.0))
    return list(itertools.islice(every, most))


@cache
def found_for(name: str) -> tuple[Candidate, ...]:
    return tuple(found(network_of(name)))


def proof_of(candidate: Candidate) -> TorusProof:
    assert isinstance(candidate.proof, TorusProof)
    return candidate.proof


def globally(network: Network) -> Form:
    lowered = network.lowered("keep")
    return form_of(lowered, torch.arange(network.input_size), global_slopes(lowered))


def admitted_norm(network: Network, vertices: int = 48) -> float:
    """The largest norm among Jacobians that slopes at the ends of their ranges give."""
    jacobians = vertex_jacobians(globally(network), vertices)
    return max(float(torch.linalg.matrix_norm(jacobian, 2)) for jacobian in jacobians)


def bound_on_the_image(network: Network, proof: TorusProof) -> float:
    """What the scales prove without a torus: |Y Q^(-1/2)|, Q = blkdiag(I, 1/D) - V' D^-1 V."""
    form = globally(network)
    every: list[Tensor] = []
    for array in form.gates:
        scales = torch.from_numpy(proof.scales[array.gate])
        every.append(1 / scales.repeat_interleave(array.size // len(scales))[array.active])
    weights = torch.cat(every)[form.owner]
    ones = torch.ones(form.inputs, dtype=torch.float64)
    through = form.inflow.T @ (weights[:, None] * form.inflow)
    factor = torch.linalg.cholesky(torch.diag(torch.cat([ones, weights])) - through)
    half = torch.linalg.solve_triangular(factor, form.outflow.T, upper=False)
    return float(torch.linalg.matrix_norm(half, 2))


@pytest.mark.parametrize("name", NETWORKS)
def test_no_bound_is_below_an_admitted_jacobian(name: str) -> None:
    admitted = admitted_norm(network_of(name))
    assert all(admitted <= candidate.estimates[0] for candidate in found_for(name))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_scales_prove_no_more_on_a_torus_than_on_the_image(name: str) -> None:
    candidate = found_for(name)[-1]
    on_the_image = bound_on_the_image(network_of(name), proof_of(candidate))
    assert on_the_image <= candidate.estimates[0] * (1 + 1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_later_candidates_are_better(name: str) -> None:
    first, second = found_for(name)
    assert second.estimates[0] < first.estimates[0]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_checker_proves_what_was_found(name: str) -> None:
    model = NETWORKS[name](0)
    candidate = found_for(name)[-1]
    outcome = proved(model, L2, candidate)
    assert isinstance(outcome, Certificate)
    assert outcome.claim.bound is not None
    assert outcome.claim.bound <= candidate.estimates[0] * (1 + 1e-8)


def proved(model: bytes, asked: Property, candidate: Candidate) -> object:
    imported = load(model, differential=False)
    network = imported.require_network()
    case = Case(
        model=model,
        model_id=imported.sha256,
        asked=asked,
        items=items_of(asked, network.output_size),
        patterns=network.patterns,
        target=None,
        producer={},
    )
    return prove(case, candidate, None, ())


@pytest.mark.parametrize("name", NETWORKS)
def test_masks_stand_between_linear_maps_only(name: str) -> None:
    assert bool(proof_of(found_for(name)[0]).masks) == (name in WITH_MASKS)


# --- What a torus without masks, or with slopes that exclude 0, gets wrong -----------------------


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("width", "pad", "side"), [(3, 1, 3), (3, 2, 3), (5, 2, 3), (2, 2, 4)])
def test_two_padded_convolutions_without_an_activation(
    width: int, pad: int, side: int, seed: int
) -> None:
    """A linear network: without a mask, what leaves the window of the first would come back."""
    network = loaded(two_layers(None, width, pad, side)(seed))
    matrix = network.forward(torch.eye(side, dtype=torch.float64)) - network.forward(
        torch.zeros(side, side, dtype=torch.float64)
    )
    (candidate,) = found(network, most=1)
    assert float(torch.linalg.matrix_norm(matrix, 2)) <= candidate.estimates[0]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("width", "pad", "side"), [(3, 1, 3), (3, 2, 3), (5, 2, 3)])
def test_torus_needs_slopes_that_contain_zero(width: int, pad: int, side: int, seed: int) -> None:
    network = loaded(two_layers(leaky, width, pad, side)(seed))
    (candidate,) = found(network, most=1)
    assert admitted_norm(network) <= candidate.estimates[0]


# --- What is asked -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asked",
    [
        Property(norm=NormPair(Norm.L2, Norm.LINF)),
        Property(norm=NormPair(Norm.LINF, Norm.L1)),
        Property(norm=NormPair(Norm.L1, Norm.L2)),
        Property(outputs=Each()),
        Property(outputs=Margins(None)),
    ],
    ids=str,
)
def test_the_checker_proves_every_item(asked: Property) -> None:
    model = NETWORKS["strided"](0)
    (candidate,) = found(loaded(model), asked, most=1)
    outcome = proved(model, asked, candidate)
    assert isinstance(outcome, Certificate)
    assert outcome.claim.bound is not None
    assert outcome.claim.bound <= max(candidate.estimates) * (1 + 1e-8)


def test_a_chain_is_hardly_above_its_product() -> None:
    """The torus is a little larger than the image, and so are norms on it."""
    network = loaded(two_layers(relu, 3, 1, 16)(0))
    *_, last = found(network, most=9)
    assert last.estimates[0] <= product.candidate(network, L2).estimates[0] * 1.02


def test_the_search_stops_when_the_bound_is_enough() -> None:
    steps: list[Step] = []
    aim = Aim(enough=1e9, report=steps.append)
    network = network_of("identity block")
    every = list(torus.candidates(network, L2, Options(), Clock.start(60.0), aim))
    assert len(every) == 1
    assert steps


def test_without_time_there_is_one_candidate() -> None:
    every = torus.candidates(network_of("strided"), L2, Options(), Clock.start(0.0))
    assert len(list(every)) == 1


# --- What is refused -----------------------------------------------------------------------------


def test_a_dense_network_is_none() -> None:
    network = next(iter(DENSE.values()))()
    assert not torus.applies(network)
    with pytest.raises(TooLarge, match="no convolution"):
        found(network)


def test_a_region_is_refused() -> None:
    network = network_of("strided")
    assert torus.applies(network)
    region = Ball(center=(0.0,) * network.input_size, radius=1.0, norm=Norm.L2)
    with pytest.raises(TooLarge, match="local"):
        found(network, Property(scope="local", region=region))
    assert isinstance(L2.region, Everywhere)


def test_estimates_are_numbers() -> None:
    for name in NETWORKS:
        assert all(math.isfinite(candidate.estimates[0]) for candidate in found_for(name))
