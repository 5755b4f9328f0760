"""What a drill has shown: the clients' books against the service's database and files."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from sqlalchemy import Connection, func, select

from benchmarks.live_service import Kind
from service.blobs import Blobs
from service.settings import Settings
from service.store.database import Database
from service.store.engine import open_database
from service.store.tables import certificate, idempotency, job, job_event, model

Job = Mapping[str, Any]  # a job on the wire


@dataclass
class Books:
    """What clients were told, and what was done to the service."""

    acknowledged: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    question_of: dict[str, int] = field(default_factory=dict[str, int])
    ended: dict[str, Job] = field(default_factory=dict[str, Job])
    kills: list[tuple[int, Kind]] = field(default_factory=list[tuple[int, Kind]])
    unanswered: int = 0
    answers_5xx: Counter[int] = field(default_factory=Counter[int])

    @property
    def jobs(self) -> set[str]:
        """The jobs that were acknowledged."""
        return {job_id for ids in self.acknowledged.values() for job_id in ids}


def print_report(
    settings: Settings, books: Books, expected: Sequence[float | None], seconds: float
) -> int:
    """Print the figures; the exit code: 1 where anything is not as it should be."""
    database = open_database(settings.database)
    try:
        faults = _faults(database, Blobs(settings.data), books, expected)
        with database.read() as connection:
            again = recoveries(connection, books.kills)
            attempts = connection.scalar(select(func.max(job.c.attempt)))
    finally:
        database.close()
    by_kind = Counter(kind for _, kind in books.kills)
    _say("kills", f"{len(books.kills)}: {dict(by_kind)}")
    _say("seconds", f"{seconds:.0f}")
    _say("jobs acknowledged", len(books.jobs))
    _say("states", dict(Counter(ended["state"] for ended in books.ended.values())))
    _say("calls without an answer", f"{books.unanswered}, 5xx: {dict(books.answers_5xx)}")
    _say("most attempts of a job", attempts)
    _say("running again after a kill", _quantiles(again))
    for name, found in faults.items():
        _say(name, f"{len(found)} {found[:3] if found else ''}")
    return 1 if any(faults.values()) else 0


def _faults(
    database: Database, blobs: Blobs, books: Books, expected: Sequence[float | None]
) -> dict[str, list[Any]]:
    with database.read() as connection:
        found = set(connection.scalars(select(job.c.id).where(job.c.kind == "verify")))
        return {
            "lost": sorted(books.jobs - found),
            "there twice": [key for key, ids in books.acknowledged.items() if len(ids) != 1],
            "never asked for": sorted(found - books.jobs),
            "stuck": sorted(books.jobs - set(books.ended)),
            "not succeeded": [
                (ended["id"], ended["state"], ended["error"])
                for ended in books.ended.values()
                if ended["state"] != "succeeded"
            ],
            "other bounds": [
                (ended["id"], ended["progress"]["upper"], expected[books.question_of[job_id]])
                for job_id, ended in books.ended.items()
                if ended["progress"]["upper"] != expected[books.question_of[job_id]]
            ],
            "rows that disagree": disagreements(connection),
            "rows without their bytes": without_bytes(connection, blobs),
            "integrity": _integrity(connection),
        }


def disagreements(connection: Connection) -> list[object]:
    """Certificates and jobs that do not belong together, gaps in events, two ends of one job."""
    of_jobs = Counter(
        connection.scalars(select(job.c.certificate).where(job.c.certificate.is_not(None)))
    )
    stored = set(connection.scalars(select(certificate.c.id)))
    twice = [name for name, count in of_jobs.items() if 1 < count]
    gaps = connection.scalars(
        select(job_event.c.job)
        .group_by(job_event.c.job)
        .having(func.max(job_event.c.seq) != func.count())
    )
    ends = connection.scalars(
        select(job_event.c.job)
        .where(job_event.c.type == "end")
        .group_by(job_event.c.job)
        .having(func.count() != 1)
    )
    keys = connection.scalars(
        select(idempotency.c.job).group_by(idempotency.c.job).having(func.count() != 1)
    )
    unlike = stored.symmetric_difference(of_jobs)
    return [*unlike, *twice, *gaps, *ends, *keys]


def without_bytes(connection: Connection, blobs: Blobs) -> list[str]:
    """Rows of models, certificates and checkpoints whose file is not there."""
    models = [
        blobs.place("models", row.tenant, row.id.removeprefix("sha256:"))
        for row in connection.execute(select(model.c.tenant, model.c.id))
    ]
    texts = [
        blobs.place("certificates", row.tenant, row.blob)
        for row in connection.execute(select(certificate.c.tenant, certificate.c.blob))
    ]
    checkpoints = [
        blobs.place("checkpoints", row.tenant, row.checkpoint)
        for row in connection.execute(
            select(job.c.tenant, job.c.checkpoint).where(job.c.checkpoint.is_not(None))
        )
    ]
    return [str(path) for path in [*models, *texts, *checkpoints] if not path.is_file()]


def recoveries(connection: Connection, kills: Sequence[tuple[int, Kind]]) -> list[float]:
    """Seconds from the last kill before each further attempt to its start."""
    starts: dict[str, list[int]] = {}
    rows = connection.execute(
        select(job_event.c.job, job_event.c.at, job_event.c.data)
        .where(job_event.c.type == "state")
        .order_by(job_event.c.job, job_event.c.seq)
    )
    for row in rows:
        if row.data["state"] == "running":
            starts.setdefault(row.job, []).append(row.at)
    found: list[float] = []
    for times in starts.values():
        for before, after in pairwise(times):
            between = [at for at, _ in kills if before <= at <= after]
            found += [(after - max(between)) / 1000] if between else []
    return found


def _integrity(connection: Connection) -> list[str]:
    """What the database itself finds wrong."""
    if connection.dialect.name != "sqlite":
        return []
    said = connection.exec_driver_sql("PRAGMA integrity_check").scalars()
    return [line for line in said if line != "ok"]


def _quantiles(values: Sequence[float]) -> str:
    if not values:
        return "never needed"
    ordered = sorted(values)
    half, most = ordered[len(ordered) // 2], ordered[-1]
    late = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
    return f"{len(ordered)} times, p50 {half:.2f} s, p99 {late:.2f} s, most {most:.2f} s"


def _say(name: str, value: object) -> None:
    sys.stdout.write(f"{name:28} {value}\n")
    sys.stdout.flush()
