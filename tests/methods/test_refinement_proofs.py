"""Refined proofs: accepted, never below the constant, and rejected when they are changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import cache

import numpy as np
import pytest

from tests.exact import floats, fractions, growth_below
from tests.random_networks import RandomNetwork, random_network
from tests.tiny_networks import lipschitz_constant
from tests.tiny_topologies import chain
from verifier.certificate import Candidate, Certificate, LmiItem, LmiProof, LmiRow, PairCuts
from verifier.checker import check
from verifier.errors import LipcertError
from verifier.methods import lipsdp
from verifier.methods.clock import Clock
from verifier.methods.items import items_of
from verifier.methods.refinement import candidates
from verifier.network.graph import Network
from verifier.onnx_import import load
from verifier.property import Property
from verifier.proving import Case, certify, prove

CLOCK = 60.0
L2 = ("l2", "l2")


def case_of(model: bytes, network: Network) -> Case:
    return Case(
        model=model,
        model_id="sha256:" + hashlib.sha256(model).hexdigest(),
        asked=Property(),
        items=items_of(Property(), network.output_size),
        patterns=network.patterns,
        target=None,
        producer={},
    )


def network_of(model: bytes) -> Network:
    network = load(model).network
    assert network is not None
    return network


def refined(network: Network, limit: int) -> tuple[Candidate, list[Candidate]]:
    clock, options = Clock.start(CLOCK), lipsdp.Options()
    base = lipsdp.candidate(network, Property(), options, clock)
    return base, list(candidates(network, Property(), options, clock, base=base, limit=limit))


def bounds(model: bytes, limit: int = 3) -> list[float]:
    """What is proved of the base and of every refinement."""
    network = network_of(model)
    base, found = refined(network, limit)
    proved = [prove(case_of(model, network), each, None, []) for each in (base, *found)]
    return [
        p.claim.bound for p in proved if isinstance(p, Certificate) and p.claim.bound is not None
    ]


GATES: list[tuple[str, ...]] = [
    ("relu", "relu"),
    ("abs", "leaky"),
    ("maxmin", "maxmin"),
    ("relu", "maxmin", "abs"),
]


@pytest.mark.parametrize("gates", GATES, ids="-".join)
@pytest.mark.parametrize("seed", range(3))
def test_no_refined_bound_is_below_the_constant(gates: tuple[str, ...], seed: int) -> None:
    sizes = (2, *(4 for _ in gates), 2)
    tiny = chain(seed, sizes, gates)
    constant = lipschitz_constant(tiny, L2)
    found = bounds(tiny.built().model)
    assert found
    assert constant <= Fraction(min(found))


def proved_of_random(seed: int) -> tuple[RandomNetwork, list[float]]:
    drawn = random_network(np.random.default_rng([seed, 7]), blocks=6)
    try:
        return drawn, bounds(drawn.model, 2)
    except LipcertError:
        # No global bound, or one that the checker does not read: other tests are about that.
        return drawn, []


@pytest.mark.parametrize("seed", range(10))
def test_no_secant_exceeds_a_refined_bound(seed: int) -> None:
    drawn, found = proved_of_random(seed)
    rng = np.random.default_rng(seed)
    for bound in found[-1:]:
        for _ in range(5):
            x = fractions(rng.integers(-32, 33, drawn.shape) / 16)
            dx = fractions(rng.integers(-8, 9, drawn.shape) / 64)
            if np.any(floats(dx)):
                rise = (drawn(x + dx) - drawn(x)).ravel()
                assert growth_below(rise, dx.ravel(), L2) <= Fraction(bound)


@cache
def cut_case() -> tuple[Case, Candidate]:
    tiny = chain(0, (3, 4, 4, 4, 2), ("relu", "maxmin", "relu"))
    model = tiny.built().model
    network = network_of(model)
    base, found = refined(network, 4)
    assert found[-1].estimates[0] < base.estimates[0] * (1 - 1e-3)
    return case_of(model, network), found[-1]


def row_of(candidate: Candidate) -> LmiRow:
    assert isinstance(candidate.proof, LmiProof)
    return candidate.proof.items[0].rows[0]


def is_accepted(case: Case, candidate: Candidate, row: LmiRow) -> bool:
    """Whether the same claim is accepted with another row."""
    assert isinstance(candidate.proof, LmiProof)
    proof = replace(candidate.proof, items=(LmiItem(rows=(row,)),))
    claims = [candidate.estimates[0] * (1 + 1e-9)]
    return check(certify(case, proof, claims, None, None, []), case.model).valid


def test_the_refined_proof_is_accepted_as_it_is() -> None:
    case, candidate = cut_case()
    assert is_accepted(case, candidate, row_of(candidate))


def _weights(cuts: PairCuts, change: Callable[[np.ndarray], np.ndarray]) -> PairCuts:
    return replace(cuts, weights=change(cuts.weights.copy()))


def _spoiled(weights: np.ndarray, value: float) -> np.ndarray:
    weights[0] = value
    return weights


CHANGES: dict[str, Callable[[PairCuts], PairCuts]] = {
    "nodes swapped": lambda c: replace(c, first=c.second, second=c.first),
    "gates swapped": lambda c: replace(
        c, first_entries=c.second_entries, second_entries=c.first_entries
    ),
    "gates shifted": lambda c: replace(c, first_entries=(*c.first_entries[1:], c.first_entries[0])),
    "a gate too many": lambda c: replace(c, first_entries=(*c.first_entries, 0)),
    "a gate that is not": lambda c: replace(c, first_entries=(99, *c.first_entries[1:])),
    "another node": lambda c: replace(c, first="nothing"),
    "the output": lambda c: replace(c, second=""),
    "ten times the weights": lambda c: _weights(c, lambda w: w * 10),
    "signs turned": lambda c: _weights(c, lambda w: w * np.tile([1.0, 1, -1, -1], len(w) // 4)),
    "weights turned round": lambda c: _weights(c, lambda w: w[::-1].copy()),
    "a weight missing": lambda c: _weights(c, lambda w: w[:-1]),
    "nan": lambda c: _weights(c, lambda w: _spoiled(w, np.nan)),
    "infinity": lambda c: _weights(c, lambda w: _spoiled(w, np.inf)),
    "1e200": lambda c: _weights(c, lambda w: _spoiled(w, 1e200)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_no_changed_cut_is_accepted(change: str) -> None:
    """Each claim stands on its cuts: others that hold too do not prove it."""
    case, candidate = cut_case()
    row = row_of(candidate)
    largest = max(row.cuts, key=lambda cuts: float(np.abs(cuts.weights).max()))
    changed = tuple(CHANGES[change](cuts) if cuts is largest else cuts for cuts in row.cuts)
    assert not is_accepted(case, candidate, replace(row, cuts=changed))


def test_neither_fewer_cuts_nor_a_lower_level_are_accepted() -> None:
    case, candidate = cut_case()
    row = row_of(candidate)
    assert not is_accepted(case, candidate, replace(row, cuts=()))
    assert not is_accepted(case, candidate, replace(row, level=row.level * 0.99))
    negative = {name: -values for name, values in row.multipliers.items()}
    assert not is_accepted(case, candidate, replace(row, multipliers=negative))


def test_a_claim_below_the_level_is_rejected() -> None:
    case, candidate = cut_case()
    lower = certify(case, candidate.proof, [candidate.estimates[0] * 0.999], None, None, [])
    assert check(lower, case.model).code == "bound-not-proved"
