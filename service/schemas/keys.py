"""API keys, asked for and answered."""

from datetime import datetime
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, Field

from service.access import Scope
from service.schemas.request import Body


class NewKeyBody(Body):
    """An API key to be made."""

    scope: Scope = Field(description="each allows what stands before it too")
    label: Annotated[str, Field(max_length=200)] = ""
    expires: AwareDatetime | None = None


class KeyBody(BaseModel):
    """An API key; its text is in the answer that makes it, and nowhere else."""

    id: str
    scope: Scope
    label: str
    created: datetime
    expires: datetime | None
    revoked: datetime | None
    last_used: datetime | None = Field(description="to the hour")


class MadeKeyBody(KeyBody):
    """A new API key, with its text."""

    key: str


class KeyListBody(BaseModel):
    """A page of API keys."""

    items: list[KeyBody]
    next_cursor: str | None
