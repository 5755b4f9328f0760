"""What every route works with, and the conversions that several of them share."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, TypeAlias, TypeVar

from fastapi import Depends, Query, Request
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool

from service.blobs import Blobs
from service.changes import Changes
from service.problems import Problem
from service.settings import TENANT, Settings
from service.store.engine import Database
from service.store.paging import MAX_LIMIT, BadCursor, Place, parse_cursor

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


def context_of(request: Request) -> Context:
    """The context that `create_app` made."""
    context = request.app.state.context
    assert isinstance(context, Context)  # noqa: S101 - set once, in create_app
    return context


def place_of(
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT, cursor: str | None = None
) -> Place:
    """The page that a query string asks for."""
    try:
        return Place(limit=limit, after=None if cursor is None else parse_cursor(cursor))
    except BadCursor as error:
        raise Problem(
            "invalid-request", "the cursor is not one that a page gave", pointer="/cursor"
        ) from error


InContext: TypeAlias = Annotated[Context, Depends(context_of)]
AtPlace: TypeAlias = Annotated[Place, Depends(place_of)]


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
