"""`lipcert sign`, `lipcert signing-keys`, and what `check` and `gate` need of signatures.

`cryptography` is imported where a signature or a key is asked for: plain checks do without.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service import terminal

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from service.gate import Decision
    from service.signing import Envelope
    from service.signing_keys import TrustedKey
    from verifier.checker import Verdict

SIGNING_KEY = "LIPCERT_SIGNING_KEY"
TRUSTED_KEYS = "LIPCERT_TRUSTED_KEYS"

KeySet = Annotated[Path, typer.Option(help="The key set, with the public keys.")]

keys = typer.Typer(
    name="signing-keys",
    help="Ed25519 keys that sign certificates: make, list, retire.",
    no_args_is_help=True,
)


def add_signing(app: typer.Typer) -> None:
    """Gives the command its parts that sign."""
    app.command()(sign)
    app.add_typer(keys)


# --- Commands ------------------------------------------------------------------------------------


def sign(
    certificate: Annotated[Path, typer.Argument(metavar="CERTIFICATE", help="The JSON file.")],
    model: Annotated[Path, typer.Option(help="The ONNX file that it is about.")],
    key: Annotated[
        Path | None, typer.Option(help="The private key, in PEM ($LIPCERT_SIGNING_KEY).")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The model's name (its file's).")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the envelope here, not to standard output.")
    ] = None,
) -> int:
    """Signs a certificate that the checker accepts: an in-toto statement in a DSSE envelope."""
    from service.files import read_bytes, write_text
    from service.signing import certificate_statement
    from service.signing import sign as signed
    from verifier.checker import check
    from verifier.errors import RequestRefused

    signer = private_key(key)
    text = read_bytes(certificate, "the certificate", 2**30)
    verdict = check(text, read_bytes(model, "the model", 2**31))
    if not verdict.valid:
        raise RequestRefused(
            f"the certificate is not signed, the checker rejects it: {verdict.reason}",
            fix="sign what `lipcert check` accepts",
            node=verdict.node,
        )
    envelope = signed(certificate_statement(json.loads(text), name or model.name), signer)
    if out is None:
        terminal.print_json(envelope)
    else:
        write_text(out, terminal.json_text(envelope))
    return 0


@keys.command("new")
def new_key(
    key: Annotated[Path, typer.Option(help="The private key's file, which is made.")],
    trusted: KeySet,
    days: Annotated[
        float | None, typer.Option(help="Days after which the key is retired (never).")
    ] = None,
) -> int:
    """Makes a private key, and adds its public key to a key set, which may be new."""
    from service.signing_keys import (
        make_private_key,
        read_trusted_keys,
        with_new_key,
        write_trusted_keys,
    )

    known = read_trusted_keys(trusted) if trusted.exists() else ()
    end = None if days is None else _after(days)
    made = with_new_key(known, make_private_key(key).public_key(), end)
    write_trusted_keys(trusted, made)
    typer.echo(made[-1].keyid)
    return 0


@keys.command("list")
def list_keys(trusted: KeySet) -> int:
    """The keys of a set, and whether they are current."""
    from service.signing_keys import read_trusted_keys

    now = datetime.now(UTC)
    for key in read_trusted_keys(trusted):
        typer.echo(f"{key.keyid}  {key.state(now)}")
    return 0


@keys.command("retire")
def retire_key(
    keyid: Annotated[str, typer.Argument(metavar="KEYID", help="Its id, or how that begins.")],
    trusted: KeySet,
) -> int:
    """States that a key signs no longer. What it has signed can still be verified."""
    from service.signing_keys import read_trusted_keys, with_retired, write_trusted_keys

    at = datetime.now(UTC).replace(microsecond=0)
    write_trusted_keys(trusted, with_retired(read_trusted_keys(trusted), keyid, at))
    return 0


def _after(days: float) -> datetime:
    from verifier.errors import InvalidRequest

    try:
        return datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)
    except (OverflowError, ValueError) as error:
        raise InvalidRequest(
            f"{days} days from now is no date", fix="give a number of days", pointer="/days"
        ) from error


# --- Parts of other commands ---------------------------------------------------------------------


def private_key(path: Path | None) -> Ed25519PrivateKey:
    """The key of a file, or of the one that the environment names.

    Raises:
        InvalidRequest: there is none, or it is no key.
    """
    from service.signing_keys import read_private_key
    from verifier.errors import InvalidRequest

    named = os.environ.get(SIGNING_KEY)
    if path is None and not named:
        raise InvalidRequest(
            "no private key to sign with was named",
            fix=f"name its file, here or in ${SIGNING_KEY}; `lipcert signing-keys new` makes one",
        )
    return read_private_key(path or Path(named or ""))


def keys_to_trust(path: Path | None) -> Sequence[TrustedKey]:
    """The keys of a file, or of the one that the environment names; none where none is named.

    Raises:
        InvalidRequest: the file has no keys.
    """
    named = os.environ.get(TRUSTED_KEYS)
    if path is None and not named:
        return ()
    from service.signing_keys import read_trusted_keys

    return read_trusted_keys(path or Path(named or ""))


def attestation_text(decision: Decision, policy: bytes, name: str, key: Ed25519PrivateKey) -> str:
    """The signed summary of a gate's decision, as JSON text."""
    from service.signing import gate_statement
    from service.signing import sign as signed

    return terminal.json_text(signed(gate_statement(decision, policy, name), key))


@dataclass(frozen=True, slots=True)
class Opened:
    """A certificate taken out of what may be around it, or why it cannot be."""

    certificate: bytes
    signature: dict[str, object] | None = None  #: key id and state; null state: not verified
    rejection: Verdict | None = None


def opened_text(text: bytes, trusted: Sequence[TrustedKey]) -> Opened:
    """The certificate in a file, signed or not. Where keys are trusted, one must have signed it."""
    if not trusted and b'"payloadType"' not in text:
        return Opened(text)
    from service.signing import BadEnvelope, BadSignature, read_envelope

    try:
        envelope = read_envelope(text)
        if envelope is None:
            return _unsigned(text) if trusted else Opened(text)
        signature = _signature(envelope, trusted)
        return Opened(envelope.certificate(), signature)
    except BadEnvelope as error:
        return Opened(text, rejection=_rejection("malformed", str(error)))
    except BadSignature as error:
        return Opened(text, rejection=_rejection("signature-rejected", str(error)))


def _signature(envelope: Envelope, trusted: Sequence[TrustedKey]) -> dict[str, object]:
    if not trusted:
        return {"keyid": envelope.signatures[0][0], "state": None}
    signed = envelope.verify(trusted)
    return {"keyid": signed.keyid, "state": signed.state}


def _unsigned(text: bytes) -> Opened:
    reason = "the certificate is not signed, and a signature is required"
    return Opened(text, rejection=_rejection("unsigned", reason))


def _rejection(code: str, reason: str) -> Verdict:
    from verifier.checker import Verdict

    return Verdict(valid=False, code=code, reason=reason)
