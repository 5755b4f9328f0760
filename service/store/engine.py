"""The database of an installation: PostgreSQL where a URL names one, else SQLite in a file."""

from pathlib import Path

from service.store.address import DatabaseUrl
from service.store.database import Database
from service.store.sqlite import SqliteDatabase
from verifier.errors import RequestRefused

HEAD = "0008"  #: the newest migration; a test compares it with the migrations' folder


def open_database(place: Path | DatabaseUrl) -> Database:
    """The database in a file or at a URL. Nothing is connected yet.

    Raises:
        RequestRefused: PostgreSQL's driver is not installed.
    """
    if isinstance(place, Path):
        return SqliteDatabase(place)
    try:
        from service.store.postgres import PostgresDatabase
    except ImportError as error:
        raise RequestRefused(
            f"this installation cannot use PostgreSQL: module {error.name!r} is missing",
            fix="pip install 'lipcert[postgres]'",
        ) from error
    return PostgresDatabase(place)
