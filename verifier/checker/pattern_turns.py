"""Mirrors given by angles: by u = (sin h, -cos h), or other signs, in pairs of entries.

    y = x where u.x <= 0, else x - 2 u (u.x),                                              (1)

written with sin 2h and cos 2h:  1 - 2 sin^2 h = cos 2h,  2 sin h cos h = sin 2h. Sines and cosines
of constants stay what they are, so that (1) is an identity of the reals; folded to numbers it would
not hold, and the function would jump where u.x = 0. Angles are compared as the exact numbers that
the file stores. An entry on the way is a tuple, one of

    ("angle", fn, a)               fn(a), fn one of "sin" and "cos"
    ("sum", ((k, sign, fn, a), ..))  of sign fn(a) x_k, in the order of k; fn "1" for x_k itself
    ("test", sum, relation)        1 where the sum is "gt", "ge", "lt" or "le" 0, else 0
    ("part", test, sum)            the product
    ("case", sum, yes, no)         the sum `yes` where the first is above 0, `no` elsewhere
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.network import Reflection
from verifier.checker.operands import Call, Constant, Symbols
from verifier.checker.symbol_arrays import Symbol, filled, flat
from verifier.checker.waves import wave
from verifier.errors import PatternRefuted

if TYPE_CHECKING:
    from verifier.certificate import Pattern

_OPPOSITE = {"ge": "lt", "gt": "le", "le": "gt", "lt": "ge"}
_FLIPPED = {"ge": "le", "gt": "lt", "le": "ge", "lt": "gt"}
_RELATIONS = {"Greater": "gt", "GreaterOrEqual": "ge", "Less": "lt", "LessOrEqual": "le"}
_FLOAT_NUMBERS = (1, 10, 11)


class Turns:
    """The algebra of one such pattern."""

    def __init__(self, pattern: Pattern) -> None:
        self.pattern = pattern
        self.size = 0
        self.rules: Mapping[str, Callable[[Call], list[np.ndarray]]] = {
            "Add": lambda call: self._two(call, self._plus),
            "Cast": self._cast,
            "Div": self._divide,
            "Mul": lambda call: self._two(call, self._times),
            "Not": self._not,
            "Sub": lambda call: self._two(call, self._minus),
            "Where": self._where,
            **dict.fromkeys(_RELATIONS, self._compare),
        }
        self.on_constants: Mapping[str, Callable[[Call], list[np.ndarray]]] = dict.fromkeys(
            ("Cos", "Sin"), self._angles
        )

    def inputs(self, shape: tuple[int, ...]) -> np.ndarray:
        """The input's entries."""
        self.size = int(np.prod(shape))
        return filled(shape, [("sum", ((k, 1, "1", 0.0),)) for k in range(self.size)])

    def _angles(self, call: Call) -> list[np.ndarray]:
        """Sin or Cos of exact constants."""
        call.arity(1, 1)
        constant = call.exact(0)
        name = call.node.op.lower()
        angles = [("angle", name, float(a)) for a in constant.value.reshape(-1)]
        return [filled(constant.shape, angles)]

    def node(self, source: str, result: np.ndarray) -> Reflection:
        """The mirrors, if every entry belongs to one."""
        flat = result.reshape(-1)
        if flat.size != self.size:
            raise self._refuted("it has another size")
        found: dict[tuple[int, int], tuple[str, float, int, int]] = {}
        for place, symbol in enumerate(flat):
            pair, vector = self._mirror(place, symbol)
            if found.setdefault(pair, vector) != vector:
                raise self._refuted(f"two mirrors share entry {place}")
        slices = np.array(sorted(found), dtype=np.int64).reshape(-1, 2)
        if not np.array_equal(np.sort(slices.reshape(-1)), np.arange(self.size)):
            raise self._refuted("the pairs are not disjoint, or miss an entry")
        ordered = [found[pair] for pair in sorted(found)]
        angle = np.array([h for _, h, _, _ in ordered])
        low, high = np.empty((2, len(ordered), 2))
        for column, (first, second) in enumerate(((0, 1), (1, 0))):
            # The first entry's function, then the other one: sine is the wave of 0 quarters.
            quarters = np.array([first if fn == "sin" else second for fn, *_ in ordered])
            for quarter in (0, 1):
                ends = wave(angle, quarter)
                here = quarters == quarter
                low[here, column], high[here, column] = ends[0][here], ends[1][here]
        middle = low / 2 + high / 2
        signs = np.array([[s, t] for _, _, s, t in ordered], dtype=np.float64)
        return Reflection(
            name=self.pattern.output,
            size=self.size,
            source=source,
            slices=slices,
            # Where v.x >= 0 a `Reflection` keeps x: v = -u.
            vectors=-signs * middle,
            vector_error=np.maximum(high - middle, middle - low) * (1 + 2.0**-50) + 2.0**-53,
        )

    def _mirror(
        self, place: int, symbol: Symbol
    ) -> tuple[tuple[int, int], tuple[str, float, int, int]]:
        """(the pair, (function of the first entry, h, signs of u)) that the entry is part of."""
        if symbol[0] != "case":
            raise self._refuted(f"entry {place} has no two cases")
        _, gate, yes, no = symbol
        own = ((place, 1, "1", 0.0),)
        flips = no != own
        turned = no if flips else yes
        if len(gate) != 2 or (yes if flips else no) != own:
            raise self._refuted(f"entry {place} is not itself on one side")
        (a, s, first, h), (b, t, second, other) = gate
        if h != other or {first, second} != {"sin", "cos"} or place not in (a, b):
            raise self._refuted(f"entry {place} is not tested by a unit vector")
        # 1 - 2 u_k^2 on the entry itself, -2 u_a u_b on the other.
        is_sine = (first if place == a else second) == "sin"
        diagonal = (place, 1 if is_sine else -1, "cos", 2 * h)
        cross = (b if place == a else a, -s * t, "sin", 2 * h)
        if turned != tuple(sorted((diagonal, cross))):
            raise self._refuted(f"entry {place} is not mirrored by the vector that tests it")
        side = -1 if flips else 1
        return (a, b), (first, h, s * side, t * side)

    # --- Rules -----------------------------------------------------------------------------------

    def _refuted(self, what: str) -> PatternRefuted:
        return PatternRefuted(
            f"{self.pattern.output!r} is no mirror of {self.pattern.input!r} by angles: {what}",
            fix="state the proof without this pattern",
            node=self.pattern.output,
        )

    def _arrays(self, call: Call, count: int) -> list[np.ndarray]:
        call.arity(count, count)
        found = [call.any_operand(place) for place in range(count)]
        arrays = [item.array for item in found if isinstance(item, Symbols)]
        if len(arrays) != count:
            raise self._refuted(f"{call.node.name!r} has a constant for an operand")
        return arrays

    def _two(self, call: Call, rule: Callable[[Symbol, Symbol], Symbol]) -> list[np.ndarray]:
        first, second = self._arrays(call, 2)
        shape = call.broadcast(first.shape, second.shape)
        pairs = zip(flat(first, shape), flat(second, shape), strict=True)
        return [filled(shape, [rule(one, other) for one, other in pairs])]

    def _times(self, one: Symbol, other: Symbol) -> Symbol:
        kinds = one[0], other[0]
        if kinds in (("angle", "sum"), ("test", "sum")):
            return self._times(other, one)
        if kinds == ("sum", "angle") and len(one[1]) == 1 and one[1][0][2] == "1":
            ((k, sign, _, _),) = one[1]
            return "sum", ((k, sign, other[1], other[2]),)
        if kinds == ("sum", "test"):
            return "part", other, one[1]
        raise self._refuted(f"a product of {kinds}")

    def _plus(self, one: Symbol, other: Symbol) -> Symbol:
        kinds = one[0], other[0]
        if kinds == ("sum", "sum"):
            if {k for k, *_ in one[1]} & {k for k, *_ in other[1]}:
                raise self._refuted("an entry is added twice")
            return "sum", tuple(sorted((*one[1], *other[1])))
        if kinds == ("part", "part"):
            (_, first, value), (_, second, rest) = one, other
            if first[1] == second[1] and first[2] == _OPPOSITE[second[2]]:
                return self._case(first, value, rest)
        raise self._refuted(f"a sum of {kinds}")

    def _minus(self, one: Symbol, other: Symbol) -> Symbol:
        if other[0] != "sum":
            raise self._refuted(f"{other[0]} is subtracted")
        return self._plus(one, ("sum", tuple((k, -s, fn, a) for k, s, fn, a in other[1])))

    def _case(self, test: Symbol, value: Symbol, rest: Symbol) -> Symbol:
        """Value where the test is 1: on which side what is equal to 0 falls does not matter."""
        _, gate, relation = test
        return ("case", gate, value, rest) if relation[0] == "g" else ("case", gate, rest, value)

    def _compare(self, call: Call) -> list[np.ndarray]:
        call.arity(2, 2)
        place = 0 if isinstance(call.any_operand(0), Symbols) else 1
        symbols, zero = call.any_operand(place), call.any_operand(1 - place)
        if not isinstance(symbols, Symbols) or not isinstance(zero, Constant):
            raise self._refuted(f"{call.node.name!r} compares two signals")
        if np.any(zero.value) or np.any(zero.spread):
            raise self._refuted(f"{call.node.name!r} compares with another number than 0")
        relation = _RELATIONS[call.node.op]
        relation = relation if place == 0 else _FLIPPED[relation]
        shape = call.broadcast(symbols.shape, zero.shape)
        tests: list[Symbol] = []
        for symbol in flat(symbols.array, shape):
            if symbol[0] != "sum":
                raise self._refuted(f"{call.node.name!r} tests {symbol[0]}")
            tests.append(("test", symbol[1], relation))
        return [filled(shape, tests)]

    def _not(self, call: Call) -> list[np.ndarray]:
        (array,) = self._arrays(call, 1)
        found = [(kind, gate, _OPPOSITE[relation]) for kind, gate, relation in self._tests(array)]
        return [filled(array.shape, found)]

    def _tests(self, array: np.ndarray) -> list[Symbol]:
        symbols: list[Symbol] = array.reshape(-1).tolist()
        if any(symbol[0] != "test" for symbol in symbols):
            raise self._refuted("something else than a test is used as one")
        return symbols

    def _cast(self, call: Call) -> list[np.ndarray]:
        (array,) = self._arrays(call, 1)
        call.integer("saturate", 1)
        call.string("round_mode", "up")
        if call.integer("to", 0) not in _FLOAT_NUMBERS:
            raise self._refuted(f"{call.node.name!r} casts to integers")
        return [array]

    def _divide(self, call: Call) -> list[np.ndarray]:
        """By 1."""
        call.arity(2, 2)
        symbols, divisor = call.any_operand(0), call.any_operand(1)
        if not isinstance(symbols, Symbols) or not isinstance(divisor, Constant):
            raise self._refuted(f"{call.node.name!r} divides by a signal")
        if np.any(divisor.value != 1) or np.any(divisor.spread):
            raise self._refuted(f"{call.node.name!r} divides by another number than 1")
        shape = call.broadcast(symbols.shape, divisor.shape)
        return [filled(shape, flat(symbols.array, shape))]

    def _where(self, call: Call) -> list[np.ndarray]:
        test, yes, no = self._arrays(call, 3)
        shape = call.broadcast(test.shape, yes.shape, no.shape)
        found: list[Symbol] = []
        for one, value, rest in zip(*(flat(a, shape) for a in (test, yes, no)), strict=True):
            if one[0] != "test" or value[0] != "sum" or rest[0] != "sum":
                raise self._refuted(f"{call.node.name!r} chooses between other things than sums")
            found.append(self._case(one, value[1], rest[1]))
        return [filled(shape, found)]
