"""The deliverer: tells webhooks what is in the outbox; a process of its own, where there are any.

It is the only process of the service that speaks to others first. It reads no model and no
certificate, and holds no job: a receiver that is slow, hostile or gone delays nobody's work, and
the processes that do read models need no network at all.
"""

import asyncio
import logging
import os
import random
import secrets
import signal
import ssl
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx
from sqlalchemy import Connection

from service.delivery import ANSWER_S, Sent, post
from service.links import linked
from service.logs import write_json_lines
from service.sealing import Seal, Unsealable, seal_context
from service.settings import Settings, from_environment
from service.store import deliverers, tries
from service.store.coordination import now_in, now_ms
from service.store.database import UNAVAILABLE, Database
from service.store.engine import open_database
from service.store.migrate import wait_for_head
from service.store.outbox import MAX_TRIES
from service.store.tries import Try
from service.webhook_targets import (
    RESOLVE_S,
    Resolve,
    TargetRefused,
    Unresolved,
    addresses_of,
    read_target,
    system_addresses,
)
from service.webhooks import signed_headers

Found = TypeVar("Found")

ROOM = 32  #: tries at one time
LOOK_S = 0.25  #: between two looks for what is due
SWEEP_MS = 10_000
ANNOUNCE_MS = 5_000
PRUNE_MS = 3_600_000
SPARE_S = 14.0  #: of a lease, after all that a try may take
MIGRATION_S = 60.0

FIRST_WAIT_S, LAST_WAIT_S = 5.0, 36_000.0  #: the most between two tries, at first and in the end

log = logging.getLogger("lipcert.deliverer")


def longest_wait_s(tried: int) -> float:
    """The most seconds after the tried-th try: 5 s, ..., 10 h for 1, ..., 7, in equal ratios."""
    steps = MAX_TRIES - 2
    return FIRST_WAIT_S * (LAST_WAIT_S / FIRST_WAIT_S) ** (min(tried - 1, steps) / steps)


def _authorities() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What is outside: names, clocks, chance, and the authorities of TLS."""

    resolve: Resolve = system_addresses
    now: Callable[[], int] = now_ms  #: milliseconds since 1970, that receivers compare with theirs
    clock: Callable[[Connection], int] = now_in  #: the one that leases are compared by
    chance: Callable[[], float] = random.random  #: in [0, 1)
    trust: ssl.SSLContext = field(default_factory=_authorities)


class Deliverer:
    """The loop."""

    def __init__(self, settings: Settings, database: Database, world: World) -> None:
        self._settings = settings
        self._database = database
        self._world = world
        self._seal = Seal(settings.webhook_key)
        self._node = os.uname().nodename
        self._owner = f"{self._node}:{os.getpid()}:{secrets.token_hex(4)}"
        self._running: dict[asyncio.Task[None], Try] = {}
        self._next: dict[str, int] = {}
        self._is_cut_off = False  #: the database did not answer when it was asked last

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver until told to stop; then give back what is on its way."""
        stopping = asyncio.create_task(stop.wait())
        while not stop.is_set():
            await self._try_turn()
            # A webhook that has answered is told the next thing at once.
            news: set[asyncio.Task[Any]] = {stopping, *self._running}
            await asyncio.wait(news, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
        await self._give_back()

    async def _try_turn(self) -> None:
        """A turn, if the database answers; what is on its way goes on without it."""
        try:
            await self.turn()
        except UNAVAILABLE as error:
            if not self._is_cut_off:
                log.error("the database does not answer: %s", type(error).__name__)  # noqa: TRY400 - its text may hold parameters
            self._is_cut_off = True
        else:
            self._is_cut_off = False

    async def turn(self) -> None:
        """Start what is due, while there is room."""
        clock, busy = self._world.clock, [(t.tenant, t.webhook) for t in self._running.values()]
        if self._is_due("announce", ANNOUNCE_MS):
            await self._write(lambda c: deliverers.announce(c, self._owner, self._node, clock(c)))
        if self._is_due("sweep", SWEEP_MS):
            await self._write(lambda c: tries.sweep(c, clock(c)))
        if self._is_due("prune", PRUNE_MS):
            await self._write(lambda c: tries.prune(c, clock(c)))
        with self._database.read() as connection:
            found = tries.due(connection, clock(connection), busy, ROOM - len(busy))
        for mine in await self._claimed(found):
            task = asyncio.create_task(self._deliver(mine))
            self._running[task] = mine
            task.add_done_callback(self._forget)

    async def settled(self) -> None:
        """Wait for the tries that go on."""
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _claimed(self, found: list[tuple[str, str]]) -> list[Try]:
        """The messages that nobody else sends."""
        allowed_s = RESOLVE_S + self._settings.webhook_timeout_s + ANSWER_S + SPARE_S
        lease_ms = round(allowed_s * 1000)

        def claim(connection: Connection) -> list[Try | None]:
            now = self._world.clock(connection)
            return [tries.claim(connection, *one, now, lease_ms) for one in found]

        return [mine for mine in await self._write(claim) if mine is not None] if found else []

    async def _deliver(self, mine: Try) -> None:
        began = time.monotonic()
        sent = await self._sent(mine)
        await self._write(lambda c: self._settle(c, mine, sent))
        told = {
            "delivery": mine.id,
            "webhook": mine.webhook,
            "event": mine.event,
            "outcome": sent.outcome,
            "status": sent.status,
            "tries": mine.tries,
            "seconds": round(time.monotonic() - began, 3),
        }
        log.info("webhook told", extra={"with": told})

    def _settle(self, connection: Connection, mine: Try, sent: Sent) -> None:
        now = self._world.clock(connection)
        wait_ms = round(1000 * self._world.chance() * longest_wait_s(mine.round))
        tries.settle(connection, mine, sent.outcome, sent.status, now, wait_ms)

    async def _sent(self, mine: Try) -> Sent:
        """What the try comes to. Where it goes is decided anew: names and rules change."""
        body = linked(mine.body, self._settings.public_url).encode()
        try:
            target = read_target(mine.url, self._settings)
            addresses = await addresses_of(target, self._world.resolve)
            now = self._world.now()
            headers = signed_headers(self._secrets(mine, now), mine.id, body, now // 1000)
        except Unresolved:
            return Sent("unresolved")
        except TargetRefused:
            return Sent("target-refused")
        except Unsealable:
            return Sent("secret-lost")
        return await post(
            target,
            addresses,
            headers,
            body,
            timeout_s=self._settings.webhook_timeout_s,
            trust=self._world.trust,
        )

    def _secrets(self, mine: Try, now: int) -> list[str]:
        """The newest one first; the one before it for a while after a rotation."""
        sealed = [mine.sealed]
        if mine.old_sealed is not None and mine.old_until is not None and now < mine.old_until:
            sealed.append(mine.old_sealed)
        return [self._seal.open(one, seal_context(mine.tenant, mine.webhook)) for one in sealed]

    def _forget(self, task: asyncio.Task[None]) -> None:
        mine = self._running.pop(task)
        if not task.cancelled() and task.exception() is not None:
            # The lease lapses, and the message is sent again.
            about = {"with": {"delivery": mine.id}}
            log.error("a delivery failed", exc_info=task.exception(), extra=about)

    async def _give_back(self) -> None:
        held = dict(self._running)
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)

        def release(connection: Connection) -> None:
            for mine in held.values():
                tries.release(connection, mine)
            deliverers.retire(connection, self._owner)

        with suppress(*UNAVAILABLE):  # else the leases lapse
            await self._write(release)

    async def _write(self, change: Callable[[Connection], Found]) -> Found:
        """What a change returns; in a thread, since whoever holds the write lock may take long."""

        def work() -> Found:
            with self._database.write() as connection:
                return change(connection)

        return await asyncio.to_thread(work)

    def _is_due(self, name: str, every_ms: int) -> bool:
        now = self._world.now()
        if now < self._next.get(name, 0):
            return False
        self._next[name] = now + every_ms
        return True


async def deliver(settings: Settings) -> None:
    """Deliver until terminated, or until standard input ends where that is the lifeline."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)

    def watch() -> None:
        sys.stdin.read()
        with suppress(RuntimeError):  # the loop has ended before the lifeline
            loop.call_soon_threadsafe(stop.set)

    with closing(open_database(settings.database)) as database:
        if not wait_for_head(database, MIGRATION_S):
            raise SystemExit("the database is not at the newest schema: start the API first")
        if "--alone" not in sys.argv:
            threading.Thread(target=watch, daemon=True).start()
        await Deliverer(settings, database, World()).run(stop)


def is_alive(settings: Settings) -> bool:
    """Whether a deliverer works on this machine: a container's health check."""
    node = os.uname().nodename
    with closing(open_database(settings.database)) as database, database.read() as connection:
        return deliverers.is_alive(connection, node, now_in(connection))


def main() -> None:
    """Run as `lipcert serve` starts it: settings on standard input, which stays open for life.

    With `--alone` as a container does: settings from the environment, until SIGTERM. With
    `--is-alive` it only tells, by its exit code, whether another one runs.
    """
    write_json_lines()
    if "--is-alive" in sys.argv:
        raise SystemExit(0 if is_alive(from_environment(os.environ)) else 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the API process decides
    # httpx logs every URL that it calls, and some hold secrets.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("httpcore").setLevel(logging.WARNING)
    if "--alone" in sys.argv:
        settings = from_environment(os.environ)
    else:
        settings = Settings.from_json(sys.stdin.readline())
    if not settings.webhooks:
        raise SystemExit("webhooks are off: set LIPCERT_WEBHOOKS=on")
    asyncio.run(deliver(settings))


if __name__ == "__main__":
    main()
