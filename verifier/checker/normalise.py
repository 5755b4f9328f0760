"""A vector divided by its length, which is kept away from 0: the core of all normalisation layers.

With |v|^2 = sum_j v_j^2 over the n entries of a group,

    root    z = v/s,  s^2 = |v|^2/d + eps     d = n: means of squares; d = 1: their sum
    floor   z = v/s,  s = max(|v|, eps)       d = 1

In both, with alpha = v_i^2/d and X = e + R/d, R = sum_(j != i) v_j^2, e = eps or 0,

    s^2 = Y = max(X + alpha, f),    f = 0 or eps^2,    z_i = v_i / sqrt(Y),                  (1)
    dz_i/dv_i = X / Y^(3/2),    dz_i/dv_j = -z_i z_j / (d s)    where f <= X + alpha,         (2)

and dz/dv = I/eps where X + alpha <= f. z_i grows with v_i and shrinks in magnitude with R, so its
ends over a box are reached. (2) shrinks with alpha; in X it grows up to max(2 alpha, f - alpha) and
shrinks beyond, so that it is least at an end. Since 2|z_i z_j| <= |z|^2 <= d, the others have
|dz_i/dv_j| <= 1/(2s).

Constants. The Jacobian is (I - y y')/s, y = z/sqrt(d), |y|^2 = q, q = 1 - eps/s^2 for roots: at
most 1/s in l2, s >= sqrt(eps), or eps. It is symmetric; a row's absolute sum is at most
1 + |y_i|(|y|_1 - 2|y_i|) <= 1 + c q for c = (sqrt(n) - 1)/2, by Cauchy and Schwarz. In l1 and linf
a floor has (1 + c)/eps, and a root at most sqrt(g/eps), g the greatest (1 + c q)^2 (1 - q):

    g = 1 for c <= 1/2 (q = 0),    g = 4 (1 + c)^3 / (27 c) otherwise (q = (2 - 1/c)/3).    (3)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from verifier.checker.arithmetic import Magnitude, above, below, enlarged, gamma, root_up, up
from verifier.checker.enclosures import TINY, lower_of, upper_of
from verifier.checker.softmax import with_diagonal
from verifier.errors import NotLipschitzGlobally
from verifier.norms import Norm

if TYPE_CHECKING:
    from jaxtyping import Float64

    Rows: TypeAlias = Float64[np.ndarray, "*groups n"]
    Squares: TypeAlias = Float64[np.ndarray, "*groups n n"]

_SMALL = 2.0**-600  #: squares of lengths below it are not looked at
_ROOM = 1 + 2.0**-49  #: for formulas of up to six roundings


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalise:
    """z of (1)."""

    name: str  #: for refusals
    epsilon: float  #: not negative
    form: Literal["root", "floor"]
    divisor: float = 1.0  #: d

    @property
    def longest(self) -> float:
        """A number that |z| does not exceed anywhere: |z|^2 = d |v|^2/(|v|^2 + d eps), or 1."""
        return 1.0 if self.form == "floor" else root_up(self.divisor)

    def constant(self, norm: Norm, width: int) -> Magnitude:
        """As the module says.

        Raises:
            NotLipschitzGlobally: eps is 0.
        """
        if not 0 < self.epsilon:
            raise NotLipschitzGlobally(
                "a normalisation whose epsilon is 0 has no slope at 0",
                fix="ask for a local bound away from 0, or use a positive epsilon",
                node=self.name,
            )
        smallest = self.epsilon if self.form == "floor" else _root_down(self.epsilon)
        return Magnitude.of(up(self._spread(norm, width) / smallest))

    def _spread(self, norm: Norm, width: int) -> float:
        """What a constant is times s: 1 in l2, and in l1 and linf what (3) and the text say."""
        c = max(0.0, (root_up(float(width)) - 1) / 2 * _ROOM)
        if norm is Norm.L2:
            return 1.0
        if self.form == "floor":
            return (1 + c) * _ROOM
        # g grows with c beyond 1/2, so that what rounding adds to c is harmless.
        cube = (1 + c) * (1 + c) * (1 + c)
        return 1.0 if c <= 0.5 else max(1.0, root_up(4 * cube / (27 * c) * _ROOM))

    def constant_on(self, norm: Norm, lower: Rows, upper: Rows) -> Float64[np.ndarray, "*groups 1"]:
        """1/s in l2, (1 + c)/s in l1 and linf, and no more than the constant."""
        width = lower.shape[-1]
        c = max(0.0, (root_up(float(width)) - 1) / 2 * _ROOM)
        share = 1.0 if norm is Norm.L2 else (1 + c) * _ROOM
        with np.errstate(divide="ignore"):
            local = upper_of(share / _Box(self, lower, upper).lengths()[0])
        return local if self.epsilon == 0 else np.minimum(local, self.constant(norm, width).upper())

    def lengths(
        self, lower: Rows, upper: Rows
    ) -> tuple[Float64[np.ndarray, "*groups 1"], Float64[np.ndarray, "*groups 1"]]:
        """Ends of s."""
        return _Box(self, lower, upper).lengths()

    def image(self, lower: Rows, upper: Rows) -> tuple[Rows, Rows]:
        """(1) at the ends."""
        return _Box(self, lower, upper).values()

    def derivatives(self, lower: Rows, upper: Rows) -> tuple[Squares, Squares]:
        """(2), and the hull with I/eps where the box meets |v| <= eps."""
        box = _Box(self, lower, upper)
        low, high = box.smooth()
        if self.form == "root":
            return low, high
        inner = np.eye(lower.shape[-1]) / self.epsilon
        flat_low, flat_high = lower_of(inner), upper_of(inner)
        inside, outside = box.is_within_floor(), box.is_beyond_floor()
        return (
            np.where(inside, flat_low, np.where(outside, low, np.minimum(low, flat_low))),
            np.where(inside, flat_high, np.where(outside, high, np.maximum(high, flat_high))),
        )


class _Box:
    """What (1) and (2) need of a box; all sums are of non-negative terms."""

    def __init__(self, function: Normalise, lower: Rows, upper: Rows) -> None:
        self.lower, self.upper, self._function = lower, upper, function
        count = lower.shape[-1]
        near = np.maximum(np.maximum(lower, -upper), 0.0)
        far = np.maximum(np.maximum(upper, -lower), 0.0)
        low, high = np.maximum(lower_of(near * near), 0.0), upper_of(far * far)
        self._alpha = self._outward(low, 0.0, 0), self._outward(high, 0.0, 1)
        e = function.epsilon if function.form == "root" else 0.0
        least = _without_own(low) * (1 - 2 * gamma(count + 2)) - count * TINY
        most = enlarged(_without_own(high), count)
        self._rest = self._outward(np.maximum(least, 0.0), e, 0), self._outward(most, e, 1)
        square = np.array([function.epsilon**2 if function.form == "floor" else 0.0])
        self._floor = max(float(lower_of(square)[0]), 0.0), float(upper_of(square)[0])

    def _outward(self, squares: Rows, shift: float, side: int) -> Rows:
        """Squares / d + shift, rounded to a side."""
        value = squares / self._function.divisor + shift
        if side:
            return upper_of(value)
        return np.maximum(lower_of(value), shift)

    def values(self) -> tuple[Rows, Rows]:
        """Ends of z: a positive one shrinks with X, a negative one grows."""
        (least, most), (low, high) = self._rest, (self.lower, self.upper)
        limit = root_up(self._function.divisor)
        smallest = self._quotient(low, np.where(low < 0, least, most), -1.0)
        greatest = self._quotient(high, np.where(high > 0, least, most), 1.0)
        return np.maximum(smallest, -limit), np.minimum(greatest, limit)

    def _quotient(self, v: Rows, rest: Rows, side: float) -> Rows:
        """v / sqrt(Y), rounded to a side; where Y is too small for that, what is true anyway."""
        # A longer vector moves the quotient towards 0.
        outward = 0 < side * v
        squares = v * v / self._function.divisor + rest
        squares = np.maximum(squares, np.where(outward, self._floor[0], self._floor[1]))
        value = v / np.sqrt(np.maximum(squares, _SMALL))
        value = value + side * np.abs(value) * 2.0**-49 + side * TINY
        return np.where(_SMALL < squares, value, np.where(outward, side * np.inf, 0.0))

    def lengths(self) -> tuple[Rows, Rows]:
        """Ends of s: every entry's alpha and X sum up to the same."""
        low, high = (
            np.maximum(self._rest[side] + self._alpha[side], self._floor[side]) for side in (0, 1)
        )
        shortest = np.maximum(below(np.sqrt(np.maximum(below(low), 0.0))), 0.0)
        longest = above(np.sqrt(above(high)))
        return shortest.max(axis=-1, keepdims=True), longest.min(axis=-1, keepdims=True)

    def smooth(self) -> tuple[Squares, Squares]:
        """(2), of all points of the box with f <= X + alpha."""
        low, high = self.values()
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = [1.0 / (self._function.divisor * s[..., None]) for s in self.lengths()]
            # Beyond the rounding of four operations, and what products lose to underflow.
            pad = 2.0**-1000 * (1 + inverse[0])
            ends = [
                -one[..., :, None] * other[..., None, :] * scale
                for one in (low, high)
                for other in (low, high)
                for scale in inverse
            ]
            limit = upper_of(0.5 * inverse[0] * self._function.divisor)
            least = np.maximum(lower_of(np.minimum.reduce(ends)) - pad, -limit)
            most = np.minimum(upper_of(np.maximum.reduce(ends)) + pad, limit)
        return with_diagonal(least, self._own()[0]), with_diagonal(most, self._own()[1])

    def _own(self) -> tuple[Rows, Rows]:
        """Ends of X / Y^(3/2)."""
        (shallow, deep), (least, most) = self._alpha, self._rest
        floor = self._floor
        top = np.clip(np.maximum(2 * shallow, floor[0] - shallow), least, most)
        high = upper_of(_slope(top, shallow, floor[0], np.inf), 2.0**-49)
        ends = [_slope(x, deep, floor[1], 0.0) for x in (least, most)]
        return np.maximum(lower_of(np.minimum(*ends), 2.0**-49), 0.0), high

    def _length_squares(self) -> tuple[Rows, Rows]:
        """Ends of |v|^2, for floors, where X + alpha is that."""
        return tuple(
            pick(self._rest[side] + self._alpha[side], axis=-1)[..., None, None]
            for side, pick in enumerate((np.max, np.min))
        )

    def is_within_floor(self) -> np.ndarray:
        """Groups all of whose points have |v| <= eps."""
        return above(self._length_squares()[1]) <= self._floor[0]

    def is_beyond_floor(self) -> np.ndarray:
        """Groups all of whose points have eps <= |v|."""
        return self._floor[1] <= below(self._length_squares()[0])


def _slope(x: Rows, alpha: Rows, floor: float, unknown: float) -> Rows:
    """X / Y^(3/2) in plain float64; another number where Y is too small for that."""
    squares = np.maximum(x + alpha, floor)
    safe = np.maximum(squares, _SMALL)
    return np.where(_SMALL < squares, x / (safe * np.sqrt(safe)), unknown)


def _without_own(squares: Rows) -> Rows:
    """Sums over all other entries: of those before, and those after."""
    before, after = np.zeros_like(squares), np.zeros_like(squares)
    before[..., 1:] = np.cumsum(squares[..., :-1], axis=-1)
    after[..., :-1] = np.cumsum(squares[..., :0:-1], axis=-1)[..., ::-1]
    return before + after


def _root_down(value: float) -> float:
    return float(np.nextafter(np.sqrt(value), 0.0))
