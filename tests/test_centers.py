"""Many centers in one request: every bound is above the truth around its center, and no other.

A batch says what single requests say; tampered lists and proofs are rejected.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import cache

import numpy as np
import pytest

from tests.random_networks import relu
from tests.tiny_networks import Box, TinyBuilder, TinyNetwork, lipschitz_constant
from tests.tiny_topologies import gemm, tiny_network
from verifier.certificate import (
    CentersProof,
    Certificate,
    ForwardProof,
    ItemBound,
    PropagationProof,
    Witness,
)
from verifier.certificate_json import certificate_text
from verifier.checker import check
from verifier.errors import InvalidRequest
from verifier.methods import propagation
from verifier.methods.clock import Clock
from verifier.norms import Norm, NormPair
from verifier.onnx_import import load
from verifier.property import (
    All,
    Budget,
    Each,
    Margins,
    Method,
    OptionValue,
    Outputs,
    Property,
    Request,
)
from verifier.regions import Ball, CenterBox, Centers
from verifier.verify import verify

PROFILE = os.environ.get("LIPCERT_TESTS", "quick")
COUNT = {"quick": 3, "full": 60, "nightly": 600}[PROFILE]
MOST_SIDES = 256
STRIDE = 17
LINF = NormPair(Norm.LINF, Norm.LINF)


def answer(
    model: bytes,
    asked: Property,
    method: Method = "auto",
    target: float | None = None,
    **options: OptionValue,
) -> Certificate:
    """A checked certificate."""
    request = Request(
        property=asked,
        method=method,
        options=options,
        budget=Budget(seconds=4.0, gap=0.0),
        target=target,
    )
    certificate = verify(model, request)
    assert check(certificate_text(certificate).encode(), model).valid
    return certificate


def boxes(centers: np.ndarray, radius: float = 0.25) -> Centers:
    return Centers(tuple(CenterBox(center=tuple(c.tolist()), radius=radius) for c in centers))


def around(size: int, count: int = 3) -> np.ndarray:
    return np.random.default_rng(7).integers(-8, 9, (count, size)) / 8


def listed(certificate: Certificate) -> list[float]:
    """The bounds of the list, which are all there."""
    bounds = [item.bound for item in certificate.claim.bounds or ()]
    known = [bound for bound in bounds if bound is not None]
    assert len(known) == len(bounds)
    return known


@pytest.mark.parametrize("seed", range(0, COUNT * STRIDE, STRIDE))
def test_every_bound_is_above_the_pieces_around_its_center(seed: int) -> None:
    tiny = tiny_network(seed)
    if not tiny.is_straight or MOST_SIDES < tiny.vertices:
        return
    centers = around(tiny.network.size)
    asked = Property(scope="local", norm=LINF, region=boxes(centers))
    bounds = listed(answer(tiny.network.model, asked))
    for center, bound in zip(centers, bounds, strict=True):
        box = Box(center - 0.25, center + 0.25)
        assert lipschitz_constant(tiny, ("linf", "linf"), box) <= Fraction(bound)


@cache
def network() -> TinyNetwork:
    rng = np.random.default_rng(5)
    builder = TinyBuilder(rng, (1, 3))
    for size in (6, 5, 3):
        gemm(builder, rng.normal(size=(size, builder.shape[1])), rng.normal(size=size))
        if size != 3:
            relu(builder)
    return builder.tiny()


def model() -> bytes:
    return network().network.model


@pytest.mark.parametrize(
    ("method", "outputs"),
    [("product", All()), ("propagation", Each()), ("lipsdp", Margins(((0, 1), (2, 1))))],
)
def test_batch_says_what_single_requests_say(method: Method, outputs: Outputs) -> None:
    centers = boxes(around(3, 2))
    asked = Property(scope="local", norm=LINF, region=centers, outputs=outputs)
    together = listed(answer(model(), asked, method))
    apart: list[float] = []
    for part in asked.parts:
        alone = answer(model(), part, method)
        whole = alone.claim.bound
        apart += listed(alone) if alone.claim.bounds else [] if whole is None else [whole]
    assert together == pytest.approx(apart, rel=1e-8)  # of tightness: both are proved


@pytest.mark.parametrize("norm", list(Norm))
def test_balls_around_many_centers(norm: Norm) -> None:
    centers = around(3, 5)
    parts = tuple(Ball(norm=norm, center=tuple(c.tolist()), radius=0.25) for c in centers)
    asked = Property(scope="local", norm=NormPair(norm, Norm.L2), region=Centers(parts))
    certificate = answer(model(), asked)
    bounds = listed(certificate)
    assert certificate.claim.bound == max(bounds)
    report = certificate.report
    assert report is not None
    ordered = sorted(bounds)
    expected = {"min": ordered[0], "median": ordered[2], "p90": ordered[4], "max": ordered[4]}
    assert report["quantiles"] == expected


def test_intervals_as_one_batch_are_those_of_each_center() -> None:
    """5 centers, 3 rows, 6 and 5 neurons: no two axes of the batch have one size."""
    asked = Property(scope="local", norm=LINF, region=boxes(around(3, 5)), outputs=Each())
    lowered = load(model()).require_network()
    options = propagation.Options(technique="interval")
    batch = propagation.batched(lowered, asked.parts)
    for part, found in zip(asked.parts, batch, strict=True):
        alone = propagation.candidate(lowered, part, options, Clock.start(10.0))
        assert found.estimates == pytest.approx(alone.estimates, rel=1e-12)


@pytest.mark.parametrize(("factor", "verdict"), [(1.01, "certified"), (0.5, "violated")])
def test_the_target_is_of_all_centers(factor: float, verdict: str) -> None:
    asked = Property(scope="local", norm=LINF, region=boxes(around(3)))
    bound = answer(model(), asked).claim.bound
    assert bound is not None
    again = answer(model(), asked, target=factor * bound)
    assert again.verdict == verdict
    witness = again.lower_bound
    if verdict == "violated":
        assert witness is not None
        assert witness.item is not None


# --- Tampering -----------------------------------------------------------------------------------


@cache
def valid() -> Certificate:
    asked = Property(scope="local", norm=LINF, region=boxes(around(3), 0.125), outputs=Each())
    certificate = answer(model(), asked, "propagation")
    assert certificate.lower_bound is not None
    return certificate


def _reordered(certificate: Certificate) -> Certificate:
    """The regions in another order, the bounds as they were."""
    asked = certificate.claim.property
    assert isinstance(asked.region, Centers)
    turned = replace(asked, region=Centers(asked.region.parts[::-1]))
    return replace(certificate, claim=replace(certificate.claim, property=turned))


def _with_bounds(
    certificate: Certificate, change: Callable[[list[ItemBound]], list[ItemBound]]
) -> Certificate:
    bounds = tuple(change(list(certificate.claim.bounds or ())))
    return replace(certificate, claim=replace(certificate.claim, bounds=bounds))


def _with_parts(
    certificate: Certificate, change: Callable[[CentersProof], CentersProof]
) -> Certificate:
    assert isinstance(certificate.proof, CentersProof)
    return replace(certificate, proof=change(certificate.proof))


def _smaller(bounds: list[ItemBound]) -> list[ItemBound]:
    """The least bound, by an ulp or so."""
    place = min(range(len(bounds)), key=lambda k: bounds[k].bound or 0.0)
    return [
        replace(item, bound=(item.bound or 0.0) * (1 - 1e-8)) if k == place else item
        for k, item in enumerate(bounds)
    ]


SPOILT: dict[str, tuple[Callable[[Certificate], Certificate], set[str]]] = {
    "order": (_reordered, {"bound-not-proved", "witness-refuted"}),
    "smaller": (lambda c: _with_bounds(c, _smaller), {"bound-not-proved"}),
    "missing": (lambda c: _with_bounds(c, lambda b: b[:-1]), {"inconsistent"}),
    "swapped": (lambda c: _with_bounds(c, lambda b: [b[1], b[0], *b[2:]]), {"inconsistent"}),
    "center": (
        lambda c: _with_bounds(c, lambda b: [replace(b[0], center=1), *b[1:]]),
        {"inconsistent"},
    ),
    "unlabelled": (
        lambda c: _with_bounds(c, lambda b: [replace(item, center=None) for item in b]),
        {"inconsistent"},
    ),
    "part": (
        lambda c: _with_parts(c, lambda p: replace(p, parts=p.parts[:-1])),
        {"proof-refuted"},
    ),
    "single": (
        lambda c: replace(
            c,
            proof=PropagationProof(
                patterns=(), forward=ForwardProof(technique="linear"), technique="linear"
            ),
        ),
        {"inconsistent"},
    ),
    "one region": (
        lambda c: replace(c, claim=replace(c.claim, property=c.claim.property.parts[0])),
        {"inconsistent"},
    ),
}


@pytest.mark.parametrize("how", SPOILT)
def test_spoilt_list_is_rejected(how: str) -> None:
    spoil, codes = SPOILT[how]
    assert check(spoil(valid()), model()).code in codes


def test_pair_across_two_centers_is_no_witness() -> None:
    """The claim says nothing of x and y around different centers."""
    first, second, *_ = around(3).tolist()
    pair = Witness(value=1e-9, x=tuple(first), y=tuple(second), item=0)
    assert check(replace(valid(), lower_bound=pair), model()).code == "witness-refuted"


@pytest.mark.parametrize("item", [None, 9])
def test_witness_names_its_place(item: int | None) -> None:
    witness = valid().lower_bound
    assert witness is not None
    moved = replace(witness, item=item)
    assert check(replace(valid(), lower_bound=moved), model()).code == "witness-refuted"


def test_one_region_at_a_time() -> None:
    """What knows one region fails on many, instead of proving something of the first."""
    asked = Property(scope="local", region=boxes(around(3)))
    with pytest.raises(TypeError, match="many centers"):
        _ = asked.place
    assert [part.place for part in asked.parts] == list(boxes(around(3)).parts)
    with pytest.raises(ValueError, match="differ"):
        Centers((*boxes(around(3), 0.5).parts, *boxes(around(3), 0.25).parts))


def test_centers_have_the_models_dimension() -> None:
    with pytest.raises(InvalidRequest, match="coordinates"):
        answer(model(), Property(scope="local", region=boxes(around(4))))
