"""Deliveries, with a real receiver, and names, clock and chance of the test's own.

Nothing is waited for but receivers: hours pass by setting the clock.
"""

import asyncio
import logging
import os
import socket
import ssl
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy.exc import OperationalError
from webhook_receiver import Receiver, status
from webhook_stage import DAY_MS, LEASE_MS, START, TENANT, TRUST, Stage

from service import deliverer as module
from service.deliverer import longest_wait_s
from service.delivery import post
from service.sealing import Seal, seal_context
from service.store import deliverers, tries, webhooks
from service.store.webhooks import OVERLAP_MS, Webhook
from service.webhook_targets import Target
from service.webhooks import WebhookRejected, new_secret, verify_webhook

# --- Sending -------------------------------------------------------------------------------------


def test_a_message_is_signed_by_both_secrets_during_a_rotation(stage: Stage) -> None:
    webhook_id, old = stage.hook()
    secret = new_secret()
    sealed = Seal(stage.settings.webhook_key).close(secret, seal_context(TENANT, webhook_id))
    with stage.database.write() as connection:
        webhooks.rotate(connection, TENANT, webhook_id, sealed, stage.now)
    for _ in range(2):
        assert stage.put() == 1
        stage.turn()
        stage.now += OVERLAP_MS
    during, after = stage.receiver.messages
    sent = [START / 1000, (START + OVERLAP_MS) / 1000]
    for key in (old, secret):
        assert verify_webhook(key, during.headers, during.body, sent[0])["data"] == {"n": 1}
    assert verify_webhook(secret, after.headers, after.body, sent[1])
    with pytest.raises(WebhookRejected):
        verify_webhook(old, after.headers, after.body, sent[1])
    stage.turn()  # old secrets are removed in the hour after
    assert stage.find(webhook_id).old_sealed is None


def test_a_failed_try_is_repeated_later_and_later_under_one_id(stage: Stage) -> None:
    webhook_id, secret = stage.hook()
    stage.receiver.answer = status(503)
    assert stage.put() == 1
    waits: list[float] = []
    for _ in range(8):
        stage.turn(2)  # what is not due is not sent
        waits.append((stage.told(webhook_id)[0].due - stage.now) / 1000)
        stage.now = stage.told(webhook_id)[0].due
    (one,) = stage.told(webhook_id)
    assert waits[:7] == pytest.approx([longest_wait_s(n) for n in range(1, 8)], abs=0.001)
    assert (waits[0], waits[6]) == (5.0, 36_000.0)
    assert (one.state, one.outcome, one.status, one.tries) == ("failed", "status", 503, 8)
    messages = stage.receiver.messages
    assert len(messages) == 8
    assert {message.id for message in messages} == {one.id}
    assert len({message.headers["webhook-timestamp"] for message in messages}) == 8
    last = messages[-1]
    assert verify_webhook(secret, last.headers, last.body, float(last.headers["webhook-timestamp"]))


def test_waits_are_spread_over_their_whole_length(stage: Stage) -> None:
    webhook_id, _ = stage.hook()
    stage.receiver.answer = status(503)
    stage.chance = 0.25
    stage.put()
    stage.turn()
    assert stage.told(webhook_id)[0].due - stage.now == 1250


def test_what_was_sent_and_not_marked_is_sent_again_under_the_same_id(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash between the two: the receiver hears it twice, and can tell."""
    webhook_id, _ = stage.hook()
    stage.put()
    with monkeypatch.context() as crashing:
        crashing.setattr(module.tries, "settle", None)
        stage.turn()
    assert stage.told(webhook_id)[0].state == "sending"
    stage.turn()
    assert len(stage.receiver.messages) == 1  # whoever sends may still be alive
    stage.now += LEASE_MS
    stage.turn()
    first, second = stage.receiver.messages
    assert (first.id, first.body) == (second.id, second.body)
    assert stage.told(webhook_id)[0].state == "delivered"


def test_a_database_that_is_away_is_waited_for(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    known, answers = tries.due, iter([False, False, True])

    def due(*given: Any) -> Any:  # noqa: ANN401 - as `tries.due`
        if not next(answers, True):
            raise OperationalError("SELECT", {}, Exception("away"))
        return known(*given)

    monkeypatch.setattr(module.tries, "due", due)
    webhook_id, _ = stage.hook()
    stage.put()

    async def work() -> None:
        stop = asyncio.Event()
        running = asyncio.create_task(stage.deliverer().run(stop))
        async with asyncio.timeout(180.0):
            while stage.told(webhook_id)[0].state != "delivered":
                await asyncio.sleep(0.01)
        stop.set()
        await running

    asyncio.run(work())
    assert caplog.messages.count("the database does not answer: OperationalError") == 1


def test_a_deliverer_says_that_it_lives_and_that_it_stops(stage: Stage) -> None:
    node = os.uname().nodename

    def lives(where: str) -> bool:
        with stage.database.read() as connection:
            return deliverers.is_alive(connection, where, stage.now)

    async def work() -> None:
        stop, one = asyncio.Event(), stage.deliverer()
        await one.turn()
        assert (lives(node), lives("elsewhere")) == (True, False)
        stage.now += deliverers.SEEN_MS
        assert not lives(node)
        await one.turn()
        assert lives(node)
        stop.set()
        await one.run(stop)
        assert not lives(node)

    asyncio.run(work())


def test_an_orderly_stop_gives_a_try_back(stage: Stage) -> None:
    webhook_id, _ = stage.hook()
    stage.receiver.answer = stage.receiver.drip(b"HTTP/1.1 200 OK\r\nX: ")
    stage.put()

    async def work() -> None:
        stop = asyncio.Event()
        running = asyncio.create_task(stage.deliverer().run(stop))
        async with asyncio.timeout(180.0):
            while not stage.receiver.messages:
                await asyncio.sleep(0.01)
        stop.set()
        await running

    asyncio.run(work())
    (one,) = stage.told(webhook_id)
    assert (one.state, one.tries) == ("waiting", 0)


# --- Receivers -----------------------------------------------------------------------------------


def test_a_slow_loris_is_left_after_the_whole_time(stage: Stage) -> None:
    webhook_id, _ = stage.hook()
    stage.settings = replace(stage.settings, webhook_timeout_s=0.3)
    stage.receiver.answer = stage.receiver.drip(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    stage.put()
    stage.turn()
    (one,) = stage.told(webhook_id)
    assert (one.outcome, one.status) == ("timeout", None)


@pytest.mark.parametrize("head", ["Content-Length: 1000000000", "Connection: close"])
def test_an_answer_without_end_is_not_read_to_its_end(stage: Stage, head: str) -> None:
    webhook_id, _ = stage.hook()
    stage.receiver.answer = stage.receiver.drip(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode())
    stage.put()
    stage.turn()
    assert stage.told(webhook_id)[0].outcome == "delivered"


def test_a_redirect_is_not_followed(stage: Stage) -> None:
    webhook_id, _ = stage.hook()
    stage.receiver.answer = status(307, Location="/elsewhere")
    stage.put()
    stage.turn()
    assert [message.path for message in stage.receiver.messages] == ["/hook?token=sesame"]
    (one,) = stage.told(webhook_id)
    assert (one.state, one.outcome, one.status) == ("waiting", "status", 307)


def test_what_is_no_http_is_no_answer(stage: Stage) -> None:
    def greet(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"220 smtp.example.org\r\n")

    webhook_id, _ = stage.hook()
    stage.receiver.answer = greet
    stage.put()
    stage.turn()
    assert stage.told(webhook_id)[0].outcome == "broken"
    stage.receiver.close()
    stage.now = stage.told(webhook_id)[0].due
    stage.turn()
    assert stage.told(webhook_id)[0].outcome == "unreachable"


def test_a_receiver_that_is_gone_is_told_nothing_more(stage: Stage) -> None:
    webhook_id, _ = stage.hook()
    stage.receiver.answer = status(410)
    stage.put()
    stage.put()
    stage.turn(2)
    assert len(stage.receiver.messages) == 1
    assert {one.outcome for one in stage.told(webhook_id)} == {"gone", "disabled"}
    found = stage.find(webhook_id)
    assert (found.enabled, found.disabled) == (False, "gone")


def test_five_days_of_failure_disable_a_webhook(stage: Stage) -> None:
    webhook_id, _ = stage.hook()
    stage.receiver.answer = status(500)

    def fail_after(days: float) -> Webhook:
        stage.now = START + round(days * DAY_MS)
        stage.put()
        stage.turn(9)
        return stage.find(webhook_id)

    assert fail_after(0).failing_since == START
    assert fail_after(4.9).enabled
    stage.receiver.answer = status(200)
    assert fail_after(4.95).failing_since is None  # one that arrives clears the record
    stage.receiver.answer = status(500)
    assert fail_after(5).enabled
    assert fail_after(9.99).enabled
    found = fail_after(10)
    assert (found.enabled, found.disabled) == (False, "failing")
    assert {one.state for one in stage.told(webhook_id)} == {"failed", "delivered"}
    assert stage.put() == 0


# --- Where it goes -------------------------------------------------------------------------------


def test_a_name_is_resolved_once_and_its_address_used(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up: list[object] = []
    known = socket.getaddrinfo

    def look_up(*given: Any, **more: Any) -> Any:  # noqa: ANN401 - whatever it is called with
        looked_up.append(given[0])
        return known(*given, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    webhook_id, _ = stage.hook(f"http://hooks.example.org:{stage.receiver.port}/")
    stage.put()
    stage.turn()
    assert stage.told(webhook_id)[0].state == "delivered"
    assert stage.asked == ["hooks.example.org"]
    assert "hooks.example.org" not in looked_up
    assert stage.receiver.messages[0].headers["host"] == f"hooks.example.org:{stage.receiver.port}"


@pytest.mark.parametrize("names", [["192.0.2.1"], ["127.0.0.1", "10.0.0.1"]])
def test_a_name_that_has_changed_its_mind_is_not_followed(stage: Stage, names: list[str]) -> None:
    webhook_id, _ = stage.hook(f"http://hooks.example.org:{stage.receiver.port}/")
    stage.names = names
    stage.put()
    stage.turn()
    assert stage.told(webhook_id)[0].outcome == "target-refused"
    assert stage.receiver.messages == []
    stage.names = []
    stage.now = stage.told(webhook_id)[0].due
    stage.turn()
    assert stage.told(webhook_id)[0].outcome == "unresolved"


def test_the_development_switch_is_asked_at_every_try(stage: Stage) -> None:
    webhook_id, _ = stage.hook()
    stage.settings = replace(stage.settings, webhook_loopback=False)
    stage.put()
    stage.turn()
    assert stage.told(webhook_id)[0].outcome == "target-refused"
    assert stage.receiver.messages == []


def test_no_proxy_of_the_environment_is_asked(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    webhook_id, _ = stage.hook()
    stage.put()
    stage.turn()
    assert stage.told(webhook_id)[0].state == "delivered"


def test_a_secret_that_cannot_be_read_is_no_signature(stage: Stage) -> None:
    webhook_id, _ = stage.hook()
    stage.settings.webhook_key.unlink()
    stage.put()
    stage.turn()
    assert stage.told(webhook_id)[0].outcome == "secret-lost"
    assert stage.receiver.messages == []


def test_the_log_names_deliveries_and_no_secret(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lipcert")
    _, secret = stage.hook()
    stage.put()
    stage.turn()
    (record,) = [one for one in caplog.records if one.name == "lipcert.deliverer"]
    told: dict[str, object] = vars(record)["with"]
    assert told["outcome"] == "delivered"
    assert told["delivery"] == stage.receiver.messages[0].id
    text = str(vars(record))
    assert "sesame" not in text
    assert secret not in text


# --- TLS -----------------------------------------------------------------------------------------


def authority(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(of a server of this name, of those who trust the authority that vouches for it)."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / f"{name}.pem"
    pem.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    return server, ssl.create_default_context(cafile=str(pem))


def test_tls_is_with_the_name_and_not_with_the_address(tmp_path: Path) -> None:
    server, trust = authority(tmp_path, "hooks.example.org")
    asked: list[str | None] = []
    server.sni_callback = lambda _socket, name, _context: asked.append(name)

    with closing(Receiver(tls=server)) as receiver:

        def outcome(host: str, *addresses: str, known: ssl.SSLContext = trust) -> str:
            target = Target(scheme="https", host=host, port=receiver.port, path="/")
            sending = post(target, addresses, {}, b"{}", timeout_s=60.0, trust=known)
            return asyncio.run(sending).outcome

        # The first address takes no connections: the next one is tried.
        assert outcome("hooks.example.org", "127.0.0.2", "127.0.0.1") == "delivered"
        assert asked == ["hooks.example.org"]
        assert receiver.messages[0].headers["host"] == f"hooks.example.org:{receiver.port}"
        assert outcome("other.example.org", "127.0.0.1") == "untrusted"
        assert outcome("hooks.example.org", "127.0.0.1", known=TRUST) == "untrusted"
        assert len(receiver.messages) == 1
