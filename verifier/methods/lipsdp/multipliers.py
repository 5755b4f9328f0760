"""What a certificate stores of one inequality, the matrix that it stands for, and idle psis.

Psis whose increment is always 0, because nothing that varies enters them, are in no problem that
is solved. In the certificate they have multipliers, too: so large that they cost nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from verifier.methods.lipsdp.form import UNIT, Form
from verifier.methods.lipsdp.rounding import LEAST_EXPONENT, CertificateMatrix

SMALLEST = 2.0 ** (LEAST_EXPONENT + 10)  #: of multipliers without influence
_NOISE_HELD = 1e5  #: the noise of a psi that nothing enters is held as if it were as much larger


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Multipliers:
    """What the certificate stores of one inequality."""

    level: float  #: rho, or s
    gates: Float64[Tensor, " multipliers"]  #: lambda
    inputs: Float64[Tensor, " inputs"]  #: tau; empty for l2

    def times(self, factor: float) -> Multipliers:
        """All of them larger."""
        return Multipliers(
            level=self.level * factor, gates=self.gates * factor, inputs=self.inputs * factor
        )


def certificate_matrix(
    form: Form,
    rows: Float64[Tensor, "selected outputs"],
    found: Multipliers,
    *,
    inputs_in_linf: bool,
) -> CertificateMatrix:
    """The certificate's matrix, D = blkdiag(rho I or diag tau, Lambda)."""
    per_psi = found.gates[form.owner]
    roots = per_psi.sqrt()[:, None]
    inflow, inflow_noise = form.inflow * roots, form.inflow_noise * roots
    outflow, noise = _outflow(form, rows)
    inputs = found.inputs if inputs_in_linf else per_psi.new_full((form.inputs,), found.level)
    corner = None
    if not inputs_in_linf:
        inflow, inflow_noise = torch.cat([outflow, inflow]), torch.cat([noise, inflow_noise])
    elif 1 < len(rows):
        # s I is eliminated: 0 <= D - R'R - Y'Y/s.
        root = found.level**-0.5
        inflow = torch.cat([outflow * root, inflow])
        inflow_noise = torch.cat([noise * root, inflow_noise])
    else:
        corner = found.level
    return CertificateMatrix(
        diagonal=torch.cat([inputs, per_psi]),
        rows=inflow,
        noise=inflow_noise,
        corner=corner,
        border=outflow[0],
        border_noise=noise[0],
    )


def with_idle_psis(
    form: Form,
    entered: Bool[Tensor, " multipliers"],
    rows: Float64[Tensor, "selected outputs"],
    found: Multipliers,
    unfelt: float,
    *,
    inputs_in_linf: bool,
) -> Multipliers:
    """The same, with multipliers for psis that nothing enters: their own row costs nothing.

    What they add to a gate that is entered is made negligible. One that adds v psi to another
    of their kind, which n of them enter, is held by 2 n v^2 times that one's:
    (sum_j v_j psi_j)^2 is at most n sum_j (v_j psi_j)^2. Later ones come first.

    Args:
        form: whose psis they are.
        entered: the multipliers whose psis something that varies enters.
        rows: the outputs.
        found: the multipliers of those.
        unfelt: the share of the bound that the others may cost.
        inputs_in_linf: which inequality it is.
    """
    idle = ~entered[form.owner]
    if not bool(idle.any()):
        return found
    outflow, noise = _outflow(form, rows)
    outflow = (outflow.abs() + _NOISE_HELD * noise)[:, form.inputs :].square().sum(dim=0)
    squares = (form.inflow.abs() + _NOISE_HELD * form.inflow_noise)[:, form.inputs :].square()
    through = (squares * found.gates[form.owner][:, None]).sum(dim=0)
    scale = found.level if inputs_in_linf else 1.0
    needed = (outflow / scale + through) / unfelt
    least = max(SMALLEST, unfelt * found.level)
    most = torch.full_like(found.gates, least).scatter_reduce(0, form.owner, needed, "amax")
    gates = torch.where(entered, found.gates, most)
    shared = 2 * (squares[:, idle] != 0).sum(dim=1)
    for block in reversed(form.blocks):
        theirs = torch.where(idle, gates[form.owner] * shared, 0.0)
        held = (squares[:, block] * theirs[:, None]).sum(dim=0)
        more = torch.zeros_like(gates).scatter_reduce(0, form.owner[block], held, "amax")
        gates = torch.where(entered, gates, gates + more)
    return Multipliers(level=found.level, gates=gates, inputs=found.inputs)


def _outflow(
    form: Form, rows: Float64[Tensor, "selected outputs"]
) -> tuple[Float64[Tensor, "selected xi"], Float64[Tensor, "selected xi"]]:
    """Y of the outputs `rows` y, and its noise."""
    noise = rows.abs() @ (form.outflow_noise + 4 * UNIT * form.outflow.abs())
    return rows @ form.outflow, noise
