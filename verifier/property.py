"""What is asked: a property of a model, how to look for it, and when to stop.

Frozen, validated once, and the same JSON as in the interface. Parsing lives in `request_json`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from verifier.errors import InvalidRequest
from verifier.norms import Norm, NormPair, Norms
from verifier.regions import Centers, Everywhere, Place, Region

Kind: TypeAlias = Literal["lipschitz", "jacobian", "monotone"]
Direction: TypeAlias = Literal["increasing", "decreasing"]
Scope: TypeAlias = Literal["global", "local"]
Method: TypeAlias = Literal["auto", "product", "lipsdp", "propagation"]
#: real: of the file's function; real-idealised: of it without its known small jumps
Semantics: TypeAlias = Literal["real", "real-idealised"]
OptionValue: TypeAlias = str | int | float | bool


@dataclass(frozen=True, slots=True)
class All:
    """Every coordinate, jointly."""


@dataclass(frozen=True, slots=True)
class Indices:
    """Some coordinates, jointly, in the flat row-major order."""

    indices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Names:
    """Whole outputs of the file, jointly, by name."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Each:
    """Every output by itself: a list of bounds."""


@dataclass(frozen=True, slots=True)
class Margins:
    """Differences f_i - f_j, each by itself: a list of bounds. None: all pairs i < j."""

    pairs: tuple[tuple[int, int], ...] | None


Inputs: TypeAlias = All | Indices
Outputs: TypeAlias = All | Indices | Names | Each | Margins


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """What has to be fixed before a file denotes one function, by name and sorted.

    An input with values is a constant, and no part of the flat input; each number stands for the
    nearest one of the input's type. A symbolic leading dimension that is not named is 1.
    """

    shapes: tuple[tuple[str, int], ...] = ()  #: symbolic dimensions
    values: tuple[tuple[str, tuple[float, ...]], ...] = ()  #: inputs, flat and row-major


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
    bind: Bind = field(default_factory=Bind)

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

    def located(self, places: Mapping[str, tuple[int, int]]) -> Property:
        """The same with outputs by index instead of by name.

        Args:
            places: where each output of the file starts and ends in the flat output.

        Raises:
            InvalidRequest: the file has no output of such a name.
        """
        if not isinstance(self.outputs, Names):
            return self
        for name in self.outputs.names:
            if name not in places:
                raise InvalidRequest(
                    f"the model has no output {name[:100]!r}",
                    fix=f"name one of {', '.join(sorted(places)[:20])}",
                    pointer="/property/outputs/names",
                )
        ranges = (range(*places[name]) for name in self.outputs.names)
        return replace(self, outputs=Indices(tuple(i for part in ranges for i in part)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Which function of a file is meant."""

    bind: Bind = field(default_factory=Bind)
    outputs: Outputs = field(default_factory=All)  #: what none of them needs is not looked at
    freezes: bool = False  #: whether weights that a caller may replace count as they are stored
    #: whether functions that jump, and are known, stand for the continuous ones next to them
    idealises: bool = False

    @staticmethod
    def of(asked: Property, *, freezes: bool, idealises: bool = False) -> Reading:
        """The function that a property is about."""
        outputs = asked.entries.outputs
        return Reading(bind=asked.bind, outputs=outputs, freezes=freezes, idealises=idealises)

    def chosen(self, sizes: Mapping[str, int | None]) -> frozenset[str]:
        """The outputs that count, of all outputs with the sizes that a file declares.

        Where an index is given and a size is not known, it may mean any of them.

        Raises:
            InvalidRequest: there is no output of a name.
        """
        places: dict[str, tuple[int, int]] = {}
        end = 0
        for name, size in sizes.items():
            places[name] = (end, end + (size or 0))
            end += size or 0
        match self.outputs:
            case Names(names):
                Property(outputs=self.outputs).located(places)
                return frozenset(names)
            case Indices(indices):
                wanted = set(indices)
            case Margins(pairs) if pairs is not None:
                wanted = {index for pair in pairs for index in pair}
            case _:
                return frozenset(sizes)
        if None in sizes.values() or not all(index < end for index in wanted):
            return frozenset(sizes)
        return frozenset(
            name
            for name, (first, last) in places.items()
            if any(first <= index < last for index in wanted)
        )

    def counted(self, names: Sequence[str], chosen: Collection[str]) -> tuple[str, ...]:
        """The outputs whose sizes indices rest on, where one of them is not read itself.

        Args:
            names: all outputs, in the file's order.
            chosen: those that count.
        """
        if not isinstance(self.outputs, Indices | Margins):
            return ()
        last = max((place for place, name in enumerate(names) if name in chosen), default=0)
        before = tuple(names[:last])
        return () if set(before) <= set(chosen) else before


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
    semantics: Semantics = "real"  #: whether nodes that jump may be idealised
