"""Regions as the search uses them, and the vectors that attain norms."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch

from verifier.methods.domain import Domain
from verifier.methods.duality import attained_norm, dual_vector, norm_of
from verifier.norms import Norm, NormPair
from verifier.regions import Ball, Bounded, CenterBox, EndsBox, Everywhere

PAIRS = list(itertools.product(Norm, Norm))

REGIONS: dict[str, Callable[[], Bounded]] = {
    "box": lambda: CenterBox(center=(0.1, 1e3, -7.0), radius=(0.1, 0.7, 1e-3)),
    "ends": lambda: EndsBox(lower=(-0.3, 0.1, 2.0), upper=(0.3, 0.1, 2.1)),
    "l1": lambda: Ball(norm=Norm.L1, center=(0.1, 1e3, -7.0), radius=0.3),
    "l2": lambda: Ball(norm=Norm.L2, center=(0.1, 1e3, -7.0), radius=0.3),
    "linf": lambda: Ball(norm=Norm.LINF, center=(0.1, 1e3, -7.0), radius=0.3),
}


@pytest.mark.parametrize("name", REGIONS)
def test_points_moved_into_the_shrunk_domain_are_in_the_region(name: str) -> None:
    region = REGIONS[name]()
    domain = Domain.of(region, 3).shrunk()
    points = torch.from_numpy(np.random.default_rng(0).normal(scale=1e3, size=(101, 3)))
    moved = domain.middle(points, torch.zeros_like(points))
    assert all(region.contains(point) for point in moved.tolist())


@pytest.mark.parametrize("name", REGIONS)
def test_pairs_of_the_farthest_spread_are_in_the_region(name: str) -> None:
    region = REGIONS[name]()
    domain = Domain.of(region, 3).shrunk()
    rng = np.random.default_rng(1)
    points = domain.center + torch.from_numpy(rng.normal(size=(101, 3)))
    directions = torch.from_numpy(rng.normal(size=(101, 3))) * (0 < domain.reach)
    share = torch.linspace(0, 1, 101, dtype=torch.float64)
    spread = (share * domain.farthest(directions))[:, None] * directions * (1 - 1e-12)
    middle = domain.middle(points, spread)
    for side in (-1, 1):
        assert all(region.contains(point) for point in (middle + side * spread).tolist())


@pytest.mark.parametrize("name", REGIONS)
def test_linear_functions_reach_their_greatest_value_and_no_more(name: str) -> None:
    domain = Domain.of(REGIONS[name](), 3)
    rows = torch.from_numpy(np.random.default_rng(2).normal(size=(7, 3)))
    greatest = domain.greatest(rows)
    norm = Norm.LINF if domain.norm is None else domain.norm
    corners = domain.center + domain.reach * dual_vector(norm, rows)
    reached = (rows * corners).sum(dim=1)
    assert torch.allclose(reached, greatest, rtol=1e-13, atol=0)
    far = 1e4 * torch.from_numpy(np.random.default_rng(3).normal(size=(211, 3)))
    inside = domain.middle(far, torch.zeros_like(far))
    assert ((inside @ rows.T).amax(dim=0) <= greatest + 1e-10).all()


def test_everywhere_moves_no_point() -> None:
    domain = Domain.of(Everywhere(), 3).shrunk()
    points = torch.from_numpy(np.random.default_rng(4).normal(scale=1e9, size=(5, 3)))
    assert torch.equal(domain.middle(points, points), points)
    assert domain.farthest(points).isinf().all()


@pytest.mark.parametrize("norm", Norm)
def test_dual_vectors_attain_the_dual_norm(norm: Norm) -> None:
    g = torch.from_numpy(np.random.default_rng(5).normal(size=(7, 4)))
    g[0] = 0
    d = dual_vector(norm, g)
    assert torch.allclose((g * d).sum(dim=1), norm_of(norm.dual, g), rtol=1e-14, atol=0)
    assert (norm_of(norm, d) <= 1 + 1e-15).all()


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair[0]}-{pair[1]}")
def test_attained_norms_are_attained(pair: tuple[Norm, Norm]) -> None:
    norm = NormPair(*pair)
    matrices = torch.from_numpy(np.random.default_rng(6).normal(size=(5, 3, 4)))
    found = attained_norm(norm, matrices)
    moved = torch.einsum("bmn,bn->bm", matrices, found.direction)
    assert (norm_of(norm.input, found.direction) <= 1 + 1e-14).all()
    assert torch.allclose(norm_of(norm.output, moved), found.value, rtol=1e-13, atol=0)
    assert torch.allclose((moved * found.functional).sum(dim=1), found.value, rtol=1e-13, atol=0)
    # No other direction of a fine net reaches more than a little beyond.
    others = torch.from_numpy(np.random.default_rng(7).normal(size=(2003, 4)))
    others = torch.cat((others, others.sign(), torch.eye(4, dtype=torch.float64)))
    others = others / norm_of(norm.input, others)[:, None]
    reached = norm_of(norm.output, torch.einsum("bmn,kn->bkm", matrices, others)).amax(dim=1)
    assert (reached <= found.value * (1 + 1e-12)).all()
