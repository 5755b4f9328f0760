"""The coordinates of one row's inequality, its outputs, and a point well inside of it.

    l2 inputs:    xi = (dx, psi), C = Y'Y, and the level rho is of dx. dx enters only through the
                  rows that read it: a basis of their span stands for it.
    linf inputs:  xi = (u, dx, psi), C = [[0, Y], [Y', 0]], the level s is of u (as many as there
                  are outputs), every dx_k has its tau, and s + sum tau is twice the bound. For one
                  output, u enters dx_k like v enters a gate: |dx_k| <= |u|.

All is scaled by the base's level and multipliers to 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from verifier.certificate import LmiRow
from verifier.methods.lipsdp import Form, forward_start

_SPAN = 1e-13  #: singular values below this share of the largest are rounding
_INSIDE = 1.3  #: levels of the interior point, in shares of the least
_FACTORS = tuple(2.0**power for power in range(-12, 13))


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Frame:
    """The base's inequality, scaled."""

    lead: int  #: the leading entries of xi, which the level is of
    inputs: Int64[Tensor, " inputs"]  #: those with a tau: the next entries of xi
    entering: Float64[Tensor, "kept xi"]
    constant: Float64[Tensor, "xi xi"]  #: C
    units: Float64[Tensor, " levels"]  #: the level and the tau that 1 stands for
    goal: Float64[Tensor, " levels"]

    def input_gates(self) -> tuple[Float64[Tensor, "gates xi"], Float64[Tensor, "gates xi"]]:
        """(v, psi) of the inputs as gates: sqrt(tau) u and dx; none but for linf and one output."""
        size = self.constant.shape[0]
        unit = torch.eye(size, dtype=torch.float64)
        if self.lead != 1 or not len(self.inputs):
            return unit[:0], unit[:0]
        entering = torch.zeros(len(self.inputs), size, dtype=torch.float64)
        entering[:, 0] = (self.units[1:] / self.units[0]).sqrt()
        return entering, unit[1 : 1 + len(self.inputs)]


def frame_of(
    form: Form,
    rows: Float64[Tensor, "selected outputs"],
    base: LmiRow,
    kept: Int64[Tensor, " kept"],
    roots: Float64[Tensor, " kept"],
) -> Frame:
    """The frame of a row.

    Args:
        form: of the network.
        rows: the outputs.
        base: the row.
        kept: the psis that the problem has.
        roots: of their multipliers.
    """
    drive, outflow = form.inflow[kept][:, : form.inputs], rows @ form.outflow
    spread = form.inflow[kept][:, form.inputs + kept] * roots[:, None] / roots
    onward = outflow[:, form.inputs + kept] / roots
    reading = torch.cat([drive * roots[:, None], outflow[:, : form.inputs]])
    if base.input_multipliers is None:
        head = reading @ _basis(reading) / math.sqrt(base.level)
        above = torch.cat([head[len(kept) :], onward], dim=1)
        return Frame(
            lead=head.shape[1],
            inputs=kept[:0],
            entering=torch.cat([head[: len(kept)], spread], dim=1),
            constant=above.T @ above,
            units=roots.new_tensor([base.level]),
            goal=roots.new_ones(1),
        )
    inputs = torch.nonzero((reading != 0).any(dim=0)).flatten()
    tau = torch.from_numpy(base.input_multipliers)[inputs]
    head = reading[:, inputs] / tau.sqrt()
    lead = len(rows)
    above = torch.cat([head[len(kept) :], onward], dim=1) / math.sqrt(base.level)
    size = lead + above.shape[1]
    constant = torch.zeros(size, size, dtype=torch.float64)
    constant[:lead, lead:] = above
    constant[lead:, :lead] = above.T
    units = torch.cat([roots.new_tensor([base.level]), tau])
    nothing = head.new_zeros(len(kept), lead)
    return Frame(
        lead=lead,
        inputs=inputs,
        entering=torch.cat([nothing, head[: len(kept)], spread], dim=1),
        constant=constant,
        units=units,
        goal=units / units.sum(),
    )


def _basis(reading: Float64[Tensor, "rows inputs"]) -> Float64[Tensor, "inputs rank"]:
    """Orthonormal columns that span the rows."""
    _, values, right = torch.linalg.svd(reading, full_matrices=False)
    largest = float(values[0]) if len(values) else 0.0
    return right[values > _SPAN * largest].T


def interior_of(
    frame: Frame, owner: Int64[Tensor, " kept"], node: Int64[Tensor, " kept"]
) -> tuple[Float64[Tensor, " levels"], Float64[Tensor, " kept"]] | None:
    """(level and tau, multipliers) of LipSDP's start, its factor the one with the least objective.

    None where no factor is feasible.

    Args:
        frame: of a row.
        owner: the multiplier of each psi.
        node: the node of each psi; both ascend.
    """
    front = frame.lead + len(frame.inputs)
    drive, spread = frame.entering[:, :front], frame.entering[:, front:]
    ends = torch.cumsum(torch.unique_consecutive(node, return_counts=True)[1], dim=0).tolist()
    blocks = [slice(a, b) for a, b in zip([0, *ends], ends, strict=False)]
    numbers = torch.unique(owner, return_inverse=True)[1]
    start = forward_start(spread, drive @ drive.T, numbers, blocks)
    gates = 1 / start.gates[numbers]
    tried = [(_levels(frame, gates * factor, front), factor) for factor in _FACTORS]
    found = [(levels, factor) for levels, factor in tried if levels is not None]
    if not found:
        return None
    levels, factor = min(found, key=lambda pair: float(frame.goal @ pair[0]))
    if not len(frame.inputs):
        return levels, gates * factor
    # [[s / a, .], [., a R]] is congruent to the same with a = 1.
    balance = (frame.goal[0] * levels[0] / (frame.goal[1:] @ levels[1:])).sqrt()
    levels = torch.cat([levels[:1] / balance, levels[1:] * balance])
    return levels, gates * factor * balance


def _levels(
    frame: Frame, weight: Float64[Tensor, " kept"], front: int
) -> Float64[Tensor, " levels"] | None:
    """The least levels for these multipliers, and some more; tau all alike. None: there is none."""
    matrix = -(frame.entering.T @ (frame.entering * weight[:, None]))
    matrix.diagonal()[front:] += weight
    if not len(frame.inputs):
        level = least_level(matrix - frame.constant, front)
        return None if level is None else weight.new_tensor([_INSIDE * level])
    lead = frame.lead
    tau = least_level(matrix[lead:, lead:], front - lead)
    if tau is None:
        return None
    tau = _INSIDE * max(tau, 1e-9)
    matrix.diagonal()[lead:front] += tau
    level = least_level(matrix - frame.constant, lead)
    if level is None:
        return None
    return torch.cat([weight.new_tensor([_INSIDE * level]), weight.new_full((front - lead,), tau)])


def least_level(matrix: Float64[Tensor, "xi xi"], lead: int) -> float | None:
    """The least rho with 0 <= M + blkdiag(rho I, 0), rho in `lead` places; None: there is none."""
    factor, failed = torch.linalg.cholesky_ex(matrix[lead:, lead:])
    if failed:
        return None
    cross = torch.linalg.solve_triangular(factor, matrix[lead:, :lead], upper=False)
    return float(torch.linalg.eigvalsh(cross.T @ cross - matrix[:lead, :lead])[-1])
