"""Limited-memory quasi-Newton descent of a function that is infinite where it does not exist."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

_HISTORY = 20
_ARMIJO = 1e-4
_SHORTEST = 1e-6  #: move of a coordinate at which the descent has ended
_FARTHEST = 1.5  #: in one step
_GROWTH = 3.0  #: of the greatest move, from one step to the next
_RIDGE = 1e-3  #: of the mean curvature, added


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Point:
    """Where the descent stands."""

    place: Float[Tensor, " n"]
    value: float  #: what descends
    objective: float  #: the part of it that is wanted
    gradient: Float[Tensor, " n"]
    curvature: Sequence[Float[Tensor, "_ _"]]  #: diagonal blocks

    def scaled(self, vector: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The inverse of the curvature's blocks, made positive, times a vector."""
        parts: list[Tensor] = []
        first = 0
        for block in self.curvature:
            part = vector[first : first + len(block)]
            ridge = _RIDGE * block.diagonal().mean() + 1e-300
            matrix = block + ridge * torch.eye(len(block), dtype=block.dtype)
            factor, _ = torch.linalg.cholesky_ex(matrix)
            parts.append(torch.cholesky_solve(part[:, None], factor)[:, 0])
            first += len(block)
        return torch.cat(parts)


#: None where there is no value.
Evaluation: TypeAlias = Callable[[Tensor], Point | None]


def descend(evaluate: Evaluation, start: Float[Tensor, " n"]) -> Iterator[Point]:
    """Points of falling value, the start first, until no step along the last direction falls."""
    point = evaluate(start)
    pairs: deque[tuple[Tensor, Tensor]] = deque(maxlen=_HISTORY)
    farthest = _FARTHEST
    while point is not None:
        yield point
        found = _stepped(evaluate, point, _direction(point, pairs), farthest)
        if found is None and pairs:
            pairs.clear()
            found = _stepped(evaluate, point, _direction(point, pairs), farthest)
        if found is not None:
            move, turn = found.place - point.place, found.gradient - point.gradient
            farthest = min(_FARTHEST, _GROWTH * float(move.abs().max()))
            if 1e-10 * float(turn @ turn) < float(move @ turn):
                pairs.append((move, turn))
        point = found


def _direction(point: Point, pairs: deque[tuple[Tensor, Tensor]]) -> Tensor:
    """-H g by the two-loop recursion around the blocks' inverse."""
    direction = -point.gradient
    shares: list[Tensor] = []
    for move, turn in reversed(pairs):
        share = (move @ direction) / (move @ turn)
        shares.append(share)
        direction = direction - share * turn
    direction = point.scaled(direction)
    for (move, turn), share in zip(pairs, reversed(shares), strict=True):
        direction = direction + move * (share - (turn @ direction) / (move @ turn))
    return direction


def _stepped(
    evaluate: Evaluation, point: Point, direction: Tensor, farthest: float
) -> Point | None:
    """The first of shrinking steps that falls as the slope promises."""
    slope = float(point.gradient @ direction)
    reach = float(direction.abs().max())
    if not (math.isfinite(reach) and 0 < reach and slope < 0):
        return None
    length = min(1.0, farthest / reach)
    while _SHORTEST < length * reach:
        found = evaluate(point.place + length * direction)
        if found is not None and found.value <= point.value + _ARMIJO * length * slope:
            return found
        shrink = 0.4
        if found is not None:
            # The minimum of the parabola through both values and the slope.
            bend = found.value - point.value - length * slope
            shrink = min(0.6, max(0.1, -slope * length / (2 * bend))) if 0 < bend else shrink
        length *= shrink
    return None
