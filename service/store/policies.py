"""Policies by name: every change is a new version, and no version ever changes.

Deleting a name hides its versions. They stay, to be read by their digest: a gate's decision names
the digest of what it was decided by.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Connection, func, select, update

from service.store.inserts import insert_if_new
from service.store.paging import Columns, Page, Place, page_of
from service.store.tables import policy


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPolicy:
    """One version of a policy."""

    name: str
    version: int
    digest: str  #: `sha256:` of the canonical document
    document: Mapping[str, Any]  # Any: JSON that the service wrote itself
    created: int
    hidden: int | None


def find(
    connection: Connection, tenant: str, name: str, version: int | None = None
) -> StoredPolicy | None:
    """A version of this name, or the newest, unless the name is hidden."""
    query = select(policy).where(
        policy.c.tenant == tenant, policy.c.name == name, policy.c.hidden.is_(None)
    )
    if version is not None:
        query = query.where(policy.c.version == version)
    row = connection.execute(query.order_by(policy.c.version.desc()).limit(1)).mappings().first()
    return None if row is None else _policy(cast("Columns", row))


def of_digest(
    connection: Connection, tenant: str, digest: str, *, is_usable: bool = False
) -> StoredPolicy | None:
    """A version with this content, a hidden one too; `is_usable`: only one of a name that is there.

    Of several the one whose name is there and that is newest.
    """
    query = select(policy).where(policy.c.tenant == tenant, policy.c.digest == digest)
    if is_usable:
        query = query.where(policy.c.hidden.is_(None))
    order = (policy.c.hidden.is_not(None), policy.c.created.desc(), policy.c.version.desc())
    row = connection.execute(query.order_by(*order).limit(1)).mappings().first()
    return None if row is None else _policy(cast("Columns", row))


def page(connection: Connection, tenant: str, place: Place) -> Page[StoredPolicy]:
    """The newest version of every name, the last changed first."""
    newest = (
        select(policy.c.name, func.max(policy.c.version).label("version"))
        .where(policy.c.tenant == tenant, policy.c.hidden.is_(None))
        .group_by(policy.c.name)
        .subquery()
    )
    query = (
        select(policy, policy.c.name.label("id"))
        .join(newest, (newest.c.name == policy.c.name) & (newest.c.version == policy.c.version))
        .where(policy.c.tenant == tenant)
    )
    return page_of(connection, query, policy.c.created, policy.c.name, place, _policy)


def add(
    connection: Connection,
    tenant: str,
    name: str,
    document: Mapping[str, object],
    digest: str,
    now: int,
) -> StoredPolicy | None:
    """A new version; None where another change of this name came first."""
    last = connection.scalar(
        select(func.max(policy.c.version)).where(policy.c.tenant == tenant, policy.c.name == name)
    )
    version = (last or 0) + 1
    row: dict[str, object] = {
        "tenant": tenant,
        "name": name,
        "version": version,
        "digest": digest,
        "document": dict(document),
        "created": now,
    }
    is_new = insert_if_new(connection, policy, row)
    return find(connection, tenant, name, version) if is_new else None


def hide(connection: Connection, tenant: str, name: str, now: int) -> bool:
    """Whether there was such a name, which is hidden from now on."""
    hidden = (
        update(policy)
        .where(policy.c.tenant == tenant, policy.c.name == name, policy.c.hidden.is_(None))
        .values(hidden=now)
    )
    return 0 < connection.execute(hidden).rowcount


def _policy(row: Columns) -> StoredPolicy:
    return StoredPolicy(**{name: row[name] for name in StoredPolicy.__dataclass_fields__})
