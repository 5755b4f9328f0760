"""The waves of the discrete Fourier transform, with proved errors, and which of them are enough.

Signals are real: J(-f) is the conjugate of J(f), and one of each pair (f, -f) is enough.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.arithmetic import UNIT
from verifier.checker.cosines import cosine_table, sine_table

if TYPE_CHECKING:
    from jaxtyping import Bool, Complex128, Float64, Int64

PHASE = 16 * UNIT  #: above the error of a product of three entries, each off by 2^(1/2) u


def roots_of_unity(side: int) -> Complex128[np.ndarray, " side"]:
    """e^(2 pi i k / side); real and imaginary parts are off by at most u each."""
    return cosine_table(side) + 1j * sine_table(side)


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
