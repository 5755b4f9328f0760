"""Models by the SHA-256 of their bytes: received, then ready or refused."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, cast

from sqlalchemy import Connection, delete, select, update

from service.store import jobs, labels
from service.store.coordination import tell
from service.store.inserts import insert_if_new
from service.store.labels import Label
from service.store.paging import Columns, Page, Place, page_of
from service.store.tables import job, model

ModelState: TypeAlias = Literal["received", "ready", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """An uploaded file and what reading it brought."""

    id: str
    size: int
    state: ModelState
    summary: Mapping[str, object] | None
    error: Mapping[str, object] | None
    created: int
    labels: Mapping[str, str] | None  #: None: it was uploaded before there were labels


def find(
    connection: Connection, tenant: str, model_id: str, *, to_stay: bool = False
) -> Model | None:
    """The model of this tenant, if there is one.

    Args:
        connection: of a writer, where `to_stay`.
        tenant: whose.
        model_id: which.
        to_stay: whether it has to stay as it is until the transaction ends. Else a job could be
            queued for a model that is being refused, whose waiting jobs have just been failed.
    """
    query = select(model).where(model.c.tenant == tenant, model.c.id == model_id)
    if to_stay:
        query = query.with_for_update(read=True)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else _model(cast("Columns", row))


def page(
    connection: Connection, tenant: str, place: Place, wanted: Sequence[Label] = ()
) -> Page[Model]:
    """Models, newest first, that have all the labels that are wanted."""
    query = select(model).where(model.c.tenant == tenant)
    for one in wanted:
        query = query.where(labels.has(tenant, "model", one))
    return page_of(connection, query, model.c.created, model.c.id, place, _model)


def add(
    connection: Connection, tenant: str, model_id: str, size: int, now: int, max_attempts: int
) -> tuple[Model, bool]:
    """The model, and whether it is new. A new one is queued to be read by a child."""
    row = {"tenant": tenant, "id": model_id, "size": size, "state": "received", "created": now}
    is_new = insert_if_new(connection, model, row)
    if is_new:
        reading = jobs.NewJob(tenant=tenant, kind="inspect", model=model_id, request={})
        jobs.insert_job(connection, reading, now, max_attempts)
    added = find(connection, tenant, model_id)
    assert added is not None, "a row that is there, or that this transaction wrote"  # noqa: S101
    return added, is_new


def relabel(connection: Connection, known: Model, tenant: str, given: Mapping[str, str]) -> Model:
    """The model with these labels in the place of those that it had."""
    connection.execute(
        update(model)
        .where(model.c.tenant == tenant, model.c.id == known.id)
        .values(labels=dict(given))
    )
    labels.remove(connection, tenant, "model", known.id)
    labels.add(connection, tenant, "model", known.id, given)
    return replace(known, labels=dict(given))


def settle(
    connection: Connection,
    tenant: str,
    model_id: str,
    *,
    summary: Mapping[str, object] | None,
    error: Mapping[str, object] | None,
    now: int,
) -> None:
    """Write what reading a received model brought; a refusal fails the jobs that wait for it."""
    connection.execute(
        update(model)
        .where(model.c.tenant == tenant, model.c.id == model_id, model.c.state == "received")
        .values(state="ready" if error is None else "refused", summary=summary, error=error)
    )
    if error is not None:
        jobs.fail_waiting(connection, tenant, model_id, error, now)
    else:
        tell(connection, model_id, is_work=True)


def remove(connection: Connection, tenant: str, model_id: str, now: int) -> bool:
    """Whether the model is gone; False where a job that has not ended needs it.

    Its reading, which nobody asked for by itself, is no such job: it ends with the model.
    """
    needing = [
        job.c.tenant == tenant,
        job.c.model == model_id,
        job.c.state.in_(("queued", "running")),
    ]
    in_use = select(job.c.id).where(*needing, job.c.kind.in_(jobs.ASKED)).limit(1)
    if connection.scalar(in_use) is not None:
        return False
    for reading in connection.scalars(select(job.c.id).where(*needing)).all():
        jobs.change(
            connection,
            [*needing, job.c.id == reading],
            {"state": "canceled", "ended": now, "lease_owner": None, "lease_until": None},
            jobs.ended_events("canceled", None, None, None),
            now,
        )
    labels.remove(connection, tenant, "model", model_id)
    connection.execute(delete(model).where(model.c.tenant == tenant, model.c.id == model_id))
    return True


def _model(row: Columns) -> Model:
    return Model(**{name: row[name] for name in Model.__dataclass_fields__})
