"""Interval bounds through affine maps: midpoint and radius, rounded outward.

For x in [c - r, c + r] and y = W x + b with |W_true - W| <= E,

    |y - fl(W c + b)| <= |W|(r + gamma|c|) + E(|c| + r) + gamma(|W c| + |b|) + |b_true - b|.    (1)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.arithmetic import LEAST, above, below, enlarged, gamma
from verifier.checker.carry import stages
from verifier.checker.definite import NotProved

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Float64

    from verifier.checker.network import Affine, Map


@dataclass(frozen=True, slots=True)
class Interval:
    """Every true value lies in the closed [lower, upper]; one row for each of a batch."""

    lower: Float64[np.ndarray, "batch n"]
    upper: Float64[np.ndarray, "batch n"]

    def magnitude(self) -> Float64[np.ndarray, "batch n"]:
        """The greatest absolute values, exactly."""
        return np.maximum(np.abs(self.lower), np.abs(self.upper))

    def centred(self) -> tuple[Float64[np.ndarray, "batch n"], Float64[np.ndarray, "batch n"]]:
        """(c, r) with [lower, upper] within [c - r, c + r]."""
        single = self.lower == self.upper
        # Halving a subnormal rounds, and a point is to stay where it is.
        centre = np.where(single, self.lower, self.lower / 2 + self.upper / 2)
        radius = above(np.maximum(self.upper - centre, centre - self.lower))
        return centre, np.where(single, 0.0, radius)

    def intersected(self, other: Interval) -> Interval:
        """What both allow."""
        return Interval(np.maximum(self.lower, other.lower), np.minimum(self.upper, other.upper))

    def required_finite(self, name: str) -> Interval:
        """The interval itself.

        Raises:
            NotProved: an end is infinite or nan, or the ends are in the wrong order.
        """
        finite = np.all(np.isfinite(self.lower)) and np.all(np.isfinite(self.upper))
        if not (finite and np.all(self.lower <= self.upper)):
            raise NotProved(f"signal {name!r} has no finite bounds over the region")
        return self


def affine_image(node: Affine, signals: Mapping[str, Interval]) -> Interval:
    """The node's values, by (1)."""
    middle = node.bias[None, :]
    mass = np.abs(middle)
    spread = node.bias_error[None, :]
    for term in node.terms:
        part, loose = signals[term.source].centred()
        for stage in stages(term.map):
            part, loose = _moved(stage, part, loose)
        middle, mass, spread = middle + part, mass + np.abs(part), spread + loose
    count = len(node.terms)
    # One term and no bias: nothing is added.
    rounds = count > 1 or bool(np.any(node.bias))
    share = gamma(count + 2) if rounds else 0.0
    spread = spread + share * mass
    moves = all(term.map.is_exact for term in node.terms) and not rounds
    if not (moves and not np.any(spread)):
        spread = enlarged(spread, count + 8)
        return Interval(below(middle - spread), above(middle + spread)).required_finite(node.name)
    return Interval(middle, middle).required_finite(node.name)


def _moved(
    linear: Map, centre: Float64[np.ndarray, "batch n"], radius: Float64[np.ndarray, "batch n"]
) -> tuple[Float64[np.ndarray, "batch m"], Float64[np.ndarray, "batch m"]]:
    """Centre and radius behind a map, by (1)."""
    if linear.is_exact:
        return linear.forward(centre), linear.forward(radius)
    size = np.abs(centre)
    loose = linear.magnitudes(radius + gamma(linear.terms + 2) * size)
    loose = loose + linear.slack(size + radius) + linear.terms * LEAST
    return linear.forward(centre), enlarged(loose, linear.terms + 8)


def scaled_by(gradient: Interval, slopes: Interval) -> Interval:
    """S g for every s and g of the two; products with 0, 1 and -1 are exact."""
    ends = [
        slope * value
        for slope in (slopes.lower, slopes.upper)
        for value in (gradient.lower, gradient.upper)
    ]
    lower, upper = np.minimum.reduce(ends), np.maximum.reduce(ends)
    simple = np.isin(slopes.lower, (-1.0, 0.0, 1.0)) & np.isin(slopes.upper, (-1.0, 0.0, 1.0))
    return Interval(np.where(simple, lower, below(lower)), np.where(simple, upper, above(upper)))
