"""A real `lipcert serve` for measurements: started, found process by process, killed, restarted."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

import httpx

from service.settings import Settings
from service.store.address import DatabaseUrl

Kind: TypeAlias = Literal["api", "dispatcher", "forkserver", "worker", "checker"]

START = (
    "import sys; from service.serve import serve; from service.settings import Settings; "
    "sys.exit(serve(Settings.from_json(sys.argv[1])))"
)

READY_S = 120.0

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Process:
    """A line of the process table."""

    pid: int
    parent: int
    command: str


class LiveService:
    """One service on a data directory and a port of its own."""

    def __init__(self, settings: Settings, log: Path) -> None:
        self.settings = settings
        self.url = f"http://127.0.0.1:{settings.port}"
        self._log = log
        self._process = self._started()

    @property
    def pid(self) -> int:
        """The API process."""
        return self._process.pid

    def is_ready(self) -> bool:
        """Whether it takes jobs."""
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/readyz", timeout=5.0).status_code == 200
        return False

    def wait_ready(self) -> None:
        """Wait until it takes jobs."""
        eventually(self.is_ready, READY_S)

    def restart_if_ended(self) -> bool:
        """Start it again, as an init system does, where it has ended; whether it had."""
        if self._process.poll() is None:
            return False
        self._process = self._started()
        return True

    def pids(self, kind: Kind) -> list[int]:
        """Its processes of a kind, at this instant."""
        table = processes()
        if kind == "api":
            return [self.pid] if self._process.poll() is None else []
        dispatchers = _children(table, [self.pid], "service.dispatcher")
        forkservers = _children(table, dispatchers, "forkserver")
        match kind:
            case "dispatcher":
                return dispatchers
            case "forkserver":
                return forkservers
            case "worker":
                return _children(table, forkservers, "")
            case "checker":
                return _children(table, dispatchers, "service.check_child")

    def stop(self) -> None:
        """End it as an operator does."""
        if self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(20)
        self._process.kill()
        self._process.wait()

    def _started(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - our own module, no shell
                [sys.executable, "-c", START, self.settings.to_json()], stderr=log
            )


def settings_for(data: Path, database_url: str | None, **changes: object) -> Settings:
    """The defaults on a free port."""
    changes["database_url"] = None if database_url is None else DatabaseUrl.parse(database_url)
    return replace(Settings(port=free_port(), data=data), **changes)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def eventually(look: Callable[[], Found | None], within_s: float) -> Found:
    """What `look` finds, as soon as it finds something.

    Raises:
        TimeoutError: it does not in time.
    """
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.02)
    raise TimeoutError(f"not within {within_s:g} s")


def processes() -> Mapping[int, Process]:
    """The process table, without zombies."""
    found: dict[int, Process] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(FileNotFoundError, ProcessLookupError):
            status = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if status[0] != "Z":
                pid = int(entry.name)
                found[pid] = Process(pid, int(status[1]), command)
    return found


def kill(pid: int) -> bool:
    """Kill a process without warning; whether there was one."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


def resident_bytes(pid: int) -> int:
    """The memory that a process has in use, its largest so far where the kernel tells."""
    return _status_bytes(pid, "VmRSS")


def peak_bytes(pid: int) -> int:
    """The most memory that a process has had in use."""
    return _status_bytes(pid, "VmHWM")


def _status_bytes(pid: int, name: str) -> int:
    text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(text.partition(f"{name}:")[2].split()[0]) * 1024


def _children(table: Mapping[int, Process], parents: list[int], text: str) -> list[int]:
    return [p.pid for p in table.values() if p.parent in parents and text in p.command]
