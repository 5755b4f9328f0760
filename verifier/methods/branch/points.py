"""Points of the region: on which sides of the kinks they lie, and how steep the function is there.

A point shows that every cell is not empty whose sides it shares, and its Jacobian is a slope that
the constant is not below.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from verifier.methods.branch.cells import sides_of
from verifier.methods.branch.question import Question, Task
from verifier.methods.duality import norm_of

_MOST = 6000  #: points that are kept, the newest
_FIRST = 256  #: random ones
_TRIED = 2**18  #: coordinates of points that are tried at a time
_JOINED = 8  #: of those that are tried


class Pool:
    """The points met so far."""

    def __init__(self, question: Question) -> None:
        self._question = question
        size = question.network.input_size
        counts = [len(item.rows) for item in question.items]
        self._own = torch.arange(sum(counts)).split(counts)
        self._u = torch.zeros(0, size, dtype=torch.float64)
        self._sides = sides_of(question, self._u)
        self._met: set[bytes] = set()
        self.steepest = [0.0] * len(counts)  #: by item
        self.best = [question.domain.center] * len(counts)  #: where that is
        self.add(self._sampled())

    def _sampled(self) -> Float64[Tensor, "points inputs"]:
        """Random points of the box, at its corners too; those of them in the region."""
        random = torch.Generator().manual_seed(0)
        size = self._question.network.input_size
        u = 2 * torch.rand(_FIRST, size, dtype=torch.float64, generator=random) - 1
        corner = torch.arange(_FIRST)[:, None] % 2 == 0
        return torch.where(corner, u.sign(), u)

    def add(self, u: Float64[Tensor, "points inputs"]) -> None:
        """Points |u| <= 1 of the box around the region; those beyond the region are left out."""
        domain = self._question.domain
        if domain.norm is not None:
            length = norm_of(domain.norm, u)
            u = u[length < 1] if 0 < len(self._u) else u / length.clamp(min=1.0)[:, None]
        if domain.clip is not None:
            x = domain.middle(domain.center + domain.reach * u, torch.zeros_like(u))
            u = (x - domain.center) / domain.reach
        if not len(u):
            return
        x = domain.center + domain.reach * u
        sides = sides_of(self._question, x)
        fresh = self._fresh(sides)
        if not len(fresh):
            return
        self._u = torch.cat([self._u, u[fresh]])[-_MOST:]
        self._sides = torch.cat([self._sides, sides[fresh]])[-_MOST:]
        self._raise(x[fresh])
        if _MOST <= len(self._sides):
            self._met = {each.tobytes() for each in self._sides.char().numpy()}

    def _fresh(self, sides: Float64[Tensor, "points columns"]) -> list[int]:
        """The points on sides of which there was no point yet; all where gates have no sides."""
        if not bool(self._question.kinks.known.all()) or not sides.shape[1]:
            return list(range(len(sides)))
        fresh: list[int] = []
        for place, each in enumerate(sides.char().numpy()):
            key = each.tobytes()
            if key not in self._met:
                self._met.add(key)
                fresh.append(place)
        return fresh

    def _raise(self, x: Float64[Tensor, "points inputs"]) -> None:
        jacobian = self._question.derivatives.jacobian(x) * self._question.varying
        for item, own in enumerate(self._own):
            value, place = self._question.measure.attained(jacobian[:, own]).value.max(dim=0)
            if self.steepest[item] < float(value):
                self.steepest[item], self.best[item] = float(value), x[place]

    def tried(self, u: Float64[Tensor, "points inputs"], tasks: Sequence[Task]) -> None:
        """Points, each with a task whose slope it may raise: the few best ones join.

        Args:
            u: of the box around the region.
            tasks: as many.
        """
        if any(len(task.rows) != 1 for task in tasks):
            self.add(u[:: 1 + len(u) // _JOINED])
            return
        question = self._question
        places = torch.tensor([int(self._own[task.item][task.output or 0]) for task in tasks])
        known = torch.tensor([self.steepest[task.item] for task in tasks], dtype=torch.float64)
        functionals = torch.nn.functional.one_hot(places, sum(map(len, self._own))).double()
        x = question.domain.center + question.domain.reach * u
        size = max(1, _TRIED // x.shape[1])
        slopes = [
            question.measure.slope(question.derivatives.pulled(*some) * question.varying)
            for some in zip(x.split(size), functionals.split(size), strict=True)
        ]
        excess = torch.cat(slopes) - known
        self.add(u[excess.topk(min(_JOINED, len(u))).indices])

    def within(self, sides: Float64[Tensor, "cells columns"]) -> Bool[Tensor, "cells points"]:
        """Which points lie in which cells."""
        known = sides != 0
        # A cell holds a point that has all of its sides: products of signs sum up to their number.
        return sides @ self._sides.T == known.sum(dim=1, keepdim=True)

    def shown(
        self, inside: Bool[Tensor, "cells points"]
    ) -> tuple[Bool[Tensor, "cells columns"], ...]:
        """Of which gates points of the cells show the side below, and the side above."""
        counts = inside.double()
        return (0 < counts @ (self._sides < 0).double()), (0 < counts @ (0 < self._sides).double())
