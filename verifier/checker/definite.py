"""Positive semidefinite matrices and spectral norms, proved by one floating-point Cholesky.

Lemma (Higham 2002, theorems 10.3 and 10.5; Rump 2006, "Verification of positive definiteness",
BIT 46): if the Cholesky factorisation of a symmetric float64 matrix B with positive diagonal runs
to completion with finite pivots, in any order of its sums, then with g = gamma_(n+3)

    -g/(1-g) trace(B) - 4n(n + 2(max_i B_ii + 1)) eta <= lambda_min(B).                     (1)

So B = S M S - c I, S a power-of-two scaling and c above the right side of (1) and all errors of M,
shows 0 <= M + E for every E that the errors allow. Only one triangle of B is read; it defines B.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.arithmetic import (
    LEAST,
    UNIT,
    above,
    down,
    enlarged,
    gamma,
    root_up,
    squares_up,
    up,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float64


class NotProved(Exception):
    """What a proof claims does not follow from it."""


#: Diagonals outside 2^-600 .. 2^600 are not scaled: products of the scales have to stay finite.
WIDEST_EXPONENT = 600
#: How often a spectral estimate is enlarged before the Frobenius norm is taken instead.
GROWTHS = 8


def proves_psd(
    matrix: Float64[np.ndarray, "n n"],
    scaled_error: Callable[[Float64[np.ndarray, " n"]], float],
    sizes: Float64[np.ndarray, " n"] | None = None,
) -> bool:
    """Whether 0 <= M + E is shown for every symmetric E with |S E S|_2 <= scaled_error(s).

    Args:
        matrix: M, symmetric.
        scaled_error: takes the diagonal s of S, which is chosen here as powers of two that bring
            S diag(sizes) S near 1.
        sizes: positive numbers; the diagonal of M where none are given. What M was subtracted from
            is better where M is nearly singular: it keeps the errors of all rows alike.

    Returns:
        True only if M + E is positive semidefinite for every such E; False proves nothing.
    """
    sizes = np.diag(matrix) if sizes is None else sizes
    limit = 2.0**WIDEST_EXPONENT
    if not (np.all(np.isfinite(matrix)) and np.all((1 / limit < sizes) & (sizes < limit))):
        return False
    size = len(sizes)
    scale = np.ldexp(1.0, -np.rint(np.log2(sizes) / 2).astype(np.int64))
    scaled = matrix * scale[:, None] * scale[None, :]
    share = gamma(size + 3)
    entries = np.diag(scaled)
    # Underflow in the two products costs eta (1 + max s) an entry, hence n times that in norm.
    shift = (
        share / (1 - share) * float(entries.sum()) * (1 + 2 * gamma(size + 2))
        + scaled_error(scale)
        + 4 * UNIT * float(entries.max())
        + 8 * size * size * (LEAST * (1 + float(scale.max())))
        + 4 * size * (size + 2 * (float(entries.max()) + 1)) * LEAST
    ) * (1 + 1e-9)
    return math.isfinite(shift) and _factorises(scaled, shift)


def _factorises(scaled: Float64[np.ndarray, "n n"], shift: float) -> bool:
    """Whether B - shift I has a Cholesky factor with finite entries. Overwrites B's diagonal."""
    size = len(scaled)
    scaled[np.arange(size), np.arange(size)] -= shift
    if not (np.all(np.isfinite(scaled)) and np.all(0 < np.diag(scaled))):
        return False
    try:
        factor = np.linalg.cholesky(scaled)
    except np.linalg.LinAlgError:
        return False
    return bool(np.all(np.isfinite(factor)) and np.all(0 < np.diag(factor)))


# --- Norms of matrices (W, E): |W_true - W| <= E entrywise ---------------------------------------


def column_sums_bound(
    value: Float64[np.ndarray, "m n"], error: Float64[np.ndarray, "m n"] | None
) -> Float64[np.ndarray, " n"]:
    """Numbers that sum_i |W_true_ij| do not exceed; their greatest bounds |W_true|_(1,1)."""
    return enlarged(np.sum(magnitude_bound(value, error), axis=0), value.shape[0])


def row_sums_bound(
    value: Float64[np.ndarray, "m n"], error: Float64[np.ndarray, "m n"] | None
) -> Float64[np.ndarray, " m"]:
    """Numbers that sum_j |W_true_ij| do not exceed; their greatest bounds |W_true|_(inf,inf)."""
    return enlarged(np.sum(magnitude_bound(value, error), axis=1), value.shape[1])


def magnitude_bound(
    value: Float64[np.ndarray, "m n"], error: Float64[np.ndarray, "m n"] | None
) -> Float64[np.ndarray, "m n"]:
    """Numbers that |W_true| does not exceed, entry by entry."""
    return np.abs(value) if error is None else above(np.abs(value) + error)


class SpectralTest:
    """Decides |W_true|_2 <= v for any number of v, with one Gram matrix.

    W is brought to a largest entry in [1/2, 1) by a power of two, transposed so that it has no more
    columns than rows (m rows, n columns), and G = fl(W^T W). Then |W|_2 <= v follows from

        0 <= v^2 I - G - E   for all |E|_2 <= gamma_(m+2) min(|W|_F^2, |W|_1 |W|_inf) + 4mn eta

    and |W_true|_2 <= |W|_2 + |W_true - W|_F.
    """

    def __init__(
        self, value: Float64[np.ndarray, "m n"], error: Float64[np.ndarray, "m n"] | None = None
    ) -> None:
        largest = float(np.abs(value).max(initial=0.0))
        if not math.isfinite(largest):
            raise NotProved("a matrix has an entry beyond float64")
        self._exponent = math.frexp(largest)[1]
        scaled = np.ldexp(value if value.shape[1] <= value.shape[0] else value.T, -self._exponent)
        rows, columns = scaled.shape
        #: |W_true - W|_F after scaling; scaling down may underflow by eta/2 an entry.
        self._excess = rows * columns * LEAST
        if error is not None:
            self._excess += root_up(squares_up(np.ldexp(error, -self._exponent) + LEAST))
            self._excess *= 1 + 4 * UNIT
        self._is_zero = largest == 0 and (error is None or not np.any(error))
        self._gram = scaled.T @ scaled
        sums = float(column_sums_bound(scaled, None).max(initial=0.0)) * float(
            row_sums_bound(scaled, None).max(initial=0.0)
        )
        self._mass = min(squares_up(scaled), sums * (1 + 4 * UNIT))
        self._gram_error = gamma(rows + 2) * self._mass * (1 + 4 * UNIT) + (
            4 * rows * columns * LEAST
        )

    def proves(self, claimed: float) -> bool:
        """Whether |W_true|_2 <= claimed is shown."""
        if not 0 <= claimed < math.inf:
            return False
        if self._is_zero:
            return True
        # |W|_2 <= 2^24 after scaling, so that a greater claim is shown by less.
        core = min(float(np.ldexp(claimed, -self._exponent)), 2.0**100)
        return self._proves_core(down(down(core) - self._excess))

    def _proves_core(self, core: float) -> bool:
        """Whether |W|_2 <= core is shown for the scaled float64 matrix W."""
        if not 0 < core:
            return False
        # Squares round down, or the claim that is shown would be another.
        level = core * core * (1 - 4 * UNIT)
        error = self._gram_error + 4 * UNIT * level
        matrix = -self._gram
        size = len(matrix)
        # Rounding on the diagonal: u |level - G_ii| <= u (level + |G|_2), within the 4u above
        # where G_ii <= level, and no proof exists otherwise.
        matrix[np.arange(size), np.arange(size)] += level
        return proves_psd(matrix, lambda scale: error * float(np.square(scale).max()))

    def bound(self, hint: float | None = None) -> float:
        """A number that |W_true|_2 does not exceed: the hint if it is shown, else our own."""
        if self._is_zero:
            return 0.0
        if hint is not None and self.proves(hint):
            return hint
        estimate = greatest_eigenvalue_estimate(self._gram)
        growth = max(1e-14 * len(self._gram), 1e-12)
        for _ in range(GROWTHS):
            core = math.sqrt(estimate * (1 + growth))
            if self._proves_core(core):
                return self._restored(core)
            growth *= 8
        return self._restored(root_up(self._mass))

    def _restored(self, core: float) -> float:
        """The bound of W_true at its own scale, rounded up."""
        return up(float(np.ldexp(up(core + self._excess), self._exponent)))


def greatest_eigenvalue_estimate(gram: Float64[np.ndarray, "n n"]) -> float:
    """About the greatest eigenvalue; from below, and no bound: a hint for a test.

    Lanczos with full reorthogonalisation, from a fixed start.
    """
    size = len(gram)
    if size <= 96:
        return max(float(np.linalg.eigvalsh(gram)[-1]), 0.0)
    basis = np.zeros((60, size))
    vector = np.random.default_rng(0).standard_normal(size)
    vector /= np.linalg.norm(vector)
    images = np.zeros_like(basis)
    for step in range(len(basis)):
        basis[step] = vector
        images[step] = gram @ vector
        rest = images[step] - basis[: step + 1].T @ (basis[: step + 1] @ images[step])
        rest -= basis[: step + 1].T @ (basis[: step + 1] @ rest)
        length = float(np.linalg.norm(rest))
        if length <= 1e-14 * float(np.linalg.norm(images[step])):
            basis, images = basis[: step + 1], images[: step + 1]
            break
        vector = rest / length
    return max(float(np.linalg.eigvalsh(basis @ images.T)[-1]), 0.0)
