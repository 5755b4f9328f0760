"""Planes below and above a product x y over a box.

For any t and b the difference x y - t x - b y is affine in each variable, so that over a box it is
least, and greatest, at a corner:

    t x + b y + min  <=  x y  <=  t' x + b' y + max.                                        (1)

Good ones are means of the planes through two adjacent edges. Below these are y = ly, x = lx with
(t, b) = (ly, lx), and y = uy, x = ux; above y = uy, x = lx, and y = ly, x = ux. A proof names t
for each, within [ly, uy]; b is at the same share of [lx, ux].
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.substitution import Lines

if TYPE_CHECKING:
    from jaxtyping import Float64

    from verifier.checker.intervals import Interval

    Batch = Float64[np.ndarray, "batch n"]

_SLACK = 2.0**-49
_TINY = 2.0**-1060
_SMALLEST = 2.0**-500


def planes(
    left: Interval,
    right: Interval,
    slopes: tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]] | None,
) -> Lines:
    """(1), with the left factor's coefficients as `below` and `above`.

    Args:
        left: bounds of x.
        right: bounds of y.
        slopes: t below and above; None for means at the middle.
    """
    width = right.upper - right.lower
    low, high = np.full_like(width, 0.5), np.full_like(width, 0.5)
    if slopes is not None:
        low = _share(slopes[0] - right.lower, width)
        high = _share(right.upper - slopes[1], width)
    below, above = _plain(right.lower + low * width), _plain(right.upper - high * width)
    reach = left.upper - left.lower
    beside, beside_above = _plain(left.lower + low * reach), _plain(left.lower + high * reach)
    return Lines(
        below=below,
        above=above,
        low=-_most(left, right, below, beside, -1.0),
        high=_most(left, right, above, beside_above, 1.0),
        beside=beside,
        beside_above=beside_above,
    )


def _plain(slope: Batch) -> Batch:
    """The slope; 0 in the place of one that a later product could lose to underflow."""
    return np.where(np.abs(slope) < _SMALLEST, 0.0, slope)


def _share(part: Batch, width: Batch) -> Batch:
    with np.errstate(all="ignore"):
        share = part / width
    return np.clip(np.where(np.isfinite(share), share, 0.5), 0.0, 1.0)


def _most(left: Interval, right: Interval, slope: Batch, beside: Batch, sign: float) -> Batch:
    """A number that sign (x y - t x - b y) does not exceed at a corner, with its rounding."""
    best = np.full_like(slope, -np.inf)
    for x, y in product((left.lower, left.upper), (right.lower, right.upper)):
        parts = x * y, slope * x, beside * y
        mass = np.abs(parts[0]) + np.abs(parts[1]) + np.abs(parts[2])
        value = sign * ((parts[0] - parts[1]) - parts[2])
        best = np.maximum(best, value + _SLACK * mass + _TINY)
    return best
