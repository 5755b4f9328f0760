"""Limits and use of tenants in the database: what a tenant may have, and what it has."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, select, union, update

from service.limits import DAY_MS, NO_LIMIT, Limits, limited, shown
from service.store import audit
from service.store.inserts import insert_if_new, insert_or_update
from service.store.jobs import ASKED, queue_length
from service.store.tables import api_key, job, model, tenant_day, tenant_limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a tenant has and uses now."""

    models: int
    stored_bytes: int
    queued_jobs: int
    running_jobs: int
    cpu_seconds_per_day: float  #: since midnight UTC


def limits_of(connection: Connection, tenant: str, defaults: Limits) -> Limits:
    """The tenant's limits: its own, else everyone's."""
    return limited(defaults, own_limits(connection, tenant))


def own_limits(connection: Connection, tenant: str) -> dict[str, int]:
    """The limits that the operator set for this tenant."""
    query = select(tenant_limit.c.name, tenant_limit.c.value)
    rows = connection.execute(query.where(tenant_limit.c.tenant == tenant))
    return {row.name: row.value for row in rows}


def set_limits(connection: Connection, tenant: str, said: Mapping[str, int | None]) -> None:
    """Set some of a tenant's limits; None: everyone's holds again."""
    for name, value in said.items():
        if value is None:
            connection.execute(
                delete(tenant_limit).where(
                    tenant_limit.c.tenant == tenant, tenant_limit.c.name == name
                )
            )
        else:
            row = {"tenant": tenant, "name": name, "value": value}
            insert_or_update(connection, tenant_limit, row)
    details = {
        name: "none" if value == NO_LIMIT else "default" if value is None else value
        for name, value in said.items()
    }
    audit.append(connection, tenant, "operator", "limits.changed", tenant, details)


def usage_of(connection: Connection, tenant: str, now: int) -> Usage:
    """What the tenant has and uses."""
    count, size = stored(connection, tenant)
    running = select(func.count()).where(
        job.c.tenant == tenant, job.c.state == "running", job.c.kind.in_(ASKED)
    )
    return Usage(
        models=count,
        stored_bytes=size,
        queued_jobs=queue_length(connection, tenant),
        running_jobs=connection.scalar(running) or 0,
        cpu_seconds_per_day=cpu_ms(connection, tenant, now) / 1000,
    )


def stored(connection: Connection, tenant: str) -> tuple[int, int]:
    """The number of the tenant's models, and their bytes."""
    row = connection.execute(
        select(func.count(), func.coalesce(func.sum(model.c.size), 0)).where(
            model.c.tenant == tenant
        )
    ).one()
    # PostgreSQL sums BIGINTs to a decimal.
    return int(row[0]), int(row[1])


def cpu_ms(connection: Connection, tenant: str, now: int) -> int:
    """What the tenant's attempts took of the processors today."""
    query = select(tenant_day.c.cpu_ms).where(
        tenant_day.c.tenant == tenant, tenant_day.c.day == now // DAY_MS
    )
    return connection.scalar(query) or 0


def charge(connection: Connection, tenant: str, now: int, milliseconds: int) -> None:
    """Count what an attempt took, on the day on which it ended."""
    day = now // DAY_MS
    row = {"tenant": tenant, "day": day, "cpu_ms": milliseconds}
    if not insert_if_new(connection, tenant_day, row):
        connection.execute(
            update(tenant_day)
            .where(tenant_day.c.tenant == tenant, tenant_day.c.day == day)
            .values(cpu_ms=tenant_day.c.cpu_ms + milliseconds)
        )


def tenants(connection: Connection) -> list[str]:
    """Every tenant that there is: for the operator, who is none of them."""
    tables = (api_key, job, model, tenant_limit)
    names = union(*(select(table.c.tenant) for table in tables)).subquery()
    return list(connection.scalars(select(names.c.tenant).order_by(names.c.tenant)))


def usage_json(limits: Limits, usage: Usage) -> dict[str, dict[str, object]]:
    """Every limit by its name, and how much of it is used where that can be said."""
    return {
        name: {"limit": shown(getattr(limits, name)), "used": getattr(usage, name, None)}
        for name in Limits.__dataclass_fields__
    }
