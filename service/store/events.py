"""What happened to a job, numbered without gaps: written only in the transaction that did it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from sqlalchemy import Connection, insert, select

from service.store.tables import job_event

EventType: TypeAlias = Literal["state", "progress", "end"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened; its number comes from the job's row."""

    type: EventType
    data: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """An event as a reader gets it."""

    seq: int
    type: str
    at: int
    data: Mapping[str, object]

    def to_json(self) -> dict[str, object]:
        """The members of one entry of the JSON page."""
        return {"seq": self.seq, "type": self.type, "at": self.at, "data": dict(self.data)}


def append(
    connection: Connection, tenant: str, job: str, last: int, at: int, events: Sequence[Event]
) -> None:
    """Write events with the numbers that end at `last`, which the job's row already carries."""
    every = {"job": job, "tenant": tenant, "at": at}
    rows = [
        {**every, "seq": seq, "type": event.type, "data": dict(event.data)}
        for seq, event in enumerate(events, last - len(events) + 1)
    ]
    if rows:
        connection.execute(insert(job_event), rows)


def after(connection: Connection, tenant: str, job: str, seq: int, limit: int) -> list[StoredEvent]:
    """The events of a job after number `seq`, in order."""
    rows = connection.execute(
        select(job_event)
        .where(job_event.c.tenant == tenant, job_event.c.job == job, seq < job_event.c.seq)
        .order_by(job_event.c.seq)
        .limit(limit)
    )
    return [StoredEvent(seq=row.seq, type=row.type, at=row.at, data=row.data) for row in rows]
