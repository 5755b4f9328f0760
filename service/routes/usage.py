"""What a tenant uses, and what it may."""

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from sqlalchemy import Connection

from service.context import Reading, time_text
from service.openapi import problems
from service.quotas import day_after, effective_limits
from service.schemas.usage import UsageBody
from service.store.engine import now_ms
from service.store.limits import usage_json, usage_of

router = APIRouter(prefix="/v1/usage", tags=["service"])


@router.get("", response_model=UsageBody, responses=problems(401))
async def show(context: Reading) -> Response:
    """The limits of the tenant that asks, and how much of each is used."""
    now = now_ms()

    def read(connection: Connection) -> dict[str, dict[str, object]]:
        limits = effective_limits(connection, context.settings, context.tenant)
        return usage_json(limits, usage_of(connection, context.tenant, now))

    limits = await context.read(read)
    limits["waiters"]["used"] = context.waiters.count(context.holder)
    limits["cpu_seconds_per_day"]["resets"] = time_text(day_after(now))
    return JSONResponse({"tenant": context.tenant, "limits": limits})
