"""From a candidate to a certificate: the claim is what the checker proves, not what was hoped.

A method's numbers are floats of any arithmetic. The claim is made a little above them and put to
the checker. If it proves less than was claimed, its own number becomes the claim; if it cannot
follow the proof at all, norms and levels are enlarged a little and it is asked again. Nothing else
turns a `Candidate` into a `Certificate`.
"""

from __future__ import annotations

import math
import resource
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from verifier.certificate import (
    Assumption,
    Attempt,
    Candidate,
    CentersProof,
    Certificate,
    Claim,
    GateLmiProof,
    Idealised,
    ItemBound,
    LmiItem,
    LmiProof,
    Pattern,
    ProductItem,
    ProductProof,
    Proof,
    PropagationProof,
    RecursionProof,
    Single,
    SplitProof,
    TorusProof,
    TreeItem,
    TreeProof,
    Witness,
    decimal_lower,
    decimal_upper,
    log10_upper,
    verdict_of,
)
from verifier.checker import Verdict, check_raised, witness_value
from verifier.errors import CheckRejected, LipcertError, NotCheckable, ResourceExhausted
from verifier.methods.items import Item
from verifier.methods.report import layers_json
from verifier.property import Each, Margins, Property
from verifier.regions import Centers

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float64

    Gates = Float64[np.ndarray, " gates"]

CLAIM_SLACK = 1e-9  #: relative: the first claim above a candidate's estimate
ENLARGEMENTS = (0.0, 1e-11, 1e-9, 1e-7, 1e-5)  #: relative: of norms and levels, until proved


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What every certificate of one run has in common."""

    model: bytes
    model_id: str
    asked: Property
    items: tuple[Item, ...]
    patterns: tuple[Pattern, ...]
    target: float | None
    assumptions: tuple[Assumption, ...] = ()
    idealised: tuple[Idealised, ...] = ()
    producer: Mapping[str, str | int | None]


@dataclass(frozen=True, slots=True)
class Unproved:
    """The checker followed none of the enlarged proofs; its last word."""

    verdict: Verdict


def prove(
    case: Case, candidate: Candidate, witness: Witness | None, attempts: Sequence[Attempt]
) -> Certificate | Unproved:
    """A certificate that the checker accepted, or its last word."""
    verdict: Verdict | None = None
    for enlargement in ENLARGEMENTS:
        proof = enlarged(candidate.proof, enlargement)
        claims = [value * (1 + max(CLAIM_SLACK, 2 * enlargement)) for value in candidate.estimates]
        first = certify(case, proof, claims, None, witness, attempts)

        def raised(word: Verdict, proof: Proof = proof) -> Certificate:
            return certify(case, proof, word.proved or (), word.log10, witness, attempts)

        certificate, verdict = check_raised(first, case.model, raised)
        if verdict.valid:
            return _reporting(certificate, verdict)
    assert verdict is not None  # noqa: S101 (the loop runs)
    return Unproved(verdict)


def rejection(method: str, outcome: Unproved) -> LipcertError:
    """Why a method has no certificate, where the checker did not follow it."""
    verdict = outcome.verdict
    if verdict.code == NotCheckable.code:
        return NotCheckable(verdict.reason, node=verdict.node, fix="see what `inspect` supports")
    return CheckRejected(
        f"the checker rejected the proof of method {method}: {verdict.code}: {verdict.reason}",
        fix="report this as a defect of lipcert, with the model",
    )


def breakdown(method: str, error: Exception) -> ResourceExhausted:
    """What ended a method: torch reports exhausted memory as RuntimeError."""
    return ResourceExhausted(
        f"method {method} broke down: {type(error).__name__}: {error}",
        fix="give the job more memory, or ask for another method",
    )


def _reporting(certificate: Certificate, verdict: Verdict) -> Certificate:
    """The certificate with what the checker found of the layers; no part of its id."""
    if not verdict.layers:
        return certificate
    return replace(certificate, report={"layers": layers_json(verdict.layers)})


def certify(
    case: Case,
    proof: Proof,
    claims: Sequence[float],
    log10: float | None,
    witness: Witness | None,
    attempts: Sequence[Attempt],
) -> Certificate:
    """The certificate that claims these numbers, one an item. It is not checked yet.

    Args:
        case: what the run's certificates have in common.
        proof: what is to prove the claim.
        claims: a bound for each item; inf where it exceeds float64.
        log10: the logarithm of the largest, where that exceeds float64.
        witness: a lower bound, if one is known.
        attempts: what was tried.
    """
    bounds = [decimal_upper(claim) if math.isfinite(claim) else None for claim in claims]
    return claiming(case, proof, bounds, log10, witness, attempts)


def claiming(
    case: Case,
    proof: Proof,
    bounds: Sequence[float | None],
    log10: float | None,
    witness: Witness | None,
    attempts: Sequence[Attempt],
) -> Certificate:
    """The same for bounds that are decimals on their side already; None beyond float64."""
    largest = None if None in bounds else max(bound for bound in bounds if bound is not None)
    return Certificate(
        claim=Claim(
            model=case.model_id,
            property=case.asked,
            bound=largest,
            log10_bound=log10 if largest is None else log10_upper(largest),
            bounds=_item_bounds(case, bounds),
            assumptions=case.assumptions,
            idealised=case.idealised,
        ),
        proof=proof,
        lower_bound=witness,
        target=case.target,
        verdict=verdict_of(largest, witness, case.target),
        attempts=tuple(attempts),
        producer=case.producer,
    )


def _item_bounds(case: Case, bounds: Sequence[float | None]) -> tuple[ItemBound, ...] | None:
    is_many = isinstance(case.asked.region, Centers)
    if not (is_many or isinstance(case.asked.outputs, Each | Margins)):
        return None
    centers = range(len(case.asked.parts)) if is_many else (None,)
    labels = [(center, item) for center in centers for item in case.items]
    return tuple(
        ItemBound(bound=bound, output=item.output, margin=item.margin, center=center)
        for (center, item), bound in zip(labels, bounds, strict=True)
    )


def enlarged(proof: Proof, share: float) -> Proof:
    """The proof with its norms and levels enlarged by a share; bounds grow by at most as much."""
    match proof:
        case ProductProof():
            return replace(proof, items=tuple(_larger_norms(item, share) for item in proof.items))
        case LmiProof() | GateLmiProof():
            return replace(proof, items=tuple(_larger_levels(item, share) for item in proof.items))
        case RecursionProof():
            return replace(proof, scales=_larger(proof.scales, share))
        case TorusProof():
            masks = _larger(proof.masks, share)
            return replace(proof, scales=_larger(proof.scales, share), masks=masks)
        case TreeProof():
            return replace(proof, items=tuple(_larger_leaves(item, share) for item in proof.items))
        case SplitProof():
            return replace(proof, parts=tuple(_larger_part(part, share) for part in proof.parts))
        case PropagationProof() | CentersProof():
            return proof


def _larger_part(part: Single, share: float) -> Single:
    found = enlarged(part, share)
    assert not isinstance(found, SplitProof | CentersProof)  # noqa: S101 (of the same kind)
    return found


def _larger(scales: Mapping[str, Gates], share: float) -> dict[str, Gates]:
    return {name: values * (1 + 2 * share) for name, values in scales.items()}


def _larger_norms(item: ProductItem, share: float) -> ProductItem:
    blocks = (replace(block, norm=block.norm * (1 + share)) for block in item.blocks)
    factors = (replace(factor, norm=factor.norm * (1 + share)) for factor in item.factors)
    return replace(item, blocks=tuple(blocks), factors=tuple(factors))


def _larger_levels(item: LmiItem, share: float) -> LmiItem:
    rows = (replace(row, level=row.level * (1 + 2 * share)) for row in item.rows)
    return replace(item, rows=tuple(rows))


def _larger_leaves(item: TreeItem, share: float) -> TreeItem:
    trees = (replace(tree, levels=tree.levels * (1 + 2 * share)) for tree in item.trees)
    return replace(item, trees=tuple(trees))


def confirmed(case: Case, witness: Witness) -> Witness | None:
    """The witness with the value that the checker proves of its pair; None where it proves none."""
    value = witness_value(
        case.model,
        case.asked,
        witness,
        case.patterns,
        freezes=bool(case.assumptions),
        idealises=bool(case.idealised),
    )
    return None if value is None else replace(witness, value=decimal_lower(value))


def finished(certificate: Certificate, attempts: Sequence[Attempt], seconds: float) -> Certificate:
    """The certificate with what lies outside its id, as of now."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return replace(
        certificate,
        attempts=tuple(attempts),
        resources={"seconds": seconds, "peak_memory_bytes": float(peak)},
    )


def with_witness(case: Case, certificate: Certificate, witness: Witness) -> Certificate:
    """A checked certificate together with a confirmed witness."""
    verdict = verdict_of(certificate.claim.bound, witness, case.target)
    return replace(certificate, lower_bound=witness, verdict=verdict)
