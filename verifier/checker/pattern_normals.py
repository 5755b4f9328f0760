"""Normalisation written out: v divided by its length within groups, the length away from 0.

What lies between v and v/s is a chain in which every entry is one of

    v_k,  v_k^2,  sum over a group of v_k^2 / d,  that sum + eps,  |v|,  s,  1/s,  v_k/s

with s the root of the shifted sum, or the greater of |v| and eps. The rules below are the only
steps from one to another; the numbers d and eps are those of the file, exactly, the same in all
groups. The pattern holds if entry k of the output is v_k/s for the s of the group that has k.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np

from verifier.checker.network import Blocks
from verifier.checker.normalise import Normalise
from verifier.checker.operands import Call, Constant, Symbols
from verifier.checker.reductions import reduced_axes
from verifier.errors import PatternRefuted

if TYPE_CHECKING:
    from verifier.certificate import Pattern

#: `k` is an entry and `g` a group, where a symbol speaks of one.
_SYMBOL = np.dtype([("kind", np.int64), ("k", np.int64), ("g", np.int64)])
_ENTRY, _SQUARE, _SUM, _SHIFTED, _SIZE, _LENGTH, _INVERSE, _QUOTIENT = range(8)


class Normals:
    """The algebra of one normalisation."""

    def __init__(self, pattern: Pattern) -> None:
        self.pattern = pattern
        self.size = 0
        self._groups: dict[bytes, int] = {}
        self._members: list[np.ndarray] = []
        self._facts: dict[str, float | str] = {}
        self.rules: Mapping[str, Callable[[Call], list[np.ndarray]]] = {
            "Add": self._add,
            "Clip": self._clip,
            "Div": self._divide,
            "Max": self._greatest,
            "Mul": self._multiply,
            "Pow": self._power,
            "Reciprocal": self._reciprocal,
            "ReduceL2": self._length,
            "ReduceMean": self._mean,
            "ReduceSum": self._sum,
            "ReduceSumSquare": self._sum_of_squares,
            "Sqrt": self._root,
        }

    def inputs(self, shape: tuple[int, ...]) -> np.ndarray:
        """The input's entries: v_k itself."""
        found = np.zeros(shape, _SYMBOL)
        self.size = found.size
        found["k"], found["g"] = np.arange(found.size).reshape(shape), -1
        return found

    def node(self, source: str, result: np.ndarray) -> Blocks:
        """The groups, if every entry is divided by the length of its own."""
        flat = np.ascontiguousarray(result).reshape(-1)
        kept = flat.size == self.size and np.array_equal(flat["k"], np.arange(self.size))
        if not kept or np.any(flat["kind"] != _QUOTIENT):
            raise self._refuted("an entry is not v_k divided by a length")
        used = sorted({int(group) for group in flat["g"]})
        if len({self._members[group].size for group in used}) != 1:
            raise self._refuted("the groups are not of one size")
        groups: np.ndarray = np.stack([self._members[group] for group in used])
        if not np.array_equal(np.sort(groups.reshape(-1)), np.arange(self.size)):
            raise self._refuted("the groups are not disjoint, or miss an entry")
        if np.any(flat["g"][groups] != np.array(used)[:, None]):
            raise self._refuted("an entry is divided by the length of another group")
        return Blocks(
            name=self.pattern.output,
            size=self.size,
            source=source,
            groups=groups,
            function=self._function(),
        )

    def _function(self) -> Normalise:
        form: Literal["root", "floor"] = "root" if self._facts["form"] == "root" else "floor"
        divisor = float(self._facts.get("divisor", 1.0))
        if form == "floor" and divisor != 1.0:
            raise self._refuted("a mean of squares is kept above a number")
        epsilon = float(self._facts["epsilon"])
        return Normalise(name=self.pattern.output, epsilon=epsilon, form=form, divisor=divisor)

    # --- Operands --------------------------------------------------------------------------------

    def _refuted(self, what: str) -> PatternRefuted:
        return PatternRefuted(
            f"{self.pattern.output!r} is no normalise of {self.pattern.input!r}: {what}",
            fix="state the proof without this pattern",
            node=self.pattern.output,
        )

    def _of_kind(self, call: Call, place: int, *kinds: int) -> np.ndarray:
        """An operand all of whose symbols are of one of the kinds."""
        found = call.any_operand(place)
        if not isinstance(found, Symbols) or not np.all(np.isin(found.array["kind"], kinds)):
            raise self._refuted(f"{call.node.name!r} has an operand of another kind")
        return found.array

    def _is(self, call: Call, place: int, *kinds: int) -> bool:
        found = call.any_operand(place)
        return isinstance(found, Symbols) and bool(np.all(np.isin(found.array["kind"], kinds)))

    def _number(self, call: Call, place: int) -> float:
        """A constant that is one exact number, however often repeated."""
        found = call.any_operand(place)
        if not isinstance(found, Constant) or found.value.size == 0 or np.any(found.spread):
            raise self._refuted(f"operand {place} of {call.node.name!r} is no exact constant")
        first = float(found.value.reshape(-1)[0])
        if np.any(found.value != first):
            raise self._refuted(f"operand {place} of {call.node.name!r} is no single number")
        shape = call.any_operand(1 - place).shape
        if call.broadcast(found.shape, shape) != shape:
            raise self._refuted(f"operand {place} of {call.node.name!r} makes copies of the other")
        return first

    def _fact(self, name: str, value: float | str) -> None:
        """A number of the layer, the same wherever it is met."""
        if self._facts.setdefault(name, value) != value:
            raise self._refuted(f"{name} is not the same everywhere")

    # --- Rules -----------------------------------------------------------------------------------

    def _became(self, symbols: np.ndarray, kind: int) -> list[np.ndarray]:
        result = symbols.copy()
        result["kind"] = kind
        return [result]

    def _power(self, call: Call) -> list[np.ndarray]:
        call.arity(2, 2)
        exponent = self._number(call, 1)
        if exponent == 2.0:
            return self._became(self._of_kind(call, 0, _ENTRY), _SQUARE)
        if exponent in (0.5, -0.5):
            rooted = self._rooted(self._of_kind(call, 0, _SHIFTED))
            return rooted if exponent > 0 else self._became(rooted[0], _INVERSE)
        raise self._refuted(f"the power {exponent}")

    def _multiply(self, call: Call) -> list[np.ndarray]:
        """v_k v_k, or v_k (1/s)."""
        call.arity(2, 2)
        turned = 1 if self._is(call, 0, _INVERSE) else 0
        first = self._of_kind(call, turned, _ENTRY)
        second = self._of_kind(call, 1 - turned, _ENTRY, _INVERSE)
        return self._met(call, first, second, _INVERSE)

    def _divide(self, call: Call) -> list[np.ndarray]:
        """v_k / s, or 1/s."""
        call.arity(2, 2)
        length = self._of_kind(call, 1, _LENGTH)
        one = call.any_operand(0)
        if isinstance(one, Constant):
            if self._number(call, 0) != 1.0 or one.value.size != 1:
                raise self._refuted("a number other than 1 is divided")
            return self._became(length, _INVERSE)
        return self._met(call, self._of_kind(call, 0, _ENTRY), length, _LENGTH)

    def _met(
        self, call: Call, first: np.ndarray, second: np.ndarray, scale: int
    ) -> list[np.ndarray]:
        shape = call.broadcast(first.shape, second.shape)
        first, second = np.broadcast_to(first, shape), np.broadcast_to(second, shape)
        result = first.copy()
        if np.all(second["kind"] == scale):
            result["kind"], result["g"] = _QUOTIENT, second["g"]
            return [result]
        if np.any(second["kind"] != _ENTRY) or np.any(first["k"] != second["k"]):
            raise self._refuted(f"{call.node.name!r} multiplies different entries")
        return self._became(result, _SQUARE)

    def _mean(self, call: Call) -> list[np.ndarray]:
        return self._summed(call, self._of_kind(call, 0, _SQUARE), since=18, is_mean=True)

    def _sum(self, call: Call) -> list[np.ndarray]:
        return self._summed(call, self._of_kind(call, 0, _SQUARE), since=13)

    def _sum_of_squares(self, call: Call) -> list[np.ndarray]:
        return self._summed(call, self._of_kind(call, 0, _ENTRY), since=18)

    def _length(self, call: Call) -> list[np.ndarray]:
        summed = self._summed(call, self._of_kind(call, 0, _ENTRY), since=18)
        return self._became(summed[0], _SIZE)

    def _summed(
        self, call: Call, symbols: np.ndarray, since: int, *, is_mean: bool = False
    ) -> list[np.ndarray]:
        axes, keeps = reduced_axes(call, symbols.ndim, since)
        rest = [axis for axis in range(symbols.ndim) if axis not in axes]
        count = math.prod(symbols.shape[axis] for axis in axes)
        rows = symbols["k"].transpose(*rest, *axes).reshape(-1, count)
        if count == 0 or any(np.unique(row).size < count for row in rows):
            raise self._refuted("an entry is added twice")
        self._fact("divisor", float(count) if is_mean else 1.0)
        shape = [1 if axis in axes else size for axis, size in enumerate(symbols.shape)]
        result = np.zeros(shape if keeps else [symbols.shape[axis] for axis in rest], _SYMBOL)
        result["kind"], result["k"] = _SUM, -1
        result["g"] = np.array([self._group(row) for row in rows]).reshape(result.shape)
        return [result]

    def _group(self, row: np.ndarray) -> int:
        members = np.sort(row)
        found = self._groups.setdefault(members.tobytes(), len(self._members))
        if found == len(self._members):
            self._members.append(members)
        return found

    def _add(self, call: Call) -> list[np.ndarray]:
        call.arity(2, 2)
        place = 0 if isinstance(call.any_operand(0), Symbols) else 1
        return self._with_number(call, place, _SUM, _SHIFTED)

    def _with_number(self, call: Call, place: int, before: int, after: int) -> list[np.ndarray]:
        """A sum and its eps, or a length and its floor."""
        symbols, epsilon = self._of_kind(call, place, before), self._number(call, 1 - place)
        constant = call.constant(1 - place)
        if call.broadcast(symbols.shape, constant.shape) != symbols.shape or not 0 < epsilon:
            raise self._refuted(f"epsilon {epsilon} of shape {constant.shape}")
        self._fact("epsilon", epsilon)
        return self._became(symbols, after)

    def _root(self, call: Call) -> list[np.ndarray]:
        call.arity(1, 1)
        if self._is(call, 0, _SUM):
            return self._became(self._of_kind(call, 0, _SUM), _SIZE)
        return self._rooted(self._of_kind(call, 0, _SHIFTED))

    def _rooted(self, symbols: np.ndarray) -> list[np.ndarray]:
        self._fact("form", "root")
        return self._became(symbols, _LENGTH)

    def _clip(self, call: Call) -> list[np.ndarray]:
        """The greater of |v| and eps, by a limit below."""
        call.arity(1, 3)
        if call.opset < 11:
            epsilon = call.number("min", 0.0) if call.has("min") else 0.0
            if call.has("max") or not 0 < epsilon:
                raise self._refuted("a Clip that is no floor")
            self._fact("epsilon", epsilon)
            found = self._became(self._of_kind(call, 0, _SIZE), _LENGTH)
        else:
            if call.optional(2) is not None:
                raise self._refuted("a Clip that limits above")
            found = self._with_number(call, 0, _SIZE, _LENGTH)
        self._fact("form", "floor")
        return found

    def _greatest(self, call: Call) -> list[np.ndarray]:
        call.arity(2, 2)
        place = 0 if isinstance(call.any_operand(0), Symbols) else 1
        self._fact("form", "floor")
        return self._with_number(call, place, _SIZE, _LENGTH)

    def _reciprocal(self, call: Call) -> list[np.ndarray]:
        call.arity(1, 1)
        return self._became(self._of_kind(call, 0, _LENGTH), _INVERSE)
