"""What gates are on many intervals at once: rows of intervals, one for each part of a region.

Parts differ in a few gates only, and a gate has few different intervals among them. So a fact of a
gate is found once for each interval that one of its neurons has, and then handed out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from verifier.checker.definite import NotProved
from verifier.checker.substitution import Lines

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float64

    from verifier.checker.intervals import Interval
    from verifier.checker.jacobian import BatchedSlopes
    from verifier.checker.network import Scalar

    Vector: TypeAlias = Float64[np.ndarray, " n"]


def slopes_within(function: Scalar, entering: Interval) -> BatchedSlopes:
    """Slopes that hold almost everywhere on a path, where what enters stays in its interval.

    A kink at an end of an interval counts with its inner side alone: where what enters a gate stays
    at a number for longer than a moment, its derivative is 0, and any slope is right. For the same
    reason one slope is enough where the interval is a point.
    """
    lower, upper = by_interval(_slopes, function, entering)
    if not (np.all(np.isfinite(lower)) and np.all(np.isfinite(upper)) and np.all(lower <= upper)):
        raise NotProved("a gate has no finite slopes within a part of the region")
    return lower, upper


def _slopes(function: Scalar, lower: Vector, upper: Vector) -> tuple[Vector, ...]:
    return function.slopes_inside(lower, upper)


def lines_within(function: Scalar, entering: Interval) -> Lines:
    """Lines around the function on each interval, by the checker's own rule.

    Where it is straight both have its slope, so that only their offsets' rounding is between them.
    """
    found = by_interval(_lines, function, entering)
    if not all(np.all(np.isfinite(part)) for part in found):
        raise NotProved("a gate has no finite lines within a part of the region")
    return Lines(*found)


def _lines(function: Scalar, lower: Vector, upper: Vector) -> tuple[Vector, ...]:
    least, greatest = function.slopes_inside(lower, upper)
    straight = (least == greatest) & (lower < upper)
    below, above = function.lines(lower, upper)
    slopes = np.where(straight, least, below), np.where(straight, least, above)
    return (*slopes, *function.offsets(lower, upper, *slopes))


def by_interval(
    facts: Callable[[Scalar, Vector, Vector], tuple[Vector, ...]],
    function: Scalar,
    entering: Interval,
) -> tuple[Float64[np.ndarray, "batch n"], ...]:
    """Facts of every row of intervals, asked once for each interval that an entry has.

    The k-th intervals of all entries make a row; all rows are asked for at once.
    """
    lower, upper = entering.lower, entering.upper
    order = np.lexsort((upper, lower), axis=0)
    low, high = (np.take_along_axis(end, order, axis=0) for end in (lower, upper))
    rank = np.zeros(order.shape, np.int64)
    rank[1:] = np.cumsum((low[1:] != low[:-1]) | (high[1:] != high[:-1]), axis=0)
    rows, size = int(rank.max(initial=0)) + 1, lower.shape[1]
    columns = np.arange(size, dtype=np.int64)
    # Entries of fewer intervals repeat their first.
    table = [np.repeat(end[:1], rows, axis=0) for end in (low, high)]
    for end, known in zip(table, (low, high), strict=True):
        end[rank, columns] = known
    found = facts(function.tiled(rows), table[0].reshape(-1), table[1].reshape(-1))
    place = np.empty_like(rank)
    np.put_along_axis(place, order, rank, axis=0)
    return tuple(fact.reshape(rows, size)[place, columns] for fact in found)
