"""The dispatcher: claims jobs, supervises their attempts, renews leases, sweeps up.

A process of its own beside the API, with one loop that never waits on anything but the clock.
It parses no model and runs no mathematics, so that a heartbeat is never late.

What the machine refuses ends no more than it has to. The database: the turn, and the next one
does what was left. A file or a process: the attempt, whose lease lapses, so that the job is tried
again a while later.

While the store is SQLite there is one dispatcher for a data directory, by a lock on a file. It
therefore knows when it starts that every lease in the database is a dead one's.
"""

import fcntl
import logging
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from typing import IO

from sqlalchemy.exc import SQLAlchemyError

from service.attempt import Attempt, Killed, Tools, lost
from service.blobs import Blobs
from service.checking import Bench
from service.executors import Ended, Erred, Executor, Handle, Overran, Report, Summarised
from service.executors.local import LocalExecutor
from service.logs import write_json_lines
from service.orphans import remove_orphans
from service.settings import Settings, from_environment
from service.signing_keys import read_private_key
from service.store import leases
from service.store.engine import Database, Watch, now_ms, open_database
from service.store.jobs import ASKED, Kind
from service.store.leases import Claim
from service.store.migrate import wait_for_head
from service.worker import Order

TICK_S = 0.02  #: between two turns of the loop
CANCEL_S = 0.1  #: between two looks at what is to be canceled
MIGRATION_S = 60.0
TIDY_S = 3600.0  #: between two looks for files that nobody needs
FAULT_S = 1.0  #: after a turn that the machine cut short

log = logging.getLogger("lipcert.dispatcher")


class Inspection:
    """The reading of one uploaded model."""

    def __init__(self, claim: Claim, handle: Handle, kill_at: float, database: Database) -> None:
        self.claim = claim
        self.handle = handle
        self.killed: Killed | None = None
        self.is_over = False
        self._kill_at = kill_at
        self._database = database
        self._summary: Mapping[str, object] | None = None
        self._error: Mapping[str, object] | None = None
        self._has_ended = False

    @property
    def is_late(self) -> bool:
        """Whether it takes longer than it may."""
        return self.killed is None and self._kill_at < time.monotonic()

    def hear(self, report: Report) -> None:
        """Take note of what the executor reports."""
        match report:
            case Summarised(summary):
                self._summary = summary
            case Erred(error):
                self._error = error
            case Overran(used):
                self._error = {**_unreadable(f"reading the model took {used >> 20} MiB of memory")}
            case Ended():
                self._has_ended = True
            case _:
                pass  # an inspection proves nothing

    def advance(self) -> None:
        """Write what the reading brought, once it is over."""
        if self._has_ended:
            self._conclude()

    def close(self) -> None:
        """Nothing is left behind."""

    def _conclude(self) -> None:
        if self.killed == "late" and self._error is None:
            self._error = _unreadable("reading the model took too long")
        now, is_stopped = now_ms(), self.killed == "stopped"
        reason = "stopped" if is_stopped else "worker-lost"
        with self._database.write() as connection:
            if self._summary is not None or self._error is not None:
                leases.finish_inspection(
                    connection, self.claim, now, summary=self._summary, error=self._error
                )
            elif not leases.release(connection, self.claim, now, reason=reason, again=is_stopped):
                error = lost().to_json()
                leases.finish_inspection(connection, self.claim, now, error=error)
        self.is_over = True


class Dispatcher:
    """The loop."""

    def __init__(self, settings: Settings, tools: Tools, executor: Executor) -> None:
        self.owner = f"{os.uname().nodename}:{os.getpid()}:{secrets.token_hex(4)}"
        self._settings = settings
        self._tools = tools
        self._database = tools.database
        self._executor = executor
        self._running: dict[int, Attempt | Inspection] = {}
        self._due: dict[str, float] = {}
        self._watch = Watch(settings.database)

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop; then kill the children and give their jobs back."""
        self.begin()
        while not stop.wait(TICK_S):
            if not self.turn():
                stop.wait(FAULT_S)
        self.stop()

    def begin(self) -> None:
        """End the leases of whoever was here before."""
        with self._database.write() as connection:
            leases.lapse(connection, now_ms())
        self._sweep()

    def turn(self) -> bool:
        """Do what is due; whether the machine let it be done."""
        try:
            self._do_what_is_due()
        except (OSError, SQLAlchemyError):
            log.exception("a turn was cut short")
            return False
        return True

    def _do_what_is_due(self) -> None:
        self._advance()
        for attempt in self._running.values():
            if attempt.is_late:
                attempt.killed = "late"
                self._executor.cancel(attempt.handle)
        if self._running and self._is_due("cancel", CANCEL_S):
            self._obey()
        if self._is_due("heartbeat", self._settings.heartbeat_s):
            self._beat()
        if self._is_due("sweep", self._settings.sweep_s):
            self._sweep()
        if self._is_due("tidy", TIDY_S):
            self._tidy()
        self._claim()

    def _advance(self) -> None:
        """Pass on what the executor heard, and forget the attempts that are over."""
        for handle, report in self._executor.poll():
            if handle.number in self._running:
                with self._at_its_risk(handle.number):
                    self._running[handle.number].hear(report)
        for number, attempt in list(self._running.items()):
            with self._at_its_risk(number):
                attempt.advance()
            if attempt.is_over:
                self._forget(number)
                log.info("attempt ended", extra=_about(attempt.claim))

    @contextmanager
    def _at_its_risk(self, number: int) -> Generator[None]:
        """Give an attempt up for which the machine has no room: its lease lapses."""
        try:
            yield
        except OSError:
            about = _about(self._running[number].claim)
            self._forget(number)
            log.exception("attempt given up", extra=about)

    def _forget(self, number: int) -> None:
        attempt = self._running.pop(number)
        self._executor.cancel(attempt.handle)
        with suppress(OSError):  # what is left of it is removed with what crashes leave
            attempt.close()

    def _is_due(self, name: str, every_s: float) -> bool:
        now = time.monotonic()
        if now < self._due.get(name, 0.0):
            return False
        self._due[name] = now + every_s
        return True

    def _beat(self) -> None:
        now = now_ms()
        with self._database.write() as connection:
            if self._running:
                kept = [attempt.claim.job for attempt in self._running.values()]
                leases.heartbeat(connection, self.owner, kept, now + self._lease_ms)
            leases.announce(connection, self.owner, now, self._executor.describe())

    def _obey(self) -> None:
        """Kill what was canceled, and what is no longer ours."""
        with self._database.read() as connection:
            held = leases.held(connection, self.owner)
        for attempt in self._running.values():
            mine = attempt.claim
            held_attempt, is_canceled = held.get(mine.job, (None, False))
            if attempt.killed is not None:
                continue
            if held_attempt != mine.attempt or is_canceled:
                attempt.killed = "canceled"
                self._executor.cancel(attempt.handle)

    def _sweep(self) -> None:
        now = now_ms()
        with self._database.read() as connection:
            if not leases.needs_sweep(connection, now):
                return
        with self._database.write() as connection:
            leases.sweep(connection, now, lost().to_json())

    def _tidy(self) -> None:
        self._tools.blobs.remove_stale()
        remove_orphans(self._database, self._tools.blobs)

    def _claim(self) -> None:
        """Start attempts while there are jobs and free slots."""
        # Looked at only with a free slot, so that no change is noticed and then forgotten.
        if not self._free_kinds() or not (self._watch.has_changed() or self._is_due("claim", 1.0)):
            return
        while kinds := self._free_kinds():
            now = now_ms()
            with self._database.read() as connection:
                if not leases.has_work(connection, now, kinds):
                    return
            with self._database.write() as connection:
                claim = leases.claim(connection, self.owner, now, self._lease_ms, kinds)
            if claim is None:
                return
            self._start(claim)

    def _free_kinds(self) -> list[Kind]:
        """Reading models has slots of its own: uploads are answered while the others compute."""
        verifying = sum(isinstance(attempt, Attempt) for attempt in self._running.values())
        kinds: list[Kind] = []
        if verifying < self._settings.slots:
            kinds += ASKED
        if len(self._running) - verifying < self._settings.slots:
            kinds.append("inspect")
        return kinds

    def _start(self, claim: Claim) -> None:
        settings, blobs = self._settings, self._tools.blobs
        order = Order(
            kind=claim.kind,
            entry=getattr(settings.entry_points, claim.kind),
            model=str(blobs.place("models", claim.tenant, claim.model.removeprefix("sha256:"))),
            digest=claim.model,
            request=self._request(claim),
            checkpoint=self._checkpoint(claim),
            places=len(claim.request.get("centers", [None])),
            memory_bytes=settings.memory_bytes,
            threads=settings.threads,
            folder=str(blobs.temporary),
            folders=settings.entry_points.folders,
        )
        handle = self._executor.submit(order)
        log.info("attempt started", extra=_about(claim))
        began = time.monotonic()
        if claim.kind == "inspect":
            kill_at = began + settings.inspect_s
            self._running[handle.number] = Inspection(claim, handle, kill_at, self._database)
        else:
            kill_at = began + self._seconds(claim) + settings.budget_grace_s
            self._running[handle.number] = Attempt(claim, handle, kill_at, self._tools)

    def _checkpoint(self, claim: Claim) -> str:
        """The path of what is left to go on from; empty where nothing is."""
        if claim.checkpoint is None:
            return ""
        return str(self._tools.blobs.place("checkpoints", claim.tenant, claim.checkpoint))

    def _request(self, claim: Claim) -> dict[str, object]:
        """What the child is asked, with the seconds that are left for it."""
        match claim.kind:
            case "verify":
                budget = {**claim.request["budget"], "seconds": self._seconds(claim)}
                return {**claim.request, "budget": budget}
            case "radius":
                return {**claim.request, "seconds": self._seconds(claim)}
            case "inspect":
                return {}

    def _seconds(self, claim: Claim) -> float:
        """The budget, cut at the time of day after which nobody wants the answer."""
        budget = claim.request["budget"] if claim.kind == "verify" else claim.request
        seconds = float(budget["seconds"])
        if claim.deadline is not None:
            # Not 0: a budget is above 0, and what a blink brings is a bound, too.
            seconds = min(seconds, max(0.1, (claim.deadline - now_ms()) / 1000))
        return seconds

    @property
    def _lease_ms(self) -> int:
        return round(self._settings.lease_s * 1000)

    def stop(self) -> None:
        """Kill the children, give their jobs back, and say that this dispatcher has gone."""
        for attempt in self._running.values():
            attempt.killed = attempt.killed or "stopped"
            self._executor.cancel(attempt.handle)
        end = time.monotonic() + 5.0
        while self._running and time.monotonic() < end:
            time.sleep(TICK_S)
            self._advance()
        with self._database.write() as connection:
            leases.retire(connection, self.owner)
        self._watch.close()
        self._executor.close()


def serve(settings: Settings, stop: threading.Event) -> None:
    """Dispatch until told to stop."""
    _limit_threads(settings.threads)
    blobs = Blobs(settings.data)
    database = open_database(settings.database)
    if not wait_for_head(database, MIGRATION_S):
        raise SystemExit("the database is not at the newest schema: start the API first")
    with _only_one(settings):
        # Read before any child is forked, by this process alone.
        key = None if settings.signing_key is None else read_private_key(settings.signing_key)
        executor = LocalExecutor(settings.entry_points.preload, settings.max_certificate_bytes)
        executor.start()
        bench = Bench(settings.entry_points)
        try:
            tools = Tools(settings, database, blobs, bench, key)
            Dispatcher(settings, tools, executor).run(stop)
        finally:
            bench.close()
            database.close()


def _about(claim: Claim) -> dict[str, object]:
    """What a line of the log says of an attempt."""
    return {"with": {"job": claim.job, "kind": claim.kind, "attempt": claim.attempt}}


def main() -> int:
    """Run as `lipcert serve` starts it: settings on standard input, which stays open for life.

    With `--alone` as a container does: settings from the environment, until SIGTERM. With
    `--is-alive` it only tells, by its exit code, whether another one runs.
    """
    write_json_lines()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the API process decides
    if "--alone" in sys.argv:
        serve(from_environment(os.environ), stop)
        return 0
    if "--is-alive" in sys.argv:
        return 0 if _is_alive(from_environment(os.environ)) else 1
    settings = Settings.from_json(sys.stdin.readline())

    def watch() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=watch, daemon=True).start()
    serve(settings, stop)
    return 0


def _limit_threads(threads: int) -> None:
    """Set before any import of a numeric library, here and so in every child."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"


def _only_one(settings: Settings) -> IO[str]:
    """The lock of the data directory's dispatcher; waits for a dying one to be gone."""
    held = (settings.data / "dispatcher.lock").open("w", encoding="ascii")
    fcntl.flock(held, fcntl.LOCK_EX)
    return held


def _is_alive(settings: Settings) -> bool:
    """Whether the data directory has a dispatcher: a container's health check."""
    database = open_database(settings.database)
    with database.read() as connection:
        return leases.alive(connection, now_ms()) is not None


def _unreadable(detail: str) -> Mapping[str, object]:
    return {
        "code": "resource-exhausted",
        "title": "The attempt ran out of memory or processor time.",
        "detail": detail,
        "node": None,
        "fix": "export a smaller model, or give the service more memory",
    }
