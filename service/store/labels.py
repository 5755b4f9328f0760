"""Labels of jobs and models, a row each, so that lists can be filtered by them.

What a job or a model shows are the labels of its own row; these are written beside it.
"""

from collections.abc import Mapping
from typing import Literal, TypeAlias

from sqlalchemy import ColumnElement, Connection, delete, insert, select

from service.store.tables import job, label, model

Kind: TypeAlias = Literal["job", "model"]
Label: TypeAlias = tuple[str, str]  #: name and value


def add(
    connection: Connection, tenant: str, kind: Kind, thing: str, labels: Mapping[str, str]
) -> None:
    """These labels find a thing that had none."""
    if labels:
        connection.execute(
            insert(label),
            [
                {"tenant": tenant, "kind": kind, "thing": thing, "name": name, "value": value}
                for name, value in labels.items()
            ],
        )


def remove(connection: Connection, tenant: str, kind: Kind, thing: str) -> None:
    """No label finds the thing."""
    connection.execute(
        delete(label).where(label.c.tenant == tenant, label.c.kind == kind, label.c.thing == thing)
    )


def has(tenant: str, kind: Kind, wanted: Label) -> ColumnElement[bool]:
    """The condition that a row of its kind has a label."""
    name, value = wanted
    found = select(label.c.thing).where(
        label.c.tenant == tenant,
        label.c.kind == kind,
        label.c.name == name,
        label.c.value == value,
    )
    return (job.c.id if kind == "job" else model.c.id).in_(found)
