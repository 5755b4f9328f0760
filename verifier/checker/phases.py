"""The discrete Fourier transform's numbers, proved: no sine of the mathematics library is trusted.

pi by Machin's formula and the series of sine and cosine are summed in integers, in units of 2^-160:
every step truncates by less than one unit, fewer than 2^8 steps matter, so that what is rounded to
float64 at last is off by less than 2^-150. An entry of a table errs by at most u, a product of the
phases of up to three axes by less than PHASE.

Signals are real: J(-f) is the conjugate of J(f), and one of each pair (f, -f) is enough.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.arithmetic import UNIT

if TYPE_CHECKING:
    from jaxtyping import Bool, Complex128, Float64, Int64

BITS = 160
PHASE = 16 * UNIT  #: above the error of a product of three entries, each off by 2^(1/2) u


def _arctangent(inverse: int) -> int:
    """arctan(1/inverse) in units."""
    power = (1 << BITS) // inverse
    total, count = power, 1
    while power:
        power //= inverse * inverse
        count += 2
        total += power // count if count % 4 == 1 else -(power // count)
    return total


def _cosine_sine(numerator: int, denominator: int) -> tuple[float, float]:
    """Of pi/2 times a fraction within [0, 1), rounded."""
    pi = 4 * (4 * _arctangent(5) - _arctangent(239))
    angle = pi * numerator // (2 * denominator)
    sums, term = [0, 0, 0, 0], 1 << BITS
    count = 0
    while term:
        sums[count % 4] += term
        count += 1
        term = (term * angle >> BITS) // count
    unit = Fraction(1, 1 << BITS)
    return float((sums[0] - sums[2]) * unit), float((sums[1] - sums[3]) * unit)


def roots_of_unity(side: int) -> Complex128[np.ndarray, " side"]:
    """e^(2 pi i k / side); real and imaginary parts are off by at most u each."""
    table = np.zeros(side, np.complex128)
    for k in range(side):
        quarter, rest = divmod(4 * k, side)
        cosine, sine = _cosine_sine(rest, side) if rest else (1.0, 0.0)
        turns = ((cosine, sine), (-sine, cosine), (-cosine, -sine), (sine, -cosine))
        table[k] = complex(*turns[quarter])
    return table


@dataclass(frozen=True, slots=True)
class Frequencies:
    """The frequencies of a torus, and one of each pair (f, -f)."""

    sides: tuple[int, ...]
    chosen: Int64[np.ndarray, "frequencies axes"]  #: one of each pair
    place: Int64[np.ndarray, " all"]  #: of every frequency, or its opposite, among the chosen
    is_opposite: Bool[np.ndarray, " all"]

    @staticmethod
    def of(sides: tuple[int, ...]) -> Frequencies:
        """Those of a torus."""
        every = np.stack(np.unravel_index(np.arange(math.prod(sides)), sides), axis=1)
        opposite = np.ravel_multi_index(tuple((-every % np.array(sides)).T), sides)
        first = np.minimum(opposite, np.arange(len(every)))
        chosen, place = np.unique(first, return_inverse=True)
        return Frequencies(
            sides, every[chosen].astype(np.int64), place, first != np.arange(len(every))
        )

    @property
    def weights(self) -> Float64[np.ndarray, " frequencies"]:
        """How many frequencies each chosen one stands for: two, or itself alone."""
        return np.bincount(self.place).astype(np.float64)

    def places_of(
        self, frequencies: Int64[np.ndarray, "many axes"]
    ) -> tuple[Int64[np.ndarray, " many"], Bool[np.ndarray, " many"]]:
        """Which chosen frequency each is, and whether it is its opposite."""
        flat = np.ravel_multi_index(tuple((frequencies % np.array(self.sides)).T), self.sides)
        return self.place[flat], self.is_opposite[flat]


def phases(
    offsets: Int64[np.ndarray, "taps axes"],
    sides: tuple[int, ...],
    frequencies: Int64[np.ndarray, "many axes"],
) -> Complex128[np.ndarray, "taps many"]:
    """e^(2 pi i sum_a f_a o_a / side_a), each off by at most PHASE."""
    result = np.ones((len(offsets), len(frequencies)), np.complex128)
    for axis, side in enumerate(sides):
        table = roots_of_unity(side)
        result = result * table[np.outer(offsets[:, axis], frequencies[:, axis]) % side]
    return result
