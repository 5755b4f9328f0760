"""Slopes that follow their gates: bounds hold, batches mix nothing, and work is counted first."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.methods.toys import NETWORKS, chain
from verifier.certificate import PropagationProof
from verifier.errors import OutOfBudget
from verifier.methods import propagation
from verifier.methods.clock import Clock
from verifier.methods.derivatives import Derivatives
from verifier.methods.domain import Domain
from verifier.methods.propagation import Forward, affordable, forward, gate_slopes
from verifier.methods.propagation.jacobian import Jacobian
from verifier.methods.propagation.joint import along
from verifier.methods.propagation.work import jacobian_work, multiplications, pulled_back
from verifier.network.elementwise import Tanh
from verifier.network.graph import Network
from verifier.network.linear_map import Adjoint, Convolution, Dense, Identity
from verifier.norms import Norm, NormPair
from verifier.property import Each, Property
from verifier.regions import Ball, Bounded, CenterBox

FOREVER = Clock.start(1e6)
MARGIN = 1e-11  #: for rounding only: the search is in plain float64, and the checker proves
SMOOTH = ["tanh", "gelu", "silu", "concatenation"]
LINF = NormPair(Norm.LINF, Norm.LINF)


def regions(size: int, radius: float) -> list[Bounded]:
    center = (0.125,) * size
    balls = [Ball(norm=norm, center=center, radius=radius) for norm in Norm]
    return [CenterBox(center=center, radius=radius), *balls]


def jacobian_over(network: Network, region: Bounded, rows: torch.Tensor) -> Jacobian:
    passed, entering = affordable(network, Domain.of(region, network.input_size))
    ranges = gate_slopes(network, entering)
    return Jacobian(network, ranges, rows, FOREVER, along(network, passed, entering))


@pytest.mark.parametrize("radius", [2.0**-40, 0.03125, 0.5])
@pytest.mark.parametrize("shape", SMOOTH)
def test_every_jacobian_of_the_region_is_held(shape: str, radius: float) -> None:
    rng = np.random.default_rng(19)
    network = NETWORKS[shape](rng).lowered("compare")
    rows = torch.eye(network.output_size, dtype=torch.float64)
    inputs = torch.arange(network.input_size)
    for region in regions(network.input_size, radius):
        question = jacobian_over(network, region, rows)
        lower, upper = question.bounds(inputs)
        sums = question.row_sums(inputs, lower, upper)
        x = 0.125 + radius * torch.from_numpy(rng.uniform(-1, 1, (41, network.input_size)))
        inside = torch.tensor([region.contains(point) for point in x.tolist()])
        found = Derivatives(network, rows).jacobian(x[inside])
        margin = MARGIN * (1 + found.abs().max()) if len(found) else 0.0
        assert (lower <= found + margin).all()
        assert (found <= upper + margin).all()
        assert (found.abs().sum(dim=-1) <= sums + margin).all()


def test_a_row_alone_has_the_bounds_that_it_has_among_others() -> None:
    network = NETWORKS["tanh"](np.random.default_rng(23)).lowered("compare")
    region = CenterBox(center=(0.125,) * 3, radius=0.25)
    rows, inputs = torch.eye(2, dtype=torch.float64), torch.arange(3)
    together = jacobian_over(network, region, rows).bounds(inputs)
    for i in range(2):
        alone = jacobian_over(network, region, rows[[i]]).bounds(inputs)
        for whole, part in zip(together, alone, strict=True):
            torch.testing.assert_close(whole[[i]], part, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", ["tanh", "gelu"])
def test_a_small_region_of_a_smooth_network_is_bounded_jointly(shape: str) -> None:
    network = NETWORKS[shape](np.random.default_rng(29))
    region = CenterBox(center=(0.125,) * 3, radius=2.0**-6)
    asked = Property(scope="local", norm=LINF, region=region, outputs=Each())
    found = propagation.candidate(network, asked, propagation.Options(), FOREVER)
    assert isinstance(found.proof, PropagationProof)
    assert found.proof.technique == "joint"


def test_kinks_alone_are_not_followed() -> None:
    network = NETWORKS["relu"](np.random.default_rng(29))
    asked = Property(scope="local", norm=LINF, region=CenterBox(center=(0.125,) * 3, radius=0.25))
    proof = propagation.candidate(network, asked, propagation.Options(), FOREVER).proof
    assert isinstance(proof, PropagationProof)
    assert proof.technique == "linear"


def test_lines_end_where_they_cost_more_than_they_may() -> None:
    network = chain(np.random.default_rng(3), (3, 5, 4, 2))
    domain = Domain.of(CenterBox(center=(0.0,) * 3, radius=1.0), 3)
    with pytest.raises(OutOfBudget):
        Forward(network, domain, "linear", {}, most=1.0).bounds()


def test_what_lines_cannot_afford_intervals_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    network = chain(np.random.default_rng(3), (3, 5, 4, 2))
    domain = Domain.of(CenterBox(center=(0.0,) * 3, radius=1.0), 3)
    monkeypatch.setattr(forward, "MOST_FORWARD", 1.0)
    passed, entering = affordable(network, domain)
    plain = Forward(network, domain, "interval", {}).bounds()
    assert passed.proof.technique == "interval"
    assert all((entering[gate][0] == plain[gate][0]).all() for gate in plain)


@pytest.mark.parametrize(
    ("linear", "count"),
    [
        (Dense(torch.zeros(4, 3, dtype=torch.float64)), 12),
        (Adjoint(Dense(torch.zeros(4, 3, dtype=torch.float64))), 12),
        (Identity(7), 7),
        (
            Convolution(
                torch.zeros(2, 1, 3, 2, dtype=torch.float64),
                (1, 5, 4),
                (2, 1),
                ((1, 0), (0, 1)),
                (1, 1),
            ),
            96,
        ),
    ],
)
def test_multiplications_are_counted(linear: Dense | Convolution | Identity, count: int) -> None:
    assert multiplications(linear) == count


def test_the_work_of_a_chain_is_the_sum_over_its_maps() -> None:
    network = chain(np.random.default_rng(3), (3, 5, 2), Tanh)
    assert pulled_back(network) == {"": 0, "v0": 15, "z0": 20, "v1": 30}
    gates = {"z0": (torch.zeros(5, dtype=torch.float64), torch.ones(5, dtype=torch.float64))}
    # Five derivatives at the gate, carried on through 10; three at the input, through 30; twice.
    assert jacobian_work(network, gates, rows=2, inputs=3) == 2 * 2 * (5 * 10 + 3 * 30)


def test_the_work_of_groups_is_not_counted() -> None:
    network = NETWORKS["maxmin"](np.random.default_rng(3))
    with pytest.raises(TypeError, match="not lowered"):
        pulled_back(network)


@pytest.mark.parametrize("outer", [0.0625, 0.25, 1.0])
@pytest.mark.parametrize("shape", ["relu", "residual", "convolution"])
def test_a_region_within_another_has_tighter_gates(shape: str, outer: float) -> None:
    network = NETWORKS[shape](np.random.default_rng(31)).lowered("compare")
    center = (0.125,) * network.input_size
    ranges = [
        gate_slopes(
            network,
            affordable(network, Domain.of(CenterBox(center=center, radius=radius), len(center)))[1],
        )
        for radius in (outer / 2, outer)
    ]
    for gate, (least, greatest) in ranges[0].items():
        assert (ranges[1][gate][0] <= least).all()
        assert (greatest <= ranges[1][gate][1]).all()
