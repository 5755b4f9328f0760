"""Signatures, made and verified; by an implementation that shares nothing with ours, too."""

import hashlib
import hmac
import subprocess
import sys
from base64 import b64decode, b64encode
from pathlib import Path

import pytest
from service_process import ROOT

from service.sealing import Seal, Unsealable
from service.webhooks import WebhookRejected, new_secret, signed_headers, verify_webhook

BODY = b'{"type":"job.finished","data":{}}'
NOW = 1_700_000_000


def hmac_by_hand(key: bytes, text: bytes) -> bytes:
    """HMAC-SHA256 from its definition, RFC 2104."""
    block = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block) + text).digest()
    return hashlib.sha256(bytes(byte ^ 0x5C for byte in block) + inner).digest()


def test_a_signature_is_what_the_standard_says() -> None:
    secret = new_secret()
    headers = signed_headers([secret], "m1", BODY, NOW)
    key = b64decode(secret.removeprefix("whsec_"))
    digest = hmac_by_hand(key, b"m1.1700000000." + BODY)
    assert len(key) == 32
    assert headers == {
        "webhook-id": "m1",
        "webhook-timestamp": str(NOW),
        "webhook-signature": "v1," + b64encode(digest).decode(),
    }


def test_the_standards_own_example_verifies() -> None:
    """The values of the specification's libraries: secret, message and signature by hmac alone."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - published
    body = b'{"test": 2432232314}'
    signed = b"msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330." + body
    digest = hmac.new(b64decode(secret[6:]), signed, "sha256").digest()
    assert b64encode(digest) == b"g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    headers = {
        "Webhook-Id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "Webhook-Timestamp": "1614265330",
        "Webhook-Signature": "v1," + b64encode(digest).decode(),
    }
    assert verify_webhook(secret, headers, body, now=1614265330.0) == {"test": 2432232314}


def test_while_a_secret_is_replaced_both_verify() -> None:
    old, new = new_secret(), new_secret()
    headers = signed_headers([new, old], "m1", BODY, NOW)
    for secret in (old, new):
        assert verify_webhook(secret, headers, BODY, float(NOW))["type"] == "job.finished"
    with pytest.raises(WebhookRejected, match="signature"):
        verify_webhook(new_secret(), headers, BODY, float(NOW))


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-id": "m2"},
        {"webhook-timestamp": str(NOW + 1)},
        {"webhook-signature": "v1,AAAA"},
        {"webhook-signature": "v2,é"},
        {"webhook-signature": ""},
    ],
)
def test_what_was_changed_on_the_way_is_rejected(change: dict[str, str]) -> None:
    secret = new_secret()
    headers = signed_headers([secret], "m1", BODY, NOW)
    with pytest.raises(WebhookRejected, match="signature"):
        verify_webhook(secret, {**headers, **change}, BODY, float(NOW))
    with pytest.raises(WebhookRejected, match="signature"):
        verify_webhook(secret, headers, BODY + b" ", float(NOW))


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_header_that_is_missing_is_rejected(missing: str) -> None:
    secret = new_secret()
    headers = signed_headers([secret], "m1", BODY, NOW)
    del headers[missing]
    with pytest.raises(WebhookRejected, match="missing"):
        verify_webhook(secret, headers, BODY, float(NOW))


@pytest.mark.parametrize(
    ("off_s", "is_fresh"), [(-301.0, False), (-300.0, True), (300.0, True), (301.0, False)]
)
def test_a_message_is_fresh_for_five_minutes(off_s: float, is_fresh: bool) -> None:
    secret = new_secret()
    headers = signed_headers([secret], "m1", BODY, NOW)
    if is_fresh:
        verify_webhook(secret, headers, BODY, NOW + off_s)
    else:
        with pytest.raises(WebhookRejected, match="old"):
            verify_webhook(secret, headers, BODY, NOW + off_s)


def test_a_receiver_needs_the_standard_library_alone() -> None:
    code = "import sys, service.webhooks; print(*{n.partition('.')[0] for n in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert set(done.stdout.split()) - set(sys.stdlib_module_names) == {"__main__", "service"}


def test_a_sealed_secret_opens_in_its_place_alone(tmp_path: Path) -> None:
    key = tmp_path / "webhook.key"
    seal = Seal(key)
    sealed = seal.close("whsec_x", "a")
    assert Seal(key).open(sealed, "a") == "whsec_x"
    assert "whsec" not in sealed
    assert key.stat().st_mode & 0o777 == 0o600
    with pytest.raises(Unsealable):
        seal.open(sealed, "b")
    with pytest.raises(Unsealable):
        seal.open(sealed[:-8] + "AAAAAAA=", "a")
    key.unlink()
    with pytest.raises(Unsealable):
        seal.open(sealed, "a")
    seal.close("whsec_y", "a")
    with pytest.raises(Unsealable):
        seal.open(sealed, "a")
    assert [path.name for path in tmp_path.iterdir()] == ["webhook.key"]
