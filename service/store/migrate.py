"""Bringing a data directory to the newest schema. Alembic is imported only when there is work."""

import fcntl
import time
from pathlib import Path

from service.store.engine import HEAD, Database

MIGRATIONS = Path(__file__).parent / "migrations"


class TooNew(Exception):
    """The data directory was written by a later version of lipcert."""


def migrate(database: Database, lock: Path) -> None:
    """Bring the database to HEAD. Two processes that try at once take turns.

    Raises:
        TooNew: the database is at a revision that this version does not know.
    """
    if database.revision() == HEAD:
        return
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if database.revision() != HEAD:
            _upgrade(database)


def wait_for_head(database: Database, timeout_s: float) -> bool:
    """Whether another process brings the database to HEAD within the time."""
    end = time.monotonic() + timeout_s
    while database.revision() != HEAD:
        if end < time.monotonic():
            return False
        time.sleep(0.05)
    return True


def _upgrade(database: Database) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    found = database.revision()
    if found is not None and found not in known:
        raise TooNew(f"the data directory is at revision {found}, this version knows {HEAD}")
    with database.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
