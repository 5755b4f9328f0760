"""Ours is never looser than what was published; what was published is never below the product."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from itertools import pairwise

import numpy as np
import pytest

from tests.attempts import attempt
from tests.references.published import (
    Groups,
    Matrix,
    eclipse,
    eclipse_fast,
    lipsdp_neuron,
    mirror_group,
    product_bound,
    sort_groups,
    sorted_chain,
    sorted_groups,
)
from tests.tiny_gates import GATES, LEAK, Attach, mirror
from tests.tiny_networks import TinyBuilder
from tests.tiny_topologies import gemm
from verifier.methods import lipsdp
from verifier.methods.clock import Clock
from verifier.onnx_import import load
from verifier.property import Property

ATTEMPT = attempt("lipsdp", gap=1e-7)
SLACK = 1e-6  #: relative: of two solvers that stop near the same optimum


@pytest.fixture(autouse=True)
def _no_time_for_witnesses(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is reached is of no interest here, and would be sought for seconds."""
    monkeypatch.setattr(import_module("verifier.verify"), "WITNESS_SECONDS", 0.0)


def random_weights(seed: int, sizes: Sequence[int]) -> list[Matrix]:
    """Gaussian weights as a file holds them, of about norm 1."""
    rng = np.random.default_rng(seed)
    return [
        (rng.normal(size=(rows, columns)) / np.sqrt(columns)).astype(np.float32).astype(np.float64)
        for columns, rows in pairwise(sizes)
    ]


def chain(weights: Sequence[Matrix], gate: Attach) -> bytes:
    """The model."""
    builder = TinyBuilder(np.random.default_rng(0), (1, weights[0].shape[1]))
    for depth, weight in enumerate(weights):
        gemm(builder, weight, np.zeros(len(weight)))
        if depth < len(weights) - 1:
            gate(builder)
    return builder.finished().model


def own_bound(weights: Sequence[Matrix], gate: Attach) -> float:
    """What we certify: refined, where that helps."""
    bound = ATTEMPT.answer(chain(weights, gate), Property(), seconds=30.0).claim.bound
    assert bound is not None
    return bound


def own_optimum(weights: Sequence[Matrix], gate: Attach) -> float:
    """Of our inequality, before anything refines it."""
    network = load(chain(weights, gate)).require_network()
    found = lipsdp.candidate(network, Property(), lipsdp.Options(gap=1e-7), Clock.start(30.0))
    return found.estimates[0]


@pytest.mark.parametrize("sizes", [(3, 6, 6, 2), (4, 6, 6, 6, 6, 3)], ids=str)
@pytest.mark.parametrize(("gate", "slopes"), [("relu", (0.0, 1.0)), ("leaky", (LEAK, 1.0))])
def test_chains_reach_lipsdp_neuron(
    gate: str, slopes: tuple[float, float], sizes: tuple[int, ...]
) -> None:
    """For scalar activations both forms have the same optimum."""
    weights = random_weights(len(sizes), sizes)
    own, published = own_optimum(weights, GATES[gate]), lipsdp_neuron(weights, slopes)
    assert published is not None
    assert published * (1 - SLACK) <= own <= published * (1 + SLACK)
    assert own_bound(weights, GATES[gate]) <= own * (1 + SLACK)
    assert published <= product_bound(weights) * (1 + SLACK)


@pytest.mark.parametrize("seed", range(3))
def test_layer_by_layer_is_never_tighter(seed: int) -> None:
    """ECLipsE fixes a layer's multipliers before it sees the next but one."""
    weights = random_weights(seed, (4, 6, 6, 6, 6, 3))
    neuron, layered, fast = lipsdp_neuron(weights), eclipse(weights), eclipse_fast(weights)
    own = own_bound(weights, GATES["relu"])
    assert neuron is not None
    assert layered is not None
    assert neuron <= layered * (1 + SLACK)
    assert layered <= fast * (1 + SLACK)
    assert fast <= product_bound(weights)
    assert own <= layered * (1 + SLACK)


def halves(width: int) -> Groups:
    return sort_groups([(i, i + width // 2) for i in range(width // 2)])


def neighbours(count: int, width: int) -> Groups:
    return sort_groups([range(first, first + count) for first in range(0, width, count)])


UNIT = np.array([2.0, 3.0, 6.0, 0.0, 0.0, 0.0]) / 7


def _mirror(b: TinyBuilder) -> None:
    mirror(b, UNIT)


@pytest.mark.parametrize(
    ("gate", "groups"),
    [
        (GATES["maxmin"], halves(6)),
        (GATES["groupsort3"], neighbours(3, 6)),
        (_mirror, mirror_group(UNIT)),
    ],
    ids=["maxmin", "groupsort3", "householder"],
)
@pytest.mark.parametrize("held", [0.0, 1.0, 30.0])
def test_groups_are_never_looser_than_published(gate: Attach, groups: Groups, held: float) -> None:
    """Whatever the size of their multipliers, and in the limit as tight."""
    weights = random_weights(1, (3, 6, 6, 2))
    own, published = own_optimum(weights, gate), sorted_groups(weights, [groups] * 2, held=held)
    assert published is not None
    assert own <= published * (1 + SLACK)
    assert held < 30 or published <= own * 1.01


def test_published_constraint_with_t_alone_splits_layer_by_layer() -> None:
    weights = random_weights(2, (8, 6, 6, 2))
    whole, split = sorted_groups(weights, [neighbours(2, 6)] * 2, held=0.0), sorted_chain(weights)
    assert whole is not None
    assert whole == pytest.approx(split, rel=1e-5)


@pytest.mark.parametrize("depth", [5, 7])
def test_deep_maxmin_chains_are_strictly_tighter_than_published(depth: int) -> None:
    """What sorting keeps is eliminated; one scalar a group, as in T, holds it less."""
    weights = random_weights(depth, (4, *(6,) * (depth - 1), 3))
    published = sorted_groups(weights, [halves(6)] * (depth - 1), held=0.0)
    assert published is not None
    assert own_bound(weights, GATES["maxmin"]) < 0.95 * published
