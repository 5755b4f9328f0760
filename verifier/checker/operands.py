"""What a node works on: constants with their errors, signals, attributes; and the node's own words.

A `Constant` is a pair (W, E) of rigour: |W_true - W| <= E entrywise, E None where it is exact. A
`Signal` depends on the network's input: the flat row-major entries of a network node, in a shape.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, TypeAlias

import numpy as np

from verifier.checker.tensors import FLOATS, MAX_AXES, Gapped, Tensor
from verifier.errors import (
    DtypeUnsupported,
    ExpansionTooLarge,
    InvalidAttribute,
    NonFiniteWeights,
    NotCheckable,
    ShapeMismatch,
)

if TYPE_CHECKING:
    from verifier.checker.nodes import Attribute, Node

MAX_CONSTANT = 2**24  #: entries of one folded value
MAX_SIGNAL = 2**24  #: entries of one signal
MAX_FOLDED = 2**26  #: entries of all folded constants together
MAX_INTEGER = 2**53  #: exact in float64 too, and far from where int64 wraps


@dataclass(frozen=True, eq=False)
class Constant:
    """A value that the file fixes."""

    value: np.ndarray  #: float64, int64 or bool
    dtype: str
    error: np.ndarray | None = None

    def __post_init__(self) -> None:
        # numpy answers with scalars where arrays have no axes.
        object.__setattr__(self, "value", np.asarray(self.value))
        if self.error is not None:
            error = np.broadcast_to(np.asarray(self.error), self.value.shape)
            object.__setattr__(self, "error", error)

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""
        return self.value.shape

    @property
    def spread(self) -> np.ndarray:
        """E, zeros where the value is exact."""
        return np.zeros(self.shape) if self.error is None else self.error


@dataclass(frozen=True)
class Signal:
    """A value that depends on the input: a network node's entries in a shape."""

    source: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """The number of entries."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Grid:
    """The numbers step (q - zero) that integers q with least <= q <= greatest count."""

    step: float
    zero: int
    least: int
    greatest: int
    kind: str  #: the type of the integers

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the greatest of the numbers, exact for a step of 24 bits."""
        return self.step * (self.least - self.zero), self.step * (self.greatest - self.zero)


@dataclass(frozen=True)
class Stepped:
    """Integers that depend on the input: the signal is what they count, before it is rounded."""

    signal: Signal
    grid: Grid

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""
        return self.signal.shape

    @property
    def dtype(self) -> str:
        """The type of the integers."""
        return self.grid.kind


@dataclass(frozen=True, eq=False)
class Masked:
    """A value that is minus infinity somewhere: only `masks` takes it."""

    inner: Constant | Signal  #: the numbers elsewhere; without meaning there
    keeps: np.ndarray  #: true elsewhere

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""
        return self.inner.shape

    @property
    def dtype(self) -> str:
        """Its type."""
        return self.inner.dtype


@dataclass(frozen=True, eq=False)
class Symbols:
    """A value inside a pattern: what each entry is, in the terms of that pattern."""

    array: np.ndarray
    dtype: str

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""
        return self.array.shape


Operand: TypeAlias = "Constant | Signal"
Value: TypeAlias = "Constant | Signal | Stepped | Masked"
Anything: TypeAlias = "Constant | Signal | Stepped | Symbols | Masked"


class Call:
    """A node with its operands. Every attribute has to be asked for: what is left is unknown."""

    def __init__(self, node: Node, opset: int, operands: Sequence[Anything | None]) -> None:
        self.node = node
        self.opset = opset
        self.operands = tuple(operands)
        self._asked: set[str] = set()

    def on(self, operands: Sequence[Anything | None], node: Node | None = None) -> Call:
        """The node, or another of its attributes, on other operands; they share what is asked."""
        other = Call(node or self.node, self.opset, operands)
        other._asked = self._asked
        return other

    # --- Refusals --------------------------------------------------------------------------------

    def not_checkable(self, what: str) -> NoReturn:
        """Raise NotCheckable for this node."""
        raise NotCheckable(
            f"{self.node.op}: {what}", fix="see which operators the checker reads",
            node=self.node.name,
        )  # fmt: skip

    def not_finite(self) -> NonFiniteWeights:
        """The refusal of minus infinity where only finite numbers are read."""
        return NonFiniteWeights(
            f"{self.node.op} of minus infinity, which only the mask of a softmax may have",
            fix="export finite weights",
            node=self.node.name,
        )

    def invalid(self, what: str) -> NoReturn:
        """Raise InvalidAttribute for this node."""
        raise InvalidAttribute(f"{self.node.op}: {what}", fix="export again", node=self.node.name)

    def mismatch(self, what: str) -> NoReturn:
        """Raise ShapeMismatch for this node."""
        raise ShapeMismatch(f"{self.node.op}: {what}", fix="export again", node=self.node.name)

    # --- Operands --------------------------------------------------------------------------------

    def any_operand(self, place: int) -> Anything:
        """The operand, also one inside a pattern. Raises InvalidAttribute where it is absent."""
        found = self.operands[place] if place < len(self.operands) else None
        if found is None:
            self.invalid(f"operand {place} is absent")
        return found

    def optional(self, place: int) -> Operand | None:
        """The operand, or None where it is absent."""
        found = self.operands[place] if place < len(self.operands) else None
        if isinstance(found, Symbols):
            self.not_checkable(f"operand {place} depends on the input")
        if isinstance(found, Stepped):
            self.not_checkable(f"operand {place} is of integers that depend on the input")
        if isinstance(found, Masked):
            raise self.not_finite()
        return found

    def operand(self, place: int) -> Operand:
        """The operand. Raises InvalidAttribute where it is absent."""
        found = self.optional(place)
        if found is None:
            self.invalid(f"operand {place} is absent")
        return found

    def signal(self, place: int) -> Signal:
        """The operand, which has to depend on the input."""
        found = self.operand(place)
        if not isinstance(found, Signal):
            self.not_checkable(f"operand {place} is a constant")
        return found

    def constant(self, place: int) -> Constant:
        """The operand, which must not depend on the input."""
        found = self.operand(place)
        if not isinstance(found, Constant):
            self.not_checkable(f"operand {place} depends on the input")
        return found

    def integers(self, place: int) -> tuple[int, ...]:
        """The operand's integers: a constant of at most one axis."""
        found = self.constant(place)
        if found.dtype not in ("int64", "int32") or found.value.ndim > 1:
            self.invalid(f"operand {place} is no list of integers")
        return tuple(int(i) for i in found.value.reshape(-1))

    def exact(self, place: int) -> Constant:
        """The operand, a constant that is exact."""
        found = self.constant(place)
        if found.error is not None and np.any(found.error):
            self.not_checkable(f"operand {place} is rounded where an exact value is needed")
        return found

    def scalar(self, place: int) -> float:
        """The operand, one exact number."""
        found = self.exact(place)
        if found.value.size != 1:
            self.invalid(f"operand {place} is not one number")
        number = found.value.reshape(()).item()
        if float(number) != number:
            self.not_checkable(f"operand {place} is {number}, which float64 rounds")
        return float(number)

    def arity(self, least: int, most: int) -> None:
        """Check how many operands there are, the first `least` of them present."""
        if not least <= len(self.operands) <= most:
            self.invalid(f"{len(self.operands)} operands")
        for place in range(least):
            self.any_operand(place)

    def one_float_type(self) -> str:
        """The float type that all operands have. Raises DtypeUnsupported where they differ."""
        found = {operand.dtype for operand in self.operands if operand is not None}
        if len(found) != 1 or not found <= set(FLOATS):
            raise DtypeUnsupported(
                f"{self.node.op} of {sorted(found)}", fix="use one float type", node=self.node.name
            )
        return found.pop()

    # --- Attributes ------------------------------------------------------------------------------

    def _attribute(self, name: str) -> Attribute | None:
        self._asked.add(name)
        return self.node.attributes.get(name)

    def has(self, name: str) -> bool:
        """Whether the attribute is given."""
        return self._attribute(name) is not None

    def integer(self, name: str, absent: int) -> int:
        """An integer attribute."""
        found = self._attribute(name)
        if found is not None and not isinstance(found, int):
            self.invalid(f"{name} is no integer")
        return absent if found is None else found

    def number(self, name: str, absent: float) -> float:
        """A float attribute: the exact number that its bits denote."""
        found = self._attribute(name)
        if found is not None and not isinstance(found, float):
            self.invalid(f"{name} is no float")
        return absent if found is None else found

    def string(self, name: str, absent: str) -> str:
        """A string attribute."""
        found = self._attribute(name)
        if found is not None and not isinstance(found, str):
            self.invalid(f"{name} is no string")
        return absent if found is None else found

    def list_of_integers(self, name: str) -> tuple[int, ...] | None:
        """A list of integers, None where it is absent."""
        found = self._attribute(name)
        if found is None:
            return None
        if not isinstance(found, tuple) or not all(isinstance(i, int) for i in found):
            self.invalid(f"{name} is no list of integers")
        return tuple(int(i) for i in found)

    def list_of_numbers(self, name: str) -> tuple[float, ...] | None:
        """A list of floats, None where it is absent."""
        found = self._attribute(name)
        if found is None:
            return None
        if not isinstance(found, tuple) or any(isinstance(i, str) for i in found):
            self.invalid(f"{name} is no list of floats")
        return tuple(float(i) for i in found)

    def list_of_strings(self, name: str) -> tuple[str, ...] | None:
        """A list of strings, None where it is absent."""
        found = self._attribute(name)
        if found is None:
            return None
        if not isinstance(found, tuple) or not all(isinstance(i, str) for i in found):
            self.invalid(f"{name} is no list of strings")
        return tuple(str(i) for i in found)

    def tensor(self, name: str) -> Tensor | None:
        """A tensor attribute, None where it is absent."""
        found = self._attribute(name)
        if found is not None and not isinstance(found, Tensor):
            self.invalid(f"{name} is no tensor")
        return found

    def gapped(self, name: str) -> Gapped | None:
        """A tensor attribute that is minus infinity somewhere, None where it is not."""
        found = self._attribute(name)
        return found if isinstance(found, Gapped) else None

    def check_all_asked(self) -> None:
        """Raise InvalidAttribute where an attribute was given that nobody asked for."""
        unknown = sorted(self.node.attributes.keys() - self._asked)
        if unknown:
            self.invalid(f"unknown attribute {unknown[0]!r}")

    def moved_to_operand(self, name: str, place: int, since: int) -> tuple[int, ...] | None:
        """Integers that were an attribute before opset `since`, and are an operand from it on."""
        given = self.list_of_integers(name)
        later = self.optional(place)
        if (given is not None and self.opset >= since) or (
            later is not None and self.opset < since
        ):
            self.invalid(f"{name} is not given as opset {self.opset} wants it")
        return given if later is None else self.integers(place)

    # --- Shapes ----------------------------------------------------------------------------------

    def axis(self, value: int, rank: int) -> int:
        """The axis, counted from the front."""
        if not -rank <= value < rank:
            self.invalid(f"axis {value} of {rank}")
        return value % rank

    def axes(self, values: Sequence[int], rank: int) -> tuple[int, ...]:
        """Distinct axes, counted from the front."""
        found = tuple(self.axis(value, rank) for value in values)
        if len(set(found)) != len(found):
            self.invalid("an axis is given twice")
        return found

    def allowed(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape, if a value of it may be made."""
        if any(size < 0 for size in shape):
            self.mismatch(f"shape {tuple(shape)[:8]}")
        if math.prod(shape) > MAX_SIGNAL or MAX_AXES < len(shape):
            raise ExpansionTooLarge(
                f"{self.node.op} makes a value of shape {tuple(shape)[:8]}",
                fix="export a smaller network",
                node=self.node.name,
            )
        return tuple(shape)

    def broadcast(self, *shapes: tuple[int, ...]) -> tuple[int, ...]:
        """The common shape."""
        try:
            return self.allowed(np.broadcast_shapes(*shapes))
        except ValueError:
            self.mismatch(f"shapes {shapes}")
