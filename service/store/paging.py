"""Lists in pages, newest first: a cursor names the last row that was seen, not a position."""

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar, cast

from sqlalchemy import Column, Connection, Select, and_, or_

Item = TypeVar("Item")

#: A row by its columns' names. SQLAlchemy's own type of it is a mapping of wider keys.
Columns: TypeAlias = Mapping[str, Any]

MAX_LIMIT = 200


class BadCursor(ValueError):
    """The cursor is not one that a page gave."""


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
    """The place that a cursor names.

    Raises:
        BadCursor: no page gave this text.
    """
    try:
        created, _, row_id = base64.urlsafe_b64decode(text.encode()).decode().partition(" ")
        when = int(created)
    except (ValueError, binascii.Error) as error:
        raise BadCursor(text) from error
    if not 0 <= when < 2**63:
        raise BadCursor(text)
    return when, row_id


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
        text = f"{last['created']} {last['id']}"
        cursor = base64.urlsafe_b64encode(text.encode()).decode()
    return Page([read(cast("Columns", row)) for row in rows[: place.limit]], cursor)
