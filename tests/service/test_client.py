"""The Python client, against a real service; what it repeats, against one that is made to fail."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx
import pytest
from service_fakes import model
from service_process import ROOT, Service, free_port

from service import cli, gate, remote
from service.client import REPEATS, AsyncClient, Client, JobHasNoCertificate, ServiceRefusal
from service.gate import decide, parse_policy

LIGHT = "import service.client, service.remote, sys; print(*sorted(sys.modules))"


def test_the_client_imports_neither_torch_nor_onnx() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIGHT],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    heavy = {"torch", "onnx", "onnxruntime", "fastapi", "sqlalchemy", "scipy", "cvxpy"}
    assert not heavy & set(done.stdout.split())


def test_a_certificate_in_one_call(service: Service) -> None:
    seen: list[str] = []
    with Client(service.url) as client:
        certificate = client.certify(
            model("client", ["wait-s", 0.2]),
            {"property": {"norm": "l2"}},
            lambda job: seen.append(job["state"]),
        )
        assert certificate["claim"]["bound"] == 4.0
        assert seen[-1] == "succeeded"
        assert client.certificate(certificate["id"]) == certificate
        verdict = client.check(certificate, model("another"))
        assert (verdict.valid, verdict.code) == (False, "model-mismatch")


def test_a_job_step_by_step(service: Service) -> None:
    with Client(service.url) as client:
        model_id = client.upload(model("steps", ["wait-s", 60]))
        assert client.upload(model("steps", ["wait-s", 60])) == model_id
        job = client.submit(model_id, {"property": {"norm": "l2"}})
        assert client.job(job["id"])["state"] in ("queued", "running")
        client.cancel(job["id"])
        assert client.wait(job["id"])["state"] == "canceled"


def test_refusals_are_said(service: Service) -> None:
    with Client(service.url) as client:
        with pytest.raises(ServiceRefusal, match="norm") as refused:
            client.certify(model("refused"), {"property": {"norm": "l3"}})
        assert (refused.value.status, refused.value.code) == (422, "invalid-request")
        with pytest.raises(JobHasNoCertificate, match="sign_1") as ended:
            client.certify(model("jump"), {"property": {"norm": "l2"}})
        assert ended.value.code == "discontinuous-op"
        with pytest.raises(ServiceRefusal) as missing:
            client.job("0" * 32)
        assert missing.value.status == 404


def test_the_same_to_be_awaited(service: Service) -> None:
    async def both() -> list[float]:
        async with AsyncClient(service.url) as client:
            asked = [
                client.certify(model("awaited", name), {"property": {"norm": "l2"}})
                for name in ("first", "second")
            ]
            return [one["claim"]["bound"] for one in await asyncio.gather(*asked)]

    assert asyncio.run(both()) == [4.0, 4.0]


class Failing(httpx.BaseTransport):
    """Fails so often, in its way, before it passes a call on."""

    def __init__(self, fail: Callable[[], httpx.Response], times: int) -> None:
        self._real = httpx.HTTPTransport()
        self._fail, self._left = fail, times
        self.calls: list[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Fail, or ask the service."""
        self.calls.append(request)
        if 0 < self._left and request.method != "HEAD":
            self._left -= 1
            return self._fail()
        return self._real.handle_request(request)

    def close(self) -> None:
        """Close the connections to the service."""
        self._real.close()


def lost() -> httpx.Response:
    raise httpx.ConnectError("lost")


def at_once(_low: float, _high: float) -> float:
    """No pause between two attempts."""
    return 0.0


def busy() -> httpx.Response:
    return httpx.Response(503, json={"code": "queue-full"}, headers={"Retry-After": "0"})


@pytest.mark.parametrize("fail", [lost, busy])
def test_a_call_that_failed_is_repeated_with_its_key(
    fail: Callable[[], httpx.Response], service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.client.random.uniform", at_once)
    model_id = service.upload(model("repeated"))
    transport = Failing(fail, 2)
    with Client(service.url, transport=transport) as client:
        job = client.submit(model_id, {"property": {"norm": "l2"}})
        assert client.wait(job["id"])["state"] == "succeeded"
    posts = [call for call in transport.calls if call.method == "POST"]
    assert len(posts) == 3
    assert len({call.headers["Idempotency-Key"] for call in posts}) == 1


@pytest.mark.parametrize(("fail", "error"), [(lost, httpx.ConnectError), (busy, ServiceRefusal)])
def test_what_fails_for_ever_is_given_up(
    fail: Callable[[], httpx.Response],
    error: type[Exception],
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.client.random.uniform", at_once)
    transport = Failing(fail, 100)
    with Client(service.url, transport=transport) as client, pytest.raises(error):
        client.job("0" * 32)
    assert len(transport.calls) == REPEATS + 1


def test_the_environment_names_service_and_key(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={})

    monkeypatch.setenv("LIPCERT_URL", "http://service.example:1")
    monkeypatch.setenv("LIPCERT_API_KEY", "lck_x")
    with Client(transport=httpx.MockTransport(answer)) as client:
        client.job("0" * 32)
    assert seen[0].url.host == "service.example"
    assert seen[0].headers["Authorization"] == "Bearer lck_x"


def rule(**members: object) -> bytes:
    rules = {"name": "one", "property": {"norm": "l2"}, "max_bound": 10.0, **members}
    return str({"version": 1, "rules": [rules]}).encode()


def test_a_gate_takes_no_ones_word_but_the_checkers(service: Service) -> None:
    """The service's checker is a fake that accepts; the gate has the real one, which cannot."""
    with gate.prover(service.url) as certify:
        decision = decide(model("gate"), parse_policy(rule()), None, certify)
    assert decision.outcome == "fail"
    failure = decision.rules[0].failure
    assert failure is not None
    assert failure.error["code"] == "check-rejected"


@pytest.mark.parametrize(
    ("steps", "code", "exit_code"),
    [(("jump",), "discontinuous-op", 3), (("crash",), "internal-error", 4)],
)
def test_a_gate_says_why_there_is_no_certificate(
    steps: tuple[str, ...], code: str, exit_code: int, service: Service
) -> None:
    shown: list[Mapping[str, object]] = []
    (asked,) = parse_policy(rule())
    with Client(service.url) as client:
        outcome = remote.certify_at(client, model(*steps), asked.request, shown.append)
    assert outcome.failure is not None
    assert (outcome.failure.error["code"], outcome.failure.exit_code) == (code, exit_code)
    assert {"phase", "upper", "lower", "seconds"} <= set(shown[-1])


def test_a_gate_without_its_service_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("service.client.random.uniform", at_once)
    policy = tmp_path / "policy.yaml"
    policy.write_bytes(rule())
    arguments = ["gate", str(ROOT / "examples/relu_mlp.onnx"), "--policy", str(policy)]
    assert cli.run([*arguments, "--server", f"http://127.0.0.1:{free_port()}"]) == 4
    assert "cannot be reached" in capsys.readouterr().out
