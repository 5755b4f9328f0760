"""Linear functions over a bounded region, and their greatest values.

    max over |x_k - c_k| <= r_k  of  a.x  =  a.c + sum_k r_k |a_k|
    max over |x - c|_p <= r      of  a.x  =  a.c + r |a|_q,    1/p + 1/q = 1
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.norms import Norm
from verifier.regions import Ball, Bounded

#: The p of torch for each norm.
ORDERS = {Norm.L1: 1.0, Norm.L2: 2.0, Norm.LINF: float("inf")}


@dataclass(frozen=True, slots=True, eq=False)
class Domain:
    """The points within `reach` of the center, coordinate by coordinate or in a norm.

    `norm` is None for a box, whose `reach` are its half widths; a ball has its radius in all of
    them, so that [center - reach, center + reach] holds either.
    """

    center: Float64[Tensor, " n"]
    reach: Float64[Tensor, " n"]
    norm: Norm | None = None

    @staticmethod
    def of(region: Bounded, device: torch.device | None = None) -> Domain:
        """A region as the methods use it, in plain float64."""
        lower, upper = (torch.from_numpy(end).to(device) for end in region.interval())
        if isinstance(region, Ball) and region.norm is not Norm.LINF:
            center = torch.tensor(region.center, dtype=torch.float64, device=device)
            return Domain(center, torch.full_like(center, region.radius), region.norm)
        center = (lower + upper) / 2
        return Domain(center, torch.maximum(upper - center, center - lower))

    @property
    def ends(self) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]:
        """The least box that holds the domain."""
        return self.center - self.reach, self.center + self.reach

    def greatest(self, rows: Float64[Tensor, "batch n"]) -> Float64[Tensor, " batch"]:
        """The greatest value of every row's linear function."""
        if self.norm is None:
            return rows @ self.center + rows.abs() @ self.reach
        spread = torch.linalg.vector_norm(rows, ORDERS[self.norm.dual], dim=-1)
        return rows @ self.center + self.reach[0] * spread
