"""The service's database, for the commands that its operator runs on its machine."""

from __future__ import annotations

import dataclasses
import os
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Generator

    from service.settings import Settings
    from service.store.address import DatabaseUrl
    from service.store.database import Database

DataFolder = Annotated[
    Path | None, typer.Option(help="The data directory ($XDG_DATA_HOME/lipcert).")
]
DatabaseFlag = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        help="PostgreSQL instead of SQLite: postgresql://USER@HOST/DATABASE, without a password.",
    ),
]


def address_from(text: str | None) -> DatabaseUrl | None:
    """The address that a flag gives.

    Raises:
        InvalidRequest: it is none, or has a password.
    """
    from service.store.address import DatabaseUrl
    from verifier.errors import InvalidRequest

    address = None if text is None else DatabaseUrl.parse(text)
    if address is not None and address.password is not None:
        raise InvalidRequest(
            "--database-url has a password, which every process of this machine can read there",
            fix="put the URL into LIPCERT_DATABASE_URL, or the password into the file that "
            "LIPCERT_DATABASE_PASSWORD_FILE names",
            pointer="/database_url",
        )
    return address


def require_service() -> None:
    """Refuse where this installation has no service, before a command looks for its parts.

    Raises:
        RequestRefused: it has none.
    """
    from verifier.errors import RequestRefused

    try:
        import_module("service.serve")
    except ImportError as error:
        raise RequestRefused(
            f"this installation has no service: module {error.name!r} is missing",
            fix="pip install 'lipcert[serve]'",
        ) from error


@contextmanager
def service_database(data: Path | None, database_url: str | None) -> Generator[Database]:
    """The database of the service, at the newest schema."""
    with service_parts(data, database_url) as (_, database):
        yield database


@contextmanager
def service_parts(
    data: Path | None, database_url: str | None
) -> Generator[tuple[Settings, Database]]:
    """The settings that the environment states, and the database that they name."""
    from service.serve import ready_database
    from service.settings import from_environment

    settings = from_environment(os.environ)
    chosen = dataclasses.replace(
        settings,
        data=data or settings.data,
        database_url=address_from(database_url) or settings.database_url,
    )
    with ready_database(chosen) as database:
        yield chosen, database
