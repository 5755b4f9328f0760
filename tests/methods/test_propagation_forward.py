"""Forward bounds hold every value over the region, whatever the graph, the region, the lines."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from jaxtyping import Float64
from torch import Tensor

from tests.methods.toys import NETWORKS, chain, convolutional, dense, gate
from verifier.certificate import Lines
from verifier.methods.domain import Domain
from verifier.methods.duality import norm_of
from verifier.methods.propagation import forward_bounds
from verifier.methods.propagation.forward import Forward
from verifier.network.elementwise import Relu
from verifier.network.graph import Network
from verifier.network.linear_map import Dense, to_dense
from verifier.network.nodes import Affine, Elementwise, Term
from verifier.norms import Norm
from verifier.regions import Ball, Bounded, CenterBox, Clip, EndsBox

#: For rounding only: the search is in plain float64, and the checker proves.
MARGIN = 1e-12

REGIONS: dict[str, Callable[[int], Bounded]] = {
    "box": lambda n: CenterBox(center=(0.25,) * n, radius=0.5),
    "clipped": lambda n: CenterBox(center=(0.0,) * n, radius=1.0, clip=Clip(lower=0.0, upper=1.0)),
    "ends": lambda n: EndsBox(lower=(-1.0,) + (0.5,) * (n - 1), upper=(1.0,) + (0.5,) * (n - 1)),
    "l1": lambda n: Ball(norm=Norm.L1, center=(0.125,) * n, radius=1.0),
    "l2": lambda n: Ball(norm=Norm.L2, center=(0.125,) * n, radius=1.0),
    "linf": lambda n: Ball(norm=Norm.LINF, center=(0.125,) * n, radius=0.25),
}


def points_of(region: Bounded, rng: np.random.Generator) -> Float64[Tensor, "points n"]:
    """Points of the region: inside, on its boundary, and at corners."""
    domain = Domain.of(region, region.dimension)
    raw = torch.from_numpy(rng.normal(size=(211, region.dimension))).sign_()
    raw[::2] = torch.from_numpy(rng.normal(size=(106, region.dimension)))
    far = domain.center + 2 * raw * domain.reach
    return domain.middle(far, torch.zeros_like(far))


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("technique", ["interval", "linear"])
@pytest.mark.parametrize("shape", NETWORKS)
def test_every_value_lies_between_the_bounds(shape: str, technique: str, region: str) -> None:
    rng = np.random.default_rng(7)
    network = NETWORKS[shape](rng).lowered("compare")
    area = REGIONS[region](network.input_size)
    found = forward_bounds(network, area, "linear" if technique == "linear" else "interval")
    signals = network.signals(points_of(area, rng))
    for node in network.nodes:
        if isinstance(node, Elementwise):
            lower, upper = found[node.gate]
            values = signals[node.source]
            margin = MARGIN * (1 + values.abs().amax(dim=0))
            assert (lower <= values + margin).all()
            assert (values <= upper + margin).all()


@pytest.mark.parametrize("shape", NETWORKS)
def test_lines_are_never_looser_than_intervals(shape: str) -> None:
    network = NETWORKS[shape](np.random.default_rng(3)).lowered("compare")
    region = CenterBox(center=(0.25,) * network.input_size, radius=0.25)
    plain = forward_bounds(network, region, "interval")
    found = forward_bounds(network, region)
    for name, (lower, upper) in found.items():
        assert (plain[name][0] - MARGIN <= lower).all()
        assert (upper <= plain[name][1] + MARGIN).all()


@pytest.mark.parametrize("norm", Norm)
def test_a_linear_signal_has_its_exact_bounds(norm: Norm) -> None:
    rng = np.random.default_rng(5)
    first, second = (
        torch.from_numpy(rng.normal(size=(4, 3))),
        torch.from_numpy(rng.normal(size=(5, 4))),
    )
    zero = torch.zeros(4, dtype=torch.float64)
    # Relu stays in its linear half: what follows is linear in x, and intervals would not see it.
    network = Network(
        nodes=(
            dense("v", "", first, zero + 100),
            gate("z", "v", Relu(4)),
            Affine("w", (Term("z", Dense(second)),), second @ (zero - 100)),
            gate("y", "w", Relu(5)),
        ),
        input_size=3,
        output="y",
    )
    lower, upper = forward_bounds(network, Ball(norm=norm, center=(0.0,) * 3, radius=0.5))["y"]
    truth = 0.5 * norm_of(norm.dual, second @ first)
    assert torch.allclose(upper, truth, rtol=1e-11, atol=0)
    assert torch.allclose(lower, -truth, rtol=1e-11, atol=0)


def test_a_convolution_is_its_dense_twin() -> None:
    network = convolutional(np.random.default_rng(11))
    twin = Network(
        nodes=tuple(
            Affine(n.name, tuple(Term(t.source, Dense(to_dense(t.map))) for t in n.terms), n.bias)
            if isinstance(n, Affine)
            else n
            for n in network.nodes
        ),
        input_size=network.input_size,
        output=network.output,
    )
    region = CenterBox(center=(0.0,) * 20, radius=0.25)
    found, expected = forward_bounds(network, region), forward_bounds(twin, region)
    for name in found:
        for ours, theirs in zip(found[name], expected[name], strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_stored_lines_give_the_same_bounds_again() -> None:
    network = chain(np.random.default_rng(2), (3, 7, 5, 2))
    region = CenterBox(center=(0.0,) * 3, radius=0.5)
    forward = Forward(network, Domain.of(region, 3), "linear", {})
    bounds = forward.bounds()
    lines = {
        name: Lines(lower=lines.below.numpy(), upper=lines.above.numpy())
        for name, lines in forward.relaxations.items()
    }
    again = forward_bounds(network, region, "linear", lines)
    assert all(torch.equal(again[name][k], bounds[name][k]) for name in bounds for k in (0, 1))


def test_any_slopes_are_valid_lines() -> None:
    rng = np.random.default_rng(13)
    network = chain(rng, (3, 7, 5, 2))
    region = CenterBox(center=(0.0,) * 3, radius=0.5)
    lines = {
        name: Lines(lower=rng.normal(size=size), upper=rng.normal(size=size))
        for name, size in (("z0", 7), ("z1", 5))
    }
    lower, upper = forward_bounds(network, region, "linear", lines)["z1"]
    values = network.signals(points_of(region, rng))["v1"]
    assert (lower <= values + MARGIN).all()
    assert (values <= upper + MARGIN).all()


def test_a_smaller_region_has_no_wider_intervals() -> None:
    network = chain(np.random.default_rng(4), (3, 5, 4, 2))
    small, large = (
        forward_bounds(network, CenterBox(center=(0.0,) * 3, radius=radius), "interval")
        for radius in (0.25, 0.5)
    )
    for name in small:
        assert (large[name][0] <= small[name][0]).all()
        assert (small[name][1] <= large[name][1]).all()
