"""Secrets that the service has to say again, sealed: the database alone does not give them away.

A webhook's secret signs every message, so a digest of it would not do. It is stored encrypted
(ChaCha20-Poly1305) under a key in a file of the data directory, which only its owner may read: a
copy of the database, a PostgreSQL server's operator or a backup of it has no secret. Whoever reads
the data directory has both; whoever loses the file rotates the secrets.

A sealed text is bound to its owner, `context`: in another row it does not open.
"""

import base64
import binascii
import os
import secrets
from pathlib import Path

KEY_BYTES = 32
NONCE_BYTES = 12


class Unsealable(Exception):
    """The key is not the one that the text was sealed with, or is gone; or it is another's text."""


def seal_context(tenant: str, webhook_id: str) -> str:
    """Whose secret a sealed text is."""
    return f"webhook {tenant} {webhook_id}"


class Seal:
    """The key, in a file that the first use makes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def close(self, text: str, context: str) -> str:
        """The sealed text."""
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

        if not self._path.exists():
            self._make()
        nonce = secrets.token_bytes(NONCE_BYTES)
        cipher = ChaCha20Poly1305(self._path.read_bytes())
        sealed = cipher.encrypt(nonce, text.encode(), context.encode())
        return base64.b64encode(nonce + sealed).decode()

    def open(self, sealed: str, context: str) -> str:
        """The text.

        Raises:
            Unsealable: it does not open here.
        """
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

        try:
            data = base64.b64decode(sealed, validate=True)
            cipher = ChaCha20Poly1305(self._path.read_bytes())
            text = cipher.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], context.encode())
        except (OSError, binascii.Error, ValueError, InvalidTag) as error:
            raise Unsealable(f"the secret cannot be read with {self._path.name}") from error
        return text.decode()

    def _make(self) -> None:
        """Make the key: whole or not at all, and only once, whoever else tries."""
        draft = self._path.with_name(f"{self._path.name}.{secrets.token_hex(8)}.part")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, self._path)  # fails where the file is there, as a rename would not
        except FileExistsError:
            pass
        finally:
            draft.unlink()
