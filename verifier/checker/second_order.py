"""Blocks over a box to second order: what is left of a value beside its tangent at the centre c.

By Taylor and Lagrange, one output at a time, for x = c + e in the box there is a point on the way
with

    f_i(x) - f_i(c) - f_i'(c) e = (1/2) e'f_i''e.                                           (1)

softmax         e'p_i''e = p_i ((e_i - m)^2 - V),  m = p.e,  V = sum_j p_j (e_j - m)^2
its logarithm   e'(log p_i)''e = -V
normalised      z = v/s, s^2 = |v|^2/d + eps, with a = z.e/d and b = |e|^2/d:

    e'z_i''e = -(2 e_i a + z_i (b - 3 a^2)) / s^2.                                          (2)

Proof of (2): along the line s' = a, z' = (e - a z)/s, a' = (b - a^2)/s, and once more.

With |e_j| <= r_j: V is at most sum_j p_j r_j^2, and (e_i - m)^2 at most the square of
(1 - p_i)(r_i + max_(j != i) r_j), for e_i - m = sum_(j != i) p_j (e_i - e_j). In (2), with
|e|^2 <= E2, b is at most B = E2/d, and a^2 at most b and A^2, where A d is |w.e|, w near z(c), and
|(z - w).e|, z - z(c) no longer than |e|/s; so b - 3 a^2 lies in [-2 A^2, B]. And s^2 - eps is at
least (w.v)^2/(d |w|^2). With rho = 1/s a tangent leaves, for rho' = -a/s^2,

    e'rho''e = (3 a^2 - b)/s^3.                                                             (3)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from verifier.checker.arithmetic import above, enlarged
from verifier.checker.enclosures import lower_of, upper_of
from verifier.checker.normalise import Normalise
from verifier.checker.softmax import LogSoftmax, Softmax
from verifier.norms import Norm

if TYPE_CHECKING:
    from jaxtyping import Float64

    from verifier.checker.network import BlockFunction
    from verifier.checker.surroundings import Steps

    Rows: TypeAlias = Float64[np.ndarray, "groups n"]
    Column: TypeAlias = Float64[np.ndarray, "groups 1"]
    Ends: TypeAlias = tuple[Rows, Rows]

_ROOM = 2.0**-45  #: beyond the rounding of at most twenty operations


def has_remainder(function: BlockFunction) -> bool:
    """Whether (1) is known of the function."""
    is_root = isinstance(function, Normalise) and function.form == "root"
    return is_root or isinstance(function, Softmax | LogSoftmax)


def remainder(function: BlockFunction, box: Ends, steps: Steps) -> Ends:
    """Ends of (1) over a box.

    Args:
        function: one that `has_remainder`.
        box: lower and upper ends.
        steps: what is known of e.
    """
    reach = steps.reach
    match function:
        case Softmax():
            return _of_shares(function.image(*box), reach)
        case LogSoftmax():
            spread = _variance(Softmax().image(*box)[1], reach)
            return np.broadcast_to(-0.5 * spread, reach.shape), np.zeros_like(reach)
        case Normalise():
            return _of_normalised(function, box, steps)
        case _:
            raise TypeError(f"nothing of second order is known of {function!r}")


def _of_shares(shares: Ends, reach: Rows) -> Ends:
    low, high = shares
    others = np.minimum(above(1.0 - low), 1.0)
    apart = upper_of(others * (reach + _greatest_other(reach)))
    return (
        lower_of(-0.5 * high * _variance(high, reach), _ROOM),
        upper_of(0.5 * high * apart * apart, _ROOM),
    )


def _variance(shares: Rows, reach: Rows) -> Float64[np.ndarray, "groups 1"]:
    """A number that V does not exceed; the shares add up to 1."""
    squares = upper_of(reach * reach)
    mean = enlarged((shares * squares).sum(axis=-1, keepdims=True), reach.shape[-1])
    return np.minimum(mean, squares.max(axis=-1, keepdims=True))


def _greatest_other(reach: Rows) -> Rows:
    """The greatest reach of the group's other entries; 0 where there is none."""
    ordered = np.sort(reach, axis=-1)
    second = ordered[..., -2:-1] if 1 < reach.shape[-1] else np.zeros_like(reach)
    first = ordered[..., -1:]
    return np.where(reach < first, first, second)


def _of_normalised(function: Normalise, box: Ends, steps: Steps) -> Ends:
    """(2), without the division by s^2 first."""
    low, high = function.image(*box)
    a, b, inverse = _changes(function, box, steps)
    own = 2 * steps.reach * a
    ends = [z * q for z in (low, high) for q in (2 * a * a, -b)]
    half = upper_of(0.5 * inverse * inverse)
    least = lower_of(half * lower_of(np.minimum.reduce(ends) - own, _ROOM), _ROOM)
    most = upper_of(half * upper_of(np.maximum.reduce(ends) + own, _ROOM), _ROOM)
    return least, most


def inverse_remainder(function: Normalise, box: Ends, steps: Steps) -> tuple[Column, Column]:
    """Ends of half of (3)."""
    a, b, inverse = _changes(function, box, steps)
    half = 0.5 * inverse * inverse * inverse
    return lower_of(-half * b, _ROOM), upper_of(half * (2 * a * a), _ROOM)


def _changes(function: Normalise, box: Ends, steps: Steps) -> tuple[Column, Column, Column]:
    """Numbers that |a|, b and 1/s do not exceed."""
    low, high = function.image(*box)
    w, along, blur = steps.towards, steps.along, steps.blur
    inverse, divisor = _inverse_length(function, box, steps), function.divisor
    length = upper_of(np.sqrt(steps.square))
    away = upper_of(np.maximum(high - w, w - low)) * steps.reach
    away = enlarged(away.sum(axis=-1, keepdims=True), w.shape[-1])
    away = np.minimum(away, upper_of((length * inverse + blur) * length))
    b = upper_of(steps.square / divisor)
    return np.minimum(upper_of((along + away) / divisor), upper_of(np.sqrt(b))), b, inverse


def _inverse_length(
    function: Normalise, box: Ends, steps: Steps
) -> Float64[np.ndarray, "groups 1"]:
    """A number that 1/s does not exceed."""
    known = function.constant_on(Norm.L2, *box)
    w, least = steps.towards, steps.least
    size = enlarged((w * w).sum(axis=-1, keepdims=True), w.shape[-1]) * function.divisor
    with np.errstate(all="ignore"):
        squares = np.maximum(least, 0.0) ** 2 / size + function.epsilon
        found = upper_of(1.0 / np.sqrt(squares), _ROOM)
    return np.where(np.isfinite(found), np.minimum(found, known), known)
