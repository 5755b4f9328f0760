"""API keys in the database: made, found by id, revoked. Rows stay, so that a use can be traced."""

from typing import cast

from sqlalchemy import Connection, bindparam, insert, select, update

from service.access import ApiKey, Scope, new_secret
from service.store import audit
from service.store.paging import Columns, Page, Place, page_of
from service.store.tables import api_key

USE_MS = 3_600_000  #: how exactly the last use is kept


def add(
    connection: Connection,
    tenant: str,
    *,
    scope: Scope,
    label: str,
    expires: int | None,
    now: int,
    actor: str = "operator",
) -> tuple[ApiKey, str]:
    """A new key, and its text."""
    key_id, digest, text = new_secret()
    connection.execute(
        insert(api_key).values(
            id=key_id,
            tenant=tenant,
            digest=digest,
            scope=scope,
            label=label,
            created=now,
            expires=expires,
        )
    )
    audit.append(connection, tenant, actor, "key.created", key_id, {"scope": scope, "label": label})
    made = find(connection, tenant, key_id)
    assert made is not None, "a row that this transaction wrote"  # noqa: S101
    return made, text


def find(connection: Connection, tenant: str, key_id: str) -> ApiKey | None:
    """The key of this tenant, if there is one."""
    query = select(api_key).where(api_key.c.tenant == tenant, api_key.c.id == key_id)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else _key(cast("Columns", row))


def page(connection: Connection, tenant: str, place: Place) -> Page[ApiKey]:
    """Keys, newest first, the revoked ones too."""
    query = select(api_key).where(api_key.c.tenant == tenant)
    return page_of(connection, query, api_key.c.created, api_key.c.id, place, _key)


def revoke(
    connection: Connection, tenant: str, key_id: str, now: int, actor: str = "operator"
) -> bool:
    """Whether there is such a key, which is revoked from now on."""
    if find(connection, tenant, key_id) is None:
        return False
    changed = connection.execute(
        update(api_key)
        .where(api_key.c.tenant == tenant, api_key.c.id == key_id, api_key.c.revoked.is_(None))
        .values(revoked=now)
    )
    if changed.rowcount == 1:
        audit.append(connection, tenant, actor, "key.revoked", key_id, {})
    return True


# --- Before it is known whose the request is -----------------------------------------------------


# Made once: every request asks these.
_OF_ANY_TENANT = select(api_key).where(api_key.c.id == bindparam("key_id"))
_SOME = select(api_key.c.id).limit(1)


def of_any_tenant(connection: Connection, key_id: str) -> ApiKey | None:
    """The key of this id, whosever it is: it is what says whose the request is."""
    found = connection.execute(_OF_ANY_TENANT, {"key_id": key_id}).mappings().one_or_none()
    return None if found is None else _key(cast("Columns", found))


def exist(connection: Connection) -> bool:
    """Whether there has ever been a key: a service that had one does not open again."""
    return connection.execute(_SOME).first() is not None


def note_use(connection: Connection, key_id: str, now: int) -> None:
    """Keep when the key was used last, to the hour."""
    connection.execute(
        update(api_key).where(api_key.c.id == key_id).values(last_used=now - now % USE_MS)
    )


def _key(row: Columns) -> ApiKey:
    return ApiKey(**{name: row[name] for name in ApiKey.__slots__})
