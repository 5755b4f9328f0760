"""Householder: every entry as a z_k + c D + e |D|, where D = sum_k w_k z_k belongs to a slice.

    relu(s D)               = (s D + |s| |D|) / 2
    where(0 < s D, p, q)    = q + (p - q) (1 + sign(s) sign(D)) / 2, and for p - q = t D
                            = q + t (D + sign(s) |D|) / 2.

The last asks that the branches differ by a multiple of the very D that gates: then nothing jumps
on the hyperplane D = 0. The pattern z - v (v.z) + v |v.z| has, for entry k of the slice of D,

    a = 1,  c = -q_k,  e = q_k,  q_k w_l = q_l w_k for all k, l,  0 < q_k w_k where w_k is not 0:

then q = m w with 0 < m, and v = sqrt(m) w; or so with -D and -w in place of D and w. Weights are
exact: a product that float64 rounds is refuted, and rationals decide whether q and w are parallel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.enclosures import TINY, U
from verifier.checker.network import Reflection
from verifier.checker.operands import Call, Constant, Symbols
from verifier.checker.reductions import reduced_axes
from verifier.errors import PatternRefuted

if TYPE_CHECKING:
    from verifier.certificate import Pattern

_ENTRY = np.dtype(
    [("k", np.int64), ("a", np.float64), ("d", np.int64), ("c", np.float64), ("e", np.float64)]
)
_NUMBERS = ("a", "c", "e")
_MAX_WEIGHTS = 2**22  #: entries of all D together


class Mirrors:
    """The algebra of one Householder pattern; an absent index is -1, its coefficient 0."""

    def __init__(self, pattern: Pattern) -> None:
        self.pattern = pattern
        self.size = 0
        self.dots: dict[bytes, int] = {}
        self.indices: list[np.ndarray] = []
        self.weights: list[np.ndarray] = []
        self.rules: Mapping[str, Callable[[Call], list[np.ndarray]]] = {
            "Add": lambda call: [self._sum(*self._two(call), 1.0)],
            "Div": lambda call: self._scaled(call, divides=True),
            "Greater": lambda call: [self._gate(call, 1.0)],
            "GreaterOrEqual": lambda call: [self._gate(call, 1.0)],
            "Less": lambda call: [self._gate(call, -1.0)],
            "LessOrEqual": lambda call: [self._gate(call, -1.0)],
            "MatMul": self._matmul,
            "Mul": lambda call: self._scaled(call, divides=False),
            "Neg": self._negated,
            "ReduceSum": self._reduced,
            "Relu": self._relu,
            "Sub": lambda call: [self._sum(*self._two(call), -1.0)],
            "Where": self._where,
        }

    def inputs(self, shape: tuple[int, ...]) -> np.ndarray:
        """The input's entries: z_k itself."""
        found = _nothing(shape)
        self.size = found.size
        found["k"], found["a"] = np.arange(found.size).reshape(shape), 1.0
        return found

    # --- The conclusion --------------------------------------------------------------------------

    def node(self, source: str, result: np.ndarray) -> Reflection:
        """The reflections, if the output's entries are those of disjoint slices."""
        flat = np.ascontiguousarray(result).reshape(-1)
        kept = flat.size == self.size and np.array_equal(flat["k"], np.arange(self.size))
        if not kept or not np.all(flat["a"] == 1.0):
            raise self._refuted("an entry is not z_k and a multiple of D and |D|")
        moving: np.ndarray = flat["d"][flat["e"] != 0]
        used = sorted({int(dot) for dot in moving})
        if len({self.indices[dot].size for dot in used}) != 1:
            raise self._refuted("the slices are not of one size")
        slices = np.stack([self.indices[dot] for dot in used])
        if not np.array_equal(np.sort(slices.reshape(-1)), np.arange(self.size)):
            raise self._refuted("the slices are not disjoint, or miss an entry")
        entries = flat[slices]
        if np.any((entries["e"] != 0) & (entries["d"] != np.array(used)[:, None])):
            raise self._refuted("an entry moves with another slice")
        weights = np.stack([self.weights[dot] for dot in used])
        # D was given a sign of its own: -D is the same mirror.
        is_turned = np.all(entries["c"] == entries["e"], axis=1, keepdims=True)
        if np.any(np.where(is_turned, -entries["c"], entries["c"]) != -entries["e"]):
            raise self._refuted("an entry is not z_k - q (D - |D|)")
        weights = np.where(is_turned, -weights, weights)
        vectors, errors = self._vectors(weights, entries["e"])
        order = np.argsort(slices.min(axis=1), kind="stable")
        return Reflection(
            name=self.pattern.output,
            size=self.size,
            source=source,
            slices=slices[order],
            vectors=vectors[order],
            vector_error=errors[order],
        )

    def _vectors(self, weights: np.ndarray, moves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(v, its error) of every slice; slices that agree are decided once."""
        both = np.concatenate([weights, moves], axis=1)
        rows, where = np.unique(both, axis=0, return_inverse=True)
        width = weights.shape[1]
        found = [self._vector(row[:width], row[width:]) for row in rows]
        picked = where.reshape(-1)
        return (
            np.stack([vector for vector, _ in found])[picked],
            np.stack([error for _, error in found])[picked],
        )

    def _vector(self, weights: np.ndarray, moves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        w = [Fraction(float(number)) for number in weights]
        q = [Fraction(float(number)) for number in moves]
        top = max(range(len(w)), key=lambda place: abs(w[place]))
        if w[top] == 0 or any(q[k] * w[top] != q[top] * w[k] for k in range(len(w))):
            raise self._refuted("the mirror is not parallel to the gate")
        ratio = q[top] / w[top]
        if ratio <= 0:
            raise self._refuted("the gate has the other sign")
        root = math.sqrt(float(ratio))
        vector = weights * root
        return vector, np.abs(vector) * (8 * U) + TINY

    # --- Operands --------------------------------------------------------------------------------

    def _refuted(self, what: str) -> PatternRefuted:
        return PatternRefuted(
            f"{self.pattern.output!r} is no householder of {self.pattern.input!r}: {what}",
            fix="state the proof without this pattern",
            node=self.pattern.output,
        )

    def _symbols(self, call: Call, place: int) -> np.ndarray:
        found = call.any_operand(place)
        if isinstance(found, Symbols):
            return found.array
        if isinstance(found, Constant) and not np.any(found.value) and not np.any(found.spread):
            return _nothing(found.shape)
        raise self._refuted(f"{call.node.name!r} mixes a constant in")

    def _two(self, call: Call) -> tuple[np.ndarray, np.ndarray]:
        call.arity(2, 2)
        first, second = self._symbols(call, 0), self._symbols(call, 1)
        shape = call.broadcast(first.shape, second.shape)
        return np.broadcast_to(first, shape), np.broadcast_to(second, shape)

    def _symbols_and_numbers(self, call: Call) -> tuple[Symbols, np.ndarray, bool]:
        """(the symbols, the exact constant, whether the constant comes first)."""
        call.arity(2, 2)
        first, second = call.any_operand(0), call.any_operand(1)
        swapped = isinstance(first, Constant)
        value, factor = (second, first) if swapped else (first, second)
        if not isinstance(value, Symbols) or not isinstance(factor, Constant):
            raise self._refuted(f"{call.node.name!r} multiplies two signals")
        if np.any(factor.spread):
            raise self._refuted(f"{call.node.name!r} has a rounded factor")
        return value, factor.value.astype(np.float64), swapped

    def _product(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """The products, none of them rounded."""
        value = np.asarray(first * second)
        if np.any(_product_error(first, second, value) != 0):
            raise self._refuted("a product of weights is rounded")
        return value

    # --- Rules -----------------------------------------------------------------------------------

    def _sum(self, first: np.ndarray, second: np.ndarray, sign: float) -> np.ndarray:
        result = _nothing(first.shape)
        for index, names in (("k", ("a",)), ("d", ("c", "e"))):
            here = np.any([first[name] != 0 for name in names], axis=0)
            there = np.any([second[name] != 0 for name in names], axis=0)
            if np.any(here & there & (first[index] != second[index])):
                raise self._refuted("entries of several places or slices meet")
            result[index] = np.where(here, first[index], np.where(there, second[index], -1))
            for name in names:
                a, b = first[name], np.asarray(sign * second[name])
                total = np.asarray(a + b)
                if np.any(_sum_error(a, b, total) != 0):
                    raise self._refuted("a sum of weights is rounded")
                result[name] = total
        return result

    def _negated(self, call: Call) -> list[np.ndarray]:
        call.arity(1, 1)
        return [self._times(self._symbols(call, 0), -1.0)]

    def _times(self, value: np.ndarray, factor: np.ndarray | float) -> np.ndarray:
        factor = np.broadcast_to(np.float64(factor), value.shape)
        result = value.copy()
        for name in _NUMBERS:
            result[name] = self._product(value[name], factor)
        return result

    def _scaled(self, call: Call, *, divides: bool) -> list[np.ndarray]:
        value, factor, swapped = self._symbols_and_numbers(call)
        if divides:
            if swapped or np.any(np.abs(np.frexp(factor)[0]) != 0.5):
                raise self._refuted(f"{call.node.name!r} divides by no power of two")
            factor = 1.0 / factor
        shape = call.broadcast(value.shape, factor.shape)
        return [self._times(np.broadcast_to(value.array, shape), np.broadcast_to(factor, shape))]

    def _dots(self, terms: np.ndarray) -> np.ndarray:
        """The sums over the last axis of entries a z_k, as multiples of known D."""
        if np.any(terms["c"] != 0) or np.any(terms["e"] != 0):
            raise self._refuted("it adds what is no entry of the input")
        rows = terms.reshape(-1, terms.shape[-1])
        total = sum(item.size for item in self.indices) + rows.size
        if total > _MAX_WEIGHTS or terms.shape[-1] == 0:
            raise self._refuted("it is too large to be verified")
        result = _nothing((len(rows),))
        for place, row in enumerate(rows):
            result[place]["d"], result[place]["c"] = self._dot(row["k"], row["a"])
        return result.reshape(terms.shape[:-1])

    def _dot(self, indices: np.ndarray, weights: np.ndarray) -> tuple[int, float]:
        """(D, s) with the sum being s D; sums that differ by a power of two are one D."""
        if np.any(indices < 0) or np.unique(indices).size != indices.size:
            raise self._refuted("a sum that takes an entry twice")
        order = np.argsort(indices)
        indices, weights = indices[order], weights[order]
        largest = weights[np.argmax(np.abs(weights))]
        if largest == 0:
            raise self._refuted("a sum without weights")
        scale = float(np.copysign(2.0 ** np.frexp(largest)[1], largest))
        unit = weights / scale + 0.0  # without negative zeros
        if np.any(unit * scale != weights):
            raise self._refuted("weights of too many magnitudes")
        key = indices.tobytes() + unit.tobytes()
        if key not in self.dots:
            self.dots[key] = len(self.indices)
            self.indices.append(indices)
            self.weights.append(unit)
        return self.dots[key], scale

    def _matmul(self, call: Call) -> list[np.ndarray]:
        value, matrix, swapped = self._symbols_and_numbers(call)
        array = value.array
        if swapped or array.ndim == 0 or matrix.ndim not in (1, 2):
            raise self._refuted("a product of matrices that is no v.z")
        if array.shape[-1] != matrix.shape[0]:
            call.mismatch(f"{array.shape} times {matrix.shape}")
        columns = matrix.reshape(matrix.shape[0], -1)
        if matrix.shape[0] == 1:
            # D times a row: each entry moves with the slice.
            shape = call.allowed([*array.shape[:-1], columns.shape[1]])
            spread = np.broadcast_to(array, shape)
            return [self._times(spread, np.broadcast_to(columns[0], shape))]
        if columns.shape[1] != 1:
            raise self._refuted("a product of matrices that is no v.z")
        found = self._dots(self._times(array, np.broadcast_to(columns[:, 0], array.shape)))
        return [found if matrix.ndim == 1 else found[..., None]]

    def _reduced(self, call: Call) -> list[np.ndarray]:
        value = call.any_operand(0)
        if not isinstance(value, Symbols):
            raise self._refuted("it sums constants")
        rank = value.array.ndim
        axes, keeps = reduced_axes(call, rank, since=13)
        rest = tuple(axis for axis in range(rank) if axis not in axes)
        moved = value.array.transpose((*rest, *axes))
        moved = moved.reshape(*(value.shape[axis] for axis in rest), -1)
        found = self._dots(moved)
        if keeps:
            shape = [1 if axis in axes else size for axis, size in enumerate(value.shape)]
            found = found.reshape(shape)
        return [found]

    def _only_dot(self, value: np.ndarray) -> np.ndarray:
        """Entries s D, s not 0, and nothing else."""
        if np.any(value["a"] != 0) or np.any(value["e"] != 0) or np.any(value["c"] == 0):
            raise self._refuted("a gate that is no v.z")
        return value

    def _relu(self, call: Call) -> list[np.ndarray]:
        call.arity(1, 1)
        result = self._only_dot(self._symbols(call, 0)).copy()
        result["e"] = np.abs(result["c"]) / 2
        result["c"] = result["c"] / 2
        return [result]

    def _gate(self, call: Call, sign: float) -> np.ndarray:
        return self._only_dot(self._times(self._sum(*self._two(call), -1.0), sign))

    def _where(self, call: Call) -> list[np.ndarray]:
        call.arity(3, 3)
        gate, first, second = (self._symbols(call, place) for place in range(3))
        shape = call.broadcast(gate.shape, first.shape, second.shape)
        gate, first, second = (np.broadcast_to(item, shape) for item in (gate, first, second))
        step = self._sum(first, second, -1.0)
        self._only_dot(gate)
        moves = step["c"] != 0
        if np.any(step["a"] != 0) or np.any(step["e"] != 0):
            raise self._refuted("the branches differ by more than the reflection")
        if np.any(moves & (step["d"] != gate["d"])):
            raise self._refuted("the gate's hyperplane is not the mirror's: it jumps")
        step["e"] = step["c"] * np.sign(gate["c"]) / 2
        step["c"] = step["c"] / 2
        return [self._sum(second, step, 1.0)]


def _nothing(shape: tuple[int, ...]) -> np.ndarray:
    found = np.zeros(shape, dtype=_ENTRY)
    found["k"] = found["d"] = -1
    return found


def _split(value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Veltkamp's halves of 26 bits."""
    scaled = value * (2.0**27 + 1)
    high = np.asarray(scaled - (scaled - value))
    return high, np.asarray(value - high)


def _product_error(a: np.ndarray, b: np.ndarray, product: np.ndarray) -> np.ndarray:
    """Dekker: a b - fl(a b), exactly, away from overflow and underflow; else not 0."""
    (high, low), (other, rest) = _split(a), _split(b)
    error = ((high * other - product) + high * rest + low * other) + low * rest
    size = np.abs(product)
    is_safe = ((size > 1e-200) & (size < 1e200)) | (a == 0) | (b == 0)
    return np.where(is_safe & (np.abs(a) < 1e200) & (np.abs(b) < 1e200), error, 1.0)


def _sum_error(a: np.ndarray, b: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Knuth: a + b - fl(a + b), exactly."""
    other = total - a
    return np.asarray((a - (total - other)) + (b - other))
