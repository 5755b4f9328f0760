"""Cells: what the increments are where some gates are on known sides of their kinks.

With sigma_j for a gate of which one piece is left and 0 for an open one, psi_j = sigma_j v_j on
the former, so that over xi = (dx, psi of open gates)

    (I - diag(sigma) V_psi) psi = diag(sigma) V_dx dx + psi_open,                        (1)

triangular with unit diagonal: psis come in topological order. V and Y follow.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from verifier.methods.branch.question import Question


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Open:
    """The open psis of every cell, first those that there are, then others as padding."""

    index: Int64[Tensor, "cells open"]
    real: Bool[Tensor, "cells open"]

    @staticmethod
    def of(sigma: Float64[Tensor, "cells psis"]) -> Open:
        """Of what psis are of their v; 0: open."""
        is_open = sigma == 0
        count = int(is_open.sum(dim=1).max()) if len(sigma) else 0
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


def sides_of(
    question: Question, points: Float64[Tensor, "points inputs"]
) -> Float64[Tensor, "points columns"]:
    """On which side of every kink the points lie; 0 where a gate has none."""
    signals = question.lowered.signals(points)
    entering = [signals[gate.node.source][:, gate.entries] for gate in question.gates]
    z = torch.cat([points[:, :0], *entering], dim=1)[:, question.kinks.psi]
    side = torch.where(question.kinks.place <= z, 1.0, -1.0).double()
    return torch.where(question.kinks.known, side, 0.0)
