"""What is asked: a property of a model, how to look for it, and when to stop.

Frozen, validated once, and the same JSON as in the interface. Parsing lives in `request_json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from verifier.norms import Norm, NormPair, Norms
from verifier.regions import Centers, Everywhere, Place, Region

Kind: TypeAlias = Literal["lipschitz", "jacobian", "monotone"]
Direction: TypeAlias = Literal["increasing", "decreasing"]
Scope: TypeAlias = Literal["global", "local"]
Method: TypeAlias = Literal["auto", "product", "lipsdp", "propagation"]
OptionValue: TypeAlias = str | int | float | bool


@dataclass(frozen=True, slots=True)
class All:
    """Every coordinate, jointly."""


@dataclass(frozen=True, slots=True)
class Indices:
    """Some coordinates, jointly, in the flat row-major order."""

    indices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Each:
    """Every output by itself: a list of bounds."""


@dataclass(frozen=True, slots=True)
class Margins:
    """Differences f_i - f_j, each by itself: a list of bounds. None: all pairs i < j."""

    pairs: tuple[tuple[int, int], ...] | None


Inputs: TypeAlias = All | Indices
Outputs: TypeAlias = All | Indices | Each | Margins


@dataclass(frozen=True, slots=True, kw_only=True)
class Monotone:
    """One output never moves against the direction when one input alone grows."""

    input: int
    output: int
    direction: Direction


@dataclass(frozen=True, slots=True, kw_only=True)
class Property:
    """What is asked of f over the region.

    lipschitz   the L of |f(x) - f(y)|_out <= L |x - y|_in for all x, y of the region
    jacobian    an interval for every entry of the Clarke Jacobian at the points of the region
    monotone    whether `monotone` holds between all points of the region
    """

    kind: Kind = "lipschitz"
    scope: Scope = "global"
    norm: Norms = field(default_factory=lambda: NormPair(Norm.L2, Norm.L2))
    region: Region = field(default_factory=Everywhere)
    inputs: Inputs = field(default_factory=All)
    outputs: Outputs = field(default_factory=All)
    monotone: Monotone | None = None  #: of that kind alone

    def __post_init__(self) -> None:
        if (self.kind == "monotone") != (self.monotone is not None):
            raise ValueError("`monotone` belongs to properties of that kind, and to no others")

    @property
    def place(self) -> Place:
        """The one region; a property of many centers is asked about one of `parts` at a time."""
        if isinstance(self.region, Centers):
            raise TypeError("the property has a region around each of many centers")
        return self.region

    @property
    def parts(self) -> tuple[Property, ...]:
        """The property of every center; of one region the property itself."""
        if not isinstance(self.region, Centers):
            return (self,)
        return tuple(replace(self, region=part) for part in self.region.parts)

    @property
    def entries(self) -> Property:
        """The same with the inputs and outputs whose entries of the Jacobian are asked about."""
        if self.monotone is None:
            return self
        chosen = Indices((self.monotone.input,)), Indices((self.monotone.output,))
        return replace(self, inputs=chosen[0], outputs=chosen[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """When to stop looking: at the first that is reached."""

    seconds: float = 60.0  #: wall-clock seconds of work
    gap: float = 0.01  #: bound / lower bound - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A property, the method to look with, and the budget. Of which model, is said elsewhere."""

    property: Property = field(default_factory=Property)
    method: Method = "auto"
    options: Mapping[str, OptionValue] = field(default_factory=dict[str, OptionValue])
    budget: Budget = field(default_factory=Budget)
    target: float | None = None  #: stop as soon as "is the constant <= target?" is answered
