"""Jobs: submitted, watched, canceled; their certificate when they have ended."""

import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from sqlalchemy import Connection

from service.bodies import as_object, media_type, parse_json, read_json, receive_parts
from service.context import AtPlace, Context, Reading, Submitting, next_link, time_text
from service.openapi import json_body, problems
from service.problems import Problem, problem_of_stored
from service.routes import certificates as certificate_routes
from service.routes.models import keep
from service.schemas import EstimateBody, EventListBody, JobBody, JobListBody, SubmissionBody
from service.store import events, jobs
from service.store.engine import now_ms
from service.store.events import StoredEvent
from service.store.jobs import Job
from service.submission import Submission, accept, read_submission, require_usable, sizes
from verifier.request_json import request_json

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

JobPath = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]

MAX_WAIT_S = 60
KEEPALIVE_S = 15.0
EVENT_PAGE = 500
MULTIPART = {
    "type": "object",
    "required": ["model"],
    "properties": {
        "model": {"type": "string", "format": "binary", "description": "the ONNX file"},
        "request": {"$ref": "#/components/schemas/SubmissionBody"},
    },
}


def job_json(job: Job) -> dict[str, object]:
    """A job on the wire."""
    request = job.request
    return {
        "id": job.id,
        "state": job.state,
        "verdict": job.verdict,
        "model": job.model,
        "property": request["property"],
        "method": request["method"],
        "options": request["options"],
        "budget": request["budget"],
        "target": request["target"],
        "labels": job.labels,
        "priority": job.priority,
        "progress": job.progress,
        "attempt": job.attempt,
        "created": time_text(job.created),
        "started": time_text(job.started),
        "ended": time_text(job.ended),
        "deadline": time_text(job.deadline),
        "error": job.error,
        "certificate": job.certificate,
        "cached": job.cached,
        "resumed_from": None,
        "version": job.version,
    }


@dataclass(frozen=True, slots=True)
class Preference:
    """What the `Prefer` header (RFC 7240) asks: how long to wait."""

    wait_s: int | None

    @property
    def applied(self) -> dict[str, str]:
        """The header that says so."""
        return {} if self.wait_s is None else {"Preference-Applied": f"wait={self.wait_s}"}


def preference_of(prefer: str | None) -> Preference:
    """The wait that a `Prefer` header asks for; other preferences are ignored, as the RFC says."""
    found = re.search(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})", prefer or "")
    return Preference(None if found is None else min(MAX_WAIT_S, int(found[1])))


PreferHeader = Annotated[str | None, Header(description="wait=N: seconds to wait, at most 60")]
IdempotencyHeader = Annotated[
    str | None,
    Header(max_length=200, description="the same key and body: the same job, for 24 hours"),
]


@router.post(
    "",
    status_code=202,
    response_model=JobBody,
    openapi_extra=json_body(SubmissionBody, MULTIPART),
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
    if media_type(request) == "multipart/form-data":
        if validate_only:
            raise Problem(
                "unsupported-media-type",
                "validate_only stores nothing, so the model cannot come along",
                fix="upload the model first, then validate with JSON",
            )
        submission = await _received(request, context)
    else:
        settings = context.settings
        body = await read_json(request, settings.max_json_bytes, settings.upload_idle_s)
        submission = read_submission(as_object(body), None)
    if validate_only:
        return await _estimate(context, submission)
    job = await context.write(
        lambda c: accept(c, context.settings, context.tenant, submission, idempotency_key, now_ms())
    )
    preference = preference_of(prefer)
    if preference.wait_s is not None and not job.has_ended:
        job = await _wait(context, job.id, preference.wait_s, None)
    headers = {"Location": f"/v1/jobs/{job.id}", **preference.applied}
    return _answer(job, 200 if job.has_ended else 202, headers)


@router.get("", response_model=JobListBody, responses=problems(401, 422))
async def list_jobs(
    request: Request,
    context: Reading,
    place: AtPlace,
    state: Literal["queued", "running", "succeeded", "failed", "canceled", "expired"] | None = None,
    verdict: Literal["certified", "violated", "undecided"] | None = None,
    model: str | None = None,
) -> Response:
    """All jobs, newest first."""
    asked = {"state": state, "verdict": verdict, "model": model}
    filters = {name: value for name, value in asked.items() if value is not None}
    page = await context.read(lambda c: jobs.page(c, context.tenant, place, filters))
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
    known = None if if_none_match is None else if_none_match.strip('W/"')
    job = await _wait(context, job_id, preference.wait_s or 0, known)
    if known == str(job.version):
        return Response(status_code=304, headers={"ETag": _etag(job), **preference.applied})
    return _answer(job, 200, preference.applied)


@router.post(
    "/{job_id}/cancel",
    status_code=202,
    response_model=JobBody,
    responses={200: {"model": JobBody, "description": "ended already"}}
    | problems(401, 403, 404, 422),
)
async def cancel(context: Submitting, job_id: JobPath) -> Response:
    """Stop a job within a second. The best bound that was checked is kept."""
    before = await _find(context, job_id)
    if before.has_ended:
        return _answer(before, 200, {})
    job = await context.write(lambda c: jobs.cancel(c, context.tenant, job_id, now_ms()))
    assert job is not None, "no job is ever deleted"  # noqa: S101
    return _answer(job, 202, {})


@router.get(
    "/{job_id}/certificate",
    response_class=Response,
    responses={200: {"content": {"application/json": {"schema": {"type": "object"}}}}}
    | problems(401, 404, 409, 422),
)
async def certificate(request: Request, context: Reading, job_id: JobPath) -> Response:
    """The certificate of a job that has ended; of a canceled one the best that was checked."""
    job = await _find(context, job_id)
    if job.certificate is not None:
        return await certificate_routes.answer(request, context, job.certificate)
    if not job.has_ended:
        raise Problem("not-finished", f"the job is {job.state}")
    if job.error is not None:
        told = problem_of_stored(job.error)
        # No certificate: 404 whatever the reason, which the code and the detail tell.
        told.status = 404
        raise told
    raise Problem("not-found", f"the job was {job.state} before any bound was proved")


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
    after: Annotated[int, Query(ge=0)] = 0,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """What happened to a job: server-sent events, or a JSON page after `after`."""
    await _find(context, job_id)
    accept_header = request.headers.get("accept", "*/*")
    if "text/event-stream" in accept_header:
        start = int(last_event_id) if last_event_id and last_event_id.isdigit() else after
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


async def _received(request: Request, context: Context) -> Submission:
    """The submission of a multipart body, its model stored."""
    settings = context.settings
    with context.blobs.draft() as draft:
        text = await receive_parts(
            request,
            draft,
            settings.max_model_bytes,
            settings.max_json_bytes,
            settings.upload_idle_s,
        )
        members = as_object(parse_json(text)) if text.strip() else {}
        # Refuse what can be refused before the model is stored.
        submission = read_submission(members, f"sha256:{draft.digest}")
        await keep(context, draft, None)
    return submission


async def _estimate(context: Context, submission: Submission) -> Response:
    model = await context.read(lambda c: require_usable(c, context.tenant, submission))
    if model.state == "received" or model.summary is None:
        raise Problem("model-not-ready", f"model {model.id} is {model.state}")
    inputs, outputs = sizes(model.summary)
    return JSONResponse(
        {
            "valid": True,
            "model": model.id,
            "request": request_json(submission.request),
            "inputs": inputs,
            "outputs": outputs,
        }
    )


async def _find(context: Context, job_id: str) -> Job:
    job = await context.read(lambda c: jobs.find(c, context.tenant, job_id))
    if job is None:
        raise Problem("not-found", f"there is no job {job_id}")
    return job


async def _wait(context: Context, job_id: str, wait_s: float, known: str | None) -> Job:
    """The job: at once, or when it has another version than `known`, or has ended, or in time."""

    def is_news(job: Job) -> bool:
        return job.has_ended if known is None else str(job.version) != known

    job = await _find(context, job_id)
    if wait_s <= 0 or job.has_ended or is_news(job):
        return job
    end = time.monotonic() + wait_s
    async with context.changes.of(job_id) as bell:
        job = await _find(context, job_id)
        while not is_news(job) and not job.has_ended:
            left = end - time.monotonic()
            if left <= 0 or not await bell.wait(left):
                break
            job = await _find(context, job_id)
    return job


async def _events(context: Context, job_id: str, last: int) -> AsyncIterator[str]:
    """Server-sent events after number `last`, until the job's end."""

    def read(connection: Connection) -> tuple[bool, list[StoredEvent]]:
        job = jobs.find(connection, context.tenant, job_id)
        found = events.after(connection, context.tenant, job_id, last, EVENT_PAGE)
        return job is None or job.has_ended, found

    yield ": lipcert\n\n"
    async with context.changes.of(job_id) as bell:
        while True:
            has_ended, found = await context.read(read)
            for event in found:
                last = event.seq
                yield _event_text(event)
            if has_ended and len(found) < EVENT_PAGE:
                return
            if not found and not await bell.wait(KEEPALIVE_S):
                yield ": still here\n\n"


def _event_json(event: StoredEvent) -> dict[str, object]:
    return {**event.to_json(), "at": time_text(event.at)}


def _event_text(event: StoredEvent) -> str:
    data = JSONResponse(_event_json(event)).body
    return f"id: {event.seq}\nevent: {event.type}\ndata: {bytes(data).decode()}\n\n"


def _etag(job: Job) -> str:
    return f'"{job.version}"'


def _answer(job: Job, status: int, headers: dict[str, str]) -> Response:
    more: dict[str, Any] = {"ETag": _etag(job), "Cache-Control": "no-cache", **headers}
    if not job.has_ended:
        more["Retry-After"] = "1"
    return JSONResponse(job_json(job), status_code=status, headers=more)
