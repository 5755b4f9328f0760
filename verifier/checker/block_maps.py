"""What is asked of blocks over a box, group by group, and maps of the whole signal made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.arithmetic import LEAST, above, below, enlarged, gamma
from verifier.checker.carry import Sparse
from verifier.checker.definite import NotProved

if TYPE_CHECKING:
    from jaxtyping import Float64

    from verifier.checker.intervals import Interval
    from verifier.checker.network import Blocks

BLOCK_ENTRIES = 2**24  #: of the derivatives of one node


def grouped(
    node: Blocks, entering: Interval
) -> tuple[Float64[np.ndarray, "groups n"], Float64[np.ndarray, "groups n"]]:
    """The bounds of every group.

    Raises:
        NotProved: there are several rows, or the blocks are too large.
    """
    if len(entering.lower) != 1:
        raise NotProved(f"node {node.name!r} is bounded around one region at a time")
    if node.groups.size * node.groups.shape[1] > BLOCK_ENTRIES:
        raise NotProved(f"the derivatives of node {node.name!r} are too many")
    return entering.lower[0][node.groups], entering.upper[0][node.groups]


def derivatives(
    node: Blocks, lower: Float64[np.ndarray, "groups n"], upper: Float64[np.ndarray, "groups n"]
) -> tuple[Float64[np.ndarray, "groups n n"], Float64[np.ndarray, "groups n n"]]:
    """M and E. An end that is 0 stays 0: signs of derivatives are told from M and E.

    Raises:
        NotProved: a derivative is not bounded.
    """
    low, high = node.function.derivatives(lower, upper)
    if not (np.all(np.isfinite(low)) and np.all(np.isfinite(high)) and np.all(low <= high)):
        raise NotProved(f"node {node.name!r} has no finite derivatives over the region")
    middle = np.where(low == high, low, low / 2 + high / 2)
    spread = np.where(low == high, 0.0, above(np.maximum(high - middle, middle - low)))
    signed = (0 <= low) | (high <= 0)
    # [0, h] within M +- M for M = h/2, whatever rounding does to narrower ones.
    crosses = signed & (np.abs(middle) < spread)
    half = np.where(0 <= low, high, low) / 2
    middle = np.where(crosses, half, middle)
    return middle, np.where(crosses, np.abs(half), spread)


def offsets(
    middle: Float64[np.ndarray, "groups m n"],
    spread: Float64[np.ndarray, "groups m n"],
    centre: Float64[np.ndarray, "groups n"],
    reach: Float64[np.ndarray, "groups n"],
    value: tuple[Float64[np.ndarray, "groups m"], Float64[np.ndarray, "groups m"]],
) -> tuple[Float64[np.ndarray, "groups m"], Float64[np.ndarray, "groups m"]]:
    """Ends of f(c) - M c +- E |x - c|, |x - c| <= reach, f(c) within `value`."""
    count = centre.shape[-1]
    moved = (middle @ centre[..., None])[..., 0]
    mass = (np.abs(middle) @ np.abs(centre)[..., None])[..., 0]
    loose = enlarged((spread @ reach[..., None])[..., 0], count)
    loose = enlarged(loose + gamma(count + 2) * mass + count * LEAST, count + 4)
    low, high = below(value[0] - moved), above(value[1] - moved)
    return below(low - loose), above(high + loose)


def flat(node: Blocks, rows: Float64[np.ndarray, "groups n"]) -> Float64[np.ndarray, " size"]:
    """Numbers of groups as one of the signal."""
    result = np.empty(node.size)
    result[node.groups] = rows
    return result


def sparse(
    node: Blocks,
    middle: Float64[np.ndarray, "groups n n"],
    spread: Float64[np.ndarray, "groups n n"] | None,
) -> Sparse:
    """Matrices of groups, and their errors, as one map of the signal."""
    width = node.groups.shape[1]
    index = np.empty((node.size, width), np.int64)
    index[node.groups] = node.groups[:, None, :]
    weight = np.empty((node.size, width))
    weight[node.groups] = middle
    error: Float64[np.ndarray, "size n"] | None = None
    if spread is not None:
        error = np.empty((node.size, width))
        error[node.groups] = spread
    return Sparse(index, weight, node.size, error)
