"""The database connection: SQLite in WAL mode, one engine to read with and one to write with.

A writer takes SQLite's write lock when it begins: a transaction that starts by reading and then
writes would fail with "database is locked", which no timeout helps. synchronous=FULL because a
job that was acknowledged must survive a power cut.
"""

import sqlite3
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import OperationalError

HEAD = "0003"  #: the newest migration; a test compares it with the migrations' folder

BUSY_MS = 20_000


@dataclass(frozen=True, slots=True)
class Database:
    """Two engines over one file."""

    reader: Engine
    writer: Engine

    def read(self) -> AbstractContextManager[Connection]:
        """A connection that can only read, in a snapshot of its own."""
        return self.reader.begin()

    def write(self) -> AbstractContextManager[Connection]:
        """A transaction that holds the write lock; commits at the end of the block."""
        return self.writer.begin()

    def revision(self) -> str | None:
        """The migration that the file is at; None for an empty file."""
        with self.read() as connection:
            try:
                return connection.scalar(text("SELECT version_num FROM alembic_version"))
            except OperationalError:
                return None

    def close(self) -> None:
        """Close every pooled connection."""
        self.reader.dispose()
        self.writer.dispose()


class Watch:
    """Tells whether anyone has written since the last look, at the cost of one number."""

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


def open_database(path: Path) -> Database:
    """The database in a file, which the first connection makes if it does not exist."""
    return Database(
        reader=_engine(path, begin="BEGIN", setup=("PRAGMA query_only=ON",)),
        writer=_engine(path, begin="BEGIN IMMEDIATE", setup=()),
    )


def now_ms() -> int:
    """Milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000


def _engine(path: Path, *, begin: str, setup: tuple[str, ...]) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}", pool_size=8, max_overflow=32, connect_args={"timeout": BUSY_MS / 1000}
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
