"""Softmax and its logarithm, with proved values and derivatives on boxes.

For x in [l, u], p = softmax(x) and S_i = sum_(j != i) exp(x_j - x_i),

    p_i = 1/(1 + S_i),    1 - p_i = S_i/(1 + S_i),    log p_i = -log(1 + S_i),              (1)

and S_i is least at x_i = u_i, x_j = l_j, greatest at x_i = l_i, x_j = u_j: all ends are reached.

    d p_i / d x_j = p_i (1 if i = j) - p_i p_j,    d log p_i / d x_j = (1 if i = j) - p_j.  (2)

Constants. A row of softmax's Jacobian has the absolute sum 2 p_i (1 - p_i) <= 1/2, it is symmetric,
and |J|_2^2 <= |J|_1 |J|_inf. A row of the logarithm's has 2 (1 - p_i) <= 2, a column
1 + (n - 2) p_j <= max(1, n - 1); |I - 1 p'|_2 is convex in p, so greatest at a unit vector, and
sqrt(n) there.

Entries may be left out, as if x_j = -inf there: they count in no sum, p_j = 0, and the rest is the
softmax of fewer entries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from verifier.checker import enclosures
from verifier.checker.arithmetic import ONE, Magnitude, above, below, enlarged, gamma, root_up
from verifier.norms import Norm

if TYPE_CHECKING:
    from jaxtyping import Bool, Float64, Int64

    Kept: TypeAlias = Bool[np.ndarray, "groups n"]
    Rows: TypeAlias = Float64[np.ndarray, "*groups n"]
    Squares: TypeAlias = Float64[np.ndarray, "*groups n n"]

_MOST = 2.0**1000  #: what lower ends of S say beyond it


@dataclass(frozen=True, slots=True, eq=False)
class Softmax:
    """p of (1)."""

    keeps: Bool[np.ndarray, "groups n"] | None = None  #: None: all; else one at least of a group

    def constant(self, norm: Norm, width: int) -> Magnitude:  # noqa: ARG002 (the same in all)
        """1/2; of one entry it is constant."""
        return Magnitude.of(0.5 if 1 < width else 0.0)

    def constant_on(self, norm: Norm, lower: Rows, upper: Rows) -> Float64[np.ndarray, "*groups 1"]:
        """The greatest 2 p (1 - p), and no more than the constant."""
        sums = _sums(lower, upper, self.keeps)
        steepest = _spreads(_shares(*sums), _others(*sums))[1]
        steepest = self._only(steepest).max(axis=-1, keepdims=True)
        return np.minimum(2 * steepest, self.constant(norm, lower.shape[-1]).upper())

    def image(self, lower: Rows, upper: Rows) -> tuple[Rows, Rows]:
        """1/(1 + S) at the ends of S."""
        low, high = _shares(*_sums(lower, upper, self.keeps))
        return self._only(low), self._only(high)

    def _only(self, numbers: Rows) -> Rows:
        """The numbers, 0 at what is left out."""
        return numbers if self.keeps is None else np.where(self.keeps, numbers, 0.0)

    def derivatives(self, lower: Rows, upper: Rows) -> tuple[Squares, Squares]:
        """(2). Off the diagonal p_i p_j <= p_i (1 - p_i), for p_j <= 1 - p_i."""
        sums = _sums(lower, upper, self.keeps)
        low, high = (self._only(share) for share in _shares(*sums))
        steep, steepest = (self._only(spread) for spread in _spreads((low, high), _others(*sums)))
        least = np.maximum(below(low[..., :, None] * low[..., None, :]), 0.0)
        most = above(high[..., :, None] * high[..., None, :])
        most = np.minimum(most, np.minimum(steepest[..., :, None], steepest[..., None, :]))
        return with_diagonal(-most, steep), with_diagonal(-least, steepest)


@dataclass(frozen=True, slots=True)
class LogSoftmax:
    """log p of (1)."""

    def constant(self, norm: Norm, width: int) -> Magnitude:
        """As the module says; of one entry it is constant."""
        if width == 1:
            return Magnitude.of(0.0)
        match norm:
            case Norm.L1:
                return Magnitude.of(float(max(1, width - 1)))
            case Norm.L2:
                return Magnitude.of(root_up(float(width)))
            case Norm.LINF:
                return ONE + ONE

    def constant_on(self, norm: Norm, lower: Rows, upper: Rows) -> Float64[np.ndarray, "*groups 1"]:
        """The greatest 2 (1 - p) in linf, and no more than the constant."""
        known = np.full((*lower.shape[:-1], 1), self.constant(norm, lower.shape[-1]).upper())
        if norm is not Norm.LINF:
            return known
        return np.minimum(known, 2 * _others(*_sums(lower, upper))[1].max(axis=-1, keepdims=True))

    def image(self, lower: Rows, upper: Rows) -> tuple[Rows, Rows]:
        """-log(1 + S) at the ends of S, the greatest exponent taken out of the sum."""
        least, most = _differences(lower, upper)
        return -_log_of_sum(most)[1], -_log_of_sum(least)[0]

    def derivatives(self, lower: Rows, upper: Rows) -> tuple[Squares, Squares]:
        """(2)."""
        sums = _sums(lower, upper)
        low, high = _shares(*sums)
        rest, most = _others(*sums)
        shape = (*low.shape, low.shape[-1])
        return (
            with_diagonal(np.broadcast_to(-high[..., None, :], shape).copy(), rest),
            with_diagonal(np.broadcast_to(-low[..., None, :], shape).copy(), most),
        )


def _differences(lower: Rows, upper: Rows) -> tuple[Squares, Squares]:
    """Ends of x_j - x_i at [.., i, j], 0 for i = j."""
    least = below(lower[..., None, :] - upper[..., :, None])
    most = above(upper[..., None, :] - lower[..., :, None])
    zero = np.zeros(lower.shape)
    return with_diagonal(least, zero), with_diagonal(most, zero)


def _sums(lower: Rows, upper: Rows, keeps: Kept | None = None) -> tuple[Rows, Rows]:
    """Ends of S, of the entries that are kept; the upper one is infinite beyond float64."""
    count = lower.shape[-1]
    least, most = _differences(lower, upper)
    zero = np.zeros(lower.shape)
    with np.errstate(over="ignore"):
        low = with_diagonal(enclosures.exp(least)[0], zero)
        high = with_diagonal(enclosures.exp(most)[1], zero)
        if keeps is not None:
            low, high = (np.where(keeps[..., None, :], one, 0.0) for one in (low, high))
        low, high = low.sum(axis=-1), high.sum(axis=-1)
        low = np.minimum(_lessened(low, count), _MOST)
        return low, enlarged(high, count)


def _lessened(sums: Rows, count: int) -> Rows:
    """Numbers that the exact sums of non-negative terms are not below."""
    return np.maximum(sums * (1 - 2 * gamma(count + 2)) - count * enclosures.TINY, 0.0)


def _shares(low: Rows, high: Rows) -> tuple[Rows, Rows]:
    """Ends of p = 1/(1 + S)."""
    return np.maximum(below(1.0 / above(1.0 + high)), 0.0), np.minimum(
        above(1.0 / below(1.0 + low)), 1.0
    )


def _others(low: Rows, high: Rows) -> tuple[Rows, Rows]:
    """Ends of 1 - p = S/(1 + S), without cancellation."""
    huge = np.isinf(high)
    finite = np.where(huge, 1.0, high)
    most = np.where(huge, 1.0, np.minimum(above(finite / below(1.0 + finite)), 1.0))
    return np.maximum(below(low / above(1.0 + low)), 0.0), most


def _spreads(share: tuple[Rows, Rows], rest: tuple[Rows, Rows]) -> tuple[Rows, Rows]:
    """Ends of p (1 - p), concave in p: least at an end, greatest at 1/2 or the end next to it."""
    (low, high), (least, most) = share, rest

    def at(p: Rows, side: float) -> Rows:
        value = p * (1.0 - p)
        return np.clip(value + side * value * 2.0**-50 + side * enclosures.TINY, 0.0, 0.25)

    nearest = np.clip(0.5, low, high)
    greatest = np.minimum(at(nearest, 1.0), above(high * most))
    smallest = np.maximum(np.minimum(at(low, -1.0), at(high, -1.0)), below(low * least))
    return np.maximum(smallest, 0.0), greatest


def with_diagonal(matrices: Squares, diagonal: Rows) -> Squares:
    """The matrices, with another diagonal; written in place."""
    places: Int64[np.ndarray, " n"] = np.arange(matrices.shape[-1], dtype=np.int64)
    matrices[..., places, places] = diagonal
    return matrices


def _log_of_sum(exponents: Squares) -> tuple[Rows, Rows]:
    """Ends of log(sum_j exp(e_ij)) = m + log(sum_j exp(e_ij - m)), m the greatest; 0 is among e."""
    count = exponents.shape[-1]
    greatest = exponents.max(axis=-1)
    shifted = exponents - greatest[..., None]
    low, high = (
        enclosures.exp(below(shifted))[0],
        enclosures.exp(np.minimum(above(shifted), 0.0))[1],
    )
    least = np.maximum(_lessened(low.sum(axis=-1), count), 1.0)
    most = enlarged(high.sum(axis=-1), count)
    lower = below(greatest + _log(least)[0])
    return np.maximum(lower, 0.0), above(greatest + _log(most)[1])


def _log(y: Rows) -> tuple[Rows, Rows]:
    """Ends of log y, 1 <= y: for any g, with r = y e^-g, g + 1 - 1/r <= log y <= g + r - 1."""
    guess = np.log(y)
    low, high = enclosures.exp(-guess)
    least, most = below(y * low), above(y * high)
    return (
        below(guess + below(1.0 - above(1.0 / least))),
        above(guess + above(most - 1.0)),
    )


__all__ = ["LogSoftmax", "Softmax", "with_diagonal"]
