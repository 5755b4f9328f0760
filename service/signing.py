"""Signed statements: in-toto Statement v1 in a DSSE envelope, Ed25519.

    envelope    {"payloadType", "payload": base64, "signatures": [{"keyid", "sig": base64}]}
    signed      DSSEv1 <length of type> <type> <length of payload> <payload>
    statement   {"_type", "subject": [{"name", "digest"}], "predicateType", "predicate"}

The predicate is a certificate, or the summary of a gate's decision (SLSA VSA v1). A signature says
who vouches; whether a certificate is true is the checker's to say, so only what it accepted is
signed, and `lipcert check` proves it again. Formats: the DSSE, in-toto and SLSA specifications.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

from cryptography.exceptions import InvalidSignature

from service.signing_keys import KeyState, TrustedKey, keyid_of
from verifier.canonical_json import Json, canonical_json
from verifier.certificate_shapes import no_constant, unique
from verifier.version import VERSION

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from service.gate import Decision

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
CERTIFICATE = "urn:lipcert:lipschitz-certificate:v1"
SUMMARY = "https://slsa.dev/verification_summary/v1"
VERIFIER = "urn:lipcert:gate"
MAX_SIGNATURES = 16


class BadEnvelope(ValueError):
    """The text is not a DSSE envelope of an in-toto statement."""


class BadSignature(ValueError):
    """No trusted key has signed this envelope."""


@dataclass(frozen=True, slots=True)
class Signed:
    """Who vouches for a payload."""

    keyid: str
    state: KeyState  #: of the key, now


# --- Statements ----------------------------------------------------------------------------------


def certificate_statement(certificate: Mapping[str, object], name: str) -> dict[str, object]:
    """The statement that a certificate makes about its model, which is called `name`."""
    model = cast("Mapping[str, str]", certificate["claim"])["model"]
    return _statement(name, model, CERTIFICATE, certificate)


def gate_statement(decision: Decision, policy: bytes, name: str) -> dict[str, object]:
    """The verification summary of a gate's decision by a policy of this text."""
    digest = hashlib.sha256(policy).hexdigest()
    return summary_statement(decision, "urn:lipcert:policy", f"sha256:{digest}", name)


def summary_statement(
    decision: Decision, policy: str, policy_digest: str, name: str
) -> dict[str, object]:
    """The verification summary of a gate's decision: PASSED only if nothing blocks.

    Args:
        decision: what became of the policy.
        policy: names it, as a URI.
        policy_digest: `sha256:` and the hex digest of its text.
        name: of the model.
    """
    predicate = {
        "verifier": {"id": VERIFIER, "version": {"lipcert": VERSION}},
        "timeVerified": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "resourceUri": f"urn:{decision.model}",
        "policy": {"uri": policy, "digest": _digest(policy_digest)},
        "inputAttestations": [
            {"uri": f"urn:{rule.certificate}", "digest": _digest(rule.certificate)}
            for rule in decision.rules
            if rule.certificate is not None
        ],
        "verificationResult": "PASSED" if decision.outcome == "pass" else "FAILED",
        "verifiedLevels": [],
    }
    return _statement(name, decision.model, SUMMARY, predicate)


def _statement(
    name: str, digest: str, predicate_type: str, predicate: Mapping[str, object]
) -> dict[str, object]:
    return {
        "_type": STATEMENT,
        "subject": _subject(name, digest),
        "predicateType": predicate_type,
        "predicate": predicate,
    }


def _subject(name: str, digest: str) -> list[dict[str, object]]:
    return [{"name": name, "digest": _digest(digest)}]


def _digest(content_id: str) -> dict[str, str]:
    algorithm, _, value = content_id.partition(":")
    return {algorithm: value}


# --- Envelopes -----------------------------------------------------------------------------------


def sign(statement: Mapping[str, object], key: Ed25519PrivateKey) -> dict[str, object]:
    """The envelope of a statement, its payload the canonical JSON."""
    return _envelope(canonical_json(cast("Json", statement)), key)


def sign_unread(text: bytes, model: str, key: Ed25519PrivateKey) -> bytes:
    """The envelope of a certificate's canonical text, which is signed as it is and never parsed.

    Args:
        text: canonical JSON that the checker has accepted; it comes from a process that a hostile
            model may own, so it has no business in the process that holds the key.
        model: the id of the model that the checker found it to be about.
        key: what signs.

    Returns:
        The envelope's JSON text; the same payload as `sign(certificate_statement(...))`.
    """
    # RFC 8785 orders members: _type, predicate, predicateType, subject.
    around = {"predicateType": CERTIFICATE, "subject": _subject(model, model)}
    payload = b'{"_type":%b,"predicate":%b,%b' % (
        canonical_json(STATEMENT),
        text,
        canonical_json(cast("Json", around))[1:],
    )
    return json.dumps(_envelope(payload, key)).encode()


def _envelope(payload: bytes, key: Ed25519PrivateKey) -> dict[str, object]:
    signature = key.sign(_authenticated(PAYLOAD_TYPE, payload))
    return {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [
            {
                "keyid": keyid_of(key.public_key()),
                "sig": base64.b64encode(signature).decode(),
            }
        ],
    }


@dataclass(frozen=True, slots=True)
class Envelope:
    """A DSSE envelope as it was received: nothing in it is believed yet."""

    payload_type: str
    payload: bytes
    signatures: tuple[tuple[str, bytes], ...]  #: key id and signature

    def verify(self, keys: Iterable[TrustedKey]) -> Signed:
        """Who of the trusted keys has signed it.

        The key id is a hint, as DSSE has it: what counts is which key verifies.

        Raises:
            BadSignature: none has.
        """
        now = datetime.now(UTC)
        message = _authenticated(self.payload_type, self.payload)
        for key in keys:
            for keyid, signature in self.signatures:
                if keyid in ("", key.keyid) and _verifies(key, signature, message):
                    if key.state(now) == "not yet valid":
                        raise BadSignature(f"key {key.keyid} is not valid yet")
                    return Signed(key.keyid, key.state(now))
        names = ", ".join(keyid or "(none)" for keyid, _ in self.signatures)
        raise BadSignature(f"no trusted key has signed the envelope, which names {names}")

    def certificate(self) -> bytes:
        """The text of the certificate that the statement carries.

        Raises:
            BadEnvelope: the payload is not a statement about a certificate, or its subject is not
                the model that the certificate is about.
        """
        statement = _members(_json(self.payload), "the statement")
        if self.payload_type != PAYLOAD_TYPE or statement.get("_type") != STATEMENT:
            raise BadEnvelope(f"the payload is not an {STATEMENT}")
        if statement.get("predicateType") != CERTIFICATE:
            raise BadEnvelope(f"the statement is {statement.get('predicateType')!r}")
        predicate = _members(statement.get("predicate"), "the predicate")
        claim = _members(predicate.get("claim"), "the claim")
        subjects = statement.get("subject")
        if not isinstance(subjects, list) or len(cast("list[object]", subjects)) != 1:
            raise BadEnvelope("the statement has not exactly one subject")
        subject = _members(cast("list[object]", subjects)[0], "the subject")
        if subject.get("digest") != _digest(str(claim.get("model"))):
            raise BadEnvelope("the statement's subject is not the certificate's model")
        return json.dumps(predicate, allow_nan=False).encode()


def read_envelope(data: bytes) -> Envelope | None:
    """The envelope that a text is; None where it is JSON of another kind, or no JSON.

    Raises:
        BadEnvelope: it has a payload, and is malformed.
    """
    try:
        members = _members(_json(data), "the text")
    except BadEnvelope:
        return None
    if "payloadType" not in members:
        return None
    signatures = members.get("signatures")
    if not isinstance(signatures, list) or not (
        0 < len(cast("list[object]", signatures)) <= MAX_SIGNATURES
    ):
        raise BadEnvelope(f"the envelope has not 1 to {MAX_SIGNATURES} signatures")
    return Envelope(
        payload_type=_text(members["payloadType"]),
        payload=_bytes(members.get("payload")),
        signatures=tuple(_signature(entry) for entry in cast("list[object]", signatures)),
    )


def _signature(entry: object) -> tuple[str, bytes]:
    members = _members(entry, "a signature")
    return _text(members.get("keyid", "")), _bytes(members.get("sig"))


def _verifies(key: TrustedKey, signature: bytes, message: bytes) -> bool:
    try:
        key.public.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _authenticated(payload_type: str, payload: bytes) -> bytes:
    """The pre-authentication encoding of DSSE v1."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _json(data: bytes) -> object:
    try:
        return json.loads(data, object_pairs_hook=unique, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        raise BadEnvelope(f"not strict JSON: {error}") from error


def _members(value: object, what: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise BadEnvelope(f"{what} is not a JSON object")
    return cast("dict[str, object]", value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise BadEnvelope("a member of the envelope is not text")
    return value


def _bytes(value: object) -> bytes:
    """Base64, in either alphabet: DSSE leaves the choice."""
    text = _text(value).replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadEnvelope(f"a member of the envelope is not base64: {error}") from error
