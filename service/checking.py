"""Having certificates checked: one process for each check, started ahead so that it is warm.

What a check says is believed only as far as one JSON line of bounded length goes. The text that
it wrote is hashed again before it is stored.
"""

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from service.environment import without_secrets
from service.settings import EntryPoints

MAX_LINE = 2**20
DIED = "died"  #: the code of a check whose process ended without an answer
TRIES = 3  #: of a check whose process dies: after that it is the certificate's doing

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ORT_DISABLE_TELEMETRY": "1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOrder:
    """What to check, and against what."""

    text: Path  #: the file with the certificate
    models: Path  #: the folder with the models that it may be about
    wrapped: bool = False
    out: Path | None = None  #: where to put the canonical text
    #: what it has to be about: the model, and property and target or a question about a radius
    asked: Mapping[str, Any] | None = None
    trusted: Path | None = None  #: the key set that an envelope's signature is looked for in
    sandbox: str = "none"  #: of the process that found the certificate
    memory_bytes: int = 0

    def to_line(self) -> bytes:
        """The line that the child reads."""
        members = {
            "text": str(self.text),
            "models": str(self.models),
            "wrapped": self.wrapped,
            "out": None if self.out is None else str(self.out),
            "asked": self.asked,
            "trusted": None if self.trusted is None else str(self.trusted),
            "sandbox": self.sandbox,
            "memory_bytes": self.memory_bytes,
        }
        return json.dumps(members, allow_nan=False).encode() + b"\n"


class Checker:
    """One process that checks one certificate."""

    def __init__(self, points: EntryPoints) -> None:
        entries = (points.check, points.check_radius)
        self._process = subprocess.Popen(  # noqa: S603 - our own module, no shell
            [sys.executable, "-P", "-m", "service.check_child", *entries],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env={**without_secrets(os.environ), **ENVIRONMENT},
        )
        self._text = b""
        self.began = 0.0

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def begin(self, order: CheckOrder) -> None:
        """Start the check."""
        self.began = time.monotonic()
        stdin = self._process.stdin
        assert stdin is not None  # noqa: S101 - it was asked for
        with suppress(BrokenPipeError):
            stdin.write(order.to_line())
            stdin.close()

    def poll(self, wait_s: float = 0.0) -> Mapping[str, Any] | None:
        """What the check says; None while it says nothing yet. Waits at most `wait_s`."""
        stdout = self._process.stdout
        assert stdout is not None  # noqa: S101 - it was asked for
        end = time.monotonic() + wait_s
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while selector.select(max(0.0, end - time.monotonic())):
                chunk = os.read(stdout.fileno(), 65536)
                self._text += chunk
                if not chunk or MAX_LINE < len(self._text):
                    self.close()
                    return _outcome(self._text)
        return None

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()


class Bench:
    """Keeps one checker started ahead of its use: a start costs more than most checks."""

    def __init__(self, points: EntryPoints) -> None:
        self._points = points
        self._ready = Checker(points)

    def take(self) -> Checker:
        """A started checker; the next one starts meanwhile."""
        taken, self._ready = self._ready, Checker(self._points)
        if taken.is_alive:
            return taken
        taken.close()  # killed while it waited, which says nothing of any certificate
        return Checker(self._points)

    def check(self, order: CheckOrder) -> Checker:
        """A checker at work on an order."""
        checker = self.take()
        try:
            checker.begin(order)
        except BaseException:
            checker.close()
            raise
        return checker

    def close(self) -> None:
        """End the one that waits."""
        self._ready.close()


def rejection(code: str, reason: str) -> Mapping[str, Any]:
    """The outcome of a check that came to no answer of its own."""
    return {"valid": False, "code": code, "reason": reason, "node": None, "id": None}


def _outcome(text: bytes) -> Mapping[str, Any]:
    """What the child's line says; a child that died or babbled has accepted nothing."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or not isinstance(cast("Any", value).get("valid"), bool):
        return rejection(DIED, "the check ended without an answer")
    return cast("dict[str, Any]", value)
