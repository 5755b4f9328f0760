"""`check`: from bytes to a verdict."""

from __future__ import annotations

import hashlib

import numpy as np

from verifier.certificate import Certificate, Witness
from verifier.certificate_json import (
    MalformedCertificate,
    certificate_from_json,
    certificate_json,
    parse_certificate,
)
from verifier.checker.arithmetic import BrokenArithmetic, require_sound_arithmetic
from verifier.checker.definite import NotProved
from verifier.checker.graph import read_network
from verifier.checker.items import selection
from verifier.checker.verdict import Rejected, Verdict, judge, rejection
from verifier.checker.witness import reached_value
from verifier.errors import LipcertError
from verifier.property import Property


def check(certificate: Certificate | bytes, model: bytes) -> Verdict:
    """Whether the certificate proves its claim about the model with these bytes.

    Args:
        certificate: the certificate, or its JSON text.
        model: the ONNX file.

    Returns:
        A verdict; never an exception: whatever goes wrong is a rejection.
    """
    try:
        read = _read(certificate)
        _require_model(read, model)
        network = read_network(model, read.proof.patterns)
    except MalformedCertificate as error:
        return Verdict(valid=False, code="malformed", reason=str(error))
    except Exception as error:  # noqa: BLE001 (fail closed)
        return rejection(error)
    return judge(read, network)


def witness_value(model: bytes, asked: Property, witness: Witness) -> float | None:
    """A lower bound that the pair of a witness proves, whatever value it states.

    Args:
        model: the ONNX file.
        asked: the property that the pair is a witness for.
        witness: the pair; its value is not read.

    Returns:
        The number, rounded down; None where the pair proves nothing.
    """
    try:
        with np.errstate(all="ignore"):
            require_sound_arithmetic()
            network = read_network(model, ())
            selected = selection(asked, network.input_size, network.output_size)
            return reached_value(witness, network, asked, selected)
    except (NotProved, LipcertError, BrokenArithmetic):
        return None


def _read(certificate: Certificate | bytes) -> Certificate:
    """The certificate as its JSON states it: an object in memory is held to the same rules."""
    if isinstance(certificate, Certificate):
        return certificate_from_json(certificate_json(certificate))
    return parse_certificate(certificate)


def _require_model(certificate: Certificate, model: bytes) -> None:
    digest, claimed = "sha256:" + hashlib.sha256(model).hexdigest(), certificate.claim.model
    if claimed != digest:
        raise Rejected("model-mismatch", f"the claim is about {claimed}, the file is {digest}")
