"""The API process is light and fast, the forkserver fit to fork, and strangers are not served."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from service_fakes import model
from service_process import ROOT, Service, eventually, free_port, processes, slowness

from service.serve import listen, require_safe_bind
from service.settings import EntryPoints, Settings, from_environment
from service.store.engine import HEAD
from verifier.errors import InvalidRequest

HEAVY = {"alembic", "cvxpy", "onnx", "onnxruntime", "scipy", "torch"}


def _python(code: str) -> str:
    """What a fresh interpreter prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    ).stdout


@pytest.mark.parametrize(
    "module", ["service.serve", "service.dispatcher", "service.deliverer", "service.check_child"]
)
def test_no_process_of_the_service_imports_what_parses_models(module: str) -> None:
    found = _python(f"import sys, json, {module}; print(json.dumps(sorted(sys.modules)))")
    assert HEAVY & {name.partition(".")[0] for name in json.loads(found)} == set()


def test_the_api_is_light(service: Service) -> None:
    service.submit(service.upload(model("light")), wait=20)
    service.client.get("/docs")
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    resident = int(status.partition("VmRSS:")[2].split()[0])
    assert resident < 150_000, f"{resident} kB"


def test_the_api_starts_fast(tmp_path: Path) -> None:
    """In processor time, as other processes share the machine; more on a slower one."""
    code = (
        "import time\n"
        "from pathlib import Path\n"
        "from service.serve import prepare\n"
        "from service.app import create_app\n"
        "from service.settings import Settings\n"
        f"settings = Settings(data=Path({str(tmp_path)!r}))\n"
        "prepare(settings)\n"
        "create_app(settings)\n"
        "print(time.process_time())\n"
    )
    _python(code)  # makes the database, as the very first start does
    assert float(_python(code)) < 1.5 * slowness()


def test_readiness_names_what_is_missing(own_service: Callable[..., Service]) -> None:
    service = own_service()
    report = service.client.get("/readyz").json()
    assert (report["status"], report["migration"], report["telemetry"]) == ("ready", HEAD, "off")
    assert report["executor"]["threads"] == 1


def test_the_real_forkserver_is_fit_to_fork(own_service: Callable[..., Service]) -> None:
    """Heavy modules imported, one thread: a fork of a process with threads can hang."""
    service = own_service(entry_points=EntryPoints())
    executor = service.client.get("/readyz").json()["executor"]
    assert executor["threads"] == 1
    assert {"torch", "verifier.verify"} <= set(executor["modules"])
    caches = list(Path.home().glob(".cache/onnxruntime*"))
    assert caches == [], "onnxruntime's telemetry is on"


def test_one_dispatcher_for_a_data_directory(own_service: Callable[..., Service]) -> None:
    """A second service on the same data waits with its jobs until the first is gone."""
    first = own_service()
    second = own_service(port=free_port())
    waiting = second.dispatcher()
    second.submit(second.upload(model("first")), wait=30)  # done by the first
    assert not any("forkserver" in text for _, text in processes(waiting))
    first.stop()
    job = second.submit(second.upload(model("second")), wait=30)
    assert job["state"] == "succeeded"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])  # noqa: S104
def test_strangers_are_not_served_without_keys(host: str) -> None:
    settings = Settings(host=host)
    with pytest.raises(InvalidRequest, match="no keys"):
        require_safe_bind(settings, has_keys=False)
    require_safe_bind(replace(settings, insecure_no_auth=True), has_keys=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.5"])
def test_this_machine_is_served(host: str) -> None:
    require_safe_bind(Settings(host=host), has_keys=False)


def test_an_address_in_use_is_refused(service: Service) -> None:
    with pytest.raises(InvalidRequest, match="cannot be bound"):
        listen(service.settings)


def test_settings_survive_the_way_to_the_dispatcher(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, allowed_hosts=("a", "b"), slots=3)
    assert Settings.from_json(settings.to_json()) == settings


def test_settings_come_from_the_environment(tmp_path: Path) -> None:
    environment = {
        "LIPCERT_DATA": str(tmp_path),
        "LIPCERT_HOST": "localhost",
        "LIPCERT_PORT": "1",
        "LIPCERT_ALLOWED_HOSTS": "a, b",
        "LIPCERT_SLOTS": "7",
        "LIPCERT_MEMORY_BYTES": "5",
        "LIPCERT_WEBHOOKS": "on",
        "LIPCERT_WEBHOOK_PORTS": "443,8443",
        "LIPCERT_WEBHOOK_HOSTS": ".example.org",
    }
    expected = Settings(
        data=tmp_path,
        host="localhost",
        port=1,
        allowed_hosts=("a", "b"),
        slots=7,
        memory_bytes=5,
        webhooks=True,
        webhook_ports=(443, 8443),
        webhook_hosts=(".example.org",),
    )
    assert from_environment(environment) == expected


def test_a_full_queue_takes_no_more(own_service: Callable[..., Service], tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    service = own_service(max_queued=1, slots=1)
    model_id = service.upload(model(["wait-for", str(gate)]))
    running = service.submit(model_id)
    eventually(lambda: service.job(running["id"])["state"] == "running")
    service.submit(model_id)
    response = service.client.post("/v1/jobs", json={"model": model_id})
    assert (response.json()["code"], response.status_code) == ("queue-full", 503)
    assert response.headers["retry-after"] == "1"
    gate.touch()


def test_validation_waits_for_the_model(service: Service, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    response = service.client.post(
        "/v1/models",
        content=model(["read-after", str(gate)]),
        headers={"Content-Type": "application/octet-stream"},
    )
    body = {"model": response.json()["id"]}
    answer = service.client.post("/v1/jobs?validate_only=true", json=body)
    assert (answer.json()["code"], answer.status_code) == ("model-not-ready", 409)
    gate.touch()


@pytest.mark.parametrize(("name", "text"), [("webhooks", "maybe"), ("port", "x"), ("slots", "")])
def test_a_variable_that_says_nothing_is_refused_by_its_name(name: str, text: str) -> None:
    environment = {f"LIPCERT_{name.upper()}": text}
    if not text:  # as where it is not set
        assert from_environment(environment) == from_environment({})
        return
    with pytest.raises(InvalidRequest) as refusal:
        from_environment(environment)
    assert (refusal.value.pointer, text in str(refusal.value)) == (f"/{name}", True)


def test_no_answer_is_held_back() -> None:
    """Nagle's algorithm would keep the second write of each for 40 ms."""
    with closing(listen(Settings(port=0))) as address:
        assert address.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


ALL_WORK = """
import importlib, pathlib, sys
from service.settings import EntryPoints
for name in ("service.worker", *EntryPoints().preload):
    importlib.import_module(name)
before = set(sys.modules)
from verifier import parse_request, verify
from verifier.radius import radii
from verifier.radius_json import parse_question
from verifier.verify import inspect
data = pathlib.Path(sys.argv[1]).read_bytes()
center = [0.5] * inspect(data)["input"]["size"]
box = {"type": "box", "center": center, "radius": 0.01}
for asked in ({}, {"scope": "local", "norm": "linf", "region": box}):
    verify(data, parse_request({"property": asked, "budget": {"seconds": 0.5}}))
radii(data, parse_question({"centers": [center], "seconds": 0.5}))
print(*(m for m in sys.modules.keys() - before if m.startswith(("verifier", "service"))))
"""


def test_children_find_all_that_they_need_imported() -> None:
    """They are forked from what is preloaded, and enclosed where our own files cannot be read."""
    command = [sys.executable, "-c", ALL_WORK, str(ROOT / "examples/relu_mlp.onnx")]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == []
