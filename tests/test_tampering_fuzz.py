"""Whatever is done to a proof's numbers: it proves nothing below the constant.

Each mutant stands in a certificate that is hashed anew, with a claim just below the enumerated
constant. It has to be rejected, and what the checker says that it proves is no less than that.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from typing import get_args

import numpy as np
import pytest

from tests.attempts import GLOBAL_KINDS, LOCAL_KINDS, Attempt
from tests.exact import Pair
from tests.mutations import CHANGES, mutants
from tests.tiny_networks import Box, TinyNetwork, lipschitz_constant, vertex_constant
from tests.tiny_topologies import chain, tiny_network
from tests.tree_attempts import GrownTrees
from verifier.certificate import Certificate, Proof, Single, decimal_upper, log10_upper
from verifier.certificate_json import certificate_text
from verifier.checker import Verdict, check
from verifier.norms import Norm, NormPair
from verifier.property import Property
from verifier.regions import EndsBox

IS_QUICK = os.environ.get("LIPCERT_TESTS", "quick") == "quick"
FEW = 2  #: mutants of a proof by one change, in the quick profile

pytestmark = pytest.mark.filterwarnings("ignore:Solution may be inaccurate")


@dataclass(frozen=True)
class Target:
    """A network with one norm, everywhere or in a small box, and a way to certify it."""

    tiny: str
    attempt: Attempt | GrownTrees
    norms: Pair
    is_local: bool

    def __str__(self) -> str:
        place = "local" if self.is_local else "global"
        return f"{self.attempt}-{self.tiny}-{'-'.join(self.norms)}-{place}"


TINY: Mapping[str, Callable[[], TinyNetwork]] = {
    "groups": lambda: chain(4, (2, 3, 4, 2), ("groupsort3", "maxmin")),
    "image": lambda: tiny_network(8),
    "chain": lambda: chain(3, (2, 3, 3, 2), ("relu", "leaky")),
}


def _targets() -> list[Target]:
    """Every kind of proof, each on every network, with norms in turn."""
    locals_ = (*LOCAL_KINDS, GrownTrees())
    cases = [(a, False) for a in GLOBAL_KINDS] + [(a, True) for a in locals_]
    norms: tuple[Pair, ...] = (("l2", "l2"), ("linf", "linf"))
    return [
        Target(tiny, attempt, norms[(k + n) % 2], is_local)
        for k, tiny in enumerate(list(TINY)[: 2 if IS_QUICK else None])
        for n, (attempt, is_local) in enumerate(cases)
    ]


def _some(proofs: list[Proof], change: str) -> list[Proof]:
    """All, or a few of them: others for every change."""
    if not IS_QUICK or len(proofs) <= FEW:
        return proofs
    start = list(CHANGES).index(change)
    return [proofs[(start + k * len(proofs) // FEW) % len(proofs)] for k in range(FEW)]


@cache
def _certified(target: Target) -> tuple[Certificate, bytes, Fraction]:
    """A certificate that claims less than the constant, the model, and the constant."""
    tiny = TINY[target.tiny]()
    inputs = tiny.network.size
    norm = NormPair(Norm(target.norms[0]), Norm(target.norms[1]))
    if target.is_local:
        lower, upper = (-0.375,) * inputs, (0.25,) * inputs
        asked = Property(scope="local", norm=norm, region=EndsBox(lower=lower, upper=upper))
        exact = lipschitz_constant(tiny, target.norms, Box(np.array(lower), np.array(upper)))
    else:
        asked = Property(norm=norm)
        exact = vertex_constant(tiny, target.norms)
    model = tiny.network.model
    certificate = target.attempt.answer(model, asked, seconds=3.0)
    below = decimal_upper(float(exact) * (1 - 1e-6))
    claim = replace(certificate.claim, bound=below, log10_bound=log10_upper(below))
    return replace(certificate, claim=claim, lower_bound=None), model, exact


def _word(certificate: Certificate, model: bytes) -> Verdict:
    """The checker's, on the certificate's JSON where it has one."""
    try:
        return check(certificate_text(certificate).encode(), model)
    except ValueError:  # JSON has no nan
        return check(certificate, model)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("target", _targets(), ids=str)
def test_no_mutant_of_a_proof_proves_less_than_the_constant(target: Target, change: str) -> None:
    certificate, model, exact = _certified(target)
    proofs = _some(list(mutants(certificate.proof, CHANGES[change])), change)
    words = [_word(replace(certificate, proof=proof), model) for proof in proofs]
    assert [word for word in words if word.valid] == []
    assert [word for word in words if _proves_less(word, exact)] == []


def _proves_less(word: Verdict, exact: Fraction) -> bool:
    return word.proved is not None and any(
        math.isfinite(number) and number < exact for number in word.proved
    )


@pytest.mark.parametrize("target", _targets(), ids=str)
def test_a_proof_proves_no_less_than_the_constant(target: Target) -> None:
    """The same without any change; and the certificate is rejected for its claim alone."""
    certificate, model, exact = _certified(target)
    word = _word(certificate, model)
    assert word.code == "bound-not-proved"
    assert word.proved is not None
    assert not _proves_less(word, exact)


def test_every_kind_of_proof_is_tampered_with() -> None:
    """A proof for many centers is made of these; tests of centers spoil how."""
    found = {_certified(target)[0].proof.kind for target in _targets()}
    assert found == {kind.__dataclass_fields__["kind"].default for kind in get_args(Single)}
