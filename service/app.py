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
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from service import openapi
from service.blobs import Blobs
from service.changes import Changes
from service.context import Context
from service.edge import Edge
from service.metrics import Metrics
from service.problems import MEDIA_TYPE, Problem
from service.routes import certificates, jobs, keys, meta, models, radius
from service.schemas.certificates import CheckBody
from service.schemas.jobs import EstimateBody
from service.schemas.problems import ProblemBody
from service.schemas.submissions import RadiusBody, ResumeBody, SubmissionBody
from service.settings import Settings
from service.storage_faults import problem_of_fault
from service.store.engine import open_database
from verifier.version import VERSION

#: What routes read and answer by themselves, so that only this names it.
BODIES = (ProblemBody, SubmissionBody, RadiusBody, ResumeBody, CheckBody, EstimateBody)

log = logging.getLogger("lipcert.api")


def create_app(settings: Settings) -> Edge:
    """The app over a data directory whose database is at the newest schema."""
    app = describe_app()
    database = open_database(settings.database)
    changes = Changes(database)
    app.state.context = Context(settings, database, Blobs(settings.data), changes)
    app.state.metrics = metrics = Metrics(database)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        yield
        changes.close()
        database.close()

    app.router.lifespan_context = lifespan
    # Around the whole app, not one of its middlewares: a defect's answer passes here as well.
    return Edge(app, settings, metrics)


def describe_app() -> FastAPI:
    """The routes and their contract, without anything behind them."""
    app = FastAPI(
        title="lipcert",
        version=VERSION,
        description="Proved Lipschitz bounds for ONNX networks, as certificates.",
        docs_url=None,  # FastAPI's page loads its script from elsewhere
        redoc_url=None,
        openapi_url=None,
    )
    for routes in (models, jobs, radius, certificates, keys, meta):
        app.include_router(routes.router, responses=openapi.problems(503, 507))
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(OSError, _on_fault)
    app.add_exception_handler(SQLAlchemyError, _on_fault)
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
    first = error.errors()[0]
    pointer = "".join(f"/{part}" for part in first["loc"])
    problem = Problem("invalid-request", f"{pointer}: {first['msg']}", pointer=pointer)
    return _respond(request, problem)


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    """What Starlette answers by itself: no such path, no such method, no such range."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it
    code = _OF_STATUS.get(error.status_code, "internal-error")
    problem = Problem(
        code, f"{request.method} {request.url.path[:200]}: {error.detail}", headers=error.headers
    )
    return _respond(request, problem)


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
    HTTPStatus.METHOD_NOT_ALLOWED: "method-not-allowed",
    HTTPStatus.BAD_REQUEST: "malformed-multipart",
}
