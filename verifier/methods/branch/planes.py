"""Where kinks may lie in a cell: half-spaces of x that hold all its points on a side of a gate.

What V says of increments holds of values, too. For a gate phi(z) with the kink k, slopes m - r and
m + r, let t = z - k and psi = (phi(z) - phi(k) - m t)/r. Then

    t_j = a_j + V_j,dx (x - c) + V_j,psi psi,                                             (1)

a_j what enters at the center c if every gate has its middle slope, and psi = sigma t on known
sides. An open psi is |t| or -|t|, and lies between two lines of t on the cell's interval [l, u] of
it: the chord, and t or -t, whichever is nearer to |t| in the middle. Put into (1) from the last
gate to the first, the line chosen by the sign of what multiplies it, they leave

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

_UNBOUNDED = 1e30  #: in the place of infinity, which times 0 is nan
_BEYOND = 1e20  #: offsets of planes that say nothing


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Planes:
    """For every gate the plane that holds the cell on its side below, and on its side above.

    A point u, |u| <= 1 in the box around the region, lies on a side only if 0 <= offset + normal u.
    """

    normal: Float64[Tensor, "2 cells psis inputs"]
    offset: Float64[Tensor, "2 cells psis"]

    def of(self, places: Sequence[int]) -> Planes:
        """Those of some cells."""
        chosen = list(places)
        return Planes(normal=self.normal[:, chosen], offset=self.offset[:, chosen])

    @property
    def highest(self) -> Float64[Tensor, "2 cells psis"]:
        """The greatest value of every plane's function in the box; a side is empty below 0."""
        return self.offset + self.normal.abs().sum(dim=3)

    @property
    def usable(self) -> Bool[Tensor, "2 cells psis"]:
        """Which planes say anything."""
        return self.offset.abs() < _BEYOND


def planes(
    question: Question,
    sides: Float64[Tensor, "cells psis"],
    ends: Float64[Tensor, "cells 2 psis"],
    stop: int | None = None,
) -> Planes:
    """(2) of every gate in every cell, by the sides and the ends of its intervals of t.

    Args:
        question: of what.
        sides: of the cells.
        ends: of t.
        stop: the first psi that is not asked about; None for all.
    """
    lines = _lines(question, ends)
    above = _upper(question, sides[:, :stop], lines, 1.0)
    below = _upper(question, sides[:, :stop], lines, -1.0)
    return Planes(
        normal=torch.stack([below[0], above[0]]) * question.domain.reach,
        offset=torch.stack([below[1], above[1]]),
    )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Lines:
    """Low t + low shift <= psi <= high t + high shift."""

    low: Float64[Tensor, "cells psis"]
    low_shift: Float64[Tensor, "cells psis"]
    high: Float64[Tensor, "cells psis"]
    high_shift: Float64[Tensor, "cells psis"]


def _lines(question: Question, ends: Float64[Tensor, "cells 2 psis"]) -> _Lines:
    """Those of open gates; where there is no kink to cut they say nothing."""
    kinks = question.kinks
    least, greatest = ends[:, 0].clamp(max=0.0), ends[:, 1].clamp(min=0.0)
    width = (greatest - least).clamp(min=1e-300)
    chord, shift = (greatest + least) / width, -2 * greatest * least / width
    near = torch.where(0 < greatest + least, 1.0, -1.0).double()
    rises = 0 < kinks.turn
    none = torch.zeros_like(near)
    return _Lines(
        low=torch.where(kinks.known, torch.where(rises, near, -chord), none),
        low_shift=torch.where(kinks.known, torch.where(rises, 0.0, -shift), none - _UNBOUNDED),
        high=torch.where(kinks.known, torch.where(rises, chord, -near), none),
        high_shift=torch.where(kinks.known, torch.where(rises, shift, 0.0), none + _UNBOUNDED),
    )


def _upper(
    question: Question, sides: Float64[Tensor, "cells psis"], lines: _Lines, sign: float
) -> tuple[Float64[Tensor, "cells psis inputs"], Float64[Tensor, "cells psis"]]:
    """Planes that sign t does not exceed: normals of x, and offsets."""
    values, kinks = question.values, question.kinks
    cells, psis = sides.shape
    size = question.network.input_size
    rows = sign * values.spread[:psis, :psis].expand(cells, psis, psis)
    normal = sign * values.drive[:psis].expand(cells, psis, size)
    offset = sign * values.offset[:psis].expand(cells, psis)
    sigma, is_open = sides * kinks.turn[:psis], sides == 0
    for block in reversed(question.form.blocks):
        if block.start == block.stop or psis < block.stop:
            continue
        here = rows[:, :, block]
        known = ~is_open[:, None, block]
        rises = 0 < here
        slope = torch.where(rises, lines.high[:, None, block], lines.low[:, None, block])
        shift = torch.where(
            rises, lines.high_shift[:, None, block], lines.low_shift[:, None, block]
        )
        slope = torch.where(known, sigma[:, None, block], slope)
        pulled = here * slope
        offset = offset + (here * torch.where(known, 0.0, shift)).sum(dim=2)
        offset = offset + pulled @ values.offset[block]
        normal = normal + pulled @ values.drive[block]
        rows = rows + pulled @ values.spread[block, :psis]
    return normal, offset
