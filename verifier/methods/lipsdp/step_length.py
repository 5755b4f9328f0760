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

_DENSE_ORDER = 160  #: up to here all eigenvalues cost no more than Lanczos' method
_LANCZOS_STEPS = 24


def longest_step(factor: Float64[Tensor, "n n"], direction: Float64[Tensor, "n n"]) -> float:
    """About the largest t with 0 <= LL' + t D; infinite where there is none.

    Args:
        factor: L, lower triangular.
        direction: D, symmetric.
    """
    if factor.shape[0] <= _DENSE_ORDER:
        half = torch.linalg.solve_triangular(factor, direction, upper=False)
        inner = torch.linalg.solve_triangular(factor, half.T, upper=False)
        least = float(torch.linalg.eigvalsh(inner)[0])
    else:
        least = _least_eigenvalue(factor, direction)
    return -1 / least if least < 0 else math.inf


def _least_eigenvalue(factor: Float64[Tensor, "n n"], direction: Float64[Tensor, "n n"]) -> float:
    """A lower estimate of lambda_min(L^-1 D L^-T): the Ritz value less its residual."""
    upper = factor.T
    size = factor.shape[0]
    # A fixed start makes runs repeat; entries of one size touch every eigenvector.
    start = torch.arange(1, size + 1, dtype=factor.dtype, device=factor.device).sin()
    basis = [start / start.norm()]
    diagonal: list[Tensor] = []
    beside: list[Tensor] = []
    for _ in range(min(_LANCZOS_STEPS, size)):
        image = direction @ torch.linalg.solve_triangular(upper, basis[-1][:, None], upper=True)
        image = torch.linalg.solve_triangular(factor, image, upper=False)[:, 0]
        diagonal.append(image @ basis[-1])
        spanned = torch.stack(basis)
        image = image - spanned.T @ (spanned @ image)
        image = image - spanned.T @ (spanned @ image)
        beside.append(image.norm())
        if float(beside[-1]) < 1e-12:
            break
        basis.append(image / beside[-1])
    off = torch.stack(beside)
    tridiagonal = torch.diag(torch.stack(diagonal))
    tridiagonal += torch.diag(off[:-1], 1) + torch.diag(off[:-1], -1)
    values, vectors = torch.linalg.eigh(tridiagonal)
    return float(values[0] - off[-1] * vectors[-1, 0].abs())
