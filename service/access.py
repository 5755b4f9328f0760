"""API keys: their text, what they allow, and the check of one that a request brings.

    lck_<8 characters of id>_<43 characters of secret>

The secret has 256 random bits, so its SHA-256 is stored and no slower hash is needed. A data
directory that has never had a key is open to whoever reaches the address, which then has to be
loopback; from the first key on, every request brings one.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import Literal, TypeAlias

Scope: TypeAlias = Literal["read", "submit", "admin"]

#: Each allows what stands before it too.
SCOPES: tuple[Scope, ...] = ("read", "submit", "admin")

_TEXT = re.compile(r"lck_([0-9A-Za-z]{8})_([0-9A-Za-z_-]{43})")
_ID_CHARACTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key as it is stored: whose it is, and what it allows."""

    id: str
    tenant: str
    digest: str  #: hex SHA-256 of the secret
    scope: Scope
    label: str
    created: int
    expires: int | None
    revoked: int | None
    last_used: int | None  #: to the hour

    def allows(self, scope: Scope) -> bool:
        """Whether what needs this scope may be done with it."""
        return SCOPES.index(scope) <= SCOPES.index(self.scope)

    def is_valid(self, now: int) -> bool:
        """Whether it is neither expired nor revoked."""
        return self.revoked is None and (self.expires is None or now < self.expires)


def new_secret() -> tuple[str, str, str]:
    """(id, digest, text) of a new key; the text is shown once and kept nowhere."""
    key_id = "".join(secrets.choice(_ID_CHARACTERS) for _ in range(8))
    secret = secrets.token_urlsafe(32)
    return key_id, _digest(secret), f"lck_{key_id}_{secret}"


def parts_of(text: str) -> tuple[str, str] | None:
    """(id, secret) of a key's text; None where it is none."""
    found = _TEXT.fullmatch(text)
    return None if found is None else (found[1], found[2])


def matches(key: ApiKey, secret: str) -> bool:
    """Whether a secret is this key's; takes the same time wherever it differs."""
    return hmac.compare_digest(key.digest, _digest(secret))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
