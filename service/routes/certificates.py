"""Certificates: immutable, fetched by the digest of their content, checked again on demand."""

import pathlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.concurrency import run_in_threadpool

from service.bodies import chunks, require_type
from service.certificate_facts import facts_of
from service.certificate_page import POLICY, page_of
from service.certificate_report import junit_of, sarif_of
from service.checking import DIED, TRIES, Checker, CheckOrder
from service.context import AtPlace, Context, Reading, next_link, time_text
from service.negotiation import preferred
from service.openapi import Responses, json_body, problems
from service.problems import Problem
from service.ranges import file_answer
from service.schemas.certificates import CertificateListBody, CheckAnswerBody, CheckBody
from service.settings import Settings
from service.store import certificates
from service.store.certificates import Stored
from verifier.version import VERSION

router = APIRouter(prefix="/v1/certificates", tags=["certificates"])

CertificatePath = Annotated[str, Path(pattern=r"^sha256:[0-9a-f]{64}$")]
FOREVER = "max-age=31536000, immutable"
A_DAY = "max-age=86400"  #: what is written here may be written better by the next version
JSON_TYPE = "application/json"
SIGNED_TYPE = "application/vnd.in-toto+json"
SARIF_TYPE = "application/sarif+json"
JUNIT_TYPE = "application/xml"
HTML_TYPE = "text/html"
TYPES = (JSON_TYPE, SIGNED_TYPE, SARIF_TYPE, JUNIT_TYPE, HTML_TYPE)

#: The responses with a certificate in them.
REPRESENTATIONS: Responses = {
    200: {
        "content": {
            JSON_TYPE: {"schema": {"$ref": "#/components/schemas/CertificateBody"}},
            SIGNED_TYPE: {"schema": {"$ref": "#/components/schemas/EnvelopeOfCertificateBody"}},
            SARIF_TYPE: {"schema": {"type": "object"}},
            JUNIT_TYPE: {"schema": {"type": "string"}},
            HTML_TYPE: {"schema": {"type": "string"}},
        }
    },
    206: {"description": "a part of it"},
    304: {"description": "a certificate never changes"},
}


@router.get("", response_model=CertificateListBody, responses=problems(401, 422))
async def list_certificates(
    request: Request,
    context: Reading,
    place: AtPlace,
    model: str | None = None,
    kind: Literal["lipschitz", "jacobian", "monotone"] | None = None,
    scope: Literal["global", "local"] | None = None,
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
    responses=REPRESENTATIONS | problems(401, 404, 406, 416, 422),
)
async def show(request: Request, context: Reading, certificate_id: CertificatePath) -> Response:
    """A certificate: the canonical text whose parts its id names, signed, or as a report."""
    return await answer(request, context, certificate_id)


async def answer(request: Request, context: Context, certificate_id: str) -> Response:
    """A certificate in the representation that is preferred.

    Raises:
        Problem: not-found, not-acceptable.
    """
    chosen = preferred(request.headers.get("accept"), TYPES)
    stored = await context.read(lambda c: certificates.find(c, context.tenant, certificate_id))
    if stored is None:
        raise Problem("not-found", f"there is no certificate {certificate_id}")
    is_file = chosen in (JSON_TYPE, SIGNED_TYPE)
    shelf = "envelopes" if chosen == SIGNED_TYPE else "certificates"
    path = context.blobs.place(shelf, context.tenant, stored.blob)
    if chosen == SIGNED_TYPE and not path.is_file():
        raise Problem(
            "not-acceptable",
            "this certificate is not signed: the service had no key when it was proved",
            fix="accept application/json, and sign it with `lipcert sign`",
        )
    etag = f'"{certificate_id}{_suffix(chosen)}"'
    # Where there are no keys, whoever may ask may also see.
    share = "public" if context.key is None else "private"
    kept = FOREVER if is_file else A_DAY
    headers = {"ETag": etag, "Cache-Control": f"{share}, {kept}", "Vary": "Accept"}
    if is_file:
        return file_answer(request, path, chosen, headers)
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    public_url = context.settings.public_url
    return await run_in_threadpool(_report, stored, path, chosen, headers, public_url)


def _suffix(media_type: str) -> str:
    """What tells the ETags of representations apart."""
    if media_type == JSON_TYPE:
        return ""
    return "-signed" if media_type == SIGNED_TYPE else f"-{media_type[-4:]}-{VERSION}"


def _report(
    stored: Stored,
    text: pathlib.Path,
    media_type: str,
    headers: dict[str, str],
    public_url: str | None,
) -> Response:
    """What is told of a certificate to those who do not read its JSON."""
    facts = facts_of(stored, text)
    if media_type == JUNIT_TYPE:
        return Response(junit_of(facts), media_type=media_type, headers=headers)
    if media_type == SARIF_TYPE:
        return JSONResponse(sarif_of(facts, public_url), media_type=media_type, headers=headers)
    return HTMLResponse(page_of(facts), headers={**headers, "Content-Security-Policy": POLICY})


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
