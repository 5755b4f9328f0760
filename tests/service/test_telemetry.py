"""Traces: none unless asked for, and then one from the request to the attempt; nothing goes out."""

import asyncio
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from service_fakes import model
from service_process import Service, settings_in

from service import telemetry
from service.app import create_app
from service.serve import prepare
from service.settings import Settings, from_environment, variables_of
from service.store import leases
from service.store.coordination import now_ms
from service.store.engine import open_database
from service.store.leases import Claim
from verifier.errors import InvalidRequest

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
ASKED = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318",
    "OTEL_EXPORTER_OTLP_HEADERS": "k=v",
}
EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"

#: Notes, in every process that imports it, who is called; connections within the machine's files
#: are how the forkserver works.
WATCH = """
import sys

def note(event, arguments):
    is_far = event == "socket.connect" and isinstance(arguments[1], tuple)
    if is_far or event == "socket.getaddrinfo":
        with open({path!r}, "a") as log:
            log.write(f"{{event}} {{arguments}}\\n")

sys.addaudithook(note)
"""


def _submit(settings: Settings) -> None:
    """Upload a model and ask for a bound, of an API in this process."""

    async def calls() -> None:
        transport = httpx.ASGITransport(app=create_app(settings))
        headers = {"traceparent": PARENT, "Authorization": "Bearer lck_secret"}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://localhost", headers=headers
        ) as client:
            found = await client.post(
                "/v1/models",
                content=model("traced"),
                headers={"Content-Type": "application/octet-stream"},
            )
            answer = await client.post("/v1/jobs", json={"model": found.json()["id"]})
            assert answer.status_code == 202, answer.text

    prepare(settings)
    asyncio.run(calls())


def _claim(settings: Settings) -> Claim:
    database = open_database(settings.database)
    with database.write() as connection:
        inspection = leases.claim(connection, "reader", now_ms(), 1000, ["inspect"])
        assert inspection is not None
        leases.finish_inspection(connection, inspection, now_ms(), summary={})
        claim = leases.claim(connection, "worker", now_ms(), 1000, ["verify"])
    database.close()
    assert claim is not None
    return claim


def test_the_trace_of_a_request_goes_on_in_its_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    def provide(_: object) -> TracerProvider:
        return provider

    monkeypatch.setattr(telemetry, "provider_of", provide)
    settings = settings_in(tmp_path)
    _submit(settings)
    spans = telemetry.Spans(provider)
    spans.begin(7, _claim(settings))
    spans.end(7, "canceled")
    told = {span.name: span for span in exporter.get_finished_spans()}
    assert {"POST /v1/models", "POST /v1/jobs", "attempt verify"} == set(told)
    contexts = {name: span.get_span_context() for name, span in told.items()}
    assert {format(context.trace_id, "032x") for context in contexts.values() if context} == {TRACE}
    parent, request = told["attempt verify"].parent, contexts["POST /v1/jobs"]
    assert parent is not None
    assert request is not None
    assert parent.span_id == request.span_id
    assert told["attempt verify"].status.description == "canceled"
    assert "lck_secret" not in "".join(span.to_json() for span in told.values())


def test_without_the_variables_nobody_traces(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    assert telemetry.provider_of(settings.telemetry) is None
    _submit(settings)
    claim = _claim(settings)
    assert claim.trace is None
    spans = telemetry.Spans(None)
    spans.begin(1, claim)
    spans.end(1, None)


def test_the_environment_asks(tmp_path: Path) -> None:
    assert from_environment({"LIPCERT_DATA": str(tmp_path)}).telemetry == {}
    assert variables_of({"OTEL_SERVICE_NAME": "mine"}) == {}
    assert variables_of({**ASKED, "OTEL_SDK_DISABLED": "true"}) == {}
    settings = from_environment({**ASKED, "LIPCERT_DATA": str(tmp_path)})
    assert settings.telemetry == ASKED
    assert Settings.from_json(settings.to_json()) == settings


def test_an_installation_that_cannot_send_traces_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, EXPORTER, None)  # pyright: ignore[reportArgumentType] - absent
    with pytest.raises(InvalidRequest) as caught:
        telemetry.provider_of(ASKED)
    assert "lipcert[otel]" in caught.value.fix


def test_only_the_exporter_sees_the_collectors_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children inherit the environment."""
    seen: list[dict[str, str]] = []

    class Exporter(SpanExporter):
        def __init__(self) -> None:
            seen.append(dict(os.environ))

        def export(self, spans: object) -> SpanExportResult:
            del spans
            return SpanExportResult.SUCCESS

    module = ModuleType(EXPORTER)
    module.__dict__["OTLPSpanExporter"] = Exporter
    for depth in range(2, EXPORTER.count(".") + 1):
        name = ".".join(EXPORTER.split(".")[: depth + 1])
        monkeypatch.setitem(sys.modules, name, module if name == EXPORTER else ModuleType(name))
    before = dict(os.environ)
    provider = telemetry.provider_of(ASKED)
    telemetry.shut_down(provider)
    assert seen[0].items() >= {**ASKED, "OTEL_SERVICE_NAME": "lipcert"}.items()
    assert dict(os.environ) == before


def _watched(folder: Path) -> Path:
    """The file that says who was called, by the processes that import from the folder."""
    log = folder / "calls.log"
    (folder / "sitecustomize.py").write_text(WATCH.format(path=str(log)), encoding="utf-8")
    return log


def test_nothing_goes_out_by_itself(tmp_path: Path) -> None:
    modules = tmp_path / "modules"
    modules.mkdir()
    log = _watched(modules)
    settings = settings_in(tmp_path)
    points = replace(settings.entry_points, folders=(str(tmp_path), str(tmp_path.parent)))
    service = Service(replace(settings, entry_points=points), (modules,))
    try:
        job = service.submit(service.upload(model("in the dark")), wait=30)
        certificate = service.client.get(f"/v1/certificates/{job['certificate']}").json()
        body = {"certificate": certificate}
        assert service.client.post("/v1/certificates/check", json=body).json()["valid"]
        assert service.client.get("/metrics").status_code == 200
        assert service.client.get("/docs").status_code == 200
    finally:
        service.close()
    assert not log.exists(), log.read_text(encoding="utf-8")


def test_the_watch_sees_a_call(tmp_path: Path) -> None:
    log = _watched(tmp_path)
    code = (
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('127.0.0.1', 9))"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert "127.0.0.1" in log.read_text(encoding="utf-8")
