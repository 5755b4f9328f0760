"""A real service for tests: real processes, a real port, a data directory of its own."""

import atexit
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import httpx

from service.settings import EntryPoints, Settings
from service.store.address import DatabaseUrl
from service.store.engine import open_database

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

FAKES = EntryPoints(
    verify="service_fakes:verify",
    inspect="service_fakes:inspect",
    check="service_fakes:check",
    radius="service_fakes:radii",
    check_radius="service_fakes:check_radius",
    preload=("service_fakes",),
)

START = (
    "import sys, tenant_guard; tenant_guard.install(); "
    "from service.serve import serve; from service.settings import Settings; "
    "sys.exit(serve(Settings.from_json(sys.stdin.readline())))"
)

Found = TypeVar("Found")


def eventually(
    look: Callable[[], Found | None],
    *,
    within_s: float = 180.0,
    unless: Callable[[], bool] = lambda: False,
) -> Found:
    """What `look` finds, as soon as it finds something; an error when it cannot any more."""
    end = time.monotonic() + within_s
    while True:
        found = look()
        if found:
            return found
        if end < time.monotonic() or unless():
            raise AssertionError(f"not found within {within_s} s")
        time.sleep(0.01)


def free_port() -> int:
    """A port that is the caller's until this process ends: the kernel gives it to nobody else.

    It is held by a socket that does not listen; where both say SO_REUSEADDR, another may.
    """
    held = socket.socket()
    atexit.register(held.close)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held.getsockname()[1]


def pids_in(path: Path, count: int = 1) -> list[int]:
    """The processes that have worked on a job, once there are so many."""

    def look() -> list[int] | None:
        # The last line may not be whole yet.
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [int(line) for line in lines] if count <= len(lines) else None

    return eventually(look)


def settings_in(folder: Path) -> Settings:
    """Limits small enough to be met in tests."""
    return replace(
        Settings(
            port=free_port(),
            data=folder / "data",
            entry_points=replace(FAKES, folders=(str(folder.parent),)),
        ),
        slots=2,
        max_model_bytes=100_000,
        max_json_bytes=50_000,
        max_certificate_bytes=200_000,
        upload_idle_s=3.0,
        budget_grace_s=0.3,
        check_s=10.0,
        memory_bytes=2**30,
        sweep_s=0.2,
    )


def stored_in(place: Path | DatabaseUrl) -> dict[str, object]:
    """The settings of a service on this database; a file is made by the service itself."""
    return {} if isinstance(place, Path) else {"database_url": place}


class Service:
    """A running `lipcert serve`."""

    def __init__(self, settings: Settings, modules: tuple[Path, ...] = ()) -> None:
        self.settings = settings
        self._modules = modules  #: folders that all its processes import from first
        self.url = f"http://127.0.0.1:{settings.port}"
        self.client = httpx.Client(base_url=self.url, timeout=70.0)
        self.start()

    def start(self) -> None:
        """Start it, and wait until it takes jobs."""
        path = os.pathsep.join(map(str, (*self._modules, ROOT, HERE)))
        self.process = subprocess.Popen(
            [sys.executable, "-c", START],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdin is not None
        with self.process.stdin as settings:  # not an argument: a database's URL has its password
            settings.write(self.settings.to_json() + "\n")
        try:
            eventually(self.is_ready, unless=lambda: self.process.poll() is not None)
        except BaseException:
            self.kill()
            self.client.close()
            raise

    def is_alive(self) -> bool:
        """Whether it answers."""
        try:
            return self.client.get("/healthz").status_code == 200
        except httpx.TransportError:
            return False

    def is_ready(self) -> bool:
        """Whether it takes jobs."""
        try:
            return self.client.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        """End it as an operator does."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                assert self.process.wait(60) == 0
            except subprocess.TimeoutExpired:
                self.kill()
                raise

    def close(self) -> None:
        """End it and the client."""
        try:
            self.stop()
        finally:
            self.client.close()

    def kill(self) -> None:
        """What a power cut leaves of the API process."""
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        """Start it again on the same data."""
        self.settings = replace(self.settings, port=free_port())
        self.url = f"http://127.0.0.1:{self.settings.port}"
        self.client.close()
        self.client = httpx.Client(base_url=self.url, timeout=70.0)
        self.start()

    # --- what tests ask of it --------------------------------------------------------------------

    def upload(self, data: bytes) -> str:
        """The id of a model, uploaded and read."""
        headers = {"Content-Type": "application/octet-stream"}
        response = self.client.post("/v1/models", content=data, headers=headers)
        assert response.status_code in (200, 201), response.text
        model = response.json()["id"]
        eventually(lambda: self.client.get(f"/v1/models/{model}").json()["state"] != "received")
        return model

    def submit(self, model: str, wait: int = 0, **members: object) -> dict[str, Any]:
        """A job, as submitted, or as it is after `wait` seconds."""
        headers = {"Prefer": f"wait={wait}"} if wait else {}
        response = self.client.post("/v1/jobs", json={"model": model, **members}, headers=headers)
        assert response.status_code in (200, 202), response.text
        job = response.json()
        # On a machine that is slower than that the answer comes before the end.
        return self.ended(job["id"]) if wait else job

    def job(self, job_id: str) -> dict[str, Any]:
        """A job as it is."""
        return self.client.get(f"/v1/jobs/{job_id}").json()

    def ended(self, job_id: str, within_s: float = 180.0) -> dict[str, Any]:
        """A job after its end."""

        def look() -> dict[str, Any] | None:
            job = self.job(job_id)
            return job if job["ended"] else None

        return eventually(look, within_s=within_s)

    def events(self, job_id: str) -> list[dict[str, Any]]:
        """What happened to a job."""
        return self.client.get(f"/v1/jobs/{job_id}/events").json()["items"]

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """What its database says."""
        with (
            closing(open_database(self.settings.database)) as database,
            database.read() as connection,
        ):
            return [tuple(row) for row in connection.exec_driver_sql(statement)]

    def dispatcher(self) -> int:
        """The process id of the dispatcher."""
        return eventually(lambda: child_of(self.process.pid, "service.dispatcher"))


def slowness() -> float:
    """How many times longer than on the machines of 2020 a loop takes here; at least 1.

    For what has to be short in processor time, whatever the processor.
    """
    best = math.inf
    for _ in range(3):
        began = time.process_time()
        sum(number * number for number in range(1_000_000))
        best = min(best, time.process_time() - began)
    return max(1.0, best / 0.1)


def child_of(parent: int, text: str) -> int | None:
    """The process id of a direct child whose command line has this text."""
    return next((pid for pid, command in processes(parent) if text in command), None)


def processes(parent: int) -> list[tuple[int, str]]:
    """The direct children of a process, with their command lines."""
    found: list[tuple[int, str]] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            status = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(status[1]) == parent and status[0] != "Z":
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                found.append((int(entry.name), command))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def exists(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def problem(response: httpx.Response) -> Mapping[str, Any]:
    """The problem that a response is, checked for its form."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    body = json.loads(response.text)
    assert body["status"] == response.status_code
    assert body["type"] == f"/problems/{body['code']}"
    assert body["request_id"] == response.headers["x-request-id"]
    return body
