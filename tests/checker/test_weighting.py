"""Weighted norms: T is never too small, lengths are exact, and forged weights are caught."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from tests.checker.oracles import dense_network, exact, is_psd, product, transposed
from verifier.certificate import Certificate, Claim, ProductItem, ProductProof, Witness, log10_upper
from verifier.checker.definite import NotProved
from verifier.checker.maps import Dense, Diagonal
from verifier.checker.network import Affine, Network
from verifier.checker.verdict import judge
from verifier.checker.weighting import FRONT, squared_length, unweighted
from verifier.errors import InvalidRequest
from verifier.norms import Metric, Norm, NormPair, WeightedPair, Weighting, Weights
from verifier.property import Property
from verifier.request_json import parse_property

L2 = NormPair(Norm.L2, Norm.L2)
EVERY = np.arange(3)


def toy() -> Network:
    rng = np.random.default_rng(3)
    return dense_network([rng.integers(-8, 9, (4, 3)) / 8, rng.integers(-8, 9, (2, 4)) / 8])


def front(weighting: Weighting, inputs: np.ndarray = EVERY) -> Affine:
    found = unweighted(toy(), WeightedPair(L2, weighting), inputs)
    assert found.pair == L2
    node = found.network.nodes[0]
    assert isinstance(node, Affine)
    assert node.name == FRONT
    return node


def metric(rng: np.random.Generator, condition: float = 1e3) -> Metric:
    basis = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    matrix = basis * np.geomspace(1, condition, 3) @ basis.T
    matrix = (matrix + matrix.T) / 2
    return Metric(tuple(tuple(row) for row in matrix.tolist()))


def test_weights_never_make_an_increment_longer_than_it_is() -> None:
    """|z_k| <= w_k |T_k z_k|, exactly."""
    weights = tuple((10.0 ** np.random.default_rng(5).uniform(-30, 30, 3)).tolist())
    linear = front(Weights(weights)).terms[0].map
    assert isinstance(linear, Diagonal)
    assert linear.error is None
    scale = linear.scale.tolist()
    assert all(1 <= Fraction(w) * Fraction(t) for w, t in zip(weights, scale, strict=True))
    assert all(w * t <= 1 + 1e-15 for w, t in zip(weights, scale, strict=True))


@pytest.mark.parametrize("condition", [1.0, 1e3, 1e8, 1e12])
@pytest.mark.parametrize("seed", range(5))
def test_matrix_never_makes_an_increment_longer_than_it_is(seed: int, condition: float) -> None:
    """I <= s^2 T'P T, in rationals, and s is near 1."""
    given = metric(np.random.default_rng(seed), condition)
    found = unweighted(toy(), WeightedPair(L2, given), EVERY)
    linear = front(given).terms[0].map
    assert isinstance(linear, Dense)
    assert linear.error is None
    root = exact(linear.weight)
    gram = product(product(transposed(root), exact(np.array(given.rows))), root)
    stretch = Fraction(found.stretch.upper())
    gram = [[stretch**2 * entry for entry in row] for row in gram]
    for k in range(3):
        gram[k][k] -= 1
    assert is_psd(gram)
    assert stretch - 1 <= 1e-14 * condition + 1e-13


@pytest.mark.parametrize("seed", range(5))
def test_matrices_that_requests_may_have_are_accepted(seed: int) -> None:
    """What `norm_json` reads as definite is far enough from singular for the checker."""
    rng = np.random.default_rng(seed)
    for power in np.linspace(0, 15, 31):
        given = metric(rng, 10.0**power)
        norm = {"input": {"type": "l2", "matrix": given.rows}, "output": "l2"}
        try:
            parse_property({"norm": norm})
        except InvalidRequest:
            assert 1e9 < 10.0**power
            continue
        assert front(given)


def test_inputs_that_are_held_do_not_count() -> None:
    """Only P's block of the inputs that vary is a norm of increments."""
    rows = ((4.0, 100.0, 0.0), (100.0, 1.0, 0.0), (0.0, 0.0, 1.0))  # indefinite as a whole
    linear = front(Metric(rows), np.array([0, 2])).terms[0].map
    assert isinstance(linear, Dense)
    assert linear.weight[0, 0] == pytest.approx(0.5)


@pytest.mark.parametrize(
    "weighting",
    [
        Weights((1.0, 2.0)),
        Weights((1.0, 2.0, 0.0)),
        Weights((1.0, 2.0, -1.0)),
        Weights((1.0, 2.0, float("nan"))),
        Weights((1.0, 2.0, float("inf"))),
        Weights((1.0, 2.0, 1e-300)),
        Metric(((1.0, 0.0), (0.0, 1.0))),
        Metric(((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))),
        Metric(((1.0, 0.5, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))),
        Metric(((1.0, 2.0, 0.0), (2.0, 1.0, 0.0), (0.0, 0.0, 1.0))),
        Metric(((1.0, 0.0, 0.0), (0.0, float("nan"), 0.0), (0.0, 0.0, 1.0))),
        Metric(((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 0.0))),
    ],
)
def test_what_is_no_norm_of_the_inputs_is_refused(weighting: Weighting) -> None:
    with pytest.raises((InvalidRequest, NotProved)):
        front(weighting)


def test_lengths_are_exact() -> None:
    steps = [Fraction(1, 3), Fraction(-2, 7), Fraction(0)]
    weights = (0.1, 3.0, 5.0)
    weighted = [Fraction(w) * s for w, s in zip(weights, steps, strict=True)]
    by_norm = {
        Norm.L1: sum(map(abs, weighted)) ** 2,
        Norm.L2: sum(w * w for w in weighted),
        Norm.LINF: max(map(abs, weighted)) ** 2,
    }
    for norm, truth in by_norm.items():
        pair = WeightedPair(NormPair(norm, Norm.L2), Weights(weights))
        assert squared_length(steps, pair) == truth
    given = metric(np.random.default_rng(7))
    truth = sum(
        steps[i] * Fraction(given.rows[i][j]) * steps[j] for i in range(3) for j in range(3)
    )
    assert squared_length(steps, WeightedPair(L2, given)) == truth


def certificate(weighting: Weighting, bound: float, witness: Witness | None = None) -> Certificate:
    proof = ProductProof(patterns=(), items=(ProductItem(internal=Norm.L2),))
    claim = Claim(
        model="sha256:" + "0" * 64,
        property=Property(norm=WeightedPair(L2, weighting)),
        bound=bound,
        log10_bound=log10_upper(bound),
    )
    return Certificate(claim=claim, proof=proof, lower_bound=witness)


@pytest.mark.parametrize("weighting", [Weights((0.5, 3.0, 0.7)), metric(np.random.default_rng(8))])
def test_lighter_weights_need_a_greater_bound(weighting: Weighting) -> None:
    """The claim is about its own weights: halved ones double the constant."""
    proved = judge(certificate(weighting, 1e-3), toy()).proved
    assert proved is not None
    bound = proved[0] * (1 + 1e-12)
    assert judge(certificate(weighting, bound), toy()).valid
    match weighting:
        case Weights(values):
            lighter: Weighting = Weights(tuple(w / 2 for w in values))
        case Metric(rows):
            lighter = Metric(tuple(tuple(p / 4 for p in row) for row in rows))
    verdict = judge(certificate(lighter, bound), toy())
    assert verdict.code == "bound-not-proved"
    assert judge(certificate(lighter, 2 * bound), toy()).valid


def test_witness_is_measured_in_the_claims_norm() -> None:
    """A step of one input reaches |W e_k| / w_k: a weight of 1/4 makes it four times as steep."""
    network = dense_network([np.array([[1.0, 2.0, -1.0]])])
    witness = Witness(value=7.999999, x=(0.0, 1.0, 0.0), y=(0.0, 0.0, 0.0))
    weights = Weights((1.0, 0.25, 1.0))
    assert judge(certificate(weights, 8.5, witness), network).valid
    heavier = certificate(Weights((1.0, 0.5, 1.0)), 8.5, witness)
    assert judge(heavier, network).code == "witness-refuted"
    matrix = Metric(((1.0, 0.0, 0.0), (0.0, 0.0625, 0.0), (0.0, 0.0, 1.0)))
    assert judge(certificate(matrix, 8.5, witness), network).valid
    above = replace(witness, value=8.000001)
    assert judge(certificate(matrix, 8.5, above), network).code == "witness-refuted"
