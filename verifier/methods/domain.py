"""A region as the search uses it: its linear functions' greatest values, its points, its pairs.

    max over |x_k - c_k| <= r_k  of  a.x  =  a.c + sum_k r_k |a_k|
    max over |x - c|_p <= r      of  a.x  =  a.c + r |a|_q,    1/p + 1/q = 1

and over a ball that is clipped to a box, which holds its center, at most the lesser of the two.

In plain float64; what is proved of a region, the checker proves.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.methods.duality import norm_of
from verifier.norms import Norm
from verifier.regions import Ball, Everywhere, Place

_TURNS = 4  #: between a ball and the box that it is clipped to


@dataclass(frozen=True, slots=True, eq=False)
class Domain:
    """The points within `reach` of the center, coordinate by coordinate or in a norm.

    `norm` is None for a box, whose `reach` are its half widths (infinite for everywhere); a ball
    has its radius in all of them, so that [center - reach, center + reach] holds either.
    """

    center: Float64[Tensor, " n"]
    reach: Float64[Tensor, " n"]
    norm: Norm | None = None
    clip: Domain | None = None  #: the box around a clipped ball, which its points are within too

    @staticmethod
    def of(region: Place, size: int) -> Domain:
        """A region of R^size."""
        if isinstance(region, Everywhere):
            center = torch.zeros(size, dtype=torch.float64)
            return Domain(center, torch.full_like(center, torch.inf))
        lower, upper = (torch.from_numpy(end) for end in region.interval())
        if isinstance(region, Ball) and region.norm is not Norm.LINF:
            center = torch.tensor(region.center, dtype=torch.float64)
            clip = None if region.clip is None else Domain._between(lower, upper)
            return Domain(center, torch.full_like(center, region.radius), region.norm, clip)
        return Domain._between(lower, upper)

    @staticmethod
    def _between(lower: Float64[Tensor, " n"], upper: Float64[Tensor, " n"]) -> Domain:
        center = (lower + upper) / 2
        return Domain(center, torch.maximum(upper - center, center - lower))

    @property
    def ends(self) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]:
        """The least box that holds the domain."""
        if self.clip is not None:
            return self.clip.ends
        return self.center - self.reach, self.center + self.reach

    def greatest(self, rows: Float64[Tensor, "batch n"]) -> Float64[Tensor, " batch"]:
        """The greatest value of every row's linear function."""
        if self.norm is None:
            return rows @ self.center + rows.abs() @ self.reach
        of_ball = rows @ self.center + self.reach[0] * norm_of(self.norm.dual, rows)
        return of_ball if self.clip is None else torch.minimum(of_ball, self.clip.greatest(rows))

    def shrunk(self) -> Domain:
        """A little less, so that rounded points of it lie in the region."""
        slack = 2.0**-50 * (self.center.abs() + self.reach).nan_to_num(posinf=0.0)
        if self.norm is not None:
            slack = slack.sum().expand_as(slack)
        clip = None if self.clip is None else self.clip.shrunk()
        return Domain(self.center, (self.reach - slack).clamp(min=0), self.norm, clip)

    def farthest(self, directions: Float64[Tensor, "batch n"]) -> Float64[Tensor, " batch"]:
        """The greatest t for which center +- t d lies within."""
        if self.norm is not None:
            of_ball = self.reach[0] / norm_of(self.norm, directions)
            clip = self.clip
            return of_ball if clip is None else torch.minimum(of_ball, clip.farthest(directions))
        moving = directions != 0
        steps = self.reach / torch.where(moving, directions.abs(), 1.0)
        return torch.where(moving, steps, torch.inf).amin(dim=-1)

    def middle(
        self, points: Float64[Tensor, "batch n"], spread: Float64[Tensor, "batch n"]
    ) -> Float64[Tensor, "batch n"]:
        """Points near those given for which point +- spread lies within, where there are any.

        Of a clipped ball, points near that: into the one and the other in turn, the box last. For
        a spread of 0 that is exact, for nothing in the box is farther from the ball's center.
        """
        if self.norm is None:
            return self._middle_of_box(points, spread)
        found = self._middle_of_ball(self.norm, points, spread)
        if self.clip is None:
            return found
        for _ in range(_TURNS if bool(spread.any()) else 0):
            found = self._middle_of_ball(self.norm, self.clip.middle(found, spread), spread)
        return self.clip.middle(found, spread)

    def _middle_of_box(
        self, points: Float64[Tensor, "batch n"], spread: Float64[Tensor, "batch n"]
    ) -> Float64[Tensor, "batch n"]:
        room = (self.reach - spread.abs()).clamp(min=0)
        return self.center + torch.minimum(torch.maximum(points - self.center, -room), room)

    def _middle_of_ball(
        self, norm: Norm, points: Float64[Tensor, "batch n"], spread: Float64[Tensor, "batch n"]
    ) -> Float64[Tensor, "batch n"]:
        offset = points - self.center
        room = (self.reach[0] - norm_of(norm, spread)).clamp(min=0)
        length = norm_of(norm, offset)
        factor = torch.where(room < length, room / length.clamp(min=1e-300), 1.0)
        return self.center + factor[:, None] * offset
