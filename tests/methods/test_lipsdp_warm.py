"""Starts near known multipliers, and solvers that lie: neither decides what is a bound."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.methods.lipsdp_networks import NETWORKS, Builder, vertex_jacobians
from verifier.certificate import LmiProof, LmiRow
from verifier.methods.clock import Clock
from verifier.methods.lipsdp import Options, candidate, interior_point
from verifier.methods.lipsdp.form import Form, form_of
from verifier.methods.lipsdp.inequality import Inequality, Point, ones
from verifier.methods.lipsdp.interior_point import Solved
from verifier.methods.lipsdp.slopes import global_slopes
from verifier.methods.progress import NO_AIM, Aim, Step
from verifier.network.elementwise import Relu
from verifier.network.graph import Network
from verifier.norms import Norm, NormPair
from verifier.property import Indices, Property

L2 = NormPair(Norm.L2, Norm.L2)
LINF = NormPair(Norm.LINF, Norm.LINF)
JUNK = [0.0, -1.0, math.nan, math.inf, 1e-200, 1e200]


def chain() -> Network:
    b = Builder(5, 3)
    last = ""
    for width in (17, 13, 11):
        last = b.gate(Relu, b.dense(width, last))
    b.dense(3, last)
    return b.network()


def asked_for(pair: NormPair) -> Property:
    return Property(norm=pair, outputs=Indices((0,)) if pair == LINF else Property().outputs)


def row_of(network: Network, pair: NormPair, options: Options) -> LmiRow:
    found = candidate(network, asked_for(pair), options, Clock.start(60.0))
    assert isinstance(found.proof, LmiProof)
    return found.proof.items[0].rows[0]


def bound_of(network: Network, pair: NormPair, warm: LmiRow | None, aim: Aim = NO_AIM) -> float:
    found = candidate(network, asked_for(pair), Options(), Clock.start(60.0), aim, warm)
    return found.estimates[0]


@pytest.mark.parametrize("pair", [L2, LINF], ids=str)
def test_a_warm_start_is_shorter_and_ends_where_a_cold_one_does(pair: NormPair) -> None:
    network = chain()
    warm = row_of(network, pair, Options(gap=1e-2))
    cold_steps, warm_steps = list[Step](), list[Step]()
    cold = bound_of(network, pair, None, Aim(report=cold_steps.append))
    again = bound_of(network, pair, warm, Aim(report=warm_steps.append))
    assert again == pytest.approx(cold, rel=2e-6)
    assert len(warm_steps) < len(cold_steps)


@pytest.mark.parametrize("pair", [L2, LINF], ids=str)
@pytest.mark.parametrize("junk", JUNK)
def test_a_useless_warm_start_does_no_harm(junk: float, pair: NormPair) -> None:
    network = chain()
    known = row_of(network, pair, Options(gap=1e-2))
    spoiled = {
        gate: np.where(np.arange(len(m)) % 2, m, junk) for gate, m in known.multipliers.items()
    }
    cold = bound_of(network, pair, None)
    assert bound_of(network, pair, replace(known, multipliers=spoiled)) == pytest.approx(
        cold, rel=2e-6
    )
    assert bound_of(network, pair, replace(known, level=junk)) == pytest.approx(cold, rel=2e-6)
    assert bound_of(network, pair, replace(known, multipliers={})) == pytest.approx(cold, rel=2e-6)


def test_multipliers_of_another_norm_are_left_alone() -> None:
    network = chain()
    other = row_of(network, LINF, Options(gap=1e-2))
    assert bound_of(network, L2, other) == bound_of(network, L2, None)


def globally(network: Network) -> Form:
    kept = network.lowered("keep")
    return form_of(kept, torch.arange(network.input_size), global_slopes(kept))


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("name", ["relu_chain", "residual", "groupsort", "dead_and_constant"])
def test_no_lie_of_the_solver_makes_a_false_bound(
    name: str, junk: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it answers is made feasible; the bound may be loose, and never below the truth."""

    def liar(problem: Inequality, **_: object) -> Solved:
        start = ones(problem)
        gates, inputs = start.gates.clone(), start.inputs.clone()
        gates[:, ::2] = junk
        inputs[:, ::2] = junk
        point = Point(level=start.level * junk, gates=gates, inputs=inputs)
        none = torch.zeros_like(start.level)
        return Solved(point=point, value=none, lower=none)

    network = NETWORKS[name]()
    truth = max(
        float(torch.linalg.matrix_norm(j, 2)) for j in vertex_jacobians(globally(network), 64)
    )
    monkeypatch.setattr(interior_point, "solve", liar)
    bound = candidate(network, Property(), Options(), Clock.start(60.0)).estimates[0]
    assert truth <= bound < math.inf
