"""What is posted to make a job."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, BeforeValidator, Field

from service.schemas.request import (
    BindBody,
    Body,
    BudgetBody,
    Centers,
    ClipBody,
    Index,
    LabelName,
    LabelValue,
    ModelId,
    Positive,
    RequestBody,
)


def _require_text(value: object) -> object:
    """Pydantic would read a number as seconds since 1970."""
    if not isinstance(value, str):
        raise ValueError("expected text")  # noqa: TRY004 - what pydantic turns into a refusal
    return value


class EnvelopeBody(Body):
    """What a submission says besides the request."""

    model: ModelId | None = Field(default=None, description="left out in a multipart body")
    labels: dict[LabelName, LabelValue] = Field(default_factory=dict[str, str], max_length=20)
    webhook: list[Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]] = Field(
        default_factory=list[str], max_length=10, description="ids of webhooks to tell of the job"
    )
    priority: Annotated[int, Field(ge=-100, le=100, strict=True)] = 0
    deadline: Annotated[AwareDatetime, BeforeValidator(_require_text)] | None = Field(
        default=None, description="RFC 3339 with an offset; after it nobody wants the answer"
    )


class SubmissionPartBody(RequestBody, EnvelopeBody):
    """A request for a job about the model that comes in the same call."""


class SubmissionBody(RequestBody, EnvelopeBody):
    """A request for a job."""

    model: ModelId = Field()  # pyright: ignore[reportGeneralTypeIssues, reportIncompatibleVariableOverride] - it narrows


class QuestionBody(Body):
    """Which balls around points keep their label: the largest is looked for."""

    centers: Centers
    norm: Literal["l2", "linf"] = "linf"
    label: Index | None = Field(
        default=None, description="of all points; default: the greatest output of each"
    )
    clip: ClipBody | None = Field(default=None, description="the input domain, for linf")
    bind: BindBody = Field(default_factory=BindBody)
    seconds: Positive = Field(default=60.0, description="for all points together")


class ResumeBody(Body):
    """How far to go on; members of the budget that are left out are those of the job."""

    budget: BudgetBody = Field(default_factory=BudgetBody)


class RadiusPartBody(QuestionBody, EnvelopeBody):
    """A question for a job about the model that comes in the same call."""


class RadiusBody(QuestionBody, EnvelopeBody):
    """A question for a job."""

    model: ModelId = Field()  # pyright: ignore[reportGeneralTypeIssues, reportIncompatibleVariableOverride] - it narrows
