"""Outputs in l1: |y|_1 is the greatest s'y over signs s, which are gates of slopes [-1, 1].

    psi_j = s_j y_j,   |psi_j| <= |y_j|,   |y|_1 = sum_j psi_j                              (1)

So the form has one psi more for each output, and one output. Any multipliers of (1) with those of
the network's gates prove a bound, and no bound by rows, or by |y|_1 <= sqrt(m) |y|_2, is below the
best of them: the multipliers of either are among them.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.certificate import LmiRow
from verifier.methods.lipsdp.form import UNIT, Form, GateArray

SIGNS = "\0signs"  #: the gates (1); no tensor of a file has such a name


def with_signs(form: Form, rows: Float64[Tensor, "selected outputs"]) -> Form:
    """The form whose only output is |rows y|_1, by (1)."""
    count, size = len(rows), form.inflow.shape[1]
    entering = rows @ form.outflow
    noise = rows.abs() @ (form.outflow_noise + 4 * UNIT * form.outflow.abs())
    total = torch.cat([entering.new_zeros(1, size), entering.new_ones(1, count)], dim=1)
    return Form(
        inputs=form.inputs,
        inflow=_widened(torch.cat([form.inflow, entering]), count),
        outflow=total,
        inflow_noise=_widened(torch.cat([form.inflow_noise, noise]), count),
        outflow_noise=torch.zeros_like(total),
        owner=torch.cat([form.owner, form.multipliers + torch.arange(count)]),
        gates=(
            *form.gates,
            GateArray(gate=SIGNS, size=count, active=torch.arange(count), psis=1),
        ),
    )


def _widened(matrix: Float64[Tensor, "k xi"], count: int) -> Float64[Tensor, "k wider"]:
    return torch.cat([matrix, matrix.new_zeros(len(matrix), count)], dim=1)


def of_signs(row: LmiRow) -> LmiRow:
    """A row of that form as a row of all outputs."""
    gates = dict(row.multipliers)
    return replace(row, output=None, multipliers=gates, output_multipliers=gates.pop(SIGNS))
