"""The length of a vector: what l2 pooling, moduli of complex numbers and roots of squares are.

    f(v) = (|v|, 0, ..., 0),    |v|^2 = sum_j v_j^2 over the n entries of a group.

Where v is not 0, d|v|/dv_j = v_j/|v|, with v_j/|v| = v_j / sqrt(v_j^2 + R_j), R_j the squares of
the others: it grows with v_j and shrinks in magnitude with R_j, so its ends over a box are reached.
At 0 Clarke's gradients are the unit ball, and every coordinate lies in [-1, 1].

Constants: a gradient g has |g|_2 <= 1, so that | |v| - |w| | <= |v - w|_2, which neither |v - w|_1
nor sqrt(n) |v - w|_inf is below.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from verifier.checker.arithmetic import ONE, Magnitude, above, below, gamma, root_up
from verifier.checker.enclosures import TINY
from verifier.norms import Norm

if TYPE_CHECKING:
    from jaxtyping import Float64

    Rows: TypeAlias = Float64[np.ndarray, "*groups n"]
    Squares: TypeAlias = Float64[np.ndarray, "*groups n n"]

_SMALL, _LARGE = 2.0**-480, 2.0**480  #: squares of lengths beyond these are not looked at


@dataclass(frozen=True, slots=True)
class Length:
    """f of the module."""

    def constant(self, norm: Norm, width: int) -> Magnitude:
        """As the module says."""
        return Magnitude.of(root_up(float(width))) if norm is Norm.LINF else ONE

    def constant_on(
        self,
        norm: Norm,
        lower: Rows,
        upper: Rows,  # noqa: ARG002 (gradients are unit vectors on every box)
    ) -> Float64[np.ndarray, "*groups 1"]:
        """The constant: only the gradient's l1 norm could be less."""
        known = self.constant(norm, lower.shape[-1]).upper()
        return np.full((*lower.shape[:-1], 1), known)

    def image(self, lower: Rows, upper: Rows) -> tuple[Rows, Rows]:
        """The lengths of the nearest and of the farthest point of the box, first; zeros."""
        least, most = np.zeros(lower.shape), np.zeros(lower.shape)
        near, far = _ends(lower, upper)
        count = lower.shape[-1]
        least[..., 0] = _shrunk(np.sqrt(_squares(near).sum(axis=-1)), count)
        most[..., 0] = _grown(np.sqrt(_squares(far).sum(axis=-1)), count)
        return least, most

    def derivatives(self, lower: Rows, upper: Rows) -> tuple[Squares, Squares]:
        """v_j / |v| in the first row, at the ends of v_j and of the others' squares; zeros."""
        count = lower.shape[-1]
        near, far = _ends(lower, upper)
        rests = [_others(_squares(end)) for end in (near, far)]
        # A quotient grows with v_j; of a positive one the others have to be near, and so on.
        low = _quotient(lower, np.where(0 <= lower, rests[1], rests[0]))
        high = _quotient(upper, np.where(0 <= upper, rests[0], rests[1]))
        room = gamma(2 * count + 16)
        least, most = low - np.abs(low) * room - TINY, high + np.abs(high) * room + TINY
        # Where v may be next to 0, squares underflow, and any gradient is possible.
        unknown = np.max(near, axis=-1, keepdims=True) < _SMALL
        unknown = unknown | (_LARGE < np.max(far, axis=-1, keepdims=True))
        shape = (*lower.shape, count)
        first, last = np.zeros(shape), np.zeros(shape)
        first[..., 0, :] = np.where(unknown, -1.0, np.clip(least, -1.0, 1.0))
        last[..., 0, :] = np.where(unknown, 1.0, np.clip(most, -1.0, 1.0))
        return first, last


def _ends(lower: Rows, upper: Rows) -> tuple[Rows, Rows]:
    """Magnitudes of the entries nearest to 0, and of the farthest."""
    near = np.maximum(np.maximum(lower, -upper), 0.0)
    return near, np.maximum(np.abs(lower), np.abs(upper))


def _squares(size: Rows) -> Rows:
    with np.errstate(over="ignore"):
        return size * size


def _others(squares: Rows) -> Rows:
    """Sums over all other entries: of those before, and those after."""
    before, after = np.zeros_like(squares), np.zeros_like(squares)
    before[..., 1:] = np.cumsum(squares[..., :-1], axis=-1)
    after[..., :-1] = np.cumsum(squares[..., :0:-1], axis=-1)[..., ::-1]
    return before + after


def _quotient(v: Rows, rest: Rows) -> Rows:
    """v / sqrt(v^2 + R); 0 for what is no number, which is told apart elsewhere."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = v / np.sqrt(_squares(v) + rest)
    return np.where(np.isfinite(found), found, 0.0)


def _shrunk(length: np.ndarray, count: int) -> np.ndarray:
    """A number that the exact root does not exceed; infinite lengths say little."""
    finite = np.minimum(length, 2.0**500)
    return np.maximum(below(finite * (1 - gamma(count + 8))) - 2.0**-500, 0.0)


def _grown(length: np.ndarray, count: int) -> np.ndarray:
    """A number that is not below the exact root: squares may have vanished below 2^-537."""
    return above(length * (1 + gamma(count + 8))) + 2.0**-500


__all__ = ["Length"]
