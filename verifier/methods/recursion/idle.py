"""Scales that no search need move: of gates that nothing varying enters or no output feels.

The first add noise and nothing else, so theirs are as small as rounding allows; the second cost
the others something, and theirs are large. So are to be those that the outputs hardly feel: with
D's gradient `felt` - `drawn`, where `drawn` falls like 1/(D - K)^2, they belong where both agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from verifier.methods.recursion.frontier import backward, forward
from verifier.methods.recursion.plan import Step, gated

_RAISED = 2.0**20  #: the greatest factor of scales
_UNEVEN = 4.0  #: quotients of `drawn` and `felt` up to this are let be


@dataclass(frozen=True, slots=True, eq=False)
class Settled:
    """Feasible scales, and which multipliers are to stay."""

    scales: tuple[Float64[Tensor, " _"], ...]
    is_fixed: Bool[Tensor, " multipliers"]


def settled(
    steps: Sequence[Step],
    start: Float64[Tensor, "inputs inputs"],
    scales: Sequence[Float64[Tensor, " _"]],
    rows: Float64[Tensor, "selected outputs"],
) -> Settled:
    """The scales with those that idle at their places.

    Args:
        steps: of the network.
        start: the inputs' covariance.
        scales: feasible.
        rows: the outputs that count.
    """
    run = forward(steps, start, scales, keeps=True)
    if run is None:
        raise ValueError("the scales are not feasible")
    gradients, _ = backward(steps, run, rows.T @ rows)
    passed = [left for left in run.passed if left is not None]
    found, fixed = list[Tensor](), list[Tensor]()
    for step, left, each in zip(gated(steps), passed, gradients, strict=True):
        gate = step.gated
        felt, drawn = gate.pooled(each.felt), gate.pooled(each.drawn)
        ratio = torch.where(felt == 0, torch.inf, drawn / felt.clamp(min=1e-300))
        raised = (ratio / _UNEVEN).sqrt().clamp(1.0, _RAISED)
        found.append(left.noise * gate.per_psi(raised))
        fixed.append((felt == 0) | (gate.pooled(left.entering) == 0))
    is_fixed = torch.cat([torch.zeros(0, dtype=torch.bool), *fixed])
    if forward(steps, start, found) is None:
        return Settled(tuple(scales), is_fixed)
    return Settled(tuple(found), is_fixed)
