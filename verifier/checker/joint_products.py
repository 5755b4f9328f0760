"""Lines of s g where the slope s of a gate follows what enters it: s near p z, z of the network.

For s within a half width r of s_m, g within a half width h of g_m,

    s g = s_m g + g_m s - s_m g_m + (s - s_m)(g - g_m),    |last| <= r h,                    (1)

and with lo <= s - p z <= hi on the bounds of z this is s_m g + g_m p z and a constant within

    [min g_m {lo, hi}, max g_m {lo, hi}] - s_m g_m +- r h.                                   (2)

Chords know s by its range alone; (1) is nearer where the gate bends little. (lo, hi): on cells of
the interval the slope range of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.substitution import Lines

if TYPE_CHECKING:
    from jaxtyping import Float64

    from verifier.checker.intervals import Interval
    from verifier.checker.network import Scalar

CELLS = 256  #: what is lost of a curved slope falls with their number
_SLACK = 2.0**-48  #: of all magnitudes that are added: beyond the rounding of few operations
_TINY = 2.0**-1000


@dataclass(frozen=True, slots=True)
class SlopeLines:
    """Lo <= s - tilt z <= hi for every Clarke slope s at z within its bounds, |z| <= reach."""

    tilt: Float64[np.ndarray, "*batch n"]
    low: Float64[np.ndarray, "*batch n"]
    high: Float64[np.ndarray, "*batch n"]
    reach: Float64[np.ndarray, "*batch n"]


def identity_lines(reach: Float64[np.ndarray, " n"]) -> SlopeLines:
    """Of slopes that are what they follow: a product multiplies by its other factor."""
    zero = np.zeros_like(reach)
    return SlopeLines(zero + 1.0, zero, zero, reach)


def slope_lines(
    function: Scalar,
    lower: Float64[np.ndarray, " n"],
    upper: Float64[np.ndarray, " n"],
    cells: int = CELLS,
) -> SlopeLines:
    """The tilt of the chord of the slope, and what of the slope is off it."""
    ends = [sum(function.slope_range_on(end, end)) / 2 for end in (lower, upper)]
    width = np.where(lower < upper, upper - lower, 1.0)
    with np.errstate(all="ignore"):
        tilt = np.where(lower < upper, (ends[1] - ends[0]) / width, 0.0)
    tilt = np.where(np.isfinite(tilt) & (_TINY < np.abs(tilt)), tilt, 0.0)
    low, high = np.full_like(lower, np.inf), np.full_like(lower, -np.inf)
    right = lower
    for cell in range(1, cells + 1):
        left, right = right, upper if cell == cells else lower + (upper - lower) * (cell / cells)
        right = np.clip(right, left, upper)
        least, greatest = function.slope_range_on(left, right)
        lines = tilt * left, tilt * right
        low = np.minimum(low, _down(least, np.maximum(*lines)))
        high = np.maximum(high, -_down(-greatest, -np.minimum(*lines)))
    return SlopeLines(tilt, low, high, np.maximum(np.abs(lower), np.abs(upper)))


def _down(
    slope: Float64[np.ndarray, " n"], line: Float64[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"]:
    """Slope - line, rounded down; the line is a product, and rounded itself."""
    return (slope - line) - _SLACK * (np.abs(slope) + np.abs(line)) - _TINY


def joint_lines(chords: Lines, slopes: Interval, entering: Interval, along: SlopeLines) -> Lines:
    """The lines of s g, each the chord, or (1) with a coefficient of z.

    Args:
        chords: lines that do not know z.
        slopes: of s.
        entering: of g.
        along: of s along z.
    """
    slope, spread = _centred(slopes)
    middle, half = _centred(entering)
    ends = middle * along.low, middle * along.high
    product, rest, beside = slope * middle, spread * half, middle * along.tilt
    mass = np.maximum(*map(np.abs, ends)) + np.abs(product) + rest + np.abs(beside) * along.reach
    slack = _SLACK * mass + _TINY * (1 + along.reach)
    high = (np.maximum(*ends) - product) + (rest + slack)
    low = (np.minimum(*ends) - product) - (rest + slack)
    gap = (chords.above - chords.below) * middle + (chords.high - chords.low)
    with np.errstate(invalid="ignore"):
        nearer = np.isfinite(high - low) & (high - low < gap) & np.isfinite(beside)
    slope = np.broadcast_to(slope, nearer.shape)
    return Lines(
        below=np.where(nearer, slope, chords.below),
        above=np.where(nearer, slope, chords.above),
        low=np.where(nearer, low, chords.low),
        high=np.where(nearer, high, chords.high),
        beside=np.where(nearer, beside, 0.0),
    )


def _centred(
    interval: Interval,
) -> tuple[Float64[np.ndarray, "batch n"], Float64[np.ndarray, "batch n"]]:
    """(m, r) with [lower, upper] within [m - r, m + r]."""
    middle = interval.lower / 2 + interval.upper / 2
    radius = np.maximum(interval.upper - middle, middle - interval.lower)
    return middle, np.nextafter(radius * (1 + _SLACK), np.inf)
