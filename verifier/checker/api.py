"""`check`: from bytes to a verdict."""

from __future__ import annotations

import hashlib

from verifier.certificate import Certificate
from verifier.certificate_json import (
    MalformedCertificate,
    certificate_from_json,
    certificate_json,
    parse_certificate,
)
from verifier.checker.graph import read_network
from verifier.checker.verdict import Rejected, Verdict, judge, rejection


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


def _read(certificate: Certificate | bytes) -> Certificate:
    """The certificate as its JSON states it: an object in memory is held to the same rules."""
    if isinstance(certificate, Certificate):
        return certificate_from_json(certificate_json(certificate))
    return parse_certificate(certificate)


def _require_model(certificate: Certificate, model: bytes) -> None:
    digest, claimed = "sha256:" + hashlib.sha256(model).hexdigest(), certificate.claim.model
    if claimed != digest:
        raise Rejected("model-mismatch", f"the claim is about {claimed}, the file is {digest}")
