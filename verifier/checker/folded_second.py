"""Second-order mirrors whose sines and cosines were folded to numbers: near to cones.

The file's thresholds 0 < T1 <= T2 < T3 < 2p and offset c0/2 give c1 = 2 T1 and c2 = 2 T2 - c1 of
`cones`; T3 is c2/2 + p + e for a small e. With p = pi + d, and the true angle u of a ray counted
from c0/2 on, the file begins its last case at u = T3 - d = c2/2 + pi + e, as in `pattern_second`,
and the cones do so at c2/2 + pi; all else begins where they begin, and the first case is x itself.
Let A_k be the file's matrix of case k, and G_k the one of the cones.

    Where both are in case k        |A_k x - G_k x| <= |A_k - G_k|_2 |x|
    between the two beginnings      |A_k x - G_j x| <= |A_k - G_k|_2 |x| + 2 |e| |x|,

there with k = 2, j = 3 for 0 < e, else k = 3, j = 2: G_2 and G_3 agree on the ray where they meet,
and beside it, by an angle of at most |e|, one turns x with it and one against it. Of a matrix of
rows (p, q), (r, s) the norm is half of |(p + s, r - q)| + |(p - s, q + r)|. `deviation` is the
greatest of these factors over all pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.network import Blocks
from verifier.checker.pattern_second import Second, multiplied
from verifier.checker.symbol_arrays import Symbol
from verifier.checker.waves import wave

if TYPE_CHECKING:
    from verifier.certificate import Pattern
    from verifier.checker.operands import Call

_NUMBER = "#"  #: in the place of a function's name: the factor itself
_UP = 1 + 2.0**-48  #: above what a sum of a few terms loses
_OWN = 2.0**-49  #: what rounding an angle below 8 moves its cosine by, and more than others lose

Row = tuple[Fraction, Fraction]


class FoldedSecond(Second):
    """The algebra of one such pattern: that of `pattern_second`, with numbers for sines."""

    def __init__(self, pattern: Pattern) -> None:
        super().__init__(pattern)
        self.on_constants: Mapping[str, Callable[[Call], list[np.ndarray]]] = {}
        self.rules = {**self.rules, "Mul": self._rule(2, _times)}
        self.deviation = 0.0  #: known once `node` has been asked for

    def node(self, source: str, result: np.ndarray) -> Blocks:
        """The cones, if every entry belongs to one pair."""
        self._rows: dict[tuple[int, int], dict[int, list[Row]]] = {}
        self._known: dict[tuple[int, int], tuple[Fraction, ...]] = {}
        found = super().node(source, result)
        self.deviation = max((self._farthest(pair) for pair in self._rows), default=0.0)
        return found

    def _pair(self, place: int, symbol: Symbol) -> tuple[tuple[int, int], tuple[Fraction, ...]]:
        pair, constants, off, (first, *others) = self._thresholds(place, symbol)
        if place not in pair or first != ("sum", ((place, 1, "1", Fraction(0)),)):
            raise self._refuted(f"entry {place} is not itself in the first case")
        rows = [self._row(place, pair, case) for case in others]
        self._rows.setdefault(pair, {})[place] = rows
        if self._known.setdefault(pair, (*constants, off)) != (*constants, off):
            raise self._refuted(f"entry {place} has thresholds of its own")
        return pair, constants

    def _row(self, place: int, pair: tuple[int, int], case: Symbol) -> Row:
        """What the two entries are multiplied by."""
        if case[0] != "sum" or any(
            k not in pair or fn not in (_NUMBER, "1") for k, _, fn, _ in case[1]
        ):
            raise self._refuted(f"entry {place} is not made of numbers times its pair")
        found = {k: sign * (q if fn == _NUMBER else 1) for k, sign, fn, q in case[1]}
        return found.get(pair[0], Fraction(0)), found.get(pair[1], Fraction(0))

    def _farthest(self, pair: tuple[int, int]) -> float:
        """The deviation of one pair, rounded up."""
        rows, (c0, c1, c2, off) = self._rows[pair], self._known[pair]
        angles = np.array([float(c) for c in (c0 + c1, c2, c0)])
        cosine, sine = wave(angles, 1), wave(angles, 0)
        apart: list[float] = []
        for case in range(3):
            cos, sin = ((low[case], high[case]) for low, high in (cosine, sine))
            minus = (-sin[1], -sin[0]), (-cos[1], -cos[0])
            wanted = ((cos, sin), (minus[0], cos) if case == 1 else (sin, minus[1]))
            ends = [end for of_row in wanted for end in of_row]
            entries = [entry for place in pair for entry in rows[place][case]]
            apart.append(_norm(*map(_apart, entries, ends)) + 2 * max(map(_spread, ends)))
        between = apart[1 if off > 0 else 2] + 2 * float(abs(off)) if off else 0.0
        return max(*apart, between) * _UP


def _apart(entry: Fraction, ends: tuple[float, float]) -> float:
    """A number minus the middle of two ends, rounded."""
    return float(entry - (Fraction(float(ends[0])) + Fraction(float(ends[1]))) / 2)


def _spread(ends: tuple[float, float]) -> float:
    """How far from their middle what is between the ends may be, and what angles lose."""
    return float(ends[1] - ends[0]) / 2 + _OWN


def _norm(p: float, q: float, r: float, s: float) -> float:
    """No less than the norm of a matrix of two rows."""
    return (math.hypot(p + s, r - q) / 2 + math.hypot(p - s, q + r) / 2) * _UP + _OWN


def _times(one: Symbol, other: Symbol) -> Symbol | None:
    """Also by a number."""
    match one, other:
        case (("sum", ((k, sign, "1", _),)), ("number", q)) | (
            ("number", q),
            ("sum", ((k, sign, "1", _),)),
        ):
            return "sum", ((k, sign, _NUMBER, q),)
        case _:
            return multiplied(one, other)
