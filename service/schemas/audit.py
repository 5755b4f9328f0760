"""The audit log, as it is answered."""

from datetime import datetime

from pydantic import BaseModel, Field


class AuditEntryBody(BaseModel):
    """One row; its hash is the SHA-256 of the canonical JSON of the members before `hash`."""

    tenant: str
    seq: int = Field(description="counted from 1, without gaps")
    at: int = Field(description="milliseconds since 1970 UTC")
    actor: str = Field(description="key:<id>, operator, dispatcher, or anyone: without keys")
    action: str
    subject: str
    details: dict[str, object]
    previous: str = Field(description="the hash of the row before; of the first 64 zeros")
    hash: str
    time: datetime = Field(description="`at` as text")


class AuditHeadBody(BaseModel):
    """The end of the chain: whoever keeps it sees later whether rows were removed."""

    seq: int
    hash: str


class AuditListBody(BaseModel):
    """A page of the audit log, oldest first."""

    items: list[AuditEntryBody]
    next_seq: int = Field(description="`after` of the next page")
    head: AuditHeadBody
