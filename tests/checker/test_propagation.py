from __future__ import annotations

from fractions import Fraction
from typing import Literal

import numpy as np
import pytest

from tests.checker.groups import FAMILIES
from tests.checker.oracles import affine, dense_network, evaluate, network, rationals
from verifier.certificate import (
    ForwardProof,
    GateLmiProof,
    Lines,
    LmiItem,
    LmiRow,
    PropagationProof,
    SlopeRange,
)
from verifier.checker.definite import NotProved
from verifier.checker.forward import forward_bounds, slopes_over
from verifier.checker.intervals import Interval
from verifier.checker.items import selection
from verifier.checker.jacobian import Jacobian, absolute_chord, product_lines
from verifier.checker.lowering import lowered
from verifier.checker.maps import Adjoint, Composed, Dense
from verifier.checker.network import Elementwise, Network, Term
from verifier.checker.propagation import prove_gate_lmi, prove_propagation
from verifier.checker.scalars import relu
from verifier.norms import Norm, NormPair
from verifier.property import Each, Indices, Margins, Property
from verifier.regions import Ball, Bounded, CenterBox, Clip, EndsBox

Technique = Literal["interval", "linear", "joint"]
TECHNIQUES: tuple[Technique, ...] = ("interval", "linear", "joint")
#: Each of the three ways from entries of J to a norm, and mixed pairs.
PAIRS = (
    (Norm.LINF, Norm.LINF),
    (Norm.LINF, Norm.L1),
    (Norm.L2, Norm.L2),
    (Norm.L2, Norm.LINF),
    (Norm.L1, Norm.L2),
)
REGIONS: dict[str, Bounded] = {
    "box": CenterBox(center=(0.5, -0.25, 0.125), radius=0.75),
    "clipped": CenterBox(
        center=(0.5, -0.25, 0.125), radius=(0.5, 0.0, 1.0), clip=Clip(lower=-0.5, upper=0.75)
    ),
    "ends": EndsBox(lower=(-1.0, 0.0, 0.5), upper=(0.0, 0.5, 0.5)),
    "l1": Ball(norm=Norm.L1, center=(0.5, -0.25, 0.125), radius=1.0),
    "l2": Ball(norm=Norm.L2, center=(0.5, -0.25, 0.125), radius=1.0),
    "linf": Ball(norm=Norm.LINF, center=(0.5, -0.25, 0.125), radius=0.5),
}


def forward_proof(technique: Technique) -> ForwardProof:
    return ForwardProof(technique="interval" if technique == "interval" else "linear")


def points(region: Bounded, rng: np.random.Generator, count: int) -> list[list[Fraction]]:
    """Rational points of the region, decided exactly."""
    found: list[list[Fraction]] = []
    while len(found) < count:
        lower, upper = region.interval()
        steps = rng.integers(0, 17, len(lower))
        x = [float(a + (b - a) * k / 16) for a, b, k in zip(lower, upper, steps, strict=True)]
        if region.contains(x):
            found.append([Fraction(v) for v in x])
    return found


def norm(values: list[Fraction], kind: Norm) -> Fraction:
    """The norm, squared."""
    sizes = [abs(v) for v in values]
    match kind:
        case Norm.L1:
            return sum(sizes, Fraction(0)) ** 2
        case Norm.L2:
            return sum((s * s for s in sizes), Fraction(0))
        case Norm.LINF:
            return max(sizes) ** 2


@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_signal_lies_within_its_bounds(
    family: str, region: str, technique: Technique
) -> None:
    rng = np.random.default_rng(3)
    whole = FAMILIES[family](rng)
    small = lowered(whole, "compare")
    bounds = forward_bounds(whole, small, REGIONS[region], forward_proof(technique))
    for x in points(REGIONS[region], rng, 6):
        for name, values in evaluate(small.network, x).items():
            for low, value, high in zip(
                bounds[name].lower[0], values, bounds[name].upper[0], strict=True
            ):
                assert Fraction(float(low)) <= value <= Fraction(float(high))


@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_no_exact_quotient_exceeds_the_bound(
    family: str, region: str, technique: Technique
) -> None:
    rng = np.random.default_rng(5)
    whole = FAMILIES[family](rng)
    inside = points(REGIONS[region], rng, 7)
    proof = PropagationProof(patterns=(), forward=forward_proof(technique), technique=technique)
    values = [evaluate(whole, x)["y"] for x in inside]
    for given, output in PAIRS:
        asked = Property(scope="local", norm=NormPair(given, output), region=REGIONS[region])
        (bound,) = prove_propagation(proof, whole, asked, selection(asked, 3, 2))
        level = Fraction(bound.upper()) ** 2
        for x, f in zip(inside, values, strict=True):
            for y, g in zip(inside, values, strict=True):
                rise = [a - b for a, b in zip(f, g, strict=True)]
                run = [a - b for a, b in zip(x, y, strict=True)]
                assert norm(rise, output) <= level * norm(run, given)


def test_a_fixed_input_takes_nothing_from_a_row() -> None:
    """Y = x_1 - 100 x_2 with x_2 fixed: the chord's line is not to count -100 as an increment."""
    whole = dense_network([np.array([[1.0, -100.0]])])
    region = EndsBox(lower=(0.0, 1.0), upper=(1.0, 1.0))
    asked = Property(scope="local", norm=NormPair(Norm.LINF, Norm.LINF), region=region)
    proof = PropagationProof(
        patterns=(), forward=ForwardProof(technique="linear"), technique="linear"
    )
    (bound,) = prove_propagation(proof, whole, asked, selection(asked, 2, 1))
    assert 1.0 <= bound.upper() <= 1.0 + 1e-9


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_items_bound_each_output_and_each_margin(technique: Technique) -> None:
    rng = np.random.default_rng(6)
    whole = FAMILIES["residual"](rng)
    region = REGIONS["box"]
    proof = PropagationProof(patterns=(), forward=forward_proof(technique), technique=technique)
    inside = points(region, rng, 12)
    values = [evaluate(whole, x)["y"] for x in inside]
    pair = NormPair(Norm.LINF, Norm.LINF)
    for outputs in (Each(), Margins(None), Margins(((1, 0),))):
        asked = Property(
            scope="local", norm=pair, region=region, outputs=outputs, inputs=Indices((2, 0))
        )
        chosen = selection(asked, 3, 2)
        bounds = prove_propagation(proof, whole, asked, chosen)
        assert len(bounds) == len(chosen.items)
        for x, f in zip(inside, values, strict=True):
            for y, g in zip(inside, values, strict=True):
                if x[1] != y[1]:
                    continue
                run = max(abs(x[0] - y[0]), abs(x[2] - y[2]))
                df = [a - b for a, b in zip(f, g, strict=True)]
                for item, bound in zip(chosen.items, bounds, strict=True):
                    first, *second = item.rows.index[0].tolist()
                    rise = df[first] - sum((df[k] for k in second), Fraction(0))
                    assert abs(rise) <= Fraction(bound.upper()) * run


def cancellation() -> Network:
    """(2^60 x + 100 x) - 2^60 x: the constant is 100, and float64 products see 0."""
    great = np.array([[2.0**60]])
    return network(
        [
            affine("a", 1, Term("", Dense(great)), Term("", Dense(np.array([[100.0]])))),
            affine("b", 1, Term("", Dense(great))),
            affine("y", 1, Term("a", Dense(np.eye(1))), Term("b", Dense(-np.eye(1)))),
        ],
        1,
    )


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_a_cancellation_is_not_certified_as_zero(technique: Technique) -> None:
    asked = Property(
        scope="local",
        norm=NormPair(Norm.LINF, Norm.LINF),
        region=CenterBox(center=(0.0,), radius=1.0),
    )
    proof = PropagationProof(patterns=(), forward=forward_proof(technique), technique=technique)
    (bound,) = prove_propagation(proof, cancellation(), asked, selection(asked, 1, 1))
    assert 100 <= bound.upper()


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_the_bounds_of_a_cancellation_contain_its_values(technique: Technique) -> None:
    whole = cancellation()
    region = CenterBox(center=(0.25,), radius=0.5)
    small = lowered(whole, "compare")
    bounds = forward_bounds(whole, small, region, forward_proof(technique))["y"]
    for k in range(-1, 4):
        assert bounds.lower[0, 0] <= 100 * k / 4 <= bounds.upper[0, 0]


def jacobians(weights: list[np.ndarray], patterns: int) -> list[np.ndarray]:
    """The Jacobians of all gate patterns."""
    first, second = weights
    return [
        second @ np.diag([float(code >> j & 1) for j in range(len(first))]) @ first
        for code in range(patterns)
    ]


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_a_jacobian_contains_every_pattern_of_unstable_gates(technique: Technique) -> None:
    rng = np.random.default_rng(9)
    weights = [rng.integers(-4, 5, (5, 3)) / 2.0, rng.integers(-4, 5, (2, 5)) / 2.0]
    whole = dense_network(weights)
    small = lowered(whole, "compare")
    region = CenterBox(center=(0.0, 0.0, 0.0), radius=1.0)
    signals = forward_bounds(whole, small, region, ForwardProof(technique="interval"))
    rows = np.eye(2)
    found = Jacobian(small.network, slopes_over(small, signals), rows, linear=technique == "linear")
    entries = found.entries(np.ones(3, np.bool_))
    sums = found.row_sums(entries, np.ones(3, np.bool_))
    for jacobian in jacobians(weights, 32):
        assert np.all(entries.lower <= jacobian)
        assert np.all(jacobian <= entries.upper)
        assert np.all(np.abs(jacobian).sum(axis=1) <= sums)


def test_lines_of_a_product_hold_for_every_slope() -> None:
    rng = np.random.default_rng(10)
    slopes = np.sort(rng.standard_normal((2, 1, 300)), axis=0)
    slopes[:, :, :50] = 1.0
    ends = np.sort(rng.standard_normal((2, 1, 300)) * 10.0 ** rng.integers(-6, 7, 300), axis=0)
    lines = product_lines(Interval(*slopes), Interval(*ends))
    for place in range(300):
        low, high = (Fraction(float(e[0, place])) for e in ends)
        for s in (Fraction(float(slopes[0, 0, place])), Fraction(float(slopes[1, 0, place]))):
            for g in (low, high, (low + high) / 2, (3 * low + high) / 4):
                below, above, least, greatest = (
                    Fraction(float(part[0, place]))
                    for part in (lines.below, lines.above, lines.low, lines.high)
                )
                assert below * g + least <= s * g <= above * g + greatest


def test_the_chord_of_an_absolute_value_is_above_it() -> None:
    rng = np.random.default_rng(12)
    ends = np.sort(rng.standard_normal((2, 1, 300)) * 10.0 ** rng.integers(-6, 7, 300), axis=0)
    slope, offset = absolute_chord(Interval(*ends))
    for place in range(300):
        low, high = (Fraction(float(e[0, place])) for e in ends)
        for j in (low, high, (low + high) / 2, min(max(low, Fraction(0)), high)):
            line = Fraction(float(slope[0, place])) * j + Fraction(float(offset[0, place]))
            assert abs(j) <= line


@pytest.mark.parametrize("seed", range(5))
def test_any_slopes_of_lines_are_sound(seed: int) -> None:
    rng = np.random.default_rng(seed)
    whole = FAMILIES["residual"](rng)
    small = lowered(whole, "compare")
    lines = {
        name: Lines(lower=rng.uniform(-2, 2, 4), upper=rng.uniform(-2, 2, 4)) for name in ("h", "k")
    }
    proof = ForwardProof(technique="linear", lines=lines)
    bounds = forward_bounds(whole, small, REGIONS["box"], proof)
    for x in points(REGIONS["box"], rng, 10):
        for low, value, high in zip(
            bounds["b"].lower[0], evaluate(whole, x)["b"], bounds["b"].upper[0], strict=True
        ):
            assert Fraction(float(low)) <= value <= Fraction(float(high))


def test_lines_of_the_wrong_gates_are_rejected() -> None:
    whole = FAMILIES["residual"](np.random.default_rng(0))
    small = lowered(whole, "compare")
    for lines in (
        {"other": Lines(lower=np.zeros(4), upper=np.ones(4))},
        {"h": Lines(lower=np.zeros(3), upper=np.ones(4))},
        {"h": Lines(lower=np.zeros(4), upper=np.ones(5))},
    ):
        with pytest.raises(NotProved):
            forward_bounds(
                whole, small, REGIONS["box"], ForwardProof(technique="linear", lines=lines)
            )


def test_linear_bounds_are_tighter() -> None:
    whole = FAMILIES["residual"](np.random.default_rng(2))
    pair = NormPair(Norm.LINF, Norm.LINF)
    asked = Property(scope="local", norm=pair, region=REGIONS["box"])
    bounds = [
        prove_propagation(
            PropagationProof(patterns=(), forward=forward_proof(technique), technique=technique),
            whole,
            asked,
            selection(asked, 3, 2),
        )[0].upper()
        for technique in TECHNIQUES
    ]
    assert bounds[1] <= bounds[0]


def gate_proof(slopes: dict[str, SlopeRange], level: float, weight: float) -> GateLmiProof:
    row = LmiRow(
        output=None,
        level=level,
        input_multipliers=None,
        multipliers={"h0": np.full(2, weight)},
    )
    return GateLmiProof(
        patterns=(),
        forward=ForwardProof(technique="linear"),
        slopes=slopes,
        items=(LmiItem(rows=(row,)),),
    )


def half_stable() -> tuple[Network, Property]:
    """relu(x_1 + 2) is linear on the unit box, relu(x_2) is not."""
    whole = dense_network([np.eye(2), np.eye(2)], [np.array([2.0, 0.0]), np.zeros(2)])
    return whole, Property(scope="local", region=CenterBox(center=(0.0, 0.0), radius=1.0))


def test_slopes_over_the_region_prove_more() -> None:
    whole, asked = half_stable()
    proof = gate_proof({}, 1.0 + 1e-9, 0.5)
    (bound,) = prove_gate_lmi(proof, whole, asked, selection(asked, 2, 2))
    assert 1.0 <= bound.upper() <= 1.0 + 1e-8


@pytest.mark.parametrize(
    ("lower", "upper", "holds"),
    [
        ((1.0, 0.0), (1.0, 1.0), True),
        ((0.5, 0.0), (1.0, 1.0), True),
        ((1.0, 0.1), (1.0, 1.0), False),
        ((1.0, 0.0), (1.0, 1.0 - 1e-16), False),
        ((0.0, 0.0), (0.0, 1.0), False),
        ((1.0, 0.0), (1.0, float("nan")), False),
    ],
)
def test_stored_slopes_have_to_contain_the_proved_ones(
    lower: tuple[float, float], upper: tuple[float, float], holds: bool
) -> None:
    whole, asked = half_stable()
    stored = {"h0": SlopeRange(lower=np.array(lower), upper=np.array(upper))}
    proof = gate_proof(stored, 2.0, 0.75)
    chosen = selection(asked, 2, 2)
    if holds:
        assert prove_gate_lmi(proof, whole, asked, chosen)
    else:
        with pytest.raises(NotProved, match="narrower"):
            prove_gate_lmi(proof, whole, asked, chosen)


@pytest.mark.parametrize("name", ["h1", "z0", ""])
def test_slopes_of_no_gate_are_rejected(name: str) -> None:
    whole, asked = half_stable()
    stored = {name: SlopeRange(lower=np.zeros(2), upper=np.ones(2))}
    with pytest.raises(NotProved, match="no gates"):
        prove_gate_lmi(gate_proof(stored, 2.0, 0.75), whole, asked, selection(asked, 2, 2))


def test_a_ball_is_tighter_than_its_box() -> None:
    ball = Ball(norm=Norm.L2, center=(0.0,) * 4, radius=1.0)
    whole = dense_network([np.ones((1, 4)), np.ones((1, 1))])
    proof = ForwardProof(technique="linear")
    bounds = forward_bounds(whole, lowered(whole, "compare"), ball, proof)
    assert 2.0 <= bounds["z0"].upper[0, 0] <= 2.0 + 1e-9


def test_the_rational_points_are_in_their_region() -> None:
    rng = np.random.default_rng(0)
    assert all(len(points(region, rng, 3)) == 3 for region in REGIONS.values())
    assert len(rationals(rng, 4)) == 4


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_what_underflows_inside_a_composition_is_not_lost(technique: Technique) -> None:
    """2^1000 (2^-1000 x) is x; for x = 2^-80 the inner product underflows to 0."""
    tiny, great = np.array([[2.0**-1000]]), np.array([[2.0**1000]])
    inner = Composed(Dense(tiny), Dense(great))
    for linear in (inner, Adjoint(Composed(Dense(great), Dense(tiny)))):
        whole = network(
            [
                affine("a", 1, Term("", linear)),
                Elementwise(name="h", size=1, source="a", function=relu()),
                affine("y", 1, Term("h", Dense(np.eye(1)))),
            ],
            1,
        )
        region = EndsBox(lower=(0.0,), upper=(2.0**-80,))
        small = lowered(whole, "compare")
        bounds = forward_bounds(whole, small, region, forward_proof(technique))
        assert 2.0**-80 <= bounds["a"].upper[0, 0]
        assert 2.0**-80 <= bounds["y"].upper[0, 0]
