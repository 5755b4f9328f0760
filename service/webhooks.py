"""Webhook signatures as Standard Webhooks has them: made by the service, verified by receivers.

    webhook-id         the message's name: the same whenever it is sent again
    webhook-timestamp  seconds since 1970, of this try
    webhook-signature  v1,<base64 of HMAC-SHA256(secret, "id.timestamp.body")>, one or several

A secret is whsec_<base64>. Standard library alone, so a receiver needs no more than this module:

    message = verify_webhook(secret, request.headers, request.body)
"""

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

PREFIX = "whsec_"
SECRET_BYTES = 32
TOLERANCE_S = 300  #: between the sender's clock and the receiver's, either way


class WebhookRejected(Exception):
    """A message that is not what a holder of the secret sent within the last minutes."""


def new_secret() -> str:
    """A secret of 256 random bits."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def signed_headers(keys: Sequence[str], message_id: str, body: bytes, now_s: int) -> dict[str, str]:
    """The three headers of a message; a signature for each secret, while one replaces another."""
    signatures = [f"v1,{_signature(key, message_id, str(now_s), body)}" for key in keys]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(now_s),
        "webhook-signature": " ".join(signatures),
    }


def verify_webhook(
    secret: str,
    headers: Mapping[str, str],
    body: bytes,
    now: float | None = None,
) -> dict[str, Any]:  # Any: JSON
    """The message that a request brings, if a holder of the secret sent it lately.

    Args:
        secret: whsec_<base64>, as the service gave it.
        headers: of the request; their case does not matter.
        body: the bytes as they came, before any parsing.
        now: seconds since 1970; else this machine's.

    Returns:
        {"type", "timestamp", "data"}. Keep `webhook-id` to know a message that comes twice.

    Raises:
        WebhookRejected: a header is missing, the time is off by more than five minutes, or no
            signature is the secret's.
    """
    said = {name.lower(): value for name, value in headers.items()}
    try:
        message_id, timestamp, signatures = (
            said[f"webhook-{name}"] for name in ("id", "timestamp", "signature")
        )
        sent = int(timestamp)
    except (KeyError, ValueError) as error:
        raise WebhookRejected("a webhook header is missing or malformed") from error
    if TOLERANCE_S < abs((time.time() if now is None else now) - sent):
        raise WebhookRejected("the message is too old, or from the future")
    expected = f"v1,{_signature(secret, message_id, timestamp, body)}".encode()
    # Every one is compared, and each in the same time wherever it differs.
    matches = [hmac.compare_digest(expected, one.encode()) for one in signatures.split()]
    if not any(matches):
        raise WebhookRejected("no signature is the secret's")
    return json.loads(body)


def _signature(secret: str, message_id: str, timestamp: str, body: bytes) -> str:
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError("a webhook secret is whsec_<base64>") from error
    signed = b".".join((message_id.encode(), timestamp.encode(), body))
    return base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
