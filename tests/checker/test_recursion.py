"""Block recursion: never below the truth, what the scales stand for, and no bad scales."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from tests.checker.groups import FAMILIES
from tests.checker.oracles import affine, dense_network, evaluate, network, rationals
from tests.checker.recursions import Reference, reference
from tests.exact import Pair
from tests.tiny_networks import lipschitz_constant
from tests.tiny_topologies import chain
from verifier.certificate import Certificate, Claim, RecursionProof, decimal_upper, log10_upper
from verifier.checker.definite import NotProved
from verifier.checker.graph import read_network
from verifier.checker.items import selection
from verifier.checker.maps import Dense, identity
from verifier.checker.network import Elementwise, Network, Term
from verifier.checker.recursion import prove_recursion
from verifier.checker.scalars import relu
from verifier.checker.verdict import judge
from verifier.norms import Norm, NormPair
from verifier.property import Each, Indices, Margins, Property

L2 = NormPair(Norm.L2, Norm.L2)
LINF = NormPair(Norm.LINF, Norm.LINF)


def attempt(
    whole: Network,
    scales: dict[str, np.ndarray],
    asked: Property | None = None,
    inputs: np.ndarray | None = None,
) -> list[float]:
    """The bounds that the scales prove."""
    wanted = asked or Property(norm=L2)
    assert isinstance(wanted.norm, NormPair)
    assert isinstance(wanted.norm, NormPair)
    chosen = selection(wanted, whole.input_size, whole.output_size)
    proof = RecursionProof(patterns=(), inputs=inputs, scales=scales)
    return [m.upper() for m in prove_recursion(proof, whole, wanted.norm, chosen)]


@pytest.mark.parametrize("family", FAMILIES)
def test_bound_is_what_the_scales_stand_for_and_never_below_a_quotient(family: str) -> None:
    rng = np.random.default_rng(4)
    for _ in range(3):
        whole = FAMILIES[family](rng)
        found = reference(whole, rng=rng)
        (bound,) = attempt(whole, found.scales)
        assert found.bound * (1 - 1e-12) <= bound <= found.bound * (1 + 1e-9)
        for _ in range(40):
            x, y = rationals(rng, 3), rationals(rng, 3)
            rise = zip(evaluate(whole, x)["y"], evaluate(whole, y)["y"], strict=True)
            run = sum(((a - b) ** 2 for a, b in zip(x, y, strict=True)), Fraction(0))
            assert sum(((a - b) ** 2 for a, b in rise), Fraction(0)) <= Fraction(bound) ** 2 * run


@pytest.mark.parametrize("gates", [("relu", "relu"), ("leaky", "abs"), ("maxmin", "relu")])
@pytest.mark.parametrize("norms", [("l2", "l2"), ("linf", "linf"), ("l1", "l2"), ("linf", "l1")])
def test_bound_is_not_below_the_exact_constant(gates: tuple[str, str], norms: Pair) -> None:
    seed = len(norms[0]) + len(gates[0])
    rng, tiny = np.random.default_rng(seed), chain(seed, (2, 4, 4, 2), gates)
    whole = read_network(tiny.network.model)
    asked = Property(norm=NormPair(Norm(norms[0]), Norm(norms[1])))
    exact = lipschitz_constant(tiny, norms)
    for share in (1.01, 2.0, 10.0):
        (bound,) = attempt(whole, reference(whole, share, rng).scales, asked)
        assert exact <= Fraction(bound)


def test_linf_inputs_take_their_own_covariance() -> None:
    rng = np.random.default_rng(1)
    weights = [rng.standard_normal((6, 4)) * [8.0, 1.0, 1.0, 0.1], rng.standard_normal((3, 6))]
    whole = dense_network(weights)
    inputs = np.array([0.5, 1.5, 2.0, 4.0])
    found = reference(whole, inputs=inputs)
    (bound,) = attempt(whole, found.scales, Property(norm=LINF), inputs)
    wanted = np.sqrt(np.sum(1 / inputs) * np.diag(found.covariance).max())
    assert wanted * (1 - 1e-12) <= bound <= wanted * (1 + 1e-9)
    for sign in np.ndindex(2, 2, 2, 2):
        x = 1e3 * (1.0 - 2 * np.array(sign))
        rise = weights[1] @ np.maximum(weights[0] @ x, 0)
        assert np.abs(rise).max() / 1e3 <= bound
    for bad in (inputs[:3], -inputs, inputs * np.nan, inputs * 0):
        with pytest.raises(NotProved):
            attempt(whole, found.scales, Property(norm=LINF), bad)
    with pytest.raises(NotProved, match="linf"):
        attempt(whole, found.scales, Property(norm=L2), inputs)


def test_every_item_reads_one_covariance() -> None:
    whole = dense_network([np.eye(3), np.array([[3.0, 0, 0], [0, 4.0, 0], [3.0, 0, 4.0]])])
    found = reference(whole)
    rows = found.covariance
    each = attempt(whole, found.scales, Property(outputs=Each(), norm=L2))
    assert each == pytest.approx(np.sqrt(np.diag(rows)))
    pairs = attempt(whole, found.scales, Property(outputs=Margins(None), norm=L2))
    expected = [rows[i, i] + rows[j, j] - 2 * rows[i, j] for i, j in ((0, 1), (0, 2), (1, 2))]
    assert pairs == pytest.approx(np.sqrt(expected))
    (one,) = attempt(whole, found.scales, Property(outputs=Indices((2,)), norm=L2))
    assert one == each[2]
    (sums,) = attempt(whole, found.scales, Property(norm=NormPair(Norm.L2, Norm.L1)))
    assert sums == pytest.approx(min(sum(each), np.sqrt(3) * found.bound))


def test_only_selected_inputs_vary() -> None:
    whole = dense_network([np.array([[1.0, 100.0]])])
    (bound,) = attempt(whole, {}, Property(inputs=Indices((0,)), norm=L2))
    assert 1.0 <= bound <= 1 + 1e-9
    assert attempt(whole, {})[0] >= 100


def test_linear_gates_need_no_scale_and_dead_ones_any() -> None:
    """A dead neuron's scale does not enter the bound."""
    weights = [np.array([[1.0, 2.0], [0.0, 0.0], [1.0, -1.0]]), np.array([[1.0, 5.0, 1.0]])]
    whole = dense_network(weights)
    found = reference(whole)
    for dead in (1e-9, 1e-3, 1.0):
        scales = {"h0": found.scales["h0"].copy()}
        scales["h0"][1] = dead * 1e-6
        assert attempt(whole, scales)[0] <= found.bound * (1 + 1e-5)


def deep_chain(depth: int, gain: float) -> tuple[Network, Reference]:
    rng = np.random.default_rng(3)
    whole = dense_network([gain * rng.standard_normal((5, 5)) for _ in range(depth)])
    return whole, reference(whole)


@pytest.mark.parametrize("gain", [1e-12, 1.0, 1e12])
def test_gains_of_any_size(gain: float) -> None:
    whole, found = deep_chain(6, gain)
    (bound,) = attempt(whole, found.scales)
    assert found.bound * (1 - 1e-9) <= bound <= found.bound * (1 + 1e-8)


def test_a_gate_that_reads_the_input_and_a_signal_read_twice() -> None:
    rng = np.random.default_rng(6)
    wide = rng.standard_normal((3, 3))
    whole = network(
        [
            Elementwise(name="h", size=3, source="", function=relu()),
            affine("a", 3, Term("h", Dense(wide)), Term("", identity(3))),
            Elementwise(name="k", size=3, source="a", function=relu()),
            affine("y", 3, Term("k", identity(3)), Term("a", Dense(wide)), Term("", Dense(wide))),
        ],
        3,
    )
    found = reference(whole, rng=rng)
    (bound,) = attempt(whole, found.scales)
    assert found.bound * (1 - 1e-12) <= bound <= found.bound * (1 + 1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_scales_that_are_too_small_are_rejected(family: str) -> None:
    whole = FAMILIES[family](np.random.default_rng(4))
    name = next(iter(reference(whole).scales))
    for share in (1 - 1e-9, 0.9, 0.1, 1e-6):
        scales = dict(reference(whole, 1.5).scales)
        scales[name] = reference(whole, 1.0 + 1e-15).scales[name] * share
        with pytest.raises(NotProved, match="scales are too small"):
            attempt(whole, scales)


@pytest.mark.parametrize("bad", [-1.0, -1e-300, np.nan, np.inf, -np.inf, 1e308, 1e-308, 0.0])
def test_scales_out_of_range_are_rejected(bad: float) -> None:
    whole = FAMILIES["residual"](np.random.default_rng(4))
    scales = dict(reference(whole).scales)
    scales["h"] = np.array([bad, *scales["h"][1:]])
    with pytest.raises(NotProved):
        attempt(whole, scales)


@pytest.mark.parametrize("change", ["missing", "unknown", "short", "long"])
@pytest.mark.parametrize("family", ["residual", "sorts"])
def test_scales_of_the_wrong_gates_are_rejected(family: str, change: str) -> None:
    whole = FAMILIES[family](np.random.default_rng(4))
    scales = dict(reference(whole).scales)
    name = next(iter(scales))
    match change:
        case "missing":
            del scales[name]
        case "unknown":
            scales["other"] = np.ones(4)
        case "short":
            scales[name] = scales[name][1:]
        case _:
            scales[name] = np.append(scales[name], 1.0)
    with pytest.raises(NotProved):
        attempt(whole, scales)


def test_a_certificate_is_judged_by_what_its_scales_prove() -> None:
    whole = FAMILIES["residual"](np.random.default_rng(4))
    found = reference(whole)
    bound = decimal_upper(attempt(whole, found.scales)[0])
    asked = Property(norm=L2)
    claim = Claim(
        model="sha256:" + "0" * 64, property=asked, bound=bound, log10_bound=log10_upper(bound)
    )
    proof = RecursionProof(patterns=(), inputs=None, scales=found.scales)
    assert judge(Certificate(claim=claim, proof=proof), whole).valid
    lower = replace(claim, bound=bound * 0.999, log10_bound=log10_upper(bound * 0.999))
    verdict = judge(Certificate(claim=lower, proof=proof), whole)
    assert verdict.code == "bound-not-proved"
    assert verdict.proved is not None
    assert verdict.proved[0] <= bound
