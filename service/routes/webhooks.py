"""Webhooks of the tenant that asks: made, changed, rotated, removed by keys of scope `admin`.

The service speaks to others only where the operator has turned webhooks on; else none can be made.
"""

import secrets
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError

from service.bodies import as_object, read_json
from service.context import Administering, AtPlace, Context, Reading, next_link, time_text
from service.openapi import json_body, problems
from service.problems import Problem
from service.schemas.webhooks import (
    DeliveryBody,
    DeliveryListBody,
    MadeWebhookBody,
    NewWebhookBody,
    WebhookBody,
    WebhookChangeBody,
    WebhookListBody,
)
from service.sealing import Seal, seal_context
from service.store import outbox, webhooks
from service.store.coordination import now_ms
from service.store.outbox import Delivery
from service.store.webhooks import Webhook
from service.webhook_rules import require_on
from service.webhook_targets import TargetRefused, addresses_of, read_target, system_addresses
from service.webhooks import new_secret

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])

WebhookPath = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]
DeliveryPath = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]
BodyType = TypeVar("BodyType", bound=BaseModel)

NO_STORE = {"Cache-Control": "no-store"}


async def administering(context: Administering) -> Context:
    """The context of an admin of a service that has webhooks."""
    require_on(context.settings)
    return context


Making = Annotated[Context, Depends(administering)]


def webhook_json(context: Context, one: Webhook) -> dict[str, object]:
    """A webhook on the wire, without its secret; a path may be one, too, and is for admins."""
    is_admin = context.key is None or context.key.allows("admin")
    scheme, _, rest = one.url.partition("://")
    return {
        "id": one.id,
        "url": one.url if is_admin else f"{scheme}://{rest.partition('/')[0]}",
        "events": list(one.events),
        "jobs": one.jobs,
        "label": one.label,
        "enabled": one.enabled,
        "disabled": one.disabled,
        "failing_since": time_text(one.failing_since),
        "old_secret_until": time_text(one.old_until),
        "created": time_text(one.created),
    }


def delivery_json(one: Delivery) -> dict[str, object]:
    """A delivery on the wire."""
    return {
        "id": one.id,
        "webhook": one.webhook,
        "event": one.event,
        "subject": one.subject,
        "state": one.state,
        "tries": one.tries,
        "due": time_text(one.due) if one.state == "waiting" else None,
        "outcome": one.outcome,
        "status": one.status,
        "created": time_text(one.created),
        "ended": time_text(one.ended),
    }


@router.post(
    "",
    status_code=201,
    response_model=MadeWebhookBody,
    openapi_extra=json_body(NewWebhookBody),
    responses=problems(400, 401, 403, 408, 413, 415, 422),
)
async def make(request: Request, context: Making) -> Response:
    """Make a webhook. Its secret is in this answer alone."""
    asked = await _read(request, context, NewWebhookBody)
    url = await _allowed(context, asked.url)
    webhook_id, secret = secrets.token_hex(16), new_secret()
    new = Webhook(
        id=webhook_id,
        tenant=context.tenant,
        url=url,
        events=asked.events,
        jobs=asked.jobs,
        label=asked.label,
        enabled=asked.enabled,
        disabled=None,
        failing_since=None,
        sealed=_sealed(context, webhook_id, secret),
        old_sealed=None,
        old_until=None,
        created=now_ms(),
    )
    limit = context.settings.max_webhooks
    if not await context.write(lambda c: webhooks.add(c, new, limit)):
        raise Problem("invalid-request", f"there are {limit} webhooks already", fix="remove one")
    headers = {"Location": f"/v1/webhooks/{webhook_id}", **NO_STORE}
    made = {**webhook_json(context, new), "secret": secret}
    return JSONResponse(made, status_code=201, headers=headers)


@router.get("", response_model=WebhookListBody, responses=problems(401, 422))
async def list_webhooks(request: Request, context: Reading, place: AtPlace) -> Response:
    """All webhooks of the tenant, newest first."""
    page = await context.read(lambda c: webhooks.page(c, context.tenant, place))
    items = [webhook_json(context, one) for one in page.items]
    return JSONResponse(
        {"items": items, "next_cursor": page.cursor}, headers=next_link(request, page.cursor)
    )


@router.get("/{webhook_id}", response_model=WebhookBody, responses=problems(401, 404, 422))
async def show(context: Reading, webhook_id: WebhookPath) -> Response:
    """A webhook."""
    return JSONResponse(webhook_json(context, await _found(context, webhook_id)))


@router.patch(
    "/{webhook_id}",
    response_model=WebhookBody,
    openapi_extra=json_body(WebhookChangeBody),
    responses=problems(400, 401, 403, 404, 408, 413, 415, 422),
)
async def change(request: Request, context: Making, webhook_id: WebhookPath) -> Response:
    """Change a webhook. To disable it ends what waits; to enable it gives it a clean record."""
    asked = await _read(request, context, WebhookChangeBody)
    values = asked.model_dump(exclude_none=True)
    await _found(context, webhook_id)
    if asked.url is not None:
        values["url"] = await _allowed(context, asked.url)
    changed = await context.write(
        lambda c: webhooks.change(c, context.tenant, webhook_id, values, now_ms())
    )
    return JSONResponse(webhook_json(context, _there(changed, webhook_id)))


@router.delete("/{webhook_id}", status_code=204, responses=problems(401, 403, 404, 422))
async def remove(context: Administering, webhook_id: WebhookPath) -> Response:
    """Remove a webhook and its deliveries."""
    if not await context.write(lambda c: webhooks.remove(c, context.tenant, webhook_id)):
        raise _absent(webhook_id)
    return Response(status_code=204)


@router.post(
    "/{webhook_id}/rotate",
    response_model=MadeWebhookBody,
    responses=problems(401, 403, 404, 422),
)
async def rotate(context: Making, webhook_id: WebhookPath) -> Response:
    """A new secret, in this answer alone. For 24 hours the one before signs as well."""
    await _found(context, webhook_id)
    secret = new_secret()
    sealed = _sealed(context, webhook_id, secret)
    rotated = await context.write(
        lambda c: webhooks.rotate(c, context.tenant, webhook_id, sealed, now_ms())
    )
    told = {**webhook_json(context, _there(rotated, webhook_id)), "secret": secret}
    return JSONResponse(told, headers=NO_STORE)


@router.get(
    "/{webhook_id}/deliveries",
    response_model=DeliveryListBody,
    responses=problems(401, 404, 422),
)
async def list_deliveries(
    request: Request, context: Reading, webhook_id: WebhookPath, place: AtPlace
) -> Response:
    """What a webhook was told in the last 30 days, and what it is still to be told."""
    await _found(context, webhook_id)
    page = await context.read(lambda c: outbox.page(c, context.tenant, webhook_id, place))
    return JSONResponse(
        {"items": [delivery_json(one) for one in page.items], "next_cursor": page.cursor},
        headers=next_link(request, page.cursor),
    )


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/redeliver",
    status_code=202,
    response_model=DeliveryBody,
    responses=problems(401, 403, 404, 409, 422),
)
async def redeliver(
    context: Making, webhook_id: WebhookPath, delivery_id: DeliveryPath
) -> Response:
    """Send a message once more, whatever became of it, under the same `webhook-id`."""
    if not (await _found(context, webhook_id)).enabled:
        raise Problem("webhook-disabled", f"webhook {webhook_id} is disabled")
    repeated = await context.write(
        lambda c: outbox.repeat(c, context.tenant, webhook_id, delivery_id, now_ms())
    )
    if repeated is None:
        raise Problem("not-found", f"webhook {webhook_id} has no delivery {delivery_id}")
    return JSONResponse(delivery_json(repeated), status_code=202)


# --- parts ---------------------------------------------------------------------------------------


async def _read(request: Request, context: Context, body: type[BodyType]) -> BodyType:
    settings = context.settings
    value = await read_json(request, settings.max_json_bytes, settings.upload_idle_s)
    try:
        return body.model_validate(as_object(value))
    except ValidationError as error:
        first = error.errors()[0]
        pointer = "".join(f"/{part}" for part in first["loc"])
        raise Problem("invalid-request", f"{pointer}: {first['msg']}", pointer=pointer) from error


async def _allowed(context: Context, url: str) -> str:
    """The URL, spelled the one way.

    Raises:
        Problem: webhook-target-refused.
    """
    try:
        target = read_target(url, context.settings)
        await addresses_of(target, system_addresses)
    except TargetRefused as error:
        raise Problem("webhook-target-refused", f"/url: {error}", pointer="/url") from error
    return target.url


def _sealed(context: Context, webhook_id: str, secret: str) -> str:
    seal = Seal(context.settings.webhook_key)
    return seal.close(secret, seal_context(context.tenant, webhook_id))


async def _found(context: Context, webhook_id: str) -> Webhook:
    found = await context.read(lambda c: webhooks.find(c, context.tenant, webhook_id))
    return _there(found, webhook_id)


def _there(found: Webhook | None, webhook_id: str) -> Webhook:
    if found is None:
        raise _absent(webhook_id)
    return found


def _absent(webhook_id: str) -> Problem:
    return Problem("not-found", f"there is no webhook {webhook_id}")
