"""Bounds of outputs from their covariance P: |dy|_2^2 <= lambda_max(P), |dy_i|^2 <= P_ii.

P is what is stored, so that a diagonal entry is exact, and an eigenvalue is shown by one Cholesky.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.arithmetic import (
    UNIT,
    ZERO,
    Magnitude,
    enlarged,
    greatest,
    least,
    total,
    up,
)
from verifier.checker.batches import TINY
from verifier.checker.definite import (
    GROWTHS,
    NotProved,
    greatest_eigenvalue_estimate,
    proves_psd,
)
from verifier.checker.operator_norms import norm_factor
from verifier.norms import Norm, NormPair

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64

    from verifier.checker.carry import Sparse
    from verifier.checker.hermitian import Covariance

FAR = 2000  #: exponents that differ by more are not added exactly


def item_bound(covariance: Covariance, rows: Sparse, norm: Norm) -> Magnitude:
    """A bound of an item's increment in a norm, for |dx| = 1.

    Args:
        covariance: of the network's outputs; one frequency, real.
        rows: the item's outputs, or its one difference of two.
        norm: of the outputs.
    """
    covariance = covariance.full()
    count, width = rows.index.shape
    if width > 2 or (width > 1 and count > 1) or not np.all(np.abs(rows.weight) == 1):
        raise NotProved("an item is neither outputs nor a difference of two")
    if count == 1 or norm is Norm.LINF:
        return greatest(_entries(covariance, rows))
    joint = _norm_of(covariance.picked(rows.index[:, 0]))
    if norm is Norm.L2:
        return joint
    factor = Magnitude.of(norm_factor(NormPair(Norm.L2, norm), count))
    return least(total(_entries(covariance, rows)), joint * factor)


def _entries(covariance: Covariance, rows: Sparse) -> list[Magnitude]:
    """A bound of every output by itself."""
    return [_entry(covariance, *row) for row in zip(rows.index, rows.weight, strict=True)]


def _entry(
    covariance: Covariance, index: Int64[np.ndarray, " k"], weight: Float64[np.ndarray, " k"]
) -> Magnitude:
    """The root of w'P w, w of ones and minus ones; the sum is exact."""
    exponent = covariance.exponent[index].tolist()
    part = covariance.value[0][np.ix_(index, index)].tolist()
    base = max(exponent)
    if base - min(exponent) > FAR:
        own = [Magnitude.of(part[k][k]).root().shifted(one) for k, one in enumerate(exponent)]
        return total(own)
    square = sum(
        Fraction(value * first * second) / 2 ** (2 * base - one - other)
        for row, first, one in zip(part, weight.tolist(), exponent, strict=True)
        for value, second, other in zip(row, weight.tolist(), exponent, strict=True)
    )
    if square <= 0:
        return ZERO
    # To 53 bits, rounded up.
    shift = 64 - (square.numerator.bit_length() - square.denominator.bit_length())
    whole = math.ceil(square * Fraction(2) ** shift)
    rounded = float(whole) if whole <= Fraction(float(whole)) else up(float(whole))
    return Magnitude.of(rounded).shifted(-shift).root().shifted(base)


def _norm_of(covariance: Covariance) -> Magnitude:
    """The root of a number that lambda_max does not exceed."""
    base = int(covariance.exponent.max())
    shift = np.maximum(covariance.exponent - base, -FAR)
    matrix = np.ldexp(covariance.value[0], shift[:, None] + shift[None, :])
    return Magnitude.of(_eigenvalue_bound(matrix)).root().shifted(base)


def _eigenvalue_bound(matrix: Float64[np.ndarray, "n n"]) -> float:
    """A number that lambda_max of a symmetric float64 matrix does not exceed.

    What underflowed in it is below TINY.
    """
    size = len(matrix)
    estimate = greatest_eigenvalue_estimate(matrix)
    growth = max(1e-14 * size, 1e-12)
    for _ in range(GROWTHS):
        level = estimate * (1 + growth)
        if 0 < level and _is_below(matrix, level):
            return level
        growth *= 8
    return float(enlarged(np.abs(matrix).sum(axis=1), size).max(initial=0.0)) + TINY


def _is_below(matrix: Float64[np.ndarray, "n n"], level: float) -> bool:
    """Whether 0 <= level I - M is shown. Differences on the diagonal round by u of both parts."""
    gap = -matrix
    size = len(gap)
    gap[np.arange(size), np.arange(size)] += level
    error = 4 * UNIT * level + TINY
    levels = np.full(size, level)
    return proves_psd(gap, lambda scale: error * float(np.square(scale).max()), levels)
