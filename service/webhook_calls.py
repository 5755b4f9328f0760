"""What both clients do with webhooks: who is told of what, and what became of each message."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from service.calls import Answer, Call, Json, Steps, json_call, pages

HOOKS = "/v1/webhooks"


def _place(webhook_id: str) -> str:
    return f"{HOOKS}/{quote(webhook_id)}"


def _create(url: str, members: dict[str, Any]) -> Steps[Json]:
    # Sent again it would make a second one.
    response = yield json_call("POST", HOOKS, {"url": url, **members}, once=True)
    return response.json()


def _get(webhook_id: str) -> Steps[Json]:
    response = yield Call("GET", _place(webhook_id))
    return response.json()


def _change(webhook_id: str, changes: dict[str, Any]) -> Steps[Json]:
    response = yield json_call("PATCH", _place(webhook_id), changes)
    return response.json()


def _delete(webhook_id: str) -> Steps[None]:
    yield Call("DELETE", _place(webhook_id))


def _rotate(webhook_id: str) -> Steps[Json]:
    # Sent again it would end the secret that receivers still have.
    response = yield Call("POST", f"{_place(webhook_id)}/rotate", once=True)
    return response.json()


def _redeliver(webhook_id: str, delivery_id: str) -> Steps[Json]:
    path = f"{_place(webhook_id)}/deliveries/{quote(delivery_id)}/redeliver"
    response = yield Call("POST", path)
    return response.json()


class WebhookCalls:
    """Webhooks, for the client that waits. All but looking needs a key of scope `admin`."""

    def _run(self, steps: Steps[Answer]) -> Answer:
        raise NotImplementedError

    def create_webhook(self, url: str, **members: Any) -> Json:  # noqa: ANN401 - JSON
        """A new webhook, with its secret, which is shown only now.

        Args:
            url: what is called.
            members: `events`, `jobs`, `label`, `enabled`.
        """
        return self._run(_create(url, members))

    def webhooks(self) -> list[Json]:
        """All webhooks, newest first."""
        return self._run(pages(HOOKS))

    def webhook(self, webhook_id: str) -> Json:
        """A webhook as it is."""
        return self._run(_get(webhook_id))

    def change_webhook(self, webhook_id: str, **changes: Any) -> Json:  # noqa: ANN401 - JSON
        """The webhook with another `url`, `events`, `jobs` or `label`, or `enabled` or not."""
        return self._run(_change(webhook_id, changes))

    def delete_webhook(self, webhook_id: str) -> None:
        """Tell it nothing more, and forget what it was told."""
        self._run(_delete(webhook_id))

    def rotate_webhook(self, webhook_id: str) -> Json:
        """The webhook with a new secret; the one before signs as well for a day."""
        return self._run(_rotate(webhook_id))

    def deliveries(self, webhook_id: str) -> list[Json]:
        """What a webhook was told or is to be told, newest first."""
        return self._run(pages(f"{_place(webhook_id)}/deliveries"))

    def redeliver(self, webhook_id: str, delivery_id: str) -> Json:
        """Have a message sent again, now."""
        return self._run(_redeliver(webhook_id, delivery_id))


class AsyncWebhookCalls:
    """The same, to be awaited."""

    async def _run(self, steps: Steps[Answer]) -> Answer:
        raise NotImplementedError

    async def create_webhook(self, url: str, **members: Any) -> Json:  # noqa: ANN401 - JSON
        """A new webhook, with its secret, which is shown only now."""
        return await self._run(_create(url, members))

    async def webhooks(self) -> list[Json]:
        """All webhooks, newest first."""
        return await self._run(pages(HOOKS))

    async def webhook(self, webhook_id: str) -> Json:
        """A webhook as it is."""
        return await self._run(_get(webhook_id))

    async def change_webhook(self, webhook_id: str, **changes: Any) -> Json:  # noqa: ANN401 - JSON
        """The webhook with another `url`, `events`, `jobs` or `label`, or `enabled` or not."""
        return await self._run(_change(webhook_id, changes))

    async def delete_webhook(self, webhook_id: str) -> None:
        """Tell it nothing more, and forget what it was told."""
        await self._run(_delete(webhook_id))

    async def rotate_webhook(self, webhook_id: str) -> Json:
        """The webhook with a new secret; the one before signs as well for a day."""
        return await self._run(_rotate(webhook_id))

    async def deliveries(self, webhook_id: str) -> list[Json]:
        """What a webhook was told or is to be told, newest first."""
        return await self._run(pages(f"{_place(webhook_id)}/deliveries"))

    async def redeliver(self, webhook_id: str, delivery_id: str) -> Json:
        """Have a message sent again, now."""
        return await self._run(_redeliver(webhook_id, delivery_id))
