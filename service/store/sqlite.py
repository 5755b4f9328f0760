"""SQLite in WAL mode: a file, read and written without a server.

A writer takes SQLite's write lock when it begins: a transaction that starts by reading and then
writes would fail with "database is locked", which no timeout helps. So writers take turns, and each
sees what all before it have done. synchronous=FULL because a job that was acknowledged must survive
a power cut.
"""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

from sqlalchemy import Engine, create_engine, event

from service.store import jobs
from service.store.database import Database, News, Watch

BUSY_MS = 20_000
LOOK_S = 0.05  #: between two looks at what has changed


class SqliteDatabase(Database):
    """The database in a file, which the first connection makes if it does not exist."""

    name = "sqlite"
    is_embedded = True

    def __init__(self, path: Path) -> None:
        super().__init__(
            reader=_engine(path, begin="BEGIN", setup=("PRAGMA query_only=ON",)),
            writer=_engine(path, begin="BEGIN IMMEDIATE", setup=()),
        )
        self._path = path

    def watch(self) -> "SqliteWatch":
        """A watch on the file."""
        return SqliteWatch(self._path)

    async def news(self, is_wanted: Callable[[], bool]) -> AsyncGenerator[News]:
        """Looks while anyone waits: the cost grows with the changes, not with those who wait."""
        with self.read() as connection:
            last = jobs.last_change(connection)
        yield None
        while is_wanted():
            with self.read() as connection:
                changed = jobs.changed_after(connection, last)
            if changed:
                last = changed[-1][1]
                yield [job_id for job_id, _ in changed]
            await asyncio.sleep(LOOK_S)


class SqliteWatch(Watch):
    """Tells of commits to a file, at the cost of one number."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._last: object = None

    def has_changed(self) -> bool:
        """Whether there was a commit of any connection, of any process."""
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        has_changed = version != self._last
        self._last = version
        return has_changed

    def close(self) -> None:
        """Stop watching."""
        self._connection.close()


def _engine(path: Path, *, begin: str, setup: tuple[str, ...]) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}",
        pool_size=8,
        max_overflow=32,
        connect_args={"timeout": BUSY_MS / 1000},
        hide_parameters=True,  # errors are logged: no name of a model is in them
    )
    event.listen(engine, "connect", _on_connect(setup))
    # In the driver's words: SQLAlchemy's own way to a statement takes longer than the statement.
    engine.dialect.do_begin = lambda connection: connection.cursor().execute(begin)  # type: ignore[method-assign] # of this engine alone
    return engine


def _on_connect(setup: tuple[str, ...]) -> Callable[[sqlite3.Connection, object], None]:
    def connect(connection: sqlite3.Connection, _record: object) -> None:
        # None: sqlite3 begins no transactions of its own; `begin` does.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (
            "PRAGMA journal_mode=WAL",
            "PRAGMA synchronous=FULL",
            f"PRAGMA busy_timeout={BUSY_MS}",
            "PRAGMA foreign_keys=ON",
            *setup,
        ):
            cursor.execute(pragma)
        cursor.close()

    return connect
