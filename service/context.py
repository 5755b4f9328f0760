"""What every route works with, and the conversions that several of them share."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, TypeAlias, TypeVar

from fastapi import Depends, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool

from service.access import ApiKey, Scope, matches, parts_of
from service.blobs import Blobs
from service.changes import Changes
from service.problems import Problem
from service.schemas.request import LabelText
from service.settings import TENANT, Settings
from service.store import keys
from service.store.engine import Database, now_ms
from service.store.paging import CURSOR, MAX_LIMIT, Place, parse_cursor

Found = TypeVar("Found")

DEFAULT_LIMIT = 50


@dataclass(frozen=True, slots=True)
class Context:
    """The service's parts, and whom they serve."""

    settings: Settings
    database: Database
    blobs: Blobs
    changes: Changes
    tenant: str = TENANT
    key: ApiKey | None = None  #: that the request came with; None where there are no keys

    async def read(self, query: Callable[[Connection], Found]) -> Found:
        """What a query finds.

        Not in a thread: a reader of SQLite's log waits for no writer, and the queries of the API
        take less time than the way to a thread and back.
        """
        with self.database.read() as connection:
            return query(connection)

    async def write(self, change: Callable[[Connection], Found]) -> Found:
        """What a change returns, after it is durable."""

        def work() -> Found:
            with self.database.write() as connection:
                return change(connection)

        return await run_in_threadpool(work)


async def open_context(request: Request) -> Context:
    """The context that `create_app` made: for what needs no key, as the health of the service."""
    context = request.app.state.context
    assert isinstance(context, Context)  # noqa: S101 - set once, in create_app
    return context


Bearer: TypeAlias = Annotated[
    HTTPAuthorizationCredentials | None,
    Depends(HTTPBearer(auto_error=False, scheme_name="api-key", bearerFormat="lck_<id>_<secret>")),
]


async def reader(
    context: Annotated[Context, Depends(open_context)], credentials: Bearer
) -> Context:
    """The context of whoever may read: of the tenant whose key the request has.

    Raises:
        Problem: unauthorized.
    """
    text = "" if credentials is None else credentials.credentials
    with context.database.read() as connection:
        key = _key(connection, text)
        if key is None and not keys.exist(connection):
            return context
    now = now_ms()
    if key is None:
        raise _unauthorized("it is missing, or not one of this service")
    if not key.is_valid(now):
        raise _unauthorized("it has expired, or was revoked")
    if key.last_used is None or keys.USE_MS <= now - key.last_used:
        await context.write(lambda c: keys.note_use(c, key.id, now))
    return replace(context, tenant=key.tenant, key=key)


def _key(connection: Connection, text: str) -> ApiKey | None:
    """The key whose text this is."""
    parts = parts_of(text)
    found = None if parts is None else keys.of_any_tenant(connection, parts[0])
    return found if found is not None and parts is not None and matches(found, parts[1]) else None


def _unauthorized(why: str) -> Problem:
    headers = {"WWW-Authenticate": 'Bearer realm="lipcert"'}
    return Problem("unauthorized", f"the API key is not accepted: {why}", headers=headers)


def allowed(scope: Scope) -> Callable[[Context], Awaitable[Context]]:
    """The same for whoever has a key of this scope.

    The function raises Problem: unauthorized, forbidden.
    """

    async def of_scope(context: Annotated[Context, Depends(reader)]) -> Context:
        if context.key is not None and not context.key.allows(scope):
            raise Problem(
                "forbidden", f"this needs a key of scope {scope!r}, not {context.key.scope!r}"
            )
        return context

    return of_scope


def place_of(
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
    cursor: Annotated[
        str | None, Query(pattern=CURSOR, description="`next_cursor` of a page")
    ] = None,
) -> Place:
    """The page that a query string asks for."""
    return Place(limit=limit, after=None if cursor is None else parse_cursor(cursor))


def labels_of(
    label: Annotated[
        list[LabelText], Query(description="name:value; several times for several", max_length=20)
    ] = [],  # noqa: B006 - FastAPI copies defaults
) -> list[tuple[str, str]]:
    """The labels in a query string."""
    parts = [text.partition(":") for text in label]
    return [(name, value) for name, _, value in parts]


Open: TypeAlias = Annotated[Context, Depends(open_context)]
Reading: TypeAlias = Annotated[Context, Depends(reader)]
Submitting: TypeAlias = Annotated[Context, Depends(allowed("submit"))]
Administering: TypeAlias = Annotated[Context, Depends(allowed("admin"))]
AtPlace: TypeAlias = Annotated[Place, Depends(place_of)]
Labels: TypeAlias = Annotated[list[tuple[str, str]], Depends(labels_of)]


def time_text(milliseconds: int | None) -> str | None:
    """RFC 3339 in UTC."""
    if milliseconds is None:
        return None
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def next_link(request: Request, cursor: str | None) -> dict[str, str]:
    """The `Link` header to the next page, where there is one."""
    if cursor is None:
        return {}
    return {
        "Link": f"<{request.url.include_query_params(cursor=cursor).path}?"
        f'{request.url.include_query_params(cursor=cursor).query}>; rel="next"'
    }
