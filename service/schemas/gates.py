"""Gates, asked for and answered."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from service.schemas.problems import ErrorBody
from service.schemas.request import Body, ModelId

Outcome = Literal["pending", "pass", "fail", "undecided", "canceled"]

REFERENCE = r"^([A-Za-z0-9][A-Za-z0-9._-]{0,99}(@[0-9]{1,9})?|sha256:[0-9a-f]{64})$"


class GateSubmissionBody(Body):
    """A model against a policy."""

    model: ModelId
    policy: Annotated[str, Field(pattern=REFERENCE)] = Field(
        description="a name, name@version, or a digest"
    )


class GatePolicyBody(BaseModel):
    """The version of a policy that decides a gate."""

    name: str
    version: int
    digest: ModelId


class GateRuleBody(BaseModel):
    """One rule of a gate; what is not known before the decision is null."""

    name: str
    outcome: Literal["pending", "pass", "fail", "undecided", "error", "canceled"] = Field(
        description="error: there is no certificate, and `error` says why"
    )
    max_bound: float
    bound: float | None = Field(description="proved, and accepted by the checker")
    lower_bound: float | None = Field(description="reached by a witness")
    margin: float | None = Field(description="max_bound - bound")
    seconds: float | None = Field(description="that the job ran")
    on_undecided: Literal["fail", "warn"]
    blocking: bool | None = Field(description="whether the rule keeps the gate shut")
    reason: str
    job: str
    certificate: str | None
    error: ErrorBody | None


class GateSummaryBody(BaseModel):
    """A gate in a list."""

    id: str
    outcome: Outcome
    exit_code: int | None = Field(description="of `lipcert gate`; null before the decision")
    model: ModelId
    policy: GatePolicyBody
    created: datetime
    decided: datetime | None
    version: int


class GateBody(GateSummaryBody):
    """A gate: a model against a policy, decided once, from checked certificates alone."""

    rules: list[GateRuleBody]


class GateListBody(BaseModel):
    """A page of gates."""

    items: list[GateSummaryBody]
    next_cursor: str | None
