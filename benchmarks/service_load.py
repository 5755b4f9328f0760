"""What one API process and one dispatcher bear: `python -m benchmarks.service_load [NAME ...]`.

    start     from enqueued to started, one job at a time         wanted: p95 < 100 ms
    get       GET of a job, as fast as it goes                     wanted: 1000/s
    upload    a model of 200 MiB                                   wanted: < 32 MiB more memory
    cancel    from the call to the end of a job that computes      wanted: p99 < 1 s
    recovery  from a kill to the next attempt of the job           wanted: < 35 s
    queue     10 000 jobs wait, 500 clients wait for one of them,  wanted: GET p99 < 200 ms,
              and others ask                                               no 5xx

Each on a fresh service. The generator is light, but shares the machine: on a busy one the
milliseconds of processor time that the API spends on a call say more than the calls in a second.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from benchmarks.drill_questions import lengthy, requests, tiny_model
from benchmarks.http_load import Measured, get, hold, load, post
from benchmarks.live_service import (
    Kind,
    LiveService,
    eventually,
    kill,
    peak_bytes,
    resident_bytes,
    settings_for,
)

BINARY = {"Content-Type": "application/octet-stream"}
MEBIBYTE = 2**20
QUICK = requests()[0]  #: decided at once
LARGE, LENGTHY = lengthy()


def start(service: LiveService) -> Iterator[str]:
    """From enqueued to started."""
    waits: list[float] = []
    with _client(service) as client:
        for number in range(60):
            model = _upload(client, tiny_model(number, "start"))
            job = _ended(client, {"model": model, **QUICK})
            waits.append((_time(job["started"]) - _time(job["created"])).total_seconds())
    yield f"{len(waits)} jobs, {_quantiles(waits)}"


def get_job(service: LiveService) -> Iterator[str]:
    """GET of a job that has ended."""
    with _client(service) as client:
        job = _ended(client, {"model": _upload(client, tiny_model(0, "get")), **QUICK})
    request = get(f"/v1/jobs/{job['id']}")
    load(service.settings.port, [request], connections=8, seconds=2.0)
    for connections in (1, 16):
        before = _cpu_seconds(service.pid)
        found = load(service.settings.port, [request], connections=connections, seconds=10.0)
        spent = (_cpu_seconds(service.pid) - before) / len(found.seconds)
        yield f"{connections} connections: {found}, {1000 * spent:.2f} ms of processor time each"


def upload(service: LiveService) -> Iterator[str]:
    """200 MiB, which no reader will like."""
    size, piece = 200 * MEBIBYTE, os.urandom(MEBIBYTE)
    with _client(service) as client:
        _upload(client, tiny_model(0, "warm"))
        before, began = resident_bytes(service.pid), time.perf_counter()
        pieces = (piece for _ in range(200))
        headers = {**BINARY, "Content-Length": str(size)}
        client.post("/v1/models", content=pieces, headers=headers).raise_for_status()
        seconds = time.perf_counter() - began
    more = (peak_bytes(service.pid) - before) / MEBIBYTE
    yield f"{200 * 1.048576 / seconds:.0f} MB/s, {more:.1f} MiB of memory more at most"


def cancel(service: LiveService) -> Iterator[str]:
    """From the call to the end, of jobs in the middle of their mathematics."""
    times: list[float] = []
    with _client(service) as client:
        model = _upload(client, LARGE)
        for _ in range(100):
            job = client.post("/v1/jobs", json={"model": model, **LENGTHY}).json()
            path = f"/v1/jobs/{job['id']}"
            while job["state"] == "queued":
                job = client.get(path).json()
            began = time.perf_counter()
            job = client.post(f"{path}/cancel").json()
            while not job["ended"]:
                job = client.get(path, headers={"Prefer": "wait=10"}).json()
            if job["state"] == "canceled":
                times.append(time.perf_counter() - began)
    yield f"{len(times)} jobs, {_quantiles(times)}"


def queue(service: LiveService) -> Iterator[str]:
    """A long queue, many who wait, and those who ask meanwhile."""
    port, ids = service.settings.port, list[str]()
    with _client(service) as client:
        model = _upload(client, tiny_model(0, "queue"))
        blocked = {"model": _upload(client, LARGE), **LENGTHY, "priority": 9}
        for number in range(50):  # so that the others wait
            labels = {"n": str(number)}
            client.post("/v1/jobs", json={**blocked, "labels": labels}).raise_for_status()
        wishes = [
            post("/v1/jobs", {"model": model, **QUICK, "labels": {"n": str(n)}})
            for n in range(10_000 - 50)
        ]
        filled = asyncio.run(
            hold(port, wishes, 16, 3600.0, is_endless=False, answered=_collect(ids))
        )
        yield f"filled: {filled}"
        asked, waited = asyncio.run(_ask_and_wait(port, ids))
    yield f"GET meanwhile: {asked}"
    yield f"long polls: {waited}"


def recovery(service: LiveService) -> Iterator[str]:
    """From the kill of each kind of process to the next attempt, with the default lease."""
    with _client(service) as client:
        model = _upload(client, LARGE)
        job = client.post("/v1/jobs", json={"model": model, **LENGTHY}).json()
    path = f"{service.url}/v1/jobs/{job['id']}"
    kinds: tuple[Kind, ...] = ("worker", "forkserver", "dispatcher", "api")
    for kind in kinds:
        attempt = eventually(lambda: _attempt_after(service, path, 0), 60.0)
        eventually(lambda: service.pids("worker"), 60.0)
        for pid in service.pids(kind):
            kill(pid)
        began = time.perf_counter()
        eventually(lambda known=attempt: _attempt_after(service, path, known), 60.0)
        yield f"{kind}: {time.perf_counter() - began:.1f} s"


def _attempt_after(service: LiveService, path: str, known: int) -> int | None:
    """The number of the attempt that runs, if it is another one."""
    service.restart_if_ended()
    with suppress(httpx.TransportError):
        job = httpx.get(path, timeout=5.0).json()
        return job["attempt"] if job["state"] == "running" and known < job["attempt"] else None
    return None


async def _ask_and_wait(port: int, ids: list[str]) -> tuple[Measured, Measured]:
    """500 long polls of 20 seconds each, and one client after the other that asks at once."""
    polls = [get(f"/v1/jobs/{name}", Prefer="wait=20", If_None_Match='"1"') for name in ids[:500]]
    asks = [get(f"/v1/jobs/{name}") for name in ids[500:2000]]
    waited = asyncio.create_task(hold(port, polls, 500, 60.0, is_endless=False))
    await asyncio.sleep(3.0)
    asked = await hold(port, asks, 4, 15.0, is_endless=True)
    return asked, await waited


# --- parts ---------------------------------------------------------------------------------------


@contextmanager
def _client(service: LiveService) -> Generator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=120.0) as client:
        yield client


def _upload(client: httpx.Client, data: bytes) -> str:
    """The id of a model that has been read."""
    model = client.post("/v1/models", content=data, headers=BINARY).raise_for_status().json()
    while model["state"] == "received":
        time.sleep(0.05)
        model = client.get(f"/v1/models/{model['id']}").json()
    return model["id"]


def _ended(client: httpx.Client, members: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON
    job = client.post("/v1/jobs", json=members).raise_for_status().json()
    while not job["ended"]:
        headers = {"Prefer": "wait=30"}
        job = client.get(f"/v1/jobs/{job['id']}", headers=headers).json()
    return job


def _collect(ids: list[str]) -> Callable[[bytes], None]:
    """Keeps the id of every answer."""

    def keep(body: bytes) -> None:
        ids.append(body.partition(b'"id":"')[2][:32].decode())

    return keep


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _cpu_seconds(pid: int) -> float:
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


def _quantiles(seconds: list[float]) -> str:
    measured = Measured(seconds=seconds)
    shares = ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
    return ", ".join(f"{name} {measured.quantile(share):.0f} ms" for share, name in shares)


MEASUREMENTS: Mapping[str, Callable[[LiveService], Iterator[str]]] = {
    "cancel": cancel,
    "get": get_job,
    "queue": queue,
    "recovery": recovery,
    "start": start,
    "upload": upload,
}


def main() -> None:
    """Print the figures of the measurements that are named, or of all."""
    for name in sys.argv[1:] or MEASUREMENTS:
        with tempfile.TemporaryDirectory() as folder:
            settings = settings_for(Path(folder) / "data", None, slots=1, max_attempts=10)
            service = LiveService(settings, Path(folder) / "log")
            try:
                service.wait_ready()
                for line in MEASUREMENTS[name](service):
                    load_average = os.getloadavg()[0]
                    sys.stdout.write(f"{name:8} {line}  (load average {load_average:.1f})\n")
                    sys.stdout.flush()
            finally:
                service.stop()


if __name__ == "__main__":
    main()
