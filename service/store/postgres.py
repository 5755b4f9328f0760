"""PostgreSQL by URL, for APIs and dispatchers on any number of machines. psycopg is an extra.

Readers are REPEATABLE READ and READ ONLY: a snapshot, as on SQLite. Writers are READ COMMITTED on
purpose. Every change of a job is one UPDATE guarded by what the row has to be; where another writer
was first, PostgreSQL waits for it and evaluates the guards again, on the new row. A higher level
would fail there instead ("could not serialize access"), and every caller had to try again. What a
guard cannot say (is there room in the queue?) is decided in turns: see `coordination`.

A server that restarts or fails breaks every connection: a pooled one is tried before it is used,
what was under way raises one of UNAVAILABLE, and nothing is half done.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Any

import psycopg
from psycopg.sql import SQL, Composed, Identifier
from sqlalchemy import URL, Engine, create_engine, event, make_url

from service.store.address import DatabaseUrl
from service.store.coordination import JOBS, WORK
from service.store.database import Database, News, Watch

RETRY_S = 0.5  #: between two tries to listen again

#: What the URL's own parameters may override: a server that is gone is noticed within seconds.
DEFAULTS = {
    "application_name": "lipcert",
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}

#: A process that stops inside a transaction keeps no turn and no row for ever; and what was
#: acknowledged is on the disk, although the server's default may be otherwise.
SETUP = """
SELECT set_config('idle_in_transaction_session_timeout', '30s', false),
       set_config('lock_timeout', '20s', false),
       set_config('synchronous_commit', replace(level, 'off', 'on'), false)
  FROM current_setting('synchronous_commit') AS level
"""

log = logging.getLogger("lipcert.postgres")


class PostgresDatabase(Database):
    """The database at a URL."""

    name = "postgresql"
    is_embedded = False

    def __init__(self, address: DatabaseUrl) -> None:
        url = make_url(address.text).set(drivername="postgresql+psycopg")
        missing = {name: value for name, value in DEFAULTS.items() if name not in url.query}
        url = url.update_query_dict(missing)
        super().__init__(
            reader=_engine(url, isolation="REPEATABLE READ", read_only=True),
            writer=_engine(url, isolation="READ COMMITTED", read_only=False),
        )
        #: How psycopg itself is told where the server is.
        self._place = dict(self.reader.dialect.create_connect_args(url)[1])

    def watch(self) -> "PostgresWatch":
        """A watch with a connection of its own."""
        return PostgresWatch(self._place)

    async def news(self, is_wanted: Callable[[], bool]) -> AsyncGenerator[News]:
        """What NOTIFY tells, for ever: listening costs nothing.

        A notification comes if and only if its transaction is committed, after that, and names its
        job. So nothing depends on numbers, which concurrent transactions draw in one order and
        commit in another. Whenever listening starts, all jobs are news: what happened before it
        told nobody.
        """
        del is_wanted
        while True:
            with suppress(psycopg.OperationalError):
                connection = await psycopg.AsyncConnection.connect(**self._place, autocommit=True)
                async with connection:
                    await connection.execute(_listen_to(JOBS))
                    yield None
                    async for notification in connection.notifies():
                        yield [notification.payload]
            await asyncio.sleep(RETRY_S)


class PostgresWatch(Watch):
    """Tells of jobs that may be claimed, as NOTIFY does."""

    def __init__(self, place: dict[str, Any]) -> None:
        self._place = place
        self._connection: psycopg.Connection | None = None
        self._next_try = 0.0

    def has_changed(self) -> bool:
        """Whether there may be work: a notification, or a time without a connection, is over."""
        try:
            if self._connection is None:
                return self._listen()
            return bool(list(self._connection.notifies(timeout=0)))
        except psycopg.OperationalError:
            self.close()
            return False

    def close(self) -> None:
        """Stop watching."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _listen(self) -> bool:
        if time.monotonic() < self._next_try:
            return False
        self._next_try = time.monotonic() + RETRY_S
        self._connection = psycopg.connect(**self._place, autocommit=True)
        self._connection.execute(_listen_to(WORK))
        return True


def _listen_to(channel: str) -> Composed:
    return SQL("LISTEN {}").format(Identifier(channel))


def _engine(url: URL, *, isolation: str, read_only: bool) -> Engine:
    engine = create_engine(
        url,
        pool_size=8,
        max_overflow=8,  # more wait for a connection: a server has 100 for all by default
        pool_pre_ping=True,
        isolation_level=isolation,
        hide_parameters=True,  # errors are logged: no name of a model is in them
    )
    event.listen(engine, "connect", _on_connect(read_only=read_only))
    return engine


def _on_connect(*, read_only: bool) -> Callable[[psycopg.Connection, object], None]:
    def connect(connection: psycopg.Connection, _record: object) -> None:
        connection.execute(SETUP)
        connection.commit()
        connection.read_only = read_only

    return connect
