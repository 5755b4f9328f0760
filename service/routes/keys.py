"""API keys of the tenant that asks: made, listed, revoked, by keys of scope `admin`.

A service without keys makes its first one on its own machine (`lipcert api-keys new`): over the
network anyone could.
"""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import JSONResponse
from pydantic import ValidationError

from service.access import ApiKey
from service.bodies import as_object, read_json
from service.context import Administering, AtPlace, next_link, time_text
from service.openapi import json_body, problems
from service.problems import Problem
from service.schemas.keys import KeyListBody, MadeKeyBody, NewKeyBody
from service.store import keys
from service.store.coordination import now_ms

router = APIRouter(prefix="/v1/keys", tags=["keys"])

KeyPath = Annotated[str, Path(pattern=r"^[0-9A-Za-z]{8}$")]


def key_json(key: ApiKey) -> dict[str, object]:
    """A key on the wire, without what would let anyone in."""
    return {
        "id": key.id,
        "scope": key.scope,
        "label": key.label,
        "created": time_text(key.created),
        "expires": time_text(key.expires),
        "revoked": time_text(key.revoked),
        "last_used": time_text(key.last_used),
    }


@router.post(
    "",
    status_code=201,
    response_model=MadeKeyBody,
    openapi_extra=json_body(NewKeyBody),
    responses=problems(400, 401, 403, 408, 413, 415, 422),
)
async def make(request: Request, context: Administering) -> Response:
    """Make a key. Its text is in this answer alone."""
    if context.key is None:
        raise Problem(
            "forbidden",
            "there are no keys yet, so anyone could make the first one",
            fix="run `lipcert api-keys new` on the service's machine",
        )
    settings = context.settings
    asked = _read(await read_json(request, settings.max_json_bytes, settings.upload_idle_s))
    now = now_ms()
    expires = None if asked.expires is None else round(asked.expires.timestamp() * 1000)
    if expires is not None and expires <= now:
        raise Problem("invalid-request", "it would have expired already", pointer="/expires")
    key, text = await context.write(
        lambda c: keys.add(
            c,
            context.tenant,
            scope=asked.scope,
            label=asked.label,
            expires=expires,
            now=now,
            actor=context.actor,
        )
    )
    headers = {"Location": f"/v1/keys/{key.id}", "Cache-Control": "no-store"}
    return JSONResponse({**key_json(key), "key": text}, status_code=201, headers=headers)


@router.get("", response_model=KeyListBody, responses=problems(401, 403, 422))
async def list_keys(request: Request, context: Administering, place: AtPlace) -> Response:
    """All keys of the tenant, newest first, the revoked ones too."""
    page = await context.read(lambda c: keys.page(c, context.tenant, place))
    return JSONResponse(
        {"items": [key_json(key) for key in page.items], "next_cursor": page.cursor},
        headers=next_link(request, page.cursor),
    )


@router.delete("/{key_id}", status_code=204, responses=problems(401, 403, 404, 422))
async def revoke(context: Administering, key_id: KeyPath) -> Response:
    """Revoke a key: from now on it opens nothing."""
    if not await context.write(
        lambda c: keys.revoke(c, context.tenant, key_id, now_ms(), context.actor)
    ):
        raise Problem("not-found", f"there is no key {key_id}")
    return Response(status_code=204)


def _read(value: object) -> NewKeyBody:
    try:
        return NewKeyBody.model_validate(as_object(value))
    except ValidationError as error:
        first = error.errors()[0]
        pointer = "".join(f"/{part}" for part in first["loc"])
        raise Problem("invalid-request", f"{pointer}: {first['msg']}", pointer=pointer) from error
