"""Whose turn it is: the next job to run, so that no tenant starves another.

Of the tenants that have something to run and are below their limits the one is served that runs
the fewest jobs; among those the one that was served longest ago; and of its jobs one that a dead
dispatcher left behind, else the one of the highest priority, else the oldest. A priority is the
client's to choose, so it decides among a tenant's own jobs only. Ten thousand jobs of a tenant
delay another's first one by at most one job for each slot.

One query finds it. Its cost grows with the number of tenants that wait rather than with their
jobs: each tenant's first one stands at an end of ix_job_turn.
"""

from collections.abc import Sequence

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Select,
    Subquery,
    and_,
    case,
    exists,
    func,
    literal,
    or_,
    select,
    true,
    union_all,
)

from service.limits import DAY_MS, Limits
from service.store.inserts import insert_or_update
from service.store.jobs import ASKED, Kind
from service.store.tables import job, model, tenant_day, tenant_limit, tenant_turn


def next_job(now: int, kinds: Sequence[Kind], defaults: Limits) -> Select[tuple[str]]:
    """The id of the job that is to be claimed next, no row where there is none."""
    tenants, asked = _tenants(now, defaults), _asked(kinds)
    head = _head(tenants, asked, now)
    heads = (
        select(head.label("id"), tenants.c.running, tenants.c.turn)
        .select_from(tenants.join(asked, true()))
        .where(or_(asked.c.kind == "inspect", tenants.c.may_compute))
        .subquery("heads")
    )
    return (
        select(job.c.id)
        .join(heads, heads.c.id == job.c.id)
        .order_by(
            heads.c.running,
            heads.c.turn,
            case((job.c.state == "running", 0), else_=1),
            job.c.priority.desc(),
            job.c.created,
        )
        .limit(1)
    )


def is_waiting(now: int) -> ColumnElement[bool]:
    """Whether a job waits, in the queue or under a dead lease: for the guard of a claim."""
    waits = or_(job.c.state == "queued", _is_left_behind(now))
    return and_(waits, ~job.c.cancel_requested)


def note_turn(connection: Connection, tenant: str) -> None:
    """Remember that the tenant was served last."""
    last = connection.scalar(select(func.coalesce(func.max(tenant_turn.c.turn), 0))) or 0
    insert_or_update(connection, tenant_turn, {"tenant": tenant, "turn": last + 1})


def _tenants(now: int, defaults: Limits) -> Subquery:
    """Who has jobs that have not ended: how many run, whose turn it was, who may run one more."""
    waiting = (
        select(job.c.tenant)
        .where(job.c.state.in_(("queued", "running")))
        .distinct()
        .subquery("waiting")
    )
    busy = _busy()
    most, longest = tenant_limit.alias("most"), tenant_limit.alias("longest")
    running = func.coalesce(busy.c.running, 0)
    may_compute = and_(
        running < func.coalesce(most.c.value, defaults.running_jobs),
        func.coalesce(tenant_day.c.cpu_ms, 0)
        < 1000 * func.coalesce(longest.c.value, defaults.cpu_seconds_per_day),
    )
    joined: FromClause = waiting
    for table, more in (
        (busy, true()),
        (tenant_turn, true()),
        (most, most.c.name == "running_jobs"),
        (longest, longest.c.name == "cpu_seconds_per_day"),
        (tenant_day, tenant_day.c.day == now // DAY_MS),
    ):
        joined = joined.outerjoin(table, and_(table.c.tenant == waiting.c.tenant, more))
    return (
        select(
            waiting.c.tenant,
            running.label("running"),
            func.coalesce(tenant_turn.c.turn, 0).label("turn"),
            may_compute.label("may_compute"),
        )
        .select_from(joined)
        .subquery("tenants")
    )


def _asked(kinds: Sequence[Kind]) -> Subquery:
    """The kinds as rows."""
    return union_all(*(select(literal(kind).label("kind")) for kind in kinds)).subquery("asked")


def _head(tenants: Subquery, asked: Subquery, now: int) -> ColumnElement[str | None]:
    """The id of a tenant's first job of a kind; null where it has none that may run."""
    left_behind = (
        select(job.c.id)
        .where(_is_left_behind(now), _may_run(job, tenants, asked, now))
        .order_by(job.c.priority.desc(), job.c.created)
        .limit(1)
        .correlate(tenants, asked)
        .scalar_subquery()
    )
    # In two steps, each of which reads one end of the index: it has one direction.
    top = job.alias("top")
    highest = (
        select(top.c.priority)
        .where(top.c.state == "queued", _may_run(top, tenants, asked, now))
        .order_by(top.c.priority.desc())
        .limit(1)
        .correlate(tenants, asked)
        .scalar_subquery()
    )
    oldest = (
        select(job.c.id)
        .where(job.c.state == "queued", job.c.priority == highest)
        .where(_may_run(job, tenants, asked, now))
        .order_by(job.c.created)
        .limit(1)
        .correlate(tenants, asked)
        .scalar_subquery()
    )
    return func.coalesce(left_behind, oldest)


def _is_left_behind(now: int) -> ColumnElement[bool]:
    return and_(
        job.c.state == "running", job.c.lease_until < now, job.c.attempt < job.c.max_attempts
    )


def _may_run(
    table: FromClause, tenants: Subquery, asked: Subquery, now: int
) -> ColumnElement[bool]:
    """A tenant's job that is neither canceled nor too late, about a model that can be read."""
    readable = exists().where(
        model.c.tenant == table.c.tenant, model.c.id == table.c.model, model.c.state != "received"
    )
    return and_(
        table.c.tenant == tenants.c.tenant,
        table.c.kind == asked.c.kind,
        ~table.c.cancel_requested,
        or_(table.c.deadline.is_(None), now <= table.c.deadline),
        or_(table.c.kind == "inspect", readable),
    )


def _busy() -> Subquery:
    """How many jobs each tenant runs."""
    return (
        select(job.c.tenant, func.count().label("running"))
        .where(job.c.state == "running", job.c.kind.in_(ASKED))
        .group_by(job.c.tenant)
        .subquery("busy")
    )
