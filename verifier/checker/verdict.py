"""The checker's word on a certificate: consistent, then proved, or rejected with a reason.

A claim is accepted only if, in this order, the arithmetic of this process is sound, the claim fits
the network, its numbers agree with each other and stand on the right side of their decimals, the
proof proves no more than the claim for every item, and the witness reaches what it says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from verifier.certificate import (
    CentersProof,
    Certificate,
    Claim,
    GateLmiProof,
    LmiProof,
    ProductProof,
    PropagationProof,
    RecursionProof,
    SplitProof,
    TorusProof,
    TreeProof,
    log10_upper,
    verdict_of,
)
from verifier.checker.arithmetic import ONE, Magnitude, greatest, require_sound_arithmetic
from verifier.checker.centers import labels_of, of_one_center, parts_of
from verifier.checker.definite import NotProved
from verifier.checker.entries import judge_entries
from verifier.checker.everywhere import everywhere
from verifier.checker.intervals import Interval
from verifier.checker.items import Selection, selection
from verifier.checker.layers import Layer
from verifier.checker.lmi import global_slopes, prove_lmi
from verifier.checker.lowering import lowered
from verifier.checker.product import prove_product
from verifier.checker.propagation import prove_gate_lmi, prove_propagation
from verifier.checker.recursion import prove_recursion
from verifier.checker.rejected import Rejected
from verifier.checker.split import parts_of_split
from verifier.checker.torus import prove_torus
from verifier.checker.tree import prove_tree
from verifier.checker.weighting import unweighted
from verifier.checker.witness import require_witness
from verifier.errors import LipcertError
from verifier.property import Property
from verifier.regions import Centers, Everywhere

if TYPE_CHECKING:
    from verifier.checker.network import Network

_Local: TypeAlias = GateLmiProof | PropagationProof | TreeProof
_Global: TypeAlias = LmiProof | ProductProof | RecursionProof | TorusProof


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the certificate is valid, and what its proof does prove."""

    valid: bool
    code: str  #: "valid", or why not
    reason: str
    proved: tuple[float, ...] | None = None  #: for each item, rounded up; inf beyond float64
    log10: float | None = None  #: of the greatest, rounded up; also beyond float64
    node: str | None = None  #: the node that stood in the way
    layers: tuple[Layer, ...] = ()  #: what a product proof proves of each layer
    entries: Interval | None = None  #: of the Jacobian, for kinds that are about them


@dataclass(frozen=True, slots=True)
class Followed:
    """What a proof was found to prove: one number for each item, and what it says of layers."""

    proved: tuple[Magnitude, ...]
    layers: tuple[Layer, ...]


def judge(certificate: Certificate, network: Network) -> Verdict:
    """The verdict on a certificate about this network. Whatever goes wrong is a rejection."""
    return judged(certificate, network)[0]


def judged(
    certificate: Certificate, network: Network, known: Followed | None = None
) -> tuple[Verdict, Followed | None]:
    """The same with what the proof was found to prove, which later claims of it may reuse.

    Args:
        certificate: what is judged.
        network: what the checker read of the model.
        known: what this very proof was found to prove of this property and network.

    Returns:
        The verdict, and what the proof proves, if it was followed to its end.
    """
    if certificate.claim.property.kind != "lipschitz":
        return _judge_entries(certificate, network), None
    found = known
    try:
        with np.errstate(all="ignore"):
            require_sound_arithmetic()
            selected = selection(
                certificate.claim.property, network.input_size, network.output_size
            )
            _require_consistent(certificate, selected)
            found = found or Followed(*prove(certificate, network, selected))
            _require_proved(certificate.claim, found.proved)
            _require_witness(certificate, network, selected)
    except Exception as error:  # noqa: BLE001 (fail closed: no exception may pass for acceptance)
        return rejection(error, None if found is None else found.proved), found
    verdict = _verdict(True, "valid", "the proof proves the claim", found.proved)
    return replace(verdict, layers=found.layers), found


def _judge_entries(certificate: Certificate, network: Network) -> Verdict:
    """The same for the kinds that are about entries of the Jacobian."""
    try:
        with np.errstate(all="ignore"):
            require_sound_arithmetic()
            _require_rigorous(certificate)
            proved = judge_entries(certificate, network)
    except Exception as error:  # noqa: BLE001 (fail closed)
        return rejection(error)
    return Verdict(valid=True, code="valid", reason="the proof proves the claim", entries=proved)


def rejection(error: Exception, proved: tuple[Magnitude, ...] | None = None) -> Verdict:
    """The verdict that an exception amounts to."""
    reason = str(error) or type(error).__name__
    match error:
        case Rejected():
            return _verdict(False, error.code, reason, proved)
        case NotProved():
            return _verdict(False, "proof-refuted", reason, proved)
        case LipcertError():
            return _verdict(False, error.code, reason, proved, error.node)
        case _:
            return _verdict(False, "error", f"{type(error).__name__}: {reason}", proved)


def _verdict(
    valid: bool,
    code: str,
    reason: str,
    proved: tuple[Magnitude, ...] | None,
    node: str | None = None,
) -> Verdict:
    if proved is None:
        return Verdict(valid, code, reason, node=node)
    return Verdict(
        valid, code, reason, tuple(m.upper() for m in proved), greatest(proved).log10(), node
    )


def prove(
    certificate: Certificate, network: Network, selected: Selection
) -> tuple[tuple[Magnitude, ...], tuple[Layer, ...]]:
    """What the proof proves: one number for each item, and what it says of layers.

    Raises:
        NotProved: the proof does not hold.
        CapabilityBlocked: a node has no constant of the kind that the proof needs.
    """
    asked: Property = certificate.claim.property
    if isinstance(certificate.proof, CentersProof):
        parts = [prove(part, network, selected)[0] for part in parts_of(certificate)]
        return tuple(bound for bounds in parts for bound in bounds), ()
    if isinstance(certificate.proof, SplitProof):
        whole = everywhere(network) if isinstance(asked.place, Everywhere) else network
        return _split(certificate.proof, certificate, whole), ()
    if isinstance(certificate.proof, _Local):
        return _over_region(certificate.proof, network, asked, selected), ()
    proof = certificate.proof
    gated = proof.gated if isinstance(proof, LmiProof) else ()
    return _everywhere(proof, everywhere(network, gated), asked, selected)


def _everywhere(
    certified: _Global, network: Network, asked: Property, selected: Selection
) -> tuple[tuple[Magnitude, ...], tuple[Layer, ...]]:
    """What a proof without a region proves of each item, and what it says of layers."""
    # Proofs without a region know plain norms only: they are of the network behind one more map.
    plain = unweighted(network, asked.norm, selected.inputs)
    inner, pair = plain.network, plain.pair
    match certified:
        case ProductProof() as proof:
            product = prove_product(proof, inner, pair, selected)
            layers = (replace(each, prefix=plain.stretch * each.prefix) for each in product.layers)
            return plain.bounds(product.bounds), tuple(layers)
        case LmiProof() as proof:
            small = lowered(inner, sorts="keep")
            proved = prove_lmi(proof.items, small, global_slopes(small), pair, selected)
            return plain.bounds(proved), ()
        case RecursionProof() as proof:
            return plain.bounds(prove_recursion(proof, inner, pair, selected)), ()
        case TorusProof() as proof:
            return plain.bounds(prove_torus(proof, inner, pair, selected)), ()


def _split(proof: SplitProof, certificate: Certificate, network: Network) -> tuple[Magnitude, ...]:
    """The products of what the parts prove, for each item of the last one."""
    whole, bounds = ONE, tuple[Magnitude, ...]()
    for part in parts_of_split(proof, network, certificate.claim.property):
        claim = replace(certificate.claim, property=part.asked)
        own = replace(certificate, proof=part.proof, claim=claim)
        inner = part.network
        selected = selection(part.asked, inner.input_size, inner.output_size)
        bounds, _ = prove(own, inner, selected)
        if part.constant is not None:
            (bound,) = bounds
            whole = whole * bound * part.constant
    return tuple(whole * bound for bound in bounds)


def _over_region(
    proof: _Local, network: Network, asked: Property, selected: Selection
) -> tuple[Magnitude, ...]:
    """What a proof over a region proves of each item."""
    match proof:
        case GateLmiProof():
            return prove_gate_lmi(proof, network, asked, selected)
        case PropagationProof():
            return prove_propagation(proof, network, asked, selected)
        case TreeProof():
            return prove_tree(proof, network, asked, selected)


# --- Consistency ---------------------------------------------------------------------------------


def _require_consistent(certificate: Certificate, selected: Selection) -> None:
    """The numbers of the claim agree with each other, with the target and with the verdict."""
    claim = certificate.claim
    _require_rigorous(certificate)
    local = isinstance(certificate.proof, _Local | CentersProof)
    if isinstance(certificate.proof, CentersProof) != isinstance(claim.property.region, Centers):
        raise Rejected("inconsistent", "a proof for many centers belongs to a claim about them")
    if local and isinstance(claim.property.region, Everywhere):
        raise Rejected("inconsistent", "a proof over a region for a claim without one")
    _require_bounds(claim, selected)
    target = certificate.target
    if target is not None and not 0 <= target < math.inf:
        raise Rejected("inconsistent", f"target {target}")
    if certificate.verdict != verdict_of(claim.bound, certificate.lower_bound, target):
        raise Rejected("inconsistent", f"verdict {certificate.verdict!r} does not follow")


def _require_rigorous(certificate: Certificate) -> None:
    if certificate.soundness != "rigorous":
        raise Rejected("soundness-unsupported", f"this checker proves no {certificate.soundness!r}")


def _require_bounds(claim: Claim, selected: Selection) -> None:
    """`bound`, `log10_bound` and the list say the same."""
    listed = [claim.bound]
    labels = labels_of(claim.property, selected)
    if labels != ((None, None, None),):
        if claim.bounds is None:
            raise Rejected("inconsistent", "a list is claimed, and `bounds` is missing")
        if labels != tuple((bound.center, bound.output, bound.margin) for bound in claim.bounds):
            raise Rejected("inconsistent", "`bounds` does not list the claim's items in order")
        listed = [bound.bound for bound in claim.bounds]
    elif claim.bounds is not None:
        raise Rejected("inconsistent", "`bounds` without a list of centers, outputs or margins")
    for bound in listed:
        if bound is not None and (not 0 <= bound < math.inf or math.copysign(1, bound) < 0):
            raise Rejected("inconsistent", f"bound {bound}")
    largest = None if None in listed else max(b for b in listed if b is not None)
    if claim.bound != largest:
        raise Rejected("inconsistent", f"bound {claim.bound} is not the largest, {largest}")
    _require_logarithm(claim)


def _require_logarithm(claim: Claim) -> None:
    log10 = claim.log10_bound
    if claim.bound is not None:
        if log10 != log10_upper(claim.bound):
            raise Rejected("inconsistent", f"log10_bound {log10} is not that of {claim.bound}")
    elif log10 is None or not math.isfinite(log10) or log10 < 308:
        raise Rejected("inconsistent", "a bound beyond float64 needs its log10_bound")


# --- Proof and claim -----------------------------------------------------------------------------


def _require_proved(claim: Claim, proved: tuple[Magnitude, ...]) -> None:
    """Every item's proved number is at most the claimed one, read as float64 and as decimal."""
    listed = [claim.bound] if claim.bounds is None else [item.bound for item in claim.bounds]
    if len(listed) != len(proved):
        raise Rejected("inconsistent", f"{len(proved)} numbers proved for {len(listed)} claimed")
    for place, (bound, magnitude) in enumerate(zip(listed, proved, strict=True)):
        if bound is None:
            log10 = magnitude.log10()
            holds = log10 is None or (claim.log10_bound is not None and log10 <= claim.log10_bound)
        else:
            holds = _at_most(magnitude, bound)
        if not holds:
            raise Rejected(
                "bound-not-proved",
                f"item {place}: the proof proves {magnitude.upper()!r}, the claim is {bound!r}",
            )


def _at_most(magnitude: Magnitude, bound: float) -> bool:
    """Whether a magnitude is at most a bound, as its bits and as its shortest decimal say."""
    if magnitude.upper() > bound:
        return False
    exact = Fraction(magnitude.mantissa) * Fraction(2) ** magnitude.exponent
    return exact <= Fraction(bound) and exact <= Fraction(repr(bound))


def _require_witness(certificate: Certificate, network: Network, selected: Selection) -> None:
    """The witness reaches its value, which no proved bound is below."""
    witness, claim = certificate.lower_bound, certificate.claim
    if witness is None:
        return
    try:
        asked, one = of_one_center(witness, claim.property, selected)
        require_witness(one, network, asked, selected)
    except NotProved as error:
        raise Rejected("witness-refuted", str(error)) from error
    bound = claim.bound if claim.bounds is None else claim.bounds[witness.item or 0].bound
    if bound is not None and bound < witness.value:
        raise Rejected("contradiction", "a proved lower bound exceeds a proved upper bound")
