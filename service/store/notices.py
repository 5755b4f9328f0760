"""What webhooks are told of jobs: thin messages, from the row that a transaction has just written.

job.started    the first attempt begins
job.progress   every few seconds, to those who ask for it
job.finished   whatever the end was; a stored certificate's answer too
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from service.store import outbox
from service.store.events import Event
from service.store.webhooks import EventName


def tell(
    connection: Connection,
    row: Mapping[str, Any],  # Any: a row's columns
    happened: Sequence[Event],
    now: int,
) -> None:
    """Put into the outbox what happened to a job, as its row is now."""
    if row["kind"] == "inspect":
        return  # the reading of a model, which nobody asked for as a job
    for event in happened:
        name = _name(event, row)
        if name == "job.finished":
            outbox.withdraw_progress(connection, row["tenant"], row["id"])
        if name is not None:
            outbox.put(
                connection,
                row["tenant"],
                name,
                row["id"],
                _data(row),
                now,
                named=row.get("webhook") or (),
            )


def _name(event: Event, row: Mapping[str, Any]) -> EventName | None:
    match event.type:
        case "end":
            return "job.finished"
        case "progress":
            return "job.progress"
        case "state":
            is_first = row["state"] == "running" and row["attempt"] == 1
            return "job.started" if is_first else None


def _data(row: Mapping[str, Any]) -> dict[str, object]:
    certificate, error = row.get("certificate"), row.get("error")
    links = {"job": f"/v1/jobs/{row['id']}"}
    if certificate is not None:
        links["certificate"] = f"/v1/certificates/{certificate}"
    return {
        "job": row["id"],
        "kind": row["kind"],
        "model": row["model"],
        "state": row["state"],
        "verdict": row.get("verdict"),
        "bound": row["progress"].get("upper"),
        "certificate": certificate,
        "error": None if error is None else error["code"],
        "links": links,
    }
