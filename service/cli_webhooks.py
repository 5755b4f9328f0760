"""`lipcert webhooks`: who is told by a service when something happened.

Over REST, with a key of scope `admin`: the light installation is enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from service import terminal
from service.cli_gates import Server

webhooks = typer.Typer(
    name="webhooks", help="Whom a service tells when something happened.", no_args_is_help=True
)

WebhookId = Annotated[str, typer.Argument(metavar="ID", help="The webhook's id.")]
Events = Annotated[
    list[str] | None, typer.Option("--event", help="job.finished, ...; may be repeated.")
]
Jobs = Annotated[str | None, typer.Option(help="all, or named: those that name it.")]
Label = Annotated[str | None, typer.Option(help="What it is for.")]


@webhooks.command("new")
def new_webhook(
    url: Annotated[str, typer.Argument(metavar="URL", help="What is called.")],
    event: Events = None,
    jobs: Jobs = None,
    label: Label = None,
    server: Server = None,
) -> int:
    """Makes a webhook, and prints its secret, once."""
    from service.remote import calling

    with calling(server) as client:
        made = client.create_webhook(url, **_said(events=event, jobs=jobs, label=label))
    terminal.say(f"webhook {made['id']}; its secret is shown only now")
    typer.echo(made["secret"])
    return 0


@webhooks.command("list")
def list_webhooks(server: Server = None) -> int:
    """All webhooks, newest first."""
    from service.remote import calling

    with calling(server) as client:
        for one in client.webhooks():
            typer.echo(_line(one))
    return 0


@webhooks.command("change")
def change_webhook(
    webhook_id: WebhookId,
    url: Annotated[str | None, typer.Option(help="What is called from now on.")] = None,
    event: Events = None,
    jobs: Jobs = None,
    label: Label = None,
    enabled: Annotated[
        bool | None, typer.Option("--enable/--disable", help="Whether it is told anything.")
    ] = None,
    server: Server = None,
) -> int:
    """Changes what is said, and nothing else."""
    from service.remote import calling

    changes = _said(url=url, events=event, jobs=jobs, label=label, enabled=enabled)
    with calling(server) as client:
        typer.echo(_line(client.change_webhook(webhook_id, **changes)))
    return 0


@webhooks.command("rotate")
def rotate_webhook(webhook_id: WebhookId, server: Server = None) -> int:
    """Gives it a new secret and prints that, once; the one before signs as well for a day."""
    from service.remote import calling

    with calling(server) as client:
        made = client.rotate_webhook(webhook_id)
    terminal.say(f"webhook {made['id']}; its secret is shown only now")
    typer.echo(made["secret"])
    return 0


@webhooks.command("delete")
def delete_webhook(webhook_id: WebhookId, server: Server = None) -> int:
    """Removes a webhook, and what it was told."""
    from service.remote import calling

    with calling(server) as client:
        client.delete_webhook(webhook_id)
    return 0


@webhooks.command("deliveries")
def list_deliveries(webhook_id: WebhookId, server: Server = None) -> int:
    """What a webhook was told or is to be told, newest first."""
    from service.remote import calling

    with calling(server) as client:
        for one in client.deliveries(webhook_id):
            typer.echo(_delivery_line(one))
    return 0


@webhooks.command("redeliver")
def redeliver(
    webhook_id: WebhookId,
    delivery_id: Annotated[str, typer.Argument(metavar="DELIVERY", help="The delivery's id.")],
    server: Server = None,
) -> int:
    """Has a message sent again, now."""
    from service.remote import calling

    with calling(server) as client:
        typer.echo(_delivery_line(client.redeliver(webhook_id, delivery_id)))
    return 0


def _said(**members: object) -> dict[str, Any]:
    """The members that flags give."""
    return {name: value for name, value in members.items() if value is not None}


def _line(webhook: Mapping[str, Any]) -> str:
    state = "enabled" if webhook["enabled"] else webhook["disabled"] or "disabled"
    told = f"{webhook['jobs']} jobs: {', '.join(webhook['events'])}"
    line = f"{webhook['id']}  {state:8}  {webhook['url']}  {told}  {webhook['label']}"
    return terminal.plain(line.rstrip())


def _delivery_line(delivery: Mapping[str, Any]) -> str:
    came_to = delivery["outcome"] or "-"
    status = "" if delivery["status"] is None else f" {delivery['status']}"
    line = f"{delivery['id']}  {delivery['state']:9}  {delivery['event']}  {came_to}{status}"
    return terminal.plain(f"{line}  {delivery['created']}  {delivery['subject']}")
