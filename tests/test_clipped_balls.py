"""Balls that are clipped to the input domain: what is proved holds on the whole of either set."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import cache
from importlib import import_module

import numpy as np
import pytest
import torch

from tests.tiny_networks import Box, TinyNetwork, lipschitz_constant
from tests.tiny_topologies import chain
from verifier.certificate import Certificate
from verifier.certificate_json import certificate_text
from verifier.checker import check
from verifier.errors import RegionEmptyInterior
from verifier.methods.domain import Domain
from verifier.norms import Norm, NormPair
from verifier.property import Budget, Property, Request
from verifier.region_json import parse_region, region_json
from verifier.regions import Ball, CenterBox, Centers, Clip, Region
from verifier.verify import verify

UNIT = Clip(lower=0.0, upper=1.0)
LINF = NormPair(Norm.LINF, Norm.LINF)
#: Of the box beside the corner that the ball holds: n^(1/p) sides are below the radius.
SIDES = {Norm.L1: 0.25, Norm.L2: 0.4375, Norm.LINF: 0.75}


@pytest.fixture(autouse=True)
def _no_time_for_witnesses(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("verifier.verify", "verifier.centers"):
        monkeypatch.setattr(import_module(module), "WITNESS_SECONDS", 0.0)


@cache
def network() -> TinyNetwork:
    return chain(7, (3, 5, 4, 2), ("relu", "leaky"))


def corner(norm: Norm, clip: Clip | None = UNIT) -> Ball:
    """Around a corner of the unit cube."""
    return Ball(norm=norm, center=(0.0, 1.0, 0.0), radius=0.78125, clip=clip)


def answer(region: Region) -> Certificate:
    request = Request(
        property=Property(scope="local", norm=LINF, region=region),
        method="lipsdp",
        budget=Budget(seconds=60.0, gap=0.0),
    )
    certificate = verify(network().network.model, request)
    assert check(certificate_text(certificate).encode(), network().network.model).valid
    return certificate


@pytest.mark.parametrize("norm", Norm)
def test_bound_is_above_the_constant_of_a_box_within_and_below_that_of_the_ball(norm: Norm) -> None:
    side = SIDES[norm]
    low, high = np.array([0.0, 1 - side, 0.0]), np.array([side, 1.0, side])
    assert corner(norm).contains([side, 1 - side, side])
    bound, whole = answer(corner(norm)).claim.bound, answer(corner(norm, None)).claim.bound
    assert bound is not None
    assert whole is not None
    constant = lipschitz_constant(network(), ("linf", "linf"), Box(low, high))
    assert constant <= Fraction(bound)
    assert bound <= whole * (1 + 1e-6)  # of tightness


def test_many_centers_are_clipped_each() -> None:
    first, second = corner(Norm.L2), replace(corner(Norm.L2), center=(0.5, 0.5, 1.0))
    certificate = answer(Centers((first, second)))
    bounds = [item.bound for item in certificate.claim.bounds or ()]
    apart = [answer(part).claim.bound for part in (first, second)]
    assert bounds == pytest.approx(apart, rel=1e-6)  # of tightness: all are proved


def test_region_is_the_ball_within_the_clip() -> None:
    ball = corner(Norm.L2)
    lower, upper = ball.interval()
    assert lower.tolist() == [0.0, 0.21875, 0.0]
    assert upper.tolist() == [0.78125, 1.0, 0.78125]
    assert ball.contains([0.5, 0.75, 0.5])
    assert not ball.contains([-(2.0**-60), 1.0, 0.0])
    assert not ball.contains([0.75, 0.5, 0.5])
    assert parse_region(region_json(ball)) == ball


@pytest.mark.parametrize("clip", [Clip(lower=0.25, upper=1.0), Clip(lower=1.0, upper=1.0)])
def test_a_center_beyond_the_clip_is_refused(clip: Clip) -> None:
    with pytest.raises(RegionEmptyInterior, match="center"):
        corner(Norm.L2, clip)


@pytest.mark.parametrize("norm", [Norm.L1, Norm.L2])
def test_searched_points_lie_in_the_region_and_lines_reach_no_farther(norm: Norm) -> None:
    ball = corner(norm)
    domain = Domain.of(ball, 3).shrunk()
    rng = np.random.default_rng(5)
    points = torch.from_numpy(rng.normal(size=(211, 3)))
    moved = domain.middle(points, torch.zeros_like(points))
    assert all(ball.contains(point) for point in moved.tolist())
    rows = torch.from_numpy(rng.normal(size=(13, 3)))
    greatest = Domain.of(ball, 3).greatest(rows)
    box = CenterBox(center=ball.center, radius=ball.radius, clip=ball.clip)
    assert ((rows @ moved.T).amax(dim=1) <= greatest).all()
    assert (greatest <= Domain.of(box, 3).greatest(rows)).all()
    assert (greatest <= Domain.of(replace(ball, clip=None), 3).greatest(rows)).all()
