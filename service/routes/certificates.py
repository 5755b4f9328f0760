"""Certificates: immutable, fetched by the digest of their content, checked again on demand."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from starlette.concurrency import run_in_threadpool

from service.bodies import chunks, require_type
from service.checking import DIED, TRIES, Checker, CheckOrder
from service.context import AtPlace, Context, Reading, next_link, time_text
from service.openapi import json_body, problems
from service.problems import Problem
from service.schemas.certificates import CertificateListBody, CheckAnswerBody, CheckBody
from service.settings import Settings
from service.store import certificates
from service.store.certificates import Stored

router = APIRouter(prefix="/v1/certificates", tags=["certificates"])

CertificatePath = Annotated[str, Path(pattern=r"^sha256:[0-9a-f]{64}$")]

FOREVER = "max-age=31536000, immutable"
JSON_TYPE = "application/json"
JSON_TYPES = ("application/json", "application/*", "*/*")
SIGNED_TYPE = "application/vnd.in-toto+json"


@router.get("", response_model=CertificateListBody, responses=problems(401, 422))
async def list_certificates(
    request: Request,
    context: Reading,
    place: AtPlace,
    model: str | None = None,
    kind: str | None = None,
    scope: str | None = None,
) -> Response:
    """All certificates, newest first."""
    asked = {"model": model, "kind": kind, "scope": scope}
    filters = {name: value for name, value in asked.items() if value is not None}
    page = await context.read(lambda c: certificates.page(c, context.tenant, place, filters))
    return JSONResponse(
        {"items": [_summary_json(item) for item in page.items], "next_cursor": page.cursor},
        headers=next_link(request, page.cursor),
    )


@router.get(
    "/{certificate_id}",
    response_class=Response,
    responses={
        200: {
            "content": {name: {"schema": {"type": "object"}} for name in (JSON_TYPE, SIGNED_TYPE)}
        },
        304: {"description": "a certificate never changes"},
    }
    | problems(401, 404, 406, 422),
)
async def show(request: Request, context: Reading, certificate_id: CertificatePath) -> Response:
    """A certificate, in the canonical text whose parts its id names, or signed, in an envelope."""
    return await answer(request, context, certificate_id)


async def answer(request: Request, context: Context, certificate_id: str) -> Response:
    """The text of a certificate, to be kept for ever.

    Raises:
        Problem: not-found, not-acceptable.
    """
    accepted = request.headers.get("accept", "*/*")
    is_signed = SIGNED_TYPE in accepted
    if not is_signed and not any(name in accepted for name in JSON_TYPES):
        raise Problem("not-acceptable", f"a certificate comes as application/json or {SIGNED_TYPE}")
    stored = await context.read(lambda c: certificates.find(c, context.tenant, certificate_id))
    if stored is None:
        raise Problem("not-found", f"there is no certificate {certificate_id}")
    shelf, media_type = ("envelopes", SIGNED_TYPE) if is_signed else ("certificates", JSON_TYPE)
    path = context.blobs.place(shelf, context.tenant, stored.blob)
    if is_signed and not path.is_file():
        raise Problem(
            "not-acceptable",
            "this certificate is not signed: the service had no key when it was proved",
            fix="accept application/json, and sign it with `lipcert sign`",
        )
    etag = f'"{certificate_id}{"-signed" if is_signed else ""}"'
    # Where there are no keys, whoever may ask may also see.
    share = "public" if context.key is None else "private"
    headers = {"ETag": etag, "Cache-Control": f"{share}, {FOREVER}", "Vary": "Accept"}
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    return FileResponse(path, media_type=media_type, headers=headers)


@router.post(
    "/check",
    response_model=CheckAnswerBody,
    openapi_extra=json_body(CheckBody),
    responses=problems(400, 401, 404, 408, 413, 415, 422, 504),
)
async def check(request: Request, context: Reading) -> Response:
    """Have the independent checker check a certificate again, in a process of its own."""
    settings = context.settings
    require_type(request, ("application/json",))
    # Not parsed here: a proof can be as large as a model, and comes from anywhere.
    with context.blobs.draft() as draft:
        limit = settings.max_certificate_bytes
        async for chunk in chunks(request, limit, settings.upload_idle_s):
            draft.write(chunk)
        draft.flush()
        order = CheckOrder(
            text=draft.path,
            wrapped=True,
            trusted=settings.trusted_keys,
            models=context.blobs.folder("models", context.tenant),
            memory_bytes=settings.memory_bytes,
        )
        outcome = await run_in_threadpool(_check, order, settings)
    if outcome is None:
        raise Problem("timeout", f"the check took longer than {settings.check_s:g} s")
    if outcome["code"] in ("malformed-json", "invalid-request", "model-not-here"):
        raise Problem(outcome["code"], outcome["reason"])
    return JSONResponse(
        {
            "valid": outcome["valid"],
            "digest": outcome["id"],
            "reason": outcome["reason"],
            "code": outcome["code"],
            "signature": outcome.get("signature"),
        }
    )


def _check(order: CheckOrder, settings: Settings) -> Mapping[str, Any] | None:
    """What the checker says, None in time; asked again where its process died without a word."""
    outcome: Mapping[str, Any] | None = None
    for _ in range(TRIES):
        checker = Checker(settings.entry_points)
        try:
            checker.begin(order)
            outcome = checker.poll(settings.check_s)
        finally:
            checker.close()
        if outcome is None or outcome["code"] != DIED:
            break
    return outcome


def _summary_json(stored: Stored) -> dict[str, object]:
    return {
        "id": stored.id,
        "model": stored.model,
        "kind": stored.kind,
        "scope": stored.scope,
        "size": stored.size,
        "created": time_text(stored.created),
        **stored.summary,
    }
