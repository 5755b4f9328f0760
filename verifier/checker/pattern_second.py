"""Second-order mirrors as 1-Lipschitz networks write them: by an arc tangent and four tests.

For entries a, b and constants p = pi + d, c0, c1, c2 of the file, over the reals,

    f = atan(b/a), + p where a < 0 < b, - p where a < 0 and b <= 0
    t = (f - c0/2) - 2p floor((f - c0/2) / 2p)
    y = x [0 <= t < c1/2] + M x [c1/2 <= t < (c1+c2)/2] + R x [.. < c2/2 + p] + N x [.. < 2p]

with the mirrors M, N at the lines of angle (c0+c1)/2, c0/2 and the turn R by -c2. A quotient is
extended to a = 0 < |b| by what it tends to, and y(0) = 0. Let 0 <= c_i, |d| < 1e-7 and

    (c0 + c1 + c2)/2 + 1e-6 < pi/2.                                                         (1)

Counted from c0/2 on, a ray of true angle u in [0, 2 pi) has t = u up to pi/2 - c0/2, then u + d up
to 3 pi/2 - c0/2, then u + 2d up to t = 2p. By (1) the first two thresholds are met where t = u, the
third, c2/2 + p = (c2/2 + pi) + d, where t = u + d, the last where u = 2 pi; and what d moves at the
quarters lies 1e-6 away from all of them. So the cones are those of `cones`, exactly, where the maps
agree: with sines, cosines and thresholds of the same c_i as exact numbers. As rounded numbers they
do not agree, and the function jumps: see `folded_second`. Where f is undefined, at a = b = 0, a
file may test it and put a number in its place.

An entry on the way is a tuple; numbers are fractions, entries of x are named by their place:

    ("number", q)  ("wave", fn, q)  ("sum", ((k, sign, fn, q), ..))    as in `pattern_turns`
    ("ratio", b, a)  ("atan", b, a)  ("shifted", b, a, q)              atan(b/a), + q
    ("half", b, a, p)  ("angle", b, a, p)                              f where a < 0; f
    ("moved", (b, a, p), q)  ("quotient", m, q)  ("floor", m, q)       f + q; m/q; floor(m/q)
    ("back", m, q)  ("wrapped", m)                                     q floor(m/q); m - that
    ("sign", k, relation)  ("test", m, relation, q)  ("both", m, l, u) x_k to 0; t to q; l <= t < u
    ("cases", ((m, l, u, sum), ..))                                    sums where l <= t < u
    ("undefined", f)                                                   whether a = b = 0
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from verifier.checker.cones import Cones
from verifier.checker.network import Blocks
from verifier.checker.operands import Call, Constant, Symbols
from verifier.checker.symbol_arrays import Symbol, filled, flat
from verifier.errors import PatternRefuted

if TYPE_CHECKING:
    from verifier.certificate import Pattern

_RELATIONS = {"Greater": "gt", "GreaterOrEqual": "ge", "Less": "lt", "LessOrEqual": "le"}
_KEPT_TYPES = (1, 9, 10, 11)  #: truth values and floats
_PI = Fraction(314159265358979, 10**14)  #: below pi, by less than 1e-14
_OFF, _ROOM = Fraction(1, 10**7), Fraction(1, 10**6)

Case: TypeAlias = "tuple[Symbol, Fraction, Fraction, Symbol]"


class Thresholds(NamedTuple):
    """Where the four cases of an entry begin, and what they are."""

    pair: tuple[int, int]  #: a and b
    constants: tuple[Fraction, Fraction, Fraction]
    off: Fraction  #: how far the third threshold lies above c2/2 + p
    sums: list[Symbol]


class Second:
    """The algebra of one such pattern."""

    def __init__(self, pattern: Pattern) -> None:
        self.pattern = pattern
        self.size = 0
        by_two = {"Add": _plus, "And": _both, "Div": _over, "Mul": multiplied, "Sub": _minus}
        by_one = {"Atan": _atan, "Floor": _floor, "IsNaN": _undefined, "Neg": _negative}
        self.rules: Mapping[str, Callable[[Call], list[np.ndarray]]] = {
            "Cast": self._cast,
            "Where": lambda call: self._made(call, 3, _chosen),
            **{op: self._rule(2, rule) for op, rule in by_two.items()},
            **{op: self._rule(1, rule) for op, rule in by_one.items()},
            **{op: self._rule(2, _comparing(name)) for op, name in _RELATIONS.items()},
        }
        self.on_constants: Mapping[str, Callable[[Call], list[np.ndarray]]] = {
            "Clip": self._clip,
            "Cos": self._rule(1, _cosine),
            "Sin": self._rule(1, _sine),
            **{op: self.rules[op] for op in ("Add", "Div", "Mul", "Sub")},
        }
        self.rules = {**self.rules, **{op: self.on_constants[op] for op in ("Clip", "Cos", "Sin")}}

    def inputs(self, shape: tuple[int, ...]) -> np.ndarray:
        """The input's entries."""
        self.size = int(np.prod(shape))
        return filled(shape, [("sum", ((k, 1, "1", Fraction(0)),)) for k in range(self.size)])

    def node(self, source: str, result: np.ndarray) -> Blocks:
        """The cones, if every entry belongs to one pair, and its cases are (1)."""
        symbols: list[Symbol] = result.reshape(-1).tolist()
        if len(symbols) != self.size:
            raise self._refuted("it has another size")
        found: dict[tuple[int, int], tuple[Fraction, ...]] = {}
        for place, symbol in enumerate(symbols):
            pair, constants = self._pair(place, symbol)
            if found.setdefault(pair, constants) != constants:
                raise self._refuted(f"entry {place} has constants of its own")
        pairs = sorted(found)
        groups = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        if not np.array_equal(np.sort(groups.reshape(-1)), np.arange(self.size)):
            raise self._refuted("the pairs are not disjoint, or miss an entry")
        numbers = [[float(c) for c in found[pair]] for pair in pairs]
        return Blocks(
            name=self.pattern.output,
            size=self.size,
            source=source,
            groups=groups,
            function=Cones(np.array(numbers).reshape(-1, 3)),
        )

    def _pair(self, place: int, symbol: Symbol) -> tuple[tuple[int, int], tuple[Fraction, ...]]:
        """((a, b), (c0, c1, c2)) of an entry."""
        (a, b), constants, off, sums = self._thresholds(place, symbol)
        if off != 0:
            raise self._refuted(f"the thresholds of entry {place} are not where its cones meet")
        if sums != _maps(place, a, b, *constants):
            raise self._refuted(f"entry {place} is not what cones make of it")
        return (a, b), constants

    def _thresholds(self, place: int, symbol: Symbol) -> Thresholds:
        """The cases of an entry, one after another, the third one beginning near its cone."""
        if symbol[0] != "cases" or len(symbol[1]) != 4:
            raise self._refuted(f"entry {place} has no four cases")
        cases = sorted(symbol[1], key=lambda case: case[1:3])
        moved = cases[0][0]
        (b, a, p), offset = moved[1:]
        limits = [Fraction(0), *(upper for _, _, upper, _ in cases)]
        together = all(
            case[0] == moved and case[1] == low for case, low in zip(cases, limits, strict=False)
        )
        c0, c1 = -2 * offset, 2 * limits[1]
        c2 = 2 * limits[2] - c1
        off = limits[3] - c2 / 2 - p
        fits = limits[4] == 2 * p and abs(p - _PI) < _OFF and abs(off) < _ROOM / 2
        inside = min(c0, c1, c2) >= 0 and (c0 + c1 + c2) / 2 + _ROOM < _PI / 2
        if not (together and fits and inside):
            raise self._refuted(f"the thresholds of entry {place} are not where its cones meet")
        return Thresholds((a, b), (c0, c1, c2), off, [case[3] for case in cases])

    # --- Rules -----------------------------------------------------------------------------------

    def _refuted(self, what: str) -> PatternRefuted:
        return PatternRefuted(
            f"{self.pattern.output!r} is no second-order mirror of {self.pattern.input!r}: {what}",
            fix="state the proof without this pattern",
            node=self.pattern.output,
        )

    def _rule(
        self, count: int, rule: Callable[..., Symbol | None]
    ) -> Callable[[Call], list[np.ndarray]]:
        return lambda call: self._made(call, count, rule)

    def _made(self, call: Call, count: int, rule: Callable[..., Symbol | None]) -> list[np.ndarray]:
        """The rule, entry by entry."""
        call.arity(count, count)
        arrays = [self._symbols(call, place) for place in range(count)]
        shape = call.broadcast(*(array.shape for array in arrays))
        made = [
            rule(*symbols)
            for symbols in zip(*(flat(array, shape) for array in arrays), strict=True)
        ]
        found = [symbol for symbol in made if symbol is not None]
        if len(found) < len(made):
            raise self._refuted(f"{call.node.name!r} has no place in it")
        return [filled(shape, found)]

    def _symbols(self, call: Call, place: int) -> np.ndarray:
        """The operand's symbols; exact constants are numbers."""
        operand = call.any_operand(place)
        if isinstance(operand, Symbols):
            return operand.array
        if not isinstance(operand, Constant) or np.any(operand.spread):
            raise self._refuted(f"operand {place} of {call.node.name!r} is not known exactly")
        numbers = [("number", Fraction(float(value))) for value in operand.value.reshape(-1)]
        return filled(operand.shape, numbers)

    def _cast(self, call: Call) -> list[np.ndarray]:
        """Truth values and floats, of tests."""
        call.integer("saturate", 1)
        call.string("round_mode", "up")
        if call.integer("to", 0) not in _KEPT_TYPES:
            raise self._refuted(f"{call.node.name!r} casts to integers")
        return self._made(call, 1, _as_it_is)

    def _clip(self, call: Call) -> list[np.ndarray]:
        call.arity(3, 3)
        return self._made(call, 3, _clipped)


def _maps(place: int, a: int, b: int, c0: Fraction, c1: Fraction, c2: Fraction) -> list[Symbol]:
    """What the four maps make of an entry, a or b: (1) of `cones`."""
    own = ("sum", ((place, 1, "1", Fraction(0)),))
    if place == a:
        rows = [(1, "cos", 1, "sin", c) for c in (c0 + c1, c2, c0)]
    elif place == b:
        rows = [(1, "sin", -1, "cos", c0 + c1), (-1, "sin", 1, "cos", c2)]
        rows.append((1, "sin", -1, "cos", c0))
    else:
        rows = []
    return [own, *(_ordered((a, s, fn, c), (b, t, gn, c)) for s, fn, t, gn, c in rows)]


def _ordered(*terms: tuple[int, int, str, Fraction]) -> Symbol:
    return "sum", tuple(sorted(terms))


def _plus(one: Symbol, other: Symbol) -> Symbol | None:
    match one, other:
        case (("number", q), ("number", r)):
            return "number", q + r
        case (("atan", b, a), ("number", q)):
            return "shifted", b, a, q
        case (("angle", *angle), ("number", q)):
            return "moved", tuple(angle), q
        case (("sum", first), ("sum", second)):
            repeated = {k for k, *_ in first} & {k for k, *_ in second}
            return None if repeated else _ordered(*first, *second)
        case (("cases", first), ("cases", second)):
            return "cases", (*first, *second)
        case _:
            return None


def _negative(one: Symbol) -> Symbol | None:
    match one:
        case ("number", q):
            return "number", -q
        case ("sum", terms):
            return "sum", tuple((k, -sign, fn, q) for k, sign, fn, q in terms)
        case _:
            return None


def _minus(one: Symbol, other: Symbol) -> Symbol | None:
    match one, other:
        case (("moved", *moved), ("back", ("moved", *same), q)) if moved == same:
            return ("wrapped", one) if q == 2 * moved[0][2] else None
        case _:
            opposite = _negative(other)
            return None if opposite is None else _plus(one, opposite)


def multiplied(one: Symbol, other: Symbol) -> Symbol | None:
    """A product."""
    if one[0] in ("wave", "both") and other[0] == "sum":
        return multiplied(other, one)
    match one, other:
        case (("number", q), ("number", r)):
            return "number", q * r
        case (("sum", ((k, sign, "1", _),)), ("wave", fn, q)):
            return "sum", ((k, sign, fn, q),)
        case (("sum", _), ("both", moved, lower, upper)):
            return "cases", ((moved, lower, upper, one),)
        case (("floor", moved, q), ("number", r)) | (("number", r), ("floor", moved, q)):
            return ("back", moved, q) if q == r else None
        case _:
            return None


def _over(one: Symbol, other: Symbol) -> Symbol | None:
    match one, other:
        case (("number", q), ("number", r)):
            return ("number", q / r) if r else None
        case (("sum", ((b, 1, "1", _),)), ("sum", ((a, 1, "1", _),))):
            return "ratio", b, a
        case (("moved", *_), ("number", q)):
            return ("quotient", one, q) if q > 0 else None
        case _:
            return None


def _atan(one: Symbol) -> Symbol | None:
    return ("atan", *one[1:]) if one[0] == "ratio" else None


def _floor(one: Symbol) -> Symbol | None:
    return ("floor", *one[1:]) if one[0] == "quotient" else None


def _undefined(one: Symbol) -> Symbol | None:
    return ("undefined", one) if one[0] == "angle" else None


def _cosine(one: Symbol) -> Symbol | None:
    return ("wave", "cos", one[1]) if one[0] == "number" else None


def _sine(one: Symbol) -> Symbol | None:
    return ("wave", "sin", one[1]) if one[0] == "number" else None


def _as_it_is(one: Symbol) -> Symbol | None:
    return one if one[0] in ("both", "test") else None


def _clipped(one: Symbol, least: Symbol, most: Symbol) -> Symbol | None:
    if {one[0], least[0], most[0]} != {"number"} or most[1] < least[1]:
        return None
    return "number", min(max(one[1], least[1]), most[1])


def _comparing(relation: str) -> Callable[[Symbol, Symbol], Symbol | None]:
    def compared(one: Symbol, other: Symbol) -> Symbol | None:
        match one, other:
            case (("sum", ((k, 1, "1", _),)), ("number", q)):
                return ("sign", k, relation) if q == 0 else None
            case (("wrapped", moved), ("number", q)):
                return "test", moved, relation, q
            case _:
                return None

    return compared


def _both(one: Symbol, other: Symbol) -> Symbol | None:
    match one, other:
        case (("test", moved, "ge", lower), ("test", same, "lt", upper)) if moved == same:
            return "both", moved, lower, upper
        case (("test", _, "lt", _), ("test", _, "ge", _)):
            return _both(other, one)
        case _:
            return None


def _chosen(test: Symbol, yes: Symbol, no: Symbol) -> Symbol | None:
    """f, from its signs."""
    match test, yes, no:
        case (("sign", k, "gt"), ("shifted", b, a, p), ("shifted", c, d, q)):
            return ("half", b, a, p) if (k, c, d, q) == (b, b, a, -p) else None
        case (("sign", k, "lt"), ("half", b, a, p), ("atan", c, d)):
            return ("angle", b, a, p) if (k, c, d) == (a, b, a) else None
        case ("undefined", angle), ("number", _), same:
            # There y = 0, whatever the case.
            return same if same == angle else None
        case _:
            return None
