"""The second child: reads a certificate, has the independent checker check it, tells what it is.

Imports numpy, the checker and the certificate's format: no torch, no onnx, no solver. Its arguments
name the checker and its conclusion about radii; it reads one JSON line, writes one JSON line and
ends. It is a process of its own because the certificate comes from one that has read a hostile
model, and because the checker reads the model too.

    in   {"text": path, "wrapped": bool, "models": folder, "out": path or null, "asked": {...} or
          null, "sandbox": level, "memory_bytes": n}
    out  {"valid": bool, "code", "reason", "node", "id", ...}

`sandbox`: of the process that found the certificate, for the canonical text in `out`.
`wrapped`: the text is {"certificate": ..., "model": ...} instead of the certificate itself.
`asked`: the model, property and target that the certificate has to be about; or the model and a
question about the radius of one point. Then `label` and `radius` are what was concluded.
"""

import hashlib
import json
import re
import resource
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

from service import lifeline, sandbox
from service.producer import found_in
from service.worker import load_entry
from verifier.canonical_json import Json, canonical_json
from verifier.certificate import Certificate
from verifier.certificate_json import certificate_id, certificate_json
from verifier.certificate_reader import certificate_from_json, parse_certificate
from verifier.certificate_shapes import MalformedCertificate, no_constant, unique
from verifier.radius_json import Question, parse_question
from verifier.region_json import region_json
from verifier.regions import Region
from verifier.request_json import bind_json, property_json

Outcome: TypeAlias = dict[str, object]
Check: TypeAlias = Callable[[Certificate, bytes], Any]  # Any: found by name
Verdict: TypeAlias = Any  # of a `Check`

MODEL_ID = re.compile(r"sha256:[0-9a-f]{64}")


class UnreadableBody(ValueError):
    """The body around the certificate is not one; `code` is the problem to answer."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def main() -> None:
    """Serve one order from standard input."""
    lifeline.die_with_parent()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Before the order comes: the process waits warm.
    check, check_radius = (load_entry(entry) for entry in sys.argv[1:])
    line = sys.stdin.readline()
    if not line:
        return
    order = json.loads(line)
    _enclose(order)
    try:
        is_radius = order["asked"] is not None and "question" in order["asked"]
        outcome = examine(order, check_radius if is_radius else check)
    except MemoryError:
        outcome = _rejected("error", "the check needed more memory than it may use")
    sys.stdout.write(json.dumps(outcome, allow_nan=False) + "\n")


def _enclose(order: Mapping[str, Any]) -> None:
    """Keep only what the order names: its text and models to read, its answer to write."""
    if order["memory_bytes"]:
        limit = order["memory_bytes"]
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    out = [] if order["out"] is None else [Path(order["out"])]
    for path in out:
        path.touch()  # a rule is about a file that exists
    named = (order["text"], order["models"], order["trusted"])
    sandbox.enclose([Path(name) for name in named if name is not None], out)


def examine(order: Mapping[str, Any], check: Check) -> Outcome:
    """What the checker says of the certificate that an order names."""
    try:
        given = _read(order)
    except UnreadableBody as error:
        return _rejected(error.code, str(error))
    except MalformedCertificate as error:
        return _rejected("malformed", str(error))
    certificate, about = given.certificate, given.certificate.claim.model
    if given.model not in (None, about):
        return _rejected("model-mismatch", f"the claim is about {about}, not {given.model}")
    asked = order["asked"]
    mismatch = None if asked is None else _differs(certificate, asked)
    if mismatch is not None:
        return _rejected("claim-mismatch", mismatch)
    path = _place(Path(order["models"]), about)
    if path is None:
        return _rejected("model-not-here", f"{about} is not stored here")
    outcome = _concluded(check(certificate, path.read_bytes()), certificate, asked)
    outcome["signature"] = given.signature
    outcome["assumptions"] = _assumptions(certificate)
    if outcome["valid"] and order["out"] is not None:
        outcome |= _stored(found_in(certificate, order["sandbox"]), Path(order["out"]))
    return outcome


def _concluded(
    verdict: Verdict, certificate: Certificate, asked: Mapping[str, Any] | None
) -> Outcome:
    """What the checker says, with label and radius where those were asked for."""
    outcome: Outcome = {
        "valid": bool(verdict.valid),
        "code": verdict.code,
        "reason": verdict.reason,
        "node": getattr(verdict, "node", None),
        "id": certificate_id(certificate),
    }
    if not verdict.valid or asked is None or "question" not in asked:
        return outcome
    wanted = asked["question"]["label"]
    if wanted not in (None, verdict.label):
        return _rejected("claim-mismatch", f"label {verdict.label} is proved, not {wanted}")
    return {**outcome, "label": verdict.label, "radius": verdict.radius}


def _assumptions(certificate: Certificate) -> list[dict[str, str]]:
    """What the claim rests on, of each kind the first: one line has no room for thousands."""
    first: dict[str, dict[str, str]] = {}
    for assumed in certificate.claim.assumptions:
        first.setdefault(assumed.code, {"code": assumed.code, "node": assumed.node[:200]})
    return list(first.values())


@dataclass(frozen=True, slots=True)
class _Given:
    """A certificate, and what stood around it."""

    certificate: Certificate
    model: str | None = None  #: the model that it is said to be about
    signature: Mapping[str, object] | None = None  #: key id and state; null state: not trusted


def _read(order: Mapping[str, Any]) -> _Given:
    """The certificate in the file that an order names."""
    text = Path(order["text"]).read_bytes()
    if not order["wrapped"]:
        return _Given(parse_certificate(text))
    certificate, model_id = _unwrapped(text)
    if "payloadType" in certificate:
        return _opened(certificate, model_id, order["trusted"])
    return _Given(certificate_from_json(certificate), model_id)


def _unwrapped(text: bytes) -> tuple[dict[str, object], str | None]:
    """The certificate or envelope in a body, and the model that it is said to be about.

    Raises:
        UnreadableBody: the body is not `{certificate, model?}`.
    """
    try:
        members = json.loads(text, object_pairs_hook=unique, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        raise UnreadableBody("malformed-json", f"the body is not strict JSON: {error}") from error
    if not isinstance(members, dict) or "certificate" not in members:
        raise UnreadableBody("invalid-request", "the body has no member `certificate`")
    body = cast("dict[str, object]", members)
    if unknown := sorted(set(body) - {"certificate", "model"}):
        raise UnreadableBody("invalid-request", f"the body has unknown members {unknown}")
    model_id, certificate = body.get("model"), body["certificate"]
    if not isinstance(certificate, dict):
        raise UnreadableBody("invalid-request", "the body's member `certificate` is no object")
    if model_id is None:
        return cast("dict[str, object]", certificate), None
    if not isinstance(model_id, str) or MODEL_ID.fullmatch(model_id) is None:
        raise UnreadableBody("invalid-request", "the body's member `model` is no model's id")
    return cast("dict[str, object]", certificate), model_id


def _opened(envelope: dict[str, object], model_id: str | None, trusted: str | None) -> _Given:
    """The certificate in an envelope, and whether a trusted key has signed it."""
    # Here, not above: most checks are of bare certificates.
    from service.signing import BadEnvelope, BadSignature, read_envelope
    from service.signing_keys import read_trusted_keys

    keys = () if trusted is None else read_trusted_keys(Path(trusted))
    try:
        read = read_envelope(json.dumps(envelope).encode())
        assert read is not None, "it has a payload's type"  # noqa: S101
        certificate = parse_certificate(read.certificate())
    except BadEnvelope as error:
        raise MalformedCertificate(str(error)) from error
    try:
        signed = read.verify(keys)
        signature: dict[str, object] = {"keyid": signed.keyid, "state": signed.state}
    except BadSignature:
        signature = {"keyid": read.signatures[0][0], "state": None}
    return _Given(certificate, model_id, signature)


def _differs(certificate: Certificate, asked: Mapping[str, Any]) -> str | None:
    """How the certificate is not an answer to what was asked; None where it is."""
    claim = certificate.claim
    target = None if certificate.target is None else {"upper": certificate.target}
    claimed: dict[str, object] = {"model": claim.model}
    wanted = {"model": asked["model"]}
    if claim.idealised and asked.get("semantics", "real") == "real":
        return "the certificate is of idealised nodes, which was not asked for"
    if "question" in asked:
        question = parse_question(asked["question"])
        claimed["region"] = region_json(claim.property.region)
        wanted["region"] = region_json(_ball(certificate, question))
        claimed["bind"] = bind_json(claim.property.bind)
        wanted["bind"] = bind_json(question.bind)
    else:
        claimed |= {"property": property_json(claim.property), "target": target}
        wanted |= {"property": asked["property"], "target": asked["target"]}
    for name, value in claimed.items():
        # Canonical texts: 1 and 1.0 are one number of the same claim.
        if canonical_json(cast("Json", value)) != canonical_json(cast("Json", wanted[name])):
            return f"the certificate's {name} is not the one that was asked for"
    return None


def _ball(certificate: Certificate, question: Question) -> Region:
    """The ball around the asked point with the radius that the certificate has."""
    radius = getattr(certificate.claim.property.region, "radius", None)
    # Any other ball than the claimed one is a mismatch.
    return question.ball(0, radius if isinstance(radius, float) else 1.0)


def _place(models: Path, model_id: str) -> Path | None:
    digest = model_id.removeprefix("sha256:")
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        return None
    path = models / digest
    return path if path.is_file() else None


def _stored(certificate: Certificate, out: Path) -> Outcome:
    """Write the canonical text, and tell what the database keeps of it."""
    text = canonical_json(cast("Json", certificate_json(certificate)))
    out.write_bytes(text)
    claim, witness = certificate.claim, certificate.lower_bound
    return {
        "blob": hashlib.sha256(text).hexdigest(),
        "size": len(text),
        "kind": claim.property.kind,
        "scope": claim.property.scope,
        "verdict": certificate.verdict,
        "summary": {
            "bound": claim.bound,
            "log10_bound": claim.log10_bound,
            "lower": None if witness is None else witness.value,
            "soundness": certificate.soundness,
            "proof": certificate.proof.kind,
        },
    }


def _rejected(code: str, reason: str) -> Outcome:
    return {"valid": False, "code": code, "reason": reason, "node": None, "id": None}


if __name__ == "__main__":
    main()
