"""Jobs as a client sees them: submitted, listed, canceled; and the one way a row may change.

    queued --claim--> running --> succeeded | failed | canceled
    queued --> canceled | expired | failed

Every change goes through `change`: one UPDATE guarded by what the row has to be, which also
counts the version, numbers the events and wakes those who wait. No row matched is not an error:
someone else was first. What a dispatcher does to jobs is in `leases`.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, cast

from sqlalchemy import ColumnElement, Connection, bindparam, func, insert, select, update

from service.remedies import lifts
from service.store import events, labels, notices
from service.store.coordination import tell
from service.store.events import Event
from service.store.labels import Label
from service.store.paging import Columns, Page, Place, page_of
from service.store.tables import job

State: TypeAlias = Literal["queued", "running", "succeeded", "failed", "canceled", "expired"]
Kind: TypeAlias = Literal["verify", "radius", "inspect"]

ASKED: tuple[Kind, ...] = ("verify", "radius")  #: by a client
ENDED: tuple[State, ...] = ("succeeded", "failed", "canceled", "expired")

NO_PROGRESS: Mapping[str, object] = {
    "upper": None,
    "lower": None,
    "gap": None,
    "phase": None,
    "open": None,
    "done": None,
    "eta_seconds": None,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """What a submission says."""

    tenant: str
    model: str
    request: Mapping[str, object]
    kind: Kind = "verify"
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    webhook: Sequence[str] = ()  #: ids of those to tell, besides those that are always told
    priority: int = 0
    deadline: int | None = None
    key: str | None = None
    resumes: "Job | None" = None  #: the ended job that this one goes on from
    trace: str | None = None  #: the traceparent of the request


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One row, as a reader sees it."""

    id: str
    tenant: str
    kind: Kind
    state: State
    verdict: str | None
    model: str
    request: Mapping[str, Any]  # Any: JSON that the service wrote itself
    labels: Mapping[str, str]
    webhook: Sequence[str] | None  #: ids of the webhooks that the submission names
    priority: int
    attempt: int
    cancel_requested: bool
    deadline: int | None
    progress: Mapping[str, object]
    incumbent: Mapping[str, Any] | None  #: the best that was checked
    checkpoint: str | None  #: hex SHA-256 of what it can be resumed from
    checkpoint_removed: int | None  #: when it was, being old
    resumed_from: str | None
    certificate: str | None
    cached: bool
    error: Mapping[str, object] | None
    created: int
    started: int | None
    ended: int | None
    version: int

    @property
    def has_ended(self) -> bool:
        """Whether the state can no longer change."""
        return self.state in ENDED

    @property
    def is_resumable(self) -> bool:
        """Whether there is something to go on from."""
        return self.has_ended and self.checkpoint is not None


READ = tuple(Job.__dataclass_fields__)

#: Made once: clients ask for a job more often than for anything else.
_FIND = select(*(job.c[name] for name in READ)).where(
    job.c.tenant == bindparam("tenant"),
    job.c.id == bindparam("job_id"),
    job.c.kind.in_(ASKED),
)


def job_of(row: Columns) -> Job:
    """The job that a row of the whole table states."""
    return Job(**{name: row[name] for name in READ})


def find(connection: Connection, tenant: str, job_id: str) -> Job | None:
    """The job of this tenant, if there is one."""
    row = connection.execute(_FIND, {"tenant": tenant, "job_id": job_id}).mappings().one_or_none()
    return None if row is None else job_of(cast("Columns", row))


def page(
    connection: Connection,
    tenant: str,
    place: Place,
    filters: Mapping[str, str],
    wanted: Sequence[Label] = (),
) -> Page[Job]:
    """Jobs, newest first; `filters` by state, verdict or model; with all labels `wanted`."""
    query = select(job).where(job.c.tenant == tenant, job.c.kind.in_(ASKED))
    for name, value in filters.items():
        query = query.where(job.c[name] == value)
    for one in wanted:
        query = query.where(labels.has(tenant, "job", one))
    return page_of(connection, query, job.c.created, job.c.id, place, job_of)


def queue_length(connection: Connection, tenant: str | None = None) -> int:
    """How many jobs of the tenant wait; None: of every tenant."""
    waiting = select(func.count()).where(job.c.state == "queued")
    if tenant is not None:
        waiting = waiting.where(job.c.tenant == tenant)
    return connection.scalar(waiting) or 0


def insert_job(connection: Connection, new: NewJob, now: int, max_attempts: int) -> str:
    """The id of a new job, queued."""
    return _insert(
        connection,
        new,
        {"state": "queued", "created": now, "max_attempts": max_attempts},
        [Event("state", {"state": "queued"})],
    )


def insert_answered(
    connection: Connection, new: NewJob, now: int, certificate: str, answer: Job
) -> str:
    """The id of a new job that a stored certificate answers at once."""
    return _insert(
        connection,
        new,
        {
            "state": "succeeded",
            "verdict": answer.verdict,
            "certificate": certificate,
            "checkpoint": answer.checkpoint,
            "checkpoint_removed": answer.checkpoint_removed,
            "progress": answer.progress,
            "cached": True,
            "created": now,
            "started": now,
            "ended": now,
            "max_attempts": 0,
        },
        ended_events("succeeded", answer.verdict, certificate, None),
    )


def fail_waiting(
    connection: Connection, tenant: str, model_id: str, error: Mapping[str, object], now: int
) -> None:
    """Fail the queued jobs of a model that turned out to be unreadable, but those that lift it."""
    waiting = connection.execute(
        select(job.c.id, job.c.request)
        .where(
            job.c.tenant == tenant,
            job.c.model == model_id,
            job.c.kind.in_(ASKED),
            job.c.state == "queued",
        )
        # Always in this order: two that lock the same rows wait for each other at most once.
        .order_by(job.c.id)
    ).all()
    for job_id, request in waiting:
        if lifts(request, str(error["code"])):
            continue
        change(
            connection,
            [job.c.tenant == tenant, job.c.id == job_id, job.c.state == "queued"],
            {"state": "failed", "error": error, "ended": now},
            ended_events("failed", None, None, error),
            now,
        )


def changed_after(connection: Connection, last: int) -> list[tuple[str, int]]:
    """(id, change number) of the jobs that changed after change number `last`; SQLite alone."""
    rows = connection.execute(
        select(job.c.id, job.c.change_seq).where(last < job.c.change_seq).order_by(job.c.change_seq)
    )
    return [(row.id, row.change_seq) for row in rows]


def last_change(connection: Connection) -> int:
    """The newest change number."""
    return connection.scalar(select(func.max(job.c.change_seq))) or 0


# --- the one way to change a row -----------------------------------------------------------------


def change(
    connection: Connection,
    guards: Sequence[ColumnElement[bool]],
    values: Mapping[str, object],
    happened: Sequence[Event],
    now: int,
) -> Columns | None:
    """The row after the change, or None where no row passed the guards."""
    row = (
        connection.execute(
            update(job)
            .where(*guards)
            .values(
                **values,
                version=job.c.version + 1,
                event_seq=job.c.event_seq + len(happened),
                change_seq=_next_change(),
            )
            .returning(job)
        )
        .mappings()
        .one_or_none()
    )
    if row is not None:
        events.append(connection, row["tenant"], row["id"], row["event_seq"], now, happened)
        tell(connection, row["id"], is_work=values.get("state") == "queued")
        notices.tell(connection, cast("Columns", row), happened, now)
    return cast("Columns | None", row)


def ended_events(
    state: State,
    verdict: str | None,
    certificate: str | None,
    error: Mapping[str, object] | None,
) -> list[Event]:
    """The last two events of a job: its state, and the end of the stream."""
    data = {
        "state": state,
        "verdict": verdict,
        "certificate": certificate,
        "error": None if error is None else dict(error),
    }
    return [Event("state", data), Event("end", data)]


def _insert(
    connection: Connection, new: NewJob, values: Mapping[str, object], happened: Sequence[Event]
) -> str:
    job_id = secrets.token_hex(16)
    row: dict[str, object] = {
        "id": job_id,
        "tenant": new.tenant,
        "kind": new.kind,
        "model": new.model,
        "request": dict(new.request),
        "labels": dict(new.labels),
        "webhook": list(new.webhook) or None,
        "priority": new.priority,
        "deadline": new.deadline,
        "key": new.key,
        "trace": new.trace,
        "attempt": 0,
        "cancel_requested": False,
        "progress": dict(NO_PROGRESS),
        "cached": False,
        "version": 1,
        "event_seq": len(happened),
        "change_seq": _next_change(),
        **values,
    }
    if new.resumes is not None:
        row["resumed_from"] = new.resumes.id
        row["checkpoint"] = new.resumes.checkpoint
        row["incumbent"] = new.resumes.incumbent
    connection.execute(insert(job).values(**row))
    labels.add(connection, new.tenant, "job", job_id, new.labels)
    created = row["created"]
    assert isinstance(created, int)  # noqa: S101 - both callers give it
    events.append(connection, new.tenant, job_id, len(happened), created, happened)
    tell(connection, job_id, is_work=values["state"] == "queued")
    notices.tell(connection, row, happened, created)
    return job_id


def _next_change() -> ColumnElement[int]:
    """One more than any row has: on SQLite writers take turns, and no number is given twice.

    On PostgreSQL two transactions may give the same one, and commit in another order than they
    drew them; there nobody reads it: `coordination.tell` wakes those who wait.
    """
    return select(func.coalesce(func.max(job.c.change_seq), 0) + 1).scalar_subquery()
