"""Attempts as child processes of this machine, forked from a server that has all imports done.

The server is multiprocessing's forkserver: a fresh interpreter with one thread that imports the
verifier once and forks for each attempt, in hundredths of a second instead of seconds. A thread
here reads each child's pipe, so that a child which stalls in the middle of a frame stalls nobody
else; of progress and of the certificates for one
place only the newest is kept.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import cast

from service import worker
from service.executors import (
    Ended,
    Erred,
    Handle,
    Improved,
    Kept,
    Overran,
    Progressed,
    Report,
    Resulted,
    Summarised,
)
from service.worker import Order

HARD_AFTER_S = 0.3  #: between SIGTERM and SIGKILL
WATCH_S = 0.25  #: between two looks at a child's memory
MAX_JSON = 2**20
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class _Child:
    """A running attempt, with what it has said and nobody has read yet."""

    pid: int
    life: Connection
    memory_bytes: int
    places: int  #: that certificates may be of
    lock: threading.Lock = field(default_factory=threading.Lock)
    #: by what it is, and of which place
    heard: dict[tuple[type, int], Report] = field(default_factory=dict[tuple[type, int], Report])
    kill_at: float | None = None


class LocalExecutor:
    """Runs attempts on this machine."""

    def __init__(self, preload: tuple[str, ...], max_frame: int) -> None:
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload(["service.worker", *preload])
        self._max_frame = max_frame + 1
        self._children: dict[int, _Child] = {}
        self._numbers = 0
        self._watched = 0.0
        self._probe: Mapping[str, object] = {}

    def start(self) -> None:
        """Start the server and ask it what it is: a failed import in it would be silent.

        Raises:
            RuntimeError: its children do not live.
        """
        began = time.monotonic()
        held = "none"
        process, reports, life = self._forked(Order(kind="probe", entry=""))
        with life, reports, suppress(EOFError):
            while True:
                frame = reports.recv_bytes(MAX_JSON)
                if frame[:1] == worker.STARTED:
                    held = frame[1:].decode()
                if frame[:1] == worker.HELLO:
                    self._probe = json.loads(frame[1:])
        process.join()
        if not self._probe:
            raise RuntimeError("the forkserver's first child did not answer")
        spent = round(time.monotonic() - began, 3)
        self._probe = {**self._probe, "sandbox": held, "start_seconds": spent}

    def submit(self, order: Order) -> Handle:
        """Start an attempt.

        Raises:
            OSError: the machine, or a forkserver that has just died, does not give a process.
        """
        process, reports, life = self._forked(order)
        assert process.pid is not None, "a started process has a number"  # noqa: S101
        self._numbers += 1
        handle = Handle(self._numbers)
        child = _Child(process.pid, life, order.memory_bytes, order.places)
        self._children[handle.number] = child

        def listen() -> None:
            _listen(child, reports, self._max_frame)
            process.join(1.0)
            if process.exitcode is None:
                # It closed its pipe, or broke the protocol, and lives on: no use to anyone.
                _signal(child.pid, signal.SIGKILL)
                process.join()
            _hear(child, Ended(process.exitcode))

        threading.Thread(target=listen, daemon=True).start()
        return handle

    def _forked(self, order: Order) -> tuple[ForkServerProcess, Connection, Connection]:
        """A started child, what it reports, and what it lives by.

        Raises:
            OSError: the machine, or a forkserver that has just died, does not give a process.
        """
        with ExitStack() as ours, ExitStack() as the_childs:
            reports, child_end = self._context.Pipe(duplex=False)
            ours.enter_context(reports)
            the_childs.enter_context(child_end)
            child_life, life = self._context.Pipe(duplex=False)
            ours.enter_context(life)
            the_childs.enter_context(child_life)
            process = self._context.Process(target=worker.run, args=(order, child_end, child_life))
            try:
                process.start()
            except EOFError as error:
                raise ConnectionResetError("the forkserver died before it had forked") from error
            ours.pop_all()  # open, as long as the child lives
        return process, reports, life

    def poll(self) -> list[tuple[Handle, Report]]:
        """What was heard since the last poll: of each kind the newest, the end last."""
        self._enforce()
        news: list[tuple[Handle, Report]] = []
        for number, child in list(self._children.items()):
            with child.lock:
                heard, child.heard = child.heard, {}
            ordered = sorted(heard.values(), key=lambda report: _ORDER.index(type(report)))
            news.extend((Handle(number), report) for report in ordered)
            if ordered and isinstance(ordered[-1], Ended):
                child.life.close()
                del self._children[number]
        return news

    def cancel(self, handle: Handle) -> None:
        """Ask the attempt to end; `poll` makes it, shortly after."""
        child = self._children.get(handle.number)
        if child is not None and child.kill_at is None:
            child.kill_at = time.monotonic() + HARD_AFTER_S
            _signal(child.pid, signal.SIGTERM)

    def describe(self) -> Mapping[str, object]:
        """What the readiness probe shows of this executor."""
        return {"kind": "local", "running": len(self._children), **self._probe}

    def close(self) -> None:
        """Kill every attempt."""
        for child in self._children.values():
            _signal(child.pid, signal.SIGKILL)
            child.life.close()

    def _enforce(self) -> None:
        """Kill what was asked to end and did not, and what has outgrown its memory."""
        now = time.monotonic()
        for child in self._children.values():
            if child.kill_at is not None and child.kill_at <= now:
                _signal(child.pid, signal.SIGKILL)
        if now < self._watched + WATCH_S:
            return
        self._watched = now
        for child in self._children.values():
            used = _resident_bytes(child.pid)
            if 0 < child.memory_bytes < used:
                _hear(child, Overran(used, child.memory_bytes))
                _signal(child.pid, signal.SIGKILL)


def _listen(child: _Child, reports: Connection, max_frame: int) -> None:
    """Read frames until the pipe ends, or says what no child of ours would say."""
    try:
        while True:
            frame = reports.recv_bytes(max_frame)
            report = _report(frame[:1], frame[1:], child.places)
            if report is not None:
                _hear(child, report)
    except EOFError:
        pass  # the ordinary end
    except (OSError, ValueError, RecursionError):
        _signal(child.pid, signal.SIGKILL)  # OSError: a frame above the limit
    finally:
        reports.close()


def _hear(child: _Child, report: Report) -> None:
    place = report.place if isinstance(report, Improved) else 0
    with child.lock:
        child.heard[type(report), place] = report


def _report(frame: bytes, payload: bytes, places: int) -> Report | None:
    match frame:
        case worker.CERTIFICATE:
            return Improved(payload)
        case worker.RESULT:
            return Resulted(payload or None)
        case worker.CHECKPOINT:
            return Kept(payload)
        case worker.RING:
            return _ring(payload, places)
        case worker.PROGRESS:
            return Progressed(_object(payload))
        case worker.SUMMARY:
            return Summarised(_object(payload))
        case worker.ERROR:
            return Erred(_object(payload))
        case _:
            return None


def _ring(payload: bytes, places: int) -> Improved:
    """A certificate behind four bytes that say of which place.

    Raises:
        ValueError: there is no such place.
    """
    place = int.from_bytes(payload[: worker.PLACE_BYTES], "big")
    if places <= place:
        raise ValueError("no such place")
    return Improved(payload[worker.PLACE_BYTES :], place)


def _object(payload: bytes) -> Mapping[str, object]:
    """The JSON object in a payload.

    Raises:
        ValueError: it is too long, or not a JSON object.
    """
    if MAX_JSON < len(payload):
        raise ValueError("the text is too long")
    value = json.loads(payload)
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004 - one kind of error for one mistake
    return cast("dict[str, object]", value)


def _signal(pid: int, number: signal.Signals) -> None:
    """Signal the child's group; the child alone, where it has not made its group yet."""
    with suppress(ProcessLookupError):
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            os.kill(pid, number)


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * PAGE
    except (OSError, IndexError, ValueError):
        return 0


_ORDER = (Progressed, Improved, Kept, Resulted, Summarised, Erred, Overran, Ended)
