"""How long checkpoints are kept: each may be as large as a model, and few are gone on from."""

import math

from sqlalchemy import ColumnElement, exists, select, update

from service.store.coordination import now_in
from service.store.database import Database
from service.store.jobs import ENDED
from service.store.tables import job

DAY_MS = 86_400_000


def forget_checkpoints(database: Database, days: float) -> None:
    """Have no row name the checkpoint of a job that ended so long ago: its file is an orphan."""
    if math.isinf(days):
        return
    with database.read() as connection:
        if not connection.scalar(select(exists().where(*_is_old(now_in(connection), days)))):
            return
    with database.write() as connection:
        now = now_in(connection)
        removed = {"checkpoint": None, "checkpoint_removed": now, "version": job.c.version + 1}
        connection.execute(update(job).where(*_is_old(now, days)).values(**removed))


def _is_old(now: int, days: float) -> list[ColumnElement[bool]]:
    return [
        job.c.checkpoint.is_not(None),
        job.c.state.in_(ENDED),
        job.c.ended < now - round(days * DAY_MS),
    ]
