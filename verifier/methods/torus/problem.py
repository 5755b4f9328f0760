"""The bound as a function of all scales.

A scale is exp(theta) times the mean over frequencies of its K_ii, so that a change of one layer's
scales does not take those of later layers out of D > K.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.methods.torus.bounds import Measure
from verifier.methods.torus.descent import Point
from verifier.methods.torus.leaving import Infeasible
from verifier.methods.torus.plan import Gate
from verifier.methods.torus.recursion import Pass, Policy
from verifier.methods.torus.starts import mean_diagonal, shared


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """A policy, and the scales that it chose, by key of the gate."""

    policy: Policy
    scales: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    relative: dict[str, Tensor] = field(default_factory=dict[str, Tensor])  #: theta

    def __call__(self, gate: Gate, own: Tensor, weights: Tensor) -> Float64[Tensor, " entries"]:
        """What the policy says."""
        chosen = self.policy(gate, own, weights)
        self.scales[gate.key] = chosen.detach()
        self.relative[gate.key] = (chosen / _anchor(gate, own, weights)).log().detach()
        return chosen


def _anchor(gate: Gate, own: Tensor, weights: Tensor) -> Tensor:
    mean = shared(gate, mean_diagonal(own, weights))
    return mean.clamp(min=torch.finfo(mean.dtype).tiny ** 0.5)


def fixed(scales: Mapping[str, Tensor]) -> Policy:
    """The policy of given scales."""
    return lambda gate, own, weights: scales[gate.key].to(weights)


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """The bound as a function of theta."""

    run: Pass
    measure: Measure

    @property
    def gates(self) -> tuple[Gate, ...]:
        """In the order of theta's parts."""
        return self.run.plan.gates

    def packed(self, relative: Mapping[str, Tensor]) -> Tensor:
        """Theta as one vector: one entry for each scale."""
        parts = [relative[gate.key][_first_of_owner(gate)] for gate in self.gates]
        return torch.cat(parts).to(torch.float64)

    def policy(self, theta: Tensor) -> Policy:
        """Scales by theta."""
        parts: dict[str, Tensor] = {}
        first = 0
        for gate in self.gates:
            owners, place = gate.owner.unique(return_inverse=True)
            part = theta[first : first + len(owners)]
            parts[gate.key] = part[place]
            first += len(owners)

        def scales(gate: Gate, own: Tensor, weights: Tensor) -> Tensor:
            return parts[gate.key].to(weights.dtype).exp() * _anchor(gate, own, weights)

        return scales

    @property
    def count(self) -> int:
        """The number of scales."""
        return sum(len(gate.owner.unique()) for gate in self.gates)

    def evaluate(self, theta: Tensor, share: float = 0.0) -> Point | None:
        """The objective with a share of the barriers; None where some scale is too small."""
        curvatures: dict[str, Tensor] = {}
        variable = theta.detach().clone().requires_grad_()
        try:
            covariance, barrier = self.run.run_within(self.policy(variable), curvatures)
        except Infeasible:
            return None
        objective = self.measure.objective(covariance)
        value = objective + share * barrier
        if not value.isfinite():
            return None
        (gradient,) = torch.autograd.grad(value, variable)
        return Point(
            place=variable.detach(),
            value=float(value.detach()),
            objective=float(objective.detach()),
            gradient=gradient,
            curvature=[_by_scale(gate, curvatures[gate.key]).double() for gate in self.gates],
        )


def _by_scale(gate: Gate, block: Tensor) -> Tensor:
    """The block of scales, from that of entries."""
    owners, place = gate.owner.unique(return_inverse=True)
    if len(owners) == len(place):
        return block
    count = len(owners)
    rows = block.new_zeros(count, len(place)).index_add_(0, place, block)
    return block.new_zeros(count, count).index_add_(1, place, rows)


def _first_of_owner(gate: Gate) -> Tensor:
    """The first entry of every scale, in the order of scales."""
    owners, place = gate.owner.unique(return_inverse=True)
    first = torch.full((len(owners),), len(place))
    return first.scatter_reduce(0, place, torch.arange(len(place)), "amin")
