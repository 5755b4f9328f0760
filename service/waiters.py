"""Who waits on this process: long polls and event streams, counted by API key."""

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager


class Waiters:
    """The counts of one API process. Only its event loop may call it."""

    def __init__(self) -> None:
        self._counts = Counter[str]()

    def count(self, holder: str) -> int:
        """How many requests of a key wait now."""
        return self._counts[holder]

    @contextmanager
    def waiting(self, holder: str) -> Generator[None]:
        """One more of them, while the block runs."""
        self._counts[holder] += 1
        try:
            yield
        finally:
            self._counts[holder] -= 1
            if self._counts[holder] == 0:
                del self._counts[holder]  # keys come and go: those that wait are few
