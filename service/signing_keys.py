"""Ed25519 keys: made, kept in files, published and retired by key id.

A private key is a PEM file that only its owner may read. Public keys are published as a key set:

    {"keys": [{"keyid": hex, "type": "ed25519", "public_key": base64 of 32 bytes,
               "not_before": RFC 3339, "not_after": RFC 3339 or null}]}

The key id is the SHA-256 of the 32 bytes. A retired key stays in its set, with `not_after`, for
what it has signed; a key that was lost is taken out of the set, and its signatures with it.
"""

import base64
import binascii
import hashlib
import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeAlias, cast

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from verifier.errors import InvalidRequest

KEY_BYTES = 2**20  #: the most that a file of keys may have
OWNER_ONLY = stat.S_IRUSR | stat.S_IWUSR

KeyState: TypeAlias = Literal["current", "retired", "not yet valid"]


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A public key, and when it signs."""

    public: Ed25519PublicKey
    not_before: datetime | None = None
    not_after: datetime | None = None

    @property
    def keyid(self) -> str:
        """The hex SHA-256 of the raw public key."""
        return keyid_of(self.public)

    def state(self, now: datetime) -> KeyState:
        """Whether it signs now."""
        if self.not_before is not None and now < self.not_before:
            return "not yet valid"
        return "retired" if self.not_after is not None and self.not_after <= now else "current"

    def to_json(self) -> dict[str, object]:
        """Its entry of a key set."""
        return {
            "keyid": self.keyid,
            "type": "ed25519",
            "public_key": base64.b64encode(self.public.public_bytes_raw()).decode(),
            "not_before": _time_text(self.not_before),
            "not_after": _time_text(self.not_after),
        }


def keyid_of(public: Ed25519PublicKey) -> str:
    """The hex SHA-256 of the raw public key."""
    return hashlib.sha256(public.public_bytes_raw()).hexdigest()


# --- Private keys --------------------------------------------------------------------------------


def make_private_key(path: Path) -> Ed25519PrivateKey:
    """A new private key in a new file that only its owner may read.

    Raises:
        InvalidRequest: the file exists, or cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
    except OSError as error:
        raise InvalidRequest(
            f"the key file {str(path)!r} cannot be made: {error.strerror}",
            fix="name a file that does not exist, in a folder that does",
        ) from error
    with os.fdopen(file, "wb") as out:
        out.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        out.flush()
        os.fsync(out.fileno())
    return key


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """The private key in a PEM file.

    Raises:
        InvalidRequest: the file cannot be read, is not such a key, or others may read it.
    """
    data = _read(path)
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InvalidRequest(
            f"others may read or write the key file {str(path)!r}", fix=f"chmod 600 {path}"
        )
    key = None
    with suppress(ValueError, TypeError, UnsupportedAlgorithm):
        key = load_pem_private_key(data, password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidRequest(
            f"{str(path)!r} is not an unencrypted Ed25519 private key in PEM",
            fix="make one with `lipcert signing-keys new`",
        )
    return key


# --- Key sets ------------------------------------------------------------------------------------


def read_trusted_keys(path: Path) -> tuple[TrustedKey, ...]:
    """The keys of a key set, or the one public key of a PEM file.

    Raises:
        InvalidRequest: the file cannot be read, or is neither.
    """
    data = _read(path)
    if data.lstrip().startswith(b"-----BEGIN"):
        key = None
        with suppress(ValueError, TypeError, UnsupportedAlgorithm):
            key = load_pem_public_key(data)
        if not isinstance(key, Ed25519PublicKey):
            raise _not_keys(path, "its PEM is not an Ed25519 public key")
        return (TrustedKey(key),)
    try:
        members = json.loads(data)
        keys = tuple(_trusted(entry) for entry in members["keys"])
    except (ValueError, RecursionError, KeyError, TypeError, binascii.Error) as error:
        raise _not_keys(path, f"it is not a key set: {error}") from error
    return keys


def write_trusted_keys(path: Path, keys: tuple[TrustedKey, ...]) -> None:
    """A key set's file, replaced as a whole.

    Raises:
        InvalidRequest: it cannot be written.
    """
    text = json.dumps({"keys": [key.to_json() for key in keys]}, indent=2) + "\n"
    beside = path.with_name(path.name + ".new")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise InvalidRequest(
            f"the key set {str(path)!r} cannot be written: {error.strerror}",
            fix="give a writable path",
        ) from error


def with_new_key(
    keys: tuple[TrustedKey, ...], public: Ed25519PublicKey, not_after: datetime | None
) -> tuple[TrustedKey, ...]:
    """The set with one key more, which signs from now on."""
    now = datetime.now(UTC).replace(microsecond=0)
    return (*keys, TrustedKey(public, not_before=now, not_after=not_after))


def with_retired(keys: tuple[TrustedKey, ...], keyid: str, at: datetime) -> tuple[TrustedKey, ...]:
    """The set in which the keys of this id (or its beginning) sign no longer.

    Raises:
        InvalidRequest: not exactly one key has such an id.
    """
    chosen = [key.keyid for key in keys if key.keyid.startswith(keyid)]
    if len(chosen) != 1 or not keyid:
        raise InvalidRequest(
            f"{len(chosen)} keys of the set have an id that begins with {keyid!r}",
            fix=f"give one of {[key.keyid for key in keys]}",
        )
    return tuple(replace(key, not_after=at) if key.keyid == chosen[0] else key for key in keys)


def _trusted(entry: object) -> TrustedKey:
    members = cast("Mapping[str, str | None]", entry)
    if members["type"] != "ed25519":
        raise ValueError(f"a key has type {members['type']!r}")
    raw = base64.b64decode(members["public_key"] or "", validate=True)
    key = TrustedKey(
        Ed25519PublicKey.from_public_bytes(raw),
        _time(members.get("not_before")),
        _time(members.get("not_after")),
    )
    if members["keyid"] != key.keyid:
        raise ValueError(f"key id {members['keyid']!r} is not that of its public key")
    return key


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return time


def _time_text(time: datetime | None) -> str | None:
    return None if time is None else time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(KEY_BYTES + 1)
    except OSError as error:
        raise InvalidRequest(
            f"the key file {str(path)!r} cannot be read: {error.strerror}",
            fix="name a readable file",
        ) from error
    if KEY_BYTES < len(data):
        raise InvalidRequest(
            f"the key file {str(path)!r} has more than {KEY_BYTES} bytes", fix="name a key file"
        )
    return data


def _not_keys(path: Path, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"{str(path)!r} holds no trusted keys: {why}",
        fix="give a key set of `lipcert signing-keys new`, or an Ed25519 public key in PEM",
    )
