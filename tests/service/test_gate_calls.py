"""Policies and gates from the client and the command line, which believe the checker alone."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from service_fakes import model
from service_process import ROOT, Service, free_port

import verifier.checker
from service import cli
from service.client import AsyncClient, Client
from service.remote import decide_by
from service.signing import read_envelope
from service.signing_keys import make_private_key
from verifier.checker import Verdict
from verifier.errors import CheckRejected, JobFailed, RequestRefused

Json = dict[str, Any]


@pytest.fixture
def accepting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fakes' certificates are none for the real checker: here it accepts them."""
    verdict = Verdict(valid=True, code="valid", reason="", proved=None, log10=None)

    def check(*_: object) -> Verdict:
        return verdict

    monkeypatch.setattr(verifier.checker, "check", check)


def policy(name: str, max_bound: float, **members: object) -> Json:
    return {"version": 1, "rules": [{"name": name, "max_bound": max_bound, **members}]}


def test_policies_and_gates_in_python(service: Service, tmp_path: Path) -> None:
    seen: list[str] = []
    opened = tmp_path / "opened"

    def show(gate: Json) -> None:
        seen.append(gate["outcome"])
        opened.touch()

    with Client(service.url) as client:
        stored = client.put_policy("client", policy("one", 5.0))
        text = b"{version: 1, rules: [{name: one, max_bound: 5.0}]}"
        assert client.put_policy("client", text) == stored
        assert client.policy("client@1") == client.policy(stored["digest"]) == stored
        assert "client" in [item["name"] for item in client.policies()]
        gate = client.gate(model(["wait-for", str(opened)]), "client", show)
    assert (gate["outcome"], seen) == ("pass", ["pending", "pass"])


def test_a_gate_is_canceled(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the client, by the command, and where the command that waits for it is interrupted."""
    data = model(["wait-for", str(tmp_path / "never")])
    with Client(service.url) as client:
        client.put_policy("waiting", policy("one", 5.0))

        def gates() -> list[Json]:
            return [one for one in client.gates() if one["policy"]["name"] == "waiting"]

        def cancel(_: object) -> None:
            for one in gates():
                client.cancel_gate(one["id"])

        def interrupt(_: object) -> None:
            raise KeyboardInterrupt

        assert client.gate(data, "waiting", cancel)["outcome"] == "canceled"
        with pytest.raises(KeyboardInterrupt):
            decide_by(client, data, "waiting", interrupt)
        assert [one["outcome"] for one in gates()] == ["canceled"] * 2
        with pytest.raises(JobFailed, match="canceled"):
            decide_by(client, data, "waiting", cancel)
        gate_id = gates()[0]["id"]
    server = ["--server", service.url]
    assert cli.run(["gates", "list", *server]) == 0
    assert f"{gate_id}  canceled" in capsys.readouterr().out
    assert cli.run(["gates", "cancel", gate_id, *server]) == 0
    assert capsys.readouterr().out == "gate: canceled\n"
    assert cli.run(["gates", "cancel", "0" * 32, *server]) == 3


def test_the_same_to_be_awaited(service: Service) -> None:
    async def gated() -> list[str]:
        async with AsyncClient(service.url) as client:
            await client.put_policy("awaited", policy("one", 0.5))
            names = [item["name"] for item in await client.policies()]
            assert (await client.policy("awaited"))["name"] in names
            gate = await client.gate(model("awaited gate"), "awaited")
            assert (await client.cancel_gate(gate["id"]))["outcome"] == "fail"  # decided already
            assert gate["id"] in [one["id"] for one in await client.gates()]
            return [rule["outcome"] for rule in gate["rules"]]

    assert asyncio.run(gated()) == ["fail"]


@pytest.mark.usefixtures("accepting")
@pytest.mark.parametrize(("most", "code"), [(5.0, 0), (0.5, 1), (2.0, 2)])
def test_the_command_ends_as_the_services_decision(
    most: float, code: int, service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "model"
    file.write_bytes(model("remote policy"))
    with Client(service.url) as client:
        digest = client.put_policy("remote", policy("one", most))["digest"]
    arguments = ["gate", str(file), "--server", service.url, "--remote-policy", digest, "--json"]
    assert cli.run(arguments) == code
    (rule,) = json.loads(capsys.readouterr().out)["rules"]
    assert (rule["max_bound"], rule["bound"], rule["lower_bound"]) == (most, 4.0, 1.0)


@pytest.mark.usefixtures("accepting")
def test_the_command_signs_what_it_has_decided(service: Service, tmp_path: Path) -> None:
    file, key, out = (tmp_path / name for name in ("model", "key.pem", "vsa.json"))
    file.write_bytes(model("remote policy"))
    make_private_key(key)
    with Client(service.url) as client:
        digest = client.put_policy("attested", policy("one", 5.0))["digest"]
    remote = ["--server", service.url, "--remote-policy", "attested"]
    signed = ["--attestation", str(out), "--sign-key", str(key)]
    assert cli.run(["gate", str(file), *remote, *signed]) == 0
    envelope = read_envelope(out.read_bytes())
    assert envelope is not None
    predicate = json.loads(envelope.payload)["predicate"]
    assert f"sha256:{predicate['policy']['digest']['sha256']}" == digest


@pytest.mark.parametrize(
    ("steps", "exit_code"), [(("jump",), 3), (("crash",), 4)], ids=["jump", "crash"]
)
def test_why_a_rule_has_no_certificate_reaches_the_exit_code(
    steps: tuple[str, ...], exit_code: int, service: Service
) -> None:
    with Client(service.url) as client:
        client.put_policy("no-certificate", policy("one", 5.0))
        answer = decide_by(client, model(*steps), "no-certificate", lambda _: None)
    assert (answer.decision.outcome, answer.decision.exit_code) == ("fail", exit_code)


def test_a_service_that_passes_what_the_checker_rejects_is_not_believed(service: Service) -> None:
    with Client(service.url) as client:
        client.put_policy("not-believed", policy("one", 5.0))
        with pytest.raises(CheckRejected, match="pass, that of its certificates here is fail"):
            decide_by(client, model("not believed"), "not-believed", lambda _: None)


class Lying(httpx.BaseTransport):
    """Passes calls on, and changes what is answered at some path."""

    def __init__(self, path: str, lie: Callable[[Json], None]) -> None:
        self._real = httpx.HTTPTransport()
        self._path, self._lie = path, lie

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Ask the service, and lie."""
        answer = self._real.handle_request(request)
        if not request.url.path.startswith(self._path) or request.method != "GET":
            return answer
        answer.read()
        members = json.loads(answer.content)
        self._lie(members)
        headers = {"ETag": answer.headers["ETag"]}
        return httpx.Response(answer.status_code, json=members, headers=headers)

    def close(self) -> None:
        """Close the connections to the service."""
        self._real.close()


def _relax(said: Json) -> None:
    said["policy"]["rules"][0]["max_bound"] = 100.0


def _rename(said: Json) -> None:
    said["rules"][0]["name"] = "another"


@pytest.mark.usefixtures("accepting")
@pytest.mark.parametrize(
    ("path", "lie", "told"),
    [("/v1/policies", _relax, "digest"), ("/v1/gates", _rename, "are not the policy's")],
)
def test_answers_that_do_not_hold_together_are_refused(
    path: str, lie: Callable[[Json], None], told: str, service: Service
) -> None:
    with Client(service.url, transport=Lying(path, lie)) as client:
        client.put_policy("lied-about", policy("one", 5.0))
        with pytest.raises(CheckRejected, match=told):
            decide_by(client, model("lied about"), "lied-about", lambda _: None)


def test_refusals_of_the_service_are_said(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client(service.url) as client, pytest.raises(RequestRefused, match="not-found"):
        decide_by(client, model("x"), "missing", lambda _: None)
    monkeypatch.setattr("service.client.random.uniform", lambda _low, _high: 0.0)  # pyright: ignore[reportUnknownLambdaType]
    nobody = f"http://127.0.0.1:{free_port()}"
    with Client(nobody) as client, pytest.raises(JobFailed, match="reached"):
        decide_by(client, model("x"), "missing", lambda _: None)


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--remote-policy", "p"),
        ("--remote-policy", "p", "--policy", str(ROOT / "examples/policy.yaml")),
    ],
)
def test_a_gate_has_one_policy(flags: tuple[str, ...]) -> None:
    assert cli.run(["gate", str(ROOT / "examples/relu_mlp.onnx"), *flags]) == 3
