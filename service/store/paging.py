"""Lists in pages, newest first: a cursor names the last row that was seen, not a position."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar, cast

from sqlalchemy import Column, Connection, Select, and_, or_

Item = TypeVar("Item")

#: A row by its columns' names. SQLAlchemy's own type of it is a mapping of wider keys.
Columns: TypeAlias = Mapping[str, Any]

MAX_LIMIT = 200

#: What a cursor looks like: the last row's time and id.
CURSOR = r"^[0-9]{1,15}\.[0-9A-Za-z:._-]{1,200}$"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a page starts, and how long it is."""

    limit: int = 50
    after: tuple[int, str] | None = None  #: (created, id) of the last row seen


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """Some rows, and the cursor of the page after them, if there is one."""

    items: list[Item]
    cursor: str | None


def parse_cursor(text: str) -> tuple[int, str]:
    """The place that a text of the form CURSOR names."""
    created, _, row_id = text.partition(".")
    return int(created), row_id


def page_of(
    connection: Connection,
    query: Select[Any],  # Any: SQLAlchemy's rows of whole tables are untyped
    created: Column[int],
    row_id: Column[str],
    place: Place,
    read: Callable[[Columns], Item],
) -> Page[Item]:
    """One page of a query's rows, ordered by (created, id) from the newest."""
    if place.after is not None:
        when, last = place.after
        query = query.where(or_(created < when, and_(created == when, row_id < last)))
    rows = (
        connection.execute(query.order_by(created.desc(), row_id.desc()).limit(place.limit + 1))
        .mappings()
        .all()
    )
    cursor = None
    if place.limit < len(rows):
        last = rows[place.limit - 1]
        cursor = f"{last['created']}.{last['id']}"
    return Page([read(cast("Columns", row)) for row in rows[: place.limit]], cursor)
