"""Soft shrinkage written with comparisons.

For 0 < t,

    where(t < |x|, x - t sign(x), 0 x)
    where(t < x, x - t, 0) + where(x < -t, x + t, 0)

Both are x - t above t, x + t below -t and 0 between: where the branches meet they are 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from verifier.checker.reader import Node

#: The exact number that a constant tensor repeats, None where it is no such tensor.
Number: TypeAlias = Callable[[str], float | None]


def shrinks(makers: Mapping[str, Node], number: Number) -> dict[str, tuple[str, float]]:
    """By tensor, x and t."""
    look = _Look(makers, number)
    found: dict[str, tuple[str, float]] = {}
    for name, node in makers.items():
        form = look.by_sign(node) if node.op == "Where" else look.by_sides(node)
        if form is not None and form[1] > 0 and not node.attributes:
            found[name] = form
    return found


@dataclass(frozen=True, slots=True)
class _Look:
    """Looks back from a node."""

    makers: Mapping[str, Node]
    number: Number

    def by_sign(self, node: Node) -> tuple[str, float] | None:
        """The first form."""
        if len(node.inputs) != 3:
            return None
        condition, value, zero = node.inputs
        test, difference = self._two(condition, "Greater"), self._two(value, "Sub")
        if test is None or difference is None:
            return None
        x, limit = difference[0], self.number(test[1])
        if self._one(test[0], "Abs") != x or limit is None:
            return None
        moved = self._multiple(difference[1], lambda name: self._one(name, "Sign") == x)
        rest = self.number(zero)
        if rest is None:
            rest = self._multiple(zero, lambda name: name == x)
        return (x, limit) if moved == limit and rest == 0 else None

    def by_sides(self, node: Node) -> tuple[str, float] | None:
        """The second form."""
        if node.op != "Add" or len(node.inputs) != 2:
            return None
        for one, other in (node.inputs, node.inputs[::-1]):
            above, below = self._side(one, "Greater"), self._side(other, "Less")
            if above is not None and below == (above[0], -above[1]):
                return above
        return None

    def _side(self, name: str, op: str) -> tuple[str, float] | None:
        """(x, t) of where(x op t, x - t, 0)."""
        node = self.makers.get(name)
        if node is None or node.op != "Where" or len(node.inputs) != 3 or node.attributes:
            return None
        test = self._two(node.inputs[0], op)
        if test is None or self.number(node.inputs[2]) != 0:
            return None
        x, limit = test[0], self.number(test[1])
        fits = limit is not None and self._moved(node.inputs[1], x) == -limit
        return (x, limit) if fits and limit is not None else None

    def _moved(self, name: str, x: str) -> float | None:
        """C of x + c."""
        less, more = self._two(name, "Sub"), self._two(name, "Add")
        if less is not None and less[0] == x:
            taken = self.number(less[1])
            return None if taken is None else -taken
        if more is not None and x in more:
            return self.number(more[1] if more[0] == x else more[0])
        return None

    def _multiple(self, name: str, is_base: Callable[[str], bool]) -> float | None:
        """C of c times a tensor of that kind."""
        factors = self._two(name, "Mul") or ("", "")
        for base, factor in (factors, factors[::-1]):
            if base and is_base(base):
                return self.number(factor)
        return None

    def _one(self, name: str, op: str) -> str | None:
        node = self.makers.get(name)
        fits = node is not None and node.op == op and len(node.inputs) == 1
        return node.inputs[0] if node is not None and fits and not node.attributes else None

    def _two(self, name: str, op: str) -> tuple[str, str] | None:
        node = self.makers.get(name)
        if node is None or node.op != op or len(node.inputs) != 2 or node.attributes:
            return None
        return node.inputs[0], node.inputs[1]
