"""Models, as they are answered."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel

from service.schemas.problems import ErrorBody
from service.schemas.request import ModelId


class ModelBody(BaseModel):
    """A model and what reading it brought."""

    id: ModelId
    state: Literal["received", "ready", "refused"]
    size: int
    created: datetime
    summary: dict[str, object] | None
    error: ErrorBody | None


class ModelListBody(BaseModel):
    """A page of models."""

    items: list[ModelBody]
    next_cursor: str | None
