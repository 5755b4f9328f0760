"""What an attempt leaves for the next one: a file by its digest, and its name in the job's row.

The file is whole and on the disk before the row names it, and the one before is removed after: at
any instant a crash leaves a row that names whole bytes. Where none can be written, the work goes
on without. They come from a process that is not
trusted, prove nothing, and are read by such processes alone.
"""

import logging
import time
from contextlib import suppress

from service.blobs import Blobs
from service.store import leases
from service.store.database import Database
from service.store.leases import Claim

EVERY_S = 2.0  #: between two writes, at least

log = logging.getLogger("lipcert.dispatcher")


class Checkpoints:
    """The checkpoints of one attempt; of several that wait only the newest is written."""

    def __init__(self, claim: Claim, blobs: Blobs, database: Database, most_bytes: int) -> None:
        self._claim = claim
        self._blobs = blobs
        self._database = database
        self._most_bytes = most_bytes
        self._named = claim.checkpoint
        self._waiting: bytes | None = None
        self._next_from = 0.0

    def hold(self, data: bytes) -> None:
        """One more, unless it is larger than is allowed: then the last one stands."""
        if len(data) <= self._most_bytes:
            self._waiting = data

    def advance(self, *, is_urgent: bool) -> None:
        """Write what waits, where it is time."""
        if self._waiting is None or not (is_urgent or self._next_from <= time.monotonic()):
            return
        try:
            digest = self._write(self._waiting)
        except OSError:
            log.exception("no checkpoint", extra={"with": {"job": self._claim.job}})
        else:
            self._name(digest)
        self._waiting, self._next_from = None, time.monotonic() + EVERY_S

    def _write(self, data: bytes) -> str:
        """The digest under which the bytes now are."""
        with self._blobs.draft() as draft:
            draft.write(data)
            draft.flush()
            draft.keep(self._blobs.place("checkpoints", self._claim.tenant, draft.digest))
        return draft.digest

    def drop(self) -> None:
        """Nothing is left to go on with."""
        self._waiting = None
        if self._named is not None:
            self._name(None)

    def _name(self, digest: str | None) -> None:
        tenant = self._claim.tenant
        with self._database.write() as connection:
            is_ours = leases.keep_checkpoint(connection, self._claim, digest)
            stale = self._named if is_ours else digest
            is_left = stale is not None and not leases.needs_checkpoint(connection, tenant, stale)
        # After the commit. Nobody can have named it since: only an ended job's is ever copied.
        if stale is not None and is_left:
            with suppress(OSError):  # then `orphans` removes it
                self._blobs.remove("checkpoints", tenant, stale)
        self._named = digest if is_ours else self._named
