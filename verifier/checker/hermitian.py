"""Upper bounds of covariances, through steps that keep the order of Hermitian matrices.

A `Covariance` is one Hermitian matrix J(f) for each of F frequencies (F = 1, and real, where there
are none) and asserts z z* <= J |dx|^2 for the increments z that it speaks of. J(f) is exactly what
is stored, scaled row by row by powers of two:

    J_ij = value_ij 2^(e_i + e_j),    the diagonal of `value` being near 1.                  (1)

Every step maps larger J to larger results. So its floating-point result, once raised by a bound of
its rounding, is again an upper bound, and no error is carried along:

    X + E <= X + |E|_F I.                                                                   (2)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.arithmetic import UNIT, above
from verifier.checker.batches import (
    TINY,
    adjoint,
    inverse_root,
    moved,
    norm_up,
    product,
    real_part,
    rounding_share,
)
from verifier.checker.blocks import applied
from verifier.checker.definite import NotProved

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64, Shaped

    from verifier.checker.batches import Batch, Norms
    from verifier.checker.blocks import Rows

WIDEST = 2**13  #: a covariance of more entries is not formed
EXPONENTS = 2**40  #: row exponents stay below, so that their sums are exact


@dataclass(frozen=True, slots=True)
class Covariance:
    """Equation (1). A `value` of two axes is the diagonal of a diagonal matrix."""

    value: Shaped[np.ndarray, "frequencies rows ..."]
    exponent: Int64[np.ndarray, " rows"]

    @property
    def size(self) -> int:
        """The number of entries of z."""
        return len(self.exponent)

    def picked(self, index: Int64[np.ndarray, " n"]) -> Covariance:
        """Of some entries of z, in this order, also twice. Nothing is rounded."""
        whole = self.full()
        return Covariance(whole.value[:, index[:, None], index[None, :]], self.exponent[index])

    def full(self) -> Covariance:
        """The same as a full matrix."""
        if self.value.ndim == 3:
            return self
        require_formable(self.size)
        value = np.zeros((*self.value.shape, self.size), self.value.dtype)
        place = np.arange(self.size)
        value[:, place, place] = self.value
        return replace(self, value=value)

    def carried(self, rows: Rows) -> Covariance:
        """Of B z, for every B within the error."""
        require_formable(rows.value.shape[1])
        linear, spread, exponent = _balanced(rows, self.exponent)
        length = norm_up(linear)
        # Blocks are added up: as many terms more in a sum.
        count = rows.value.shape[2] + (0 if rows.blocks is None else len(rows.blocks))
        share = rounding_share(count, linear, self.value)
        if self.value.ndim == 2:
            first = linear * self.value[:, None, :]
            inner = norm_up(first)
            lost = UNIT * inner
            # |B J B* - B_0 J B_0*| <= (2 |dB| |B_0| + |dB|^2) |J|, J diagonal.
            mass = np.abs(self.value).max(axis=1) * length
            own = np.abs(self.value).max(axis=1)
        else:
            first = applied(linear, rows.blocks, self.value)
            own, inner = norm_up(self.value), norm_up(first)
            lost = share * length * own + TINY
            mass = inner + lost
        second = adjoint(applied(linear, rows.blocks, adjoint(first)))
        last = share * length * inner + TINY
        error = lost * length + last + spread * (2 * mass + spread * own)
        return raised(second, error, exponent)

    def corrected(
        self, place: Int64[np.ndarray, " q"], scale: Float64[np.ndarray, " q"]
    ) -> Covariance:
        """J + J_t (D - J_tt)^-1 J_t*, D = diag(scale), t the entries at `place`.

        Raises:
            NotProved: 0 < D - J_tt is not shown.
        """
        whole = self.full()
        require_scales(scale)
        half = np.rint(np.log2(scale) / 2).astype(np.int64)
        shift = self.exponent[place] - half
        gap = -moved(
            whole.value[:, place[:, None], place[None, :]], shift[:, None] + shift[None, :]
        )
        own = np.arange(len(place))
        level = np.ldexp(scale, -2 * half)
        # Two steps down: one for the difference, one for what underflowed in `gap`.
        difference = real_part(gap[:, own, own]) + level
        gap[:, own, own] = np.nextafter(np.nextafter(difference, -np.inf), -np.inf)
        root, share = inverse_root(gap)
        pulled, lost = product(root, moved(whole.value[:, place, :], shift[:, None]))
        size = norm_up(pulled)
        square, last = product(adjoint(pulled), pulled)
        factor = above(1 / np.nextafter(1 - share, -np.inf))[:, None, None]
        added = factor * square
        value = whole.value + added
        rounding = 3 * UNIT * (norm_up(added) + norm_up(value))
        error = factor[:, 0, 0] * (last + 2 * lost * size + lost * lost) + rounding
        return raised(value, error, self.exponent)

    def gated(
        self,
        place: Int64[np.ndarray, " n"],
        middle: Float64[np.ndarray, " n"],
        noise: Float64[np.ndarray, " n"],
    ) -> Covariance:
        """Of m v + w at `place`, v what was there and w independent with the variances `noise`."""
        whole = self.full()
        # Rows take the scale of the greater part, which w may be.
        exponent = self.exponent.copy()
        exponent[place] = np.maximum(exponent[place], (_exponents(noise) + 1) // 2)
        factor = np.ones(self.size)
        factor[place] = middle
        shift = self.exponent - exponent
        value = moved(whole.value * factor[:, None] * factor, shift[:, None] + shift)
        error = 3 * UNIT * norm_up(value)
        added = above(moved(noise, -2 * exponent[place])) * (noise > 0)
        value[:, place, place] = above(real_part(value[:, place, place]) + added)
        return raised(value, error, exponent)

    def extended(self, noise: Float64[np.ndarray, " n"]) -> Covariance:
        """Of (z, w), w independent of z with the variances `noise`, which are positive."""
        whole = self.full()
        half = np.rint(np.log2(noise) / 2).astype(np.int64)
        size, total = self.size, self.size + len(noise)
        value = np.zeros((len(whole.value), total, total), whole.value.dtype)
        value[:, :size, :size] = whole.value
        place = np.arange(size, total)
        value[:, place, place] = np.ldexp(noise, -2 * half)
        return Covariance(value, np.concatenate([self.exponent, half]))


def identity(frequencies: int, variances: Float64[np.ndarray, " n"], *, real: bool) -> Covariance:
    """The covariance diag(variances) at every frequency; entries of variance 0 do not vary."""
    varied = np.where(variances > 0, variances, 1.0)
    half = np.rint(np.log2(varied) / 2).astype(np.int64)
    level = np.ldexp(variances, -2 * half).astype(np.float64 if real else np.complex128)
    return Covariance(np.repeat(level[None, :], frequencies, axis=0), half)


def raised(batch: Batch, error: Norms, exponent: Int64[np.ndarray, " n"]) -> Covariance:
    """X + error I by (2), for Hermitian X that `batch` is up to the error; scaled anew.

    The mean of X and X* is nearer to a Hermitian matrix than X is; each entry rounds by u.
    """
    value = batch + adjoint(batch)
    value *= 0.5
    own = np.arange(len(exponent))
    enough = (error + 2 * UNIT * norm_up(value)) * (1 + 32 * UNIT) + 2 * TINY
    diagonal = above(real_part(value[:, own, own]) + enough[:, None])
    value[:, own, own] = diagonal
    largest = diagonal.max(axis=0, initial=0.0)
    if not (np.all(np.isfinite(value)) and np.all(0 < largest)):
        raise NotProved("a covariance exceeds float64")
    half = np.rint(np.log2(largest) / 2).astype(np.int64)
    if np.any(half):
        value = moved(value, -half[:, None] - half[None, :])
        value[:, own, own] = above(real_part(value[:, own, own]) + TINY)
    if np.abs(exponent + half).max(initial=0) > EXPONENTS:
        raise NotProved("a covariance exceeds every range")
    return Covariance(value, exponent + half)


def require_formable(size: int) -> None:
    """A covariance of this many entries is small enough.

    Raises:
        NotProved: it is not.
    """
    if size > WIDEST:
        raise NotProved(f"a covariance of {size} entries; {WIDEST} are the most")


def require_scales(scales: Float64[np.ndarray, " n"]) -> None:
    """Each is within 2^-900 .. 2^900; nan, 0 and negative numbers are not.

    Raises:
        NotProved: one is not.
    """
    limit = 2.0**900
    if not np.all((1 / limit <= scales) & (scales <= limit)):
        raise NotProved("each scale of a gate with a psi has to be in 2^-900 .. 2^900")


def _balanced(
    rows: Rows, entering: Int64[np.ndarray, " columns"]
) -> tuple[Batch, float, Int64[np.ndarray, " rows"]]:
    """(B with rows of entries up to 1, |error|_F at that scale, the rows' exponents)."""
    places = _exponents(np.abs(rows.value).max(axis=0)) + entering[None, :]
    if rows.error is not None:
        # A row that is little more than its error is scaled by that: it may not outweigh others.
        wide = _exponents(rows.error) + entering[None, :] + 48
        places = np.maximum(places, wide)
    exponent = places.max(axis=1, initial=-2 * EXPONENTS)
    zero = exponent < -EXPONENTS
    # Rows of zeros are zeros at any scale: a small one keeps what errors add to them small.
    exponent[zero] = exponent[~zero].max(initial=0) - 100
    shift = entering[None, :] - exponent[:, None]
    value = moved(rows.value, shift)
    # Each entry that underflows is off by eta.
    spread = TINY
    if rows.error is not None:
        spread += float(norm_up(moved(rows.error, shift)[None])[0])
    return value, spread * (1 + 4 * UNIT), exponent


def _exponents(sizes: Float64[np.ndarray, "*any"]) -> Int64[np.ndarray, "*any"]:
    """Integers that log2 does not exceed; far below all others for 0."""
    if not np.all(np.isfinite(sizes)):
        raise NotProved("a linear map exceeds float64")
    return np.where(sizes > 0, np.frexp(sizes)[1].astype(np.int64), -2 * EXPONENTS)
