"""What every route works with, and the conversions that several of them share."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Annotated, TypeAlias, TypeVar

from fastapi import Depends, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool

from service.access import ApiKey, Scope, matches, parts_of
from service.blobs import Blobs
from service.changes import Changes, Decisions
from service.problems import Problem
from service.quotas import WAITER_S, exceeded
from service.rates import Throttle
from service.schemas.request import LabelText
from service.settings import TENANT, Settings
from service.store import keys
from service.store.coordination import now_ms, take_turn
from service.store.database import Database
from service.store.limits import limits_of
from service.store.paging import CURSOR, MAX_LIMIT, Place, parse_cursor
from service.times import time_text as time_text  # for the routes: whatever they share is here
from service.waiters import Waiters

Found = TypeVar("Found")

DEFAULT_LIMIT = 50


@dataclass(frozen=True, slots=True)
class Context:
    """The service's parts, and whom they serve."""

    settings: Settings
    database: Database
    blobs: Blobs
    changes: Changes
    decisions: Decisions
    throttle: Throttle
    waiters: Waiters = field(default_factory=Waiters)
    tenant: str = TENANT
    key: ApiKey | None = None  #: that the request came with; None where there are no keys

    @property
    def actor(self) -> str:
        """Whom the audit log names."""
        return "anyone" if self.key is None else f"key:{self.key.id}"

    @property
    def holder(self) -> str:
        """Whose waiters are counted together: the key's, or everyone's where there are none."""
        return self.tenant if self.key is None else self.key.id

    async def require_waiter(self) -> None:
        """Refuse a request that would wait beside too many.

        Raises:
            Problem: quota-exceeded.
        """
        if not await self.may_wait():
            said = f"{self.waiters.count(self.holder)} requests of this key wait"
            raise exceeded("waiters", said, WAITER_S)

    async def may_wait(self) -> bool:
        """Whether one more request of the same key may wait."""
        limits = await self.read(lambda c: limits_of(c, self.tenant, self.settings.limits))
        return self.waiters.count(self.holder) < limits.waiters

    async def read(self, query: Callable[[Connection], Found]) -> Found:
        """What a query finds.

        On SQLite not in a thread: a reader of its log waits for no writer, and the queries of the
        API take less time than the way to a thread and back. A server may keep one waiting.
        """

        def look() -> Found:
            with self.database.read() as connection:
                return query(connection)

        return look() if self.database.is_embedded else await run_in_threadpool(look)

    async def write(self, change: Callable[[Connection], Found]) -> Found:
        """What a change returns, after it is durable.

        In the tenant's turn: what one may do depends on what one has.
        """

        def work() -> Found:
            with self.database.write() as connection:
                take_turn(connection, self.tenant)
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
    context: Annotated[Context, Depends(open_context)], credentials: Bearer, request: Request
) -> Context:
    """The context of whoever may read: of the tenant whose key the request has.

    Raises:
        Problem: unauthorized, rate-limited.
    """
    text = "" if credentials is None else credentials.credentials

    def look(connection: Connection) -> tuple[ApiKey | None, bool]:
        key = _key(connection, text)
        return key, key is not None or keys.exist(connection)

    key, is_guarded = await context.read(look)
    if not is_guarded:
        return context
    now = now_ms()
    if key is None or not key.is_valid(now):
        context.throttle.require_failure("" if request.client is None else request.client.host)
        raise _unauthorized(
            "it is missing, or not one of this service"
            if key is None
            else "it has expired, or was revoked"
        )
    context.throttle.require_call(key.id, request.method)
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


def next_link(request: Request, cursor: str | None) -> dict[str, str]:
    """The `Link` header to the next page, where there is one."""
    if cursor is None:
        return {}
    return {
        "Link": f"<{request.url.include_query_params(cursor=cursor).path}?"
        f'{request.url.include_query_params(cursor=cursor).query}>; rel="next"'
    }
