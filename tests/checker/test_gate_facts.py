"""Gates on many intervals at once, and rows of several signals carried to the input."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from tests.checker.groups import FAMILIES
from tests.checker.oracles import evaluate
from tests.checker.test_propagation import REGIONS, points
from verifier.certificate import ForwardProof
from verifier.checker import compounds, scalars
from verifier.checker.definite import NotProved
from verifier.checker.forward import bounds_around, forward_bounds, start_of, substitution_of
from verifier.checker.gate_facts import lines_within, slopes_within
from verifier.checker.intervals import Interval
from verifier.checker.lowering import Absolute, Lowered, lowered
from verifier.checker.network import Elementwise, Scalar
from verifier.checker.part_increments import part_increments
from verifier.checker.substitution import Around, Within
from verifier.norms import Norm

FORWARD = ForwardProof(technique="linear")
GATES: dict[str, Scalar] = {
    "relu": scalars.relu(),
    "abs": Absolute(),
    "prelu": scalars.leaky(np.array([0.25, -0.5, 2.0])),
    "clip": scalars.clip(-0.5, np.array([0.5, 1.0, 2.0])),
    "tanh": scalars.Tanh(),
}


def ends(seed: int, rows: int) -> Interval:
    """Intervals of three entries, many of which have an end in common, or at 0."""
    rng = np.random.default_rng(seed)
    pair = np.sort(rng.integers(-4, 5, (2, rows, 3)) / 2.0, axis=0)
    return Interval(pair[0], pair[1])


@pytest.mark.parametrize("rows", [1, 2, 7])
@pytest.mark.parametrize("name", GATES)
def test_facts_of_rows_are_those_of_each_row(name: str, rows: int) -> None:
    gate, found = GATES[name], ends(rows, rows)
    slopes, lines = slopes_within(gate, found), lines_within(gate, found)
    for row in range(rows):
        low, high = found.lower[row], found.upper[row]
        assert np.array_equal([s[row] for s in slopes], gate.slopes_inside(low, high))
        offsets = gate.offsets(low, high, lines.below[row], lines.above[row])
        assert np.array_equal([lines.low[row], lines.high[row]], offsets)


@pytest.mark.parametrize(
    ("gate", "low", "high", "slope"),
    [
        (scalars.relu(), 0.0, 1.0, 1.0),
        (scalars.relu(), -1.0, 0.0, 0.0),
        (scalars.relu(), -0.0, 1.0, 1.0),
        (scalars.leaky(-2.0), -1.0, 0.0, -2.0),
        (scalars.clip(-0.5, 1.0), -0.5, 1.0, 1.0),
        (scalars.clip(-0.5, 1.0), -2.0, -0.5, 0.0),
        (scalars.soft_shrink(0.5), -0.5, 0.5, 0.0),
        (Absolute(), -1.0, 0.0, -1.0),
        (Absolute(), 0.0, 1.0, 1.0),
    ],
)
def test_a_kink_at_an_end_has_its_inner_side(
    gate: Scalar, low: float, high: float, slope: float
) -> None:
    found = Interval(np.array([[low]]), np.array([[high]]))
    assert slopes_within(gate, found) == ([slope], [slope])
    lines = lines_within(gate, found)
    assert (lines.below, lines.above) == ([slope], [slope])


@pytest.mark.parametrize("least", [5e-324, 1e-300, 2.0**-1022])
def test_a_kink_inside_has_both_sides(least: float) -> None:
    low, high = np.array([[-least, -1.0]]), np.array([[1.0, least]])
    lower, upper = slopes_within(scalars.relu(), Interval(low, high))
    assert np.array_equal(lower, [[0.0, 0.0]])
    assert np.array_equal(upper, [[1.0, 1.0]])


def test_a_point_has_one_slope() -> None:
    """What enters does not move there."""
    zero = np.zeros((1, 1))
    assert slopes_within(scalars.relu(), Interval(zero, zero)) == ([0.0], [0.0])


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_no_sum_over_signals_exceeds_its_bound(family: str, region: str) -> None:
    rng = np.random.default_rng(13)
    network = FAMILIES[family](rng)
    small = lowered(network, "compare")
    signals = forward_bounds(network, small, REGIONS[region], FORWARD)
    graph = substitution_of(small.network, start_of(REGIONS[region])[0], signals)
    for node in small.network.nodes:
        if isinstance(node, Elementwise):
            graph.lines[node.name] = lines_within(node.function, signals[node.source])
    rows = {
        name: rng.integers(-6, 7, (2, 1, bounds.lower.shape[1])) / 4
        for name, bounds in signals.items()
    }
    tops = graph.greatest_sum(rows)[:, 0]
    for x in points(REGIONS[region], rng, 5):
        values = {**evaluate(small.network, x), "": x}
        for batch in range(2):
            sums = [
                sum((Fraction(c) * v for c, v in zip(row[batch, 0], values[name], strict=True)))
                for name, row in rows.items()
            ]
            assert sum(sums) <= Fraction(float(tops[batch]))


def test_what_lies_in_two_sets_takes_the_lesser_bound() -> None:
    zero = np.zeros((1, 2))
    ball = Around(centre=zero, radius=np.ones((1, 1)), norm=Norm.L2)
    box = Around(centre=zero, radius=np.array([[0.25, 2.0]]), norm=Norm.LINF)
    rows = np.array([[[1.0, 0.0], [0.0, 1.0], [3.0, 4.0]]])
    value, error = Within(ball, box).greatest(rows)
    assert np.allclose(value, [[0.25, 1.0, 5.0]])
    assert np.all(error < 1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_many_boxes_have_the_bounds_of_each(family: str) -> None:
    rng = np.random.default_rng(17)
    network = FAMILIES[family](rng)
    small = lowered(network, "compare")
    pair = np.sort(rng.integers(-8, 9, (2, 5, 3)) / 8, axis=0)
    boxes = Interval(pair[0], pair[1])
    together = bounds_around(network, small, (around(boxes), boxes), FORWARD)
    for row in range(5):
        box = Interval(pair[0][row : row + 1], pair[1][row : row + 1])
        alone = bounds_around(network, small, (around(box), box), FORWARD)
        for name, bounds in alone.items():
            ends = together[name].lower[row], together[name].upper[row]
            assert np.allclose(ends, [bounds.lower[0], bounds.upper[0]], rtol=0, atol=1e-12)


def around(boxes: Interval) -> Around:
    centre, radius = boxes.centred()
    return Around(centre=centre, radius=radius, norm=Norm.LINF)


def test_slopes_and_lines_that_are_not_finite_prove_nothing() -> None:
    wide = Interval(np.zeros((1, 1)), np.full((1, 1), 1000.0))
    for facts in (slopes_within, lines_within):
        with pytest.raises(NotProved), np.errstate(all="ignore"):
            facts(compounds.Exp(), wide)


def test_increments_of_parts_are_of_lowered_networks() -> None:
    network = FAMILIES["sorts"](np.random.default_rng(0))
    with pytest.raises(NotProved):
        part_increments(Lowered(network=network, gates={}), np.arange(3), {})
