"""The outbox: what webhooks are to be told, written in the transaction in which it happened.

    waiting --claim--> sending --> delivered | failed
    sending --> waiting      a try that failed, or whose process died: again, with the same id

This is what tenants see of it; `tries` is for those who send.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

from sqlalchemy import ColumnElement, Connection, delete, insert, or_, select, update

from service.store import webhooks
from service.store.paging import Columns, Page, Place, page_of
from service.store.tables import webhook_delivery as delivery
from service.store.webhooks import EventName
from service.times import time_text

State: TypeAlias = Literal["waiting", "sending", "delivered", "failed"]

#: What a try came to. The last two are no receiver's doing.
Outcome: TypeAlias = Literal[
    "delivered",
    "gone",  # the receiver answered 410: never again
    "status",  # it answered something else, a redirect for instance
    "timeout",
    "unreachable",
    "broken",  # the connection ended, or what came was not HTTP
    "untrusted",  # its TLS certificate is not for its name, or from nobody known
    "unresolved",
    "target-refused",  # its name leads to an address that is not public
    "secret-lost",
    "interrupted",  # the process that sent it died, in the last try
    "disabled",  # the webhook was, before it was sent
]

MAX_TRIES = 8
PROGRESS_MS = 10_000  #: between two messages about a job's progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One message to one webhook, as its tenant sees it."""

    id: str
    webhook: str
    event: str
    subject: str
    state: State
    tries: int
    due: int
    outcome: Outcome | None
    status: int | None
    created: int
    ended: int | None


def put(
    connection: Connection,
    tenant: str,
    event: EventName,
    subject: str,
    data: Mapping[str, object],
    now: int,
    *,
    named: Sequence[str] = (),
) -> int:
    """How many webhooks will be told of what this very transaction does.

    Args:
        connection: of the transaction that changes the job or gate.
        tenant: whose webhooks.
        event: what happened.
        subject: the id of the job or gate that it happened to.
        data: what to tell: ids, states, numbers and links; whoever wants more follows those.
        now: when.
        named: the ids of the webhooks that the submission of the subject named.
    """
    told = [one for one in webhooks.enabled(connection, tenant) if one.wants(event, named)]
    if told and event == "job.progress":
        recent = _told_lately(connection, tenant, subject, now)
        told = [one for one in told if one.id not in recent]
    message = {"type": event, "timestamp": time_text(now), "data": dict(data)}
    body = json.dumps(message, separators=(",", ":"), allow_nan=False)
    for one in told:
        row = {
            "id": secrets.token_hex(16),
            "tenant": tenant,
            "webhook": one.id,
            "event": event,
            "subject": subject,
            "body": body,
            "state": "waiting",
            "tries": 0,
            # News that grow old in seconds are not told hours later.
            "max_tries": 1 if event == "job.progress" else MAX_TRIES,
            "due": now,
            "created": now,
        }
        connection.execute(insert(delivery).values(**row))
    return len(told)


def withdraw_progress(connection: Connection, tenant: str, subject: str) -> None:
    """Do not tell any more how far a job is: it has ended."""
    connection.execute(
        delete(delivery).where(
            delivery.c.tenant == tenant,
            delivery.c.subject == subject,
            delivery.c.event == "job.progress",
            delivery.c.state == "waiting",
        )
    )


def find(connection: Connection, tenant: str, webhook_id: str, delivery_id: str) -> Delivery | None:
    """The delivery of this tenant's webhook, if there is one."""
    query = select(delivery).where(*_of(tenant, webhook_id), delivery.c.id == delivery_id)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else _delivery(cast("Columns", row))


def page(connection: Connection, tenant: str, webhook_id: str, place: Place) -> Page[Delivery]:
    """Deliveries of a webhook, newest first."""
    query = select(delivery).where(*_of(tenant, webhook_id))
    return page_of(connection, query, delivery.c.created, delivery.c.id, place, _delivery)


def repeat(
    connection: Connection, tenant: str, webhook_id: str, delivery_id: str, now: int
) -> Delivery | None:
    """The delivery, which is sent now and has all its tries again; its id stays what it is.

    One that is being sent at this moment is left alone.
    """
    connection.execute(
        update(delivery)
        .where(
            *_of(tenant, webhook_id), delivery.c.id == delivery_id, delivery.c.state != "sending"
        )
        .values(state="waiting", due=now, ended=None, max_tries=delivery.c.tries + MAX_TRIES)
    )
    return find(connection, tenant, webhook_id, delivery_id)


def _of(tenant: str, webhook_id: str) -> list[ColumnElement[bool]]:
    return [delivery.c.tenant == tenant, delivery.c.webhook == webhook_id]


def _told_lately(connection: Connection, tenant: str, subject: str, now: int) -> set[str]:
    """The webhooks that were told of a job's progress a moment ago, or still have to be."""
    lately = or_(now - PROGRESS_MS < delivery.c.created, delivery.c.state == "waiting")
    return set(
        connection.scalars(
            select(delivery.c.webhook).where(
                delivery.c.tenant == tenant,
                delivery.c.subject == subject,
                delivery.c.event == "job.progress",
                lately,
            )
        )
    )


def _delivery(row: Columns) -> Delivery:
    return Delivery(**{name: row[name] for name in Delivery.__dataclass_fields__})
