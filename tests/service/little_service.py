"""The whole service in one process: the real app, store, blobs and dispatcher, on a clock of ours.

Only what runs in children is played: attempts report what a script says, and checks are done at
once by the checker's own code.
"""

import asyncio
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import service_fakes
from fastapi import FastAPI
from fault_injection import Faults, Killed, watch_database
from sqlalchemy import select

from service import attempt, candidates, checkpoints, dispatcher, inspection
from service.attempt import Tools
from service.blobs import Blobs
from service.changes import Changes, Decisions
from service.check_child import examine
from service.checking import DIED, Bench, Checker, CheckOrder, rejection
from service.context import Context
from service.dispatcher import Dispatcher
from service.executors import (
    Ended,
    Handle,
    Improved,
    Kept,
    Progressed,
    Report,
    Resulted,
    Summarised,
)
from service.rates import Throttle
from service.settings import Settings
from service.store import coordination
from service.store.coordination import now_ms
from service.store.database import Watch
from service.store.engine import open_database
from service.store.tables import job, model
from service.telemetry import Spans
from service.worker import Order
from verifier.certificate_json import certificate_text
from verifier.request_json import parse_request

TURN_S = 3.0
HANGS = 0.25  #: the gap of a request whose attempt never ends by itself
SUMMARY = {"input": {"size": 3}, "output": {"size": 2}}


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._began_ms = now_ms()

    def monotonic(self) -> float:
        """Seconds."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        return self._began_ms + round((self.now - 1000.0) * 1000)

    def rule(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Be the clock of the dispatcher and its attempts."""
        for module in (attempt, candidates, checkpoints, dispatcher, inspection):
            monkeypatch.setattr(module, "time", self)
        for module in (coordination, dispatcher):
            monkeypatch.setattr(module, "now_ms", self.now_ms)


class Player:
    """An executor whose children say what they would."""

    def __init__(self) -> None:
        self._told: dict[int, list[list[Report]]] = {}
        self._count = 0

    def submit(self, order: Order) -> Handle:
        """Play it."""
        self._count += 1
        self._told[self._count] = _script(order)
        return Handle(self._count)

    def poll(self) -> list[tuple[Handle, Report]]:
        """What is heard in this turn."""
        return [
            (Handle(number), report)
            for number, turns in self._told.items()
            for report in (turns.pop(0) if 1 < len(turns) else turns[0])
        ]

    def cancel(self, handle: Handle) -> None:
        """Its child ends."""
        self._told[handle.number] = [[Ended(-9)]]

    def describe(self) -> Mapping[str, object]:
        """Nothing of interest."""
        return {"kind": "played"}

    def close(self) -> None:
        """Forget them."""
        self._told.clear()


def _script(order: Order) -> list[list[Report]]:
    """What is heard of an attempt, turn by turn; the last again and again."""
    if order.kind == "inspect":
        return [[Summarised(SUMMARY), Ended(0)], []]
    request = parse_request(order.request)
    data = Path(order.model).read_bytes()

    def proof(bound: float) -> bytes:
        return certificate_text(service_fakes.certificate(data, request, bound)).encode()

    before: list[list[Report]] = [
        [Progressed({"phase": "branch", "iteration": 1, "open": 2})],
        [Kept(b"frontier 1"), Improved(proof(8.0))],
        [Kept(b"frontier 2")],
    ]
    if request.budget.gap == HANGS:
        return [*before, [Kept(b"frontier 3")]]
    return [*before, [Resulted(proof(4.0)), Ended(0)], []]


class InstantChecker(Checker):
    """The checker's code, in this process."""

    is_endless = False
    deaths: Iterator[bool] = iter(())  #: whether the process of the next check is killed

    def __init__(self, faults: Faults) -> None:
        self.began = 0.0
        self._faults = faults
        self._outcome: Mapping[str, Any] | None = None

    def begin(self, order: CheckOrder) -> None:
        """Check."""
        self.began = candidates.time.monotonic()
        with self._faults.off():
            members = json.loads(order.to_line())
            self._outcome = examine(members, service_fakes.check)  # type: ignore[arg-type] # as main() has it

    def poll(self, wait_s: float = 0.0) -> Mapping[str, Any] | None:
        """What was found, unless the check is to take for ever."""
        del wait_s
        if next(InstantChecker.deaths, False):
            return rejection(DIED, "")
        return None if self.is_endless else self._outcome

    def close(self) -> None:
        """There is no process."""


class InstantBench(Bench):
    """Checkers that need no process."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def take(self) -> Checker:
        """One of them."""
        return InstantChecker(self._faults)

    def close(self) -> None:
        """There is no process."""


class LittleService:
    """The service, its clients, and the machine under it."""

    def __init__(
        self, app: FastAPI, folder: Path, template: Path, faults: Faults, clock: Clock
    ) -> None:
        limits = {"slots": 2, "lease_s": 20.0, "heartbeat_s": 2 * TURN_S}
        self.settings = replace(Settings(data=folder), **limits)
        self.database = open_database(self.settings.database)
        self._watches: list[Watch] = []
        self.database.watch = self._watch
        watch_database(self.database, faults)
        self.faults = faults
        self.clock = clock
        self._app = app
        self._template = template
        self._runner = asyncio.Runner()
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")

    def begin(self) -> None:
        """A new life, in an empty data directory."""
        self._bury()
        shutil.rmtree(self.settings.data, ignore_errors=True)
        self.settings.data.mkdir()
        shutil.copyfile(self._template, self.settings.data / "lipcert.db")
        self._open()
        self.faults.is_on = True
        self._boot()

    def _open(self) -> None:
        self.blobs = Blobs(self.settings.data)
        self._app.state.context = Context(
            self.settings,
            self.database,
            self.blobs,
            Changes(self.database),
            Decisions(self.database),
            Throttle(self.settings.rates),
        )
        tools = Tools(self.settings, self.database, self.blobs, InstantBench(self.faults))
        self.dispatcher = Dispatcher(self.settings, tools, Player(), Spans(None))

    def _boot(self) -> None:
        """Start, as often as it takes."""
        while True:
            try:
                self.dispatcher.begin()
            except (Killed, Exception):  # noqa: BLE001 - a process that ends is started again
                self.reboot()
            else:
                return

    def reboot(self) -> None:
        """Every process has died, and is started again."""
        self._bury()
        self._open()
        self._boot()

    def close(self) -> None:
        """End all of it."""
        self._runner.run(self._client.aclose())
        self._runner.close()
        self._bury()

    def _bury(self) -> None:
        """Close what dead processes left open."""
        self.database.close()
        self.faults.bury()
        while self._watches:
            self._watches.pop().close()

    def _watch(self) -> Watch:
        self._watches.append(type(self.database).watch(self.database))
        return self._watches[-1]

    # --- clients ---------------------------------------------------------------------------------

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:  # noqa: ANN401 - httpx's
        """The answer of a client that asks again until it has one."""
        while True:
            try:
                response = self._runner.run(self._client.request(method, path, **more))
            except Killed:
                self.reboot()
                continue
            if response.status_code < 500:
                return response
            assert response.json()["code"] in ("storage-full", "storage-unavailable")
            assert response.headers["retry-after"]

    def upload(self, data: bytes) -> str:
        """The id of a model, uploaded and read."""
        headers = {"Content-Type": "application/octet-stream"}
        response = self.ask("POST", "/v1/models", content=data, headers=headers)
        assert response.status_code in (200, 201)
        model_id = response.json()["id"]
        self.settle(lambda: self.state_of_model(model_id) == "ready")
        return model_id

    def submit(self, key: str, path: str = "/v1/jobs", **members: object) -> str:
        """The id of a job."""
        headers = {"Idempotency-Key": key}
        response = self.ask("POST", path, json=members, headers=headers)
        assert response.status_code in (200, 202), response.text
        return response.json()["id"]

    # --- the dispatcher --------------------------------------------------------------------------

    def settle(self, is_there: Callable[[], bool]) -> None:
        """Let time pass until something is there."""
        for _ in range(60):
            with self.faults.off():
                if is_there():
                    return
            self.clock.now += TURN_S
            try:
                self.dispatcher.turn()
            except Killed:
                self.reboot()
        raise AssertionError(f"stuck after a fault at {self.faults.seen[self.faults.at or 0]}")

    def row(self, job_id: str) -> Any:  # noqa: ANN401 - a row of the table
        """A job as the database has it."""
        with self.database.read() as connection:
            return connection.execute(select(job).where(job.c.id == job_id)).one()

    def state_of_model(self, model_id: str) -> str:
        """A model's state."""
        with self.database.read() as connection:
            return connection.execute(
                select(model.c.state).where(model.c.id == model_id)
            ).scalar_one()
