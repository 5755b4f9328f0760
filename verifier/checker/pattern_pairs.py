"""MaxMin: every entry as alpha x_i + beta x_j + gamma |x_i - x_j|, i < j, dyadic coefficients.

max(x_i, x_j) is (1/2, 1/2, 1/2), min is (1/2, 1/2, -1/2), and

    |c (x_i - x_j)|            = (0, 0, |c|)
    relu(s)                    = (s + |s|) / 2
    max(s, t), min(s, t)       = (s + t) / 2 +- |s - t| / 2
    where(0 < d, s, t)         = t + (s - t) [0 < d], for s - t = e (x_i - x_j), d = c (x_i - x_j):
                               = t + (e (x_i - x_j) + e sign(c) |x_i - x_j|) / 2.

The last is what makes a comparison harmless: where d is 0 both branches agree. Coefficients are
multiples of 2^-20 below 2^20, so that float64 adds them exactly; everything else is refuted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.network import Sort
from verifier.checker.operands import Call, Constant, Symbols
from verifier.checker.reductions import reduced_axes
from verifier.errors import PatternRefuted

if TYPE_CHECKING:
    from verifier.certificate import Pattern

_PAIR = np.dtype(
    [("i", np.int64), ("j", np.int64), ("a", np.float64), ("b", np.float64), ("g", np.float64)]
)
_UNIT = 2.0**20


class Pairs:
    """The algebra of one MaxMin pattern; an absent index is -1."""

    def __init__(self, pattern: Pattern) -> None:
        self.pattern = pattern
        self.size = 0
        self.rules: Mapping[str, Callable[[Call], list[np.ndarray]]] = {
            "Abs": self._absolute,
            "Add": lambda call: [self._sum(*self._two(call), 1.0)],
            "Cast": self._same,
            "Div": lambda call: self._scaled(call, divides=True),
            "Greater": lambda call: [self._sum(*self._two(call), -1.0)],
            "GreaterOrEqual": lambda call: [self._sum(*self._two(call), -1.0)],
            "Less": lambda call: [_times(self._sum(*self._two(call), -1.0), -1.0)],
            "LessOrEqual": lambda call: [_times(self._sum(*self._two(call), -1.0), -1.0)],
            "Max": lambda call: [self._greater(*self._two(call), 1.0)],
            "Min": lambda call: [self._greater(*self._two(call), -1.0)],
            "Mul": lambda call: self._scaled(call, divides=False),
            "Neg": lambda call: [_times(self._one(call), -1.0)],
            "ReduceMax": lambda call: self._reduced(call, 1.0),
            "ReduceMin": lambda call: self._reduced(call, -1.0),
            "Relu": self._relu,
            "Sub": lambda call: [self._sum(*self._two(call), -1.0)],
            "TopK": self._top,
            "Where": self._where,
        }

    def inputs(self, shape: tuple[int, ...]) -> np.ndarray:
        """The input's entries: x_i itself."""
        found = np.zeros(shape, dtype=_PAIR)
        self.size = found.size
        found["i"], found["j"], found["a"] = np.arange(found.size).reshape(shape), -1, 1.0
        return found

    def node(self, source: str, result: np.ndarray) -> Sort:
        """The pairs, if the output's entries are the maximum and minimum of disjoint ones."""
        flat = np.ascontiguousarray(result).reshape(-1)
        halves = (flat["a"] == 0.5) & (flat["b"] == 0.5) & (np.abs(flat["g"]) == 0.5)
        if flat.size != self.size or not np.all(halves):
            raise self._refuted("an entry is neither a maximum nor a minimum of two")
        # Sorted by the pair, the minimum first: a pair after the other, two entries each.
        order = np.lexsort((flat["g"], flat["j"], flat["i"]))
        ordered = flat[order].reshape(-1, 2) if flat.size % 2 == 0 else flat[order].reshape(-1, 1)
        groups = np.stack([ordered[:, 0]["i"], ordered[:, 0]["j"]], axis=1)
        same = (ordered["i"] == groups[:, :1]) & (ordered["j"] == groups[:, 1:])
        signs = ordered["g"] == np.array([-0.5, 0.5][: ordered.shape[1]])
        if flat.size % 2 or not (np.all(same) and np.all(signs)):
            raise self._refuted("the pairs' maxima and minima do not match")
        if not np.array_equal(np.sort(groups.reshape(-1)), np.arange(self.size)):
            raise self._refuted("the pairs are not disjoint")
        return Sort(
            name=self.pattern.output,
            size=self.size,
            source=source,
            groups=groups,
            places=order.reshape(-1, 2),
        )

    # --- Operands --------------------------------------------------------------------------------

    def _refuted(self, what: str) -> PatternRefuted:
        return PatternRefuted(
            f"{self.pattern.output!r} is no maxmin of {self.pattern.input!r}: {what}",
            fix="state the proof without this pattern",
            node=self.pattern.output,
        )

    def _symbols(self, call: Call, place: int) -> np.ndarray:
        """The operand's symbols; of constants only 0 is one."""
        found = call.any_operand(place)
        if isinstance(found, Symbols):
            return found.array
        if isinstance(found, Constant) and not np.any(found.value) and not np.any(found.spread):
            zero = np.zeros(found.shape, dtype=_PAIR)
            zero["i"] = zero["j"] = -1
            return zero
        raise self._refuted(f"{call.node.name!r} mixes a constant in")

    def _one(self, call: Call) -> np.ndarray:
        call.arity(1, 1)
        return self._symbols(call, 0)

    def _same(self, call: Call) -> list[np.ndarray]:
        raise self._refuted(f"{call.node.name!r} casts")

    def _two(self, call: Call) -> tuple[np.ndarray, np.ndarray]:
        call.arity(2, 2)
        first, second = self._symbols(call, 0), self._symbols(call, 1)
        shape = call.broadcast(first.shape, second.shape)
        return np.broadcast_to(first, shape), np.broadcast_to(second, shape)

    # --- Rules -----------------------------------------------------------------------------------

    def _sum(self, first: np.ndarray, second: np.ndarray, sign: float) -> np.ndarray:
        """The first + sign times the second, if together they speak of two entries at most."""
        indices = np.stack([first["i"], first["j"], second["i"], second["j"]])
        weights = np.stack([first["a"], first["b"], sign * second["a"], sign * second["b"]])
        present = indices >= 0
        high = indices.max(axis=0)
        low = np.where(present, indices, high).min(axis=0)
        if not np.all(~present | (indices == low) | (indices == high)):
            raise self._refuted("three entries meet")
        result = np.zeros(first.shape, dtype=_PAIR)
        result["i"] = low
        result["j"] = np.where(high > low, high, -1)
        result["a"] = np.where(present & (indices == low), weights, 0.0).sum(axis=0)
        result["b"] = np.where(present & (indices == high) & (high > low), weights, 0.0).sum(axis=0)
        result["g"] = first["g"] + sign * second["g"]
        return self._checked(result)

    def _checked(self, result: np.ndarray) -> np.ndarray:
        for name in ("a", "b", "g"):
            units = result[name] * _UNIT
            if np.any(np.abs(units) > _UNIT**2) or np.any(units != np.rint(units)):
                raise self._refuted("a coefficient is no small dyadic number")
        return result

    def _magnitude(self, value: np.ndarray) -> np.ndarray:
        """|c (x_i - x_j)|; nothing else has one in this algebra."""
        if np.any(value["g"] != 0) or np.any(value["a"] != -value["b"]):
            raise self._refuted("a magnitude of more than a difference of two entries")
        result = value.copy()
        result["a"] = result["b"] = 0.0
        result["g"] = np.abs(value["a"])
        return result

    def _absolute(self, call: Call) -> list[np.ndarray]:
        return [self._magnitude(self._one(call))]

    def _relu(self, call: Call) -> list[np.ndarray]:
        value = self._one(call)
        return [self._checked(_times(self._sum(value, self._magnitude(value), 1.0), 0.5))]

    def _greater(self, first: np.ndarray, second: np.ndarray, sign: float) -> np.ndarray:
        gap = self._magnitude(self._sum(first, second, -1.0))
        return self._checked(_times(self._sum(self._sum(first, second, 1.0), gap, sign), 0.5))

    def _scaled(self, call: Call, *, divides: bool) -> list[np.ndarray]:
        call.arity(2, 2)
        operands = [call.any_operand(0), call.any_operand(1)]
        if isinstance(operands[0], Constant) and not divides:
            operands.reverse()
        value, factor = operands
        if not isinstance(value, Symbols) or not isinstance(factor, Constant):
            raise self._refuted(f"{call.node.name!r} multiplies two signals")
        numbers = factor.value.astype(np.float64)
        is_power = np.abs(np.frexp(numbers)[0]) == 0.5
        if np.any(factor.spread) or not np.all(is_power):
            raise self._refuted(f"{call.node.name!r} scales by no power of two")
        shape = call.broadcast(value.shape, factor.shape)
        numbers = np.broadcast_to(1.0 / numbers if divides else numbers, shape)
        return [self._checked(_times(np.broadcast_to(value.array, shape), numbers))]

    def _reduced(self, call: Call, sign: float) -> list[np.ndarray]:
        value = self._symbols(call, 0)
        axes, keeps = reduced_axes(call, value.ndim, since=18)
        rest = tuple(axis for axis in range(value.ndim) if axis not in axes)
        moved = value.transpose((*rest, *axes)).reshape(*(value.shape[axis] for axis in rest), -1)
        if moved.shape[-1] > 2 or moved.shape[-1] == 0:
            raise self._refuted("a maximum of more than two entries")
        result = self._greater(moved[..., 0], moved[..., -1], sign)
        if keeps:
            shape = [1 if axis in axes else size for axis, size in enumerate(value.shape)]
            result = result.reshape(shape)
        return [result]

    def _top(self, call: Call) -> list[np.ndarray]:
        """TopK of an axis of two: both, sorted."""
        call.arity(1, 2)
        value = self._symbols(call, 0)
        count = call.integer("k", 0) if call.opset < 10 else int(call.scalar(1))
        axis = call.axis(call.integer("axis", -1), value.ndim)
        largest = call.integer("largest", 1) != 0
        if value.shape[axis] != 2 or count != 2 or call.integer("sorted", 1) != 1:
            raise self._refuted("a TopK that does not sort two entries")
        first, second = np.take(value, 0, axis=axis), np.take(value, 1, axis=axis)
        ends = [self._greater(first, second, sign) for sign in (1.0, -1.0)]
        return [np.stack(ends if largest else ends[::-1], axis=axis)]

    def _where(self, call: Call) -> list[np.ndarray]:
        call.arity(3, 3)
        gate, first, second = (self._symbols(call, place) for place in range(3))
        shape = call.broadcast(gate.shape, first.shape, second.shape)
        gate, first, second = (np.broadcast_to(item, shape) for item in (gate, first, second))
        step = self._sum(first, second, -1.0)
        # The gate is the sign of c (x_i - x_j), of the same pair as the step, and nowhere constant.
        for item in (gate, step):
            if np.any(item["g"] != 0) or np.any(item["a"] != -item["b"]):
                raise self._refuted("a choice that is not by the sign of a difference")
        if np.any(gate["a"] == 0) or np.any((gate["i"] != step["i"]) | (gate["j"] != step["j"])):
            raise self._refuted("the gate is not the branches' difference")
        jump = self._magnitude(step)
        jump["g"] = step["a"] * np.sign(gate["a"])
        half = self._checked(_times(self._sum(step, jump, 1.0), 0.5))
        return [self._sum(second, half, 1.0)]


def _times(value: np.ndarray, factor: np.ndarray | float) -> np.ndarray:
    result = value.copy()
    for name in ("a", "b", "g"):
        result[name] = value[name] * factor
    return result
