"""Block recursion: never below a Jacobian, as good as LipSDP, and no worse than the product."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from jaxtyping import Float64
from torch import Tensor

from tests.methods.lipsdp_networks import NETWORKS, Builder, noise, vertex_jacobians
from verifier.certificate import Candidate, RecursionProof
from verifier.errors import InvalidRequest, JobFailed, TooLarge
from verifier.methods import lipsdp
from verifier.methods.clock import Clock
from verifier.methods.items import items_of
from verifier.methods.lipsdp import Options, global_slopes
from verifier.methods.lipsdp.form import form_of
from verifier.methods.progress import Aim, Step
from verifier.methods.recursion import candidates
from verifier.methods.recursion.closed import FAST, PRODUCT, chosen, greatest_eigenvalue
from verifier.methods.recursion.plan import steps_of
from verifier.network.elementwise import Relu
from verifier.network.graph import Grouped, Network
from verifier.network.grouped import GroupSort
from verifier.network.linear_map import Dense
from verifier.network.nodes import Elementwise, Term, linear
from verifier.norms import Norm, NormPair
from verifier.property import Each, Indices, Margins, Property
from verifier.regions import CenterBox

L2 = NormPair(Norm.L2, Norm.L2)
PAIRS = [NormPair(i, o) for i in Norm for o in Norm]


def found(
    network: Network, asked: Property | None = None, seconds: float = 20.0, gap: float = 1e-3
) -> list[Candidate]:
    return list(candidates(network, asked or Property(), Options(gap=gap), Clock.start(seconds)))


def reached(jacobian: Float64[Tensor, "m n"], pair: NormPair) -> float:
    """A number that |J| reaches: exact for l2 to l2, from below otherwise."""
    if pair == L2:
        return float(torch.linalg.matrix_norm(jacobian, 2))
    order = {Norm.L1: 1.0, Norm.L2: 2.0, Norm.LINF: math.inf}
    directions = torch.cat([torch.eye(jacobian.shape[1], dtype=torch.float64), jacobian.sign()])
    rise = torch.linalg.vector_norm(directions @ jacobian.T, order[pair.output], dim=1)
    run = torch.linalg.vector_norm(directions, order[pair.input], dim=1)
    return float((rise / run.clamp(min=1e-300)).max())


def dense_chain(weights: list[Float64[Tensor, "_ _"]]) -> Network:
    """ReLUs between matrices."""
    nodes, source = [], ""
    for k, weight in enumerate(weights):
        nodes.append(linear(f"v{k}", (Term(source, Dense(weight)),)))
        if k + 1 < len(weights):
            source = f"z{k}"
            nodes.append(Elementwise(source, f"v{k}", Relu(len(weight)), gate=source))
    return Network(nodes=tuple(nodes), input_size=weights[0].shape[1], output=nodes[-1].name)


def gaussian_weights(widths: tuple[int, ...], seed: int) -> list[Float64[Tensor, "_ _"]]:
    generator = torch.Generator().manual_seed(seed)
    return [noise(generator, b, a) * math.sqrt(2 / a) for a, b in pairwise(widths)]


def gaussian_chain(widths: tuple[int, ...], seed: int) -> Network:
    return dense_chain(gaussian_weights(widths, seed))


def orthogonal_maxmin(size: int, depth: int) -> Network:
    """1-Lipschitz: rotations between MaxMin pairs."""
    generator = torch.Generator().manual_seed(depth)
    nodes, source = [], ""
    pairs = torch.arange(size).reshape(-1, 2)
    for k in range(depth):
        rotation = torch.linalg.qr(noise(generator, size, size)).Q
        nodes.append(linear(f"v{k}", (Term(source, Dense(rotation)),)))
        source = f"z{k}"
        nodes.append(Grouped(source, f"v{k}", GroupSort(pairs, pairs)))
    return Network(nodes=tuple(nodes), input_size=size, output=source)


@pytest.mark.parametrize("name", NETWORKS)
def test_no_admitted_jacobian_exceeds_a_bound(name: str) -> None:
    network = NETWORKS[name]()
    kept = network.lowered("keep")
    form = form_of(kept, torch.arange(network.input_size), global_slopes(kept))
    jacobians = list(vertex_jacobians(form, 256))
    for pair in PAIRS:
        # Without time: the closed form alone, and a bound all the same.
        seconds = 20.0 if pair == L2 else 0.0
        bounds = [c.estimates[0] for c in found(network, Property(norm=pair), seconds)]
        truth = max(reached(jacobian, pair) for jacobian in jacobians)
        assert truth <= bounds[-1] * (1 + 1e-12)
        assert all(later < sooner for sooner, later in pairwise(bounds))


@pytest.mark.parametrize("name", NETWORKS)
def test_best_scales_are_those_of_the_inequality(name: str) -> None:
    network = NETWORKS[name]()
    (least,) = lipsdp.candidate(network, Property(), Options(), Clock.start(60.0)).estimates
    (bound,) = found(network)[-1].estimates
    assert least * (1 - 2e-6) <= bound <= least * (1 + 1e-3)


@pytest.mark.parametrize("name", ["relu_chain", "residual", "maxmin", "groupsort", "convolution"])
def test_linf_inputs_get_a_covariance_of_their_own(name: str) -> None:
    network = NETWORKS[name]()
    asked = Property(norm=NormPair(Norm.LINF, Norm.LINF), outputs=Indices((0,)))
    (least,) = lipsdp.candidate(network, asked, Options(), Clock.start(60.0)).estimates
    last = found(network, asked)[-1]
    assert isinstance(last.proof, RecursionProof)
    assert last.proof.inputs is not None
    assert len(last.proof.inputs) == network.input_size
    assert least * (1 - 2e-6) <= last.estimates[0] <= least * (1 + 5e-3)


def test_fast_rule_is_the_published_closed_form() -> None:
    """ECLipsE-Fast by its own recursion, in multipliers and with explicit inverses."""
    weights = gaussian_weights((3, 5, 4, 2), seed=1)
    network = dense_chain(weights)
    steps = steps_of(network, global_slopes(network))
    ours = chosen(steps, torch.eye(3, dtype=torch.float64), FAST)
    assert ours is not None
    # X_0 = I, X_i = L - (L/2) W X_(i-1)^-1 W' (L/2), L = 2/|W X_(i-1)^-1 W'| I.
    core = torch.eye(3, dtype=torch.float64)
    for weight in weights[:-1]:
        spread = weight @ torch.linalg.inv(core) @ weight.T
        multiplier = torch.eye(len(weight), dtype=torch.float64) * (
            2 / torch.linalg.matrix_norm(spread, 2)
        )
        core = multiplier - multiplier @ spread @ multiplier / 4
    last = weights[-1] @ torch.linalg.inv(core) @ weights[-1].T
    assert torch.allclose(last, ours.covariance, rtol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_no_chain_is_bounded_above_its_product(seed: int) -> None:
    weights = gaussian_weights((3, 5, 4, 2), seed)
    layers = math.prod(float(torch.linalg.matrix_norm(weight, 2)) for weight in weights)
    network = dense_chain(weights)
    steps = steps_of(network, global_slopes(network))
    ours = chosen(steps, torch.eye(3, dtype=torch.float64), PRODUCT)
    assert ours is not None
    assert math.sqrt(float(greatest_eigenvalue(ours.covariance))) <= layers * (1 + 1e-5)
    assert found(network, seconds=0.0)[-1].estimates[0] <= layers * (1 + 1e-5)


@pytest.mark.parametrize("depth", [1, 4, 12])
def test_rotations_between_sorted_pairs_stay_at_one(depth: int) -> None:
    network = orthogonal_maxmin(6, depth)
    assert found(network, seconds=1.0)[-1].estimates[0] == pytest.approx(1.0, abs=1e-4)


def test_a_hundred_layers_neither_overflow_nor_vanish() -> None:
    """Gains of 2^9 a layer: the covariances reach 2^1800, the bound 2^900."""
    calm = [noise(torch.Generator().manual_seed(k), 3, 3) for k in range(100)]
    last = found(dense_chain(calm), seconds=0.0)[-1].estimates[0]
    assert 0 < last < math.inf
    tame = [weight / 2**0.5 for weight in calm]
    smaller = found(dense_chain(tame), seconds=0.0)[-1].estimates[0]
    assert smaller * 2.0**50 == pytest.approx(last, rel=1e-9)
    wild = [weight * 2.0**12 for weight in calm]
    with pytest.raises(JobFailed, match="range"):
        found(dense_chain(wild), seconds=0.0)


def test_lists_share_the_scales() -> None:
    network = NETWORKS["relu_chain"]()
    (pair,) = found(network, Property(outputs=Margins(((0, 1),))))[-1].estimates
    each = found(network, Property(outputs=Each()))[-1]
    assert len(each.estimates) == 2
    (whole,) = found(network)[-1].estimates
    assert max(each.estimates) <= whole * (1 + 1e-6) <= math.hypot(*each.estimates) * (1 + 1e-2)
    assert pair <= math.sqrt(2) * whole * (1 + 1e-6)
    assert isinstance(each.proof, RecursionProof)
    assert set(each.proof.scales) == {n.gate for n in network.nodes if isinstance(n, Elementwise)}


def test_selected_inputs_and_outputs_bound_less() -> None:
    network = NETWORKS["residual"]()
    asked = Property(inputs=Indices((1,)), outputs=Indices((0,)))
    (part,) = found(network, asked)[-1].estimates
    (least,) = lipsdp.candidate(network, asked, Options(), Clock.start(60.0)).estimates
    assert least * (1 - 2e-6) <= part <= least * (1 + 1e-3)
    assert items_of(asked, network.output_size)[0].rows.shape == (1, 2)


def test_the_gap_is_to_the_best_scales() -> None:
    network = gaussian_chain((4, 8, 8, 3), seed=2)
    (least,) = lipsdp.candidate(network, Property(), Options(gap=1e-7), Clock.start(60.0)).estimates
    gaps: list[float] = []

    def noted(step: Step) -> None:
        if step.gap is not None and math.isfinite(step.gap):
            gaps.append(step.gap)

    last = list(
        candidates(network, Property(), Options(gap=1e-4), Clock.start(30.0), Aim(report=noted))
    )[-1]
    assert gaps
    assert gaps[-1] <= 1e-4
    assert last.estimates[0] / (1 + gaps[-1]) <= least * (1 + 1e-7)


def test_enough_is_enough() -> None:
    network = gaussian_chain((4, 8, 8, 3), seed=3)
    first, *_ = found(network)
    aim = Aim(enough=first.estimates[0])
    answers = list(candidates(network, Property(), Options(), Clock.start(20.0), aim))
    assert [c.estimates for c in answers] == [first.estimates]


def test_what_does_not_fit_is_refused_before_it_is_allocated() -> None:
    size = 40_000
    weights = [torch.ones(size, 2, dtype=torch.float64), torch.ones(2, size, dtype=torch.float64)]
    with pytest.raises(TooLarge, match="40000"):
        found(dense_chain(weights))


def test_a_region_is_refused() -> None:
    region = CenterBox(center=(0.0, 0.0, 0.0), radius=0.1)
    with pytest.raises(InvalidRequest):
        found(NETWORKS["relu_chain"](), Property(scope="local", region=region))


def test_outputs_that_never_vary_have_a_bound_of_zero() -> None:
    weight = torch.zeros(2, 3, dtype=torch.float64)
    network = dense_chain([weight, torch.ones(2, 2, dtype=torch.float64)])
    assert 0 <= found(network, seconds=1.0)[-1].estimates[0] < 1e-12


def test_dense_concatenations_keep_what_is_read_later() -> None:
    b = Builder(3, 12)
    first = b.gate(Relu, b.dense(4, ""))
    second = b.gate(Relu, b.dense(4, "", first))
    b.dense(2, "", first, second)
    network = b.network()
    (least,) = lipsdp.candidate(network, Property(), Options(), Clock.start(60.0)).estimates
    assert found(network)[-1].estimates[0] == pytest.approx(least, rel=1e-3)


def test_known_scales_are_a_start() -> None:
    """Those of a finished search are as good at once; shared or small ones are no trap."""
    network = gaussian_chain((6, 8, 8, 3), seed=5)
    best = found(network)[-1]
    assert isinstance(best.proof, RecursionProof)
    options, instant = Options(), Clock.start(0.0)

    def first(scales: dict[str, np.ndarray]) -> float:
        candidate = next(candidates(network, Property(), options, instant, known=scales))
        return candidate.estimates[0]

    cold = next(candidates(network, Property(), options, instant)).estimates[0]
    known = dict(best.proof.scales)
    assert first(known) <= best.estimates[0] * (1 + 0.03)
    assert first({gate: values[:1] for gate, values in known.items()}) < math.inf
    assert first({gate: values * 1e-9 for gate, values in known.items()}) < math.inf
    assert first({}) == cold
