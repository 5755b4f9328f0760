"""The JSON of the interface as pydantic models: what `openapi.yaml` and the schemas say.

They state shape and types. Whether a request makes sense is decided by
`verifier.request_json.parse_request`, for REST, CLI and library alike; a test keeps the two equal.
"""

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from service.schemas.conditions import PROPERTY, REQUEST, demanding

NormName: TypeAlias = Literal["l1", "l2", "linf"]
Index: TypeAlias = Annotated[int, Field(ge=0, strict=True)]
Number: TypeAlias = Annotated[float, Field(allow_inf_nan=False, strict=True)]
Positive: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
NotNegative: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Vector: TypeAlias = Annotated[list[Number], Field(min_length=1)]
Indices: TypeAlias = Annotated[list[Index], Field(min_length=1)]
Name: TypeAlias = Annotated[str, Field(min_length=1)]
Size: TypeAlias = Annotated[int, Field(ge=1, lt=2**31, strict=True)]  #: of one dimension
ModelId: TypeAlias = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
LabelName: TypeAlias = Annotated[str, Field(pattern=r"^[^:\x00-\x1f]{1,100}$")]
LabelValue: TypeAlias = Annotated[str, Field(pattern=r"^[^\x00-\x1f]{0,200}$")]
LabelText: TypeAlias = Annotated[str, Field(pattern=r"^[^:\x00-\x1f]{1,100}:[^\x00-\x1f]{0,200}$")]
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


class NamesBody(Body):
    """Whole outputs of the model, jointly, by name."""

    names: Annotated[list[Name], Field(min_length=1)]


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
    """Sizes of symbolic dimensions, and inputs that are held constant, by name."""

    shapes: dict[str, Size] = Field(default_factory=dict[str, int])
    values: dict[str, Number | Vector] = Field(
        default_factory=dict[str, float | list[float]],
        description="flat and row-major; each number is rounded to the input's type",
    )


class PropertyBody(Body):
    """What is asked of f over the region: its Lipschitz constant, its Jacobian, or a sign of it."""

    model_config = demanding(PROPERTY)

    kind: Literal["lipschitz", "jacobian", "monotone"] = "lipschitz"
    scope: Annotated[
        Literal["global", "local"] | None,
        WithJsonSchema({"type": "string", "enum": ["global", "local"]}),
    ] = Field(default=None, description="default: local with a region, global without")
    norm: NormName | NormPairBody | None = Field(
        default="l2", description="of kind lipschitz alone; elsewhere it has no effect"
    )
    region: CenterBoxBody | EndsBoxBody | BallBody | CenterBoxesBody | BallsBody | None = None
    inputs: Literal["all"] | IndicesBody = "all"
    outputs: Literal["all"] | IndicesBody | NamesBody | EachBody | MarginsBody = "all"
    monotone: MonotoneBody | None = Field(default=None, description="of kind monotone alone")
    bind: BindBody = Field(default_factory=BindBody)

    @model_validator(mode="after")
    def _fits_its_kind(self) -> "PropertyBody":
        if self.scope is None and "scope" in self.model_fields_set:
            raise ValueError("scope is null")
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

    model_config = demanding(REQUEST)

    property: PropertyBody = Field(default_factory=PropertyBody)
    method: Literal["auto", "product", "lipsdp", "propagation"] = "auto"
    options: dict[str, Option] = Field(default_factory=dict[str, Option])
    budget: BudgetBody = Field(default_factory=BudgetBody)
    target: TargetBody | None = None
    semantics: Literal["real", "real-idealised"] = "real"

    @model_validator(mode="after")
    def _bounds_something(self) -> "RequestBody":
        bounds = self.target is not None or self.method in ("product", "lipsdp")
        if self.property.kind != "lipschitz" and bounds:
            raise ValueError(f"kind {self.property.kind} has no bound")
        return self
