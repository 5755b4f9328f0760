"""What maps of tensors on a torus do to each frequency: matrices of channels with their errors.

With x(f) the orthonormal Fourier transform, (1) of `verifier.checker.taps` becomes, where nothing
strides, y(f) = M(f) x(f),

    M(f) = sum_k W_k e^(2 pi i sum_a f_a o_ka / n_a).                                        (1)

Taking every s-th place of a torus with n places an axis leaves n/s frequencies, and

    y(g) = s^(-1/2) sum_j x(g + j n/s),    j = 0 .. s-1, axis by axis.                       (2)

An error bounds every entry at every frequency: |M_true(f) - M(f)| <= error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.arithmetic import UNIT, enlarged, gamma
from verifier.checker.batches import TINY, imaginary_part, multiplied, real_part
from verifier.checker.phases import PHASE, phases

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64

    from verifier.checker.batches import Batch
    from verifier.checker.taps import Taps

    Table = Float64[np.ndarray, "rows columns"]


@dataclass(frozen=True, slots=True)
class Symbol:
    """One matrix for each frequency, or one for all, with an error and a bound of |M_true|."""

    value: Batch
    error: Table
    bound: Table

    @staticmethod
    def of(value: Batch, error: Table) -> Symbol:
        """With the bound that the values show."""
        largest = np.abs(value).max(axis=0) * (1 + 4 * UNIT)
        return Symbol(value, error, (largest + error) * (1 + 4 * UNIT))

    def after(self, first: Symbol) -> Symbol:
        """The product with what acts before."""
        inner = first.value.shape[1]
        rounding = 1.5 * gamma(2 * inner + 4) * (self.bound @ first.bound)
        loose = self.bound @ first.error + self.error @ first.bound
        error = enlarged(rounding + loose + self.error @ first.error, inner + 8) + TINY
        return Symbol.of(multiplied(self.value, first.value), error)

    def plus(self, other: Symbol) -> Symbol:
        """The sum."""
        loose = self.error + other.error + UNIT * (self.bound + other.bound)
        return Symbol.of(self.value + other.value, enlarged(loose, 4))


def unit(channels: int) -> Symbol:
    """The identity."""
    return Symbol.of(np.eye(channels)[None], np.zeros((channels, channels)))


def symbol_of(
    taps: Taps, sides: tuple[int, ...], frequencies: Int64[np.ndarray, "many axes"]
) -> Symbol:
    """Equation (1) on a torus; its frequencies modulo the sides."""
    count, rows, columns = taps.weights.shape
    loose = np.zeros((rows, columns)) if taps.errors is None else taps.errors.sum(axis=0)
    if not np.any(taps.offsets):
        value = taps.weights.sum(axis=0)
        mass = np.abs(taps.weights).sum(axis=0) * (gamma(count) if count > 1 else 0.0)
        return Symbol.of(value[None], enlarged(loose + mass, count + 4))
    waves = phases(taps.offsets, sides, frequencies)
    return transformed(taps.weights, loose, waves)


def transformed(
    weights: Float64[np.ndarray, "taps out in"],
    loose: Table,
    waves: Batch,
) -> Symbol:
    """sum_k W_k w_k(f) of proved phases w_k, [taps, frequencies], W off by `loose` in all."""
    count, rows, columns = weights.shape
    flat = weights.reshape(count, -1).T
    value = np.empty((waves.shape[1], rows * columns), np.complex128)
    value.real = (flat @ real_part(waves)).T
    value.imag = (flat @ imaginary_part(waves)).T
    mass = enlarged(np.abs(weights).sum(axis=0), count)
    # Real and imaginary parts each err so; 2^(1/2) < 1.5. Phases are at most 1 + PHASE in size.
    error = 1.5 * mass * (gamma(count + 4) + PHASE) + loose
    return Symbol.of(value.reshape(-1, rows, columns), enlarged(error, count + 4) + TINY)
