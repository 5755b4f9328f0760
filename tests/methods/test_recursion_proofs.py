"""Block recursion to the end: what it finds, the checker proves, and it is not below the truth."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from tests.exact import Pair
from tests.random_networks import random_network
from tests.tiny_networks import vertex_constant
from tests.tiny_topologies import IMAGES, VECTORS, tiny_network
from verifier.certificate import Candidate
from verifier.checker import witness_value
from verifier.methods import recursion, witness
from verifier.methods.clock import Clock
from verifier.methods.items import items_of
from verifier.methods.lipsdp import Options
from verifier.network.graph import Network
from verifier.norms import Norm, NormPair
from verifier.onnx_import import load
from verifier.property import All, Each, Margins, Outputs, Property
from verifier.proving import Case, Unproved, prove

PAIRS: tuple[Pair, ...] = (("l2", "l2"), ("linf", "linf"), ("linf", "l1"), ("l1", "l2"))


def proved(model: bytes, network: Network, asked: Property, candidate: Candidate) -> float:
    """The bound of the certificate that the checker accepts."""
    case = Case(
        model=model,
        model_id=load(model).sha256,
        asked=asked,
        items=items_of(asked, network.output_size),
        patterns=network.patterns,
        target=None,
        producer={},
    )
    outcome = prove(case, candidate, None, ())
    assert not isinstance(outcome, Unproved), outcome.verdict.reason
    assert outcome.claim.bound is not None
    # The estimate is no proof, but it is not far from one.
    assert outcome.claim.bound <= max(candidate.estimates) * (1 + 1e-4)
    return outcome.claim.bound


@pytest.mark.parametrize("seed", range(len(VECTORS) + len(IMAGES)))
def test_no_proved_bound_is_below_the_constant_of_all_sides(seed: int) -> None:
    """Of every candidate for every topology; the constant is exact."""
    tiny = tiny_network(seed)
    model = tiny.network.model
    network = load(model).require_network()
    norms = PAIRS[seed % len(PAIRS)]
    constant = vertex_constant(tiny, norms)
    asked = Property(norm=NormPair(Norm(norms[0]), Norm(norms[1])))
    for candidate in recursion.candidates(network, asked, Options(gap=1e-2), Clock.start(0.3)):
        assert constant <= Fraction(proved(model, network, asked, candidate))


#: Seeds whose models have activations that the checker reads.
@pytest.mark.parametrize("seed", [0, 1, 2, 8, 9, 71])
def test_every_candidate_of_random_networks_is_proved(seed: int) -> None:
    model = random_network(np.random.default_rng(seed)).model
    network = load(model).require_network()
    outputs: Outputs = All()
    if 1 < network.output_size:
        outputs = (All(), Each(), Margins(None))[seed % 3]
    pair = NormPair(tuple(Norm)[1 - seed % 2], Norm.L2)
    asked = Property(norm=pair, outputs=outputs)
    found = witness.search(network, asked, Clock.start(0.1), seed=0)
    reached = found and witness_value(model, asked, found, network.patterns)
    for candidate in recursion.candidates(network, asked, Options(gap=1e-2), Clock.start(0.5)):
        bound = proved(model, network, asked, candidate)
        assert reached is None or reached <= bound
