"""Scales that need no search: each gate's from its own covariance.

greedy: D proportional to sqrt(mean_w K_ii), times f lambda_max of what it is measured by,
level:  D the same for all channels.

    P <= m^2 D K/(D - K) + r^2 D  at  D = c K  is least for  c = 1 + m/r,  namely (m + r)^2 K:

so `level` with that f is never above the product of norms on a chain; 2 for slopes [0, b].
Where m = 0 (absolute values) the best f is any above 1, if nothing else is pending.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.methods.torus.plan import Gate

Shape: TypeAlias = Literal["greedy", "level"]

_LEAST_SHARE = 1e-6  #: of the largest diagonal entry: below, a channel's own is not measured
_MARGIN = 1e-6  #: above the largest eigenvalue, in which rounding is lost
_TRIED = 8  #: frequencies whose eigenvalues are computed
_POWERS = 6  #: of a few vectors, to find them


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A policy: f = 1 + reach m/r, or 1 + slack where m = 0."""

    shape: Shape = "greedy"
    reach: float = 1.0
    slack: float = 1.0

    def __call__(self, gate: Gate, own: Tensor, weights: Tensor) -> Float64[Tensor, " entries"]:
        """The scales of one gate."""
        mean = mean_diagonal(own, weights)
        largest = float(mean.max())
        if not 0 < largest:
            return torch.ones_like(mean)
        measure = mean.clamp(min=_LEAST_SHARE * largest).sqrt()
        if self.shape == "level":
            measure = torch.ones_like(mean)
        measure = shared(gate, measure)
        root = measure.rsqrt()
        level = largest_eigenvalue(own * (root[:, None] * root))
        ratio = (gate.mean.abs() / gate.radius).nan_to_num(0.0).to(mean.dtype)
        factor = 1 + torch.where(0 < ratio, self.reach * ratio, self.slack)
        return level * measure * shared(gate, factor.clamp(min=1 + _MARGIN))


def mean_diagonal(own: Tensor, weights: Tensor) -> Float64[Tensor, " entries"]:
    """The mean over all frequencies of K_ii: the variance of each entry."""
    diagonal = own.diagonal(dim1=-2, dim2=-1)
    diagonal = diagonal.real if diagonal.is_complex() else diagonal
    return (weights[:, None] * diagonal).sum(dim=0) / weights.sum()


def shared(gate: Gate, values: Tensor) -> Tensor:
    """The mean of the entries that have one scale, at each of them."""
    if len(gate.owner.unique()) == len(gate.owner):
        return values
    sums = values.new_zeros(gate.scales).index_add(0, gate.owner, values)
    counts = values.new_zeros(gate.scales).index_add(0, gate.owner, torch.ones_like(values))
    return (sums / counts.clamp(min=1))[gate.owner]


def largest_eigenvalue(matrices: Tensor) -> float:
    """Of a batch of positive semidefinite matrices, almost: sought where it is likely to be."""
    waves, size = matrices.shape[:2]
    if _TRIED < waves:
        seed = torch.Generator().manual_seed(0)
        start = torch.randn(size, 2, generator=seed, dtype=torch.float64).to(matrices.dtype)
        block = matrices @ start
        for _ in range(_POWERS):
            block = matrices @ (block / block.abs().amax(dim=(-2, -1), keepdim=True))
        before = block / block.norm(dim=-2, keepdim=True)
        estimates = (matrices @ before).norm(dim=-2).amax(dim=-1)
        matrices = matrices[estimates.topk(_TRIED).indices]
    return float(torch.linalg.eigvalsh(matrices).max())
