"""Limited-memory quasi-Newton descent of a function that is infinite where it does not exist."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

#: The value and the gradient at a point; None where there is none.
Evaluation: TypeAlias = Callable[[Tensor], tuple[float, Tensor] | None]

_HISTORY = 20
_ARMIJO = 1e-4
_SHORTEST = 1e-7  #: step at which the descent has ended
_FIRST = 0.3  #: the greatest move of a coordinate in the first step
_FARTHEST = 1.5  #: and in any


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """Where the descent stands."""

    place: Float[Tensor, " n"]
    value: float
    gradient: Float[Tensor, " n"]


def descend(evaluate: Evaluation, start: Float[Tensor, " n"]) -> Iterator[Point]:
    """Points of falling value, until no step along the last direction falls."""
    first = evaluate(start)
    if first is None:
        return
    point = Point(start, *first)
    pairs: deque[tuple[Tensor, Tensor]] = deque(maxlen=_HISTORY)
    while True:
        found = _stepped(evaluate, point, _direction(point.gradient, pairs), bool(pairs))
        if found is None and pairs:
            pairs.clear()
            continue
        if found is None:
            return
        move, turn = found.place - point.place, found.gradient - point.gradient
        if 1e-10 * float(turn @ turn) < float(move @ turn):
            pairs.append((move, turn))
        point = found
        yield point


def _direction(gradient: Tensor, pairs: deque[tuple[Tensor, Tensor]]) -> Tensor:
    """-H g by the two-loop recursion."""
    direction = -gradient
    shares: list[Tensor] = []
    for move, turn in reversed(pairs):
        share = (move @ direction) / (move @ turn)
        shares.append(share)
        direction = direction - share * turn
    if pairs:
        move, turn = pairs[-1]
        direction = direction * ((move @ turn) / (turn @ turn))
    for (move, turn), share in zip(pairs, reversed(shares), strict=True):
        direction = direction + move * (share - (turn @ direction) / (move @ turn))
    return direction


def _stepped(
    evaluate: Evaluation, point: Point, direction: Tensor, is_scaled: bool
) -> Point | None:
    """The first of shrinking steps that falls as the slope promises."""
    slope = float(point.gradient @ direction)
    reach = float(direction.abs().max())
    if not (math.isfinite(reach) and 0 < reach and slope < 0):
        return None
    length = min(1.0, _FARTHEST / reach) if is_scaled else _FIRST / reach
    while _SHORTEST < length * reach:
        place = point.place + length * direction
        found = evaluate(place)
        if found is not None and found[0] <= point.value + _ARMIJO * length * slope:
            return Point(place, *found)
        shrink = 0.35
        if found is not None:
            # The minimum of the parabola through both values and the slope.
            bend = found[0] - point.value - length * slope
            shrink = min(0.6, max(0.1, -slope * length / (2 * bend))) if 0 < bend else shrink
        length *= shrink
    return None
