"""How far a positive definite matrix may move in a direction and stay so.

A + t D = L (I + t L^-1 D L^-T) L' with A = LL', so the longest step is -1/lambda_min of
L^-1 D L^-T. Large matrices take the estimate of Lanczos' method; whoever steps tests the result
by a Cholesky factorisation.
"""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

_DENSE_ORDER = 150  #: up to here all eigenvalues cost no more than Lanczos' method
_FEW = 2  #: of a batch: of more, Lanczos' method shares the calls
_NEGLIGIBLE = 1e-12  #: what is left of an invariant subspace


def longest_step(
    factor: Float64[Tensor, "*batch n n"],
    direction: Float64[Tensor, "*batch n n"],
    accuracy: int = 20,
) -> Float64[Tensor, "*batch"]:
    """About the largest t with 0 <= LL' + t D; infinite, or huge, where there is none.

    Args:
        factor: L, lower triangular.
        direction: D, symmetric.
        accuracy: steps of Lanczos' method.
    """
    if factor.shape[-1] <= _DENSE_ORDER and factor.shape[:-2].numel() <= _FEW:
        half = torch.linalg.solve_triangular(factor, direction, upper=False)
        inner = torch.linalg.solve_triangular(factor, half.mT, upper=False)
        least = torch.linalg.eigvalsh(inner)[..., 0]
    elif factor.shape[:-2] == (1,):
        # Many short calls: without the dimension of the batch each costs less.
        least = _least_eigenvalue(factor[0], direction[0], accuracy)[None]
    else:
        least = _least_eigenvalue(factor, direction, min(accuracy, factor.shape[-1]))
    return torch.where(least < 0, -1 / least, torch.inf)


def _least_eigenvalue(
    factor: Float64[Tensor, "*batch n n"], direction: Float64[Tensor, "*batch n n"], steps: int
) -> Float64[Tensor, "*batch"]:
    """A lower estimate of lambda_min(L^-1 D L^-T), or of 0: the Ritz value less its residual."""
    size, upper = factor.shape[-1], factor.mT
    batch = factor.shape[:-2]
    basis = factor.new_zeros(*batch, steps + 1, size)
    tridiagonal = factor.new_zeros(*batch, steps + 1, steps + 1)
    # A fixed start makes runs repeat; entries of one size touch every eigenvector.
    start = torch.arange(1, size + 1, dtype=factor.dtype, device=factor.device).sin()
    basis[..., 0, :] = start / start.norm()
    for count in range(1, steps + 1):
        spanned = basis[..., :count, :]
        image = spanned[..., -1:, :].mT
        image = torch.linalg.solve_triangular(upper, image, upper=True)
        image = torch.linalg.solve_triangular(factor, direction @ image, upper=False)
        along = spanned @ image
        tridiagonal[..., count - 1, count - 1] = along[..., -1, 0]
        image = image - spanned.mT @ along
        # Twice: where the first leaves little, most of that is not orthogonal.
        image = image - spanned.mT @ (spanned @ image)
        rest = torch.linalg.vector_norm(image, dim=-2)
        tridiagonal[..., count, count - 1] = rest[..., 0]
        # An invariant subspace is continued by zeros, whose Ritz values are 0.
        basis[..., count, :] = torch.where(rest < _NEGLIGIBLE, 0.0, image[..., 0] / rest)
    values, vectors = torch.linalg.eigh(tridiagonal[..., :steps, :steps])
    residual = tridiagonal[..., steps, steps - 1] * vectors[..., -1, 0].abs()
    return values[..., 0] - residual
