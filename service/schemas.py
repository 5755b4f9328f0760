"""The JSON of the interface as pydantic models: what `openapi.yaml` and the schemas say.

They state shape and types. Whether a request makes sense is decided by
`verifier.request_json.parse_request`, for REST, CLI and library alike; a test keeps the two equal.
"""

from datetime import datetime
from typing import Annotated, Literal, TypeAlias

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from service.access import Scope

NormName: TypeAlias = Literal["l1", "l2", "linf"]
Index: TypeAlias = Annotated[int, Field(ge=0, strict=True)]
Number: TypeAlias = Annotated[float, Field(allow_inf_nan=False, strict=True)]
Positive: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
NotNegative: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Vector: TypeAlias = Annotated[list[Number], Field(min_length=1)]
Indices: TypeAlias = Annotated[list[Index], Field(min_length=1)]
ModelId: TypeAlias = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Option: TypeAlias = str | int | float | bool


class Body(BaseModel):
    """What a client sends: unknown members are refused."""

    model_config = ConfigDict(extra="forbid")


class WeightsBody(Body):
    """|w o x|_p: a number above 0 for each input of the model, chosen or not."""

    type: NormName
    weights: Annotated[list[Positive], Field(min_length=1)]


class MatrixBody(Body):
    """sqrt(x'Px), P symmetric and positive definite: a row for each input of the model."""

    type: Literal["l2"]
    matrix: Annotated[list[Vector], Field(min_length=1)]


class NormPairBody(Body):
    """The norm of input increments and the norm of output increments."""

    input: NormName | WeightsBody | MatrixBody
    output: NormName


class ClipBody(Body):
    """The input domain that a region is intersected with."""

    lower: Number
    upper: Number


class CenterBoxBody(Body):
    """|x_k - center_k| <= radius_k. One radius stands for all."""

    type: Literal["box"]
    center: Vector
    radius: Positive | Annotated[list[NotNegative], Field(min_length=1)]
    clip: ClipBody | None = None


class EndsBoxBody(Body):
    """lower_k <= x_k <= upper_k. Equal ends: that coordinate does not vary."""

    type: Literal["box"]
    lower: Vector
    upper: Vector
    clip: ClipBody | None = None


class BallBody(Body):
    """|x - center|_norm <= radius; `clip` holds the center."""

    type: Literal["ball"]
    norm: NormName
    center: Vector
    radius: Positive
    clip: ClipBody | None = None


Centers: TypeAlias = Annotated[list[Vector], Field(min_length=1, description="of one length")]


class CenterBoxesBody(Body):
    """A box around each of many centers: a list of bounds, center by center."""

    type: Literal["box"]
    centers: Centers
    radius: Positive | Annotated[list[NotNegative], Field(min_length=1)]
    clip: ClipBody | None = None


class BallsBody(Body):
    """A ball around each of many centers: a list of bounds, center by center."""

    type: Literal["ball"]
    norm: NormName
    centers: Centers
    radius: Positive
    clip: ClipBody | None = None


class IndicesBody(Body):
    """Some coordinates, jointly, in the flat row-major order."""

    indices: Indices


class EachBody(Body):
    """Every output by itself."""

    each: Literal[True]


class MarginsBody(Body):
    """Differences f_i - f_j, each by itself; "all": every pair i < j."""

    margins: (
        Literal["all"]
        | Annotated[
            list[Annotated[list[Index], Field(min_length=2, max_length=2)]], Field(min_length=1)
        ]
    )


class MonotoneBody(Body):
    """One output never moves against the direction when one input alone grows."""

    input: Index
    output: Index
    direction: Literal["increasing", "decreasing"]


class BindBody(Body):
    """Bindings of symbolic dimensions and constant inputs; none are supported yet."""

    shapes: dict[str, object] = Field(default_factory=dict[str, object], max_length=0)
    values: dict[str, object] = Field(default_factory=dict[str, object], max_length=0)


class PropertyBody(Body):
    """What is asked of f over the region: its Lipschitz constant, its Jacobian, or a sign of it."""

    kind: Literal["lipschitz", "jacobian", "monotone"] = "lipschitz"
    scope: Literal["global", "local"] | None = Field(
        default=None, description="default: local with a region, global without"
    )
    norm: NormName | NormPairBody | None = Field(
        default="l2", description="of kind lipschitz alone; elsewhere it has no effect"
    )
    region: CenterBoxBody | EndsBoxBody | BallBody | CenterBoxesBody | BallsBody | None = None
    inputs: Literal["all"] | IndicesBody = "all"
    outputs: Literal["all"] | IndicesBody | EachBody | MarginsBody = "all"
    monotone: MonotoneBody | None = Field(default=None, description="of kind monotone alone")
    bind: BindBody = Field(default_factory=BindBody)

    @model_validator(mode="after")
    def _fits_its_kind(self) -> "PropertyBody":
        is_many = isinstance(self.region, CenterBoxesBody | BallsBody)
        selects = self.inputs != "all" or self.outputs != "all"
        is_misfit = {
            "lipschitz": self.norm is None,
            "jacobian": isinstance(self.outputs, EachBody | MarginsBody),
            "monotone": selects,
        }[self.kind]
        if is_many and self.kind != "lipschitz":
            raise ValueError(f"kind {self.kind} has one region")
        if is_misfit or (self.kind == "monotone") != (self.monotone is not None):
            raise ValueError(f"a member does not fit kind {self.kind}")
        return self


class BudgetBody(Body):
    """When to stop looking: at the first that is reached."""

    seconds: Positive = 60.0
    gap: NotNegative = 0.01


class TargetBody(Body):
    """Stop as soon as "is the constant <= upper?" is answered."""

    upper: NotNegative


class RequestBody(Body):
    """A property, the method to look with, and the budget: what `--spec` files hold, too."""

    property: PropertyBody = Field(default_factory=PropertyBody)
    method: Literal["auto", "product", "lipsdp", "propagation"] = "auto"
    options: dict[str, Option] = Field(default_factory=dict[str, Option])
    budget: BudgetBody = Field(default_factory=BudgetBody)
    target: TargetBody | None = None

    @model_validator(mode="after")
    def _bounds_something(self) -> "RequestBody":
        bounds = self.target is not None or self.method in ("product", "lipsdp")
        if self.property.kind != "lipschitz" and bounds:
            raise ValueError(f"kind {self.property.kind} has no bound")
        return self


def _require_text(value: object) -> object:
    """Pydantic would read a number as seconds since 1970."""
    if not isinstance(value, str):
        raise ValueError("expected text")  # noqa: TRY004 - what pydantic turns into a refusal
    return value


class EnvelopeBody(Body):
    """What a submission says besides the request."""

    model: ModelId | None = Field(default=None, description="left out in a multipart body")
    labels: dict[str, Annotated[str, Field(max_length=200)]] = Field(
        default_factory=dict[str, str], max_length=20
    )
    priority: Annotated[int, Field(ge=-100, le=100, strict=True)] = 0
    deadline: Annotated[AwareDatetime, BeforeValidator(_require_text)] | None = Field(
        default=None, description="RFC 3339 with an offset; after it nobody wants the answer"
    )


class SubmissionBody(RequestBody, EnvelopeBody):
    """A request for a job."""


class QuestionBody(Body):
    """Which balls around points keep their label: the largest is looked for."""

    centers: Centers
    norm: Literal["l2", "linf"] = "linf"
    label: Index | None = Field(
        default=None, description="of all points; default: the greatest output of each"
    )
    clip: ClipBody | None = Field(default=None, description="the input domain, for linf")
    seconds: Positive = Field(default=60.0, description="for all points together")


class ResumeBody(Body):
    """How far to go on; members of the budget that are left out are those of the job."""

    budget: BudgetBody = Field(default_factory=BudgetBody)


class RadiusBody(QuestionBody, EnvelopeBody):
    """A question for a job."""


# --- answers -------------------------------------------------------------------------------------


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
    errors: list[dict[str, str]] | None = None


class ErrorBody(BaseModel):
    """Why a model was refused or a job failed."""

    code: str
    title: str
    detail: str
    node: str | None
    fix: str
    pointer: str | None = None


class ModelBody(BaseModel):
    """A model and what reading it brought."""

    id: ModelId
    state: Literal["received", "ready", "refused"]
    size: int
    created: datetime
    summary: dict[str, object] | None
    error: ErrorBody | None


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


class EstimateBody(BaseModel):
    """What `validate_only` answers: the request as understood, nothing stored."""

    valid: Literal[True]
    model: ModelId
    request: dict[str, object]
    inputs: int | None
    outputs: int | None


class CertificateSummaryBody(BaseModel):
    """A certificate in a list."""

    id: str
    model: ModelId
    kind: str
    scope: str
    size: int
    created: datetime
    bound: float | None
    log10_bound: float | None
    lower: float | None
    soundness: str
    proof: str


class CheckBody(Body):
    """A certificate to check again. Without `model` it is checked against the model it names."""

    certificate: dict[str, object] = Field(description="bare, or in a signed envelope")
    model: ModelId | None = None


class SignatureBody(BaseModel):
    """Who signed an envelope."""

    keyid: str
    state: Literal["current", "retired", "not yet valid"] | None = Field(
        description="of the key; null: none that this service trusts has signed"
    )


class PublicKeyBody(BaseModel):
    """A key that verifies what this service signed."""

    keyid: str
    type: Literal["ed25519"]
    public_key: str = Field(description="base64 of 32 bytes")
    not_before: datetime | None
    not_after: datetime | None


class PublicKeysBody(BaseModel):
    """The key set of this service, the retired keys too."""

    keys: list[PublicKeyBody]


class CheckAnswerBody(BaseModel):
    """What the independent checker says."""

    valid: bool
    digest: str | None = Field(description="the certificate's id; null where it is malformed")
    reason: str
    code: str
    signature: SignatureBody | None = Field(description="null where no envelope was given")


class ModelListBody(BaseModel):
    """A page of models."""

    items: list[ModelBody]
    next_cursor: str | None


class JobListBody(BaseModel):
    """A page of jobs."""

    items: list[JobBody]
    next_cursor: str | None


class CertificateListBody(BaseModel):
    """A page of certificates."""

    items: list[CertificateSummaryBody]
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
    migration: str | None
    blobs: bool
    dispatcher: bool
    executor: dict[str, object] | None
    telemetry: Literal["off"]
    sandbox: str


class NewKeyBody(Body):
    """An API key to be made."""

    scope: Scope = Field(description="each allows what stands before it too")
    label: Annotated[str, Field(max_length=200)] = ""
    expires: AwareDatetime | None = None


class KeyBody(BaseModel):
    """An API key; its text is in the answer that makes it, and nowhere else."""

    id: str
    scope: Scope
    label: str
    created: datetime
    expires: datetime | None
    revoked: datetime | None
    last_used: datetime | None = Field(description="to the hour")


class MadeKeyBody(KeyBody):
    """A new API key, with its text."""

    key: str


class KeyListBody(BaseModel):
    """A page of API keys."""

    items: list[KeyBody]
    next_cursor: str | None
