"""Facts of softmax and of normalisation, against rationals: no tolerance where soundness is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest

from tests.blocks import floored, length, log_softmax, rooted, softmax
from tests.exact import Exact, Pair, fractions, growth_below
from verifier.checker.length import Length
from verifier.checker.network import BlockFunction
from verifier.checker.normalise import Normalise
from verifier.checker.softmax import LogSoftmax, Softmax
from verifier.errors import NotLipschitzGlobally
from verifier.norms import Norm

EPSILON = 0.375


@dataclass(frozen=True)
class Case:
    """A function of some entries, and its exact values."""

    name: str
    function: Callable[[int], BlockFunction]
    exact: Callable[[Exact], Exact]

    def __str__(self) -> str:
        return self.name


def _mean(width: int) -> Normalise:
    return Normalise(name="y", epsilon=EPSILON, form="root", divisor=float(width))


def _first_two(width: int) -> np.ndarray:
    return np.arange(width) < 2


def _softmax_of_some(x: Exact) -> Exact:
    """Of the first two entries; 0 elsewhere."""
    found = fractions(np.zeros(x.shape))
    found[:2] = softmax(x[:2])
    return found


CASES = [
    Case("softmax", lambda _: Softmax(), softmax),
    Case("softmax of some", lambda width: Softmax(_first_two(width)[None]), _softmax_of_some),
    Case("length", lambda _: Length(), length),
    Case("log-softmax", lambda _: LogSoftmax(), log_softmax),
    Case("mean", _mean, rooted(Fraction(EPSILON), 0)),
    Case(
        "sum",
        lambda _: Normalise(name="y", epsilon=EPSILON, form="root"),
        rooted(Fraction(EPSILON), 1),
    ),
    Case(
        "floor",
        lambda _: Normalise(name="y", epsilon=EPSILON, form="floor"),
        floored(Fraction(EPSILON)),
    ),
]


def _boxes(rng: np.random.Generator, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes of every size: around 0, across a floor, far out, and thin ones."""
    decades = 10.0 ** rng.uniform(-1.5, 1.5, (2, 1))
    center = rng.normal(size=width) * decades[0]
    reach = np.abs(rng.normal(size=width)) * decades[1] * (rng.random(width) < 0.8)
    return center - reach, center + reach


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_secants_lie_within(case: Case, seed: int) -> None:
    rng = np.random.default_rng(seed)
    width = 1 + seed % 5
    lower, upper = _boxes(rng, width)
    function = case.function(width)
    low, high = function.image(lower[None], upper[None])
    least, greatest = function.derivatives(lower[None], upper[None])
    sums = {norm: function.constant_on(norm, lower[None], upper[None]) for norm in Norm}

    for k in range(4):
        share = rng.random(width) if k % 2 else np.rint(rng.random(width))
        x = np.clip(lower + share * (upper - lower), lower, upper)
        j = int(rng.integers(width))
        y = x.copy()
        y[j] = rng.choice([lower[j], upper[j]])
        first, second = case.exact(fractions(x)), case.exact(fractions(y))
        run = Fraction(float(y[j])) - Fraction(float(x[j]))
        inside = [low[0, i] <= v <= high[0, i] for i, v in enumerate(first)]
        assert all(inside)
        for i, rise in enumerate(second - first):
            ends = sorted((Fraction(least[0, i, j]) * run, Fraction(greatest[0, i, j]) * run))
            assert ends[0] <= rise <= ends[1]
        for norm, bound in sums.items():
            norms: Pair = (norm.value, norm.value)
            if run:
                grown = growth_below(second - first, fractions(y) - fractions(x), norms)
                assert grown <= Fraction(bound[0, 0])


@pytest.mark.parametrize("norm", list(Norm), ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_secant_exceeds_the_constant(case: Case, norm: Norm) -> None:
    rng = np.random.default_rng(7)
    for width in (1, 2, 3, 6):
        constant = case.function(width).constant(norm, width).upper()
        norms: Pair = (norm.value, norm.value)
        for _ in range(8):
            x = fractions(rng.normal(size=width) * 10.0 ** rng.uniform(-1, 1))
            run = fractions(rng.normal(size=width) * 10.0 ** rng.uniform(-9, 1))
            rise = case.exact(x + run) - case.exact(x)
            assert growth_below(rise, run, norms) <= Fraction(constant)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_points_have_tight_facts(case: Case) -> None:
    x = np.random.default_rng(3).normal(size=(1, 5))
    function = case.function(5)
    low, high = function.image(x, x)
    least, greatest = function.derivatives(x, x)
    assert np.max(high - low) < 1e-12
    assert np.max(greatest - least) < 1e-12


def test_constants_are_reached() -> None:
    """At the points of the proofs: two equal shares, a unit share, and q = (2 - 1/c)/3."""
    half = np.array([[0.0, 0.0, -800.0]])
    least, _ = Softmax().derivatives(half, half)
    assert np.abs(least[0]).sum(axis=0).max() == pytest.approx(0.5)
    unit = np.array([[0.0, -800.0, -800.0, -800.0]])
    least, _ = LogSoftmax().derivatives(unit, unit)
    assert np.linalg.norm(least[0], 2) == pytest.approx(LogSoftmax().constant(Norm.L2, 4).upper())
    c = (np.sqrt(9) - 1) / 2
    q = (2 - 1 / c) / 3
    angle = np.arctan2(np.sqrt(8), 1) / 2
    direction = np.array([np.sin(angle), *np.full(8, np.cos(angle) / np.sqrt(8))])
    point = (direction * np.sqrt(9 * EPSILON * q / (1 - q)))[None]
    least, greatest = _mean(9).derivatives(point, point)
    sums = np.abs((least + greatest) / 2)[0].sum(axis=1).max()
    assert sums == pytest.approx(_mean(9).constant(Norm.LINF, 9).upper())


def test_without_epsilon_there_is_no_constant_and_a_box_away_from_0_has_bounds() -> None:
    plain = Normalise(name="y", epsilon=0.0, form="root")
    with pytest.raises(NotLipschitzGlobally) as refusal:
        plain.constant(Norm.L2, 3)
    assert refusal.value.node == "y"
    least, greatest = plain.derivatives(np.full((1, 3), 1.0), np.full((1, 3), 1.5))
    assert np.all(np.isfinite(least))
    assert np.all(np.isfinite(greatest))
    _, endless = plain.derivatives(np.full((1, 3), -1.0), np.full((1, 3), 1.5))
    assert np.any(np.isinf(endless))


def test_far_logits_do_not_overflow() -> None:
    far = np.array([[-1e4, 0.0, 1e4]])
    for function in (Softmax(), LogSoftmax()):
        low, high = function.image(far - 1e3, far + 1e3)
        assert np.all(np.isfinite(low))
        assert np.all(np.isfinite(high))
        least, greatest = function.derivatives(far - 1e3, far + 1e3)
        assert np.all(least <= greatest)
