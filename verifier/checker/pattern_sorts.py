"""GroupSort: TopK over a whole axis, between movements of entries.

An entry is a number: below the input's size N it is the input's entry of that flat index, from N
on it is a place of a sorted group, N + n g + r for rank r of group g, least first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.network import Sort
from verifier.checker.operands import Call, Symbols
from verifier.errors import PatternRefuted

if TYPE_CHECKING:
    from verifier.certificate import Pattern


class Sorts:
    """The algebra of one GroupSort pattern."""

    def __init__(self, pattern: Pattern) -> None:
        self.pattern = pattern
        self.size = 0
        self.groups: list[np.ndarray] = []
        self.rules: Mapping[str, Callable[[Call], list[np.ndarray]]] = {"TopK": self._top}

    def inputs(self, shape: tuple[int, ...]) -> np.ndarray:
        """The input's entries."""
        found = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
        self.size = found.size
        return found

    def _refuted(self, what: str) -> PatternRefuted:
        return PatternRefuted(
            f"{self.pattern.output!r} is no groupsort of {self.pattern.input!r}: {what}",
            fix="state the proof without this pattern",
            node=self.pattern.output,
        )

    def _top(self, call: Call) -> list[np.ndarray]:
        call.arity(1, 2)
        value = call.any_operand(0)
        if not isinstance(value, Symbols):
            raise self._refuted("it sorts constants")
        count = call.integer("k", 0) if call.opset < 10 else int(call.scalar(1))
        axis = call.axis(call.integer("axis", -1), value.array.ndim)
        largest = call.integer("largest", 1) != 0
        if count != value.shape[axis] or call.integer("sorted", 1) != 1:
            raise self._refuted("a TopK that does not sort the whole axis")
        members = np.moveaxis(value.array, axis, -1)
        rows = members.reshape(-1, count)
        if np.any(rows >= self.size):
            raise self._refuted("it sorts what is sorted")
        start = self.size + sum(group.size for group in self.groups)
        self.groups.append(rows)
        places = start + np.arange(rows.size).reshape(members.shape)
        places = places[..., ::-1] if largest else places
        # Only the values leave: who reads the indices finds no such tensor.
        return [np.moveaxis(places, -1, axis)]

    def node(self, source: str, result: np.ndarray) -> Sort:
        """The groups, if every entry is sorted once and arrives once."""
        flat = np.ascontiguousarray(result).reshape(-1)
        widths = {group.shape[1] for group in self.groups}
        if len(widths) != 1 or flat.size != self.size:
            raise self._refuted("the groups are not of one size")
        groups = np.concatenate(self.groups)
        if not np.array_equal(np.sort(groups.reshape(-1)), np.arange(self.size)):
            raise self._refuted("the groups are not disjoint, or miss an entry")
        places = np.empty(self.size, dtype=np.int64)
        if not np.array_equal(np.sort(flat), self.size + np.arange(self.size)):
            raise self._refuted("a sorted value is missing or repeated")
        places[flat - self.size] = np.arange(self.size)
        order = np.argsort(groups.min(axis=1), kind="stable")
        return Sort(
            name=self.pattern.output,
            size=self.size,
            source=source,
            groups=np.sort(groups, axis=1)[order],
            places=places.reshape(groups.shape)[order],
        )
