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
from itertools import filterfalse
from typing import Literal, TypeAlias, get_args

import numpy as np
import pytest

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
from tests.tiny_networks import COUPLED, Box, Gate, TinyNetwork, lipschitz_constant, tiny_network
from verifier.certificate import Certificate
from verifier.checker import check
from verifier.errors import NotCheckable
from verifier.norms import Norm, NormPair
from verifier.property import (
    All,
    Budget,
    Each,
    Indices,
    Inputs,
    Margins,
    Method,
    Outputs,
    Property,
    Request,
)
from verifier.regions import Ball, CenterBox, EndsBox, Everywhere, Region
from verifier.verify import verify

Place: TypeAlias = Literal["everywhere", "box", "l2-ball", "l1-ball"]
Asked: TypeAlias = Literal["all", "indices", "each", "margins"]

NETWORKS = {"quick": 20, "full": 150, "nightly": 3000}[os.environ.get("LIPCERT_TESTS", "quick")]
SIZES: tuple[Size, ...] = get_args(Size)
RADIUS = 0.25
POINTS = 6
UNREAD = frozenset({"Cos", "Sin"})  #: the importer knows them, the checker does not
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


@dataclass(frozen=True)
class Attempt:
    """A question, and the method that is to answer it."""

    question: Question
    method: Method

    def __str__(self) -> str:
        return f"{self.method}-{self.question}"


def _attempts() -> list[Attempt]:
    methods: tuple[Method, ...] = ("product", "lipsdp", "propagation")
    return [
        Attempt(question, method)
        for question in QUESTIONS
        for method in methods
        if method != "propagation" or question.place != "everywhere"
    ]


def _is_read(attempt: Attempt) -> bool:
    return UNREAD.isdisjoint(str(_problem(attempt.question).network).split())


def _answer(model: bytes, asked: Property, method: Method) -> Certificate:
    budget = Budget(seconds=0.5, gap=1e-3)
    return verify(model, Request(property=asked, method=method, budget=budget))


def _bounds(certificate: Certificate) -> list[float | None]:
    claim = certificate.claim
    return [claim.bound] if claim.bounds is None else [item.bound for item in claim.bounds]


@pytest.mark.parametrize("attempt", list(filter(_is_read, _attempts())), ids=str)
def test_no_bound_is_below_a_secant(attempt: Attempt) -> None:
    problem = _problem(attempt.question)
    certificate = _answer(problem.network.model, problem.property, attempt.method)
    bounds = _bounds(certificate)
    assert check(certificate, problem.network.model).valid
    for secant, bound in zip(_secants(attempt.question), bounds, strict=True):
        assert bound is None or secant <= Fraction(bound)


@pytest.mark.parametrize("attempt", list(filterfalse(_is_read, _attempts())), ids=str)
def test_what_the_checker_does_not_read_is_refused_by_name(attempt: Attempt) -> None:
    problem = _problem(attempt.question)
    with pytest.raises(NotCheckable, match="|".join(UNREAD)):
        _answer(problem.network.model, problem.property, attempt.method)


GATES: tuple[Gate, ...] = get_args(Gate)
TINY = [
    tiny_network(np.random.default_rng(seed), (2 + seed % 2, 4, 4, 2), (gate, gate))
    for seed, gate in enumerate(GATES * max(1, NETWORKS // 40))
]
NORMS: tuple[Pair, ...] = (("l2", "l2"), ("linf", "linf"), ("l1", "l1"))


def _by_norms(norms: Pair) -> NormPair:
    return NormPair(Norm(norms[0]), Norm(norms[1]))


@pytest.mark.parametrize("norms", NORMS, ids="-".join)
@pytest.mark.parametrize("method", ["product", "lipsdp"])
@pytest.mark.parametrize("tiny", TINY, ids=lambda tiny: tiny.layers[0].gate)
def test_exact_global_constant_is_within_the_bound(
    tiny: TinyNetwork, method: Method, norms: Pair
) -> None:
    certificate = _answer(tiny.built().model, Property(norm=_by_norms(norms)), method)
    (bound,) = _bounds(certificate)
    assert bound is not None
    assert lipschitz_constant(tiny, norms) <= Fraction(bound)


@pytest.mark.parametrize("norms", NORMS, ids="-".join)
@pytest.mark.parametrize("method", ["product", "lipsdp", "propagation"])
@pytest.mark.parametrize("tiny", TINY, ids=lambda tiny: tiny.layers[0].gate)
def test_exact_local_constant_is_within_the_bound(
    tiny: TinyNetwork, method: Method, norms: Pair
) -> None:
    lower, upper = (-0.5,) * tiny.inputs, (0.25,) * tiny.inputs
    asked = Property(scope="local", norm=_by_norms(norms), region=EndsBox(lower=lower, upper=upper))
    certificate = _answer(tiny.built().model, asked, method)
    (bound,) = _bounds(certificate)
    exact = lipschitz_constant(tiny, norms, Box(np.array(lower), np.array(upper)))
    assert bound is not None
    assert exact <= Fraction(bound)


def test_coupled_multiplier_is_false() -> None:
    """LipSDP for this network is above the slope that coupled multipliers deny."""
    certificate = _answer(COUPLED.built().model, Property(), "lipsdp")
    (bound,) = _bounds(certificate)
    assert bound is not None
    assert lipschitz_constant(COUPLED, ("l2", "l2")) <= Fraction(bound)


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
    (bound,) = _bounds(_answer(network.model, Property(), "lipsdp"))
    assert bound is not None
    assert 2 <= bound  # the greatest entry wins four windows


@pytest.mark.parametrize("norms", NORMS, ids="-".join)
def test_linear_network_is_bounded_by_its_norm_alone(norms: Pair) -> None:
    """Without a gate the product is the operator norm: the bound is also nearly met."""
    tiny = TinyNetwork((), np.array([[3.0, -4.0, 0.5], [1.0, 2.0, -0.25]]))
    (bound,) = _bounds(_answer(tiny.built().model, Property(norm=_by_norms(norms)), "product"))
    assert bound is not None
    norm = norm_below(fractions(tiny.last), norms)
    assert norm <= Fraction(bound) <= norm * (1 + Fraction(1, 10**8))
