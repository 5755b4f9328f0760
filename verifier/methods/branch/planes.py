"""Where kinks may lie in a cell: half-spaces of x that hold all its points on a side of a gate.

What V says of increments holds of values, too. For a gate phi(z) with the kink k, slopes m - r and
m + r, let t = z - k and psi = (phi(z) - phi(k) - m t)/r. Then

    t_j = a_j + V_j,dx (x - c) + V_j,psi psi,                                             (1)

a_j what enters at the center c if every gate has its middle slope. On one piece of phi psi is a
line of t; where more are left it lies between two, within the region's interval. Put into (1) from
the last gate to the first, the line chosen by the sign of what multiplies it, they leave

    lower_j(x) <= t_j <= upper_j(x),                                                      (2)

equal where no open gate enters. Above the kink, 0 <= upper_j(x); below, lower_j(x) <= 0; of other
kinks of the gate likewise, each as far from k as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from verifier.methods.branch.question import Question

_BEYOND = 1e20  #: offsets of planes that say nothing


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Planes:
    """For every kink the plane that holds the cell on its side below, and on its side above.

    A point u, |u| <= 1 in the box around the region, lies on a side only if 0 <= offset + normal u.
    """

    normal: Float64[Tensor, "2 cells columns inputs"]
    offset: Float64[Tensor, "2 cells columns"]
    exact: Bool[Tensor, "cells columns"]

    def of(self, places: Sequence[int]) -> Planes:
        """Those of some cells."""
        chosen = list(places)
        return Planes(
            normal=self.normal[:, chosen], offset=self.offset[:, chosen], exact=self.exact[chosen]
        )

    @property
    def highest(self) -> Float64[Tensor, "2 cells columns"]:
        """The greatest value of every plane's function in the box; a side is empty below 0."""
        return self.offset + self.normal.abs().sum(dim=3)

    @property
    def usable(self) -> Bool[Tensor, "2 cells columns"]:
        """Which planes say anything."""
        return self.offset.abs() < _BEYOND


def planes(question: Question, sides: Float64[Tensor, "cells columns"]) -> Planes:
    """(2) of every kink in every cell."""
    first, last = question.kinks.left(sides)
    pieces = question.kinks.sigmas.shape[1]
    state, is_open = first * pieces + last, question.kinks.sigma(sides) == 0
    above = _upper(question, state, is_open, 1.0)
    below = _upper(question, state, is_open, -1.0)
    kinks = question.kinks
    ahead = torch.where(kinks.known, kinks.place - question.values.kink[kinks.psi], 0.0)
    return Planes(
        normal=torch.stack([below[0], above[0]])[:, :, kinks.psi] * question.domain.reach,
        offset=torch.stack([below[1][:, kinks.psi] + ahead, above[1][:, kinks.psi] - ahead]),
        exact=above[2][:, kinks.psi] & kinks.known,
    )


def _upper(
    question: Question,
    state: Int64[Tensor, "cells psis"],
    is_open: Bool[Tensor, "cells psis"],
    sign: float,
) -> tuple[
    Float64[Tensor, "cells psis inputs"],
    Float64[Tensor, "cells psis"],
    Bool[Tensor, "cells psis"],
]:
    """Planes that sign t does not exceed: normals of x, offsets, and whether they are exact."""
    values = question.values
    cells, psis = state.shape
    size = question.network.input_size
    rows = sign * values.spread.expand(cells, psis, psis)
    normal = sign * values.drive.expand(cells, psis, size)
    offset = sign * values.offset.expand(cells, psis)
    exact = torch.ones_like(is_open)
    for block in reversed(question.form.blocks):
        if block.start == block.stop:
            continue
        here, column = rows[:, :, block], torch.arange(block.start, block.stop)
        low_slope, low_shift, high_slope, high_shift = (
            table[state[:, block], column][:, None]
            for table in (
                values.low_slope, values.low_shift, values.high_slope, values.high_shift,
            )
        )  # fmt: skip
        rises = 0 < here
        exact = exact & ~((here != 0) & is_open[:, None, block]).any(dim=2)
        pulled = here * torch.where(rises, high_slope, low_slope)
        offset = offset + (here * torch.where(rises, high_shift, low_shift)).sum(dim=2)
        offset = offset + pulled @ values.offset[block]
        normal = normal + pulled @ values.drive[block]
        rows = rows + pulled @ values.spread[block]
    return normal, offset, exact
