"""How far a positive definite matrix may move in a direction and stay so.

A + t D = L (I + t L^-1 D L^-T) L' with A = LL', so the longest step is -1/lambda_min of
L^-1 D L^-T. Large matrices take the estimate of Lanczos' method; whoever steps tests the result
by a Cholesky factorisation.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float64
from torch import Tensor

_DENSE_ORDER = 120  #: up to here all eigenvalues cost no more than Lanczos' method
_NEGLIGIBLE = 1e-12  #: what is left of an invariant subspace


def longest_step(
    factor: Float64[Tensor, "n n"], direction: Float64[Tensor, "n n"], accuracy: int = 20
) -> float:
    """About the largest t with 0 <= LL' + t D; infinite where there is none.

    Args:
        factor: L, lower triangular.
        direction: D, symmetric.
        accuracy: steps of Lanczos' method.
    """
    if factor.shape[0] <= _DENSE_ORDER:
        half = torch.linalg.solve_triangular(factor, direction, upper=False)
        inner = torch.linalg.solve_triangular(factor, half.T, upper=False)
        least = float(torch.linalg.eigvalsh(inner)[0])
    else:
        least = _least_eigenvalue(factor, direction, accuracy)
    return -1 / least if least < 0 else math.inf


def _least_eigenvalue(
    factor: Float64[Tensor, "n n"], direction: Float64[Tensor, "n n"], steps: int
) -> float:
    """A lower estimate of lambda_min(L^-1 D L^-T): the Ritz value less its residual."""
    size, upper = factor.shape[0], factor.T
    basis = factor.new_zeros(steps + 1, size)
    tridiagonal = factor.new_zeros(steps + 1, steps + 1)
    # A fixed start makes runs repeat; entries of one size touch every eigenvector.
    start = torch.arange(1, size + 1, dtype=factor.dtype, device=factor.device).sin()
    basis[0] = start / start.norm()
    count = 0
    for count in range(1, steps + 1):
        spanned = basis[:count]
        image = torch.linalg.solve_triangular(upper, spanned[-1][:, None], upper=True)
        image = torch.linalg.solve_triangular(factor, direction @ image, upper=False)[:, 0]
        along = spanned @ image
        tridiagonal[count - 1, count - 1] = along[-1]
        image = image - along @ spanned
        image = image - (spanned @ image) @ spanned
        rest = image.norm()
        tridiagonal[count, count - 1] = rest
        if float(rest) < _NEGLIGIBLE:
            break
        basis[count] = image / rest
    values, vectors = torch.linalg.eigh(tridiagonal[:count, :count])
    return float(values[0] - tridiagonal[count, count - 1] * vectors[-1, 0].abs())
