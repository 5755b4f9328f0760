"""Witnesses: pairs of the region whose value holds exactly, and as steep as can be."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from tests.methods.toys import NETWORKS, chain, dense, exact_power, exact_relu_chain
from verifier.methods import propagation, witness
from verifier.methods.clock import Clock
from verifier.methods.derivatives import Derivatives
from verifier.methods.secant import secant_values
from verifier.methods.weights import Measure
from verifier.network.graph import Network
from verifier.norms import Norm, NormPair
from verifier.property import Each, Indices, Margins, Property
from verifier.regions import Ball, Bounded, CenterBox, EndsBox, Everywhere

UNIT = torch.eye(2, dtype=torch.float64)
PAIRS = [NormPair(*pair) for pair in itertools.product(Norm, Norm)]


def named(value: object) -> str | None:
    return f"{value.input}-{value.output}" if isinstance(value, NormPair) else None


def seconds(count: float) -> Clock:
    return Clock.start(count)


def box(size: int, radius: float = 0.25) -> CenterBox:
    return CenterBox(center=(0.3,) * size, radius=radius)


def holds_exactly(
    network: Network, norm: NormPair, value: float, x: tuple[float, ...], y: tuple[float, ...]
) -> bool:
    """Whether value |x - y| <= |f(x) - f(y)|, decided in rationals."""
    rise = [
        a - b
        for a, b in zip(exact_relu_chain(network, x), exact_relu_chain(network, y), strict=True)
    ]
    run = [Fraction(a) - Fraction(b) for a, b in zip(x, y, strict=True)]

    def squared(which: Norm, vector: list[Fraction]) -> Fraction:
        power = exact_power(which, vector)
        return power if which is Norm.L2 else power * power

    return Fraction(value) ** 2 * squared(norm.input, run) <= squared(norm.output, rise)


@pytest.mark.parametrize("norm", PAIRS, ids=named)
@pytest.mark.parametrize("region", [box(3), Everywhere()], ids=["local", "global"])
def test_the_value_holds_in_rationals(norm: NormPair, region: Bounded | Everywhere) -> None:
    network = chain(np.random.default_rng(79), (3, 5, 4, 2))
    found = witness.search(network, Property(norm=norm, region=region), seconds(0.2), 0)
    assert found is not None
    assert region.contains(found.x)
    assert region.contains(found.y)
    assert holds_exactly(network, norm, found.value, found.x, found.y)


@pytest.mark.parametrize("norm", PAIRS[::4], ids=named)
@pytest.mark.parametrize("shape", NETWORKS)
def test_no_witness_exceeds_the_bound(shape: str, norm: NormPair) -> None:
    network = NETWORKS[shape](np.random.default_rng(83))
    asked = Property(scope="local", norm=norm, region=box(network.input_size))
    found = witness.search(network, asked, seconds(0.0), 0)
    options = propagation.Options(steps=0)
    (bound,) = propagation.candidate(network, asked, options, seconds(60.0)).estimates
    assert found is not None
    assert found.value <= bound


@pytest.mark.parametrize("norm", PAIRS, ids=named)
def test_a_linear_network_is_reached(norm: NormPair) -> None:
    rng = np.random.default_rng(89)
    weight = torch.from_numpy(rng.normal(size=(2, 3)))
    network = Network(
        nodes=(dense("y", "", weight, torch.zeros(2, dtype=torch.float64)),),
        input_size=3,
        output="y",
    )
    signs = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=3)), dtype=torch.float64)
    order = {Norm.L1: 1, Norm.L2: 2, Norm.LINF: np.inf}[norm.output]
    match norm.input, norm.output:
        case Norm.L1, _:
            truth = max(np.linalg.norm(weight.numpy(), order, axis=0))
        case Norm.LINF, _:
            truth = max(np.linalg.norm((signs @ weight.T).numpy(), order, axis=1))
        case _, Norm.L2:
            truth = np.linalg.norm(weight.numpy(), 2)
        case _, Norm.LINF:
            truth = max(np.linalg.norm(weight.numpy(), axis=1))
        case _:
            truth = max(np.linalg.norm((signs[:, :2] @ weight).numpy(), axis=1))
    found = witness.search(network, Property(norm=norm), seconds(0.2), 0)
    assert found is not None
    assert found.value == pytest.approx(truth, rel=1e-9)


def test_one_input_is_solved_exactly() -> None:
    """The steepest piece of a function of one input, by its breakpoints."""
    network = chain(np.random.default_rng(97), (1, 7, 1))
    first, last = network.nodes[0], network.nodes[2]
    grid = torch.linspace(-1, 1, 20011, dtype=torch.float64)[:, None]
    values = network.forward(grid)[:, 0]
    steepest = ((values[1:] - values[:-1]) / (grid[1:, 0] - grid[:-1, 0])).abs().max()
    asked = Property(scope="local", region=EndsBox(lower=(-1.0,), upper=(1.0,)))
    found = witness.search(network, asked, seconds(1.0), 0)
    assert first.size == 7
    assert last.size == 1
    assert found is not None
    assert found.value == pytest.approx(float(steepest), rel=1e-9)


@pytest.mark.parametrize("norm", [Norm.L1, Norm.L2, Norm.LINF])
def test_pairs_stay_in_balls(norm: Norm) -> None:
    network = chain(np.random.default_rng(101), (5, 7, 3))
    ball = Ball(norm=norm, center=(0.1, 1.0, -3.0, 1e3, 0.0), radius=0.1)
    found = witness.search(network, Property(scope="local", region=ball), seconds(0.2), 0)
    assert found is not None
    assert ball.contains(found.x)
    assert ball.contains(found.y)


def test_only_selected_and_free_inputs_differ() -> None:
    network = chain(np.random.default_rng(103), (3, 5, 2))
    region = EndsBox(lower=(0.0, 0.0, 0.5), upper=(1.0, 1.0, 0.5))
    asked = Property(scope="local", region=region, inputs=Indices((1, 2)))
    found = witness.search(network, asked, seconds(0.2), 0)
    assert found is not None
    assert found.x[0] == found.y[0]
    assert found.x[1] != found.y[1]
    assert found.x[2] == found.y[2] == 0.5


@pytest.mark.parametrize(("outputs", "count"), [(Each(), 3), (Margins(None), 3)])
def test_lists_name_the_item_that_is_reached(outputs: Each | Margins, count: int) -> None:
    network = chain(np.random.default_rng(107), (3, 5, 3))
    asked = Property(scope="local", region=box(3), outputs=outputs)
    found = witness.search(network, asked, seconds(0.3), 0)
    bounds = propagation.candidate(
        network, asked, propagation.Options(steps=0), seconds(9.0)
    ).estimates
    assert found is not None
    assert found.item is not None
    assert len(bounds) == count
    assert found.value <= bounds[found.item]


def test_a_constant_function_has_no_witness() -> None:
    zero = torch.zeros(2, 3, dtype=torch.float64)
    network = Network(nodes=(dense("y", "", zero, zero[:, 0]),), input_size=3, output="y")
    assert witness.search(network, Property(), seconds(0.1), 0) is None


def test_a_seed_gives_the_same_pair_again() -> None:
    network = chain(np.random.default_rng(109), (3, 5, 2))
    asked = Property(scope="local", region=box(3))
    first, again = (witness.search(network, asked, seconds(0.0), 5) for _ in range(2))
    assert first == again
    assert first != witness.search(network, replace(asked, region=box(3, 0.5)), seconds(0.0), 5)


@pytest.mark.parametrize("power", [0, 10, 20, 30, 40, 50])
@pytest.mark.parametrize("norm", PAIRS, ids=named)
def test_secant_values_hold_at_every_distance(norm: NormPair, power: int) -> None:
    """Pairs across kinks and within pieces, as near as float64 can tell points apart."""
    rng = np.random.default_rng(113)
    network = chain(rng, (3, 5, 4, 2))
    x = torch.from_numpy(rng.normal(size=(11, 3)))
    y = x + 2.0**-power * torch.from_numpy(rng.normal(size=(11, 3)))
    rows = torch.eye(2, dtype=torch.float64)
    values = secant_values(network, rows, Measure(plain=norm, change=None), x, y)
    for value, start, end in zip(values.tolist(), x.tolist(), y.tolist(), strict=True):
        assert holds_exactly(network, norm, value, tuple(start), tuple(end))


def test_within_a_piece_the_secant_is_the_slope() -> None:
    network = chain(np.random.default_rng(127), (3, 5, 4, 2))
    x = torch.full((1, 3), 0.3, dtype=torch.float64)
    slope = Derivatives(network, torch.eye(2, dtype=torch.float64)).jacobian(x)[0, :, 0]
    y = x.clone()
    y[0, 0] += 2.0**-8
    norm = NormPair(Norm.LINF, Norm.LINF)
    (value,) = secant_values(network, UNIT, Measure(plain=norm, change=None), x, y).tolist()
    assert value == pytest.approx(float(slope.abs().max()), rel=1e-11)


def test_equal_points_reach_nothing() -> None:
    network = chain(np.random.default_rng(131), (3, 5, 2))
    x = torch.zeros(1, 3, dtype=torch.float64)
    norm = NormPair(Norm.L2, Norm.L2)
    assert secant_values(network, UNIT, Measure(plain=norm, change=None), x, x).item() == 0


@pytest.mark.parametrize("norm", PAIRS, ids=named)
def test_many_outputs_go_without_the_whole_jacobian(norm: NormPair) -> None:
    network = chain(np.random.default_rng(137), (3, 5, 67))
    asked = Property(scope="local", norm=norm, region=box(3))
    found = witness.search(network, asked, seconds(0.1), 0)
    options = propagation.Options(steps=0)
    (bound,) = propagation.candidate(network, asked, options, seconds(60.0)).estimates
    assert found is not None
    assert 0.3 * bound <= found.value <= bound


@pytest.mark.parametrize("held", [1, 500])
def test_a_large_network_is_searched_in_small_batches_and_to_its_clock(
    monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    """Once time is up nothing is begun but what a pair needs: a slope, and a few evaluations."""
    network = NETWORKS["relu"](np.random.default_rng(5))
    asked = Property(scope="local", norm=PAIRS[0], region=box(network.input_size))
    monkeypatch.setattr(witness, "_HELD_ENTRIES", held)
    rows: list[int] = []
    evaluated = witness.secant_values

    def counted(*arguments: Any) -> Any:  # noqa: ANN401 (as secant_values)
        rows.append(len(arguments[3]))
        return evaluated(*arguments)

    monkeypatch.setattr(witness, "secant_values", counted)
    found = witness.search(network, asked, Clock.start(0.0), 0)
    most = max(2, held // sum(network.lowered("compare").sizes.values()))
    assert found is not None
    assert 0 < found.value
    assert max(rows) <= most
    assert len(rows) == 1
