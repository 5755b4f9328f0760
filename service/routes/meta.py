"""What the service says about itself: health, readiness, version, schemas, documentation."""

import pathlib
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

import verifier.certificate
from service import docs_page, openapi
from service.context import Context, Open, Reading
from service.metrics import CONTENT_TYPE
from service.openapi import problems
from service.problems import CATALOGUE, Problem
from service.schemas.certificates import PublicKeysBody
from service.schemas.meta import HealthBody, ReadinessBody, VersionBody
from service.signing_keys import read_trusted_keys
from service.store import keys, leases
from service.store.coordination import now_in
from service.store.engine import HEAD
from verifier.certificate import FORMAT
from verifier.version import VERSION

router = APIRouter(tags=["service"])

SCHEMAS = pathlib.Path(verifier.certificate.__file__).parent / "schemas"


@router.get("/healthz", response_model=HealthBody)
async def healthz() -> Response:
    """The process lives. Touches nothing."""
    return JSONResponse({"status": "ok"})


@router.get(
    "/readyz",
    response_model=ReadinessBody,
    responses={503: {"model": ReadinessBody, "description": "something is missing"}},
)
async def readyz(context: Open) -> Response:
    """Whether jobs can be taken and run."""
    report = await run_in_threadpool(_readiness, context)
    is_ready = report["status"] == "ready"
    headers = {} if is_ready else {"Retry-After": "1"}
    return JSONResponse(report, status_code=200 if is_ready else 503, headers=headers)


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
    | problems(401, 503),
)
async def metrics(request: Request, context: Reading) -> Response:
    """Counts of calls, jobs and certificates, in Prometheus' text format."""
    del context  # it is there to be let in
    text = await run_in_threadpool(request.app.state.metrics.text)
    return Response(text, media_type=CONTENT_TYPE)


@router.get("/v1/version", response_model=VersionBody)
async def version() -> Response:
    """What answers, and the certificate formats that it knows."""
    return JSONResponse({"version": VERSION, "formats": [FORMAT]})


@router.get("/v1/public-keys", response_model=PublicKeysBody)
async def public_keys(context: Open) -> Response:
    """The keys that verify what this service signed, the retired ones too."""
    path = context.settings.trusted_keys
    trusted = () if path is None else await run_in_threadpool(read_trusted_keys, path)
    return JSONResponse({"keys": [key.to_json() for key in trusted]})


@router.get(
    "/v1/schemas/{name}",
    response_class=Response,
    responses={200: {"content": {"application/schema+json": {"schema": {"type": "object"}}}}}
    | problems(404, 422),
)
async def schema(name: Annotated[str, Path(pattern=r"^[a-z]{1,40}$")]) -> Response:
    """The JSON Schema of `request`, `certificate` or `policy`."""
    file = SCHEMAS / f"{name}.json"
    if not file.is_file():
        raise Problem("not-found", f"there is no schema {name!r}")
    return Response(file.read_bytes(), media_type="application/schema+json")


@router.get("/openapi.json", include_in_schema=False)
async def openapi_json(request: Request, context: Open) -> Response:
    """The contract."""
    return JSONResponse(await _document(request, context))


@router.get("/docs", include_in_schema=False)
async def docs(request: Request, context: Open) -> Response:
    """The contract as a page. Nothing on it comes from elsewhere, and it runs no script."""
    page = docs_page.render(await _document(request, context))
    return HTMLResponse(page, headers={"Content-Security-Policy": docs_page.POLICY})


@router.get("/problems/{code}", include_in_schema=False)
async def problem(code: str) -> Response:
    """Where a problem's `type` leads: to what the page of the contract says of it."""
    if code not in CATALOGUE:
        raise Problem("not-found", f"there is no problem {code[:100]!r}")
    return RedirectResponse(f"/docs#problem-{code}", status_code=303)


async def _document(request: Request, context: Context) -> dict[str, Any]:
    """The contract, as it is with keys or without."""
    document = request.app.openapi()
    return document if await context.read(keys.exist) else openapi.without_keys(document)


def _readiness(context: Context) -> dict[str, Any]:
    executor = None
    try:
        revision = context.database.revision()
        has_database = True
        with context.database.read() as connection:
            executor = leases.alive(connection, now_in(connection))
    except SQLAlchemyError:
        revision, has_database = None, False
    has_blobs = context.blobs.probe()
    is_ready = has_database and has_blobs and revision == HEAD and executor is not None
    return {
        "status": "ready" if is_ready else "not-ready",
        "database": has_database,
        "backend": context.database.name,
        "migration": revision,
        "blobs": has_blobs,
        "dispatcher": executor is not None,
        "executor": executor,
        "telemetry": "off",
        "sandbox": "none" if executor is None else executor["sandbox"],
    }
