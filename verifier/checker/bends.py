"""Two lines that meet where a comparison chooses between them: ReLU, leaky ReLU and the like.

    where(t < x, a x + b, c x + d),    a t + b = c t + d,

with any of the four tests, either way round, or denied. At t both lines have one value, so that it
does not matter which is taken there. The equation is one of rationals, and slopes and heights are
float64 numbers: of a function whose lines differ at t by anything nothing is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, TypeAlias

from verifier.checker.scalars import PiecewiseLinear

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from verifier.checker.reader import Node
    from verifier.checker.shrinks import Number

_GREATER = ("Greater", "GreaterOrEqual")
_LESS = ("Less", "LessOrEqual")
_DEEPEST = 6

Straight: TypeAlias = tuple[Fraction, Fraction]  # a and b of a x + b


@dataclass(frozen=True, slots=True)
class Bend:
    """The tensor that bends, the function, and the constants that must not spread it out."""

    x: str
    function: PiecewiseLinear
    constants: tuple[str, ...]


def bends(makers: Mapping[str, Node], number: Number, varying: Collection[str]) -> dict[str, Bend]:
    """By tensor, the bend that it is; only of tensors that depend on the input."""
    found = {
        name: _bend(node, makers, number, varying)
        for name, node in makers.items()
        if node.op == "Where" and len(node.inputs) == 3 and not node.attributes
    }
    return {name: bend for name, bend in found.items() if bend is not None}


def _bend(
    node: Node, makers: Mapping[str, Node], number: Number, varying: Collection[str]
) -> Bend | None:
    test, met, other = node.inputs
    denied = makers.get(test)
    if denied is not None and denied.op == "Not" and len(denied.inputs) == 1:
        test, met, other = denied.inputs[0], other, met
    compared = makers.get(test)
    if compared is None or compared.op not in _GREATER + _LESS or len(compared.inputs) != 2:
        return None
    x, limit = compared.inputs
    rises = compared.op in _GREATER
    if number(limit) is None:
        x, limit, rises = limit, x, not rises
    t = number(limit)
    if t is None or x not in varying:
        return None
    look = _Look(x, makers, number)
    right = look.straight(met if rises else other, _DEEPEST)
    left = look.straight(other if rises else met, _DEEPEST)
    if left is None or right is None or not _meet(left, right, Fraction(t)):
        return None
    pieces = tuple((float(slope), float(height)) for slope, height in (left, right))
    constants = (limit, *look.constants(met, _DEEPEST), *look.constants(other, _DEEPEST))
    return Bend(x, PiecewiseLinear(((t, t),), pieces), constants)


def _meet(left: Straight, right: Straight, t: Fraction) -> bool:
    """Whether they do at t, and are lines of float64 numbers."""
    exact = all(Fraction(float(part)) == part for part in (*left, *right))
    return exact and left[0] * t + left[1] == right[0] * t + right[1]


@dataclass(frozen=True, slots=True)
class _Look:
    """Looks back from tensors to x."""

    x: str
    makers: Mapping[str, Node]
    number: Number

    def straight(self, name: str, depth: int) -> Straight | None:
        """(a, b) where the tensor is a x + b."""
        if name == self.x:
            return Fraction(1), Fraction(0)
        stored = self.number(name)
        if stored is not None:
            return Fraction(0), Fraction(stored)
        node = self._arithmetic(name)
        if node is None or depth == 0:
            return None
        parts = [self.straight(part, depth - 1) for part in node.inputs]
        lines = [part for part in parts if part is not None]
        return _combined(node.op, lines) if len(lines) == len(parts) else None

    def constants(self, name: str, depth: int) -> list[str]:
        """The numbers that `straight` meets."""
        if name == self.x or depth < 0:
            return []
        if self.number(name) is not None:
            return [name]
        node = self._arithmetic(name)
        inputs = () if node is None else node.inputs
        return [found for part in inputs for found in self.constants(part, depth - 1)]

    def _arithmetic(self, name: str) -> Node | None:
        node = self.makers.get(name)
        return None if node is None or node.attributes else node


def _combined(op: str, parts: list[Straight]) -> Straight | None:
    """What the operator makes of lines, where that is a line."""
    match op, parts:
        case "Neg", [(a, b)]:
            return -a, -b
        case "Add", [(a, b), (c, d)]:
            return a + c, b + d
        case "Sub", [(a, b), (c, d)]:
            return a - c, b - d
        case "Mul", [(a, b), (c, d)] if not (a and c):
            return a * d + b * c, b * d
        case "Div", [(a, b), (c, d)] if not c and d:
            return a / d, b / d
        case _:
            return None
