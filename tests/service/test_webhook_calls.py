"""Webhooks from the client and the command line; what a light installation has is enough."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import httpx
import pytest
from service_fakes import model
from service_process import Service, eventually, free_port, settings_in
from webhook_receiver import Receiver

from service import cli
from service.client import AsyncClient, Client

URL = "https://8.8.8.8/hook"  #: may be told, and never is


@pytest.fixture(scope="module")
def telling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that has webhooks."""
    settings = settings_in(tmp_path_factory.mktemp("calling"))
    with closing(Service(replace(settings, webhooks=True, webhook_loopback=True))) as running:
        yield running


def test_a_webhook_from_python(telling: Service) -> None:
    with closing(Receiver()) as receiver, Client(telling.url) as client:
        made = client.create_webhook(receiver.url, jobs="named", label="python")
        assert made["secret"].startswith("whsec_")
        hook = made["id"]
        assert client.webhook(hook)["label"] == "python"
        assert hook in [one["id"] for one in client.webhooks()]
        job = telling.submit(telling.upload(model("python")), webhook=[hook], wait=30)
        (told,) = eventually(
            lambda: [one for one in client.deliveries(hook) if one["state"] == "delivered"]
        )
        assert (told["event"], told["subject"]) == ("job.finished", job["id"])
        assert client.redeliver(hook, told["id"])["id"] == told["id"]
        eventually(lambda: 2 <= len(receiver.messages))
        assert client.rotate_webhook(hook)["secret"] != made["secret"]
        assert client.change_webhook(hook, enabled=False)["enabled"] is False
        client.delete_webhook(hook)
        assert hook not in [one["id"] for one in client.webhooks()]


def test_the_same_to_be_awaited(telling: Service) -> None:
    async def work() -> list[object]:
        async with AsyncClient(telling.url) as client:
            made = await client.create_webhook(URL, events=["gate.finished"])
            hook = made["id"]
            changed = await client.change_webhook(hook, label="later")
            assert changed == await client.webhook(hook)
            assert changed in await client.webhooks()
            assert await client.deliveries(hook) == []
            rotated = await client.rotate_webhook(hook)
            await client.delete_webhook(hook)
            return [changed["label"], changed["events"], rotated["secret"] != made["secret"]]

    assert asyncio.run(work()) == ["later", ["gate.finished"], True]


def test_webhooks_from_the_command_line(
    telling: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    def lipcert(*arguments: str, code: int = 0) -> str:
        assert cli.run(["webhooks", *arguments, "--server", telling.url]) == code
        return capsys.readouterr().out

    with closing(Receiver()) as receiver:
        secret = lipcert("new", receiver.url, "--jobs", "named", "--label", "shell")
        assert secret.startswith("whsec_")
        (line,) = [one for one in lipcert("list").splitlines() if one.endswith("shell")]
        hook, state, url = line.split()[:3]
        assert (state, url) == ("enabled", receiver.url)
        telling.submit(telling.upload(model("shell")), webhook=[hook], wait=30)
        sent = eventually(
            lambda: [one for one in lipcert("deliveries", hook).splitlines() if "delivered" in one]
        )
        assert "job.finished  delivered 204" in sent[0]
        lipcert("redeliver", hook, sent[0].split()[0])
        eventually(lambda: 2 <= len(receiver.messages))
    changed = lipcert("change", hook, "--disable", "--event", "gate.finished")
    assert "disabled" in changed
    assert "named jobs: gate.finished" in changed
    assert lipcert("rotate", hook) != secret
    lipcert("delete", hook)
    assert hook not in lipcert("list")
    lipcert("delete", hook, code=3)
    lipcert("new", "http://10.0.0.1/", code=3)


def test_what_would_be_done_twice_is_sent_once() -> None:
    """Nobody knows whether a call arrived whose answer was lost."""
    calls: list[str] = []

    def lose(request: httpx.Request) -> httpx.Response:
        calls.append(request.method)
        raise httpx.ReadError("lost")

    with Client(f"http://127.0.0.1:{free_port()}", transport=httpx.MockTransport(lose)) as client:
        for call in (client.create_webhook, client.rotate_webhook):
            with pytest.raises(httpx.ReadError):
                call(URL)
    assert calls == ["POST", "POST"]
