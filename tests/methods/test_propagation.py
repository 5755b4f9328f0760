"""Propagation's bounds: above every slope that is reached, for all norms, items and regions."""

from __future__ import annotations

import itertools
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch

from tests.methods.toys import NETWORKS, chain, dense, gate
from verifier.certificate import PropagationProof
from verifier.errors import InvalidRequest, TooLarge
from verifier.methods import product, propagation
from verifier.methods.clock import Clock
from verifier.methods.derivatives import Derivatives
from verifier.methods.duality import attained_norm
from verifier.methods.propagation import forward_bounds
from verifier.network.elementwise import Abs, Relu
from verifier.network.graph import Network
from verifier.network.nodes import Elementwise
from verifier.norms import Norm, NormPair
from verifier.property import All, Each, Indices, Margins, Names, Outputs, Property
from verifier.regions import Ball, CenterBox, EndsBox, Everywhere

PAIRS = [NormPair(*pair) for pair in itertools.product(Norm, Norm)]
FOREVER = Clock.start(1e6)
UNTILTED = propagation.Options(steps=0)


def named(value: object) -> str | None:
    return f"{value.input}-{value.output}" if isinstance(value, NormPair) else None


def local(norm: NormPair, size: int, radius: float = 0.25) -> Property:
    return Property(
        scope="local", norm=norm, region=CenterBox(center=(0.125,) * size, radius=radius)
    )


def bound(network: Network, asked: Property) -> tuple[float, ...]:
    return propagation.candidate(network, asked, UNTILTED, FOREVER).estimates


@pytest.mark.parametrize("norm", PAIRS, ids=named)
@pytest.mark.parametrize("shape", NETWORKS)
def test_no_slope_within_the_region_exceeds_the_bound(shape: str, norm: NormPair) -> None:
    rng = np.random.default_rng(43)
    network = NETWORKS[shape](rng)
    asked = local(norm, network.input_size)
    (found,) = bound(network, asked)
    x = 0.125 + 0.25 * torch.from_numpy(rng.uniform(-1, 1, size=(31, network.input_size)))
    every_output = torch.eye(network.output_size, dtype=torch.float64)
    reached = attained_norm(norm, Derivatives(network, every_output).jacobian(x)).value
    assert reached.max() <= found * (1 + 1e-12)


@pytest.mark.parametrize("norm", PAIRS, ids=named)
def test_where_no_gate_is_open_the_bound_is_the_norm(norm: NormPair) -> None:
    network = chain(np.random.default_rng(47), (3, 5, 4, 2))
    asked = local(norm, 3, radius=2.0**-30)
    x = torch.full((1, 3), 0.125, dtype=torch.float64)
    slopes = Derivatives(network, torch.eye(2, dtype=torch.float64)).jacobian(x)
    (found,) = bound(network, asked)
    truth = float(attained_norm(norm, slopes).value)
    assert truth <= found * (1 + 1e-12)
    if (norm.input, norm.output) not in {
        (Norm.L2, Norm.L2),
        (Norm.L2, Norm.L1),
        (Norm.LINF, Norm.L1),
        (Norm.LINF, Norm.L2),
    }:  # of a matrix with signs, the norm of its magnitudes can be larger
        assert found == pytest.approx(truth, rel=1e-12)


@pytest.mark.parametrize("norm", PAIRS, ids=named)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_local_bounds_of_linf_do_not_exceed_the_product(norm: NormPair, seed: int) -> None:
    network = chain(np.random.default_rng(seed), (3, 5, 2))
    (found,) = bound(network, local(NormPair(Norm.LINF, Norm.LINF), 3))
    everywhere = Property(norm=NormPair(Norm.LINF, Norm.LINF))
    assert found <= product.candidate(network, everywhere).estimates[0] * (1 + 1e-12)
    assert bound(network, local(norm, 3))[0] < np.inf


@pytest.mark.parametrize("norm", PAIRS, ids=named)
def test_a_smaller_region_has_no_larger_bound(norm: NormPair) -> None:
    network = chain(np.random.default_rng(5), (3, 5, 2))
    radii = (0.03125, 0.125, 0.5, 2.0)
    found = [bound(network, local(norm, 3, radius))[0] for radius in radii]
    assert all(small <= large * (1 + 1e-12) for small, large in itertools.pairwise(found))


@pytest.mark.parametrize("lower", [-1.0, 0.0])
def test_the_kink_belongs_to_both_sides(lower: float) -> None:
    """On [0, 1] |x| has slope 1, on [-1, 0] too: a region that ends at the kink loses neither."""
    one = torch.ones(1, 1, dtype=torch.float64)
    network = Network(
        nodes=(dense("v", "", one, torch.zeros(1, dtype=torch.float64)), gate("y", "v", Relu(1))),
        input_size=1,
        output="y",
    )
    asked = Property(scope="local", region=EndsBox(lower=(lower,), upper=(lower + 1,)))
    # On [-1, 0] the closed region holds the kink, whose Clarke slopes are [0, 1].
    assert bound(network, asked) == (1.0,)


@pytest.mark.parametrize(
    ("outputs", "count"),
    [(Each(), 3), (Margins(None), 3), (Margins(((2, 0),)), 1), (Indices((2, 1)), 1)],
)
def test_items_are_bounded_one_by_one(outputs: Outputs, count: int) -> None:
    network = chain(np.random.default_rng(53), (3, 5, 4, 3))
    asked = replace(local(NormPair(Norm.LINF, Norm.LINF), 3), outputs=outputs)
    found = bound(network, asked)
    assert len(found) == count
    whole = bound(network, replace(asked, outputs=Each()))
    match outputs:
        case Each():
            joint = bound(network, local(NormPair(Norm.LINF, Norm.LINF), 3))
            assert max(found) == pytest.approx(joint[0], rel=1e-12)
        case Indices(indices):
            assert found[0] == pytest.approx(max(whole[i] for i in indices), rel=1e-12)
        case Margins(pairs):
            chosen = pairs or ((0, 1), (0, 2), (1, 2))
            sums = [whole[i] + whole[j] for i, j in chosen]
            assert all(a <= b * (1 + 1e-12) for a, b in zip(found, sums, strict=True))
        case All() | Names():
            raise AssertionError("not a list")


def test_selected_inputs_bound_the_rest_away() -> None:
    network = chain(np.random.default_rng(59), (3, 5, 2))
    asked = local(NormPair(Norm.LINF, Norm.LINF), 3)
    part = [bound(network, replace(asked, inputs=Indices((k,))))[0] for k in range(3)]
    (whole,) = bound(network, asked)
    assert max(part) <= whole <= sum(part) * (1 + 1e-12)


def test_coordinates_without_room_bound_nothing() -> None:
    network = chain(np.random.default_rng(59), (3, 5, 2))
    region = EndsBox(lower=(0.0, 0.5, 0.0), upper=(0.5, 0.5, 0.5))
    asked = Property(scope="local", norm=NormPair(Norm.LINF, Norm.LINF), region=region)
    selected = replace(asked, inputs=Indices((0, 2)))
    assert bound(network, asked) == bound(network, selected)


def test_the_proof_names_every_gate_and_its_lines() -> None:
    network = chain(np.random.default_rng(61), (3, 5, 4, 2), Abs)
    asked = local(NormPair(Norm.LINF, Norm.LINF), 3)
    proof = propagation.candidate(network, asked, UNTILTED, FOREVER).proof
    assert isinstance(proof, PropagationProof)
    assert proof.technique == proof.forward.technique == "linear"
    assert {name: len(line.lower) for name, line in proof.forward.lines.items()} == {
        "z0": 5,
        "z1": 4,
    }


def test_intervals_alone_are_an_answer_at_any_time() -> None:
    network = chain(np.random.default_rng(67), (3, 5, 4, 2))
    asked = local(NormPair(Norm.L2, Norm.L2), 3)
    late = propagation.candidate(network, asked, propagation.Options(), Clock.start(0.0))
    plain = propagation.candidate(
        network, asked, propagation.Options(technique="interval"), FOREVER
    )
    assert isinstance(late.proof, PropagationProof)
    assert late.proof.technique == "interval"
    assert bound(network, asked)[0] <= late.estimates[0] <= plain.estimates[0] * (1 + 1e-12)


@pytest.mark.parametrize("shape", ["relu", "tanh", "maxmin", "residual", "convolution"])
def test_tilted_lines_are_valid_and_never_worse(shape: str) -> None:
    network = NETWORKS[shape](np.random.default_rng(73))
    asked = local(NormPair(Norm.LINF, Norm.LINF), network.input_size)
    plain, tilted = (
        propagation.candidate(network, asked, propagation.Options(steps=steps), FOREVER)
        for steps in (0, 2)
    )
    assert tilted.estimates[0] <= plain.estimates[0] * (1 + 1e-12)
    assert isinstance(tilted.proof, PropagationProof)
    lowered = network.lowered("compare")
    x = 0.125 + 0.25 * torch.from_numpy(
        np.random.default_rng(79).uniform(-1, 1, size=(101, network.input_size))
    )
    signals = lowered.signals(x)
    region = asked.place
    assert not isinstance(region, Everywhere)
    again = forward_bounds(lowered, region, "linear", tilted.proof.forward.lines)
    for node in lowered.nodes:
        if isinstance(node, Elementwise):
            lower, upper = again[node.gate]
            assert (lower - 1e-11 <= signals[node.source]).all()
            assert (signals[node.source] <= upper + 1e-11).all()


def test_tilting_closes_gates_that_the_usual_lines_leave_open() -> None:
    network = chain(np.random.default_rng(3), (3, 7, 7, 5, 2))
    asked = local(NormPair(Norm.LINF, Norm.LINF), 3, 0.03125)
    options = propagation.Options(steps=4)
    (tilted,) = propagation.candidate(network, asked, options, FOREVER).estimates
    assert tilted < 0.5 * bound(network, asked)[0]


@pytest.mark.parametrize("norm", Norm)
def test_balls_lie_within_their_boxes(norm: Norm) -> None:
    network = chain(np.random.default_rng(71), (3, 5, 2))
    asked = local(NormPair(Norm.L2, Norm.LINF), 3)
    ball = replace(asked, region=Ball(norm=norm, center=(0.125,) * 3, radius=0.25))
    assert bound(network, ball)[0] <= bound(network, asked)[0] * (1 + 1e-12)


def test_a_global_question_is_refused() -> None:
    network = chain(np.random.default_rng(73), (3, 5, 2))
    with pytest.raises(InvalidRequest):
        propagation.candidate(network, Property(), propagation.Options(), FOREVER)


def test_derivatives_that_no_memory_holds_are_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    network = NETWORKS["relu"](np.random.default_rng(0))
    asked = local(PAIRS[0], network.input_size)
    held = 32 * network.output_size * sum(network.lowered("compare").sizes.values())
    module = import_module("verifier.methods.propagation.unsearched")
    monkeypatch.setattr(module, "available_bytes", lambda: held)
    assert [*propagation.unsearched(network, asked, UNTILTED)]
    monkeypatch.setattr(module, "available_bytes", lambda: held - 1)
    with pytest.raises(TooLarge, match="derivatives"):
        next(propagation.unsearched(network, asked, UNTILTED))
