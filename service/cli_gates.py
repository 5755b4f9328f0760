"""`lipcert gates`: the gates of a service, seen and canceled. `lipcert gate` asks for one."""

from __future__ import annotations

from typing import Annotated

import typer

from service import terminal

Server = Annotated[
    str | None, typer.Option(help="The service's address ($LIPCERT_URL, or this machine's).")
]

gates = typer.Typer(name="gates", help="Gates that a service was asked for.", no_args_is_help=True)


@gates.command("list")
def list_gates(server: Server = None) -> int:
    """All gates, newest first."""
    from service.remote import calling

    with calling(server) as client:
        for gate in client.gates():
            policy = f"{gate['policy']['name']}@{gate['policy']['version']}"
            line = f"{gate['id']}  {gate['outcome']:9}  {gate['created']}  {policy}"
            typer.echo(terminal.plain(line))
    return 0


@gates.command("cancel")
def cancel_gate(
    gate_id: Annotated[str, typer.Argument(metavar="ID", help="The gate's id.")],
    server: Server = None,
) -> int:
    """Ends a gate without a decision, and what its jobs still do."""
    from service.remote import calling

    with calling(server) as client:
        typer.echo(f"gate: {client.cancel_gate(gate_id)['outcome']}")
    return 0
