"""Webhooks in the database: who is to be told of which events, and the secrets to sign with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast, get_args

from sqlalchemy import Connection, delete, func, insert, select, update

from service.store.paging import Columns, Page, Place, page_of
from service.store.tables import webhook, webhook_delivery

EventName: TypeAlias = Literal["job.started", "job.progress", "job.finished", "gate.finished"]
Jobs: TypeAlias = Literal["all", "named"]
Disabled: TypeAlias = Literal["failing", "gone"]

EVENTS: tuple[EventName, ...] = get_args(EventName)
OVERLAP_MS = 24 * 3_600_000  #: for which the secret before the newest one signs as well


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """One receiver of one tenant."""

    id: str
    tenant: str
    url: str
    events: Sequence[EventName]
    jobs: Jobs  #: that it is told of: all, or those that name it
    label: str
    enabled: bool
    disabled: Disabled | None  #: why the service, not its tenant, has disabled it
    failing_since: int | None
    sealed: str
    old_sealed: str | None
    old_until: int | None
    created: int

    def wants(self, event: EventName, named: Sequence[str]) -> bool:
        """Whether it is told of an event; `named`: the webhooks that its subject names."""
        return event in self.events and (self.jobs == "all" or self.id in named)


def add(connection: Connection, new: Webhook, limit: int) -> bool:
    """Whether the tenant has room for a new webhook, which is then kept."""
    mine = webhook.c.tenant == new.tenant
    if limit <= (connection.scalar(select(func.count()).where(mine)) or 0):
        return False
    connection.execute(
        insert(webhook).values(
            **{name: getattr(new, name) for name in COLUMNS if name != "events"},
            events=list(new.events),
        )
    )
    return True


def find(connection: Connection, tenant: str, webhook_id: str) -> Webhook | None:
    """The webhook of this tenant, if there is one."""
    query = select(webhook).where(webhook.c.tenant == tenant, webhook.c.id == webhook_id)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else _webhook(cast("Columns", row))


def page(connection: Connection, tenant: str, place: Place) -> Page[Webhook]:
    """Webhooks, newest first."""
    query = select(webhook).where(webhook.c.tenant == tenant)
    return page_of(connection, query, webhook.c.created, webhook.c.id, place, _webhook)


def enabled(connection: Connection, tenant: str) -> list[Webhook]:
    """All that may be told something."""
    query = select(webhook).where(webhook.c.tenant == tenant, webhook.c.enabled)
    return [_webhook(cast("Columns", row)) for row in connection.execute(query).mappings()]


def change(
    connection: Connection, tenant: str, webhook_id: str, values: Mapping[str, object], now: int
) -> Webhook | None:
    """The webhook after its tenant has changed it. One that is enabled has a clean record."""
    written = dict(values)
    if "enabled" in values:
        written |= {"disabled": None, "failing_since": None}
    _write(connection, tenant, webhook_id, written)
    if values.get("enabled") is False:
        _end_waiting(connection, tenant, webhook_id, now)
    return find(connection, tenant, webhook_id)


def disable(connection: Connection, tenant: str, webhook_id: str, why: Disabled, now: int) -> None:
    """Tell it nothing any more: neither what happens next, nor what waits."""
    _write(connection, tenant, webhook_id, {"enabled": False, "disabled": why})
    _end_waiting(connection, tenant, webhook_id, now)


def rotate(
    connection: Connection, tenant: str, webhook_id: str, sealed: str, now: int
) -> Webhook | None:
    """The webhook with another secret; the one that it had signs too for a while."""
    old = {"old_sealed": webhook.c.sealed, "old_until": now + OVERLAP_MS}
    _write(connection, tenant, webhook_id, {"sealed": sealed, **old})
    return find(connection, tenant, webhook_id)


def remove(connection: Connection, tenant: str, webhook_id: str) -> bool:
    """Whether there was such a webhook, which is gone now, and its deliveries too."""
    for table, column in (
        (webhook_delivery, webhook_delivery.c.webhook),
        (webhook, webhook.c.id),
    ):
        mine = [table.c.tenant == tenant, column == webhook_id]
        removed = connection.execute(delete(table).where(*mine)).rowcount
    return removed == 1


def note_failure(connection: Connection, tenant: str, webhook_id: str, now: int) -> int | None:
    """Since when every try has failed, the one of now included; None: the webhook is gone."""
    mine = [webhook.c.tenant == tenant, webhook.c.id == webhook_id]
    connection.execute(
        update(webhook).where(*mine, webhook.c.failing_since.is_(None)).values(failing_since=now)
    )
    return connection.scalar(select(webhook.c.failing_since).where(*mine))


def note_success(connection: Connection, tenant: str, webhook_id: str) -> None:
    """It works."""
    mine = [webhook.c.tenant == tenant, webhook.c.id == webhook_id]
    connection.execute(
        update(webhook)
        .where(*mine, webhook.c.failing_since.is_not(None))
        .values(failing_since=None)
    )


def _write(
    connection: Connection, tenant: str, webhook_id: str, values: Mapping[str, object]
) -> None:
    if values:
        mine = [webhook.c.tenant == tenant, webhook.c.id == webhook_id]
        connection.execute(update(webhook).where(*mine).values(**values))


def _end_waiting(connection: Connection, tenant: str, webhook_id: str, now: int) -> None:
    connection.execute(
        update(webhook_delivery)
        .where(
            webhook_delivery.c.tenant == tenant,
            webhook_delivery.c.webhook == webhook_id,
            webhook_delivery.c.state == "waiting",
        )
        .values(state="failed", outcome="disabled", ended=now)
    )


COLUMNS = tuple(Webhook.__dataclass_fields__)


def _webhook(row: Columns) -> Webhook:
    return Webhook(**{name: row[name] for name in COLUMNS})
