"""Models, as they are answered."""

from datetime import datetime
from typing import Literal, TypeAlias

from pydantic import BaseModel, Field

from service.schemas.problems import ErrorBody
from service.schemas.request import ModelId

Method: TypeAlias = Literal["auto", "product", "lipsdp", "propagation"]
Scope: TypeAlias = Literal["global", "local"]


class CapabilityBody(BaseModel):
    """Whether a method bounds the model in a scope, and if not, what blocks it."""

    available: bool
    code: str | None
    node: str | None
    reason: str | None


class ModelBody(BaseModel):
    """A model and what reading it brought."""

    id: ModelId
    state: Literal["received", "ready", "refused"]
    size: int
    labels: dict[str, str]
    created: datetime
    summary: dict[str, object] | None
    capabilities: dict[Method, dict[Scope, CapabilityBody]] | None = Field(
        description="by method and scope; null until the model was read, and where it was refused"
    )
    error: ErrorBody | None


class ModelListBody(BaseModel):
    """A page of models."""

    items: list[ModelBody]
    next_cursor: str | None
