"""Jobs: submitted, watched, canceled; their certificate when they have ended."""

import re
from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from sqlalchemy import Connection

from service.acceptance import require_usable
from service.bodies import as_object, media_type, read_json
from service.context import AtPlace, Context, Labels, Reading, Submitting, next_link, time_text
from service.fit import sizes
from service.job_view import job_json, radii_text
from service.openapi import json_body, problems
from service.problems import Problem, problem_of_stored
from service.quotas import effective_limits
from service.routes import certificates as certificate_routes
from service.routes.submitting import (
    IdempotencyHeader,
    PreferHeader,
    answer,
    etag,
    find,
    job_after,
    multipart,
    preference_of,
    queued,
    received,
)
from service.schemas.jobs import EstimateBody, EventListBody, JobBody, JobListBody, RadiiBody
from service.schemas.submissions import ResumeBody, SubmissionBody
from service.store import events, jobs, leases
from service.store.coordination import now_in
from service.store.database import UNAVAILABLE
from service.store.events import StoredEvent
from service.store.jobs import Job
from service.store.models import Model
from service.submission import Submission, read_request, read_resumption
from service.webhook_rules import require_ready
from verifier.estimate import estimate
from verifier.property import Request as VerifyRequest

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

JobPath = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]

KEEPALIVE_S = 15.0
EVENT_PAGE = 500
LAST_SEQ = 2**31 - 1  #: no event has a larger number


@router.post(
    "",
    status_code=202,
    response_model=JobBody,
    openapi_extra=json_body(SubmissionBody, multipart("SubmissionPartBody")),
    responses={
        200: {"model": JobBody | EstimateBody, "description": "ended already, or validate_only"},
    }
    | problems(400, 401, 403, 404, 408, 409, 413, 415, 422, 503),
)
async def submit(
    request: Request,
    context: Submitting,
    validate_only: bool = False,
    prefer: PreferHeader = None,
    idempotency_key: IdempotencyHeader = None,
) -> Response:
    """Ask for a bound. In multipart the model comes along in one call."""
    if validate_only and media_type(request) == "multipart/form-data":
        raise Problem(
            "model-not-ready",
            "validate_only stores nothing, so the model cannot come along to be read",
            fix="upload the model first, then validate with JSON",
        )
    submission = await received(request, context, read_request)
    if validate_only:
        return await _estimate(context, submission)
    return await queued(context, submission, idempotency_key, prefer)


@router.get("", response_model=JobListBody, responses=problems(401, 422))
async def list_jobs(
    request: Request,
    context: Reading,
    place: AtPlace,
    labels: Labels,
    state: Literal["queued", "running", "succeeded", "failed", "canceled", "expired"] | None = None,
    verdict: Literal["certified", "violated", "undecided"] | None = None,
    model: str | None = None,
) -> Response:
    """All jobs, newest first; with several labels those that have them all."""
    asked = {"state": state, "verdict": verdict, "model": model}
    filters = {name: value for name, value in asked.items() if value is not None}
    page = await context.read(lambda c: jobs.page(c, context.tenant, place, filters, labels))
    return JSONResponse(
        {"items": [job_json(job) for job in page.items], "next_cursor": page.cursor},
        headers=next_link(request, page.cursor),
    )


@router.get(
    "/{job_id}",
    response_model=JobBody,
    responses={304: {"description": "unchanged"}} | problems(401, 404, 422),
)
async def show(
    context: Reading,
    job_id: JobPath,
    if_none_match: Annotated[str | None, Header()] = None,
    prefer: PreferHeader = None,
) -> Response:
    """A job. With `If-None-Match` and `Prefer: wait=N` a long poll for the next change."""
    preference = preference_of(prefer)
    if preference.wait_s:
        await context.require_waiter()
    known = None if if_none_match is None else if_none_match.strip('W/"')
    job = await job_after(context, job_id, preference.wait_s or 0, known)
    if known == str(job.version):
        return Response(status_code=304, headers={"ETag": etag(job), **preference.applied})
    return answer(job, 200, preference.applied)


@router.post(
    "/{job_id}/cancel",
    status_code=202,
    response_model=JobBody,
    responses={200: {"model": JobBody, "description": "ended already"}}
    | problems(401, 403, 404, 422),
)
async def cancel(context: Submitting, job_id: JobPath) -> Response:
    """Stop a job within a second. The best bound that was checked is kept."""
    before = await find(context, job_id)
    if before.has_ended:
        return answer(before, 200, {})
    job = await context.write(lambda c: leases.cancel(c, context.tenant, job_id, now_in(c)))
    assert job is not None, "no job is ever deleted"  # noqa: S101
    return answer(job, 202, {})


@router.post(
    "/{job_id}/resume",
    status_code=202,
    response_model=JobBody,
    openapi_extra=json_body(ResumeBody),
    responses={200: {"model": JobBody, "description": "ended already"}}
    | problems(400, 401, 403, 404, 408, 409, 413, 415, 422, 503),
)
async def resume(
    request: Request,
    context: Submitting,
    job_id: JobPath,
    prefer: PreferHeader = None,
    idempotency_key: IdempotencyHeader = None,
) -> Response:
    """A new job that goes on where branch and bound of an ended one stopped."""
    settings = context.settings
    body = await read_json(request, settings.max_json_bytes, settings.upload_idle_s)
    submission = read_resumption(await find(context, job_id), as_object(body))
    return await queued(context, submission, idempotency_key, prefer)


@router.get(
    "/{job_id}/certificate",
    response_class=Response,
    responses=certificate_routes.REPRESENTATIONS | problems(401, 404, 406, 409, 416, 422),
)
async def certificate(request: Request, context: Reading, job_id: JobPath) -> Response:
    """The certificate of a job that has ended; of a canceled one the best that was checked."""
    job = await find(context, job_id)
    if job.certificate is not None:
        return await certificate_routes.answer(request, context, job.certificate)
    _require_ended(job)
    if job.kind == "radius":
        raise Problem(
            "not-found",
            "every radius has a certificate of its own",
            fix=f"GET /v1/jobs/{job_id}/radii",
        )
    raise Problem("not-found", f"the job was {job.state} before any bound was proved")


@router.get(
    "/{job_id}/radii",
    response_model=RadiiBody,
    responses=problems(401, 404, 409, 422),
)
async def show_radii(context: Reading, job_id: JobPath) -> Response:
    """The radii of a job that has ended, each with its certificate; of a canceled one the best."""
    job = await find(context, job_id)
    if job.kind != "radius":
        raise Problem("not-found", "the job is about a bound", fix="see its certificate")
    if job.incumbent is None or not job.has_ended:
        _require_ended(job)
    return StreamingResponse(radii_text(job, context.blobs), media_type="application/json")


@router.get(
    "/{job_id}/events",
    response_model=EventListBody,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}
    | problems(401, 404, 406, 422),
)
async def stream(
    request: Request,
    context: Reading,
    job_id: JobPath,
    after: Annotated[int, Query(ge=0, le=LAST_SEQ)] = 0,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """What happened to a job: server-sent events, or a JSON page after `after`."""
    await find(context, job_id)
    accept_header = request.headers.get("accept", "*/*")
    if "text/event-stream" in accept_header:
        await context.require_waiter()
        start = after if last_event_id is None else _seq(last_event_id, after)
        return StreamingResponse(
            _events(context, job_id, start),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )
    if not any(name in accept_header for name in ("application/json", "application/*", "*/*")):
        raise Problem("not-acceptable", "events come as text/event-stream or application/json")
    found = await context.read(lambda c: events.after(c, context.tenant, job_id, after, EVENT_PAGE))
    return JSONResponse(
        {
            "items": [_event_json(event) for event in found],
            "next_seq": found[-1].seq if found else after,
        }
    )


# --- parts ---------------------------------------------------------------------------------------


def _require_ended(job: Job) -> None:
    """Refuse to show what there is not yet, or never will be.

    Raises:
        Problem: not-finished; the job's own error, where it failed.
    """
    if not job.has_ended:
        raise Problem("not-finished", f"the job is {job.state}")
    if job.error is not None:
        told = problem_of_stored(job.error)
        # Nothing to show: 404 whatever the reason, which the code and the detail tell.
        told.status = 404
        raise told


async def _estimate(context: Context, submission: Submission) -> Response:
    def read(connection: Connection) -> Model:
        limits = effective_limits(connection, context.settings, context.tenant)
        model = require_usable(connection, context.tenant, submission, limits)
        require_ready(connection, context.settings, context.tenant, submission.webhook)
        return model

    model = await context.read(read)
    if model.state == "received" or model.summary is None:
        raise Problem("model-not-ready", f"model {model.id} is {model.state}")
    inputs, outputs = sizes(model.summary)
    request, expected = submission.request, None
    if isinstance(request, VerifyRequest):
        expected = estimate(request, model.summary)
    return JSONResponse(
        {
            "valid": True,
            "model": model.id,
            "request": submission.members,
            "inputs": inputs,
            "outputs": outputs,
            "estimate": None if expected is None else expected.to_json(),
        }
    )


async def _events(context: Context, job_id: str, last: int) -> AsyncIterator[str]:
    """Server-sent events after number `last`, until the job's end."""

    def read(connection: Connection) -> tuple[bool, list[StoredEvent]]:
        job = jobs.find(connection, context.tenant, job_id)
        found = events.after(connection, context.tenant, job_id, last, EVENT_PAGE)
        return job is None or job.has_ended, found

    yield ": lipcert\n\n"
    async with context.changes.of(job_id) as bell:
        with context.waiters.waiting(context.holder):
            while True:
                try:
                    has_ended, found = await context.read(read)
                except UNAVAILABLE:
                    return  # without an `end`: the client asks again, from the last that it saw
                for event in found:
                    last = event.seq
                    yield _event_text(event)
                if has_ended and len(found) < EVENT_PAGE:
                    return
                if not found and not await bell.wait(KEEPALIVE_S):
                    yield ": still here\n\n"


def _seq(last_event_id: str, otherwise: int) -> int:
    """The number of the last event that a client has seen."""
    is_number = re.fullmatch(r"[0-9]{1,20}", last_event_id) is not None
    return min(int(last_event_id), LAST_SEQ) if is_number else otherwise


def _event_json(event: StoredEvent) -> dict[str, object]:
    return {**event.to_json(), "at": time_text(event.at)}


def _event_text(event: StoredEvent) -> str:
    data = JSONResponse(_event_json(event)).body
    return f"id: {event.seq}\nevent: {event.type}\ndata: {bytes(data).decode()}\n\n"
