"""A PostgreSQL server to throw away: real binaries, a folder of its own, a Unix socket, no port.

    with Postgres.start() as server:
        url = server.new_database()        # postgresql://lipcert:<password>@/<name>?host=<folder>

PostgreSQL refuses to run as root; then it runs as `nobody`. Used by tests and by benchmarks.
"""

import ctypes
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier
from service_process import eventually, exists

USER = "lipcert"
UNPRIVILEGED = "nobody"

PR_SET_PDEATHSIG = 1  #: of linux/prctl.h

#: What makes a server fast that need not survive a power cut. It survives kill -9 nevertheless.
FLEETING = ("fsync=off", "full_page_writes=off")


def binaries() -> Path | None:
    """The folder with initdb and postgres: on the path, or where Debian puts them; the newest."""
    found = shutil.which("initdb")
    folders = [] if found is None else [Path(found).resolve().parent]
    debian = Path("/usr/lib/postgresql").glob("*/bin")
    folders += sorted(debian, key=lambda folder: int(folder.parent.name), reverse=True)
    names = ("initdb", "pg_ctl", "postgres")
    return next((each for each in folders if all((each / name).is_file() for name in names)), None)


class Postgres:
    """A running server. `url` is its maintenance database's."""

    def __init__(self, folder: Path, *, durable: bool) -> None:
        found = binaries()
        assert found is not None, "PostgreSQL's server is not installed: look at binaries() first"
        self._bin = found
        self._folder = folder
        self._settings = () if durable else FLEETING
        self._password = secrets.token_urlsafe(24)
        self._process: subprocess.Popen[Any] | None = None

    @classmethod
    def start(cls, *, durable: bool = False) -> "Postgres":
        """A new server. `durable`: commits are flushed to the disk, as in production."""
        # Not in pytest's folder, which the unprivileged user may not enter.
        server = cls(Path(tempfile.mkdtemp(prefix="lipcert-postgres-")), durable=durable)
        server._initialise()
        server.resume()
        return server

    @property
    def url(self) -> str:
        """Of the database that every server has."""
        return self.url_of("postgres")

    @property
    def password(self) -> str:
        """What must be seen nowhere."""
        return self._password

    def url_of(self, database: str) -> str:
        """Of one database."""
        return f"postgresql://{USER}:{self._password}@/{database}?host={self._folder}"

    def new_database(self, template: str = "template0") -> str:
        """The name of a new database, empty or like another one that nobody is connected to."""
        name = f"test_{secrets.token_hex(6)}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(
                SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
                    Identifier(name), Identifier(template)
                )
            )
        return name

    def drop(self, name: str) -> None:
        """Remove a database, whoever is connected to it."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))

    def resume(self) -> None:
        """Start it again, and wait until it takes connections."""
        arguments = [f"unix_socket_directories={self._folder}", "listen_addresses="]
        arguments += [*self._settings, "max_connections=200"]
        with self._log.open("ab") as log:
            self._process = process = subprocess.Popen(
                [self._bin / "postgres", "-D", self._data, *_flags(arguments)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,  # an interrupt on the terminal is not for it
                preexec_fn=_die_with_parent,  # however that ends
                **_identity(),
            )
        end = time.monotonic() + 180.0
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=5).close()
            except psycopg.OperationalError:
                if end < time.monotonic() or process.poll() is not None:
                    raise AssertionError(self._log.read_text()[-2000:]) from None
                time.sleep(0.02)
            else:
                return

    def interrupt(self) -> None:
        """Stop it at once, as a restart does: sessions are ended, and nothing can connect."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """kill -9 for all of its processes."""
        process = self._process
        assert process is not None, "it runs"
        family = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for pid in (process.pid, *map(int, family)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        # The next server refuses to start while any process of this one is left.
        eventually(lambda: not any(exists(int(pid)) for pid in family))

    def close(self) -> None:
        """End it and remove its folder."""
        if self._process is not None and self._process.poll() is None:
            self._end(signal.SIGQUIT)
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> "Postgres":
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    @property
    def _log(self) -> Path:
        return self._folder / "log"

    def _initialise(self) -> None:
        secret = self._folder / "password"
        secret.write_text(self._password)
        if os.geteuid() == 0:
            owner = pwd.getpwnam(UNPRIVILEGED)
            for path in (self._folder, secret):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        subprocess.run(
            [
                self._bin / "initdb",
                *("-D", self._data, "-U", USER, "--pwfile", secret, "--no-sync"),
                *("--auth", "scram-sha-256", "--encoding", "UTF8", "--no-locale"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            **_identity(),
        )

    def _end(self, how: signal.Signals) -> None:
        process = self._process
        assert process is not None, "it runs"
        process.send_signal(how)
        process.wait(120)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)


def _flags(settings: Sequence[str]) -> list[str]:
    return [part for each in settings for part in ("-c", each)]


def _identity() -> dict[str, Any]:
    """For `subprocess`: whom to run as."""
    if os.geteuid() != 0:
        return {}
    group = pwd.getpwnam(UNPRIVILEGED).pw_gid
    return {"user": UNPRIVILEGED, "group": group, "extra_groups": [], "cwd": "/"}
