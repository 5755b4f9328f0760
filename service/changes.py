"""Waking those who wait for a job: one look at the database for all of them.

While anyone waits, one task reads which jobs have changed. The cost grows with the changes, not
with the waiters, and any process that writes to the database wakes them.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from sqlalchemy.exc import SQLAlchemyError

from service.store import jobs
from service.store.engine import Database

LOOK_S = 0.05


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
        self._last = 0

    @asynccontextmanager
    async def of(self, job_id: str) -> AsyncGenerator[Bell]:
        """A bell for a job. Look at the job after entering: what changed before does not ring."""
        bell = Bell()
        self._bells.setdefault(job_id, set()).add(bell)
        if self._task is None or self._task.done():
            self._last = self._newest()
            self._task = asyncio.create_task(self._look())
        try:
            yield bell
        finally:
            self._bells[job_id].discard(bell)
            if not self._bells[job_id]:
                del self._bells[job_id]

    def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()

    async def _look(self) -> None:
        """Ring the bells of every job that changed, for as long as there are any."""
        while self._bells:
            with suppress(SQLAlchemyError):  # the next look finds what this one did not
                self._ring()
            await asyncio.sleep(LOOK_S)

    def _ring(self) -> None:
        for job_id, seq in self._changed():
            self._last = max(self._last, seq)
            for bell in self._bells.get(job_id, ()):
                bell.ring()

    def _newest(self) -> int:
        with self._database.read() as connection:
            return jobs.last_change(connection)

    def _changed(self) -> list[tuple[str, int]]:
        with self._database.read() as connection:
            return jobs.changed_after(connection, self._last)
