"""Mirrors whose sines and cosines were folded to numbers: not continuous, but near to a mirror.

    y = x where g.x <= 0, else A x                                                          (1)

for a vector g and a matrix A of each pair of entries, as the file stores them. The mirror

    m = x - 2 u max(u.x, 0),    u = g/|g|

has the very gate of (1), so that |y - m| <= |A - (I - 2 u u')|_2 |x| in every pair. Of a matrix of
rows (p, q), (r, s) that norm is half of |(p + s, r - q)| + |(p - s, q + r)|. With rationals both
squares are exact; the greatest norm, over pairs, is `deviation`.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.arithmetic import root_up, up
from verifier.checker.network import Reflection
from verifier.checker.operands import Call, Constant, Symbols
from verifier.checker.pattern_turns import Turns
from verifier.checker.symbol_arrays import Symbol, filled

if TYPE_CHECKING:
    from verifier.certificate import Pattern

Vector = tuple[Fraction, Fraction]

_LEAST = 2.0**-400  #: of vectors: their squares are far from where float64 ends
_NUMBER = "#"  #: in the place of a function's name: the factor itself


class FoldedTurns(Turns):
    """The algebra of one such pattern: that of `pattern_turns`, with numbers for sines."""

    def __init__(self, pattern: Pattern) -> None:
        super().__init__(pattern)
        self.on_constants = {}
        self.deviation = 0.0  #: known once `node` has been asked for

    def node(self, source: str, result: np.ndarray) -> Reflection:
        """The mirrors, if every entry belongs to one."""
        symbols: list[Symbol] = result.reshape(-1).tolist()
        if len(symbols) != self.size:
            raise self._refuted("it has another size")
        gates: dict[tuple[int, int], Vector] = {}
        rows: dict[tuple[int, int], dict[int, Vector]] = {}
        for place, symbol in enumerate(symbols):
            pair, gate, row = self._turned(place, symbol)
            if gates.setdefault(pair, gate) != gate:
                raise self._refuted(f"entry {place} is tested by another vector")
            rows.setdefault(pair, {})[place] = row
        pairs = sorted(gates)
        slices = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        if not np.array_equal(np.sort(slices.reshape(-1)), np.arange(self.size)):
            raise self._refuted("the pairs are not disjoint, or miss an entry")
        known = {(gates[pair], tuple(rows[pair][k] for k in pair)) for pair in pairs}
        self.deviation = max((_apart(*one) for one in known), default=0.0)
        units = [[float(g) for g in gates[pair]] for pair in pairs]
        lengths = [float(_length(gates[pair])) ** 0.5 for pair in pairs]
        if any(not _LEAST < length < 1 / _LEAST for length in lengths):
            raise self._refuted("a vector is too short or too long")
        vectors = np.array(units).reshape(-1, 2) / np.array(lengths)[:, None]
        return Reflection(
            name=self.pattern.output,
            size=self.size,
            source=source,
            slices=slices,
            # Where v.x >= 0 a `Reflection` keeps x. Rounded are a square, a root and a quotient.
            vectors=-vectors,
            vector_error=np.full_like(vectors, 2.0**-50),
        )

    def _turned(self, place: int, symbol: Symbol) -> tuple[tuple[int, int], Vector, Vector]:
        """(the pair, g, the row of A) of an entry."""
        if symbol[0] != "case":
            raise self._refuted(f"entry {place} has no two cases")
        _, gate, yes, no = symbol
        own = ((place, 1, "1", 0.0),)
        flips = no != own
        turned = _coefficients(no if flips else yes)
        vector = _coefficients(gate)
        pair = tuple(sorted(vector))
        if (yes if flips else no) != own or len(pair) != 2 or place not in pair:
            raise self._refuted(f"entry {place} is not itself on one side")
        if not turned.keys() <= vector.keys() or not any(vector.values()):
            raise self._refuted(f"entry {place} is not mirrored by the vector that tests it")
        a, b = pair
        side = -1 if flips else 1
        zero = Fraction(0)
        row = turned.get(a, zero), turned.get(b, zero)
        return (a, b), (side * vector[a], side * vector[b]), row

    def _arrays(self, call: Call, count: int) -> list[np.ndarray]:
        """Exact constants are factors."""
        call.arity(count, count)
        return [self._factors(call, place) for place in range(count)]

    def _factors(self, call: Call, place: int) -> np.ndarray:
        operand = call.any_operand(place)
        if isinstance(operand, Symbols):
            return operand.array
        if not isinstance(operand, Constant) or np.any(operand.spread):
            raise self._refuted(f"operand {place} of {call.node.name!r} is not known exactly")
        numbers = [("angle", _NUMBER, float(value)) for value in operand.value.reshape(-1)]
        return filled(operand.shape, numbers)


def _coefficients(terms: tuple[tuple[int, int, str, float], ...]) -> dict[int, Fraction]:
    """By entry, what it is multiplied by."""
    return {k: sign * Fraction(a if fn == _NUMBER else 1.0) for k, sign, fn, a in terms}


def _length(gate: Vector) -> Fraction:
    """Its square."""
    return gate[0] ** 2 + gate[1] ** 2


def _apart(gate: Vector, rows: tuple[Vector, ...]) -> float:
    """The norm of A - (I - 2 u u'), rounded up."""
    whole = _length(gate)
    (p, q), (r, s) = (
        [entry - (i == j) + 2 * gate[i] * gate[j] / whole for j, entry in enumerate(row)]
        for i, row in enumerate(rows)
    )
    squares = (p + s) ** 2 + (r - q) ** 2, (p - s) ** 2 + (q + r) ** 2
    return up(sum(root_up(up(float(square))) for square in squares) / 2)
