"""The outbox as those who send see it: due messages, claimed for a time, settled once.

`lease` is the fencing token of a try. Whoever sends holds it for a time; if he dies between sending
and saying so, the lease lapses and another one sends again: at least once, never silently not.
Any number of processes may claim: a claim is an UPDATE that names what the row has to be.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, func, or_, select, update

from service.store import webhooks
from service.store.outbox import MAX_TRIES, Outcome, State
from service.store.paging import Columns
from service.store.tables import webhook
from service.store.tables import webhook_delivery as delivery

PATIENCE_MS = 5 * 24 * 3_600_000  #: of failures alone, after which a webhook is disabled
KEEP_MS = 30 * 24 * 3_600_000  #: for which deliveries that ended can be seen and repeated
TENANT_ROOM = 4  #: tries at one time for one tenant


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """The right to send one message once, until the lease lapses; and all that it takes."""

    id: str
    tenant: str
    webhook: str
    event: str
    body: str
    tries: int
    max_tries: int
    lease: str
    url: str
    sealed: str
    old_sealed: str | None
    old_until: int | None

    @property
    def round(self) -> int:
        """The try's number since the message was written, or was sent again by hand: 1, ..., 8."""
        return MAX_TRIES - (self.max_tries - self.tries)

    def guards(self) -> list[ColumnElement[bool]]:
        """What has to hold for this try to write."""
        return [
            delivery.c.tenant == self.tenant,
            delivery.c.id == self.id,
            delivery.c.lease == self.lease,
            delivery.c.state == "sending",
        ]


def due(
    connection: Connection, now: int, running: Sequence[tuple[str, str]], room: int
) -> list[tuple[str, str]]:
    """(tenant, id) of at most `room` messages to send now: of every webhook the first.

    Args:
        connection: it only reads.
        now: the time.
        running: (tenant, webhook) of the tries that go on. A webhook is told one thing at a time,
            a tenant's webhooks TENANT_ROOM at a time: who answers slowly delays himself alone.
        room: for how many more there is room.
    """
    first = func.min(delivery.c.due)
    ready = connection.execute(
        select(delivery.c.tenant, delivery.c.webhook)
        .where(_is_due(now), _has_receiver())
        .group_by(delivery.c.tenant, delivery.c.webhook)
        .order_by(first)
    )
    busy = list(running)
    chosen: list[tuple[str, str]] = []
    for tenant, webhook_id in ready:
        is_full = TENANT_ROOM <= sum(tenant == other for other, _ in busy)
        if (tenant, webhook_id) in busy or is_full or room <= len(chosen):
            continue
        busy.append((tenant, webhook_id))
        oldest = (
            select(delivery.c.id)
            .where(delivery.c.tenant == tenant, delivery.c.webhook == webhook_id, _is_due(now))
            .order_by(delivery.c.due, delivery.c.created, delivery.c.id)
            .limit(1)
        )
        chosen += [(tenant, name) for name in connection.scalars(oldest)]
    return chosen


def claim(
    connection: Connection, tenant: str, delivery_id: str, now: int, lease_ms: int
) -> Try | None:
    """The right to send a message; None where someone else was first."""
    token = secrets.token_hex(8)
    this = [delivery.c.tenant == tenant, delivery.c.id == delivery_id]
    taken = connection.execute(
        update(delivery)
        .where(*this, _is_due(now))
        .values(
            state="sending",
            tries=delivery.c.tries + 1,
            lease=token,
            lease_until=now + lease_ms,
        )
    )
    if taken.rowcount != 1:
        return None
    row = (
        connection.execute(
            select(
                *(delivery.c[name] for name in _OF_DELIVERY),
                *(webhook.c[name] for name in _OF_WEBHOOK),
            )
            .join_from(delivery, webhook, _is_its_webhook())
            .where(*this)
        )
        .mappings()
        .one_or_none()
    )
    return None if row is None else Try(**cast("Columns", row))


def settle(
    connection: Connection,
    mine: Try,
    outcome: Outcome,
    status: int | None,
    now: int,
    wait_ms: int,
) -> bool:
    """Write what a try came to; the next one is `wait_ms` away. False: no longer ours."""
    is_good = outcome == "delivered"
    is_last = mine.max_tries <= mine.tries or outcome == "gone" or not _is_enabled(connection, mine)
    state: State = "delivered" if is_good else "failed" if is_last else "waiting"
    written = connection.execute(
        update(delivery)
        .where(*mine.guards())
        .values(
            state=state,
            outcome=outcome,
            status=status,
            due=now + wait_ms,
            ended=None if state == "waiting" else now,
            **_NO_LEASE,
        )
    )
    if written.rowcount != 1:
        return False
    if is_good:
        webhooks.note_success(connection, mine.tenant, mine.webhook)
        return True
    since = webhooks.note_failure(connection, mine.tenant, mine.webhook, now)
    if outcome == "gone":
        webhooks.disable(connection, mine.tenant, mine.webhook, "gone", now)
    elif since is not None and since + PATIENCE_MS <= now:
        webhooks.disable(connection, mine.tenant, mine.webhook, "failing", now)
    return True


def release(connection: Connection, mine: Try) -> None:
    """Give a try back that an orderly stop cut short: it does not count."""
    connection.execute(
        update(delivery)
        .where(*mine.guards())
        .values(state="waiting", tries=delivery.c.tries - 1, **_NO_LEASE)
    )


def sweep(connection: Connection, now: int) -> None:
    """End what nobody will send: interrupted in its last try, or of a webhook that is no more."""
    lapsed = and_(delivery.c.state == "sending", delivery.c.lease_until < now)
    given_up = and_(lapsed, delivery.c.max_tries <= delivery.c.tries)
    orphaned = and_(or_(delivery.c.state == "waiting", lapsed), ~_has_receiver())
    for which, outcome in ((given_up, "interrupted"), (orphaned, "disabled")):
        connection.execute(
            update(delivery)
            .where(which)
            .values(state="failed", outcome=outcome, ended=now, **_NO_LEASE)
        )


def prune(connection: Connection, now: int) -> None:
    """Forget the deliveries that ended long ago, and secrets that sign no more."""
    connection.execute(delete(delivery).where(delivery.c.ended < now - KEEP_MS))
    connection.execute(
        update(webhook).where(webhook.c.old_until < now).values(old_sealed=None, old_until=None)
    )


# --- parts ---------------------------------------------------------------------------------------

_OF_DELIVERY = ("id", "tenant", "webhook", "event", "body", "tries", "max_tries", "lease")
_OF_WEBHOOK = ("url", "sealed", "old_sealed", "old_until")
_NO_LEASE = {"lease": None, "lease_until": None}


def _is_due(now: int) -> ColumnElement[bool]:
    """Its time has come, or whoever sent it has died."""
    waits = and_(delivery.c.state == "waiting", delivery.c.due <= now)
    lapsed = and_(
        delivery.c.state == "sending",
        delivery.c.lease_until < now,
        delivery.c.tries < delivery.c.max_tries,
    )
    return or_(waits, lapsed)


def _is_its_webhook() -> ColumnElement[bool]:
    return and_(webhook.c.tenant == delivery.c.tenant, webhook.c.id == delivery.c.webhook)


def _has_receiver() -> ColumnElement[bool]:
    return exists().where(_is_its_webhook(), webhook.c.enabled)


def _is_enabled(connection: Connection, mine: Try) -> bool:
    found = webhooks.find(connection, mine.tenant, mine.webhook)
    return found is not None and found.enabled
