"""`check`: from bytes to a verdict."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from verifier.certificate import Certificate
from verifier.certificate_json import certificate_json
from verifier.certificate_reader import certificate_from_json, parse_certificate
from verifier.certificate_shapes import MalformedCertificate
from verifier.checker.arithmetic import require_sound_arithmetic
from verifier.checker.centers import of_one_center
from verifier.checker.entries import least_fall, prove_entries
from verifier.checker.graph import read_network
from verifier.checker.items import selection
from verifier.checker.rejected import Rejected
from verifier.checker.verdict import Followed, Verdict, judged, rejection
from verifier.checker.witness import float_below, quotient_bound
from verifier.property import Reading

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from verifier.certificate import Claim, Pattern, Proof, Witness
    from verifier.checker.intervals import Interval
    from verifier.checker.network import Network
    from verifier.property import Property


def check(certificate: Certificate | bytes, model: bytes) -> Verdict:
    """Whether the certificate proves its claim about the model with these bytes.

    Args:
        certificate: the certificate, or its JSON text.
        model: the ONNX file.

    Returns:
        A verdict; never an exception: whatever goes wrong is a rejection.
    """
    return _judged(certificate, model)[0]


def check_raised(
    certificate: Certificate, model: bytes, raised: Callable[[Verdict], Certificate]
) -> tuple[Certificate, Verdict]:
    """A certificate and the verdict on it, or on one that claims what its proof does prove.

    The same as to check both, but the proof is followed once.

    Args:
        certificate: claims a number that may be too small.
        model: the ONNX file.
        raised: from the verdict, which knows what is proved, to the same certificate with other
            numbers.

    Returns:
        The first one if it is valid or nothing is proved, else the second one; and its verdict.
    """
    verdict, found = _judged(certificate, model)
    if verdict.valid or found is None:
        return certificate, verdict
    second = raised(verdict)
    is_same = second.proof is certificate.proof
    is_same &= second.claim.property == certificate.claim.property
    return second, _judged(second, model, found if is_same else None)[0]


def _judged(
    certificate: Certificate | bytes, model: bytes, known: Followed | None = None
) -> tuple[Verdict, Followed | None]:
    try:
        read = read_certificate(certificate)
        _require_model(read, model)
        claim = read.claim
        reading = Reading.of(
            claim.property, freezes=bool(claim.assumptions), idealises=bool(claim.idealised)
        )
        network = read_network(model, read.proof.patterns, reading)
        _require_assumptions(claim, network)
        _require_idealised(claim, network)
        # From here on outputs have indices.
        asked = claim.property.located(network.outputs)
        read = replace(read, claim=replace(claim, property=asked))
    except MalformedCertificate as error:
        return Verdict(valid=False, code="malformed", reason=str(error)), None
    except Exception as error:  # noqa: BLE001 (fail closed)
        return rejection(error), None
    return judged(read, network, known)


def witness_value(
    model: bytes,
    asked: Property,
    witness: Witness,
    patterns: Sequence[Pattern] = (),
    *,
    freezes: bool = False,
    idealises: bool = False,
) -> float | None:
    """The greatest float64 that a pair is shown to reach; None where nothing is shown.

    Args:
        model: the ONNX file.
        asked: the property; with lists, the witness names its item.
        witness: the pair; the value that it states is ignored.
        patterns: hints for reading the file, verified as those of a proof are.
        freezes: whether weights that a caller may replace count as they are stored.
        idealises: whether known functions that jump stand for continuous ones.
    """
    try:
        with np.errstate(all="ignore"):
            require_sound_arithmetic()
            reading = Reading.of(asked, freezes=freezes, idealises=idealises)
            network = read_network(model, patterns, reading)
            asked = asked.located(network.outputs)
            if asked.kind == "monotone":
                fall = least_fall(witness, network, asked)
                return float_below(fall) if 0 < fall else None
            selected = selection(asked, network.input_size, network.output_size)
            about, one = of_one_center(witness, asked, selected)
            return quotient_bound(one, network, about, selected)
    except Exception:  # noqa: BLE001 (fail closed: what raises shows nothing)
        return None


def entry_bounds(
    model: bytes,
    asked: Property,
    proof: Proof,
    *,
    freezes: bool = False,
    idealises: bool = False,
) -> Interval:
    """What a proof proves of the entries of the Jacobian that a property asks about.

    Raises:
        NotProved: it proves nothing of them.
        LipcertError: the file or the question is refused.
    """
    with np.errstate(all="ignore"):
        require_sound_arithmetic()
        reading = Reading.of(asked, freezes=freezes, idealises=idealises)
        network = read_network(model, proof.patterns, reading)
        return prove_entries(proof, network, asked.located(network.outputs))


def read_certificate(certificate: Certificate | bytes) -> Certificate:
    """The certificate as its JSON states it: an object in memory is held to the same rules."""
    if isinstance(certificate, Certificate):
        return certificate_from_json(certificate_json(certificate))
    return parse_certificate(certificate)


def _require_assumptions(claim: Claim, network: Network) -> None:
    if claim.assumptions != network.assumptions:
        raise Rejected("assumptions-mismatch", "the claim's assumptions are not those of the file")


def _require_idealised(claim: Claim, network: Network) -> None:
    """The claim lists what stands for something else, and no deviation is larger than it says."""
    listed = [(one.node, one.pattern) for one in claim.idealised]
    found = [(one.node, one.pattern) for one in network.idealised]
    if listed != found:
        raise Rejected("idealised-mismatch", f"idealised are {found}, not {listed}")
    for one, proved in zip(claim.idealised, network.idealised, strict=True):
        if one.absolute < proved.absolute or one.relative < proved.relative:
            raise Rejected("idealised-mismatch", f"{one.node!r} deviates by more than is claimed")


def _require_model(certificate: Certificate, model: bytes) -> None:
    digest, claimed = "sha256:" + hashlib.sha256(model).hexdigest(), certificate.claim.model
    if claimed != digest:
        raise Rejected("model-mismatch", f"the claim is about {claimed}, the file is {digest}")
