"""`lipcert api-keys`: keys of the service, made and revoked on its own machine, in its database.

Over REST a key of scope `admin` does the same for its tenant (/v1/keys).
"""

from __future__ import annotations

import time
from typing import Annotated

import typer

from service import terminal
from service.cli_database import DatabaseFlag, DataFolder, require_service, service_database

Tenant = Annotated[str, typer.Option(help="Whose keys.")]

api_keys = typer.Typer(
    name="api-keys",
    help="Keys that open the REST service.",
    no_args_is_help=True,
    callback=require_service,
)

DAY_MS = 86_400_000


@api_keys.command("new")
def new_key(
    scope: Annotated[str, typer.Option(help="read, submit or admin.")] = "admin",
    tenant: Tenant = "default",
    label: Annotated[str, typer.Option(help="What it is for.")] = "",
    days: Annotated[float | None, typer.Option(help="Days that it is valid (for ever).")] = None,
    data: DataFolder = None,
    database_url: DatabaseFlag = None,
) -> int:
    """Makes a key and prints it, once. From the first key on the service asks for one."""
    from service.access import SCOPES
    from service.store import keys
    from verifier.errors import InvalidRequest

    if scope not in SCOPES:
        raise InvalidRequest(f"scope {scope!r} does not exist", fix=f"use one of {list(SCOPES)}")
    if days is not None and not 0 < days <= 36_500:
        raise InvalidRequest(f"{days} days is no time", fix="give 1 to 36500 days")
    now = time.time_ns() // 1_000_000
    expires = None if days is None else now + round(days * DAY_MS)
    with service_database(data, database_url) as database, database.write() as connection:
        key, text = keys.add(connection, tenant, scope=scope, label=label, expires=expires, now=now)
    terminal.say(f"key {key.id} of tenant {tenant!r}, scope {scope}; it is shown only now")
    typer.echo(text)
    return 0


@api_keys.command("list")
def list_keys(
    tenant: Tenant = "default", data: DataFolder = None, database_url: DatabaseFlag = None
) -> int:
    """The keys of a tenant, newest first."""
    from service.context import time_text
    from service.store import keys
    from service.store.paging import MAX_LIMIT, Place, parse_cursor

    place: Place | None = Place(limit=MAX_LIMIT)
    with service_database(data, database_url) as database, database.read() as connection:
        while place is not None:
            page = keys.page(connection, tenant, place)
            for key in page.items:
                state = "valid" if key.is_valid(time.time_ns() // 1_000_000) else "not valid"
                used = time_text(key.last_used) or "never"
                line = f"{key.id}  {key.scope:6}  {state:9}  used {used}  {key.label}"
                typer.echo(terminal.plain(line))
            after = None if page.cursor is None else parse_cursor(page.cursor)
            place = None if after is None else Place(limit=MAX_LIMIT, after=after)
    return 0


@api_keys.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The eight characters of its id.")],
    tenant: Tenant = "default",
    data: DataFolder = None,
    database_url: DatabaseFlag = None,
) -> int:
    """Revokes a key: from now on it opens nothing."""
    from service.store import keys
    from verifier.errors import InvalidRequest

    with service_database(data, database_url) as database, database.write() as connection:
        if not keys.revoke(connection, tenant, key_id, time.time_ns() // 1_000_000):
            raise InvalidRequest(
                f"tenant {tenant!r} has no key {key_id!r}", fix="see `lipcert api-keys list`"
            )
    return 0
