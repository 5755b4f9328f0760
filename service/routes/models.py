"""Models by the SHA-256 of their bytes: uploaded, read by a child, listed, fetched, deleted."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from service.blobs import Draft
from service.bodies import (
    announced_digest,
    content_digest,
    receive,
    require_type,
)
from service.context import AtPlace, Context, Labels, Reading, Submitting, next_link, time_text
from service.openapi import Responses, problems, raw_body
from service.problems import Problem
from service.quotas import effective_limits, require_storage
from service.ranges import file_answer
from service.schemas.models import ModelBody, ModelListBody
from service.store import audit, models
from service.store.coordination import now_in
from service.store.models import Model

router = APIRouter(prefix="/v1/models", tags=["models"])

ModelPath = Annotated[str, Path(pattern=r"^sha256:[0-9a-f]{64}$", description="sha256:<hex>")]

BINARY = "application/octet-stream"
BYTES: dict[str, Any] = {"content": {BINARY: {"schema": {"type": "string", "format": "binary"}}}}
UNCHANGED: Responses = {304: {"description": "bytes of one digest never change"}}
MODEL_TYPES = (BINARY, "application/x-onnx", "application/onnx")


def model_json(model: Model) -> dict[str, object]:
    """A model on the wire."""
    return {
        "id": model.id,
        "state": model.state,
        "size": model.size,
        "labels": model.labels or {},
        "created": time_text(model.created),
        "summary": model.summary,
        "capabilities": None if model.summary is None else model.summary.get("capabilities"),
        "error": model.error,
    }


@router.post(
    "",
    status_code=201,
    response_model=ModelBody,
    openapi_extra=raw_body(*MODEL_TYPES),
    responses={200: {"model": ModelBody, "description": "known already"}}
    | problems(401, 403, 408, 413, 415, 422),
)
async def upload(request: Request, context: Submitting, labels: Labels) -> Response:
    """Upload a model. Its id is the SHA-256 of its bytes: uploaded again, it gets new labels."""
    return await _receive(request, context, announced_digest(request), dict(labels))


@router.put(
    "/{model_id}",
    status_code=201,
    response_model=ModelBody,
    openapi_extra=raw_body(*MODEL_TYPES),
    responses={200: {"model": ModelBody, "description": "known already"}}
    | problems(401, 403, 408, 413, 415, 422),
)
async def upload_as(
    request: Request, context: Submitting, model_id: ModelPath, labels: Labels
) -> Response:
    """Upload a model whose digest is known; bytes with another digest are refused."""
    expected = model_id.removeprefix("sha256:")
    announced = announced_digest(request)
    if announced not in (None, expected):
        raise Problem("digest-mismatch", "Content-Digest and the path name different digests")
    return await _receive(request, context, expected, dict(labels))


@router.get("", response_model=ModelListBody, responses=problems(401, 422))
async def list_models(
    request: Request, context: Reading, place: AtPlace, labels: Labels
) -> Response:
    """All models, newest first; with several labels those that have them all."""
    page = await context.read(lambda c: models.page(c, context.tenant, place, labels))
    return JSONResponse(
        {"items": [model_json(model) for model in page.items], "next_cursor": page.cursor},
        headers=next_link(request, page.cursor),
    )


@router.get("/{model_id}", response_model=ModelBody, responses=problems(401, 404, 422))
async def show(context: Reading, model_id: ModelPath) -> Response:
    """A model and what reading it brought."""
    return JSONResponse(model_json(await _find(context, model_id)))


@router.head("/{model_id}", response_class=Response, responses=problems(401, 404, 422))
async def head(context: Reading, model_id: ModelPath) -> Response:
    """Whether a model is here, and how many bytes it has."""
    model = await _find(context, model_id)
    response = Response(headers={"ETag": f'"{model.id}"'})
    response.headers["Content-Length"] = str(model.size)
    return response


@router.head(
    "/{model_id}/content",
    response_class=Response,
    responses={206: {"description": "of a part"}, **UNCHANGED} | problems(401, 404, 416, 422),
)
@router.get(
    "/{model_id}/content",
    response_class=Response,
    responses={200: BYTES, 206: BYTES, **UNCHANGED} | problems(401, 404, 416, 422),
)
async def content(request: Request, context: Reading, model_id: ModelPath) -> Response:
    """The bytes, or those of one `Range`."""
    await _find(context, model_id)
    digest = model_id.removeprefix("sha256:")
    path = context.blobs.place("models", context.tenant, digest)
    headers = {"Content-Digest": content_digest(digest), "ETag": f'"{model_id}"'}
    return file_answer(request, path, BINARY, headers)


@router.delete("/{model_id}", status_code=204, responses=problems(401, 403, 404, 409, 422))
async def delete(context: Submitting, model_id: ModelPath) -> Response:
    """Delete a model. Its certificates stay."""
    await _find(context, model_id)

    def remove(connection: Connection) -> bool:
        if not models.remove(connection, context.tenant, model_id, now_in(connection)):
            return False
        audit.append(connection, context.tenant, context.actor, "model.deleted", model_id, {})
        return True

    def forget(connection: Connection) -> None:
        # After the row, lest it lose its bytes; in the tenant's turn, for whoever sends it again.
        if models.find(connection, context.tenant, model_id) is None:
            context.blobs.remove("models", context.tenant, model_id.removeprefix("sha256:"))

    if not await context.write(remove):
        raise Problem("model-in-use", f"a job that has not ended needs {model_id}")
    with suppress(OSError, SQLAlchemyError):  # the model is gone; `orphans` removes its bytes
        await context.write(forget)
    return Response(status_code=204)


async def keep(
    context: Context, draft: Draft, expected: str | None, labels: Mapping[str, str] | None = None
) -> tuple[Model, bool]:
    """Make a received model durable and queue it to be read; whether it is new.

    Labels take the place of those that it had; where there are none, those stay.

    Raises:
        Problem: digest-mismatch, quota-exceeded, queue-full.
    """
    digest = draft.digest
    if expected not in (None, digest):
        raise Problem("digest-mismatch", f"announced sha256:{expected}, received sha256:{digest}")
    await run_in_threadpool(draft.flush)

    def store(connection: Connection) -> tuple[Model, bool]:
        if models.find(connection, context.tenant, f"sha256:{digest}") is None:
            require_storage(connection, context.settings, context.tenant, draft.size)
        # The bytes before the row, and in the tenant's turn, as in `delete`: a row without its
        # bytes would be a lie.
        draft.keep(context.blobs.place("models", context.tenant, digest))
        attempts = context.settings.max_attempts
        model, is_new = models.add(
            connection, context.tenant, f"sha256:{digest}", draft.size, now_in(connection), attempts
        )
        if labels:
            model = models.relabel(connection, model, context.tenant, labels)
        return model, is_new

    return await context.write(store)


async def most_model_bytes(context: Context) -> int:
    """The bytes that one model of the tenant may have."""
    limits = await context.read(lambda c: effective_limits(c, context.settings, context.tenant))
    return limits.model_bytes


async def _receive(
    request: Request, context: Context, expected: str | None, labels: Mapping[str, str]
) -> Response:
    require_type(request, MODEL_TYPES)
    settings = context.settings
    with context.blobs.draft() as draft:
        most = await most_model_bytes(context)
        await receive(request, draft, most, settings.upload_idle_s)
        model, is_new = await keep(context, draft, expected, labels)
    headers: dict[str, Any] = {"Location": f"/v1/models/{model.id}"}
    return JSONResponse(model_json(model), status_code=201 if is_new else 200, headers=headers)


async def _find(context: Context, model_id: str) -> Model:
    model = await context.read(lambda c: models.find(c, context.tenant, model_id))
    if model is None:
        raise Problem("not-found", f"there is no model {model_id}")
    return model
