"""The service's database, for the commands that its operator runs on its machine."""

from __future__ import annotations

import dataclasses
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Generator

    from service.settings import Settings
    from service.store.engine import Database

DataFolder = Annotated[
    Path | None, typer.Option(help="The data directory ($XDG_DATA_HOME/lipcert).")
]


@contextmanager
def service_database(data: Path | None) -> Generator[Database]:
    """The database of the service, at the newest schema."""
    with service_parts(data) as (_, database):
        yield database


@contextmanager
def service_parts(data: Path | None) -> Generator[tuple[Settings, Database]]:
    """The settings that the environment states, and the database that they name.

    Raises:
        RequestRefused: this installation has no service.
    """
    from verifier.errors import RequestRefused

    try:
        from service.serve import ready_database
        from service.settings import from_environment
    except ImportError as error:
        raise RequestRefused(
            f"this installation has no service: module {error.name!r} is missing",
            fix="pip install 'lipcert[serve]'",
        ) from error
    settings = from_environment(os.environ)
    chosen = settings if data is None else dataclasses.replace(settings, data=data)
    with ready_database(chosen) as database:
        yield chosen, database
