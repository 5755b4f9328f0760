"""Webhooks through a real service: from a submission to a receiver that verifies."""

import base64
import hashlib
import hmac
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from service_fakes import model
from service_process import (
    ROOT,
    Service,
    child_of,
    eventually,
    free_port,
    kill,
    problem,
    settings_in,
)
from sqlalchemy import update
from webhook_receiver import Message, Receiver, status

from service import cli
from service.access import Scope
from service.serve import ready_database
from service.settings import Settings, from_environment
from service.store import keys
from service.store.coordination import now_ms
from service.store.engine import open_database
from service.store.tables import webhook_delivery
from verifier.errors import InvalidRequest

NOBODY = "0" * 32
ELSEWHERE = "https://8.8.8.8/"  #: may be told, and never is: no test makes anything happen to it


@pytest.fixture(scope="module")
def telling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that has webhooks, and keys; its client is the default tenant's admin."""
    settings = replace(
        settings_in(tmp_path_factory.mktemp("telling")), webhooks=True, webhook_loopback=True
    )
    text = key(settings, "admin")
    with closing(Service(settings)) as running:
        running.client.headers["Authorization"] = f"Bearer {text}"
        yield running


def key(settings: Settings, scope: Scope, tenant: str = "default") -> str:
    with ready_database(settings) as database, database.write() as connection:
        made = keys.add(connection, tenant, scope=scope, label="", expires=None, now=now_ms())
    return made[1]


def client(service: Service, scope: Scope, tenant: str = "default") -> httpx.Client:
    headers = {"Authorization": f"Bearer {key(service.settings, scope, tenant)}"}
    return httpx.Client(base_url=service.url, headers=headers, timeout=60.0)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with closing(Receiver()) as running:
        yield running


@pytest.fixture
def made(telling: Service) -> Iterator[Callable[..., dict[str, Any]]]:
    """Webhooks of the default tenant, removed after the test."""
    ids: list[str] = []

    def make(url: str = ELSEWHERE, **members: object) -> dict[str, Any]:
        answer = telling.client.post("/v1/webhooks", json={"url": url, **members})
        assert answer.status_code == 201, answer.text
        assert answer.headers["location"] == f"/v1/webhooks/{answer.json()['id']}"
        assert answer.headers["cache-control"] == "no-store"
        ids.append(answer.json()["id"])
        return answer.json()

    yield make
    for one in ids:
        assert telling.client.delete(f"/v1/webhooks/{one}").status_code == 204


def is_signed(message: Message, secret: str) -> bool:
    """Whether a message has the secret's signature, as the standard's text has it."""
    key = base64.b64decode(secret[len("whsec_") :])
    text = f"{message.id}.{message.headers['webhook-timestamp']}.".encode() + message.body
    expected = base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode()
    return f"v1,{expected}" in message.headers["webhook-signature"].split(" ")


def arrived(receiver: Receiver, count: int) -> list[Message]:
    """The first messages, as soon as there are so many."""
    return eventually(lambda: receiver.messages if count <= len(receiver.messages) else None)


def test_a_job_tells_of_its_start_and_end(
    telling: Service, receiver: Receiver, made: Callable[..., dict[str, Any]]
) -> None:
    hook = made(receiver.url, events=["job.started", "job.finished"], jobs="named")
    model_id = telling.upload(model("telling"))
    job = telling.submit(model_id, webhook=[hook["id"]])
    assert job["webhook"] == [hook["id"]]
    started, finished = arrived(receiver, 2)
    assert is_signed(started, hook["secret"])
    assert is_signed(finished, hook["secret"])
    assert [json.loads(one.body)["type"] for one in (started, finished)] == hook["events"]
    data, ended = json.loads(finished.body)["data"], telling.ended(job["id"])
    assert (data["job"], data["state"], data["bound"]) == (job["id"], "succeeded", 4.0)
    for name in ("certificate", "job"):
        assert telling.client.get(data["links"][name]).status_code == 200
    assert (data["certificate"], data["verdict"]) == (ended["certificate"], ended["verdict"])
    cached = telling.submit(model_id, webhook=[hook["id"]])
    assert cached["cached"]
    assert json.loads(arrived(receiver, 3)[2].body)["data"]["job"] == cached["id"]
    telling.submit(model_id)  # names nobody
    assert len(telling.client.get(f"/v1/webhooks/{hook['id']}/deliveries").json()["items"]) == 3


def _put_off(service: Service, webhook_id: str) -> bool:
    """Whether a message waits for its next try, which is a day away from now on."""
    waiting = update(webhook_delivery).where(
        webhook_delivery.c.webhook == webhook_id,
        webhook_delivery.c.state == "waiting",
        webhook_delivery.c.outcome == "status",
    )
    with closing(open_database(service.settings.database)) as database, database.write() as c:
        return c.execute(waiting.values(due=now_ms() + 86_400_000)).rowcount == 1


def test_a_message_is_sent_again_by_hand_and_signed_by_both_secrets(
    telling: Service, receiver: Receiver, made: Callable[..., dict[str, Any]]
) -> None:
    hook = made(receiver.url, jobs="named")
    path = f"/v1/webhooks/{hook['id']}"
    receiver.answer = status(404)
    telling.submit(telling.upload(model("again")), webhook=[hook["id"]])
    arrived(receiver, 1)

    def deliveries() -> list[dict[str, Any]]:
        return telling.client.get(f"{path}/deliveries").json()["items"]

    eventually(lambda: _put_off(telling, hook["id"]))
    (failed,) = deliveries()
    assert (failed["state"], failed["outcome"], failed["status"]) == ("waiting", "status", 404)
    rotated = telling.client.post(f"{path}/rotate").json()
    assert rotated["secret"] != hook["secret"]
    assert rotated["old_secret_until"] is not None
    receiver.answer = status(200)
    again = telling.client.post(f"{path}/deliveries/{failed['id']}/redeliver")
    assert again.status_code == 202
    messages = arrived(receiver, failed["tries"] + 1)
    assert {message.id for message in messages} == {failed["id"]}
    assert is_signed(messages[-1], hook["secret"])
    assert is_signed(messages[-1], rotated["secret"])
    (one,) = eventually(lambda: [one for one in deliveries() if one["state"] == "delivered"])
    assert one["ended"] is not None
    labels = {
        (sample.name, *sample.labels.values())
        for family in text_string_to_metric_families(telling.client.get("/metrics").text)
        for sample in family.samples
        if 0 < sample.value
    }
    assert {
        ("lipcert_webhook_deliveries", "delivered"),
        ("lipcert_webhooks", "enabled"),
    } <= labels


def test_a_killed_deliverer_is_replaced_and_sends_again(
    telling: Service, receiver: Receiver, made: Callable[..., dict[str, Any]]
) -> None:
    hook = made(receiver.url, jobs="named")
    receiver.answer = receiver.drip(b"HTTP/1.1 200 OK\r\nX: ")
    telling.submit(telling.upload(model("killed")), webhook=[hook["id"]])
    arrived(receiver, 1)
    kill(eventually(lambda: child_of(telling.process.pid, "service.deliverer")))
    receiver.answer = status(200)
    with (
        closing(open_database(telling.settings.database)) as database,
        database.write() as connection,
    ):
        # As if the time of the lease had passed.
        late = update(webhook_delivery).where(webhook_delivery.c.state == "sending")
        connection.execute(late.values(lease_until=0))
    first, second = arrived(receiver, 2)[:2]
    assert (first.id, first.body) == (second.id, second.body)
    assert telling.is_ready()


def test_the_example_of_the_documentation_receives(
    telling: Service,
    made: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = (ROOT / "docs" / "webhooks.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python receiver\n(.*?)```", text, re.DOTALL)
    url = f"http://127.0.0.1:{free_port()}/"
    monkeypatch.setenv("LIPCERT_WEBHOOK_SECRET", made(url)["secret"])
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, "webhooks.md", "exec"), names)  # noqa: S102 - our own page
    server = ThreadingHTTPServer(("127.0.0.1", httpx.URL(url).port or 0), names["Receiver"])
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    said: list[str] = []

    def hear() -> str | None:
        said.append(capsys.readouterr().out)  # a line may come in pieces
        return "".join(said) if said[-1].endswith("\n") else None

    try:
        assert httpx.post(url, content=b"{}").status_code == 400
        job = telling.submit(telling.upload(model("example")))
        assert eventually(hear) == f"job.finished /v1/jobs/{job['id']} 4.0\n"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "https://127.0.0.1/",
        "https://169.254.169.254/latest/meta-data",
        "https://[::ffff:127.0.0.1]/",
        "https://2130706433/",
        "https://user:secret@8.8.8.8/",
        "https://8.8.8.8:8443/",
        "gopher://8.8.8.8/",
        "http://10.0.0.1/",
    ],
)
def test_a_target_inside_is_refused(
    url: str, telling: Service, made: Callable[..., dict[str, Any]]
) -> None:
    answer = telling.client.post("/v1/webhooks", json={"url": url})
    assert (answer.status_code, problem(answer)["code"]) == (422, "webhook-target-refused")
    path = f"/v1/webhooks/{made()['id']}"
    answer = telling.client.patch(path, json={"url": url})
    assert (answer.status_code, problem(answer)["code"]) == (422, "webhook-target-refused")
    assert telling.client.get(path).json()["url"] == ELSEWHERE


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"url": 1},
        {"url": ELSEWHERE, "events": []},
        {"url": ELSEWHERE, "events": ["job.deleted"]},
        {"url": ELSEWHERE, "secret": "whsec_AAAA"},
        {"url": ELSEWHERE, "jobs": "mine"},
        {"url": ELSEWHERE, "label": "x" * 201},
    ],
)
def test_a_webhook_that_makes_no_sense_is_not_made(body: object, telling: Service) -> None:
    answer = telling.client.post("/v1/webhooks", json=body)
    assert (answer.status_code, problem(answer)["code"]) == (422, "invalid-request")


def test_there_are_only_so_many(telling: Service) -> None:
    with client(telling, "admin", "crowded") as crowded:
        answers = [crowded.post("/v1/webhooks", json={"url": ELSEWHERE}) for _ in range(21)]
        assert [answer.status_code for answer in answers] == [201] * 20 + [422]
        page = crowded.get("/v1/webhooks?limit=3").json()
        assert len(page["items"]) == 3
        assert page["next_cursor"] is not None


def test_a_disabled_webhook_is_promised_nothing(
    telling: Service, made: Callable[..., dict[str, Any]]
) -> None:
    hook = made(f"{ELSEWHERE}secret?token=x", enabled=False)
    model_id = telling.upload(model("disabled"))

    def refusals() -> set[tuple[int, str]]:
        answers = [
            telling.client.post("/v1/jobs", json={"model": model_id, "webhook": [hook["id"]]}),
            telling.client.post(f"/v1/webhooks/{hook['id']}/deliveries/{NOBODY}/redeliver"),
        ]
        return {(answer.status_code, problem(answer)["code"]) for answer in answers}

    assert refusals() == {(409, "webhook-disabled")}
    changed = telling.client.patch(
        f"/v1/webhooks/{hook['id']}", json={"enabled": True, "label": "x", "jobs": "named"}
    ).json()
    assert (changed["enabled"], changed["label"], changed["jobs"]) == (True, "x", "named")
    asked = {"model": model_id, "webhook": [hook["id"]]}
    answer = telling.client.post("/v1/jobs?validate_only=true", json=asked)
    assert answer.status_code == 200


def test_a_scope_shows_and_changes_what_it_may(
    telling: Service, made: Callable[..., dict[str, Any]]
) -> None:
    hook = made(f"{ELSEWHERE}secret?token=x")
    path = f"/v1/webhooks/{hook['id']}"
    with client(telling, "submit") as other:
        assert other.get(path).json()["url"] == "https://8.8.8.8"
        assert "token" not in other.get("/v1/webhooks").text
        assert other.post("/v1/webhooks", json={"url": ELSEWHERE}).status_code == 403
        assert other.patch(path, json={"label": ""}).status_code == 403
        assert other.post(f"{path}/rotate").status_code == 403
        assert other.delete(path).status_code == 403
    assert telling.client.get(path).json()["url"] == f"{ELSEWHERE}secret?token=x"
    assert hook["secret"] not in telling.client.get(path).text
    assert hook["secret"].encode() not in (telling.settings.data / "lipcert.db").read_bytes()
    assert telling.settings.webhook_key.stat().st_mode & 0o777 == 0o600


def test_a_webhook_of_another_tenant_is_not_there(
    telling: Service, made: Callable[..., dict[str, Any]]
) -> None:
    hook = made()
    path = f"/v1/webhooks/{hook['id']}"
    with client(telling, "admin", "foreign") as foreign:
        answers = [
            foreign.get(path),
            foreign.patch(path, json={"label": "mine"}),
            foreign.delete(path),
            foreign.post(f"{path}/rotate"),
            foreign.get(f"{path}/deliveries"),
            foreign.post(f"{path}/deliveries/{NOBODY}/redeliver"),
        ]
        assert [answer.status_code for answer in answers] == [404] * 6
        assert foreign.get("/v1/webhooks").json()["items"] == []
        data = model("foreign")
        headers = {"Content-Type": "application/octet-stream"}
        model_id = foreign.post("/v1/models", content=data, headers=headers).json()["id"]
        asked = {"model": model_id, "webhook": [hook["id"]]}
        answer = foreign.post("/v1/jobs", json=asked)
        assert (answer.status_code, problem(answer)["errors"][0]["pointer"]) == (404, "/webhook")
    assert telling.client.get(path).json()["label"] == ""


def test_the_operator_turns_them_on_by_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Settings] = []

    def serve(settings: Settings) -> int:
        seen.append(settings)
        return 0

    monkeypatch.setattr("service.serve.serve", serve)
    assert cli.run(["serve"]) == 0
    assert cli.run(["serve", "--webhooks", "--webhooks-to-loopback"]) == 0
    told = [(settings.webhooks, settings.webhook_loopback) for settings in seen]
    assert told == [(False, False), (True, True)]


def test_alone_a_deliverer_has_to_be_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIPCERT_WEBHOOKS", raising=False)
    command = [sys.executable, "-m", "service.deliverer", "--alone"]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert (done.returncode, "webhooks are off" in done.stderr) == (1, True)


def test_links_are_whole_where_the_operator_says_how_the_service_is_reached(
    own_service: Callable[..., Service], receiver: Receiver
) -> None:
    base = "https://lipcert.example.org/proofs"
    service = own_service(webhooks=True, webhook_loopback=True, public_url=base)
    service.client.post("/v1/webhooks", json={"url": receiver.url}).raise_for_status()
    job = service.submit(service.upload(model("linked")), wait=20)
    (message,) = arrived(receiver, 1)
    assert json.loads(message.body)["data"]["links"] == {
        "job": f"{base}/v1/jobs/{job['id']}",
        "certificate": f"{base}/v1/certificates/{job['certificate']}",
    }
    sarif = {"Accept": "application/sarif+json"}
    report = service.client.get(f"/v1/certificates/{job['certificate']}", headers=sarif).text
    assert f'"{base}/v1/models/{quote(job["model"])}/content"' in report
    assert service.client.get("/openapi.json").json()["servers"] == [{"url": base}]


@pytest.mark.parametrize(
    "text", ["example.org", "ftp://a.b", "https://a.b?c", "https://a@b", "x y"]
)
def test_what_reaches_no_service_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="PUBLIC_URL") as refusal:
        from_environment({"LIPCERT_PUBLIC_URL": text})
    assert "https://HOST" in refusal.value.fix
    assert from_environment({"LIPCERT_PUBLIC_URL": "https://a.b/c/"}).public_url == "https://a.b/c"


def test_a_container_tells_whether_its_deliverer_lives(telling: Service, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "service.deliverer", "--is-alive"]

    def is_alive(data: Path) -> bool:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "LIPCERT_DATA": str(data)}
        return subprocess.run(command, env=environment, check=False).returncode == 0

    eventually(lambda: is_alive(telling.settings.data))
    with ready_database(replace(telling.settings, data=tmp_path)):
        assert not is_alive(tmp_path)


def test_out_of_the_box_nothing_is_told(service: Service) -> None:
    model_id = service.upload(model("quiet"))
    for answer in (
        service.client.post("/v1/webhooks", json={"url": ELSEWHERE}),
        service.client.post("/v1/jobs", json={"model": model_id, "webhook": [NOBODY]}),
        service.client.post(f"/v1/webhooks/{NOBODY}/rotate"),
    ):
        assert (answer.status_code, problem(answer)["code"]) == (403, "webhooks-off")
        assert "--webhooks" in problem(answer)["fix"]
    assert service.client.get("/v1/webhooks").json()["items"] == []
    assert child_of(service.process.pid, "service.deliverer") is None
