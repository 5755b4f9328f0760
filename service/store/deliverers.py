"""The deliverers that live: each says so every few seconds, and is believed for half a minute."""

from sqlalchemy import Connection, delete, exists, select

from service.store.inserts import insert_or_update
from service.store.tables import deliverer

SEEN_MS = 30_000
FORGOTTEN_MS = 600_000


def announce(connection: Connection, owner: str, node: str, now: int) -> None:
    """Say that this one lives; the rows of those that do not are removed."""
    connection.execute(delete(deliverer).where(deliverer.c.seen < now - FORGOTTEN_MS))
    insert_or_update(connection, deliverer, {"owner": owner, "node": node, "seen": now})


def retire(connection: Connection, owner: str) -> None:
    """Say that this one has stopped."""
    connection.execute(delete(deliverer).where(deliverer.c.owner == owner))


def is_alive(connection: Connection, node: str, now: int) -> bool:
    """Whether one was seen lately on this machine."""
    seen = exists().where(deliverer.c.node == node, now - SEEN_MS < deliverer.c.seen)
    return connection.scalar(select(seen)) or False
