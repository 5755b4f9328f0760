"""The API process: the composition root, and the one place where errors become responses.

Imports no torch, onnx, onnxruntime or solver, directly or through others: it starts in a second,
and no model can kill it.
"""

import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from opentelemetry.trace import TracerProvider
from sqlalchemy.exc import DataError, SQLAlchemyError
from starlette.exceptions import HTTPException

from service import openapi, telemetry
from service.blobs import Blobs
from service.changes import Changes, Decisions
from service.context import Context
from service.edge import Edge
from service.metrics import Metrics
from service.problems import MEDIA_TYPE, Problem
from service.rates import Throttle
from service.routes import (
    audit,
    certificates,
    gates,
    jobs,
    keys,
    meta,
    models,
    policies,
    radius,
    usage,
    webhooks,
)
from service.schemas.certificates import CertificateBody, CheckBody, EnvelopeOfCertificateBody
from service.schemas.gates import GateSubmissionBody
from service.schemas.jobs import EstimateBody
from service.schemas.keys import NewKeyBody
from service.schemas.policies import PolicyDocumentBody
from service.schemas.problems import ProblemBody
from service.schemas.submissions import (
    RadiusBody,
    RadiusPartBody,
    ResumeBody,
    SubmissionBody,
    SubmissionPartBody,
)
from service.schemas.webhooks import NewWebhookBody, WebhookChangeBody, WebhookMessageBody
from service.settings import Settings
from service.storage_faults import problem_of_fault
from service.store.engine import open_database
from verifier.version import VERSION

#: What routes read and answer by themselves, so that only this names it.
BODIES = (
    ProblemBody,
    SubmissionBody,
    SubmissionPartBody,
    RadiusBody,
    RadiusPartBody,
    ResumeBody,
    CheckBody,
    CertificateBody,
    EnvelopeOfCertificateBody,
    EstimateBody,
    NewKeyBody,
    NewWebhookBody,
    WebhookChangeBody,
    WebhookMessageBody,
    PolicyDocumentBody,
    GateSubmissionBody,
)

#: What works with the database, and can find it away.
GUARDED = (models, jobs, radius, certificates, policies, gates, webhooks, keys, audit, usage)
ROUTES = (*GUARDED, meta)

log = logging.getLogger("lipcert.api")


def create_app(settings: Settings) -> Edge:
    """The app over a data directory whose database is at the newest schema."""
    provider = telemetry.provider_of(settings.telemetry)
    app = describe_app(provider)
    if settings.public_url is not None:
        app.servers = [{"url": settings.public_url}]
    database = open_database(settings.database)
    changes, decisions = Changes(database), Decisions(database)
    throttle = Throttle(settings.rates)
    app.state.context = Context(
        settings, database, Blobs(settings.data), changes, decisions, throttle
    )
    app.state.metrics = metrics = Metrics(database)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        yield
        telemetry.shut_down(provider)
        await changes.close()
        await decisions.close()
        database.close()

    app.router.lifespan_context = lifespan
    # Around the whole app, not one of its middlewares: a defect's answer passes here as well.
    return Edge(app, settings, metrics)


def describe_app(provider: TracerProvider | None = None) -> FastAPI:
    """The routes and their contract, without anything behind them; requests traced, where asked."""
    app = FastAPI(
        title="lipcert",
        version=VERSION,
        description="Proved Lipschitz bounds for ONNX networks, as certificates.",
        docs_url=None,  # FastAPI's page loads its script from elsewhere
        redoc_url=None,
        openapi_url=None,
        telemetry={
            "tracer_provider": provider,
            "tracing": provider is not None,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
        },
    )
    for routes in GUARDED:
        app.include_router(routes.router, responses=openapi.problems(503, 507))
    app.include_router(meta.router)
    app.state.methods = _methods_by_path()
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(OSError, _on_fault)
    app.add_exception_handler(SQLAlchemyError, _on_fault)
    app.add_exception_handler(DataError, _on_unstorable)
    app.add_exception_handler(Exception, _on_defect)
    openapi.install(app, BODIES)
    return app


def _respond(request: Request, problem: Problem) -> JSONResponse:
    request_id = getattr(request.state, "request_id", "")
    return JSONResponse(
        problem.to_json(request_id),
        status_code=problem.status,
        media_type=MEDIA_TYPE,
        headers=problem.headers,
    )


async def _on_problem(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Problem)  # noqa: S101 - registered for it
    return _respond(request, error)


async def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    """A path, query or header that FastAPI refuses: the same object as every other refusal."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it
    if request.method not in _methods(request):
        # A path that is written out, read as one with an id in it: /v1/certificates/check.
        return _respond(request, _no_such_method(request))
    first = error.errors()[0]
    pointer = "".join(f"/{part}" for part in first["loc"])
    problem = Problem("invalid-request", f"{pointer}: {first['msg']}", pointer=pointer)
    return _respond(request, problem)


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    """What Starlette answers by itself: no such path, no such method."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return _respond(request, _no_such_method(request))
    code = _OF_STATUS.get(error.status_code, "internal-error")
    told = f"{request.method} {request.url.path[:200]}: {error.detail}"
    return _respond(request, Problem(code, told, headers=error.headers))


def _no_such_method(request: Request) -> Problem:
    known = _methods(request)
    return Problem(
        "method-not-allowed",
        f"{request.url.path[:200]} has {', '.join(known)}, not {request.method[:20]}",
        headers={"Allow": ", ".join(known)},
    )


def _methods(request: Request) -> list[str]:
    """The methods that a path has; Starlette names those of the first route that fits alone."""
    known = request.app.state.methods
    path = request.url.path
    template = path if path in known else getattr(request.scope.get("route"), "path", "")
    return known.get(template, [])


def _methods_by_path() -> dict[str, list[str]]:
    """Of every path, as routes write it."""
    found: dict[str, set[str]] = {}
    for routes in ROUTES:
        for route in routes.router.routes:
            if isinstance(route, APIRoute):
                found.setdefault(route.path, set()).update(route.methods or ())
    return {path: sorted(methods) for path, methods in found.items()}


async def _on_unstorable(request: Request, error: Exception) -> JSONResponse:
    """A value that no row can have, as text with a NUL: PostgreSQL refuses even to look for it."""
    assert isinstance(error, DataError)  # noqa: S101 - registered for it
    return _respond(request, Problem("invalid-request", "a value cannot be stored or looked for"))


async def _on_fault(request: Request, error: Exception) -> JSONResponse:
    """What the machine refuses is no defect: the client may ask again."""
    problem = problem_of_fault(error)
    if problem is None:
        return await _on_defect(request, error)
    request_id = getattr(request.state, "request_id", "")
    log.error("%s", problem.entry.code, exc_info=error, extra={"with": {"request_id": request_id}})
    return _respond(request, problem)


async def _on_defect(request: Request, error: Exception) -> JSONResponse:
    request_id = getattr(request.state, "request_id", "")
    log.error("a defect", exc_info=error, extra={"with": {"request_id": request_id}})
    return _respond(request, Problem("internal-error", type(error).__name__))


_OF_STATUS: Mapping[int, str] = {
    HTTPStatus.NOT_FOUND: "not-found",
    HTTPStatus.BAD_REQUEST: "malformed-multipart",
}
