"""What transactions that run at the same time owe each other: one clock, turns, and news.

On SQLite there is nothing to do: its writers take turns anyway, on one machine with one clock, and
those who wait look at the file. On PostgreSQL each is one statement.
"""

import hashlib
import time

from sqlalchemy import Connection, extract, func, select

JOBS = "lipcert_jobs"  #: the channel that names every job that has changed
WORK = "lipcert_work"  #: the channel that tells dispatchers of a job that may be claimed


def now_ms() -> int:
    """Milliseconds since 1970 UTC, by this machine's clock."""
    return time.time_ns() // 1_000_000


def now_in(connection: Connection) -> int:
    """Milliseconds since 1970 UTC, by the database's clock.

    The one clock for what several machines compare: leases, and who was seen when.
    """
    if _is_alone(connection):
        return now_ms()
    # Not now(): that is when the transaction began, which may have waited for its turn since.
    seconds = connection.scalar(select(extract("epoch", func.clock_timestamp())))
    assert seconds is not None, "a clock has a time"  # noqa: S101
    return int(seconds * 1000)


def take_turn(connection: Connection, name: str) -> None:
    """Be the only transaction in the turn of this name, until this one ends.

    For decisions about what is there, which no guard of one row can make: whether the queue has
    room, a quota is left, a chain's last link is still the last.
    """
    if not _is_alone(connection):
        digest = hashlib.sha256(name.encode()).digest()
        number = int.from_bytes(digest[:8], "big", signed=True)
        connection.execute(select(func.pg_advisory_xact_lock(number)))


def tell(connection: Connection, job_id: str, *, is_work: bool) -> None:
    """Have those who wait told, when this transaction is committed, that a job has changed.

    `is_work`: a dispatcher may find something to claim.
    """
    if _is_alone(connection):
        return
    told = [func.pg_notify(JOBS, job_id)]
    if is_work:
        told.append(func.pg_notify(WORK, ""))
    connection.execute(select(*told))


def _is_alone(connection: Connection) -> bool:
    return connection.dialect.name == "sqlite"
