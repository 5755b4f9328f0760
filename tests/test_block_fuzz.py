"""Networks with softmax and normalisation in every place: no bound below a secant, tolerance zero.

As `test_soundness_fuzz`, with what only these nodes bring: bounds at a point are the norm of the
Jacobian there, a smaller region has no larger a bound, and methods that need gates say so.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import cache
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pytest

from tests.attempts import BRANCH, LIPSDP, PRODUCT, PROPAGATION, attempt, bounds
from tests.blocks import BLOCKS, PLACES, network_with
from tests.exact import Exact, Pair, floats, fractions, growth_below, norms_about, steepest
from tests.random_networks import RandomNetwork
from verifier.certificate import Certificate, SplitProof, log10_upper
from verifier.certificate_json import certificate_text
from verifier.checker import check
from verifier.errors import CapabilityBlocked
from verifier.norms import Norm, NormPair
from verifier.property import Each, Property
from verifier.regions import CenterBox, Everywhere
from verifier.verify import inspect

STEP = Fraction(1, 2**60)  #: of difference quotients
PAIRS: tuple[Pair, ...] = (("l2", "l2"), ("linf", "linf"), ("l1", "l1"), ("linf", "l2"))
INTERVALS = attempt("propagation", technique="interval")
Place = Literal["everywhere", "box", "point"]
RADII: dict[Place, float] = {"box": 0.25, "point": 2.0**-40}

CASES = [
    (block, place, number)
    for number, (block, place) in enumerate((b, p) for b in sorted(BLOCKS) for p in PLACES)
    if number % 2 == number // len(PLACES) % 2 and (place != "image" or block == "softmax")
]  #: every block in some places, every place with some blocks


@cache
def _network(block: str, place: str) -> tuple[RandomNetwork, np.ndarray]:
    """The network, and the center of its regions."""
    network = network_with(block, place, 0)
    center = np.random.default_rng(len(block)).integers(-16, 17, network.size) / 8
    return network, center + 0.0625


def _asked(norms: Pair, center: np.ndarray, where: Place, share: float = 1.0) -> Property:
    region = Everywhere()
    if where != "everywhere":
        region = CenterBox(center=tuple(center.tolist()), radius=RADII[where] * share)
    return Property(
        scope="global" if where == "everywhere" else "local",
        norm=NormPair(Norm(norms[0]), Norm(norms[1])),
        region=region,
    )


def _jacobian(network: RandomNetwork, x: Exact) -> Exact:
    """Difference quotients in every coordinate."""
    start = network(x)
    basis = fractions(np.eye(network.size)) * STEP
    return np.stack([(network(x + column) - start) / STEP for column in basis], axis=1)


def _secant(network: RandomNetwork, x: Exact, norms: Pair) -> Fraction:
    """A quotient along the steepest direction at x."""
    direction = fractions(steepest(floats(_jacobian(network, x)), norms))
    if not any(direction):
        return Fraction(0)
    run = direction / max(abs(direction)) * STEP
    return growth_below(network(x + run) - network(x), run, norms)


def _points(center: np.ndarray, where: Place) -> list[Exact]:
    rng = np.random.default_rng(5)
    if where == "everywhere":
        return [fractions(rng.normal(size=center.size) * d) for d in (0.1, 1.0)]
    reach = RADII[where] * 0.9375
    return [fractions(center + reach * rng.uniform(-1, 1, center.size))]


@pytest.mark.parametrize(("block", "place", "number"), CASES)
def test_no_bound_is_below_a_secant(block: str, place: str, number: int) -> None:
    network, center = _network(block, place)
    norms = PAIRS[number % len(PAIRS)]
    wheres: tuple[Place, ...] = ("everywhere", "box")
    for where in wheres:
        method = PRODUCT if where == "everywhere" else PROPAGATION
        certificate = method.answer(network.model, _asked(norms, center, where))
        verdict = check(certificate, network.model)
        assert verdict.valid
        (bound,) = bounds(certificate)
        assert bound is not None
        for x in _points(center, where):
            assert _secant(network, x, norms) <= Fraction(bound)
        assert verdict.proved is not None
        _require_rejected(certificate, network.model, verdict.proved[0] * (1 - 2.0**-50))


def _require_rejected(certificate: Certificate, model: bytes, less: float) -> None:
    """A claim that is a little less than what the proof proves."""
    claim = replace(certificate.claim, bound=less, log10_bound=log10_upper(less))
    forged = certificate_text(replace(certificate, claim=claim, lower_bound=None))
    assert not check(forged.encode(), model).valid


@pytest.mark.parametrize("norms", PAIRS[:3], ids="-".join)
@pytest.mark.parametrize("block", sorted(BLOCKS))
def test_at_a_point_the_bound_is_the_norm_of_the_jacobian(block: str, norms: Pair) -> None:
    network, center = _network(block, "residual")
    certificate = PROPAGATION.answer(network.model, _asked(norms, center, "point"))
    (bound,) = bounds(certificate)
    exact = norms_about(floats(_jacobian(network, fractions(center)))[None], norms)[0]
    assert bound == pytest.approx(exact, rel=1e-7)


@pytest.mark.parametrize("block", sorted(BLOCKS))
def test_a_smaller_region_has_no_larger_a_bound(block: str) -> None:
    network, center = _network(block, "middle")
    found = [
        INTERVALS.answer(network.model, _asked(("linf", "linf"), center, "box", share))
        for share in (1.0, 0.25, 2.0**-20)
    ]
    levels = [bounds(certificate)[0] or 0.0 for certificate in found]
    # Rounding may differ where nothing else does.
    assert all(b <= a * (1 + 1e-12) for a, b in pairwise(levels))


@pytest.mark.parametrize("where", ["everywhere", "box"])
def test_a_block_that_a_path_leads_past_is_named_by_methods_that_need_gates(where: Place) -> None:
    network, center = _network("softmax", "residual")
    with pytest.raises(CapabilityBlocked) as refusal:
        LIPSDP.answer(network.model, _asked(("l2", "l2"), center, where))
    assert refusal.value.node == "s1"
    assert "Softmax" in refusal.value.detail
    methods: Any = inspect(network.model)["methods"]
    assert methods["product"]["applies"]
    assert methods["lipsdp"]["node"] == "s1"


def test_branching_leaves_blocks_to_propagation() -> None:
    network, center = _network("softmax", "middle")
    certificate = BRANCH.answer(network.model, _asked(("l2", "l2"), center, "box"))
    assert certificate.proof.kind == "propagation"


@pytest.mark.parametrize("norms", PAIRS, ids="-".join)
@pytest.mark.parametrize("where", ["everywhere", "box"])
@pytest.mark.parametrize(("block", "place"), [("softmax", "last"), ("layer-norm", "middle")])
def test_a_split_proof_holds_and_no_other_one_does(
    block: str, place: str, where: Place, norms: Pair
) -> None:
    network, center = _network(block, place)
    certificate = LIPSDP.answer(network.model, _asked(norms, center, where))
    proof, verdict = certificate.proof, check(certificate, network.model)
    assert isinstance(proof, SplitProof)
    assert verdict.valid
    assert verdict.proved is not None
    for x in _points(center, where):
        assert _secant(network, x, norms) <= Fraction(verdict.proved[0])
    _require_rejected(certificate, network.model, verdict.proved[0] * (1 - 2.0**-50))
    (passage,) = proof.passages
    for wrong in (
        replace(proof, parts=proof.parts[:1]),
        replace(proof, passages=()),
        replace(proof, passages=(replace(passage, node="s0"),)),
        replace(proof, passages=(passage, passage), parts=(*proof.parts, proof.parts[0])),
    ):
        _require_rejected(replace(certificate, proof=wrong), network.model, verdict.proved[0])


def test_each_output_of_a_classifier_is_bounded_by_itself() -> None:
    network, center = _network("softmax", "last")
    asked = _asked(("linf", "linf"), center, "box")
    each = bounds(INTERVALS.answer(network.model, replace(asked, outputs=Each())))
    (whole,) = bounds(INTERVALS.answer(network.model, asked))
    assert max(bound or 0.0 for bound in each) == pytest.approx(whole)
