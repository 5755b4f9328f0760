"""Jacobians and their signs: no exact Jacobian leaves what is claimed, tolerance zero.

Pieces of tiny networks are enumerated in rationals; random networks are sampled, by quotients over
2^-60. What a certificate says of itself is tampered with, and has to be rejected.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import cache
from typing import Literal

import numpy as np
import pytest

from tests.exact import Exact, fractions
from tests.random_networks import random_network, relu
from tests.tiny_networks import Box, TinyBuilder, pieces
from tests.tiny_topologies import gemm, one_layer, tiny_network
from verifier.certificate import Certificate, Entries, ProductProof, Witness
from verifier.certificate_json import certificate_text
from verifier.checker import check
from verifier.errors import InvalidRequest, NotCheckable, TooLarge
from verifier.norms import Norm
from verifier.property import Budget, Direction, Indices, Monotone, OptionValue, Property, Request
from verifier.regions import Ball, CenterBox, EndsBox, Everywhere, Region
from verifier.verify import verify

PROFILE = os.environ.get("LIPCERT_TESTS", "quick")
COUNT = {"quick": 5, "full": 120, "nightly": 2000}[PROFILE]
MOST_SIDES = 256  #: of networks whose pieces are enumerated
STRIDE = 17  #: of the seeds of tiny networks: it visits every topology and every gate
STEP = Fraction(1, 2**60)
ULPS = Fraction(1, 2**48)  #: that tight intervals may be wider; of tightness alone
SECONDS = 3.0

Technique = Literal["interval", "linear"]


def answer(model: bytes, asked: Property, **options: OptionValue) -> Certificate:
    """A checked certificate."""
    request = Request(property=asked, options=options, budget=Budget(seconds=SECONDS))
    certificate = verify(model, request)
    assert check(certificate_text(certificate).encode(), model).valid
    return certificate


def entries(certificate: Certificate) -> tuple[Exact, Exact]:
    """The claimed ends, as the numbers in binary; decimals are checked by the checker's tests."""
    claimed = certificate.claim.entries
    assert claimed is not None
    lower, upper = (fractions(list(end)).reshape(claimed.shape) for end in _ends(claimed))
    return lower, upper


def _ends(claimed: Entries) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return claimed.lower, claimed.upper


def box(size: int) -> EndsBox:
    return EndsBox(lower=(-0.375,) * size, upper=(0.25,) * size)


@pytest.mark.parametrize("technique", ["interval", "linear"])
@pytest.mark.parametrize("is_local", [True, False], ids=["box", "everywhere"])
@pytest.mark.parametrize("seed", range(0, COUNT * STRIDE, STRIDE))
def test_no_piece_leaves_the_intervals(seed: int, is_local: bool, technique: Technique) -> None:
    tiny = tiny_network(seed)
    if not tiny.is_straight or MOST_SIDES < tiny.vertices:
        return
    region = box(tiny.network.size)
    asked = Property(
        kind="jacobian",
        scope="local" if is_local else "global",
        region=region if is_local else Everywhere(),
    )
    lower, upper = entries(answer(tiny.network.model, asked, technique=technique))
    within = Box(np.array(region.lower), np.array(region.upper)) if is_local else None
    for jacobian in pieces(tiny, within):
        assert (lower <= jacobian).all()
        assert (jacobian <= upper).all()


def _region(seed: int, center: np.ndarray) -> Region:
    middle = tuple(center.tolist())
    if seed % 3 == 0:
        return CenterBox(center=middle, radius=0.25)
    return Ball(norm=Norm.L2 if seed % 3 == 1 else Norm.L1, center=middle, radius=0.25)


@pytest.mark.parametrize("seed", range(COUNT))
def test_no_quotient_of_a_random_network_leaves_the_intervals(seed: int) -> None:
    network = random_network(np.random.default_rng([seed, 31]))
    rng = np.random.default_rng([seed, 32])
    center = rng.integers(-16, 17, network.size) / 8
    columns = tuple(range(0, network.size, 2))
    asked = Property(
        kind="jacobian",
        scope="local",
        region=_region(seed, center),
        inputs=Indices(columns),
        outputs=Indices((0,)),
    )
    try:
        lower, upper = entries(answer(network.model, asked))
    except NotCheckable:  # sines, which the checker does not read
        return
    share = 0.24 / np.sqrt(network.size)
    for offset in rng.uniform(-1, 1, (4, network.size)):
        x = fractions(center + share * offset / np.sqrt(network.size))
        for place, column in enumerate(columns):
            step = STEP * fractions(np.eye(network.size)[column])
            quotient = (network(x + step)[0] - network(x)[0]) / STEP
            assert lower[0, place] <= quotient <= upper[0, place]


def test_clarke_slopes_of_a_fixed_input_count_both_sides() -> None:
    """x_1 is held at the kink of relu(x_1): its derivative there is anything in [0, 1]."""
    tiny = one_layer("relu", np.eye(2), np.zeros(2), np.eye(2))
    region = EndsBox(lower=(1.0, 0.0), upper=(2.0, 0.0))
    asked = Property(kind="jacobian", scope="local", region=region)
    lower, upper = entries(answer(tiny.network.model, asked))
    assert lower[1, 1] == 0  # exactly: a sum of numbers that are no less is no less
    assert 1 <= upper[1, 1] <= 1 + ULPS
    assert 1 - ULPS <= lower[0, 0] <= 1 <= upper[0, 0] <= 1 + ULPS


def test_corner_of_a_box_at_a_kink_counts_both_sides() -> None:
    """|x| on [0, 1] has the slopes -1 and 1 at 0."""
    tiny = one_layer("abs", np.eye(1), np.zeros(1), np.eye(1))
    asked = Property(kind="jacobian", scope="local", region=EndsBox(lower=(0.0,), upper=(1.0,)))
    lower, upper = entries(answer(tiny.network.model, asked))
    assert -1 - ULPS <= lower[0, 0] <= -1 < 1 <= upper[0, 0] <= 1 + ULPS


def test_cancelled_terms_do_not_lose_the_slope() -> None:
    """(2^60 + 100) x - 2^60 x has the slope 100, which float64 sums to 0."""
    builder = TinyBuilder(np.random.default_rng(0), (1, 1))
    gemm(builder, np.array([[2.0**60], [100.0], [2.0**60]]), np.zeros(3))
    gemm(builder, np.array([[1.0, 1.0, -1.0]]), np.zeros(1))
    asked = Property(kind="jacobian", scope="local", region=CenterBox(center=(1.0,), radius=0.5))
    lower, upper = entries(answer(builder.finished().model, asked))
    assert lower[0, 0] <= 100 <= upper[0, 0]


# --- Signs ---------------------------------------------------------------------------------------


def sign(direction: Direction, output: int = 0, given: int = 0) -> Property:
    """Of one entry, everywhere."""
    return Property(
        kind="monotone", monotone=Monotone(input=given, output=output, direction=direction)
    )


@cache
def bump() -> bytes:
    """x - 4 relu(x - 2) in its first input: rises up to 2, falls beyond."""
    builder = TinyBuilder(np.random.default_rng(0), (1, 2))
    gemm(builder, np.array([[1.0, 0.0], [1.0, 0.5], [0.0, 1.0]]), np.array([8.0, -2.0, 0.0]))
    relu(builder)
    gemm(builder, np.array([[1.0, -4.0, 1.0]]), np.zeros(1))
    return builder.finished().model


def at(center: tuple[float, float], radius: float) -> Property:
    region = CenterBox(center=center, radius=radius)
    return replace(sign("increasing"), scope="local", region=region)


def test_a_rise_is_certified() -> None:
    certificate = answer(bump(), at((0.0, 0.0), 1.0))
    assert (certificate.verdict, certificate.lower_bound) == ("certified", None)


def test_a_planted_fall_is_found() -> None:
    certificate = answer(bump(), at((2.0, 0.0), 1.0))
    assert certificate.verdict == "violated"
    witness = certificate.lower_bound
    assert witness is not None
    assert Fraction(0) < Fraction(witness.value) <= 3


def test_a_constant_is_monotone_both_ways() -> None:
    tiny = one_layer("relu", np.zeros((2, 2)), np.ones(2), np.eye(2))
    for direction in ("increasing", "decreasing"):
        assert answer(tiny.network.model, sign(direction)).verdict == "certified"


def test_weights_of_one_sign_make_a_monotone_network_everywhere() -> None:
    """No rounding may spoil the zero that is the derivative's lower end."""
    rng = np.random.default_rng(3)
    builder = TinyBuilder(rng, (1, 4))
    for size in (5, 6, 1):
        gemm(builder, rng.uniform(0, 1, (size, builder.shape[1])), rng.normal(size=size))
        if size != 1:
            relu(builder)
    model = builder.finished().model
    assert answer(model, sign("increasing", given=3)).verdict == "certified"
    assert answer(model, sign("decreasing", given=3)).verdict == "violated"


@pytest.mark.parametrize("direction", ["increasing", "decreasing"])
@pytest.mark.parametrize("seed", range(0, COUNT * STRIDE, STRIDE))
def test_a_verdict_is_that_of_the_pieces(seed: int, direction: Direction) -> None:
    """Certified: no piece moves against the direction. Violated: one does."""
    tiny = tiny_network(seed)
    if not tiny.is_straight or MOST_SIDES < tiny.vertices:
        return
    region = box(tiny.network.size)
    asked = replace(sign(direction), scope="local", region=region)
    certificate = answer(tiny.network.model, asked)
    turn = 1 if direction == "increasing" else -1
    within = Box(np.array(region.lower), np.array(region.upper))
    least = min(turn * jacobian[0, 0] for jacobian in pieces(tiny, within))
    assert certificate.verdict != "certified" or 0 <= least
    if certificate.verdict == "violated":
        witness = certificate.lower_bound
        assert witness is not None
        x, y = fractions(list(witness.x)), fractions(list(witness.y))
        rise = tiny.network(y)[0] - tiny.network(x)[0]
        assert Fraction(witness.value) <= -turn * rise / (y - x)[0]


# --- Refusals and tampering ----------------------------------------------------------------------


def widened(certificate: Certificate, share: float) -> Certificate:
    """Every interval a little narrower (share < 0) or wider around its middle."""
    claimed = certificate.claim.entries
    assert claimed is not None
    lower, upper = np.array(claimed.lower), np.array(claimed.upper)
    slack = share * (upper - lower)
    moved = replace(
        claimed, lower=tuple((lower - slack).tolist()), upper=tuple((upper + slack).tolist())
    )
    return replace(certificate, claim=replace(certificate.claim, entries=moved))


@cache
def jacobian_of_bump() -> Certificate:
    region = CenterBox(center=(2.0, 0.0), radius=1.0)
    return answer(bump(), Property(kind="jacobian", scope="local", region=region))


def test_wider_intervals_are_valid_and_narrower_ones_are_not() -> None:
    certificate = jacobian_of_bump()
    assert check(widened(certificate, 0.5), bump()).valid
    assert check(widened(certificate, -1e-15), bump()).code == "bound-not-proved"


@pytest.mark.parametrize("end", ["lower", "upper"])
@pytest.mark.parametrize("place", [0, 1])
def test_one_end_moved_inwards_is_rejected(end: str, place: int) -> None:
    certificate = jacobian_of_bump()
    claimed = certificate.claim.entries
    assert claimed is not None
    ends = list(claimed.lower if end == "lower" else claimed.upper)
    ends[place] = float(np.nextafter(ends[place], 9.0 if end == "lower" else -9.0))
    moved = (
        replace(claimed, lower=tuple(ends))
        if end == "lower"
        else replace(claimed, upper=tuple(ends))
    )
    spoilt = replace(certificate, claim=replace(certificate.claim, entries=moved))
    assert check(spoilt, bump()).code == "bound-not-proved"


SPOILT: dict[str, tuple[Callable[[Certificate], Certificate], str]] = {
    "bound": (lambda c: replace(c, claim=replace(c.claim, bound=1.0)), "inconsistent"),
    "log10": (lambda c: replace(c, claim=replace(c.claim, log10_bound=1.0)), "inconsistent"),
    "target": (lambda c: replace(c, target=1.0), "inconsistent"),
    "verdict": (lambda c: replace(c, verdict="certified"), "inconsistent"),
    "shape": (
        lambda c: replace(
            c,
            claim=replace(
                c.claim, entries=Entries(shape=(2, 1), lower=(-9.0, -9.0), upper=(9.0, 9.0))
            ),
        ),
        "inconsistent",
    ),
    "length": (
        lambda c: replace(
            c, claim=replace(c.claim, entries=Entries(shape=(1, 2), lower=(-9.0,), upper=(9.0,)))
        ),
        "inconsistent",
    ),
    "witness": (
        lambda c: replace(c, lower_bound=Witness(value=1.0, x=(2.0, 0.0), y=(3.0, 0.0))),
        "witness-refuted",
    ),
    "proof": (lambda c: replace(c, proof=ProductProof(patterns=(), items=())), "proof-refuted"),
    "soundness": (lambda c: replace(c, soundness="exact"), "soundness-unsupported"),
}


@pytest.mark.parametrize("how", SPOILT)
def test_spoilt_jacobian_is_rejected(how: str) -> None:
    spoil, code = SPOILT[how]
    assert check(spoil(jacobian_of_bump()), bump()).code == code


def test_a_sign_is_not_claimed_of_another_region() -> None:
    certificate = answer(bump(), at((0.0, 0.0), 1.0))
    wider = replace(certificate.claim, property=at((0.0, 0.0), 3.0))
    assert check(replace(certificate, claim=wider), bump()).code == "inconsistent"


@pytest.mark.parametrize(
    "pair",
    [
        Witness(value=1.0, x=(2.5, 0.0), y=(2.75, 0.25)),  # differs in another input
        Witness(value=1.0, x=(2.5, 0.0), y=(3.5, 0.0)),  # leaves the region
        Witness(value=1.0, x=(2.5, 0.0), y=(2.5, 0.0)),  # one point
        Witness(value=1.0, x=(1.25, 0.0), y=(1.5, 0.0)),  # rises
        Witness(value=3.5, x=(2.5, 0.0), y=(2.75, 0.0)),  # falls by less
        Witness(value=0.0, x=(2.5, 0.0), y=(2.75, 0.0)),  # refutes nothing
        Witness(value=1.0, x=(2.5, 0.0), y=(2.75, 0.0), item=0),  # there is no list
    ],
)
def test_a_pair_that_does_not_refute_is_rejected(pair: Witness) -> None:
    certificate = answer(bump(), at((2.0, 0.0), 1.0))
    assert check(replace(certificate, lower_bound=pair), bump()).code == "witness-refuted"


def test_violated_needs_its_pair_and_certified_has_none() -> None:
    falls, rises = answer(bump(), at((2.0, 0.0), 1.0)), answer(bump(), at((0.0, 0.0), 1.0))
    assert check(replace(falls, lower_bound=None), bump()).code == "inconsistent"
    assert check(replace(falls, verdict="certified"), bump()).code == "inconsistent"
    assert check(replace(rises, verdict="undecided"), bump()).code == "inconsistent"


def test_what_the_model_does_not_have_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="out of range"):
        answer(bump(), sign("increasing", given=2))
    with pytest.raises(InvalidRequest, match="out of range"):
        answer(bump(), sign("increasing", output=1))
    with pytest.raises(InvalidRequest, match="option"):
        answer(bump(), Property(kind="jacobian"), colour=1)


def test_a_matrix_that_no_certificate_can_list_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verifier.entries.MOST_ENTRIES", 1)
    with pytest.raises(TooLarge, match="entries"):
        answer(bump(), Property(kind="jacobian"))


def test_network_without_gates_has_an_exact_jacobian() -> None:
    weight = np.array([[3.0, -4.0, 0.5], [1.0, 2.0, -0.25]])
    builder = TinyBuilder(np.random.default_rng(0), (1, 3))
    gemm(builder, weight, np.zeros(2))
    asked = Property(kind="jacobian", inputs=Indices((2, 0)))
    lower, upper = entries(answer(builder.finished().model, asked))
    exact = fractions(weight[:, [2, 0]])
    assert (lower <= exact).all()
    assert (exact <= upper).all()
    assert (upper - lower <= 8 * ULPS).all()
