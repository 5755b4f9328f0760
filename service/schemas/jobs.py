"""Jobs, their events and what they found, as they are answered."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from service.schemas.problems import ErrorBody
from service.schemas.request import BudgetBody, ModelId, Option, TargetBody
from service.schemas.submissions import QuestionBody


class ProgressBody(BaseModel):
    """How far a job is; `upper` is a bound whose proof the checker has accepted."""

    upper: float | None
    lower: float | None
    gap: float | None
    phase: str | None
    open: int | None = Field(description="parts that branch and bound has not done yet")
    done: int | None = Field(description="steps of the phase; of radii, centers")
    eta_seconds: float | None


class RingBody(BaseModel):
    """The ball of one point; radius 0: nothing is proved."""

    center: int = Field(description="counted from 0, as asked")
    label: int | None = Field(description="null where nothing is proved and none was asked for")
    radius: float
    certificate: dict[str, object] | str | None = Field(
        description="of the margins on the ball; in a job its id, null before the job's end"
    )


class RadiiBody(BaseModel):
    """The radii of all points that the checker has accepted."""

    model: ModelId
    norm: str
    radii: list[RingBody]
    quantiles: dict[str, float | None]


class JobBody(BaseModel):
    """A job: `state` is what the machinery did, `verdict` what was found.

    Of kind `verify` it has a property, method, options, budget and target; of kind `radius` a
    question and radii, and its verdict is certified where every point has a ball.
    """

    id: str
    kind: Literal["verify", "radius"]
    state: Literal["queued", "running", "succeeded", "failed", "canceled", "expired"]
    verdict: Literal["certified", "violated", "undecided"] | None
    model: ModelId
    property: dict[str, object] | None
    method: str | None
    options: dict[str, Option] | None
    budget: BudgetBody | None
    target: TargetBody | None
    question: QuestionBody | None
    radii: RadiiBody | None
    labels: dict[str, str]
    priority: int
    progress: ProgressBody
    attempt: int
    created: datetime
    started: datetime | None
    ended: datetime | None
    deadline: datetime | None
    error: ErrorBody | None
    certificate: str | None
    cached: bool
    resumable: bool = Field(description="there is a checkpoint to go on from")
    resumed_from: str | None
    version: int


class ExpectedBody(BaseModel):
    """What a request is expected to take; only of `memory_bytes` and `seconds` everything."""

    memory_bytes: int = Field(description="about, at the peak")
    seconds: float = Field(description="about, at most the budget")
    bounds: int = Field(description="that are asked for, of each region")
    weight_bytes: int = Field(description="of the operators' entries")
    output_bytes: int = Field(description="of the rows that select outputs")
    batch_bytes: int = Field(description="of one batch of method propagation")
    inequality_rows: int | None = Field(description="of method lipsdp over all inputs")
    inequality_bytes: int | None = Field(description="of its dense solution")
    recursion_bytes: int | None = Field(description="of its solution block by block")


class EstimateBody(BaseModel):
    """What `validate_only` answers: the request as understood, nothing stored."""

    valid: Literal[True]
    model: ModelId
    request: dict[str, object]
    inputs: int | None
    outputs: int | None
    estimate: ExpectedBody | None = Field(description="null where the model's summary lacks sizes")


class JobListBody(BaseModel):
    """A page of jobs."""

    items: list[JobBody]
    next_cursor: str | None


class EventBody(BaseModel):
    """Something that happened to a job."""

    seq: int
    type: Literal["state", "progress", "end"]
    at: datetime
    data: dict[str, object]


class EventListBody(BaseModel):
    """A page of events."""

    items: list[EventBody]
    next_seq: int
