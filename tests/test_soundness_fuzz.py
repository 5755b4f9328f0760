"""No bound is below a secant: random networks, every method, tolerance zero.

Secants are quotients of rationals at random points of the region, along the steepest direction
there: as long as the network is smooth at such a point, they are its Jacobian's norm. Nothing of
what is tested takes part in them. LIPCERT_TESTS=quick | full | nightly chooses how many.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Literal, TypeAlias, get_args

import numpy as np
import pytest

from tests.attempts import GLOBAL, LIPSDP, LOCAL, METHODS, PRODUCT, Attempt, bounds
from tests.exact import (
    Exact,
    Pair,
    Size,
    floats,
    fractions,
    growth_below,
    norm_below,
    pooled,
    steepest,
)
from tests.random_networks import Builder, RandomNetwork, random_network
from tests.tiny_networks import TinyBuilder, lipschitz_constant
from tests.tiny_topologies import coupled, gemm
from verifier.checker import check
from verifier.norms import Norm, NormPair
from verifier.property import (
    All,
    Each,
    Indices,
    Inputs,
    Margins,
    Outputs,
    Property,
)
from verifier.regions import Ball, CenterBox, Everywhere, Region

# A solver's own doubts: whatever it answers is repaired and checked.
pytestmark = pytest.mark.filterwarnings("ignore:Solution may be inaccurate")

Place: TypeAlias = Literal["everywhere", "box", "l2-ball", "l1-ball"]
Asked: TypeAlias = Literal["all", "indices", "each", "margins"]

NETWORKS = {"quick": 20, "full": 150, "nightly": 3000}[os.environ.get("LIPCERT_TESTS", "quick")]
SIZES: tuple[Size, ...] = get_args(Size)
RADIUS = 0.25
POINTS = 6
STEP = Fraction(1, 2**60)  #: of difference quotients


@dataclass(frozen=True)
class Question:
    """What is asked of a random network, all of it drawn from one seed."""

    seed: int
    place: Place
    norms: Pair
    outputs: Asked
    all_inputs: bool

    def __str__(self) -> str:
        inputs = "" if self.all_inputs else "-some-inputs"
        return f"{self.seed}-{self.place}-{'-'.join(self.norms)}-{self.outputs}{inputs}"


def _question(seed: int) -> Question:
    rng = np.random.default_rng([seed, 1])

    def chosen(number: int) -> int:
        return int(rng.integers(number))

    # l2 and linf are what most ask for, but every pair is asked for.
    pairs: tuple[Pair, ...] = (
        ("l2", "l2"),
        ("linf", "linf"),
        (SIZES[chosen(3)], SIZES[chosen(3)]),
    )
    places: tuple[Place, ...] = get_args(Place)
    outputs: tuple[Asked, ...] = ("all", *get_args(Asked))
    return Question(
        seed=seed,
        place=places[seed % len(places)],
        norms=pairs[chosen(3)],
        outputs=outputs[chosen(len(outputs))],
        all_inputs=chosen(4) != 0,
    )


QUESTIONS = [_question(seed) for seed in range(NETWORKS)]


@dataclass(frozen=True)
class Problem:
    """A question with its network."""

    network: RandomNetwork
    property: Property
    varying: Exact  #: the directions that inputs may move along, as columns
    items: tuple[Exact, ...]  #: the rows of each item's outputs
    points: tuple[Exact, ...]  #: inside the region


@cache
def _problem(question: Question) -> Problem:
    rng = np.random.default_rng([question.seed, 2])
    network = random_network(np.random.default_rng([question.seed, 3]))
    size = network.size
    outputs = len(network(fractions(np.zeros(size))))
    center = rng.integers(-16, 17, size) / 8
    inputs, varying = _inputs(question.all_inputs, size)
    kind, items = _outputs(question.outputs, outputs)
    return Problem(
        network=network,
        property=Property(
            scope="global" if question.place == "everywhere" else "local",
            norm=NormPair(Norm(question.norms[0]), Norm(question.norms[1])),
            region=_region(question.place, center),
            inputs=inputs,
            outputs=kind,
        ),
        varying=varying,
        items=items,
        points=tuple(_points(rng, question.place, center)),
    )


def _region(place: Place, center: np.ndarray) -> Region:
    middle = tuple(center.tolist())
    match place:
        case "everywhere":
            return Everywhere()
        case "box":
            return CenterBox(center=middle, radius=RADIUS)
        case "l2-ball":
            return Ball(norm=Norm.L2, center=middle, radius=RADIUS)
        case "l1-ball":
            return Ball(norm=Norm.L1, center=middle, radius=RADIUS)


def _inputs(is_all: bool, size: int) -> tuple[Inputs, Exact]:
    picked = range(size) if is_all else range(0, size, 2)
    kind = All() if is_all else Indices(tuple(picked))
    return kind, fractions(np.eye(size)[:, list(picked)])


def _outputs(asked: Asked, size: int) -> tuple[Outputs, tuple[Exact, ...]]:
    rows = fractions(np.eye(size))
    match asked:
        case "all":
            return All(), (rows,)
        case "indices":
            return Indices((0, size - 1)), (rows[[0, size - 1]],)
        case "each":
            return Each(), tuple(rows[[i]] for i in range(size))
        case "margins":
            pairs = [(i, j) for i in range(size) for j in range(i + 1, size)]
            return Margins(None), tuple(rows[[i]] - rows[[j]] for i, j in pairs)


def _points(rng: np.random.Generator, place: Place, center: np.ndarray) -> list[Exact]:
    """Points with room around them: of every decade, or well inside the region."""
    if place == "everywhere":
        decades = 10.0 ** rng.uniform(-1, 1, (POINTS, 1))
        return [fractions(point) for point in rng.normal(size=(POINTS, len(center))) * decades]
    offsets = rng.uniform(-0.96875, 0.96875, (POINTS, len(center)))
    norm = {"box": np.inf, "l2-ball": 2, "l1-ball": 1}[place]
    lengths = np.maximum(1, np.linalg.norm(offsets, norm, axis=1, keepdims=True) / 0.96875)
    return [fractions(center + RADIUS * offset) for offset in offsets / lengths]


@cache
def _secants(question: Question) -> tuple[Fraction, ...]:
    """The steepest secant that was found, for each item."""
    problem = _problem(question)
    return tuple(
        max(_secant(problem, rows, point, question.norms) for point in problem.points)
        for rows in problem.items
    )


def _secant(problem: Problem, rows: Exact, point: Exact, norms: Pair) -> Fraction:
    def rise(run: Exact) -> Exact:
        return rows @ (problem.network(point + problem.varying @ run) - start)

    start = problem.network(point)
    count = problem.varying.shape[1]
    basis = fractions(np.eye(count)) * STEP
    quotients = floats(np.stack([rise(column) for column in basis], axis=1) / STEP)
    if not quotients.any():
        return Fraction(0)
    direction = fractions(steepest(quotients, norms))
    run = direction / max(abs(direction)) * STEP
    return growth_below(rise(run), run, norms)


Case: TypeAlias = tuple[Question, Attempt]


def _cases() -> list[Case]:
    """Every question by every method; by the other attempts in turn."""
    cases: list[Case] = []
    for k, question in enumerate(QUESTIONS):
        attempts = GLOBAL if question.place == "everywhere" else LOCAL
        plain = [attempt for attempt in attempts if attempt in METHODS]
        others = [attempt for attempt in attempts if attempt not in METHODS]
        cases += [(question, attempt) for attempt in (*plain, others[k % len(others)])]
    return cases


@pytest.mark.parametrize(("question", "attempt"), _cases(), ids=str)
def test_no_bound_is_below_a_secant(question: Question, attempt: Attempt) -> None:
    problem = _problem(question)
    certificate = attempt.answer(problem.network.model, problem.property)
    assert check(certificate, problem.network.model).valid
    for secant, bound in zip(_secants(question), bounds(certificate), strict=True):
        assert bound is None or secant <= Fraction(bound)


def test_coupled_multiplier_is_false() -> None:
    """LipSDP for this network is above the slope that coupled multipliers deny."""
    tiny = coupled()
    (bound,) = bounds(LIPSDP.answer(tiny.network.model, Property()))
    assert bound is not None
    assert lipschitz_constant(tiny, ("l2", "l2")) <= Fraction(bound)


def test_padded_max_pool_numbers_its_comparisons_as_the_checker_does() -> None:
    """A window at the border compares copies of an entry, and proofs say which with which."""
    builder = Builder(np.random.default_rng(0), (1, 1, 2, 3))
    builder.node(
        "MaxPool",
        [builder.last],
        lambda x: pooled(x, (2, 2), 1, 1, max),
        kernel_shape=[2, 2],
        pads=[1] * 4,
    )
    builder.node("Flatten", [builder.last], lambda x: x.reshape(1, -1), axis=1)
    network = builder.finished()
    (bound,) = bounds(LIPSDP.answer(network.model, Property()))
    assert bound is not None
    assert 2 <= bound  # the greatest entry wins four windows


@pytest.mark.parametrize("norms", [("l2", "l2"), ("linf", "linf"), ("l1", "l1")], ids="-".join)
def test_linear_network_is_bounded_by_its_norm_alone(norms: Pair) -> None:
    """Without a gate the product is the operator norm: the bound is also nearly met."""
    weight = np.array([[3.0, -4.0, 0.5], [1.0, 2.0, -0.25]])
    builder = TinyBuilder(np.random.default_rng(0), (1, 3))
    gemm(builder, weight, np.zeros(2))
    asked = Property(norm=NormPair(Norm(norms[0]), Norm(norms[1])))
    (bound,) = bounds(PRODUCT.answer(builder.finished().model, asked))
    assert bound is not None
    norm = norm_below(fractions(weight), norms)
    assert norm <= Fraction(bound) <= norm * (1 + Fraction(1, 10**8))
