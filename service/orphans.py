"""Files that no row names: removed once they are old.

A file is there before the row that names it, and goes after: what ends a process between the two,
or refuses the transaction, leaves a file alone; so does a bound that gave way to a better one
before its job ended. A row without its file there never is.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import get_args

from sqlalchemy import Connection, select

from service.blobs import Blobs, Shelf, is_older
from service.store import leases
from service.store.coordination import take_turn
from service.store.database import Database
from service.store.tables import certificate, job, model

AGE_S = 3600.0  #: far more than there is between a file and its row


def remove_orphans(database: Database, blobs: Blobs) -> None:
    """Remove every old file that no row names."""
    for shelf in get_args(Shelf):
        for folder in _folders(blobs.root / shelf):
            with database.read() as connection:
                alone = _alone(connection, shelf, folder)
            if not alone:
                continue
            with database.write() as connection:
                take_turn(connection, folder.name)  # in which an upload keeps its file, too
                for path in _alone(connection, shelf, folder):
                    path.unlink(missing_ok=True)


def _alone(connection: Connection, shelf: Shelf, folder: Path) -> list[Path]:
    """The old files of a tenant's folder that no row names."""
    old = [path for path in folder.iterdir() if is_older(path, AGE_S)]
    if not old:
        return []
    named = set(_named(connection, shelf, folder.name))
    return [path for path in old if path.name not in named]


def _named(connection: Connection, shelf: Shelf, tenant: str) -> Iterable[str]:
    """The digests that a tenant's rows name."""
    match shelf:
        case "models":
            ids = connection.scalars(select(model.c.id).where(model.c.tenant == tenant))
            return [model_id.removeprefix("sha256:") for model_id in ids]
        case "checkpoints":
            some = job.c.checkpoint.is_not(None)
            return connection.scalars(select(job.c.checkpoint).where(job.c.tenant == tenant, some))
        case "certificates" | "envelopes":
            blob = certificate.c.blob
            stored = connection.scalars(select(blob).where(certificate.c.tenant == tenant))
            return [*stored, *_of_incumbents(connection, tenant)]


def _of_incumbents(connection: Connection, tenant: str) -> Iterator[str]:
    """Those of bounds that are known of jobs that have not ended."""
    known = connection.scalars(
        select(job.c.incumbent).where(
            job.c.tenant == tenant,
            job.c.state.in_(("queued", "running")),
            job.c.incumbent.is_not(None),
        )
    )
    for incumbent in known:
        yield from (accepted["blob"] for accepted in leases.accepted(incumbent))


def _folders(shelf: Path) -> list[Path]:
    return [path for path in shelf.iterdir() if path.is_dir()] if shelf.is_dir() else []
