"""Operator norms of matrices (W, E) and of maps that are too large to be a matrix, rounded up.

The exact closed forms: l1->l1 column sums, linf->linf row sums, l1->linf entries, l2->linf norms of
rows, l1->l2 norms of columns; l2->l2 by `SpectralTest`. Of linf->l2, linf->l1 and l2->l1 the exact
norm is out of reach; the best of several bounds is taken, each from |x|_q <= sqrt(n)|x|_p or from
the triangle inequality over rows or columns.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.arithmetic import (
    LEAST,
    UNIT,
    above,
    enlarged,
    norm_up,
    root_up,
    sum_up,
    up,
)
from verifier.checker.carry import Carried, push, stages
from verifier.checker.composites import DENSE_SIDE, is_formable
from verifier.checker.definite import (
    SpectralTest,
    column_sums_bound,
    magnitude_bound,
    row_sums_bound,
)
from verifier.checker.maps import Adjoint, Composed, Convolution, Dense
from verifier.checker.stencils import Stencil
from verifier.checker.symbols import stencil_norm
from verifier.norms import Norm, NormPair

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float64

    from verifier.checker.network import Map

WORK = 2e11  #: multiplications that the Gram matrix of one dense weight may cost
FORMED_WORK = 2.0**30  #: beyond so many a convolution is not formed: its frequencies cost less
FACTOR: dict[tuple[Norm, Norm], float] = {
    (Norm.L2, Norm.L1): 0.5,
    (Norm.LINF, Norm.L1): 1.0,
    (Norm.LINF, Norm.L2): 0.5,
}  #: |x|_q <= n^this |x|_p for (p, q); 0 for every other pair


def norm_factor(pair: NormPair, size: int) -> float:
    """The least c with |x|_output <= c |x|_input on R^size, rounded up."""
    power = FACTOR.get((pair.input, pair.output), 0.0)
    return {0.0: 1.0, 0.5: root_up(float(size)), 1.0: float(size)}[power]


def matrix_norm(matrix: Carried, pair: NormPair, hint: float | None = None) -> float:
    """A number that |W_true| from the input norm to the output norm does not exceed.

    Args:
        matrix: (W, E), out by in.
        pair: the norms.
        hint: a claimed spectral norm, tried first where one is needed.
    """
    if min(matrix.value.shape) == 0:
        return 0.0
    if pair == NormPair(Norm.L2, Norm.L2):
        return spectral_norm(matrix, hint)
    best = CLOSED_FORMS[pair.input, pair.output](matrix.value, matrix.error)
    rows, columns = matrix.value.shape
    shorter = min(rows, columns)
    if (pair.input, pair.output) not in SPECTRAL_HELPS or not 1 < shorter <= DENSE_SIDE:
        return best
    side = float(columns if pair.input is Norm.LINF else rows)
    return min(best, up(spectral_norm(matrix, hint) * root_up(side)))


def spectral_norm(matrix: Carried, hint: float | None) -> float:
    """A number that |W_true|_2 does not exceed; a single row or column has its l2 norm."""
    if min(matrix.value.shape) == 1:
        return norm_up(magnitude_bound(matrix.value, matrix.error).ravel())
    return SpectralTest(matrix.value, matrix.error).bound(hint)


def row_norms_bound(
    value: Float64[np.ndarray, "m n"], error: Float64[np.ndarray, "m n"] | None
) -> Float64[np.ndarray, " m"]:
    """Numbers that the l2 norms of the true rows do not exceed."""
    magnitudes = magnitude_bound(value, error)
    exponent = math.frexp(float(magnitudes.max(initial=0.0)))[1]
    # What underflows when scaled is below eta an entry.
    scaled = np.ldexp(magnitudes, -exponent) + LEAST
    squares = enlarged(np.sum(np.square(scaled), axis=1), value.shape[1])
    return above(np.ldexp(above(np.sqrt(squares)), exponent))


def map_norm(linear: Map, norm: Norm) -> float:
    """A number that |A_true| in one norm does not exceed, without forming A.

    l1 and linf are column and row sums; in l2 it is sqrt(|A|_1 |A|_inf), which is exact for maps
    that move, repeat or scale entries.
    """
    match norm:
        case Norm.LINF:
            return _greatest_row_sum(linear)
        case Norm.L1:
            return _greatest_row_sum(Adjoint(linear))
        case Norm.L2:
            product = _greatest_row_sum(linear) * _greatest_row_sum(Adjoint(linear))
            return root_up(product if linear.is_exact else product * (1 + 4 * UNIT) + LEAST)


def _greatest_row_sum(linear: Map) -> float:
    """Sums of |A| over rows; those of maps that only move entries are exact."""
    sums = np.ones((1, linear.in_size))
    for stage in stages(linear):
        whole = stage.magnitudes(sums) + stage.slack(sums)
        sums = whole if stage.is_exact else enlarged(whole, stage.terms + 4)
    return float(sums.max(initial=0.0))


def _column_norms_bound(
    value: Float64[np.ndarray, "m n"], error: Float64[np.ndarray, "m n"] | None
) -> Float64[np.ndarray, " n"]:
    return row_norms_bound(value.T, None if error is None else error.T)


def operator_norm(linear: Map, hint: float | None) -> float:
    """A number that |A_true|_2 does not exceed: the hint, if it can be shown.

    A map that is small enough is formed; of a weight applied to many rows one is enough; a
    convolution is tested frequency by frequency, and a composition in its parts.
    """
    stored = linear.of if isinstance(linear, Adjoint) else linear
    is_dear = isinstance(stored, Convolution) and FORMED_WORK < gram_work(
        linear.out_size, linear.in_size
    )
    if is_formable(linear.out_size, linear.in_size) and not is_dear:
        test = SpectralTest(*dense(linear))
        if hint is not None and test.proves(hint):
            return hint
        return min(test.bound(), map_norm(linear, Norm.L2))
    match linear:
        case Adjoint():
            return operator_norm(linear.of, hint)
        case Composed():
            first, second = (operator_norm(part, None) for part in (linear.first, linear.second))
            return up(first * second)
        case Convolution():
            return min(stencil_norm(Stencil.of(linear), hint), map_norm(linear, Norm.L2))
        case Dense() if gram_work(*linear.weight.shape) <= WORK:
            return min(
                spectral_norm(Carried(linear.weight, linear.error), hint), map_norm(linear, Norm.L2)
            )
        case _:
            return map_norm(linear, Norm.L2)


def gram_work(rows: int, columns: int) -> float:
    """Multiplications of the Gram matrix of the shorter side."""
    return float(rows) * columns * min(rows, columns)


def dense(
    linear: Map,
) -> tuple[Float64[np.ndarray, "m n"], Float64[np.ndarray, "m n"] | None]:
    """The map as a matrix (W, E), up to transposition."""
    if linear.in_size <= linear.out_size:
        rows = push(linear, Carried(np.eye(linear.in_size)))
    else:
        rows = push(Adjoint(linear), Carried(np.eye(linear.out_size)))
    return rows.value, rows.error


CLOSED_FORMS: dict[
    tuple[Norm, Norm],
    Callable[[Float64[np.ndarray, "m n"], Float64[np.ndarray, "m n"] | None], float],
] = {
    (Norm.L1, Norm.L1): lambda w, e: float(column_sums_bound(w, e).max()),
    (Norm.L1, Norm.L2): lambda w, e: float(_column_norms_bound(w, e).max()),
    (Norm.L1, Norm.LINF): lambda w, e: float(magnitude_bound(w, e).max()),
    (Norm.L2, Norm.L1): lambda w, e: min(
        sum_up(row_norms_bound(w, e)), norm_up(column_sums_bound(w, e))
    ),
    (Norm.L2, Norm.LINF): lambda w, e: float(row_norms_bound(w, e).max()),
    (Norm.LINF, Norm.L1): lambda w, e: sum_up(row_sums_bound(w, e)),
    (Norm.LINF, Norm.L2): lambda w, e: norm_up(row_sums_bound(w, e)),
    (Norm.LINF, Norm.LINF): lambda w, e: float(row_sums_bound(w, e).max()),
}
SPECTRAL_HELPS = {(Norm.LINF, Norm.L2), (Norm.L2, Norm.L1)}
