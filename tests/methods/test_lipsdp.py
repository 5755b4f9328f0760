"""LipSDP's candidates: never below a Jacobian that the constraints admit, and as good as cvxpy."""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from jaxtyping import Float64
from torch import Tensor

from tests.methods.lipsdp_networks import NETWORKS, noise, relu_chain, vertex_jacobians
from verifier.certificate import GateLmiProof, LmiProof, LmiRow
from verifier.errors import InvalidRequest
from verifier.methods import product
from verifier.methods.clock import Clock
from verifier.methods.items import items_of
from verifier.methods.lipsdp import Options, candidate
from verifier.methods.lipsdp.form import Form, form_of
from verifier.methods.lipsdp.slopes import Slopes, global_slopes
from verifier.network.elementwise import Relu
from verifier.network.graph import Network
from verifier.network.linear_map import Dense
from verifier.network.nodes import Elementwise, Term, linear
from verifier.norms import Norm, NormPair
from verifier.property import Each, Indices, Margins, Property
from verifier.regions import Ball, CenterBox, Everywhere

PAIRS = [NormPair(i, o) for i in Norm for o in Norm]
FEW_PAIRS = [NormPair(Norm.L2, Norm.L2), NormPair(Norm.LINF, Norm.LINF), NormPair(Norm.L1, Norm.L1)]


@cache
def admitted(name: str) -> tuple[Float64[Tensor, "outputs inputs"], ...]:
    """Jacobians that the constraints of a network admit."""
    return tuple(vertex_jacobians(globally(NETWORKS[name]()), 512))


def asked_for(pair: NormPair, **selected: object) -> Property:
    return Property(norm=pair, **selected)  # pyright: ignore[reportArgumentType] (members by name)


def globally(network: Network) -> Form:
    kept = network.lowered("keep")
    return form_of(kept, torch.arange(network.input_size), global_slopes(kept))


def least_eigenvalue(form: Form, row: LmiRow, outputs: Float64[Tensor, "m outputs"]) -> float:
    """Of the certificate's matrix, scaled to a unit diagonal."""
    parts = [torch.from_numpy(row.multipliers[a.gate])[a.active] for a in form.gates]
    weights = torch.cat([torch.zeros(0, dtype=torch.float64), *parts])[form.owner]
    outflow = outputs @ form.outflow
    through = form.inflow.T @ (weights[:, None] * form.inflow)
    if row.input_multipliers is None:
        level = torch.full((form.inputs,), row.level, dtype=torch.float64)
        matrix = torch.diag(torch.cat([level, weights])) - outflow.T @ outflow - through
    else:
        inputs = torch.from_numpy(row.input_multipliers)
        corner = torch.full((1, 1), row.level, dtype=torch.float64)
        core = torch.diag(torch.cat([inputs, weights])) - through
        border = outflow if row.output is None else outflow[[row.output]]
        matrix = torch.cat(
            [torch.cat([corner, -border], dim=1), torch.cat([-border.T, core], dim=1)]
        )
    roots = matrix.diagonal().sqrt()
    return float(torch.linalg.eigvalsh(matrix / roots / roots[:, None])[0])


def reached(jacobian: Float64[Tensor, "m n"], pair: NormPair) -> float:
    """A number that |J| reaches in this pair of norms: exact but for linf to l1 and l2."""
    order = {Norm.L1: 1, Norm.L2: 2, Norm.LINF: torch.inf}
    if pair == NormPair(Norm.L2, Norm.L2):
        return float(torch.linalg.matrix_norm(jacobian, 2))
    match pair.input:
        case Norm.L1:
            directions = torch.eye(jacobian.shape[1], dtype=torch.float64)
        case Norm.L2:
            directions = jacobian / jacobian.norm(dim=1, keepdim=True).clamp(min=1e-300)
        case Norm.LINF:
            directions = jacobian.sign()
    images = directions @ jacobian.T
    return float(torch.linalg.vector_norm(images, order[pair.output], dim=1).max())


@pytest.mark.parametrize("pair", PAIRS, ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_no_admitted_jacobian_exceeds_the_bound(name: str, pair: NormPair) -> None:
    network = NETWORKS[name]()
    (bound,) = candidate(network, asked_for(pair), Options(), Clock.start(60.0)).estimates
    assert max(reached(jacobian, pair) for jacobian in admitted(name)) <= bound


@pytest.mark.parametrize("pair", [NormPair(Norm.L2, Norm.L2), NormPair(Norm.LINF, Norm.LINF)])
@pytest.mark.parametrize("name", NETWORKS)
def test_stored_inequality_holds(name: str, pair: NormPair) -> None:
    network = NETWORKS[name]()
    found = candidate(network, asked_for(pair), Options(), Clock.start(60.0))
    assert isinstance(found.proof, LmiProof)
    rows = found.proof.items[0].rows
    outputs = torch.eye(network.output_size, dtype=torch.float64)
    form = globally(network)
    assert all(0 < least_eigenvalue(form, row, outputs) for row in rows)


@pytest.mark.parametrize("solver", ["clarabel", "scs"])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
def test_interior_point_agrees_with_general_solvers(name: str, solver: str) -> None:
    network, clock = NETWORKS[name](), Clock.start(60.0)
    (own,) = candidate(network, Property(), Options(), clock).estimates
    options = Options(solver=solver)  # pyright: ignore[reportArgumentType] (parametrised)
    (other,) = candidate(network, Property(), options, clock).estimates
    assert own <= other * (1 + 2e-6)
    # SCS stops early; its repaired answer may be looser.
    assert other <= own * (1 + (1e-5 if solver == "clarabel" else 1e-2))


@pytest.mark.parametrize("name", NETWORKS)
def test_linf_agrees_with_clarabel(name: str) -> None:
    network, clock = NETWORKS[name](), Clock.start(60.0)
    asked = Property(norm=NormPair(Norm.LINF, Norm.LINF), outputs=Each())
    own = candidate(network, asked, Options(), clock).estimates
    other = candidate(network, asked, Options(solver="clarabel"), clock).estimates
    assert own == pytest.approx(other, rel=1e-5)


@pytest.mark.parametrize("seed", range(8))
def test_no_bound_of_a_chain_exceeds_the_product(seed: int) -> None:
    network = relu_chain(seed)
    own = candidate(network, Property(), Options(), Clock.start(60.0)).estimates
    assert own <= product.candidate(network, Property()).estimates


@pytest.mark.parametrize("name", ["relu_chain", "residual", "groupsort", "maxima"])
def test_every_stop_is_a_bound(name: str) -> None:
    network = NETWORKS[name]()
    truth = max(reached(jacobian, NormPair(Norm.L2, Norm.L2)) for jacobian in admitted(name))
    bounds = [
        candidate(network, Property(), Options(iterations=count), Clock.start(60.0)).estimates[0]
        for count in (1, 2, 3, 5, 8, 13)
    ]
    assert truth <= min(bounds)
    assert all(later <= sooner * (1 + 1e-8) for sooner, later in pairwise(bounds))


def test_expired_clock_leaves_the_start() -> None:
    network = NETWORKS["residual"]()
    asked = Property(outputs=Each())
    rushed = candidate(network, asked, Options(), Clock.start(0.0))
    calm = candidate(network, asked, Options(), Clock.start(60.0))
    assert all(b <= a < np.inf for a, b in zip(rushed.estimates, calm.estimates, strict=True))


def test_single_outputs_and_margins_are_items_of_one_row() -> None:
    network = NETWORKS["relu_chain"]()
    asked = Property(outputs=Margins(pairs=((0, 1), (1, 0))))
    found = candidate(network, asked, Options(), Clock.start(60.0))
    assert len(found.estimates) == 2
    assert found.estimates[0] == pytest.approx(found.estimates[1], rel=1e-5)
    jacobians = admitted("relu_chain")
    for item, bound in zip(items_of(asked, 2), found.estimates, strict=True):
        assert max(float((item.rows @ j).norm()) for j in jacobians) <= bound


def test_selected_inputs_and_outputs_bound_less() -> None:
    network = NETWORKS["residual"]()
    asked = Property(inputs=Indices((1,)), outputs=Indices((0,)))
    (part,) = candidate(network, asked, Options(), Clock.start(60.0)).estimates
    (whole,) = candidate(network, Property(), Options(), Clock.start(60.0)).estimates
    truth = max(abs(float(j[0, 1])) for j in admitted("residual"))
    assert truth <= part < whole


def test_constant_outputs_have_a_negligible_bound() -> None:
    weight = torch.tensor([[1.0, 2.0], [0.0, 0.0]], dtype=torch.float64)
    nodes = (linear("y", (Term("", Dense(weight)),)),)
    network = Network(nodes=nodes, input_size=2, output="y")
    bounds = candidate(network, Property(outputs=Each()), Options(), Clock.start(60.0)).estimates
    assert bounds[0] == pytest.approx(math.sqrt(5), rel=1e-6)
    assert 0 < bounds[1] < 1e-20


@pytest.mark.parametrize("pair", FEW_PAIRS, ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_no_realised_slope_of_a_region_exceeds_the_local_bound(name: str, pair: NormPair) -> None:
    network = NETWORKS[name]()
    center = tuple(0.1 * k for k in range(network.input_size))
    region = CenterBox(center=center, radius=0.3)
    asked = Property(scope="local", region=region, norm=pair)
    found = candidate(network, asked, Options(), Clock.start(60.0))
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(2000, network.input_size, generator=generator, dtype=torch.float64)
    x = torch.tensor(center) + 0.3 * (2 * points - 1)
    rise = network.forward(x)[:1000] - network.forward(x)[1000:]
    order = {Norm.L1: 1.0, Norm.L2: 2.0, Norm.LINF: math.inf}
    run = x[:1000] - x[1000:]
    ratios = torch.linalg.vector_norm(rise, order[pair.output], dim=1) / torch.linalg.vector_norm(
        run, order[pair.input], dim=1
    )
    assert float(ratios.max()) <= found.estimates[0]


@pytest.mark.parametrize(
    "region",
    [
        CenterBox(center=(0.3, -0.2, 0.1), radius=0.05),
        Ball(norm=Norm.L2, center=(0.3, -0.2, 0.1), radius=0.05),
    ],
)
def test_local_bound_is_below_the_global_one(region: CenterBox | Ball) -> None:
    network = NETWORKS["relu_chain"]()
    (local,) = candidate(
        network, Property(scope="local", region=region), Options(), Clock.start(60.0)
    ).estimates
    (everywhere,) = candidate(
        network, Property(region=Everywhere()), Options(), Clock.start(60.0)
    ).estimates
    assert local < everywhere


def test_local_proof_stores_every_gate_and_its_lines() -> None:
    network = NETWORKS["maxmin"]()
    region = CenterBox(center=(0.3, -0.2, 0.1), radius=0.5)
    asked = Property(scope="local", region=region)
    found = candidate(network, asked, Options(), Clock.start(60.0))
    assert isinstance(found.proof, GateLmiProof)
    gates = {
        node.gate for node in network.lowered("compare").nodes if isinstance(node, Elementwise)
    }
    assert set(found.proof.slopes) == gates
    assert set(found.proof.forward.lines) == gates
    assert set(found.proof.items[0].rows[0].multipliers) == gates


def test_coupled_multipliers_are_false() -> None:
    """LipSDP-Network claims .86496 here; a slope of .90294 is realised."""
    first = torch.tensor([[-1.0379, 1.06128], [-0.47245, -0.21774]], dtype=torch.float64)
    second = torch.tensor([[0.60827, -0.88520]], dtype=torch.float64)
    nodes = (
        linear("v", (Term("", Dense(first)),)),
        Elementwise("z", "v", Relu(2), gate="z"),
        linear("y", (Term("z", Dense(second)),)),
    )
    network = Network(nodes=nodes, input_size=2, output="y")
    (bound,) = candidate(network, Property(), Options(), Clock.start(60.0)).estimates
    x = torch.tensor([[-1.0, 1.0], [1.0, -1.0], [-0.5, 2.0], [-1.0, -1.0]], dtype=torch.float64)
    slopes = [
        float((second * ((first @ p) > 0).double() @ first).norm())
        for p in [*x, *noise(torch.Generator().manual_seed(0), 200, 2)]
    ]
    assert 0.90294 - 1e-4 <= max(slopes) <= bound


def test_dropping_the_product_of_slopes_is_false_for_negative_ones() -> None:
    """One neuron of slopes [-1, 1/2]: the bound is 1, by the negative end."""
    slopes = {"z": Slopes(torch.tensor([-1.0]).double(), torch.tensor([0.5]).double())}
    one = torch.ones(1, 1, dtype=torch.float64)
    nodes = (
        linear("v", (Term("", Dense(one)),)),
        Elementwise("z", "v", Relu(1), gate="z"),
        linear("y", (Term("z", Dense(one)),)),
    )
    form = form_of(Network(nodes=nodes, input_size=1, output="y"), torch.arange(1), slopes)
    assert max(float(j.abs()) for j in vertex_jacobians(form)) == 1.0


@pytest.mark.parametrize("gap", [0.0, 1.0, math.nan])
def test_gap_out_of_range_is_refused(gap: float) -> None:
    with pytest.raises(InvalidRequest):
        Options(gap=gap)


def test_no_iterations_are_refused() -> None:
    with pytest.raises(InvalidRequest):
        Options(iterations=0)
