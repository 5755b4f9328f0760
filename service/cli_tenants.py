"""`lipcert tenants`: what each tenant uses and may use, on the service's own machine."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from service import terminal
from service.cli_database import DataFolder, service_database, service_parts

Name = Annotated[str, typer.Argument(metavar="NAME", help="The tenant.")]

tenants = typer.Typer(name="tenants", help="What tenants use and may use.", no_args_is_help=True)


@tenants.command("list")
def list_tenants(data: DataFolder = None) -> int:
    """Every tenant that has a key, a model, a job or a limit of its own."""
    from service.store import limits as store

    with service_database(data) as database, database.read() as connection:
        for name in store.tenants(connection):
            own = store.own_limits(connection, name).items()
            said = ", ".join(f"{limit}={_text(most)}" for limit, most in own)
            typer.echo(terminal.plain(f"{name}  {said or 'default limits'}"))
    return 0


@tenants.command("show")
def show_tenant(
    name: Name,
    data: DataFolder = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
) -> int:
    """The limits of a tenant, and how much of each is used."""
    from service.quotas import effective_limits
    from service.store import limits as store

    now = time.time_ns() // 1_000_000
    with service_parts(data) as (settings, database), database.read() as connection:
        limits = effective_limits(connection, settings, name)
        usage = store.usage_json(limits, store.usage_of(connection, name, now))
    if as_json:
        terminal.print_json({"tenant": name, "limits": usage})
        return 0
    for limit, values in usage.items():
        most = "none" if values["limit"] is None else str(values["limit"])
        used = "" if values["used"] is None else f"  used {values['used']}"
        typer.echo(f"{limit:20} limit {most}{used}")
    return 0


@tenants.command("set")
def set_tenant(
    name: Name,
    limit: Annotated[
        list[str],
        typer.Option(help="name=number, name=none or name=default, of `show`. Repeatable."),
    ],
    data: DataFolder = None,
) -> int:
    """Sets limits of a tenant, from now on."""
    from service.limits import parse_limit
    from service.store import limits as store

    said = dict(map(parse_limit, limit))
    with service_database(data) as database, database.write() as connection:
        store.set_limits(connection, name, said)
    return 0


def _text(most: int) -> str:
    from service.limits import shown

    return "none" if shown(most) is None else str(most)
