"""Cells: what the increments are where some gates are on known sides of their kinks.

With sigma_j = +-1 for a gate on a known side and 0 for an open one, psi_j = sigma_j v_j on the
former, so that over xi = (dx, psi of open gates)

    (I - diag(sigma) V_psi) psi = diag(sigma) V_dx dx + psi_open,                        (1)

triangular with unit diagonal: psis come in topological order. V and Y follow. A gate that no open
psi enters is an affine function of x in the cell: its row of V is the gradient, and

    z_j(x) = z_j(c) + V_j (x - c)                                                        (2)

with z_j(c) that of the network whose gates are linear, continued to the center c.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from verifier.methods.branch.question import Gate, Question
from verifier.network.nodes import Affine, Elementwise

_NONE = 1e-11  #: an entry of a row of V that is only rounding, against the row's largest


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Open:
    """The open psis of every cell, first those that there are, then others as padding."""

    index: Int64[Tensor, "cells open"]
    real: Bool[Tensor, "cells open"]

    @staticmethod
    def of(sides: Float64[Tensor, "cells psis"]) -> Open:
        """Of the sides: -1 below, +1 above, 0 open."""
        is_open = sides == 0
        count = int(is_open.sum(dim=1).max()) if len(sides) else 0
        order = torch.argsort((~is_open).byte(), dim=1, stable=True)[:, :count]
        return Open(index=order, real=is_open.gather(1, order))

    def taken(self, rows: Float64[Tensor, "cells psis n"]) -> Float64[Tensor, "cells open n"]:
        """The open psis' rows, 0 for padding."""
        index = self.index[:, :, None].expand(-1, -1, rows.shape[2])
        return torch.where(self.real[:, :, None], rows.gather(1, index), 0.0)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Increments:
    """V and Y of every cell over (dx, open psis)."""

    opened: Open
    inflow: Float64[Tensor, "cells psis xi"]
    outflow: Float64[Tensor, "cells outputs xi"]


def increments(
    inflow: Float64[Tensor, "psis xi"],
    outflow: Float64[Tensor, "cells outputs xi"],
    sigma: Float64[Tensor, "cells psis"],
) -> Increments:
    """(1): the matrices of every cell, its columns dx and then its open psis."""
    psis = inflow.shape[0]
    inputs = inflow.shape[1] - psis
    opened = Open.of(sigma)
    direct, spread = inflow[:, :inputs], inflow[:, inputs:]
    unit = torch.zeros(len(sigma), psis, opened.index.shape[1], dtype=torch.float64)
    unit.scatter_(1, opened.index[:, None, :], opened.real[:, None, :].double())
    known = torch.cat([sigma[:, :, None] * direct, unit], dim=2)
    system = torch.eye(psis, dtype=torch.float64) - sigma[:, :, None] * spread
    psi = torch.linalg.solve_triangular(system, known, upper=False, unitriangular=True)
    pad = (0, opened.index.shape[1])
    first = torch.nn.functional.pad(direct, pad)
    above = torch.nn.functional.pad(outflow[:, :, :inputs], pad)
    return Increments(
        opened=opened,
        inflow=first + spread @ psi,
        outflow=above + outflow[:, :, inputs:] @ psi,
    )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Planes:
    """(2) in coordinates |u| <= 1 of the box around the region: z - kink = offset + gradient u."""

    gradient: Float64[Tensor, "cells psis inputs"]
    offset: Float64[Tensor, "cells psis"]
    exact: Bool[Tensor, "cells psis"]


def planes(question: Question, sides: Float64[Tensor, "cells psis"]) -> Planes:
    """Where the kinks lie in every cell."""
    kinks, domain = question.kinks, question.domain
    size = question.network.input_size
    nothing = question.planes.new_zeros(len(sides), 0, question.planes.shape[1])
    found = increments(question.planes, nothing, sides * kinks.turn).inflow
    scale = found.abs().amax(dim=2, keepdim=True)
    reached = (_NONE * scale < found[:, :, size:].abs()).any(dim=2)
    at_center = pattern_values(question, sides)
    return Planes(
        gradient=found[:, :, :size] * domain.reach,
        offset=torch.where(kinks.known, at_center - kinks.place, 0.0),
        exact=~reached & kinks.known,
    )


def pattern_values(
    question: Question, sides: Float64[Tensor, "cells psis"]
) -> Float64[Tensor, "cells psis"]:
    """What enters every psi's gate at the center if gates of known sides are linear."""
    cells = len(sides)
    signals = {"": question.domain.center.expand(cells, -1)}
    gates = {gate.node.name: gate for gate in question.gates}
    entering = [sides[:, :0]]
    for node in question.lowered.nodes:
        match node:
            case Affine():
                parts = [term.map.apply(signals[term.source]) for term in node.terms]
                signals[node.name] = sum(parts, node.bias.expand(cells, -1))
            case Elementwise():
                gate, z = gates[node.name], signals[node.source]
                entering.append(z[:, gate.entries])
                signals[node.name] = _continued(gate, z, sides[:, gate.psis])
            case _:
                raise TypeError(f"node {node.name!r} is not lowered")
    return torch.cat(entering, dim=1)


def _continued(
    gate: Gate, z: Float64[Tensor, "cells n"], sides: Float64[Tensor, "cells psis"]
) -> Float64[Tensor, "cells n"]:
    """The gate's values, continued linearly from where they are known to be linear."""
    forward = gate.node.function.forward
    value = torch.where(gate.slope.isnan(), forward(z), gate.slope * z + gate.offset)
    if gate.function is None or not len(gate.entries):
        return value
    kink = gate.function.breaks[0]
    at_kink = forward(torch.full_like(gate.slope, kink))
    left, right = (
        (torch.zeros_like(gate.slope) + slope)[gate.entries] for slope in gate.function.slopes
    )
    known = torch.where(0 < sides, right, left)
    straight = at_kink[gate.entries] + known * (z[:, gate.entries] - kink)
    value[:, gate.entries] = torch.where(sides == 0, value[:, gate.entries], straight)
    return value


def sides_of(
    question: Question, points: Float64[Tensor, "points inputs"]
) -> Float64[Tensor, "points psis"]:
    """On which side of every kink the points lie; 0 where a gate has none."""
    signals = question.lowered.signals(points)
    entering = [signals[gate.node.source][:, gate.entries] for gate in question.gates]
    z = torch.cat([points[:, :0], *entering], dim=1)
    side = torch.where(question.kinks.place <= z, 1.0, -1.0).double()
    return torch.where(question.kinks.known, side, 0.0)
