"""Gates: a model against a policy, decided by the dispatcher; here they are asked for and shown."""

from typing import Annotated

from fastapi import APIRouter, Header, Path, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy import Connection

from service.badge import POLICY, badge_svg
from service.bodies import as_object, read_json
from service.context import AtPlace, Context, Reading, Submitting, next_link
from service.gate_report import junit_text, markdown_text, sarif_json
from service.gate_submission import accept_gate, read_gate
from service.gate_view import canceled_json, decision_of_gate, gate_json, summary_json
from service.links import place_of_model
from service.negotiation import preferred
from service.openapi import json_body, problems
from service.problems import Problem
from service.routes.certificates import JUNIT_TYPE, SARIF_TYPE
from service.routes.submitting import IdempotencyHeader, PreferHeader, preference_of
from service.schemas.certificates import EnvelopeOfCertificateBody
from service.schemas.gates import GateBody, GateListBody, GateSubmissionBody, Outcome
from service.store import gates
from service.store.coordination import now_in, now_ms
from service.store.gates import Gate, Rule

router = APIRouter(prefix="/v1/gates", tags=["gates"])

GatePath = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]

JSON_TYPE = "application/json"
MARKDOWN_TYPE = "text/markdown"
SIGNED_TYPE = "application/vnd.in-toto+json"
SVG_TYPE = "image/svg+xml"
ENVELOPE = {"$ref": f"#/components/schemas/{EnvelopeOfCertificateBody.__name__}"}
TYPES = (JSON_TYPE, SARIF_TYPE, JUNIT_TYPE, MARKDOWN_TYPE)


@router.post(
    "",
    status_code=202,
    response_model=GateBody,
    openapi_extra=json_body(GateSubmissionBody),
    responses={200: {"model": GateBody, "description": "decided already"}}
    | problems(400, 401, 403, 404, 408, 413, 415, 422, 503),
)
async def submit(
    request: Request,
    context: Submitting,
    prefer: PreferHeader = None,
    idempotency_key: IdempotencyHeader = None,
) -> Response:
    """Put a model to a policy: a job for every rule, and one decision when all have ended."""
    settings = context.settings
    body = await read_json(request, settings.max_json_bytes, settings.upload_idle_s)
    asked = read_gate(as_object(body))
    gate = await context.write(
        lambda c: accept_gate(c, settings, context.tenant, asked, idempotency_key, now_ms())
    )
    preference = preference_of(prefer)
    gate = await _gate_after(context, gate.id, preference.wait_s or 0)
    headers = {"Location": f"/v1/gates/{gate.id}", **preference.applied}
    return await _answer(context, gate, 200 if gate.is_decided else 202, headers)


@router.get("", response_model=GateListBody, responses=problems(401, 422))
async def list_gates(
    request: Request,
    context: Reading,
    place: AtPlace,
    model: str | None = None,
    policy: str | None = None,
    outcome: Outcome | None = None,
) -> Response:
    """All gates, newest first."""
    asked = {"model": model, "policy": policy, "outcome": outcome}
    filters = {name: value for name, value in asked.items() if value is not None}
    page = await context.read(lambda c: gates.page(c, context.tenant, place, filters))
    return JSONResponse(
        {"items": [summary_json(gate) for gate in page.items], "next_cursor": page.cursor},
        headers=next_link(request, page.cursor),
    )


@router.get(
    "/{gate_id}",
    response_model=GateBody,
    responses={
        200: {"content": {name: {"schema": {"type": "string"}} for name in TYPES[1:]}},
        304: {"description": "unchanged"},
    }
    | problems(401, 404, 406, 409, 422),
)
async def show(
    request: Request,
    context: Reading,
    gate_id: GatePath,
    if_none_match: Annotated[str | None, Header()] = None,
    prefer: PreferHeader = None,
) -> Response:
    """A gate, or a report of its decision. With `Prefer: wait=N` a long poll for the decision."""
    chosen = preferred(request.headers.get("accept"), TYPES)
    preference = preference_of(prefer)
    gate = await _gate_after(context, gate_id, preference.wait_s or 0)
    headers = {"Vary": "Accept", **preference.applied}
    etag = _etag(gate, chosen)
    if if_none_match is not None and if_none_match.removeprefix("W/") == etag:
        return Response(status_code=304, headers={"ETag": etag, **headers})
    if chosen == JSON_TYPE:
        return await _answer(context, gate, 200, headers)
    text = _report(gate, chosen, context.settings.public_url)
    more = {"ETag": etag, "Cache-Control": "no-cache", **headers}
    return Response(text, media_type=chosen, headers=more)


@router.post("/{gate_id}/cancel", response_model=GateBody, responses=problems(401, 403, 404, 422))
async def cancel(context: Submitting, gate_id: GatePath) -> Response:
    """End a gate without a decision, and its jobs within a second. One that has ended stays so."""

    def end(connection: Connection) -> None:
        gate = gates.find(connection, context.tenant, gate_id)
        if gate is not None and not gate.is_decided:
            rules = gates.rules(connection, context.tenant, gate_id)
            results = [canceled_json(rule) for rule in rules]
            gates.cancel(connection, gate, results, context.actor, now_in(connection))

    await context.write(end)
    return await _answer(context, await _find(context, gate_id), 200, {})


@router.get(
    "/{gate_id}/badge.svg",
    response_class=Response,
    responses={200: {"content": {SVG_TYPE: {"schema": {"type": "string"}}}}}
    | problems(401, 404, 422),
)
async def badge(context: Reading, gate_id: GatePath) -> Response:
    """The outcome as a picture, pending too."""
    gate = await _find(context, gate_id)
    headers = {
        "ETag": _etag(gate, SVG_TYPE),
        "Cache-Control": "no-cache",
        "Content-Security-Policy": POLICY,
    }
    return Response(badge_svg(gate), media_type=SVG_TYPE, headers=headers)


@router.get(
    "/{gate_id}/attestation",
    response_class=Response,
    responses={200: {"content": {SIGNED_TYPE: {"schema": ENVELOPE}}}}
    | problems(401, 404, 409, 422),
)
async def attestation(context: Reading, gate_id: GatePath) -> Response:
    """The decision, signed: a SLSA verification summary in a DSSE envelope."""
    gate = await _find(context, gate_id)
    _require_decided(gate)
    envelope = await context.read(lambda c: gates.attestation(c, context.tenant, gate_id))
    if envelope is None:
        raise Problem("not-signed", "the gate was decided by a service without a signing key")
    headers = {"ETag": _etag(gate, SIGNED_TYPE), "Cache-Control": "no-cache"}
    return JSONResponse(dict(envelope), media_type=SIGNED_TYPE, headers=headers)


# --- parts ---------------------------------------------------------------------------------------


async def _find(context: Context, gate_id: str) -> Gate:
    gate = await context.read(lambda c: gates.find(c, context.tenant, gate_id))
    if gate is None:
        raise Problem("not-found", f"there is no gate {gate_id}")
    return gate


async def _gate_after(context: Context, gate_id: str, wait_s: float) -> Gate:
    """The gate: at once where it is decided, else when it is, or in time."""
    gate = await _find(context, gate_id)
    if gate.is_decided or wait_s <= 0:
        return gate
    async with context.decisions.of(gate_id) as bell:
        gate = await _find(context, gate_id)
        if not gate.is_decided and await bell.wait(wait_s):
            gate = await _find(context, gate_id)
    return gate


async def _answer(context: Context, gate: Gate, status: int, headers: dict[str, str]) -> Response:
    def look(connection: Connection) -> list[Rule]:
        return gates.rules(connection, context.tenant, gate.id)

    rules = [] if gate.is_decided else await context.read(look)
    more = {"ETag": _etag(gate, JSON_TYPE), "Cache-Control": "no-cache", **headers}
    if not gate.is_decided:
        more["Retry-After"] = "1"
    return JSONResponse(gate_json(gate, rules), status_code=status, headers=more)


def _report(gate: Gate, media_type: str, public_url: str | None) -> str:
    """The decision in a form that other tools read.

    Raises:
        Problem: not-finished, gate-canceled.
    """
    _require_decided(gate)
    decision = decision_of_gate(gate, gate.results or ())
    if media_type == JUNIT_TYPE:
        return junit_text(decision)
    if media_type == MARKDOWN_TYPE:
        return markdown_text(decision)
    report = sarif_json(decision, place_of_model(gate.model, public_url))
    return bytes(JSONResponse(report).body).decode()


def _require_decided(gate: Gate) -> None:
    if not gate.is_decided:
        raise Problem("not-finished", "the gate is pending: its jobs have not all ended")
    if gate.outcome == "canceled":
        raise Problem("gate-canceled", f"gate {gate.id} was canceled before its decision")


def _etag(gate: Gate, media_type: str) -> str:
    """The row's version; of other representations with their name."""
    suffix = "" if media_type == JSON_TYPE else f"-{media_type.partition('/')[2]}"
    return f'"{gate.version}{suffix}"'
