"""Policies, sent and answered."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from service.schemas.request import Body, BudgetBody, ModelId, NotNegative, Option, PropertyBody

#: Something to see, and no control characters.
NAME = r"^[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$"


class RuleBody(Body):
    """The property's bound is to be at most `max_bound`."""

    name: Annotated[str, Field(pattern=NAME, max_length=200)]
    property: PropertyBody = Field(
        default_factory=PropertyBody, description="of kind lipschitz: the others have no bound"
    )
    method: Literal["auto", "product", "lipsdp", "propagation"] = "auto"
    options: dict[str, Option] = Field(default_factory=dict[str, Option])
    budget: BudgetBody = Field(default_factory=BudgetBody)
    max_bound: NotNegative
    on_undecided: Literal["fail", "warn"] = "fail"
    allow_assumptions: list[Literal["overridable-initializer"]] = Field(
        default_factory=list[Literal["overridable-initializer"]],
        description="that a certificate may rest on",
    )


class PolicyDocumentBody(Body):
    """Rules; each has its own name."""

    version: Literal[1] = Field(description="of the format")
    rules: Annotated[list[RuleBody], Field(min_length=1, max_length=200)]


class PolicyNameBody(BaseModel):
    """One version of a policy, without its rules."""

    name: str
    version: int
    digest: ModelId = Field(description="of the canonical JSON (RFC 8785) of `policy`")
    created: datetime


class PolicyBody(PolicyNameBody):
    """One version of a policy; it never changes."""

    deleted: datetime | None = Field(description="when its name was deleted")
    policy: PolicyDocumentBody = Field(
        description="every member present; allow_assumptions where it allows any"
    )


class PolicyListBody(BaseModel):
    """A page of policies, each in its newest version."""

    items: list[PolicyNameBody]
    next_cursor: str | None
