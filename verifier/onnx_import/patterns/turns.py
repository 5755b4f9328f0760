"""Mirrors whose vectors are given by angles, as 1-Lipschitz networks write them.

With halves a, b of a tensor and constants h, t = 2h,

    d = a sin h - b cos h
    y = Concat((d <= 0) a + (0 < d) (a cos t + b sin t), (d <= 0) b + (0 < d) (a sin t - b cos t))

is x - 2 u max(u.x, 0) for u = (sin h, -cos h) in every pair. Sines and cosines are kept as what
they are: as rounded numbers the two sides differ where d = 0, and the function jumps. The checker
proves the form; here terms and their signs are collected, and compared with what they have to be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np

from verifier.network.graph import Grouped
from verifier.network.grouped import Householder
from verifier.network.linear_map import Gather
from verifier.network.nodes import Affine
from verifier.onnx_import.convert.emitted import Emitted, index_tensor, tensor
from verifier.onnx_import.moves import axis_of
from verifier.onnx_import.values import Constant, Signal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from verifier.certificate import PatternKind
    from verifier.network.graph import Node
    from verifier.onnx_import.call import Call
    from verifier.onnx_import.patterns.compounds import Written

Array: TypeAlias = np.ndarray
Name: TypeAlias = Literal["cos", "sin"]
#: (name, sign, angle) by tensor: the sum of sign name(angle) tensor.
Terms: TypeAlias = dict[str, tuple[Name, float, Array]]

#: Tests that d is above 0, and the only ones that are their opposites where d is 0.
_OPPOSITE: Final[Mapping[str, str]] = {"Greater": "LessOrEqual", "GreaterOrEqual": "Less"}
_TESTS: Final = frozenset((*_OPPOSITE, *_OPPOSITE.values()))
_DEPTH: Final = 6


@dataclass(frozen=True, slots=True, eq=False)
class _Side:
    """A tensor where a test of the signal `gate` is met, and 0 elsewhere."""

    gate: str
    test: str
    value: str

    @property
    def is_above(self) -> bool:
        """Whether the signal is above 0 there."""
        return self.test in _OPPOSITE


@dataclass(frozen=True, slots=True, eq=False)
class Turned:
    """The tensor that is mirrored, and the node."""

    source: str
    emitted: Emitted
    kind: PatternKind = "turned-mirror"


def turned(call: Call, written: Written, graph_input: str) -> Turned | None:
    """The whole mirror, if this Concat is the last operator of one."""
    if call.op != "Concat" or len(call.operator.inputs) != 2:
        return None
    reader = _Reader(written)
    halves = [reader.sides(name) for name in call.operator.inputs]
    found = [sides for sides in halves if sides is not None]
    if len(found) != 2:
        return None
    (above_a, kept_a), (above_b, kept_b) = found
    gates = {side.gate for side in (above_a, kept_a, above_b, kept_b)}
    a, b = kept_a.value, kept_b.value
    if len(gates) != 1 or a == b:
        return None
    gate = reader.terms(gates.pop())
    rows = reader.terms(above_a.value), reader.terms(above_b.value)
    half = None if gate is None else _half_angle(gate, a, b)
    if half is None or not all(row is not None and row.keys() == {a, b} for row in rows):
        return None
    if not _is_mirrored([row or {} for row in rows], (a, b), half):
        return None
    return _emitted(call, written, (a, b), half, graph_input)


@dataclass(frozen=True, slots=True, eq=False)
class Folded:
    """(a, b) where g.(a, b) <= 0, else the matrix of `rows` times it: numbers for the angles."""

    names: tuple[str, str]
    gate: tuple[Array, Array]
    rows: tuple[tuple[Array, Array], tuple[Array, Array]]


def folded_turn(call: Call, written: Written) -> Folded | None:
    """The numbers of a mirror whose sines and cosines were folded."""
    reader = _Reader(written)
    found = [sides for name in call.operator.inputs if (sides := reader.sides(name)) is not None]
    if len(found) != 2:
        return None
    (above_a, kept_a), (above_b, kept_b) = found
    names = kept_a.value, kept_b.value
    gates = {side.gate for side in (above_a, kept_a, above_b, kept_b)}
    if len(gates) != 1 or names[0] == names[1]:
        return None
    sums = [reader.weights(name) for name in (gates.pop(), above_a.value, above_b.value)]
    if any(weights.keys() != set(names) for weights in sums):
        return None
    gate, *rows = [(weights[names[0]], weights[names[1]]) for weights in sums]
    return Folded(names, gate, (rows[0], rows[1]))


def is_folded_mirror(call: Call, written: Written) -> bool:
    """Whether it is the same with numbers in the place of sines and cosines."""
    reader = _Reader(written)
    halves = [reader.sides(name) for name in call.operator.inputs]
    return len(halves) == 2 and all(
        sides is not None and reader.terms(sides[0].gate) is None for sides in halves
    )


def _half_angle(gate: Terms, a: str, b: str) -> Array | None:
    """h of the gate a sin h - b cos h."""
    if gate.keys() != {a, b}:
        return None
    (first, sign, h), (second, other, same) = gate[a], gate[b]
    fits = (first, sign, second, other) == ("sin", 1.0, "cos", -1.0)
    return h if fits and np.array_equal(h, same) else None


def _is_mirrored(rows: list[Terms], names: tuple[str, str], half: Array) -> bool:
    """Whether the rows are (cos t, sin t) and (sin t, -cos t), t = 2h."""
    wanted = ((("cos", 1.0), ("sin", 1.0)), (("sin", 1.0), ("cos", -1.0)))
    return all(
        row[name][:2] == entry and np.array_equal(row[name][2], 2 * half)
        for row, entries in zip(rows, wanted, strict=True)
        for name, entry in zip(names, entries, strict=True)
    )


def _emitted(
    call: Call, written: Written, names: tuple[str, str], half: Array, graph_input: str
) -> Turned | None:
    found = halves(call, written, names)
    if found is None:
        return None
    angle = np.broadcast_to(half, found.shape).reshape(-1)
    # A `Householder` keeps x where its vector has v.x above 0.
    vectors = np.stack([-np.sin(angle), np.cos(angle)], axis=1)
    slices, order = found.slices, found.order
    mirror = Householder(index_tensor(slices[order]).reshape(slices.shape), tensor(vectors[order]))
    node = Grouped(call.output, found.source, mirror)
    return Turned(found.source or graph_input, Emitted((node,), found.joined))


@dataclass(frozen=True, slots=True, eq=False)
class Halves:
    """Two halves of one signal, along the axis of a Concat."""

    source: str
    slices: Array  #: [pairs, 2]: an entry of the first half, and its partner
    shape: tuple[int, ...]  #: of one half
    joined: tuple[int, ...]

    @property
    def order(self) -> Array:
        """The pairs by their first entry."""
        return np.argsort(self.slices[:, 0], kind="stable")


def halves(call: Call, written: Written, names: tuple[str, str]) -> Halves | None:
    """The tensors as halves, if they are those that the Concat would join again."""
    first, second = (written.values.get(name) for name in names)
    if not isinstance(first, Signal) or not isinstance(second, Signal):
        return None
    places = [places_of(written.nodes, value) for value in (first, second)]
    if first.shape != second.shape or any(place is None for place in places):
        return None
    (source, left), (other, right) = (place for place in places if place is not None)
    axis = axis_of(call, call.attributes.integer("axis"), len(first.shape))
    joined = np.concatenate([p.reshape(first.shape) for p in (left, right)], axis)
    if source != other or not np.array_equal(joined.reshape(-1), np.arange(joined.size)):
        return None
    return Halves(source, np.stack([left, right], axis=1), first.shape, joined.shape)


def places_of(nodes: Mapping[str, Node], signal: Signal) -> tuple[str, Array] | None:
    """The signal that it is a part of, and where its entries are."""
    node = nodes.get(signal.node)
    match node:
        case Affine(terms=(term,)) if isinstance(term.map, Gather) and not node.bias.any():
            return term.source, term.map.index.numpy()
        case _:
            return None


@dataclass(frozen=True, slots=True)
class _Reader:
    """Looks back from a tensor to what it is a sum of."""

    written: Written

    def sides(self, name: str) -> tuple[_Side, _Side] | None:
        """(0 < d) r + (d <= 0) a, the part above 0 first."""
        total = self.written.operator(name, "Add")
        if total is None:
            return None
        parts = [self._side(part) for part in total.inputs]
        met = [part for part in parts if part is not None]
        met.sort(key=lambda part: not part.is_above)
        if len(met) != 2 or _OPPOSITE.get(met[0].test) != met[1].test:
            return None
        return met[0], met[1]

    def _side(self, name: str) -> _Side | None:
        product = self.written.operator(name, "Mul")
        for mask, value in (product.inputs, product.inputs[::-1]) if product is not None else ():
            test = self.written.producers.get(self._cast(mask))
            if test is not None and test.op in _TESTS and self.written.scalar(test.inputs[1]) == 0:
                return _Side(test.inputs[0], test.op, value)
        return None

    def _cast(self, name: str) -> str:
        """What is behind casts between tests and numbers."""
        for _ in range(_DEPTH):
            cast = self.written.operator(name, "Cast")
            if cast is None:
                break
            name = cast.inputs[0]
        return name

    def weights(self, name: str) -> dict[str, Array]:
        """Two products with constants, added or subtracted; empty else."""
        total = self.written.producers.get(name)
        if total is None or total.op not in {"Add", "Sub"}:
            return {}
        signs = (1.0, 1.0 if total.op == "Add" else -1.0)
        found: dict[str, Array] = {}
        for part, sign in zip(total.inputs, signs, strict=True):
            product = self.written.operator(part, "Mul")
            for x, factor in (product.inputs, product.inputs[::-1]) if product is not None else ():
                number = self.written.values.get(factor)
                if isinstance(number, Constant):
                    found[x] = sign * number.array
        return found

    def terms(self, name: str) -> Terms | None:
        """Two products with sines and cosines, added or subtracted."""
        total = self.written.producers.get(name)
        if total is None or total.op not in {"Add", "Sub"}:
            return None
        signs = (1.0, 1.0 if total.op == "Add" else -1.0)
        found: Terms = {}
        for part, sign in zip(total.inputs, signs, strict=True):
            product = self.written.operator(part, "Mul")
            for x, factor in (product.inputs, product.inputs[::-1]) if product is not None else ():
                wave = self.written.producers.get(factor)
                angle = None if wave is None else self.written.values.get(wave.inputs[0])
                if wave is not None and wave.op in {"Cos", "Sin"} and isinstance(angle, Constant):
                    found[x] = ("cos" if wave.op == "Cos" else "sin", sign, angle.array)
        return found or None
