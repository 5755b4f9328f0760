"""What the service says of itself."""

from typing import Literal

from pydantic import BaseModel


class VersionBody(BaseModel):
    """What answers."""

    version: str
    formats: list[str]


class HealthBody(BaseModel):
    """The process lives."""

    status: Literal["ok"]


class ReadinessBody(BaseModel):
    """Whether jobs can be taken and run, and if not, what is missing."""

    status: Literal["ready", "not-ready"]
    database: bool
    backend: Literal["sqlite", "postgresql"]
    migration: str | None
    blobs: bool
    dispatcher: bool
    executor: dict[str, object] | None
    telemetry: Literal["off"]
    sandbox: str
