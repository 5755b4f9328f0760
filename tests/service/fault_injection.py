"""One fault, at a chosen one of all the SQL statements, commits and file-system calls of a run.

    refused        the call is not done, and an error says so
    unanswered     the call is done, and an error says that it was not
    killed before  nothing is done from this call on: the process is dead
    killed after   the same from the next one on

A dead process does no cleaning up: whatever a `finally` tries is killed, too.
"""

import errno
import inspect
import io
import os
import sqlite3
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

import pytest
from sqlalchemy import Engine, event

from service.store.database import Database

Mode: TypeAlias = Literal["refused", "unanswered", "killed before", "killed after"]

Done = TypeVar("Done")


class Killed(BaseException):
    """Nothing of the process runs any more."""


@dataclass
class Faults:
    """The calls of a run, and the one that fails."""

    mode: Mode = "refused"
    at: int | None = None  #: the number of the call, from 0; None: they are only counted
    seen: list[str] = field(default_factory=list[str])
    is_on: bool = False
    is_dead: bool = False
    files: list[Any] = field(default_factory=list[Any])  #: that a dead process left open

    def call(self, name: str, do: Callable[[], Done], error: Callable[[], Exception]) -> Done:
        """Do it, unless this is the one."""
        if not self.is_on:
            return do()
        if self.is_dead:
            raise Killed(name)
        self.seen.append(f"{name} in {_site()}")
        if len(self.seen) - 1 != self.at:
            return do()
        if self.mode in ("unanswered", "killed after"):
            do()
        if self.mode in ("refused", "unanswered"):
            raise error()
        self.is_dead = True
        raise Killed(name)

    @contextmanager
    def off(self) -> Generator[None]:
        """What another process does, or the test."""
        before, self.is_on = self.is_on, False
        try:
            yield
        finally:
            self.is_on = before

    def begin(self, mode: Mode, at: int | None) -> None:
        """Another life, in which call number `at` fails."""
        self.mode, self.at = mode, at
        self.seen.clear()

    def bury(self) -> None:
        """Close what a dead process left open; another one may start."""
        for file in self.files:
            file.close()
        self.files.clear()
        self.is_dead = False


def watch_database(database: Database, faults: Faults) -> None:
    """Have every statement and every commit pass through the faults."""
    for engine in (database.reader, database.writer):
        _watch_engine(engine, faults)


def _watch_engine(engine: Engine, faults: Faults) -> None:
    def execute(cursor: Any, statement: str, parameters: Any, _context: Any) -> bool:  # noqa: ANN401
        try:
            faults.call(_short(statement), lambda: cursor.execute(statement, parameters), _full)
        except Killed:
            cursor.close()  # else a row that is not read yet would keep its lock alive
            raise
        return True

    def connect(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA synchronous=OFF")  # no power cuts here

    event.listen(engine, "do_execute", execute)
    event.listen(engine, "connect", connect)
    for name in ("do_begin", "do_commit"):
        _watch_end(engine, name, faults)


def _watch_end(engine: Engine, name: str, faults: Faults) -> None:
    """Have one end of this engine's transactions pass through the faults."""
    real = getattr(engine.dialect, name)

    def do(connection: Any) -> None:  # noqa: ANN401 - the driver's
        faults.call(name, lambda: real(connection), _full)

    setattr(engine.dialect, name, do)


def watch_files(monkeypatch: pytest.MonkeyPatch, faults: Faults, root: Path) -> None:
    """Have every call about a file below `root` pass through the faults."""

    def watched(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(path: Any, *rest: Any, **more: Any) -> Any:  # noqa: ANN401 - as the real one
            if isinstance(path, int):  # a sync: no power cuts here
                return faults.call(name, lambda: None, _no_space)
            if str(path).startswith(str(root)):
                return faults.call(name, lambda: real(path, *rest, **more), _no_space)
            return real(path, *rest, **more)

        return call

    for name in ("fsync", "mkdir", "open", "replace", "unlink"):
        monkeypatch.setattr(os, name, watched(name))
    real_open = io.open

    def open_file(path: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:  # noqa: ANN401
        if isinstance(path, int) or not str(path).startswith(str(root)) or "b" not in mode:
            return real_open(path, mode, *rest, **more)
        return faults.call(
            f"open {mode}", lambda: _File(real_open(path, mode, buffering=0), faults), _no_space
        )

    monkeypatch.setattr(io, "open", open_file)


class _File:
    """A file whose calls pass through the faults."""

    def __init__(self, file: Any, faults: Faults) -> None:  # noqa: ANN401 - an open file
        self._file = file
        self._faults = faults
        faults.files.append(file)

    def write(self, data: bytes) -> int:
        return self._faults.call("write", lambda: self._file.write(data), _no_space)

    def read(self) -> bytes:
        return self._faults.call("read", self._file.read, _no_space)

    def flush(self) -> None:
        self._faults.call("flush", self._file.flush, _no_space)

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        """Closed whatever it says, as a file is whose last bytes find no room."""
        if not self._file.closed:
            try:
                self._faults.call("close", self._file.close, _no_space)
            finally:
                self._file.close()

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _full() -> Exception:
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    return error


def _no_space() -> Exception:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _short(statement: str) -> str:
    return " ".join(statement.split()[:3])


def _site() -> str:
    """Where in the service the call comes from: the two nearest lines."""
    found: list[str] = []
    frame = inspect.currentframe()
    while frame is not None and len(found) < 2:
        path = frame.f_code.co_filename
        if "/service/" in path and "/tests/" not in path:
            found.append(f"{Path(path).stem}.{frame.f_code.co_name}:{frame.f_lineno}")
        frame = frame.f_back
    return " < ".join(found)
