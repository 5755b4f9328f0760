"""Where kinks may lie in a cell: half-spaces of x that hold all its points on a side of a gate.

What V says of increments holds of values, too. For a gate phi(z) with the kink k, slopes m - r and
m + r, let t = z - k and psi = (phi(z) - phi(k) - m t)/r. Then

    t_j = a_j + V_j,dx (x - c) + V_j,psi psi,                                             (1)

a_j what enters at the center c if every gate has its middle slope, and psi = sigma t on known
sides. Between the ends of the region's interval an open psi lies between two lines of t. Put into
(1) from the last gate to the first, the line chosen by the sign of what multiplies it, they leave

    lower_j(x) <= t_j <= upper_j(x),                                                      (2)

equal where no open gate enters. On the side above, 0 <= upper_j(x); below, lower_j(x) <= 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from verifier.methods.branch.question import Question

_BEYOND = 1e20  #: offsets of planes that say nothing


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Planes:
    """For every gate the plane that holds the cell on its side below, and on its side above.

    A point u, |u| <= 1 in the box around the region, lies on a side only if 0 <= offset + normal u.
    """

    normal: Float64[Tensor, "2 cells psis inputs"]
    offset: Float64[Tensor, "2 cells psis"]
    exact: Bool[Tensor, "cells psis"]

    def of(self, places: Sequence[int]) -> Planes:
        """Those of some cells."""
        chosen = list(places)
        return Planes(
            normal=self.normal[:, chosen], offset=self.offset[:, chosen], exact=self.exact[chosen]
        )

    @property
    def highest(self) -> Float64[Tensor, "2 cells psis"]:
        """The greatest value of every plane's function in the box; a side is empty below 0."""
        return self.offset + self.normal.abs().sum(dim=3)

    @property
    def usable(self) -> Bool[Tensor, "2 cells psis"]:
        """Which planes say anything."""
        return self.offset.abs() < _BEYOND


def planes(question: Question, sides: Float64[Tensor, "cells psis"]) -> Planes:
    """(2) of every gate in every cell."""
    above = _upper(question, sides, 1.0)
    below = _upper(question, sides, -1.0)
    return Planes(
        normal=torch.stack([below[0], above[0]]) * question.domain.reach,
        offset=torch.stack([below[1], above[1]]),
        exact=above[2],
    )


def _upper(
    question: Question, sides: Float64[Tensor, "cells psis"], sign: float
) -> tuple[
    Float64[Tensor, "cells psis inputs"],
    Float64[Tensor, "cells psis"],
    Bool[Tensor, "cells psis"],
]:
    """Planes that sign t does not exceed: normals of x, offsets, and whether they are exact."""
    values, kinks = question.values, question.kinks
    cells, psis = sides.shape
    size = question.network.input_size
    rows = sign * values.spread.expand(cells, psis, psis)
    normal = sign * values.drive.expand(cells, psis, size)
    offset = sign * values.offset.expand(cells, psis)
    exact = kinks.known.expand(cells, psis)
    sigma, is_open = sides * kinks.turn, sides == 0
    for block in reversed(question.form.blocks):
        if block.start == block.stop:
            continue
        here = rows[:, :, block]
        known = ~is_open[:, None, block]
        rises = 0 < here
        slope = torch.where(rises, values.high_slope[block], values.low_slope[block])
        shift = torch.where(rises, values.high_shift[block], values.low_shift[block])
        slope = torch.where(known, sigma[:, None, block], slope)
        exact = exact & ~((here != 0) & ~known).any(dim=2)
        pulled = here * slope
        offset = offset + (here * torch.where(known, 0.0, shift)).sum(dim=2)
        offset = offset + pulled @ values.offset[block]
        normal = normal + pulled @ values.drive[block]
        rows = rows + pulled @ values.spread[block]
    return normal, offset, exact
