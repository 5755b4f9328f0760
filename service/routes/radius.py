"""Radii: the largest balls around points on which their label is proved, as a job."""

from fastapi import APIRouter, Request, Response

from service.context import Submitting
from service.openapi import json_body, problems
from service.routes.submitting import (
    IdempotencyHeader,
    PreferHeader,
    multipart,
    queued,
    received,
)
from service.schemas.jobs import JobBody
from service.schemas.submissions import RadiusBody
from verifier.radius_json import parse_question

router = APIRouter(prefix="/v1/radius", tags=["jobs"])


@router.post(
    "",
    status_code=202,
    response_model=JobBody,
    openapi_extra=json_body(RadiusBody, multipart("RadiusPartBody")),
    responses={200: {"model": JobBody, "description": "ended already"}}
    | problems(400, 401, 403, 404, 408, 409, 413, 415, 422, 503),
)
async def submit(
    request: Request,
    context: Submitting,
    prefer: PreferHeader = None,
    idempotency_key: IdempotencyHeader = None,
) -> Response:
    """Ask for radii. The answer is a job: its radii are at `/v1/jobs/{id}/radii`."""
    submission = await received(request, context, parse_question)
    return await queued(context, submission, idempotency_key, prefer)
