"""Two lines that meet, as exporters write them with a comparison: ReLU, leaky ReLU and the like.

where(t < x, a x + b, c x + d)    for numbers with a t + b = c t + d

also with the other tests, with sides exchanged, or behind a Not: which line is taken at t itself
does not matter. Numbers are exact rationals; lines that miss each other by anything are a jump,
and slopes that are no float64 numbers are not taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from verifier.network import elementwise as functions
from verifier.onnx_import.values import Signal

if TYPE_CHECKING:
    from verifier.network.elementwise import Activation
    from verifier.onnx_import.call import Call
    from verifier.onnx_import.patterns.compounds import Written

_DEPTH: Final = 6
#: Whether the first operand is the greater one where the test is met.
_TESTS: Final[Mapping[str, bool]] = {
    "Greater": True,
    "GreaterOrEqual": True,
    "Less": False,
    "LessOrEqual": False,
}


class Line(NamedTuple):
    """Slope x + height."""

    slope: Fraction
    height: Fraction

    def at(self, x: Fraction) -> Fraction:
        """The value at x."""
        return self.slope * x + self.height


@dataclass(frozen=True, slots=True)
class Bend:
    """The signal, where it bends, and the lines on both sides."""

    x: Signal
    at: float
    below: Line
    above: Line

    @property
    def function(self) -> Activation:
        """The simplest activation that it is."""
        slopes = float(self.below.slope), float(self.above.slope)
        if self.at == 0 and not self.above.height and self.above.slope == 1:
            known = {0.0: functions.Relu, -1.0: functions.Abs}.get(slopes[0])
            return known(self.x.size) if known else functions.LeakyRelu(self.x.size, slopes[0])
        height = float(self.above.at(Fraction(self.at)))
        return functions.Bent(self.x.size, self.at, height, *slopes)


def bent(call: Call, written: Written) -> Bend | None:
    """The function, if this Where is the last operator of one."""
    if len(call.operator.inputs) != 3:
        return None
    test, yes, no = call.operator.inputs
    if (turned := written.operator(test, "Not")) is not None:
        test, yes, no = turned.inputs[0], no, yes
    compared = written.producers.get(test)
    if compared is None or compared.op not in _TESTS:
        return None
    for place, name in enumerate(compared.inputs):
        limit = written.scalar(compared.inputs[1 - place])
        x = written.values.get(name)
        if limit is not None and isinstance(x, Signal):
            is_above = _TESTS[compared.op] == (place == 0)
            sides = (no, yes) if is_above else (yes, no)
            return _met(x, limit, _Lines(name, written, [compared.inputs[1 - place]]), sides)
    return None


def _met(x: Signal, limit: float, lines: _Lines, sides: tuple[str, str]) -> Bend | None:
    """The two lines, if they meet and no constant spreads x out."""
    below, above = (lines.line(side, _DEPTH) for side in sides)
    at = Fraction(limit)
    if below is None or above is None or below.at(at) != above.at(at):
        return None
    shapes = [lines.written.values[name].shape or () for name in lines.numbers]
    if np.broadcast_shapes(x.shape, *shapes) != x.shape:
        return None
    exact = all(float(number) == number for number in (*below, *above))
    return Bend(x, limit, below, above) if exact else None


@dataclass(frozen=True, slots=True)
class _Lines:
    """Tensors as lines in one signal, and the constants that were met on the way."""

    x: str
    written: Written
    numbers: list[str] = field(default_factory=list[str])

    def line(self, name: str, depth: int) -> Line | None:
        """The tensor as slope x + height."""
        if name == self.x:
            return Line(Fraction(1), Fraction(0))
        number = self.written.scalar(name)
        if number is not None:
            self.numbers.append(name)
            return Line(Fraction(0), Fraction(number))
        made = self.written.producers.get(name)
        if made is None or made.op not in _COMBINED or depth == 0:
            return None
        parts = [self.line(part, depth - 1) for part in made.inputs]
        lines = [part for part in parts if part is not None]
        return _COMBINED[made.op](*lines) if len(lines) == len(parts) else None


def _sum(one: Line, other: Line) -> Line:
    return Line(one.slope + other.slope, one.height + other.height)


def _negative(line: Line) -> Line:
    return Line(-line.slope, -line.height)


def _difference(one: Line, other: Line) -> Line:
    return _sum(one, _negative(other))


def _product(one: Line, other: Line) -> Line | None:
    """Of a line and a number."""
    if one.slope and other.slope:
        return None
    number, line = (one.height, other) if not one.slope else (other.height, one)
    return Line(number * line.slope, number * line.height)


def _quotient(one: Line, other: Line) -> Line | None:
    if other.slope or not other.height:
        return None
    return Line(one.slope / other.height, one.height / other.height)


_COMBINED: Final[Mapping[str, Callable[..., Line | None]]] = {
    "Add": _sum,
    "Div": _quotient,
    "Mul": _product,
    "Neg": _negative,
    "Sub": _difference,
}
