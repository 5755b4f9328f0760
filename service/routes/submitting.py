"""What the routes that make jobs, and those that show them, have in common."""

import re
import time
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Header, Request, Response
from fastapi.responses import JSONResponse

from service.acceptance import accept
from service.bodies import as_object, media_type, parse_json, read_json, receive_parts
from service.context import Context
from service.job_view import job_json
from service.problems import Problem
from service.routes.models import keep, most_model_bytes
from service.store import jobs
from service.store.coordination import now_in
from service.store.jobs import Job
from service.submission import Read, Submission, read_submission

MAX_WAIT_S = 60


def multipart(body: str) -> dict[str, Any]:
    """The schema of a body in two parts; `body`: the name of the schema of the part `request`."""
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["model"],
        "properties": {
            "model": {
                "type": "string",
                "format": "binary",
                "minLength": 1,
                "description": "the ONNX file",
            },
            "request": {"$ref": f"#/components/schemas/{body}"},
        },
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


async def received(request: Request, context: Context, read: Read) -> Submission:
    """The submission that a body is; in multipart the model comes along, and is stored.

    Raises:
        Problem: the body, or what it asks, is refused.
    """
    if media_type(request) == "multipart/form-data":
        return await _parts(request, context, read)
    settings = context.settings
    body = await read_json(request, settings.max_json_bytes, settings.upload_idle_s)
    return read_submission(as_object(body), None, read)


async def queued(
    context: Context, submission: Submission, idempotency_key: str | None, prefer: str | None
) -> Response:
    """The job of a submission, as it is after the wait that is preferred."""
    job = await context.write(
        lambda c: accept(
            c, context.settings, context.tenant, submission, idempotency_key, now_in(c)
        )
    )
    preference = preference_of(prefer)
    if preference.wait_s and not await context.may_wait():
        preference = Preference(None)  # the job is there: whoever may not wait hears so at once
    if preference.wait_s is not None and not job.has_ended:
        job = await job_after(context, job.id, preference.wait_s, None)
    headers = {"Location": f"/v1/jobs/{job.id}", **preference.applied}
    return answer(job, 200 if job.has_ended else 202, headers)


async def find(context: Context, job_id: str) -> Job:
    """The job of this tenant.

    Raises:
        Problem: not-found.
    """
    job = await context.read(lambda c: jobs.find(c, context.tenant, job_id))
    if job is None:
        raise Problem("not-found", f"there is no job {job_id}")
    return job


async def job_after(context: Context, job_id: str, wait_s: float, known: str | None) -> Job:
    """The job: at once, or when it has another version than `known`, or has ended, or in time."""

    def is_news(job: Job) -> bool:
        return job.has_ended if known is None else str(job.version) != known

    job = await find(context, job_id)
    if wait_s <= 0 or job.has_ended or is_news(job):
        return job
    end = time.monotonic() + wait_s
    async with context.changes.of(job_id) as bell:
        with context.waiters.waiting(context.holder):
            job = await find(context, job_id)
            while not is_news(job) and not job.has_ended:
                left = end - time.monotonic()
                if left <= 0 or not await bell.wait(left):
                    break
                job = await find(context, job_id)
    return job


def etag(job: Job) -> str:
    """The job's version, as a strong validator."""
    return f'"{job.version}"'


def answer(job: Job, status: int, headers: dict[str, str]) -> Response:
    """A job as a response."""
    more: dict[str, Any] = {"ETag": etag(job), "Cache-Control": "no-cache", **headers}
    if not job.has_ended:
        more["Retry-After"] = "1"
    return JSONResponse(job_json(job), status_code=status, headers=more)


async def _parts(request: Request, context: Context, read: Read) -> Submission:
    """The submission of a multipart body, its model stored."""
    settings = context.settings
    with context.blobs.draft() as draft:
        text = await receive_parts(
            request,
            draft,
            await most_model_bytes(context),
            settings.max_json_bytes,
            settings.upload_idle_s,
        )
        members = as_object(parse_json(text)) if text.strip() else {}
        # Refuse what can be refused before the model is stored.
        submission = read_submission(members, f"sha256:{draft.digest}", read)
        await keep(context, draft, None)
    return submission
