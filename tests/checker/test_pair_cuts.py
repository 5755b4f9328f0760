"""Pair cuts: at least 0 at every vertex, in exact arithmetic; the checker's rows enclose them."""

from __future__ import annotations

from fractions import Fraction
from itertools import product as every

import numpy as np
import pytest

from tests.checker.oracles import affine, network
from verifier.certificate import LmiItem, LmiRow, PairCuts
from verifier.checker.carry import Carried
from verifier.checker.constraints import Increments, increments
from verifier.checker.definite import NotProved
from verifier.checker.items import selection
from verifier.checker.lmi import global_slopes, prove_lmi
from verifier.checker.lowering import lowered
from verifier.checker.maps import Dense
from verifier.checker.network import Elementwise, Network, Term
from verifier.checker.pair_cuts import Signs, cut_squares, signs_of
from verifier.checker.scalars import relu
from verifier.norms import Norm, NormPair
from verifier.property import Property

L2 = NormPair(Norm.L2, Norm.L2)


def form(weights: list[Fraction], gates: list[tuple[Fraction, Fraction]]) -> Fraction:
    """The cut's form, from (v, psi) of both gates."""
    p1, p2, r1, r2 = weights
    (v, psi), (w, chi) = gates
    a, b, c, d = v + psi, v - psi, w + chi, w - chi
    squares = (p1 * a) ** 2 + (p2 * b) ** 2 + (r1 * c) ** 2 + (r2 * d) ** 2
    mixed = p1 * r1 * a * c + p1 * r2 * a * d + p2 * r1 * b * c - p2 * r2 * b * d
    return squares + 2 * mixed


def drawn(rng: np.random.Generator, count: int) -> list[Fraction]:
    return [Fraction(int(n), int(d)) for n, d in rng.integers((-30, 1), (31, 9), (count, 2))]


def test_the_form_is_at_least_0_at_every_vertex() -> None:
    rng = np.random.default_rng(1)
    for _ in range(400):
        weights, (v, w) = drawn(rng, 4), drawn(rng, 2)
        for s, t in every((-1, 1), repeat=2):
            assert 0 <= form(weights, [(v, s * v), (w, t * w)])


def test_the_form_is_negative_at_some_interior_slopes() -> None:
    """T = (0, 0) is no vertex: x = y = (v, v), and x'Hy < 0 for some p, r."""
    half = [Fraction(1, 2)] * 2
    assert form([*half, -half[0], Fraction(0)], [(Fraction(1), Fraction(0))] * 2) < 0


def chain(rng: np.random.Generator) -> Network:
    """Two hidden layers of three; eighths as weights."""

    def eighths(*shape: int) -> np.ndarray:
        return rng.integers(-12, 13, shape) / 8

    layers = [
        affine("a", 3, Term("", Dense(eighths(3, 2)))),
        Elementwise(name="h", size=3, source="a", function=relu()),
        affine("b", 3, Term("h", Dense(eighths(3, 3)))),
        Elementwise(name="k", size=3, source="b", function=relu()),
        affine("y", 2, Term("k", Dense(eighths(2, 3)))),
    ]
    return network(layers, 2)


def walked(whole: Network) -> Increments:
    small = lowered(whole, "keep")
    return increments(small, np.arange(whole.input_size), global_slopes(small))


def signs(found: Increments) -> dict[str, Signs]:
    """Alpha and beta of every node, over all of xi."""
    gathered: dict[str, Signs] = {}
    for constraint in found.constraints:
        value = np.zeros((found.size, len(constraint.owner)))
        error = np.zeros_like(value)
        rows = constraint.entering.rows
        value[:rows], error[:rows] = constraint.entering.value, constraint.entering.errors()
        gathered[constraint.name] = signs_of(
            Carried(value.T, error.T), constraint.coordinates, np.arange(constraint.gates)
        )
    return gathered


def test_the_squares_enclose_the_form() -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        found = walked(chain(rng))
        weights = rng.standard_normal(4)
        cuts = PairCuts(
            first="h", second="k", first_entries=(1,), second_entries=(2,), weights=weights
        )
        (squares,) = cut_squares((cuts,), signs(found))
        one, other = found.constraints
        xi = [Fraction(int(n), 8) for n in rng.integers(-20, 21, found.size)]

        def entering(column: np.ndarray, xi: list[Fraction] = xi) -> Fraction:
            # Eighths: the entries are exact in float64.
            return sum(
                (Fraction(float(c)) * x for c, x in zip(column, xi, strict=False)),
                start=Fraction(0),
            )

        exact = form(
            [Fraction(float(w)) for w in weights],
            [
                (entering(one.entering.value[:, 1]), xi[int(one.coordinates[1])]),
                (entering(other.entering.value[:, 2]), xi[int(other.coordinates[2])]),
            ],
        )
        total, slack = Fraction(0), Fraction(0)
        for value, error, sign in zip(
            squares.rows.value, squares.rows.errors(), squares.sign, strict=True
        ):
            reached = entering(value)
            wrong = sum(
                (Fraction(float(e)) * abs(x) for e, x in zip(error, xi, strict=True)),
                start=Fraction(0),
            )
            total += int(sign) * reached**2
            slack += 2 * abs(reached) * wrong + wrong**2
        assert abs(total - exact) <= slack
        assert slack <= Fraction(1, 10**9)


def attempt(whole: Network, row: LmiRow) -> float:
    chosen = selection(Property(norm=L2), whole.input_size, whole.output_size)
    small = lowered(whole, "keep")
    return prove_lmi((LmiItem(rows=(row,)),), small, global_slopes(small), L2, chosen)[0].upper()


def with_cuts(cuts: PairCuts) -> LmiRow:
    """A row that holds without cuts, with room for small ones."""
    return LmiRow(
        output=None,
        level=4e3,
        input_multipliers=None,
        multipliers={"h": np.full(3, 400.0), "k": np.full(3, 20.0)},
        cuts=(cuts,),
    )


SMALL = PairCuts(
    first="h", second="k", first_entries=(0,), second_entries=(1,), weights=np.full(4, 0.01)
)


def test_a_row_with_room_holds_with_small_cuts_and_not_with_large_ones() -> None:
    whole = chain(np.random.default_rng(3))
    assert attempt(whole, with_cuts(SMALL)) < 64
    large = PairCuts(
        first="h", second="k", first_entries=(0,), second_entries=(1,), weights=np.full(4, 100.0)
    )
    with pytest.raises(NotProved):
        attempt(whole, with_cuts(large))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300, 1e-300])
def test_weights_out_of_range_are_rejected(bad: float) -> None:
    weights = SMALL.weights.copy()
    weights[2] = bad
    cuts = PairCuts(first="h", second="k", first_entries=(0,), second_entries=(1,), weights=weights)
    with pytest.raises(NotProved):
        attempt(chain(np.random.default_rng(3)), with_cuts(cuts))


BROKEN = {
    "no such node": ("x", "k", (0,), (1,), 4),
    "an affine node": ("a", "k", (0,), (1,), 4),
    "the inputs, for l2": ("", "k", (0,), (1,), 4),
    "a gate beyond the node": ("h", "k", (0,), (3,), 4),
    "too few weights": ("h", "k", (0,), (1,), 3),
    "too many weights": ("h", "k", (0,), (1,), 8),
    "one entry missing": ("h", "k", (0, 1), (1,), 8),
}


@pytest.mark.parametrize("change", BROKEN)
def test_cuts_of_what_is_no_pair_of_gates_are_rejected(change: str) -> None:
    first, second, left, right, count = BROKEN[change]
    cuts = PairCuts(
        first=first,
        second=second,
        first_entries=left,
        second_entries=right,
        weights=np.full(count, 0.01),
    )
    with pytest.raises(NotProved):
        attempt(chain(np.random.default_rng(3)), with_cuts(cuts))
