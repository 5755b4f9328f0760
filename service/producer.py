"""What a certificate says of the process that found it: the sandbox that this process was in.

Outside the certificate's id. The library, which takes up no sandbox, says `none`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from verifier.certificate import Certificate


def found_in(certificate: Certificate, sandbox: str) -> Certificate:
    """The certificate of a process in a sandbox of this level."""
    return replace(certificate, producer={**certificate.producer, "sandbox": sandbox})


def told_in(message: dict[str, object], sandbox: str) -> dict[str, object]:
    """The same for certificates in what a child says: a bound's, one ball's, or those of radii."""
    if "certificate" in message:
        return {"certificate": _in(message["certificate"], sandbox)}
    if "ring" in message:
        place, ring = cast("tuple[int, Any]", message["ring"])  # Any: JSON
        return {"ring": [place, _with_certificate(ring, sandbox)]}
    if "radii" in message:
        radii = cast("Any", message["radii"])
        rings = [_with_certificate(ring, sandbox) for ring in radii["radii"]]
        return {"radii": {**radii, "radii": rings}}
    return message


def _with_certificate(ring: Mapping[str, object], sandbox: str) -> dict[str, object]:
    return {**ring, "certificate": _in(ring["certificate"], sandbox)}


def _in(certificate: object, sandbox: str) -> object:
    if certificate is None:
        return None
    members = cast("dict[str, Any]", certificate)
    return {**members, "producer": {**members["producer"], "sandbox": sandbox}}
