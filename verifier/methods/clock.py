"""The wall clock of a budget, passed to methods so that they stop in time."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """Started once; says how much is left."""

    started: float
    seconds: float

    @staticmethod
    def start(seconds: float) -> Clock:
        """A clock that starts now."""
        return Clock(time.monotonic(), seconds)

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    @property
    def remaining(self) -> float:
        """Seconds left; negative when it ran out."""
        return self.seconds - self.elapsed

    @property
    def has_expired(self) -> bool:
        """Whether the budget is used up."""
        return self.remaining <= 0
