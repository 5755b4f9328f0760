"""Jacobian bounds hold the Jacobian of every choice of gates, and mix nothing up."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from jaxtyping import Float64
from torch import Tensor

from tests.methods.toys import (
    NETWORKS,
    chain,
    concatenation,
    dense,
    dyadic,
    gate,
    jacobian_of_slopes,
)
from verifier.errors import OutOfBudget
from verifier.methods.clock import Clock
from verifier.methods.propagation import forward_bounds, gate_slopes
from verifier.methods.propagation.jacobian import Chords, Jacobian
from verifier.network.elementwise import Relu
from verifier.network.graph import Network
from verifier.regions import CenterBox

#: For rounding only: the search is in plain float64, and the checker proves.
MARGIN = 1e-11
FOREVER = Clock.start(1e6)


def slopes_over(
    network: Network, radius: float
) -> dict[str, tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]]:
    region = CenterBox(center=(0.125,) * network.input_size, radius=radius)
    return gate_slopes(network, forward_bounds(network, region))


def choices(
    slopes: dict[str, tuple[Tensor, Tensor]], rng: np.random.Generator
) -> list[dict[str, Tensor]]:
    """Gates at random ends of their ranges, and some between."""

    def chosen(least: Tensor, greatest: Tensor, count: int) -> Tensor:
        share = torch.from_numpy(rng.random(len(least)))
        share = share if count % 5 == 0 else share.round()
        return least + share * (greatest - least)

    return [
        {name: chosen(least, greatest, count) for name, (least, greatest) in slopes.items()}
        for count in range(67)
    ]


@pytest.mark.parametrize("radius", [0.01, 0.5])
@pytest.mark.parametrize("shape", NETWORKS)
def test_every_choice_of_gates_is_held(shape: str, radius: float) -> None:
    rng = np.random.default_rng(17)
    network = NETWORKS[shape](rng).lowered("compare")
    rows = dyadic(rng, 3, network.output_size)
    slopes = slopes_over(network, radius)
    question = Jacobian(network, slopes, rows, FOREVER)
    inputs = torch.arange(network.input_size)
    wide_lower, wide_upper = question.intervals()
    lower, upper = question.bounds(inputs)
    sums = question.row_sums(inputs, lower, upper)
    for chosen in choices(slopes, rng):
        jacobian = rows @ jacobian_of_slopes(network, chosen)
        margin = MARGIN * (1 + jacobian.abs().max())
        assert (lower <= jacobian + margin).all()
        assert (jacobian <= upper + margin).all()
        assert (wide_lower <= jacobian + margin).all()
        assert (jacobian <= wide_upper + margin).all()
        assert (jacobian.abs().sum(dim=1) <= sums + margin).all()


@pytest.mark.parametrize("shape", ["relu", "abs", "tanh", "maxmin", "residual", "convolution"])
def test_lines_are_never_looser_than_intervals(shape: str) -> None:
    rng = np.random.default_rng(19)
    network = NETWORKS[shape](rng).lowered("compare")
    rows = torch.eye(network.output_size, dtype=torch.float64)
    question = Jacobian(network, slopes_over(network, 0.25), rows, FOREVER)
    wide_lower, wide_upper = question.intervals()
    lower, upper = question.bounds(torch.arange(network.input_size))
    margin = MARGIN * (1 + wide_upper.abs().max())
    assert (wide_lower <= lower + margin).all()
    assert (upper <= wide_upper + margin).all()


def test_one_hidden_layer_has_exact_entries() -> None:
    network = chain(np.random.default_rng(23), (2, 4, 2))
    free = torch.zeros(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    rows = torch.eye(2, dtype=torch.float64)
    lower, upper = Jacobian(network, {"z0": free}, rows, FOREVER).bounds(torch.arange(2))
    patterns = torch.tensor(list(itertools.product((0.0, 1.0), repeat=4)), dtype=torch.float64)
    all_of_them = torch.stack([jacobian_of_slopes(network, {"z0": s}) for s in patterns])
    assert torch.allclose(lower, all_of_them.amin(dim=0), rtol=0, atol=MARGIN)
    assert torch.allclose(upper, all_of_them.amax(dim=0), rtol=0, atol=MARGIN)


def test_known_gates_give_the_jacobian_itself() -> None:
    rng = np.random.default_rng(29)
    network = concatenation(rng)
    slopes = {
        name: torch.from_numpy(rng.normal(size=size))
        for name, size in (("z", 4), ("dead", 4), ("t", 3))
    }
    rows = torch.eye(2, dtype=torch.float64)
    question = Jacobian(network, {k: (s, s) for k, s in slopes.items()}, rows, FOREVER)
    inputs = torch.arange(3)
    lower, upper = question.bounds(inputs)
    truth = jacobian_of_slopes(network, slopes)
    assert torch.allclose(lower, truth, rtol=0, atol=MARGIN)
    assert torch.allclose(upper, truth, rtol=0, atol=MARGIN)
    sums = question.row_sums(inputs, lower, upper)
    assert torch.allclose(sums, truth.abs().sum(dim=1), rtol=0, atol=MARGIN)


@pytest.mark.parametrize("batch", [1, 2, 5, 7])
def test_batch_equal_to_outputs_mixes_no_rows(batch: int) -> None:
    """As many rows as outputs, as neurons, or as neither: each as if it were alone."""
    rng = np.random.default_rng(31)
    network = chain(rng, (3, 7, 5, 2))
    slopes = slopes_over(network, 0.5)
    rows, inputs = dyadic(rng, batch, 2), torch.arange(3)
    question = Jacobian(network, slopes, rows, FOREVER)
    lower, upper = question.bounds(inputs)
    sums = question.row_sums(inputs, lower, upper)
    for i in range(batch):
        single = Jacobian(network, slopes, rows[[i]], FOREVER)
        low, high = single.bounds(inputs)
        assert torch.allclose(low[0], lower[i], rtol=0, atol=MARGIN)
        assert torch.allclose(high[0], upper[i], rtol=0, atol=MARGIN)
        assert torch.allclose(single.row_sums(inputs, low, high)[0], sums[i], rtol=0, atol=MARGIN)


def test_selected_inputs_are_columns_of_the_whole() -> None:
    network = chain(np.random.default_rng(37), (5, 7, 3))
    rows = torch.eye(3, dtype=torch.float64)
    slopes = slopes_over(network, 0.5)
    whole = Jacobian(network, slopes, rows, FOREVER).bounds(torch.arange(5))
    chosen = torch.tensor([3, 1])
    part = Jacobian(network, slopes, rows, FOREVER).bounds(chosen)
    for some, every in zip(part, whole, strict=True):
        assert torch.allclose(some, every[:, chosen], rtol=0, atol=MARGIN)


@pytest.mark.parametrize("ends", [(-2.0, 3.0), (0.0, 3.0), (-2.0, 0.0), (1.0, 1.0), (0.0, 0.0)])
@pytest.mark.parametrize(
    "slopes", [(0.0, 1.0), (-1.0, 1.0), (-0.5, 1.25), (0.25, 0.25), (-2.0, -1.0)]
)
def test_chords_hold_the_product_at_its_corners(
    slopes: tuple[float, float], ends: tuple[float, float]
) -> None:
    def vector(value: float) -> Float64[Tensor, " one"]:
        return torch.tensor([value], dtype=torch.float64)

    chords = Chords.of_product(
        vector(slopes[0]), vector(slopes[1]), vector(ends[0])[None], vector(ends[1])[None]
    )
    # Of a function that is bilinear, and lines: extreme at the corners, and tight there.
    for g in ends:
        below = float(chords.below * g + chords.below_offset)
        above = float(chords.above * g + chords.above_offset)
        products = [s * g for s in slopes]
        assert below == pytest.approx(min(products), abs=1e-14)
        assert above == pytest.approx(max(products), abs=1e-14)


def test_a_dead_output_has_no_derivative() -> None:
    zero = torch.zeros(2, dtype=torch.float64)
    network = Network(
        nodes=(
            dense("v", "", torch.zeros(2, 3, dtype=torch.float64), zero - 1),
            gate("y", "v", Relu(2)),
        ),
        input_size=3,
        output="y",
    )
    rows = torch.eye(2, dtype=torch.float64)
    lower, upper = Jacobian(network, {"y": (zero, zero + 1)}, rows, FOREVER).bounds(torch.arange(3))
    assert not lower.any()
    assert not upper.any()


def test_a_clock_that_ran_out_ends_the_work() -> None:
    network = chain(np.random.default_rng(41), (3, 5, 2))
    rows = torch.eye(2, dtype=torch.float64)
    question = Jacobian(network, slopes_over(network, 0.5), rows, Clock.start(0.0))
    with pytest.raises(OutOfBudget):
        question.bounds(torch.arange(3))
