"""What of the output's covariance P a search makes small, smoothed, with its gradient.

With Q = R P R' for the item's rows R, |R dy| is at most this multiple of |dx|_2:

    jointly in l2      sqrt(lmax(Q))                                                       (1)
    in linf            sqrt(max_i Q_ii); also the greatest of several single outputs
    in l1              sum_i sqrt(Q_ii)

and the searched objective is twice the logarithm, where maxima are p-norms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.methods.items import Item
from verifier.methods.recursion.closed import greatest_eigenvalue
from verifier.norms import Norm

Kind: TypeAlias = Literal["joint", "greatest", "sum"]
MOST_ROWS = 2048  #: of single outputs, searched together


@dataclass(frozen=True, slots=True, eq=False)
class Objective:
    """Rows of outputs, and how they are measured."""

    rows: Float64[Tensor, "selected outputs"]
    kind: Kind

    @staticmethod
    def of(items: tuple[Item, ...], output: Norm, covariance: Tensor) -> Objective:
        """What decides the largest of the items' bounds.

        Args:
            items: of the property.
            output: norm.
            covariance: of the output, as it is before the search.
        """
        if len(items) == 1:
            kinds: dict[Norm, Kind] = {Norm.L2: "joint", Norm.LINF: "greatest", Norm.L1: "sum"}
            return Objective(items[0].rows, kinds[output])
        rows = torch.cat([item.rows for item in items])
        if MOST_ROWS < len(rows):
            rows = rows[_squares(rows, covariance).topk(MOST_ROWS).indices]
        return Objective(rows, "greatest")

    def smoothed(
        self, covariance: Float64[Tensor, "outputs outputs"], power: float
    ) -> tuple[float, Float64[Tensor, "outputs outputs"]]:
        """Twice the logarithm of (1), maxima by the p-norm of this power, and its gradient in P."""
        if self.kind == "joint":
            values, vectors = torch.linalg.eigh(self.rows @ covariance @ self.rows.T)
            log, weights = _log_norm(values.clamp(min=0.0), power)
            back = vectors.T @ self.rows
        else:
            values, back = _squares(self.rows, covariance), self.rows
            # The p-norm of power 1/2 is the square of the sum of roots.
            log, weights = _log_norm(values, power if self.kind == "greatest" else 0.5)
        return log, back.T @ (weights[:, None] * back)

    def spectrum(
        self, covariance: Float64[Tensor, "outputs outputs"]
    ) -> Float64[Tensor, " selected"]:
        """What the greatest of is to be small: eigenvalues of Q, or its diagonal."""
        if self.kind == "joint":
            return torch.linalg.eigvalsh(self.rows @ covariance @ self.rows.T)
        return _squares(self.rows, covariance)

    def inverse(
        self, covariance: Float64[Tensor, "outputs outputs"], level: float
    ) -> Float64[Tensor, "selected selected"]:
        """The inverse of s I - Q, or of its diagonal."""
        if self.kind == "joint":
            joint = self.rows @ covariance @ self.rows.T
            return torch.linalg.inv(level * torch.eye(len(joint)).to(joint) - joint)
        return torch.diag(1 / (level - _squares(self.rows, covariance)))


def bound_of(item: Item, output: Norm, covariance: Float64[Tensor, "outputs outputs"]) -> float:
    """(1) for one item."""
    rows = item.rows
    if len(rows) == 1 or output is not Norm.L2:
        squares = _squares(rows, covariance)
        if output is Norm.LINF:
            return math.sqrt(float(squares.max()))
        if output is Norm.L2:
            return math.sqrt(float(squares[0]))
    joint = math.sqrt(max(float(greatest_eigenvalue(rows @ covariance @ rows.T, exact=True)), 0.0))
    if output is Norm.L2:
        return joint
    return min(float(_squares(rows, covariance).sqrt().sum()), math.sqrt(len(rows)) * joint)


def _squares(
    rows: Float64[Tensor, "selected outputs"], covariance: Float64[Tensor, "outputs outputs"]
) -> Float64[Tensor, " selected"]:
    return ((rows @ covariance) * rows).sum(dim=1).clamp(min=0.0)


def _log_norm(values: Float64[Tensor, " n"], power: float) -> tuple[float, Float64[Tensor, " n"]]:
    """Log of the p-norm of numbers that are not negative, and its gradient."""
    top = values.max().clamp(min=1e-300)
    ratios = values / top
    powers = ratios**power
    total = powers.sum()
    weights = torch.where(0 < ratios, powers / ratios.clamp(min=1e-300), 0.0) / (total * top)
    return float(top.log() + total.log() / power), weights
