"""One operator met with its operands: what every rule of the importer is given."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from verifier.errors import InvalidAttribute
from verifier.onnx_import.values import Blocked, Code, Constant, Opaque, Shape, Signal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from verifier.onnx_import.reader import AttributeValue, Operator
    from verifier.onnx_import.values import Value


_T = TypeVar("_T")


class Unrepresented(Exception):
    """An operator has no place in a network; refused only if the output needs it."""

    def __init__(self, reason: Blocked) -> None:
        super().__init__(reason.detail)
        self.reason = reason


@dataclass(slots=True)
class Attributes:
    """An operator's attributes; what no rule asks for is unknown, and refused at the end."""

    node: str
    values: Mapping[str, AttributeValue]
    asked: set[str] = field(default_factory=set[str])

    def integer(self, name: str, default: int | None = None) -> int:
        """An INT attribute."""
        return self._get(name, int, default)

    def optional_integer(self, name: str) -> int | None:
        """An INT attribute that may be absent without a default."""
        self.asked.add(name)
        return self._get(name, int, None) if name in self.values else None

    def number(self, name: str, default: float | None = None) -> float:
        """A FLOAT attribute; the default as the float32 number of the specification."""
        return self._get(name, float, None if default is None else float(np.float32(default)))

    def text(self, name: str, default: str | None = None) -> str:
        """A STRING attribute."""
        return self._get(name, str, default)

    def integers(self, name: str) -> tuple[int, ...] | None:
        """An INTS attribute, None where it is absent."""
        self.asked.add(name)
        value = self.values.get(name)
        if value is None:
            return None
        numbers = value if isinstance(value, tuple) else (value,)
        whole = tuple(number for number in numbers if isinstance(number, int))
        if len(whole) < len(numbers) or not isinstance(value, tuple):
            raise self.invalid(name, "is no list of integers")
        return whole

    def floats(self, name: str) -> tuple[float, ...] | None:
        """A FLOATS attribute, None where it is absent."""
        self.asked.add(name)
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, tuple) or any(isinstance(number, str) for number in value):
            raise self.invalid(name, "is no list of numbers")
        return tuple(float(number) for number in value)

    def texts(self, name: str) -> tuple[str, ...] | None:
        """A STRINGS attribute, None where it is absent."""
        self.asked.add(name)
        value = self.values.get(name)
        if value is None:
            return None
        found = tuple(t for t in value if isinstance(t, str)) if isinstance(value, tuple) else ()
        if not isinstance(value, tuple) or len(found) < len(value):
            raise self.invalid(name, "is no list of strings")
        return found

    def tensor(self, name: str) -> Constant | None:
        """A TENSOR attribute, None where it is absent."""
        self.asked.add(name)
        value = self.values.get(name)
        if value is not None and not isinstance(value, Constant):
            raise self.invalid(name, "is no tensor")
        return value

    def ignore(self, *names: str) -> None:
        """Attributes that have no effect in inference."""
        self.asked |= set(names)

    def check_all_known(self) -> None:
        """Refuses what no rule has asked for."""
        unknown = sorted(self.values.keys() - self.asked)
        if unknown:
            raise self.invalid(unknown[0], "is unknown to this operator at this opset")

    def invalid(self, name: str, what: str) -> InvalidAttribute:
        """The refusal of one attribute."""
        return InvalidAttribute(
            f"node {self.node!r}: attribute {name!r} {what}",
            node=self.node,
            fix="export the model again with a current exporter",
        )

    def _get(self, name: str, kind: type[_T], default: _T | None) -> _T:
        self.asked.add(name)
        value = self.values.get(name, default)
        if value is None:
            raise self.invalid(name, "is missing")
        if not isinstance(value, kind):
            raise self.invalid(name, f"is no {kind.__name__}")
        return value


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """An operator, its operands and attributes."""

    operator: Operator
    inputs: tuple[Value | None, ...]
    attributes: Attributes
    opset: int

    @property
    def op(self) -> str:
        """The operator's type."""
        return self.operator.op

    @property
    def name(self) -> str:
        """The node, for messages."""
        return self.operator.name

    @property
    def output(self) -> str:
        """The first tensor that leaves, which names the network's node."""
        return self.operator.outputs[0]

    def input(self, place: int) -> Value | None:
        """An operand, or None where it is left out."""
        return self.inputs[place] if place < len(self.inputs) else None

    def signal(self, place: int) -> Signal:
        """An operand that depends on the input."""
        value = self.input(place)
        if isinstance(value, Signal):
            return value
        raise self.unsupported(f"operand {place} is {'missing' if value is None else 'constant'}")

    def array(self, place: int) -> np.ndarray:
        """A constant operand."""
        value = self.input(place)
        if isinstance(value, Constant):
            return value.array
        raise self.unsupported(f"operand {place} is no constant")

    def optional_array(self, place: int) -> np.ndarray | None:
        """A constant operand that may be left out."""
        return None if self.input(place) is None else self.array(place)

    def integers(self, place: int) -> tuple[int, ...] | None:
        """A constant operand of integers, None where it is left out."""
        array = self.optional_array(place)
        return None if array is None else tuple(int(number) for number in array.reshape(-1))

    def shape(self, place: int) -> Shape:
        """The shape of an operand."""
        value = self.input(place)
        if value is None or value.shape is None:
            raise self.unsupported(f"the shape of operand {place} is not known")
        return value.shape

    def blocked(self, code: Code, what: str, fix: str) -> Unrepresented:
        """The answer that this operator takes from the model."""
        detail = f"node {self.name!r} ({self.op}): {what}"
        return Unrepresented(Blocked(self.name, self.op, code, detail, fix))

    def unsupported(self, what: str) -> Unrepresented:
        """This use of the operator has no rule."""
        return self.blocked(
            "unsupported-op",
            f"{what}, and for that there is no rule",
            "export the layer with supported operators (README, 'What is supported')",
        )

    def opaque_inputs(self) -> list[Opaque]:
        """Operands that are blocked."""
        return [value for value in self.inputs if isinstance(value, Opaque)]
