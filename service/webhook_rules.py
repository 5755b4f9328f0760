"""What must hold before a promise to tell a webhook is made."""

from collections.abc import Sequence

from sqlalchemy import Connection

from service.problems import Problem
from service.settings import Settings
from service.store import webhooks


def require_on(settings: Settings) -> None:
    """Refuse to promise what nobody would send.

    Raises:
        Problem: webhooks-off.
    """
    if not settings.webhooks:
        raise Problem("webhooks-off", "this service tells nothing to others")


def require_ready(
    connection: Connection, settings: Settings, tenant: str, named: Sequence[str]
) -> None:
    """Refuse a submission whose webhooks would not be told of its job.

    Raises:
        Problem: webhooks-off, not-found, webhook-disabled.
    """
    if named:
        require_on(settings)
    for webhook_id in named:
        found = webhooks.find(connection, tenant, webhook_id)
        if found is None:
            raise Problem(
                "not-found",
                f"there is no webhook {webhook_id}",
                fix="see GET /v1/webhooks",
                pointer="/webhook",
            )
        if not found.enabled:
            raise Problem(
                "webhook-disabled", f"webhook {webhook_id} is disabled", pointer="/webhook"
            )
