"""Strictly feasible multipliers from anything: what a solver prints is not yet a bound.

T(s, g, e) is linear and its feasible set a cone, so a point p may be blended with the strictly
feasible start p0,

    p + m p0,    m = 0, 1e-12, ..., 1,                                                     (1)

until T's part of the psis is positive definite with a margin; then the least level is an
eigenvalue, and it is raised a little more than the margin. The matrices of the certificate and of
T, scaled by D and N, are I - K'K and I - KK' for one K: a margin of c in the one is a margin of c
in the other.

How much is needed? What a test of the certificate's matrix loses to rounding (`rounding`). The
problem has a `MARGIN` of it already; `EXTRA_MARGINS` are tried, and with them more is spent on
what has no influence. Where the outputs themselves are hardly more than rounding, the bound has to
grow: an inequality that holds does so with all multipliers larger.
"""

from __future__ import annotations

import torch

from verifier.methods.lipsdp.inequality import Inequality, Point, least_level, ones

SLACK = 1e-9  #: the share by which levels are raised in any case
EXTRA_MARGINS = (6e-9, 2e-8, 6e-8, 2e-7, 6e-7, 2e-6, 6e-6, 2e-5, 2e-4, 2e-3, 2e-2)
GREATEST_GROWTH = 512  #: of all multipliers, as a power of two


def repaired(problem: Inequality, point: Point, margin: float) -> Point:
    """A point near this one at which T less `margin` of its diagonal is positive definite.

    Where the start itself has no such margin, a smaller one does.

    Args:
        problem: T(s, 1, 1) is positive definite for a large s.
        point: from any solver; entries that are not positive count as very small.
        margin: 0, or one of `EXTRA_MARGINS`.
    """
    start = ones(problem)
    clipped = _clipped(point)
    for blend in (0.0, *(10.0**power for power in range(-12, 1))):
        mixed = _levelled(problem, clipped + start * blend, margin)
        if mixed is not None:
            return mixed
    alone = _levelled(problem, start, margin)
    if alone is not None:
        return alone
    if margin < SLACK:
        raise ValueError("the start is not strictly feasible")
    return repaired(problem, point, margin / 10)


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
    bare = point.at_level(torch.zeros_like(point.level))
    slack = problem.slack(bare)
    slack.diagonal().sub_(margin * problem.diagonal(bare))
    level = least_level(slack, outputs)
    if not bool(level.isfinite()):
        return None
    level = level * (1 + SLACK + 2 * margin)
    lifted = point.at_level(level)
    slack.diagonal()[:outputs].add_((1 - margin) * level)
    if torch.linalg.cholesky_ex(slack.mT)[1]:
        return None
    return problem.balanced(lifted)
