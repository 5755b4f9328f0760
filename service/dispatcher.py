"""The dispatcher: claims jobs, supervises their attempts, renews leases, sweeps up.

A process of its own beside the API, with one loop that never waits on anything but the clock.
It parses no model and runs no mathematics, so that a heartbeat is never late.

What the machine refuses ends no more than it has to. The database: the turn, and the next one
does what was left; meanwhile the children go on, and what they report is kept until it can be
written, if the lease still stands then. A file or a process: the attempt, whose lease lapses, so
that the job is tried again a while later.

On SQLite there is one dispatcher for a data directory, by a lock on a file. It therefore knows when
it starts that every lease in the database is a dead one's. On PostgreSQL there are any number, on
any machines that share the folder of blobs, and a dead one's leases lapse.
"""

import fcntl
import logging
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress

from sqlalchemy.exc import SQLAlchemyError

from service.attempt import Attempt, Tools, lost
from service.blobs import Blobs
from service.checking import Bench
from service.environment import forget_secrets, limit_threads
from service.executors import Executor
from service.executors.local import LocalExecutor
from service.gating import Gatekeeper
from service.inspection import Inspection
from service.logs import write_json_lines
from service.orphans import remove_orphans
from service.quotas import effective_limits
from service.settings import Settings, from_environment
from service.signing_keys import read_private_key
from service.store import leases
from service.store.coordination import now_in, now_ms
from service.store.database import UNAVAILABLE
from service.store.engine import open_database
from service.store.jobs import ASKED, Kind
from service.store.leases import Claim
from service.store.migrate import wait_for_head
from service.store.retention import forget_checkpoints
from service.telemetry import Spans, provider_of, shut_down
from service.worker import Order

TICK_S = 0.02  #: between two turns of the loop
CANCEL_S = 0.1  #: between two looks at what is to be canceled
MIGRATION_S = 60.0
TIDY_S = 3600.0  #: between two looks for files that nobody needs
FAULT_S = 1.0  #: after a turn that the machine cut short
RETRY_S = 0.2  #: before a database that did not answer is asked again

log = logging.getLogger("lipcert.dispatcher")


class Dispatcher:
    """The loop."""

    def __init__(self, settings: Settings, tools: Tools, executor: Executor, spans: Spans) -> None:
        self.owner = f"{os.uname().nodename}:{os.getpid()}:{secrets.token_hex(4)}"
        self._settings = settings
        self._tools = tools
        self._database = tools.database
        self._executor = executor
        self._running: dict[int, Attempt | Inspection] = {}
        self._gates = Gatekeeper(tools)
        self._due: dict[str, float] = {}
        self._watch = self._database.watch()
        self._is_cut_off = False  #: the database did not answer when it was asked last
        self._spans = spans

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop; then kill the children and give their jobs back."""
        self.begin()
        while not stop.wait(TICK_S):
            if not self.turn():
                stop.wait(RETRY_S if self._is_cut_off else FAULT_S)
        self.stop()

    def begin(self) -> None:
        """End the leases of whoever was here before, where that can be no other one."""
        if self._database.is_embedded:
            with self._database.write() as connection:
                leases.lapse(connection, now_in(connection))

    def turn(self) -> bool:
        """Do what is due; whether the machine let it be done."""
        self._kill_late()
        try:
            self._do_what_is_due()
        except UNAVAILABLE as error:
            self._note_cut(error)
            return False
        except (OSError, SQLAlchemyError):
            log.exception("a turn was cut short")
            return False
        return True

    def _note_cut(self, error: Exception) -> None:
        """The database did not answer: what was due then is done again."""
        if not self._is_cut_off:
            log.error("the database does not answer: %s", type(error).__name__)
        self._is_cut_off = True
        self._due.clear()

    def _reconcile(self) -> None:
        """After a break: the last transaction may have been committed although it raised."""
        known = {(each.claim.job, each.claim.attempt) for each in self._running.values()}
        with self._database.write() as connection:
            leases.give_back_unknown(connection, self.owner, known, now_in(connection))
        self._is_cut_off = False
        log.info("the database answers again")

    def _kill_late(self) -> None:
        for attempt in self._running.values():
            if attempt.is_late:
                attempt.killed = "late"
                self._executor.cancel(attempt.handle)

    def _do_what_is_due(self) -> None:
        if self._is_cut_off:
            self._reconcile()
        self._advance()
        if self._running and self._is_due("cancel", CANCEL_S):
            self._obey()
        if self._is_due("heartbeat", self._settings.heartbeat_s):
            self._beat()
        if self._is_due("sweep", self._settings.sweep_s):
            self._sweep()
        if self._is_due("tidy", TIDY_S):
            self._tidy()
        self._claim()
        self._gates.advance()  # last: what it meets must not keep jobs from being claimed

    def _advance(self) -> None:
        """Pass on what the executor heard, and forget the attempts that are over."""
        for handle, report in self._executor.poll():
            if handle.number in self._running:
                with self._at_its_risk(handle.number):
                    self._running[handle.number].hear(report)
        for number, attempt in list(self._running.items()):
            with self._at_its_risk(number):
                attempt.advance()
            if attempt.is_over and number in self._running:
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
        self._spans.end(number, attempt.killed)
        self._executor.cancel(attempt.handle)
        self._due.pop("claim", None)  # there is a free slot
        with suppress(OSError):  # what is left of it is removed with what crashes leave
            attempt.close()

    def _is_due(self, name: str, every_s: float) -> bool:
        now = time.monotonic()
        if now < self._due.get(name, 0.0):
            return False
        self._due[name] = now + every_s
        return True

    def _beat(self) -> None:
        working = [attempt.claim.job for attempt in self._running.values()]
        with self._database.write() as connection:
            now = now_in(connection)
            if working:
                leases.heartbeat(connection, self.owner, working, now + self._lease_ms)
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
        with self._database.read() as connection:
            if not leases.needs_sweep(connection, now_in(connection)):
                return
        with self._database.write() as connection:
            leases.sweep(connection, now_in(connection), lost().to_json())

    def _tidy(self) -> None:
        self._tools.blobs.remove_stale()
        forget_checkpoints(self._database, self._settings.checkpoint_days)
        remove_orphans(self._database, self._tools.blobs)

    def _claim(self) -> None:
        """Start attempts while there are jobs and free slots."""
        if self._watch.has_changed():
            self._due.pop("claim", None)
        # Due only with a free slot, so that no change is noticed and then forgotten.
        if not self._free_kinds() or not self._is_due("claim", 1.0):
            return
        while kinds := self._free_kinds():
            if not self._may_claim(kinds):
                return
            with self._database.write() as connection:
                now = now_in(connection)
                claim = leases.claim(
                    connection, self.owner, now, self._lease_ms, kinds, self._settings.limits
                )
            if claim is None:
                return
            self._start(claim)

    def _may_claim(self, kinds: Sequence[Kind]) -> bool:
        """Whether to begin a writer's transaction: on SQLite it would keep all others waiting."""
        if not self._database.is_embedded:
            return True
        with self._database.read() as connection:
            limits = self._settings.limits
            return leases.has_work(connection, now_in(connection), kinds, limits)

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
            memory_bytes=self._memory_bytes(claim),
            threads=settings.threads,
            folder=str(blobs.temporary),
            folders=settings.entry_points.folders,
        )
        handle = self._executor.submit(order)
        self._spans.begin(handle.number, claim)
        log.info("attempt started", extra=_about(claim))
        began = time.monotonic()
        if claim.kind == "inspect":
            kill_at = began + settings.inspect_s
            self._running[handle.number] = Inspection(claim, handle, kill_at, self._database)
        else:
            kill_at = began + self._seconds(claim) + settings.budget_grace_s
            self._running[handle.number] = Attempt(claim, handle, kill_at, self._tools)

    def _memory_bytes(self, claim: Claim) -> int:
        """What a child may use: of the service's share what the tenant is allowed."""
        with self._database.read() as connection:
            return effective_limits(connection, self._settings, claim.tenant).memory_bytes

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
        # Without the database the leases lapse.
        with suppress(*UNAVAILABLE):
            while self._running and time.monotonic() < end:
                time.sleep(TICK_S)
                self._advance()
            with self._database.write() as connection:
                leases.retire(connection, self.owner)
        self._gates.close()
        self._watch.close()
        self._executor.close()


def serve(settings: Settings, stop: threading.Event) -> None:
    """Dispatch until told to stop."""
    limit_threads(settings.threads)
    blobs = Blobs(settings.data)
    with ExitStack() as opened:
        database = opened.enter_context(closing(open_database(settings.database)))
        if not wait_for_head(database, MIGRATION_S):
            raise SystemExit(
                "the database does not answer, or is not at the newest schema: start the API first"
            )
        if database.is_embedded:
            opened.enter_context(_only_one(settings))
        # Read before any child is forked, by this process alone.
        key = None if settings.signing_key is None else read_private_key(settings.signing_key)
        executor = LocalExecutor(settings.entry_points.preload, settings.max_certificate_bytes)
        executor.start()
        bench = opened.enter_context(closing(Bench(settings.entry_points)))
        provider = provider_of(settings.telemetry)
        opened.callback(shut_down, provider)
        level = str(executor.describe()["sandbox"])
        tools = Tools(settings, database, blobs, bench, key, level)
        Dispatcher(settings, tools, executor, Spans(provider)).run(stop)


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
        settings = from_environment(os.environ)
        forget_secrets()
        serve(settings, stop)
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


@contextmanager
def _only_one(settings: Settings) -> Generator[None]:
    """The lock of the data directory's dispatcher; waits for a dying one to be gone."""
    with (settings.data / "dispatcher.lock").open("w", encoding="ascii") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _is_alive(settings: Settings) -> bool:
    """Whether the data directory has a dispatcher: a container's health check."""
    with closing(open_database(settings.database)) as database, database.read() as connection:
        return leases.alive(connection, now_in(connection)) is not None
