"""Second-order mirrors whose sines, cosines and thresholds were folded to numbers.

The four linear maps of `seconds`, by numbers: they do not meet where one takes over from another,
and the function jumps. The cones of c0, c1, c2, which the offset and the first two thresholds give
exactly, are continuous; the third threshold may be off by a rounding, e. What the file makes of x
is within |A - G| |x| of what the cones make of it, for the matrices A and G of a case. Between the
two thresholds, where the file is in the third case for 0 < e and else in the fourth, 2 |e| |x| are
added.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from verifier.onnx_import.patterns.seconds import Reader
from verifier.onnx_import.values import Constant

if TYPE_CHECKING:
    from verifier.onnx_import.call import Call
    from verifier.onnx_import.patterns.compounds import Written
    from verifier.onnx_import.patterns.seconds import Angle, Part

Array: TypeAlias = np.ndarray

_NEAR: Final = 1e-5  #: how far, relatively, it may be from the cones
_SPREAD: Final = 1e-13  #: of the checker's own sines and cosines
_ROOM: Final = 1e-6  #: between the cones and a quarter


@dataclass(frozen=True, slots=True, eq=False)
class FoldedSecond:
    """The tensors a, b, the constants c0, c1, c2 of every pair, and how far the file is from it."""

    names: tuple[str, str]
    constants: tuple[Array, Array, Array]
    deviation: float


def folded_second(call: Call, written: Written) -> FoldedSecond | None:
    """The numbers of such a mirror, if this Concat is its last operator."""
    if call.op != "Concat" or len(call.operator.inputs) != 2:
        return None
    reader = Reader(written)
    rows = [reader.parts(name) for name in call.operator.inputs]
    if any(len(parts) != 4 for parts in rows) or len({p.t for row in rows for p in row}) != 1:
        return None
    angle = reader.angle(rows[0][0].t)
    if angle is None or [row[0].value for row in rows] != [angle.a, angle.b]:
        return None
    constants = _constants(rows, angle)
    matrices = [_matrix(written, rows, case, angle) for case in (1, 2, 3)]
    known = [matrix for matrix in matrices if matrix is not None]
    if constants is None or len(known) < len(matrices):
        return None
    c0, c1, c2 = constants
    wanted = (_mirror(c0 + c1), _turn(c2), _mirror(c0))
    apart = [_norm(one, other) for one, other in zip(known, wanted, strict=True)]
    off = rows[0][2].upper - c2 / 2 - angle.p
    between = np.where(off > 0, apart[1], apart[2]) + 2 * np.abs(off)
    whole = np.maximum.reduce(np.broadcast_arrays(*apart, np.where(off == 0, 0.0, between)))
    deviation = float(whole.max()) + _SPREAD
    return FoldedSecond((angle.a, angle.b), constants, deviation) if deviation < _NEAR else None


def _constants(rows: list[list[Part]], angle: Angle) -> tuple[Array, Array, Array] | None:
    """c0, c1, c2, if the thresholds of both rows are one after another, and fit."""
    first = rows[0]
    c0, c1 = 2 * angle.offset, 2 * first[0].upper
    c2 = 2 * first[1].upper - c1
    ends = [np.zeros(1), *(part.upper for part in first[:3]), np.array(2 * angle.p)]
    fits = abs(angle.p - math.pi) < 1e-7 and all(
        (part.lower == lower).all() and (part.upper == upper).all()
        for parts in rows
        for part, (lower, upper) in zip(parts, pairwise(ends), strict=True)
    )
    inside = all((c >= 0).all() for c in (c0, c1, c2))
    narrow = bool(((c0 + c1 + c2) / 2 + _ROOM < math.pi / 2).all())
    return (c0, c1, c2) if fits and inside and narrow else None


def _norm(one: list[Array], other: list[Array]) -> Array:
    """Of the difference of matrices [[p, q], [r, s]]."""
    p, q, r, s = (a - b for a, b in zip(one, other, strict=True))
    return np.hypot(p + s, r - q) / 2 + np.hypot(p - s, q + r) / 2


def _mirror(angle: Array) -> list[Array]:
    return [np.cos(angle), np.sin(angle), np.sin(angle), -np.cos(angle)]


def _turn(angle: Array) -> list[Array]:
    return [np.cos(angle), np.sin(angle), -np.sin(angle), np.cos(angle)]


def _matrix(
    written: Written, rows: list[list[Part]], case: int, angle: Angle
) -> list[Array] | None:
    """The numbers of one case, row by row."""
    sums = [_weights(written, row[case].value) for row in rows]
    if any(weights.keys() != {angle.a, angle.b} for weights in sums):
        return None
    return [weights[name] for weights in sums for name in (angle.a, angle.b)]


def _weights(written: Written, name: str) -> dict[str, Array]:
    """Two products with constants, added or subtracted; empty else."""
    total = written.producers.get(name)
    if total is None or total.op not in {"Add", "Sub"}:
        return {}
    found: dict[str, Array] = {}
    for part, sign in zip(total.inputs, (1.0, 1.0 if total.op == "Add" else -1.0), strict=True):
        product = written.operator(part, "Mul")
        for x, factor in (product.inputs, product.inputs[::-1]) if product is not None else ():
            number = written.values.get(factor)
            if isinstance(number, Constant):
                opposite = written.operator(x, "Neg")
                own, turned = (x, sign) if opposite is None else (opposite.inputs[0], -sign)
                found[own] = turned * number.array
    return found
