"""Refusals and errors, as `service.problems` writes them."""

from pydantic import BaseModel, Field


class ProblemBody(BaseModel):
    """RFC 9457."""

    type: str
    code: str
    title: str
    status: int
    detail: str
    fix: str
    request_id: str
    node: str | None = None
    limit: str | None = Field(default=None, description="of GET /v1/usage, which was met")
    errors: list[dict[str, str]] | None = None


class ErrorBody(BaseModel):
    """Why a model was refused or a job failed."""

    code: str
    title: str
    detail: str
    node: str | None
    fix: str
    pointer: str | None = None
