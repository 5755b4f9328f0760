"""Webhooks and their deliveries, asked for and answered, and what receivers are sent."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from service.schemas.request import Body, ModelId
from service.store.outbox import Outcome, State
from service.store.webhooks import Disabled, EventName, Jobs

Url = Annotated[str, Field(max_length=2000, description="https, to a public address")]
Events = Annotated[list[EventName], Field(min_length=1, max_length=4)]
Label = Annotated[str, Field(max_length=200)]
Told = Annotated[Jobs, Field(description="what it is told of: all, or what names it in `webhook`")]


class NewWebhookBody(Body):
    """A webhook to be made."""

    url: Url
    events: Events = Field(default_factory=lambda: ["job.finished", "gate.finished"])
    jobs: Told = "all"
    label: Label = ""
    enabled: bool = True


class WebhookChangeBody(Body):
    """What is to be changed of a webhook; what is left out or null stays as it is."""

    url: Url | None = None
    events: Events | None = None
    jobs: Told | None = None
    label: Label | None = None
    enabled: bool | None = None


class WebhookBody(BaseModel):
    """A webhook."""

    id: str
    url: str = Field(description="without path and query, for keys of a lower scope than admin")
    events: list[EventName]
    jobs: Jobs
    label: str
    enabled: bool
    disabled: Disabled | None = Field(
        description="why the service has disabled it: every try of five days failed, or HTTP 410"
    )
    failing_since: datetime | None
    old_secret_until: datetime | None = Field(
        description="after a rotation: how long the secret before signs as well"
    )
    created: datetime


class MadeWebhookBody(WebhookBody):
    """A webhook with its new secret."""

    secret: str = Field(description="whsec_<base64>; in this answer, and nowhere else")


class WebhookListBody(BaseModel):
    """A page of webhooks."""

    items: list[WebhookBody]
    next_cursor: str | None


class DeliveryBody(BaseModel):
    """One message to one webhook."""

    id: str = Field(description="the `webhook-id` that the receiver sees, in every try")
    webhook: str
    event: EventName
    subject: str = Field(description="the id of the job or gate")
    state: State
    tries: int
    due: datetime | None = Field(description="of the next try")
    outcome: Outcome | None = Field(description="of the last try")
    status: int | None = Field(description="that the receiver answered")
    created: datetime
    ended: datetime | None


class DeliveryListBody(BaseModel):
    """A page of deliveries."""

    items: list[DeliveryBody]
    next_cursor: str | None


class JobNewsBody(BaseModel):
    """What a message says of a job; the links lead to the rest."""

    job: str
    kind: Literal["verify", "radius"]
    model: ModelId
    state: Literal["running", "succeeded", "failed", "canceled", "expired"]
    verdict: Literal["certified", "violated", "undecided"] | None
    bound: float | None
    certificate: str | None
    error: str | None = Field(description="its code")
    links: dict[str, str] = Field(
        description="paths of this service; URLs where its operator has said what it is reached at"
    )


class WebhookMessageBody(BaseModel):
    """What a receiver is sent."""

    type: EventName
    timestamp: datetime
    data: JobNewsBody | dict[str, object]
