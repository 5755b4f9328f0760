"""Whether a checker can show the certificate's matrix: its margin against the rounding of a test.

The matrix is D - R'R, for linf bordered by s and an output's row. With S the powers of two next to
D^-1/2, a test by Cholesky's factorisation in floating point of unit u loses, of 1, about

    u (n trace(S M S) + k |RS|_F^2) + 2 |RS|_2 |N S|_F + |N S|_F^2,                         (1)

n the order, k the rows of R, and N its noise, entry by entry: what of R is only rounding. A small
D under a column through which noise reaches a row of a large multiplier is what costs most:
psis that nothing enters, or that nothing reads, and inputs that nothing reads, to rounding only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.methods.lipsdp.form import UNIT

_ROOM = 1.25  #: for what (1) leaves out
LEAST_EXPONENT = -300  #: multipliers below 2 to this power, or above its inverse, are not read


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CertificateMatrix:
    """The certificate's matrix, as it is tested."""

    diagonal: Float64[Tensor, " n"]  #: D
    rows: Float64[Tensor, "k n"]  #: R
    noise: Float64[Tensor, "k n"]  #: N
    corner: float | None  #: s of linf
    border: Float64[Tensor, " n"]  #: the output's row of linf
    border_noise: Float64[Tensor, " n"]

    @property
    def is_in_range(self) -> bool:
        """Whether all multipliers are numbers that are read."""
        least = 2.0**LEAST_EXPONENT
        corner = 1.0 if self.corner is None else self.corner
        inside = (least <= self.diagonal) & (self.diagonal <= 1 / least)
        return bool(inside.all()) and least <= corner <= 1 / least

    def loss(self) -> float:
        """(1)."""
        scale = _scale(self.diagonal)
        rows = self.rows * scale
        square = float(rows.square().sum())
        columns, sums = rows.abs().sum(dim=0), rows.abs().sum(dim=1)
        largest = min(square, float(columns.max()) * float(sums.max())) if len(rows) else 0.0
        noise = float((self.noise * scale + 6 * UNIT * rows.abs()).norm())
        order, count = len(scale) + 4, len(rows) + 8
        trace = float((self.diagonal * scale.square()).sum()) - square + 2
        loss = UNIT * (order * trace + count * largest) + (2 * largest**0.5 + noise) * noise
        if self.corner is not None:
            loss += float((self.border_noise * scale).norm()) * 1.5 * self.corner**-0.5
        return _ROOM * loss

    def is_definite(self, loss: float) -> bool:
        """Whether D^-1/2 M D^-1/2 less the loss is positive definite, in plain float64.

        It is I - K'K with K = R D^-1/2, the border's row over sqrt(s) added; I - KK' has the same
        eigenvalues but for ones, and the smaller of them is factored.
        """
        rows = self.rows
        if self.corner is not None:
            rows = torch.cat([self.border[None, :] * self.corner**-0.5, rows])
        rows = rows * self.diagonal.rsqrt()
        inner = -(rows @ rows.T if len(rows) <= rows.shape[1] else rows.T @ rows)
        inner.diagonal().add_(1 - loss)
        factor, failed = torch.linalg.cholesky_ex(inner)
        return not failed and bool(factor.isfinite().all())


def _scale(diagonal: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
    """S."""
    return torch.exp2(-(diagonal.log2() / 2).round())
