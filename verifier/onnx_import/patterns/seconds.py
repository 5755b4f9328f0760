"""Second-order mirrors: an arc tangent, a modulus, and four tests that choose a linear map.

With halves a, b of a tensor, constants c0, c1, c2 and p = pi as far as the file knows it,

    f = atan2(b, a), written with p     t = (f - c0/2) modulo 2p
    y = a sum of four tensors, each where t is between two of 0, c1/2, (c1 + c2)/2, c2/2 + p, 2p

Each constant is kept as what it is a cosine of: as rounded numbers the four tensors would not meet.
Thresholds and angles have to fit to `_NEAR`; the checker compares them exactly, and proves that the
whole is continuous.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import numpy as np

from verifier.network.blocks import Cones
from verifier.network.graph import Grouped
from verifier.onnx_import.convert.emitted import Emitted, index_tensor, tensor
from verifier.onnx_import.patterns.turns import Turned, halves
from verifier.onnx_import.values import Constant

if TYPE_CHECKING:
    from verifier.onnx_import.call import Call
    from verifier.onnx_import.patterns.compounds import Written

Array: TypeAlias = np.ndarray
#: By tensor: (cos or sin, sign, angle) of the factor; None where the tensor stands alone.
Terms: TypeAlias = dict[str, tuple[str, float, Array]]

_NEAR: Final = 1e-12
_DEPTH: Final = 6
_ROOM: Final = 1e-6


class Part(NamedTuple):
    """A tensor where lower <= t < upper, and 0 elsewhere."""

    t: str
    lower: Array
    upper: Array
    value: str


class Angle(NamedTuple):
    """The angle of (a, b), and what is taken from it before the modulus 2p."""

    a: str
    b: str
    p: float
    offset: Array


def second_order(call: Call, written: Written, graph_input: str) -> Turned | None:
    """The whole function, if this Concat is the last operator of one."""
    if call.op != "Concat" or len(call.operator.inputs) != 2:
        return None
    reader = Reader(written)
    rows = [reader.parts(name) for name in call.operator.inputs]
    if any(len(parts) != 4 or len({part.t for part in parts}) != 1 for parts in rows):
        return None
    if rows[0][0].t != rows[1][0].t or (angle := reader.angle(rows[0][0].t)) is None:
        return None
    constants = _constants(rows, angle)
    if constants is None or not _are_maps(reader, rows, angle, constants):
        return None
    found = halves(call, written, (angle.a, angle.b))
    if found is None:
        return None
    each = np.stack([np.broadcast_to(c, found.shape).reshape(-1) for c in constants], axis=1)
    pairs = index_tensor(found.slices[found.order]).reshape(found.slices.shape)
    node = Grouped(call.output, found.source, Cones(pairs, tensor(each[found.order])))
    emitted = Emitted((node,), found.joined)
    return Turned(found.source or graph_input, emitted, "second-order-mirror")


def _constants(rows: list[list[Part]], angle: Angle) -> tuple[Array, Array, Array] | None:
    """c0, c1, c2, if the thresholds of both rows are the four."""
    c0, c1 = 2 * angle.offset, 2 * rows[0][0].upper
    c2 = 2 * rows[0][1].upper - c1
    wanted = [np.zeros(1), c1 / 2, (c1 + c2) / 2, c2 / 2 + angle.p, np.array(2 * angle.p)]
    ends = list(pairwise(wanted))
    fits = abs(angle.p - math.pi) < 1e-7 and all(
        _is_near(part.lower, lower) and _is_near(part.upper, upper)
        for parts in rows
        for part, (lower, upper) in zip(parts, ends, strict=True)
    )
    inside = all((c >= 0).all() for c in (c0, c1, c2))
    narrow = bool(((c0 + c1 + c2) / 2 + _ROOM < math.pi / 2).all())
    return (c0, c1, c2) if fits and inside and narrow else None


def _is_near(one: Array, other: Array) -> bool:
    return bool((np.abs(one - other) <= _NEAR).all())


def _are_maps(
    reader: Reader,
    rows: list[list[Part]],
    angle: Angle,
    constants: tuple[Array, Array, Array],
) -> bool:
    """Whether the tensors are the plain one, a mirror, a turn and a mirror."""
    c0, c1, c2 = constants
    mirror = ((("cos", 1.0), ("sin", 1.0)), (("sin", 1.0), ("cos", -1.0)))
    turn = ((("cos", 1.0), ("sin", 1.0)), (("sin", -1.0), ("cos", 1.0)))
    maps = ((mirror, c0 + c1), (turn, c2), (mirror, c0))
    for row, (parts, own) in enumerate(zip(rows, (angle.a, angle.b), strict=True)):
        if parts[0].value != own:
            return False
        for part, (form, wanted) in zip(parts[1:], maps, strict=True):
            terms = reader.terms(part.value)
            fits = terms.keys() == {angle.a, angle.b} and all(
                terms[name][:2] == entry and _is_near(terms[name][2], wanted)
                for name, entry in zip((angle.a, angle.b), form[row], strict=True)
            )
            if not fits:
                return False
    return True


@dataclass(frozen=True, slots=True)
class Reader:
    """Looks back from a tensor."""

    written: Written

    def parts(self, name: str) -> list[Part]:
        """What is added up, the lowest thresholds first; empty where it is something else."""
        total, depth = [name], 0
        while depth < _DEPTH and (total_of := self._inputs(total[0], "Add")) is not None:
            total[:1] = total_of
            depth += 1
        found = [self._part(part) for part in total]
        parts = [part for part in found if part is not None]
        parts.sort(key=lambda part: float(part.upper.sum()) / part.upper.size)
        return parts if len(parts) == len(found) else []

    def _part(self, name: str) -> Part | None:
        product = self._inputs(name, "Mul")
        for mask, value in (product, product[::-1]) if product is not None else ():
            tests = self._inputs(self._cast(mask), "And")
            if tests is None:
                continue
            (t, lower), (same, upper) = (
                self._test(test, op)
                for test, op in zip(tests, ("GreaterOrEqual", "Less"), strict=True)
            )
            if t == same and lower is not None and upper is not None:
                return Part(t, lower, upper, value)
        return None

    def _test(self, name: str, op: str) -> tuple[str, Array | None]:
        compared = self._inputs(self._cast(name), op)
        return ("", None) if compared is None else (compared[0], self._array(compared[1]))

    def angle(self, t: str) -> Angle | None:
        """What t is an angle of."""
        reduced = self._inputs(t, "Sub")
        back = None if reduced is None else self._inputs(reduced[1], "Mul")
        moved = None if reduced is None else self._inputs(reduced[0], "Sub")
        floor = None if back is None else self._inputs(back[0], "Floor")
        share = None if floor is None else self._inputs(floor[0], "Div")
        if reduced is None or back is None or moved is None or share is None:
            return None
        offset, whole = self._array(moved[1]), self.written.scalar(back[1])
        known = self._atan2(self._defined(moved[0]))
        fits = share[0] == reduced[0] and self.written.scalar(share[1]) == whole
        if offset is None or known is None or not fits or whole != 2 * known[2]:
            return None
        return Angle(*known, offset)

    def _defined(self, name: str) -> str:
        """F of where(isnan(f), a number, f)."""
        chosen = self._inputs(name, "Where")
        tested = None if chosen is None else self._inputs(chosen[0], "IsNaN")
        if chosen is None or tested is None or tested[0] != chosen[2]:
            return name
        return name if self.written.scalar(chosen[1]) is None else chosen[2]

    def _atan2(self, name: str) -> tuple[str, str, float] | None:
        """(a, b, p) of where(a < 0, where(0 < b, atan(b/a) + p, atan(b/a) - p), atan(b/a))."""
        outer = self._inputs(name, "Where")
        inner = None if outer is None else self._inputs(outer[1], "Where")
        atan = None if outer is None else self._inputs(outer[2], "Atan")
        ratio = None if atan is None else self._inputs(atan[0], "Div")
        if outer is None or inner is None or ratio is None:
            return None
        b, a = ratio
        above, below = self._inputs(inner[1], "Add"), self._inputs(inner[2], "Sub")
        tests = (self._sign(outer[0], "Less"), self._sign(inner[0], "Greater"))
        if above is None or below is None or tests != (a, b) or above[0] != below[0]:
            return None
        p = self.written.scalar(above[1])
        same = above[0] == outer[2] and p is not None and p == self.written.scalar(below[1])
        return (a, b, p) if same and p is not None else None

    def _sign(self, name: str, op: str) -> str:
        compared = self._inputs(name, op)
        is_zero = compared is not None and self.written.scalar(compared[1]) == 0
        return compared[0] if compared is not None and is_zero else ""

    def terms(self, name: str) -> Terms:
        """Two products with sines and cosines, added or subtracted; empty else."""
        total = self.written.producers.get(name)
        if total is None or total.op not in {"Add", "Sub"}:
            return {}
        found: Terms = {}
        for part, sign in zip(total.inputs, (1.0, 1.0 if total.op == "Add" else -1.0), strict=True):
            product = self._inputs(part, "Mul") or ()
            for x, factor in (product, product[::-1]) if product else ():
                wave = self.written.producers.get(factor)
                angle = self._array(wave.inputs[0]) if wave and wave.op in {"Cos", "Sin"} else None
                if wave is not None and angle is not None:
                    opposite = self._inputs(x, "Neg")
                    own, turned = (x, sign) if opposite is None else (opposite[0], -sign)
                    found[own] = (wave.op.lower(), turned, angle)
        return found

    def _inputs(self, name: str, op: str) -> tuple[str, ...] | None:
        """What enters the operator that made a tensor, if it was this one."""
        made = self.written.operator(name, op)
        return None if made is None else made.inputs

    def _array(self, name: str) -> Array | None:
        value = self.written.values.get(name)
        return value.array if isinstance(value, Constant) else None

    def _cast(self, name: str) -> str:
        """What is behind casts between tests and numbers."""
        for _ in range(_DEPTH):
            cast = self._inputs(name, "Cast")
            if cast is None:
                break
            name = cast[0]
        return name
