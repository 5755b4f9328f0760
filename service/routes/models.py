"""Models by the SHA-256 of their bytes: uploaded, read by a child, listed, fetched, deleted."""

from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import FileResponse, JSONResponse
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
from service.context import AtPlace, Context, Reading, Submitting, next_link, time_text
from service.openapi import problems, raw_body
from service.problems import Problem
from service.schemas.models import ModelBody, ModelListBody
from service.store import models
from service.store.engine import now_ms
from service.store.models import Model

router = APIRouter(prefix="/v1/models", tags=["models"])

ModelPath = Annotated[str, Path(pattern=r"^sha256:[0-9a-f]{64}$", description="sha256:<hex>")]

BINARY = "application/octet-stream"
BYTES: dict[str, Any] = {"content": {BINARY: {"schema": {"type": "string", "format": "binary"}}}}
MODEL_TYPES = (BINARY, "application/x-onnx", "application/onnx")


def model_json(model: Model) -> dict[str, object]:
    """A model on the wire."""
    return {
        "id": model.id,
        "state": model.state,
        "size": model.size,
        "created": time_text(model.created),
        "summary": model.summary,
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
async def upload(request: Request, context: Submitting) -> Response:
    """Upload a model. Its id is the SHA-256 of its bytes, so a repeated upload changes nothing."""
    return await _receive(request, context, announced_digest(request))


@router.put(
    "/{model_id}",
    status_code=201,
    response_model=ModelBody,
    openapi_extra=raw_body(*MODEL_TYPES),
    responses={200: {"model": ModelBody, "description": "known already"}}
    | problems(401, 403, 408, 413, 415, 422),
)
async def upload_as(request: Request, context: Submitting, model_id: ModelPath) -> Response:
    """Upload a model whose digest is known; bytes with another digest are refused."""
    expected = model_id.removeprefix("sha256:")
    announced = announced_digest(request)
    if announced not in (None, expected):
        raise Problem("digest-mismatch", "Content-Digest and the path name different digests")
    return await _receive(request, context, expected)


@router.get("", response_model=ModelListBody, responses=problems(401, 422))
async def list_models(request: Request, context: Reading, place: AtPlace) -> Response:
    """All models, newest first."""
    page = await context.read(lambda c: models.page(c, context.tenant, place))
    return JSONResponse(
        {"items": [model_json(model) for model in page.items], "next_cursor": page.cursor},
        headers=next_link(request, page.cursor),
    )


@router.get("/{model_id}", response_model=ModelBody, responses=problems(401, 404, 422))
async def show(context: Reading, model_id: ModelPath) -> Response:
    """A model and what reading it brought."""
    return JSONResponse(model_json(await _find(context, model_id)))


@router.head("/{model_id}", responses=problems(401, 404, 422))
async def head(context: Reading, model_id: ModelPath) -> Response:
    """Whether a model is here, and how many bytes it has."""
    model = await _find(context, model_id)
    response = Response(headers={"ETag": f'"{model.id}"'})
    response.headers["Content-Length"] = str(model.size)
    return response


@router.get(
    "/{model_id}/content",
    response_class=FileResponse,
    responses={200: BYTES, 206: BYTES} | problems(401, 404, 416, 422),
)
async def content(context: Reading, model_id: ModelPath) -> Response:
    """The bytes."""
    await _find(context, model_id)
    digest = model_id.removeprefix("sha256:")
    return FileResponse(
        context.blobs.place("models", context.tenant, digest),
        media_type=BINARY,
        headers={"Content-Digest": content_digest(digest), "ETag": f'"{model_id}"'},
    )


@router.delete("/{model_id}", status_code=204, responses=problems(401, 403, 404, 409, 422))
async def delete(context: Submitting, model_id: ModelPath) -> Response:
    """Delete a model. Its certificates stay."""
    await _find(context, model_id)

    if not await context.write(lambda c: models.remove(c, context.tenant, model_id)):
        raise Problem("model-in-use", f"a job that has not ended needs {model_id}")

    def forget(connection: Connection) -> None:
        # After the row, lest it lose its bytes; under the write lock, for whoever uploads it again.
        if models.find(connection, context.tenant, model_id) is None:
            context.blobs.remove("models", context.tenant, model_id.removeprefix("sha256:"))

    with suppress(OSError, SQLAlchemyError):  # the model is gone; `orphans` removes its bytes
        await context.write(forget)
    return Response(status_code=204)


async def keep(context: Context, draft: Draft, expected: str | None) -> tuple[Model, bool]:
    """Make a received model durable and queue it to be read; whether it is new.

    Raises:
        Problem: digest-mismatch.
    """
    digest = draft.digest
    if expected not in (None, digest):
        raise Problem("digest-mismatch", f"announced sha256:{expected}, received sha256:{digest}")
    await run_in_threadpool(draft.flush)

    def store(connection: Connection) -> tuple[Model, bool]:
        # The bytes before the row, both under the write lock, as in `delete`: a row without its
        # bytes would be a lie.
        draft.keep(context.blobs.place("models", context.tenant, digest))
        attempts = context.settings.max_attempts
        return models.add(
            connection, context.tenant, f"sha256:{digest}", draft.size, now_ms(), attempts
        )

    return await context.write(store)


async def _receive(request: Request, context: Context, expected: str | None) -> Response:
    require_type(request, MODEL_TYPES)
    settings = context.settings
    with context.blobs.draft() as draft:
        await receive(request, draft, settings.max_model_bytes, settings.upload_idle_s)
        model, is_new = await keep(context, draft, expected)
    headers: dict[str, Any] = {"Location": f"/v1/models/{model.id}"}
    return JSONResponse(model_json(model), status_code=201 if is_new else 200, headers=headers)


async def _find(context: Context, model_id: str) -> Model:
    model = await context.read(lambda c: models.find(c, context.tenant, model_id))
    if model is None:
        raise Problem("not-found", f"there is no model {model_id}")
    return model
