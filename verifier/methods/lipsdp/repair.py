"""Strictly feasible multipliers from anything: what a solver prints is not yet a bound.

T(s, g, e) is linear and its feasible set a cone, so a point p may be blended with the strictly
feasible start p0,

    p + m p0,    m = 0, 1e-12, ..., 1,                                                     (1)

until T's part of the psis is positive definite; then the least level is an eigenvalue, and it is
raised by a share of 1e-9. Both matrices of the certificate and of T, scaled by their diagonals D
and N, are I - K'K and I - KK' for one K: a margin of c in the one is a margin of c in the other.
"""

from __future__ import annotations

import torch

from verifier.methods.lipsdp.inequality import Inequality, Point, least_level, ones

SLACK = 1e-9  #: the share that is added to the level
_UNIT_ROUNDOFF = 2.0**-53


def margin_for(order: int) -> float:
    """A share that covers rounding in a Cholesky test of a matrix of this order, four times."""
    return max(1e-12, 4 * _UNIT_ROUNDOFF * order * order)


def repaired(problem: Inequality, point: Point, margin: float) -> Point:
    """A point near this one at which T less `margin` of its diagonal is positive definite.

    Args:
        problem: T(s, 1, 1) is positive definite for a large s.
        point: from any solver; entries that are not positive count as very small.
        margin: at most about 1e-6.
    """
    start = ones(problem)
    clipped = _clipped(point)
    for blend in (0.0, *(10.0**power for power in range(-12, 1))):
        mixed = _levelled(problem, clipped + start * blend, margin)
        if mixed is not None:
            return mixed
    alone = _levelled(problem, start, margin)
    if alone is None:
        raise ValueError("the start is not strictly feasible")
    return alone


def _clipped(point: Point) -> Point:
    """Positive and finite; the start's entries are 1."""
    return Point(
        level=point.level,
        gates=point.gates.nan_to_num(1.0).clamp(1e-30, 1e30),
        inputs=point.inputs.nan_to_num(1.0).clamp(1e-30, 1e30),
    )


def _levelled(problem: Inequality, point: Point, margin: float) -> Point | None:
    """The point with the least level that T allows it, and a little more; None if none does."""
    outputs = problem.outputs
    bare = Point(level=point.level.new_zeros(()), gates=point.gates, inputs=point.inputs)
    slack = problem.slack(bare)
    diagonal = torch.cat([bare.level.expand(outputs), bare.gates[problem.owner]])
    shifted = slack.diagonal_scatter(slack.diagonal() - margin * diagonal)
    try:
        level = least_level(shifted, outputs) * (1 + SLACK + 2 * margin)
    except torch.linalg.LinAlgError:
        return None
    lifted = Point(level=level, gates=bare.gates, inputs=bare.inputs)
    diagonal = torch.cat([level.expand(outputs), bare.gates[problem.owner]])
    slack = problem.slack(lifted)
    test = slack.diagonal_scatter(slack.diagonal() - margin * diagonal)
    if torch.linalg.cholesky_ex(test)[1]:
        return None
    return problem.balanced(lifted)
