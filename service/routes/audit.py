"""The audit log of the tenant that asks, for keys of scope `admin`."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse
from sqlalchemy import Connection

from service.context import Administering, time_text
from service.openapi import problems
from service.schemas.audit import AuditListBody
from service.store import audit
from service.store.audit import Entry, Head
from service.store.paging import MAX_LIMIT

router = APIRouter(prefix="/v1/audit", tags=["audit"])


@router.get("", response_model=AuditListBody, responses=problems(401, 403, 422))
async def list_entries(
    context: Administering,
    after: Annotated[int, Query(ge=0, lt=2**53)] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = MAX_LIMIT,
) -> Response:
    """What was done in the tenant's name, oldest first; `head` is the end of the chain."""

    def read(connection: Connection) -> tuple[list[Entry], Head]:
        found = audit.after(connection, context.tenant, after, limit)
        return found, audit.head(connection, context.tenant)

    found, head = await context.read(read)
    return JSONResponse(
        {
            "items": [_entry_json(entry) for entry in found],
            "next_seq": found[-1].seq if found else after,
            "head": {"seq": head.seq, "hash": head.hash},
        }
    )


def _entry_json(entry: Entry) -> dict[str, object]:
    """A row on the wire: all that its hash is about."""
    members = {name: getattr(entry, name) for name in (*audit.CHAINED, "hash")}
    return {**members, "time": time_text(entry.at)}
