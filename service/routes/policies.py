"""Policies: put, read, deleted by name; every version to be read by its digest for ever.

A policy decides what is deployed, so putting and deleting one needs a key of scope `admin`.
"""

from typing import Annotated, cast

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool

from service.bodies import chunks, media_type, parse_json, require_type
from service.context import Administering, AtPlace, Reading, next_link, time_text
from service.gate import POLICY_BYTES, Rule, parse_policy, policy_json, rules_of
from service.openapi import problems
from service.problems import Problem, problem_of
from service.schemas.policies import PolicyBody, PolicyDocumentBody, PolicyListBody
from service.store import audit, policies
from service.store.coordination import now_ms
from service.store.policies import StoredPolicy
from service.submission import read_request
from verifier.canonical_json import Json, content_id
from verifier.errors import LipcertError
from verifier.request_json import request_json

router = APIRouter(prefix="/v1/policies", tags=["policies"])

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
DIGEST = r"sha256:[0-9a-f]{64}"
JSON_TYPE = "application/json"
TYPES = (JSON_TYPE, "application/yaml", "application/x-yaml", "text/yaml")

PolicyName = Annotated[str, Path(pattern=rf"^{NAME}$")]
PolicyReference = Annotated[
    str, Path(pattern=rf"^({NAME}|{DIGEST})$", description="a name, or the digest of a version")
]
IfMatch = Annotated[str | None, Header(description="the ETag of the version to change, or *")]
IfNoneMatch = Annotated[str | None, Header(description="* puts a new name only")]

_REFERENCE = {"$ref": f"#/components/schemas/{PolicyDocumentBody.__name__}"}


@router.put(
    "/{policy_name}",
    status_code=201,
    response_model=PolicyBody,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {name: {"schema": _REFERENCE} for name in TYPES},
        }
    },
    responses={200: {"model": PolicyBody, "description": "the newest version says this already"}}
    | problems(400, 401, 403, 408, 412, 413, 415, 422),
)
async def put(
    request: Request,
    context: Administering,
    policy_name: PolicyName,
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Make a version of a policy, which is the newest of its name from then on."""
    document = policy_json(await _rules(request, context.settings.upload_idle_s))
    digest = _digest(document)

    def change(connection: Connection) -> tuple[StoredPolicy | None, bool]:
        newest = policies.find(connection, context.tenant, policy_name)
        _require_match(newest, if_match, if_none_match)
        if newest is not None and newest.digest == digest:
            return newest, False
        now = now_ms()
        added = policies.add(connection, context.tenant, policy_name, document, digest, now)
        if added is not None:
            subject, details = f"{policy_name}@{added.version}", {"digest": digest}
            audit.append(
                connection, context.tenant, context.actor, "policy.changed", subject, details
            )
        return added, True

    stored, is_new = await context.write(change)
    if stored is None:
        raise Problem("precondition-failed", "another change of this policy came first")
    headers = {"Location": f"/v1/policies/{policy_name}?version={stored.version}"}
    return _answer(stored, 201 if is_new else 200, headers)


@router.get("", response_model=PolicyListBody, responses=problems(401, 422))
async def list_policies(request: Request, context: Reading, place: AtPlace) -> Response:
    """The newest version of every policy, the last changed first."""
    page = await context.read(lambda c: policies.page(c, context.tenant, place))
    return JSONResponse(
        {"items": [_named(policy) for policy in page.items], "next_cursor": page.cursor},
        headers=next_link(request, page.cursor),
    )


@router.get(
    "/{policy_name}",
    response_model=PolicyBody,
    responses={304: {"description": "unchanged"}} | problems(401, 404, 422),
)
async def show(
    context: Reading,
    policy_name: PolicyReference,
    version: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """A policy: its newest version, or the one that is asked for."""

    def look(connection: Connection) -> StoredPolicy | None:
        if ":" in policy_name:
            return policies.of_digest(connection, context.tenant, policy_name)
        return policies.find(connection, context.tenant, policy_name, version)

    stored = await context.read(look)
    if stored is None:
        which = "" if version is None else f" in version {version}"
        raise Problem("not-found", f"there is no policy {policy_name}{which}")
    if if_none_match is not None and _names(if_none_match, stored):
        return Response(status_code=304, headers={"ETag": _etag(stored)})
    return _answer(stored, 200, {})


@router.delete("/{policy_name}", status_code=204, responses=problems(401, 403, 404, 412, 422))
async def delete(
    context: Administering, policy_name: PolicyName, if_match: IfMatch = None
) -> Response:
    """Delete a name. Its versions can still be read by their digests, and used no more."""

    def change(connection: Connection) -> bool:
        newest = policies.find(connection, context.tenant, policy_name)
        if newest is not None:
            _require_match(newest, if_match, None)
        if not policies.hide(connection, context.tenant, policy_name, now_ms()):
            return False
        audit.append(connection, context.tenant, context.actor, "policy.deleted", policy_name, {})
        return True

    if not await context.write(change):
        raise Problem("not-found", f"there is no policy {policy_name}")
    return Response(status_code=204)


async def _rules(request: Request, idle_s: float) -> tuple[Rule, ...]:
    """The rules that a body states.

    Raises:
        Problem: the body, or what it says, is refused.
    """
    require_type(request, TYPES)
    text = b"".join([chunk async for chunk in chunks(request, POLICY_BYTES, idle_s)])
    try:
        # In a thread: reading YAML of this size can take a second.
        rules = await run_in_threadpool(_read, text, is_json=media_type(request) == JSON_TYPE)
        for rule in rules:
            read_request(request_json(rule.request))  # with options that its method has
    except LipcertError as error:
        raise problem_of(error) from error
    return rules


def _read(text: bytes, *, is_json: bool) -> tuple[Rule, ...]:
    # JSON is not quite YAML 1.1: 1e5 would be text.
    return rules_of(parse_json(text)) if is_json else parse_policy(text)


def _digest(document: dict[str, object]) -> str:
    """The digest of a policy's canonical form.

    Raises:
        Problem: a number or text has none.
    """
    try:
        return content_id(cast("Json", document))
    except ValueError as error:
        raise Problem("invalid-request", f"the policy has no canonical form: {error}") from error


def _require_match(newest: StoredPolicy | None, match: str | None, none: str | None) -> None:
    """Refuse to change another version than the client has seen.

    Raises:
        Problem: precondition-failed.
    """
    found = "there is none" if newest is None else f"its version is {newest.version}"
    if match is not None and (newest is None or not _names(match, newest)):
        raise Problem("precondition-failed", f"If-Match is {match[:100]!r}, and {found}")
    if none is not None and newest is not None and _names(none, newest):
        raise Problem("precondition-failed", f"If-None-Match is {none[:100]!r}, and {found}")


def _answer(stored: StoredPolicy, status: int, headers: dict[str, str]) -> Response:
    members = {
        **_named(stored),
        "deleted": time_text(stored.hidden),
        "policy": dict(stored.document),
    }
    more = {"ETag": _etag(stored), "Cache-Control": "no-cache", **headers}
    return JSONResponse(members, status_code=status, headers=more)


def _named(stored: StoredPolicy) -> dict[str, object]:
    return {
        "name": stored.name,
        "version": stored.version,
        "digest": stored.digest,
        "created": time_text(stored.created),
    }


def _etag(stored: StoredPolicy) -> str:
    """The version: of a name no number is given twice."""
    return f'"{stored.version}"'


def _names(header: str, stored: StoredPolicy) -> bool:
    """Whether a list of ETags, or *, holds this version."""
    return bool({"*", _etag(stored)} & {item.strip() for item in header.split(",")})
