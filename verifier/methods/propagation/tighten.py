"""Lines tilted by gradient steps, so that the gates' slope ranges shrink where it matters.

Below a kink, and around a point of inflection, there are many valid lines. One choice of slopes
for each gate decides the bounds [l, u] of everything after it, hence the ranges [a, b] of later
gates, hence the bound B of the Jacobian. A step follows the gradient of

    sum over gates of  dB/da a(l, u) + dB/db b(l, u),                                     (1)

through the propagation of lines. Where the activation is piecewise linear, a and b are steps of l
and u; in (1) they are the slopes of secants as wide as [l, u] around its ends, which change as
soon as the nearer end comes closer to the kink. The best lines are those of the least B met.

Lines that touch the function at both ends are chords, than which none is better, and stay chords.
The planes around a product are tilted alike: each is a mean of two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from verifier.methods.clock import Clock
from verifier.methods.domain import Domain
from verifier.methods.propagation.forward import Forward, gate_slopes
from verifier.methods.propagation.intervals import Interval
from verifier.methods.propagation.planes import Planes
from verifier.network.activations.piecewise import PiecewiseLinear
from verifier.network.graph import Network
from verifier.network.nodes import Elementwise, Product
from verifier.network.tangent import left_gate, right_gate

#: Slopes of lines (below, above) by gate.
Slopes: TypeAlias = dict[str, tuple[Tensor, Tensor]]

_RATE = 0.05  #: of a slope's range, a step


def tightened_lines(
    lowered: Network,
    domain: Domain,
    bound: Callable[[Mapping[str, Interval]], Float64[Tensor, ""]],
    steps: int,
    clock: Clock,
) -> Slopes:
    """Slopes of lines with the least bound of those that were tried; the activations' own first.

    Args:
        lowered: without groups.
        domain: where the lines hold.
        bound: B, of the ranges of all gates' slopes; differentiable.
        steps: the most that are tried.
        clock: ends it early.
    """
    shares: Slopes = {}
    least, best = torch.inf, Slopes()
    for _ in range(steps + 1):
        forward = _Tilted(lowered, domain, shares)
        entering = forward.bounds()
        sensitivity = _sensitivity(bound, gate_slopes(lowered, entering))
        if sensitivity.bound < least:
            least, best = sensitivity.bound, forward.slopes()
        objective = sum(
            (ends * sensitivity.of[gate]).sum()
            for gate, ends in _smooth_ranges(lowered, entering).items()
        )
        if not isinstance(objective, Tensor) or not objective.requires_grad or clock.has_expired:
            break
        leaves = [share for pair in shares.values() for share in pair]
        downhill = torch.autograd.grad(objective, leaves, materialize_grads=True)
        for share, slope in zip(leaves, downhill, strict=True):
            # By sign: the gradients of early and late gates differ by orders of magnitude.
            share.data = (share.data - _RATE * slope.sign()).clamp(0, 1)
    return best


@dataclass(frozen=True, slots=True, eq=False)
class _Sensitivity:
    """B, and (dB/da, dB/db) of every gate."""

    bound: float
    of: dict[str, Float64[Tensor, "2 n"]]


def _sensitivity(
    bound: Callable[[Mapping[str, Interval]], Float64[Tensor, ""]], ranges: Mapping[str, Interval]
) -> _Sensitivity:
    ends = {gate: torch.stack(pair).detach().requires_grad_(True) for gate, pair in ranges.items()}
    value = bound({gate: (pair[0], pair[1]) for gate, pair in ends.items()})
    if not value.requires_grad:
        return _Sensitivity(float(value), {gate: torch.zeros_like(e) for gate, e in ends.items()})
    by_ends = torch.autograd.grad(value, list(ends.values()), materialize_grads=True)
    return _Sensitivity(float(value.detach()), dict(zip(ends, by_ends, strict=True)))


def _smooth_ranges(
    lowered: Network, entering: Mapping[str, Interval]
) -> dict[str, Float64[Tensor, "2 n"]]:
    """(a, b) of every gate of the tangent as functions with a gradient."""
    ranges: dict[str, Tensor] = {}
    for node in lowered.nodes:
        match node:
            case Elementwise():
                ranges[node.gate] = _smooth_range(node, *entering[node.gate])
            case Product():
                left, right = left_gate(node.name), right_gate(node.name)
                ranges[left] = torch.stack(entering[right])
                ranges[right] = torch.stack(entering[left])
            case _:
                pass
    return ranges


def _smooth_range(
    node: Elementwise, lower: Float64[Tensor, " n"], upper: Float64[Tensor, " n"]
) -> Float64[Tensor, "2 n"]:
    """(a, b) as functions of (l, u) with a gradient."""
    if not isinstance(node.function, PiecewiseLinear):
        return torch.stack(node.function.slope_range_on(lower, upper))
    half = ((upper - lower) / 2).detach().clamp(min=1e-12)
    left, right = (
        (node.function.forward(end + half) - node.function.forward(end - half)) / (2 * half)
        for end in (lower, upper)
    )
    return torch.stack((torch.minimum(left, right), torch.maximum(left, right)))


class _Tilted(Forward):
    """A pass whose slopes are shares of the way from the least to the greatest slope."""

    def __init__(self, lowered: Network, domain: Domain, shares: Slopes) -> None:
        super().__init__(lowered, domain, "linear", {})
        self._shares = shares

    def slopes(self) -> Slopes:
        """The slopes of all lines of the pass."""
        return {
            name: (each.below.detach(), each.above.detach())
            for name, each in (self.relaxations | self.planes).items()
        }

    def chosen_planes(self, node: Product, left: Interval, right: Interval) -> Planes:
        """The means by the shares, at first halfway."""
        if node.name not in self._shares:
            half = torch.full_like(left[0].detach(), 0.5)
            self._shares[node.name] = (
                half.clone().requires_grad_(True),
                half.clone().requires_grad_(True),
            )
        low, high = (share.clamp(0, 1) for share in self._shares[node.name])
        return Planes.of_shares(left, right, low, high)

    def chosen(
        self, node: Elementwise, lower: Float64[Tensor, " n"], upper: Float64[Tensor, " n"]
    ) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]:
        """The chords, the slopes of linear neurons, and elsewhere the shares' slopes.

        Shares start where the activation's own lines are.
        """
        ends = lower.detach(), upper.detach()
        own = node.function.relaxation(*ends)
        least, greatest = node.function.slope_range_on(*ends)
        width = torch.where(least < greatest, greatest - least, 1.0)
        if node.gate not in self._shares:
            below, above = (
                ((slope - least) / width).clamp(0, 1).requires_grad_(True)
                for slope in (own[0], own[2])
            )
            self._shares[node.gate] = below, above
        chord = _chord(node, lower, upper)
        below, above = (
            torch.where(
                least < greatest,
                torch.where(fixed, chord, least + width * share.clamp(0, 1)),
                least,
            )
            for share, fixed in zip(
                self._shares[node.gate],
                (_touches(node, *ends, *own[:2]), _touches(node, *ends, *own[2:])),
                strict=True,
            )
        )
        return below, above


def _chord(
    node: Elementwise, lower: Float64[Tensor, " n"], upper: Float64[Tensor, " n"]
) -> Float64[Tensor, " n"]:
    run = torch.where(lower < upper, upper - lower, 1.0)
    return (node.function.forward(upper) - node.function.forward(lower)) / run


def _touches(
    node: Elementwise,
    lower: Float64[Tensor, " n"],
    upper: Float64[Tensor, " n"],
    slope: Float64[Tensor, " n"],
    offset: Float64[Tensor, " n"],
) -> Bool[Tensor, " n"]:
    """Whether a line meets the function at both ends."""
    near = 1e-9 * (1 + lower.abs() + upper.abs())
    gaps = [(slope * end + offset - node.function.forward(end)).abs() for end in (lower, upper)]
    return (gaps[0] < near) & (gaps[1] < near)
