"""Limits and use, as they are answered."""

from datetime import datetime

from pydantic import BaseModel, Field


class LimitBody(BaseModel):
    """One limit."""

    limit: int | None = Field(description="null: there is none")
    used: float | None = Field(description="null where a limit is for one request or job")
    resets: datetime | None = Field(default=None, description="when `used` is 0 again by itself")


class UsageBody(BaseModel):
    """What a tenant uses, and what it may; `waiters` are those of the key that asks."""

    tenant: str
    limits: dict[str, LimitBody]
