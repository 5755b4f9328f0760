"""From the output's covariance to bounds: |S z|^2 <= lambda_max(S P S') |dx|^2."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.norms import Norm, NormPair

_POWER = 24.0  #: of the norm that stands for a maximum while it is being minimised


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Measure:
    """What is asked of P: a bound for each item."""

    items: Sequence[Float64[Tensor, "selected outputs"]]
    norm: NormPair
    inputs: int  #: that vary

    def bounds(self, covariance: Float64[Tensor, "m m"]) -> tuple[float, ...]:
        """One bound for each item."""
        factor = math.sqrt(self.inputs) if self.norm.input is Norm.LINF else 1.0
        return tuple(factor * self._bound(rows @ covariance @ rows.T) for rows in self.items)

    def _bound(self, block: Float64[Tensor, "k k"]) -> float:
        roots = block.diagonal().clamp(min=0).sqrt()
        if self.norm.output is Norm.LINF or len(block) == 1:
            return float(roots.max())
        joint = math.sqrt(max(0.0, float(torch.linalg.eigvalsh(block)[-1])))
        if self.norm.output is Norm.L1:
            return min(float(roots.sum()), math.sqrt(len(block)) * joint)
        return joint

    def objective(self, covariance: Tensor) -> Tensor:
        """The logarithm of a smooth norm of all that counts: eigenvalues, or variances."""
        parts = [
            self._squares(rows.to(covariance) @ covariance @ rows.to(covariance).T)
            for rows in self.items
        ]
        squares = torch.cat(parts).clamp(min=torch.finfo(covariance.dtype).tiny)
        logarithms = squares.log()
        return torch.logsumexp(_POWER * logarithms, dim=0) / (2 * _POWER)

    def _squares(self, block: Tensor) -> Tensor:
        if self.norm.output is Norm.LINF or len(block) == 1:
            return block.diagonal()
        return torch.linalg.eigvalsh(block)
