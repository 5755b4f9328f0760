"""Certificates that nobody has checked yet, and the one that is being checked.

    child  --bytes-->  file  --checker child-->  what it says

A candidate waits while another is checked, and is replaced by a newer one for the same place;
between two checks passes at least the time that the last one took.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from service import checking
from service.blobs import Blobs
from service.checking import Bench, Checker, CheckOrder

#: From a certificate's place, its file and where the canonical text is to go.
Ordering: TypeAlias = Callable[[int, Path, Path], CheckOrder]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What the checker said of one certificate."""

    place: int  #: 0; of radii the number of the center
    outcome: Mapping[str, Any]  # Any: one JSON line of the checker's child
    text: Path  #: the canonical text, where it was accepted; to be removed


@dataclass(frozen=True, slots=True)
class _Running:
    """One check."""

    place: int
    checker: Checker
    text: Path
    out: Path
    tries: int  #: this one included


class Candidates:
    """The unchecked certificates of one attempt."""

    def __init__(self, blobs: Blobs, bench: Bench, check_s: float, ordering: Ordering) -> None:
        self._blobs = blobs
        self._bench = bench
        self._check_s = check_s
        self._ordering = ordering
        self._waiting: dict[int, Path] = {}
        self._running: _Running | None = None
        self._next_from = 0.0  #: when the next check may start

    @property
    def is_settled(self) -> bool:
        """Whether every candidate has been checked."""
        return not self._waiting and self._running is None

    def hold(self, place: int, certificate: bytes) -> None:
        """One more, in the place of the last one that waits."""
        if place not in self._waiting:
            self._waiting[place] = self._blobs.scratch("candidate")
        self._waiting[place].write_bytes(certificate)

    def advance(self, *, is_urgent: bool) -> Checked | None:
        """What a check has said, if one has; the next one starts, where it is time."""
        checked = self._ended(time.monotonic())
        is_time = is_urgent or self._next_from <= time.monotonic()
        if checked is None and self._running is None and self._waiting and is_time:
            place = next(iter(self._waiting))
            self._begin(place, self._waiting[place])
            del self._waiting[place]
        return checked

    def close(self) -> None:
        """Leave nothing behind: processes, temporary files."""
        if self._running is not None:
            self._running.checker.close()
            self._running.text.unlink(missing_ok=True)
            self._running.out.unlink(missing_ok=True)
        for path in self._waiting.values():
            path.unlink(missing_ok=True)

    def _ended(self, now: float) -> Checked | None:
        running = self._running
        if running is None:
            return None
        outcome = running.checker.poll()
        if outcome is None and running.checker.began + self._check_s < now:
            running.checker.close()
            outcome = checking.rejection("error", "the check took longer than it may")
        if outcome is None:
            return None
        if outcome["code"] == checking.DIED and running.tries < checking.TRIES:
            self._begin(running.place, running.text, running.tries + 1)
            running.out.unlink(missing_ok=True)
            return None
        self._running, self._next_from = None, now + (now - running.checker.began)
        running.text.unlink(missing_ok=True)
        return Checked(place=running.place, outcome=outcome, text=running.out)

    def _begin(self, place: int, text: Path, tries: int = 1) -> None:
        out = self._blobs.scratch("canonical")
        checker = self._bench.check(self._ordering(place, text, out))
        self._running = _Running(place, checker, text, out, tries)
