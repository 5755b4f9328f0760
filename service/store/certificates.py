"""Certificates: immutable, named by their content. Their text is a blob; this is what finds it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Connection, select

from service.store.jobs import Job, job_of
from service.store.paging import Columns, Page, Place, page_of
from service.store.tables import certificate, job


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What the database knows of a certificate."""

    id: str
    blob: str
    size: int
    model: str
    kind: str
    scope: str
    summary: Mapping[str, Any]  # Any: JSON that the service wrote itself
    created: int


def find(connection: Connection, tenant: str, certificate_id: str) -> Stored | None:
    """The certificate of this tenant, if there is one."""
    row = (
        connection.execute(
            select(certificate).where(
                certificate.c.tenant == tenant, certificate.c.id == certificate_id
            )
        )
        .mappings()
        .one_or_none()
    )
    return None if row is None else _stored(cast("Columns", row))


def page(
    connection: Connection, tenant: str, place: Place, filters: Mapping[str, str]
) -> Page[Stored]:
    """Certificates, newest first; `filters` by model, kind or scope."""
    query = select(certificate).where(certificate.c.tenant == tenant)
    for name, value in filters.items():
        query = query.where(certificate.c[name] == value)
    return page_of(connection, query, certificate.c.created, certificate.c.id, place, _stored)


def answers(connection: Connection, tenant: str, key: str) -> list[Job]:
    """The newest jobs that answered the same question with a certificate."""
    rows = connection.execute(
        select(job)
        .where(
            job.c.tenant == tenant,
            job.c.key == key,
            job.c.state == "succeeded",
            job.c.certificate.is_not(None),
            ~job.c.cached,
        )
        .order_by(job.c.created.desc())
        .limit(20)
    )
    return [job_of(cast("Columns", row)) for row in rows.mappings()]


def _stored(row: Columns) -> Stored:
    return Stored(**{name: row[name] for name in Stored.__dataclass_fields__})
