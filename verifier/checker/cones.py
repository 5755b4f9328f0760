"""Second-order mirrors: in pairs of entries, four cones of the plane, turned or mirrored each.

For constants c0, c1, c2 with 0 <= c_i and s = (c0 + c1 + c2)/2 < pi/2, and the angle t of (a, b)
counted from c0/2 on, t in [0, 2 pi),

    t < c1/2                  (a, b)
    t < (c1 + c2)/2           the mirror at the line of angle (c0 + c1)/2
    t < c2/2 + pi             the turn by -c2                                               (1)
    t < 2 pi                  the mirror at the line of angle c0/2

Where two cones meet, their maps agree: a mirror at angle m takes angle t to 2m - t, and both sides
of (1) give one angle there. So it is continuous, and orthogonal on each cone: 1-Lipschitz in l2,
and sqrt(2) in l1 and linf, as |cos| + |sin| <= sqrt(2). No cone is wider than pi: it is where a
point lies left of its first ray and right of its second, and on a box both can be excluded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.arithmetic import ONE, Magnitude, root_up
from verifier.checker.enclosures import lower_of, upper_of
from verifier.checker.waves import wave
from verifier.norms import Norm

if TYPE_CHECKING:
    from jaxtyping import Bool, Float64

    from verifier.checker.enclosures import Enclosure, Points

_FAR = 2.0**-49  #: angles are below 8: what rounding them to float64 moves, and wave's own ends
_ROOT = root_up(2.0)


@dataclass(frozen=True, eq=False)
class Cones:
    """The function (1) of every group of two entries, each with its own constants."""

    constants: Float64[np.ndarray, "groups 3"]  #: c0, c1, c2, each within half an ulp

    def constant(self, norm: Norm, width: int) -> Magnitude:  # noqa: ARG002 (the width is 2)
        """1 in l2, sqrt(2) else."""
        return ONE if norm is Norm.L2 else Magnitude.of(_ROOT)

    def constant_on(
        self,
        norm: Norm,
        lower: Float64[np.ndarray, "*groups n"],
        upper: Float64[np.ndarray, "*groups n"],  # noqa: ARG002 (the same on every box)
    ) -> Float64[np.ndarray, "*groups 1"]:
        """The constant."""
        return np.full((*lower.shape[:-1], 1), 1.0 if norm is Norm.L2 else _ROOT)

    def image(
        self, lower: Float64[np.ndarray, "*groups n"], upper: Float64[np.ndarray, "*groups n"]
    ) -> tuple[Float64[np.ndarray, "*groups n"], Float64[np.ndarray, "*groups n"]]:
        """The hull of what the maps make of the box, of cones that it may meet."""
        low, high = np.full_like(lower, np.inf), np.full_like(upper, -np.inf)
        met = self._met(lower, upper)
        for place, (least, most) in enumerate(self._matrices):
            ends = _applied(least, most, lower, upper)
            here = met[..., place, None]
            low = np.where(here, np.minimum(low, ends[0]), low)
            high = np.where(here, np.maximum(high, ends[1]), high)
        return low, high

    def derivatives(
        self, lower: Float64[np.ndarray, "*groups n"], upper: Float64[np.ndarray, "*groups n"]
    ) -> tuple[Float64[np.ndarray, "*groups n n"], Float64[np.ndarray, "*groups n n"]]:
        """The hull of the maps of cones that the box may meet."""
        low = np.full((*lower.shape, 2), np.inf)
        high, met = -low, self._met(lower, upper)
        for place, (least, most) in enumerate(self._matrices):
            here = met[..., place, None, None]
            low = np.where(here, np.minimum(low, least), low)
            high = np.where(here, np.maximum(high, most), high)
        return low, high

    @property
    def _matrices(self) -> list[Enclosure]:
        """[groups, 2, 2] for each cone."""
        c0, c1, c2 = self.constants.T
        one = np.broadcast_to(np.eye(2), (len(c0), 2, 2))
        return [(one, one), _mirror(c0 + c1), _turn(c2), _mirror(c0)]

    def _met(
        self, lower: Float64[np.ndarray, "*groups n"], upper: Float64[np.ndarray, "*groups n"]
    ) -> Bool[np.ndarray, "*groups 4"]:
        """Whether the box may meet each cone."""
        c0, c1, c2 = self.constants.T
        angles = (c0 / 2, (c0 + c1) / 2, (c0 + c1 + c2) / 2, (c0 + c2) / 2)
        rays = [_ray(angle) for angle in angles]
        rays[3] = -rays[3][1], -rays[3][0]  # half a turn ahead
        left = [_most_left(ray, lower, upper) >= 0 for ray in rays]
        right = [_most_left((-ray[1], -ray[0]), lower, upper) >= 0 for ray in rays]
        met = np.stack([left[k] & right[(k + 1) % 4] for k in range(4)], axis=-1)
        return met | ~met.any(axis=-1, keepdims=True)


def _ray(angle: Points) -> Enclosure:
    """(cos, sin) of an angle that is known within rounding."""
    ends = [wave(angle, 1), wave(angle, 0)]
    low = np.stack([end[0] for end in ends], axis=-1)
    high = np.stack([end[1] for end in ends], axis=-1)
    return np.maximum(low - _FAR, -1.0), np.minimum(high + _FAR, 1.0)


def _turn(angle: Points) -> Enclosure:
    """By -angle: rows (cos, sin) and (-sin, cos)."""
    (cos, sin), (most_cos, most_sin) = (np.moveaxis(end, -1, 0) for end in _ray(angle))
    return _square(cos, sin, -most_sin, cos), _square(most_cos, most_sin, -sin, most_cos)


def _mirror(angle: Points) -> Enclosure:
    """At the line of angle/2: rows (cos, sin) and (sin, -cos)."""
    (cos, sin), (most_cos, most_sin) = (np.moveaxis(end, -1, 0) for end in _ray(angle))
    return _square(cos, sin, sin, -most_cos), _square(most_cos, most_sin, most_sin, -cos)


def _square(a: Points, b: Points, c: Points, d: Points) -> Points:
    return np.stack([np.stack([a, b], axis=-1), np.stack([c, d], axis=-1)], axis=-2)


def _most_left(
    ray: Enclosure,
    lower: Float64[np.ndarray, "*groups n"],
    upper: Float64[np.ndarray, "*groups n"],
) -> Points:
    """What cos y - sin x does not exceed on the box: positive left of the ray."""
    low, high = ray
    across = _product(low[:, 0], high[:, 0], lower[..., 1], upper[..., 1])[1]
    along = _product(-high[:, 1], -low[:, 1], lower[..., 0], upper[..., 0])[1]
    return upper_of(across + along)


def _applied(
    least: Points,
    most: Points,
    lower: Float64[np.ndarray, "*groups n"],
    upper: Float64[np.ndarray, "*groups n"],
) -> Enclosure:
    """The matrices, times the box."""
    low, high = _product(least, most, lower[..., None, :], upper[..., None, :])
    return lower_of(low[..., 0] + low[..., 1]), upper_of(high[..., 0] + high[..., 1])


def _product(least: Points, most: Points, lower: Points, upper: Points) -> Enclosure:
    """Of two intervals."""
    ends = (least * lower, least * upper, most * lower, most * upper)
    low = np.minimum(np.minimum(ends[0], ends[1]), np.minimum(ends[2], ends[3]))
    high = np.maximum(np.maximum(ends[0], ends[1]), np.maximum(ends[2], ends[3]))
    return lower_of(low), upper_of(high)
