"""Every pair of norms, every selection, weights and matrices: witness <= exact <= bound.

The exact constants of tiny networks are those of their pieces' Jacobians (`tests.tiny_networks`).
LIPCERT_TESTS=quick asks every pair of every selection once; full asks for all inputs and some,
everywhere and on a box.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from typing import Literal, TypeAlias, get_args

import numpy as np
import pytest

from tests.exact import (
    Exact,
    Pair,
    Size,
    floats,
    fractions,
    norm_below,
    sqrt_above,
    sqrt_below,
    steepest,
)
from tests.exact import size as norm_of
from tests.tiny_gates import GATES as ATTACH
from tests.tiny_networks import Box, Matrix, TinyBuilder, TinyNetwork, pieces
from tests.tiny_topologies import eighths, gemm
from verifier.certificate import Candidate, Certificate
from verifier.methods import lipsdp, product, propagation, witness
from verifier.methods.clock import Clock
from verifier.methods.items import items_of
from verifier.network.graph import Network
from verifier.norms import Metric, Norm, NormPair, Norms, WeightedPair, Weights
from verifier.onnx_import import load
from verifier.property import All, Each, Indices, Margins, Outputs, Property
from verifier.proving import Case, confirmed, prove
from verifier.regions import EndsBox, Everywhere

Asked: TypeAlias = Literal["all", "indices", "each", "margins"]
Weighting: TypeAlias = Literal["none", "weights", "matrix"]

SIZES: tuple[Size, ...] = get_args(Size)
PAIRS: tuple[Pair, ...] = tuple(itertools.product(SIZES, SIZES))
GATES = ("relu", "maxmin", "leaky", "groupsort4")
LOWER, UPPER = (-0.5, -0.5, -0.25), (0.25, 0.5, 0.5)
#: Neither they nor their inverses are short in binary.
WEIGHTS = (0.3, 1.7, 5.1)
ROOT = np.array([[1.5, 0.25, -0.5], [0.125, 2.0, 0.75], [-0.25, 0.5, 0.875]])
SOME_INPUTS = (2, 0)


@dataclass(frozen=True)
class Question:
    """What is asked of a tiny network."""

    gate: str
    norms: Pair
    outputs: Asked
    is_local: bool = False
    some_inputs: bool = False
    weighting: Weighting = "none"

    def __str__(self) -> str:
        flags = [
            *(["box"] if self.is_local else []),
            *(["some-inputs"] if self.some_inputs else []),
            *([] if self.weighting == "none" else [self.weighting]),
        ]
        return "-".join([self.gate, *self.norms, self.outputs, *flags])

    @property
    def asked(self) -> Property:
        """The same as a property."""
        return Property(
            scope="local" if self.is_local else "global",
            region=EndsBox(lower=LOWER, upper=UPPER) if self.is_local else Everywhere(),
            norm=self._norms,
            inputs=Indices(SOME_INPUTS) if self.some_inputs else All(),
            outputs=_OUTPUTS[self.outputs],
        )

    @property
    def _norms(self) -> Norms:
        plain = NormPair(Norm(self.norms[0]), Norm(self.norms[1]))
        match self.weighting:
            case "none":
                return plain
            case "weights":
                return WeightedPair(plain, Weights(WEIGHTS))
            case "matrix":
                return WeightedPair(plain, Metric(_metric()))


_OUTPUTS: dict[Asked, Outputs] = {
    "all": All(),
    "indices": Indices((2, 0)),
    "each": Each(),
    "margins": Margins(None),
}


def _metric() -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in (ROOT.T @ ROOT).tolist())


def _chain(gate: str, weights: tuple[float, ...] = (1.0, 1.0, 1.0)) -> TinyNetwork:
    """3-4-4-3; of x/w where there are weights."""
    rng = np.random.default_rng(17)
    builder = TinyBuilder(rng, (1, 3))
    gemm(builder, eighths(rng, 4, 3) / np.array(weights), eighths(rng, 4))
    ATTACH[gate](builder)
    gemm(builder, eighths(rng, 4, 4), eighths(rng, 4))
    ATTACH[gate](builder)
    gemm(builder, eighths(rng, 3, 4), np.zeros(3))
    return builder.tiny()


def _linear(matrix: Matrix) -> bytes:
    builder = TinyBuilder(np.random.default_rng(0), (1, matrix.shape[1]))
    gemm(builder, matrix, np.zeros(len(matrix)))
    return builder.tiny().network.model


@cache
def _tiny(gate: str) -> TinyNetwork:
    return _chain(gate)


@cache
def _model(gate: str) -> tuple[bytes, Network]:
    model = _tiny(gate).network.model
    return model, load(model).require_network()


@cache
def _jacobians(gate: str, is_local: bool) -> tuple[Exact, ...]:
    box = Box(np.array(LOWER), np.array(UPPER)) if is_local else None
    return tuple(pieces(_tiny(gate), box))


def _rows(outputs: Asked) -> list[Exact]:
    unit = fractions(np.eye(3))
    match outputs:
        case "all":
            return [unit]
        case "indices":
            return [unit[[2, 0]]]
        case "each":
            return [unit[[i]] for i in range(3)]
        case "margins":
            return [unit[[i]] - unit[[j]] for i, j in itertools.combinations(range(3), 2)]


def exact_constants(question: Question) -> list[Fraction]:
    """Numbers that the constants of the items are not below, and nearly they."""
    inputs = list(SOME_INPUTS if question.some_inputs else range(3))
    jacobians = _jacobians(question.gate, question.is_local)
    return [
        max(_norm_below(rows @ jacobian[:, inputs], inputs, question) for jacobian in jacobians)
        for rows in _rows(question.outputs)
    ]


def _norm_below(matrix: Exact, inputs: list[int], question: Question) -> Fraction:
    match question.weighting:
        case "none":
            return norm_below(matrix, question.norms)
        case "weights":
            inverse = np.array([1 / Fraction(WEIGHTS[k]) for k in inputs], dtype=object)
            return norm_below(matrix * inverse, question.norms)
        case "matrix":
            return _norm_below_by_metric(matrix, inputs, question.norms)


def _norm_below_by_metric(matrix: Exact, inputs: list[int], norms: Pair) -> Fraction:
    """|J d|_q / sqrt(d'Pd) for the steepest d, to rounding."""
    metric = np.array(_metric())[np.ix_(inputs, inputs)]
    root = np.linalg.cholesky(metric).T
    inner = floats(matrix) @ np.linalg.inv(root)
    if not inner.any():
        return Fraction(0)
    direction = fractions(np.linalg.solve(root, steepest(inner, norms)))
    run = direction @ fractions(metric) @ direction
    return norm_of(matrix @ direction, norms[1], sqrt_below) / sqrt_above(run)


def certified(question: Question, method: str) -> Certificate:
    """What the checker accepts of a method's candidate."""
    network = _model(question.gate)[1]
    asked, clock = question.asked, Clock.start(60.0)
    candidate: Candidate
    match method:
        case "product":
            candidate = product.candidate(network, asked)
        case "lipsdp":
            candidate = lipsdp.candidate(network, asked, lipsdp.Options(), clock)
        case _:
            options = propagation.Options(steps=2)
            candidate = propagation.candidate(network, asked, options, clock)
    outcome = prove(_case(question), candidate, None, ())
    assert isinstance(outcome, Certificate), outcome
    return outcome


def _case(question: Question) -> Case:
    model, network = _model(question.gate)
    return Case(
        model=model,
        model_id=load(model).sha256,
        asked=question.asked,
        items=items_of(question.asked, network.output_size),
        patterns=network.patterns,
        target=None,
        producer={},
    )


def bounds(certificate: Certificate) -> list[Fraction]:
    """One number for each item."""
    claim = certificate.claim
    listed = [claim.bound] if claim.bounds is None else [item.bound for item in claim.bounds]
    return [Fraction(bound) for bound in listed if bound is not None]


def _questions() -> list[Question]:
    combinations = list(itertools.product(PAIRS, get_args(Asked)))
    if os.environ.get("LIPCERT_TESTS", "quick") == "quick":
        return [
            Question(
                GATES[k % 3 % 2],
                norms,
                outputs,
                is_local=k % 2 == 1,
                some_inputs=(k // 2) % 2 == 1,
                weighting="weights" if (k // 5) % 2 == 1 else "none",
            )
            for k, (norms, outputs) in enumerate(combinations)
        ]
    return [
        Question(gate, norms, outputs, is_local, some_inputs, weighting)
        for (norms, outputs), gate, is_local, some_inputs, weighting in itertools.product(
            combinations, GATES, (False, True), (False, True), ("none", "weights")
        )
    ]


METRICS = [
    Question(gate, ("l2", output), outputs, is_local, some_inputs, "matrix")
    for k, (gate, output, outputs) in enumerate(
        itertools.product(("maxmin", "relu"), SIZES, ("all",))
    )
    for is_local, some_inputs in [(k % 2 == 0, k % 3 == 0)]
]


@pytest.mark.parametrize("question", [*_questions(), *METRICS], ids=str)
def test_exact_constants_are_within_every_bound(question: Question) -> None:
    exact = exact_constants(question)
    methods = ["lipsdp", "propagation" if question.is_local else "product"]
    for method in methods:
        found = bounds(certified(question, method))
        assert len(found) == len(exact)
        assert all(least <= bound for least, bound in zip(exact, found, strict=True)), method


@pytest.mark.parametrize("question", [*_questions()[::8], *METRICS[::4]], ids=str)
def test_witness_is_within_the_bound(question: Question) -> None:
    network = _model(question.gate)[1]
    found = witness.search(network, question.asked, Clock.start(0.1), 0)
    assert found is not None
    proved = confirmed(_case(question), found)
    assert proved is not None
    place = proved.item or 0
    assert Fraction(proved.value) <= bounds(certified(question, "lipsdp"))[place]


@pytest.mark.parametrize(
    ("norms", "method"),
    list(zip(PAIRS, itertools.cycle(["lipsdp", "propagation", "product", "lipsdp"]), strict=False)),
)
def test_weights_are_a_rescaled_network(norms: Pair, method: str) -> None:
    """|w o x| of f is |x| of f(x/w): powers of two scale without rounding."""
    weights = (0.5, 2.0, 4.0)
    is_local = method == "propagation"
    question = Question("relu", norms, "all", is_local)
    weighted = replace(
        question.asked,
        norm=WeightedPair(NormPair(Norm(norms[0]), Norm(norms[1])), Weights(weights)),
    )
    rescaled = load(_chain("relu", weights).network.model)
    plain = question.asked
    if is_local:
        ends = [tuple((np.array(end) * weights).tolist()) for end in (LOWER, UPPER)]
        plain = replace(plain, region=EndsBox(lower=ends[0], upper=ends[1]))
    one = _estimate(_model("relu")[1], weighted, method)
    other = _estimate(rescaled.require_network(), plain, method)
    assert one == pytest.approx(other, rel=1e-6)


def _estimate(network: Network, asked: Property, method: str) -> float:
    clock = Clock.start(60.0)
    match method:
        case "product":
            candidate = product.candidate(network, asked)
        case "lipsdp":
            candidate = lipsdp.candidate(network, asked, lipsdp.Options(), clock)
        case _:
            options = propagation.Options(steps=0)
            candidate = propagation.candidate(network, asked, options, clock)
    return candidate.estimates[0]


@pytest.mark.parametrize("weighting", ["weights", "matrix"])
def test_witness_of_a_linear_network_reaches_its_weighted_norm(weighting: Weighting) -> None:
    matrix = np.array([[3.0, -4.0, 0.5], [1.0, 2.0, -0.25]])
    model = _linear(matrix)
    network = load(model).require_network()
    question = Question("relu", ("l2", "l1"), "all", weighting=weighting)
    truth = _norm_below(fractions(matrix), [0, 1, 2], question)
    found = witness.search(network, question.asked, Clock.start(0.1), 0)
    assert found is not None
    proved = confirmed(replace(_case(question), model=model), found)
    assert proved is not None
    assert float(truth) * (1 - 1e-9) <= proved.value
    assert Fraction(proved.value) <= truth * (1 + Fraction(1, 10**12))


@pytest.mark.parametrize("gate", GATES[1:2])
@pytest.mark.parametrize("norms", PAIRS, ids="-".join)
def test_no_pair_is_above_what_l2_gives(norms: Pair, gate: str) -> None:
    """LipSDP of a pair is at most its l2 bound times the factors of the norms, and tighter."""
    asked = Question(gate, norms, "all").asked
    network = _model(gate)[1]
    l2 = _estimate(network, replace(asked, norm=NormPair(Norm.L2, Norm.L2)), "lipsdp")
    factor = {"l1": 1.0, "l2": 1.0, "linf": 3**0.5}[norms[0]]
    factor *= {"l1": 3**0.5, "l2": 1.0, "linf": 1.0}[norms[1]]
    assert _estimate(network, asked, "lipsdp") <= l2 * factor * (1 + 1e-6)
