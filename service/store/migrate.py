"""Bringing a database to the newest schema. Alembic is imported only when there is work."""

import fcntl
import time
from pathlib import Path

from sqlalchemy import Connection, text

from service.store.coordination import take_turn
from service.store.database import UNAVAILABLE, Database, revision_of
from service.store.engine import HEAD

MIGRATIONS = Path(__file__).parent / "migrations"


class TooNew(Exception):
    """The database was written by a later version of lipcert."""


def migrate(database: Database, lock: Path) -> None:
    """Bring the database to HEAD. Two processes that try at once take turns.

    Args:
        database: which.
        lock: the file that those who share an embedded database lock.

    Raises:
        TooNew: the database is at a revision that this version does not know.
    """
    if database.revision() == HEAD:
        return
    if not database.is_embedded:
        with database.write() as connection:
            # The turn lasts until the new schema is committed, however long that takes.
            connection.execute(text("SET LOCAL lock_timeout = 0"))
            take_turn(connection, "migrate")
            _upgrade(connection)
        return
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with database.write() as connection:
            _upgrade(connection)


def wait_for_head(database: Database, timeout_s: float) -> bool:
    """Whether another process brings the database to HEAD within the time."""
    end = time.monotonic() + timeout_s
    while not _is_at_head(database):
        if end < time.monotonic():
            return False
        time.sleep(0.05)
    return True


def _is_at_head(database: Database) -> bool:
    try:
        return database.revision() == HEAD
    except UNAVAILABLE:
        return False


def _upgrade(connection: Connection) -> None:
    found = revision_of(connection)
    if found == HEAD:
        return
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise TooNew(f"the database is at revision {found}, this version knows {HEAD}")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
