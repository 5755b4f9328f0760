"""`lipcert audit`: the audit log, read and verified on the service's own machine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from service import terminal
from service.cli_database import DatabaseFlag, DataFolder, require_service, service_database

if TYPE_CHECKING:
    from service.store.audit import Head

Tenant = Annotated[str, typer.Option(help="Whose log.")]

audit = typer.Typer(
    name="audit",
    help="What was done in a tenant's name.",
    no_args_is_help=True,
    callback=require_service,
)


@audit.command("list")
def list_entries(
    tenant: Tenant = "default", data: DataFolder = None, database_url: DatabaseFlag = None
) -> int:
    """The rows of a tenant's log, in order."""
    from service.context import time_text
    from service.store import audit as log

    last = 0
    with service_database(data, database_url) as database, database.read() as connection:
        while rows := log.after(connection, tenant, last, log.PAGE):
            for row in rows:
                line = f"{row.seq}  {time_text(row.at)}  {row.actor}  {row.action}  {row.subject}"
                typer.echo(terminal.plain(f"{line}  {json.dumps(row.details)}"))
            last = rows[-1].seq
    return 0


@audit.command("verify")
def verify(
    tenant: Annotated[str | None, typer.Option(help="Whose log (every tenant's).")] = None,
    head: Annotated[
        str | None, typer.Option(help="What an earlier run printed for this tenant: SEQ:HASH.")
    ] = None,
    data: DataFolder = None,
    database_url: DatabaseFlag = None,
) -> int:
    """Whether no row was changed, removed or reordered; prints each log's head, to be kept.

    What is missing from the end only a head that was kept shows: give it with --head.
    """
    from service.store import audit as log

    kept = None if head is None else _head(head, tenant)
    is_whole = True
    with service_database(data, database_url) as database, database.read() as connection:
        for name in log.tenants(connection) if tenant is None else [tenant]:
            fault = log.fault(connection, name, kept)
            is_whole = is_whole and fault is None
            said = f"whole, head {log.head(connection, name)}" if fault is None else f"not: {fault}"
            typer.echo(terminal.plain(f"{name}: {said}"))
    return 0 if is_whole else 1


def _head(text: str, tenant: str | None) -> Head:
    """The head that a text states.

    Raises:
        InvalidRequest: it states none, or it is not said whose it is.
    """
    from service.store.audit import Head
    from verifier.errors import InvalidRequest

    seq, _, digest = text.partition(":")
    if tenant is None or not seq.isdecimal() or not digest:
        raise InvalidRequest(
            f"--head {text[:100]!r} is no tenant's head", fix="give --tenant, and SEQ:HASH"
        )
    return Head(int(seq), digest)
