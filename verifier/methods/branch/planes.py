"""Where kinks may lie in a cell: half-spaces of x that hold all its points on a side of a gate.

What V says of increments holds of values, too. For a gate phi(z) with the kink k, slopes m - r and
m + r, let t = z - k and psi = (phi(z) - phi(k) - m t)/r. Then

    t_j = a_j + V_j,dx (x - c) + V_j,psi psi,                                             (1)

a_j what enters at the center c if every gate has its middle slope. On one piece of phi psi is a
line of t; where more are left it lies between two. If no gate has a second kink, an open psi is |t|
or -|t|, and these are of the cell's interval of t: the chord, and t or -t, whichever is nearer to
|t| in the middle. Else they are of the region's interval. Put into (1) from the last gate to the
first, the line chosen by the sign of what multiplies it, they leave

    lower_j(x) <= t_j <= upper_j(x),                                                      (2)

equal where no open gate enters. Above the kink, 0 <= upper_j(x); below, lower_j(x) <= 0; of other
kinks of the gate likewise, each as far from k as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from verifier.methods.branch.question import UNBOUNDED, Question

_BEYOND = 1e20  #: offsets of planes that say nothing


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Planes:
    """For every kink the plane that holds the cell on its side below, and on its side above.

    A point u, |u| <= 1 in the box around the region, lies on a side only if 0 <= offset + normal u.
    """

    normal: Float64[Tensor, "2 cells columns inputs"]
    offset: Float64[Tensor, "2 cells columns"]

    def of(self, places: Sequence[int]) -> Planes:
        """Those of some cells."""
        chosen = list(places)
        return Planes(normal=self.normal[:, chosen], offset=self.offset[:, chosen])

    @property
    def highest(self) -> Float64[Tensor, "2 cells columns"]:
        """The greatest value of every plane's function in the box; a side is empty below 0."""
        return self.offset + self.normal.abs().sum(dim=3)

    @property
    def usable(self) -> Bool[Tensor, "2 cells columns"]:
        """Which planes say anything."""
        return self.offset.abs() < _BEYOND


def planes(
    question: Question,
    sides: Float64[Tensor, "cells columns"],
    ends: Float64[Tensor, "cells 2 columns"],
    stop: int | None = None,
) -> Planes:
    """(2) of every kink in every cell, by the sides and the ends of its intervals.

    Args:
        question: of what.
        sides: of the cells.
        ends: of what enters the kinks' gates, less the kinks.
        stop: the first psi that is not asked about; None for all.
    """
    kinks = question.kinks
    psis = len(kinks.first) if stop is None else stop
    single = kinks.single
    lines = _lines_of_cells(question, sides, ends) if single else _lines_of_states(question, sides)
    above = _upper(question, lines, psis, 1.0)
    below = _upper(question, lines, psis, -1.0)
    asked = kinks.columns(slice(0, psis))
    psi = kinks.psi[asked]
    ahead = torch.where(kinks.known, kinks.place - question.values.kink[kinks.psi], 0.0)[asked]
    return Planes(
        normal=torch.stack([below[0], above[0]])[:, :, psi] * question.domain.reach,
        offset=torch.stack([below[1][:, psi] + ahead, above[1][:, psi] - ahead]),
    )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Lines:
    """Low t + low shift <= psi <= high t + high shift."""

    low: Float64[Tensor, "cells psis"]
    low_shift: Float64[Tensor, "cells psis"]
    high: Float64[Tensor, "cells psis"]
    high_shift: Float64[Tensor, "cells psis"]


def _lines_of_cells(
    question: Question, sides: Float64[Tensor, "cells psis"], ends: Float64[Tensor, "cells 2 psis"]
) -> _Lines:
    """Where psi = |t| or -|t|; where there is no kink to cut they say nothing."""
    kinks = question.kinks
    sigma = kinks.sigma(sides)
    least, greatest = ends[:, 0].clamp(max=0.0), ends[:, 1].clamp(min=0.0)
    width = (greatest - least).clamp(min=1e-300)
    chord, shift = (greatest + least) / width, -2 * greatest * least / width
    near = torch.where(0 < greatest + least, 1.0, -1.0).double()
    rises = kinks.sigmas[:, 0] < kinks.sigmas[:, -1]
    low, low_shift = torch.where(rises, near, -chord), torch.where(rises, 0.0, -shift)
    high, high_shift = torch.where(rises, chord, -near), torch.where(rises, shift, 0.0)
    low_shift = torch.where(kinks.known, low_shift, -UNBOUNDED)
    high_shift = torch.where(kinks.known, high_shift, UNBOUNDED)
    is_open = sigma == 0
    return _Lines(
        low=torch.where(is_open & kinks.known, low, sigma),
        low_shift=torch.where(is_open, low_shift, 0.0),
        high=torch.where(is_open & kinks.known, high, sigma),
        high_shift=torch.where(is_open, high_shift, 0.0),
    )


def _lines_of_states(question: Question, sides: Float64[Tensor, "cells columns"]) -> _Lines:
    """By the pieces that are left."""
    values, kinks = question.values, question.kinks
    first, last = kinks.left(sides)
    state, psi = first * kinks.sigmas.shape[1] + last, torch.arange(first.shape[1])
    return _Lines(
        low=values.low_slope[state, psi],
        low_shift=values.low_shift[state, psi],
        high=values.high_slope[state, psi],
        high_shift=values.high_shift[state, psi],
    )


def _upper(
    question: Question, lines: _Lines, psis: int, sign: float
) -> tuple[Float64[Tensor, "cells psis inputs"], Float64[Tensor, "cells psis"]]:
    """Planes that sign t does not exceed, of the first psis: normals of x, and offsets."""
    values, cells = question.values, len(lines.low)
    size = question.network.input_size
    rows = sign * values.spread[:psis, :psis].expand(cells, psis, psis)
    normal = sign * values.drive[:psis].expand(cells, psis, size)
    offset = sign * values.offset[:psis].expand(cells, psis)
    for block in reversed(question.form.blocks):
        if block.start == block.stop or psis < block.stop:
            continue
        here = rows[:, :, block]
        rises = 0 < here
        slope = torch.where(rises, lines.high[:, None, block], lines.low[:, None, block])
        shift = torch.where(
            rises, lines.high_shift[:, None, block], lines.low_shift[:, None, block]
        )
        pulled = here * slope
        offset = offset + (here * shift).sum(dim=2) + pulled @ values.offset[block]
        normal = normal + pulled @ values.drive[block]
        rows = rows + pulled @ values.spread[block, :psis]
    return normal, offset
