"""Waking those who wait for a job or a gate: one task for all of them follows the news.

The cost grows with the changes, not with the waiters, and any process that writes wakes them.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing, asynccontextmanager

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from service.store import gates
from service.store.database import Database

LOOK_S = 0.05  #: between two looks for decided gates
RETRY_S = 0.5  #: before news that broke off are followed again

log = logging.getLogger("lipcert.changes")


class Bell:
    """Rings when a job changes."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Say that something changed."""
        self._event.set()

    async def wait(self, timeout_s: float) -> bool:
        """Whether it rang since the last wait, or does within the time."""
        try:
            await asyncio.wait_for(self._event.wait(), timeout_s)
        except TimeoutError:
            return False
        self._event.clear()
        return True


class Changes:
    """Who waits for which job."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._bells: dict[str, set[Bell]] = {}
        self._task: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def of(self, job_id: str) -> AsyncGenerator[Bell]:
        """A bell for a job. Look at the job after entering: what changed before may not ring."""
        bell = Bell()
        self._bells.setdefault(job_id, set()).add(bell)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._follow())
        try:
            yield bell
        finally:
            self._bells[job_id].discard(bell)
            if not self._bells[job_id]:
                del self._bells[job_id]

    async def close(self) -> None:
        """Stop following: after it nobody asks the database any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _follow(self) -> None:
        """Ring the bells of every job that changes."""
        while True:
            try:
                return await self._ring_all()
            except SQLAlchemyError as error:
                log.warning("no news from the database: %s", type(error).__name__)
                await asyncio.sleep(RETRY_S)

    async def _ring_all(self) -> None:
        async with aclosing(self._database.news(lambda: bool(self._bells))) as news:
            async for changed in news:
                self._ring(list(self._bells) if changed is None else changed)

    def _ring(self, ids: Iterable[str]) -> None:
        for subject in ids:
            for bell in self._bells.get(subject, ()):
                bell.ring()


class Decisions(Changes):
    """Who waits for which gate; a bell rings when its gate is decided."""

    async def _ring_all(self) -> None:
        """Look again and again: gates are decided seldom, and few wait for them."""
        while self._bells:
            look = self._decided
            self._ring(look() if self._database.is_embedded else await run_in_threadpool(look))
            await asyncio.sleep(LOOK_S)

    def _decided(self) -> list[str]:
        with self._database.read() as connection:
            return gates.decided_among(connection, list(self._bells))
