"""The spectral norm of a convolution, proved frequency by frequency.

The norm of a stencil is at most the greatest |K(w)| of its symbol over all w (`stencils`). K(w) is
sampled on N_a equidistant frequencies of every axis, which is enough in two ways:

    torus   N_a at least the side (2) of `stencils`: the greatest sample itself is a bound;
    grid    N_a > 2 d_a, d_a = u_max / 2 the degree: a real trigonometric polynomial of degree d
            keeps at least cos(d h) of its maximum at distance h <= pi / (2 d), and Re(u* K v),
            centred by a phase, is one in every axis: greatest sample / prod_a cos(pi d_a / N_a).

|K|_2^2 <= t follows from a Cholesky factor of t I - K*K minus all errors, as in `definite`: each
part of a complex sum of n products is a real sum of 2n, so that its lemma holds of Hermitian
matrices with gamma_(4n+16) in the place of gamma_(n+3). One t serves all samples: where it fails it
grows, and what it has proved before stays proved. The samples of w and -w are conjugates, so that
half of them are enough.

Rounding. The cosines are within u, their products over k axes within 8ku; the sum over q taps adds
gamma_q. So |K~ - K| <= gamma_(q + 8k + 8) 4 S entrywise with S = sum_t |K[t]|, and its Frobenius
norm, that of the stored error included, is added to the root of t.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.arithmetic import (
    LEAST,
    UNIT,
    down,
    enlarged,
    gamma,
    root_up,
    squares_up,
    up,
)
from verifier.checker.cosines import cosine, cosine_table, sine_table
from verifier.checker.definite import (
    NotProved,
    column_sums_bound,
    greatest_eigenvalue_estimate,
    row_sums_bound,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    from jaxtyping import Complex128, Float64, Int64

    from verifier.checker.stencils import Stencil

    Waves: TypeAlias = Complex128[np.ndarray, "shifts chunk"]

WORK = 6e10  #: multiplications that the samples of one stencil may cost
SAMPLES = 2**16  #: the most frequencies of one stencil
GRIDS = (96, 64, 48, 32, 24, 16, 12, 8, 6, 4, 3, 2)  #: sides tried where the torus is too dear
CHUNK_ENTRIES = 2**22  #: entries of the matrices that are tested at a time
SPREAD = 16  #: frequencies that are sampled first
GROWTHS = 12  #: how often the level of one chunk grows before the Frobenius norm is taken


@dataclass(frozen=True, slots=True)
class Sampling:
    """The frequencies of every axis, and the factor from their greatest sample to a bound."""

    sides: tuple[int, ...]
    factor: float


def stencil_norm(stencil: Stencil, hint: float | None = None) -> float:
    """A number that the stencil's spectral norm does not exceed; infinite where it is too dear.

    Args:
        stencil: the convolution.
        hint: a level that is tried first.
    """
    chosen = sampling(stencil)
    if chosen is None:
        return math.inf
    largest = float(np.abs(stencil.kernel).max(initial=0.0))
    if not math.isfinite(largest):
        raise NotProved("a kernel has an entry beyond float64")
    if largest == 0 and (stencil.error is None or not np.any(stencil.error)):
        return 0.0
    return _Samples(stencil, chosen, math.frexp(largest)[1]).bound(hint)


def sampling(stencil: Stencil) -> Sampling | None:
    """The sharpest sampling within the budget of work; None where there is none."""
    tori = tuple(axis.torus for axis in stencil.axes)
    for greatest in (max(tori), *(side for side in GRIDS if side < max(tori))):
        sides, factor = list[int](), 1.0
        for axis, torus in zip(stencil.axes, tori, strict=True):
            sides.append(min(torus, greatest) if axis.degree else 1)
            if sides[-1] < torus and axis.degree:
                if not axis.degree < greatest:
                    break
                # pi d / N = 2 pi degree / (4 N); the cosine is within u and not small.
                factor = up(factor / down(cosine(Fraction(axis.degree, 4 * greatest)) - UNIT))
        else:
            if _work(stencil, sides) <= WORK and math.prod(sides) <= SAMPLES:
                return Sampling(tuple(sides), factor)
    return None


def _work(stencil: Stencil, sides: list[int]) -> float:
    """Multiplications of symbols, Gram matrices and Cholesky factors."""
    groups, outputs, inputs = stencil.kernel.shape[:3]
    inputs *= stencil.phase_count
    least, most = min(outputs, inputs), max(outputs, inputs)
    shifts = math.prod(axis.degree + 1 for axis in stencil.axes)
    each = 2.0 * outputs * inputs * shifts + 2.0 * most * least**2 + 2 / 3 * least**3
    return groups * math.prod(sides) / 2 * each


class _Samples:
    """The symbols of one stencil, brought to a largest coefficient in [1/2, 1)."""

    def __init__(self, stencil: Stencil, chosen: Sampling, exponent: int) -> None:
        self._chosen, self._exponent = chosen, exponent
        self._stencil = stencil
        scaled = stencil.phased(np.ldexp(stencil.kernel, -exponent))
        if scaled.shape[1] < scaled.shape[2]:
            # K'(w) is a conjugate's transpose of the same norm: columns are the shorter side.
            scaled = scaled.transpose(0, 2, 1, 3)
        self._kernel = scaled
        self._groups, self._rows, self._columns, self._shifts = scaled.shape
        rank = len(stencil.axes)
        share = 4 * gamma(self._shifts + 8 * rank + 8)
        sums = enlarged(np.sum(np.abs(scaled), axis=3), self._shifts)
        # Scaling down may underflow by eta an entry, and so may every product.
        excess = root_up(max(squares_up(part) for part in sums)) * share * (1 + 8 * UNIT)
        self._excess = excess + 4 * scaled[0].size * LEAST
        if stencil.error is not None:
            spread = stencil.phased(np.ldexp(stencil.error, -exponent) + LEAST)
            total = enlarged(np.sum(spread, axis=3), self._shifts)
            self._excess += root_up(max(squares_up(part) for part in total))
            self._excess *= 1 + 8 * UNIT
        sums = sums * (1 + share)
        #: |K| <= 2 S entry by entry, so that | |K| |_2^2 <= 4 |S|_1 |S|_inf.
        self._mass = 4 * max(
            float(column_sums_bound(part, None).max()) * float(row_sums_bound(part, None).max())
            for part in sums
        )

    def bound(self, hint: float | None) -> float:
        """The bound at the kernel's own scale, rounded up."""
        level = 0.0
        if hint is not None and 0 <= hint < math.inf:
            core = min(float(np.ldexp(hint, -self._exponent)), 2.0**100) / self._chosen.factor
            level = max(0.0, down(core - self._excess)) ** 2 * (1 - 8 * UNIT)
        for waves in self._waves():
            level = self._raised(level, waves)
        whole = up(up(root_up(level) + self._excess) * self._chosen.factor)
        bound = up(float(np.ldexp(whole, self._exponent)))
        # The hint's own roundings were downwards: what they lost is not lost.
        return bound if hint is None or not bound <= hint * (1 + 32 * UNIT) else max(bound, hint)

    def _waves(self) -> Iterator[Waves]:
        """Waves of half of all frequencies, a chunk at a time; a few spread ones come first."""
        sides = self._chosen.sides
        every = np.indices(sides).reshape(len(sides), -1)
        mirrored = np.ravel_multi_index(tuple(-every % np.array(sides)[:, None]), sides)
        chosen = every[:, np.arange(every.shape[1]) <= mirrored]
        count = int(chosen.shape[1])
        # A good level from the start spares the trials that fail.
        is_first = np.arange(count) % max(1, count // SPREAD) == 0
        order = np.argsort(~is_first, kind="stable")
        per = self._groups * 2 * self._columns * (self._columns + self._rows)
        chunk = max(1, CHUNK_ENTRIES // per)
        for start in range(0, count, chunk):
            yield self._waves_of(chosen[:, order[start : start + chunk]])

    def _waves_of(self, frequencies: Int64[np.ndarray, "axes chunk"]) -> Waves:
        """exp(i w u) for every shift u and frequency w, within 8 u for every axis."""
        waves = np.ones((1, frequencies.shape[1]), dtype=np.complex128)
        for place, axis in enumerate(self._stencil.axes):
            side = self._chosen.sides[place]
            turns = np.arange(axis.degree + 1)[:, None] * frequencies[place] % side
            factor = cosine_table(side)[turns] + 1j * sine_table(side)[turns]
            waves = (waves[:, None] * factor[None]).reshape(-1, frequencies.shape[1])
        return waves

    def _raised(self, level: float, waves: Waves) -> float:
        """The least level found from the given one up that is proved for every sample."""
        real, imaginary = (
            np.moveaxis(self._kernel @ np.ascontiguousarray(part), 3, 1).reshape(
                -1, self._rows, self._columns
            )
            for part in (np.real(waves), np.imag(waves))
        )
        # Where |K|_F^2 is small nothing else is needed; a single column has no other norm.
        masses = enlarged(
            np.sum(np.square(real) + np.square(imaginary), axis=(1, 2)),
            2 * self._rows * self._columns,
        )
        if self._columns == 1:
            return max(level, float(masses.max()))
        kept = level < masses
        if not np.any(kept):
            return level
        return self._proved(level, real[kept], imaginary[kept], float(masses.max()))

    def _proved(
        self,
        level: float,
        real: Float64[np.ndarray, "chunk m n"],
        imaginary: Float64[np.ndarray, "chunk m n"],
        frobenius: float,
    ) -> float:
        gram = _gram(real, imaginary)
        error = gamma(4 * self._rows + 16) * min(self._mass, 2 * frobenius) * (1 + 8 * UNIT)
        error += 32 * self._rows * self._columns * LEAST
        growth = max(1e-14 * self._columns, 1e-12)
        for _ in range(GROWTHS):
            if _holds(gram, level, error):
                return level
            # What is proved of a sample alone stays proved: only the others are tried again.
            failing = [part for part in gram if not _holds(part[None], level, error)]
            if not failing:
                return level
            gram = np.stack(failing)
            estimate = _estimate(gram)
            level = max(level, (estimate + 2 * error) * (1 + growth))
            growth *= 8
        return max(level, frobenius)


def _holds(gram: Complex128[np.ndarray, "chunk n n"], level: float, error: float) -> bool:
    """Whether K*K <= level I is shown of every sample, for every error of K*K within `error`."""
    size = int(gram.shape[1])
    share = gamma(4 * size + 16)
    shift = (
        share / (1 - share) * size * level * (1 + 2 * gamma(size + 2))
        + error
        + 8 * UNIT * level
        + 32 * size * (size + 2 * (level + 1)) * LEAST
    ) * (1 + 1e-9)
    if not shift < level < math.inf:
        return False
    matrix = -gram
    places = np.arange(size)
    diagonal = level - shift - np.real(gram[:, places, places])
    matrix[:, places, places] = diagonal
    if not (np.all(np.isfinite(matrix)) and np.all(0 < diagonal)):
        return False
    try:
        factor = np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return False
    return bool(np.all(np.isfinite(factor)) and np.all(0 < np.real(factor[:, places, places])))


def _gram(
    real: Float64[np.ndarray, "chunk m n"], imaginary: Float64[np.ndarray, "chunk m n"]
) -> Complex128[np.ndarray, "chunk n n"]:
    """fl(K*K) of K = A + iB: A'A + B'B + i (A'B - B'A), Hermitian to the last bit."""
    adjoint = real.transpose(0, 2, 1)
    mixed = adjoint @ imaginary
    gram = (mixed - mixed.transpose(0, 2, 1)) * 1j
    gram += adjoint @ real + imaginary.transpose(0, 2, 1) @ imaginary
    return gram


def _estimate(gram: Complex128[np.ndarray, "chunk n n"]) -> float:
    """About the greatest eigenvalue of all: a hint for a test."""
    if gram.shape[1] <= 96:
        return max(float(np.linalg.eigvalsh(gram).max()), 0.0)
    real, imaginary = np.real(gram), np.imag(gram)
    whole = (np.block([[a, -b], [b, a]]) for a, b in zip(real, imaginary, strict=True))
    return max(greatest_eigenvalue_estimate(part) for part in whole)
