"""Products s g of the Jacobian where the slope s follows what enters its gate: s near p z.

With s_m, g_m the middles of the ranges of s and g, r and h their half widths,

    s g = s_m g + g_m s - s_m g_m + (s - s_m)(g - g_m),    |last| <= r h,                    (1)

and with lo <= s - p z <= hi a function of g takes g_m p z along, which lines carry back through
the network to its input. On [l, u], p is the chord of the slope, and (lo, hi) what its ranges on
cells of the interval leave. Where the gate bends much, chords of s g alone are nearer than (1).

Source: Shi et al. 2022 (arXiv 2210.07394) for slopes that follow their gates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.methods.propagation.forward import Forward, Interval
from verifier.network.activations.piecewise import PiecewiseLinear
from verifier.network.graph import Network
from verifier.network.nodes import Elementwise, Product
from verifier.network.tangent import left_gate, right_gate

CELLS = 256


@dataclass(frozen=True, slots=True, eq=False)
class SlopeLines:
    """Lo <= s - tilt z <= hi for every Clarke slope s at z."""

    tilt: Float64[Tensor, " n"]
    low: Float64[Tensor, " n"]
    high: Float64[Tensor, " n"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Along:
    """How slopes follow what enters their gates, and the pass that bounds that."""

    slopes: Mapping[str, SlopeLines]  #: by gate
    signals: Mapping[str, str]  #: what enters each gate
    forward: Forward


def along(lowered: Network, forward: Forward, entering: Mapping[str, Interval]) -> Along:
    """The lines of all slopes over the region."""
    slopes: dict[str, SlopeLines] = {}
    signals: dict[str, str] = {}
    for node in lowered.nodes:
        match node:
            case Elementwise():
                slopes[node.gate] = _slope_lines(node, *entering[node.gate])
                signals[node.gate] = node.source
            case Product():
                # What multiplies one factor's increment is the other factor itself.
                left, right = left_gate(node.name), right_gate(node.name)
                signals |= {left: node.right, right: node.left}
                zero = torch.zeros(node.size, dtype=torch.float64)
                slopes |= dict.fromkeys((left, right), SlopeLines(zero + 1, zero, zero))
            case _:
                pass
    return Along(slopes=slopes, signals=signals, forward=forward)


def bends(lowered: Network) -> bool:
    """Whether some slope changes with the input, other than at kinks."""
    return any(
        isinstance(node, Product)
        or (isinstance(node, Elementwise) and not isinstance(node.function, PiecewiseLinear))
        for node in lowered.nodes
    )


def _slope_lines(
    node: Elementwise, lower: Float64[Tensor, " n"], upper: Float64[Tensor, " n"]
) -> SlopeLines:
    share = torch.linspace(0.0, 1.0, CELLS + 1, dtype=torch.float64)[:, None]
    marks = lower + (upper - lower) * share
    ends = [
        torch.stack(node.function.slope_range_on(end, end)).mean(dim=0) for end in marks[[0, -1]]
    ]
    width = torch.where(lower < upper, upper - lower, 1.0)
    tilt = torch.where(lower < upper, (ends[1] - ends[0]) / width, 0.0)
    least, greatest = node.function.slope_range_on(marks[:-1], marks[1:])
    lines = tilt * marks[:-1], tilt * marks[1:]
    return SlopeLines(
        tilt=tilt,
        low=(least - torch.maximum(*lines)).amin(dim=0),
        high=(greatest - torch.minimum(*lines)).amax(dim=0),
    )
