"""The reading of one uploaded model, as the dispatcher supervises it."""

import time
from collections.abc import Mapping

from service.attempt import Killed, lost
from service.executors import Ended, Erred, Handle, Overran, Report, Summarised
from service.store import leases
from service.store.coordination import now_in
from service.store.database import Database
from service.store.leases import Claim


class Inspection:
    """The reading of one uploaded model."""

    def __init__(self, claim: Claim, handle: Handle, kill_at: float, database: Database) -> None:
        self.claim = claim
        self.handle = handle
        self.killed: Killed | None = None
        self.is_over = False
        self._kill_at = kill_at
        self._database = database
        self._summary: Mapping[str, object] | None = None
        self._error: Mapping[str, object] | None = None
        self._has_ended = False

    @property
    def is_late(self) -> bool:
        """Whether it takes longer than it may."""
        return self.killed is None and self._kill_at < time.monotonic()

    def hear(self, report: Report) -> None:
        """Take note of what the executor reports."""
        match report:
            case Summarised(summary):
                self._summary = summary
            case Erred(error):
                self._error = error
            case Overran(used, _):
                self._error = {**_unreadable(f"reading the model took {used >> 20} MiB of memory")}
            case Ended():
                self._has_ended = True
            case _:
                pass  # an inspection proves nothing

    def advance(self) -> None:
        """Write what reading the model brought, once it has ended."""
        if self._has_ended:
            self._conclude()

    def close(self) -> None:
        """Nothing is left behind."""

    def _conclude(self) -> None:
        if self.killed == "late" and self._error is None:
            self._error = _unreadable("reading the model took too long")
        is_stopped = self.killed == "stopped"
        reason = "stopped" if is_stopped else "worker-lost"
        with self._database.write() as connection:
            now = now_in(connection)
            if self._summary is not None or self._error is not None:
                leases.finish_inspection(
                    connection, self.claim, now, summary=self._summary, error=self._error
                )
            elif not leases.release(connection, self.claim, now, reason=reason, again=is_stopped):
                error = lost().to_json()
                leases.finish_inspection(connection, self.claim, now, error=error)
        self.is_over = True


def _unreadable(detail: str) -> Mapping[str, object]:
    return {
        "code": "resource-exhausted",
        "title": "The attempt ran out of memory or processor time.",
        "detail": detail,
        "node": None,
        "fix": "export a smaller model, or give the service more memory",
    }
