"""What the service asks of a database, SQLite or PostgreSQL; the SQL itself is the same on both.

- `read`: a snapshot, in which nothing can be written.
- `write`: a transaction that is durable when it ends.
- `watch`: for a loop that looks often: has anyone written since the last look?
- `news`: for those who wait: the jobs that changed.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import AbstractContextManager
from typing import ClassVar, Literal, TypeAlias

from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection

#: The database does not answer, or not in time. What was asked may be asked again.
UNAVAILABLE = (OperationalError, InterfaceError, NoConnection)

#: The jobs that changed; None: perhaps any of them.
News: TypeAlias = Collection[str] | None


class Watch(ABC):
    """Tells whether anyone has written since the last look, at the cost of next to nothing."""

    @abstractmethod
    def has_changed(self) -> bool:
        """Whether there was a commit, of any process, that may concern a dispatcher."""

    @abstractmethod
    def close(self) -> None:
        """Stop watching."""


class Database(ABC):
    """Two engines, one to read with and one to write with."""

    name: ClassVar[Literal["sqlite", "postgresql"]]

    #: Whether it is a part of this installation. Then a look at it takes less time than the way to
    #: a thread and back, and it has one dispatcher. Else it is somewhere else and may be away, and
    #: any number of APIs and dispatchers work on it.
    is_embedded: ClassVar[bool]

    def __init__(self, reader: Engine, writer: Engine) -> None:
        self.reader = reader
        self.writer = writer

    def read(self) -> AbstractContextManager[Connection]:
        """A connection that can only read, in a snapshot of its own."""
        return self.reader.begin()

    def write(self) -> AbstractContextManager[Connection]:
        """A transaction; commits at the end of the block."""
        return self.writer.begin()

    def revision(self) -> str | None:
        """The migration that the database is at; None for an empty one."""
        with self.read() as connection:
            return revision_of(connection)

    def close(self) -> None:
        """Close every pooled connection."""
        self.reader.dispose()
        self.writer.dispose()

    @abstractmethod
    def watch(self) -> Watch:
        """A watch of the caller's own."""

    @abstractmethod
    def news(self, is_wanted: Callable[[], bool]) -> AsyncGenerator[News]:
        """The jobs that change, as they do. The first news come when nothing can be missed.

        Args:
            is_wanted: whether anyone waits; where news cost something, they end when nobody does.
        """


def revision_of(connection: Connection) -> str | None:
    """The migration that the database is at; None for an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.scalar(text("SELECT version_num FROM alembic_version"))
