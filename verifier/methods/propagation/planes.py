"""Planes around a product x y over a box: what lines are for functions of one number.

For x in [lx, ux] and y in [ly, uy] the four corners give

    lx y + ly x - lx ly,  ux y + uy x - ux uy   <=  x y  <=   lx y + uy x - lx uy,
                                                              ux y + ly x - ux ly,         (1)

and so do the means of two on one side. Of all of them the distance from x y is the same at the
box's middle. A mean is named by its slope in x, within [ly, uy]; the one in y follows from it.

Source: McCormick 1976, Mathematical Programming 10.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float64
from torch import Tensor

from verifier.methods.propagation.intervals import Interval


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Planes:
    """below x + below_beside y + below_offset <= x y, entry by entry, and the same above."""

    below: Float64[Tensor, " n"]
    below_beside: Float64[Tensor, " n"]
    below_offset: Float64[Tensor, " n"]
    above: Float64[Tensor, " n"]
    above_beside: Float64[Tensor, " n"]
    above_offset: Float64[Tensor, " n"]

    @staticmethod
    def of_shares(
        left: Interval, right: Interval, low: Float64[Tensor, " n"], high: Float64[Tensor, " n"]
    ) -> Planes:
        """The means of (1) with these shares of the second planes below and above."""
        (lx, ux), (ly, uy) = left, right
        return Planes(
            below=ly + low * (uy - ly),
            below_beside=lx + low * (ux - lx),
            below_offset=-(1 - low) * lx * ly - low * ux * uy,
            above=uy + high * (ly - uy),
            above_beside=lx + high * (ux - lx),
            above_offset=-(1 - high) * lx * uy - high * ux * ly,
        )

    @staticmethod
    def of_slopes(
        left: Interval, right: Interval, below: Float64[Tensor, " n"], above: Float64[Tensor, " n"]
    ) -> Planes:
        """The means of (1) with slopes in x nearest to these."""
        ly, uy = right
        width = uy - ly
        low, high = (
            (part / width).nan_to_num(nan=0.5, posinf=1.0, neginf=0.0).clamp(0, 1)
            for part in (below - ly, uy - above)
        )
        return Planes.of_shares(left, right, low, high)

    def upward(
        self, rows: Float64[Tensor, "batch n"]
    ) -> tuple[Float64[Tensor, "batch n"], Float64[Tensor, "batch n"], Float64[Tensor, " batch"]]:
        """What stands in front of x and of y in place of rows.(x y), at most, and the constant."""
        positive, negative = rows.clamp(min=0), rows.clamp(max=0)
        return (
            positive * self.above + negative * self.below,
            positive * self.above_beside + negative * self.below_beside,
            positive @ self.above_offset + negative @ self.below_offset,
        )


def product_interval(left: Interval, right: Interval) -> Interval:
    """From the least to the greatest product of two ends."""
    ends = [x * y for x in left for y in right]
    least, greatest = ends[0], ends[0]
    for end in ends[1:]:
        least, greatest = least.minimum(end), greatest.maximum(end)
    return least, greatest
