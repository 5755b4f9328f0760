"""Single flips: the vertices next to one, all compared by their norms.

Turning gate i from t_i to -t_i changes J by one product of a column and a row,

    J - 2 t_i a_i v_i',    v = (I - V T)^-1 V_x,   a = Y_psi + Y_psi T (I - V T)^-1 V,      (1)

v what enters the gates per dx, and a what leaves the network per psi. The sweeps of `vertices`
compare vertices at one dx and one u; here each flip is given its own best ones.
"""

from __future__ import annotations

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from verifier.methods.lipsdp import Form
from verifier.norms import Norm, NormPair

MOST_ENTRIES = 2_000_000  #: of all Jacobians next to one
_FLIPS = 60  #: at most
_GAIN = 1e-9  #: the least that counts, as a share


def climbed(
    form: Form,
    outflow: Float64[Tensor, "selected xi"],
    turn: Float64[Tensor, "psis psis"],
    scalar: Int64[Tensor, " scalars"],
    pair: NormPair,
) -> float:
    """|J| after the best flips, one after another, until none gains.

    Args:
        form: of the network.
        outflow: Y.
        turn: T of all gates.
        scalar: the psis of scalar gates, which are flipped.
        pair: of norms.
    """
    turn = turn.clone()
    best = float(operator_norms(_jacobian(form, outflow, turn)[0][None], pair)[0])
    if MOST_ENTRIES < len(scalar) * len(outflow) * form.inputs or not len(scalar):
        return best
    for _ in range(_FLIPS):
        jacobian, left, right = _jacobian(form, outflow, turn)
        signs = turn[scalar, scalar]
        change = 2 * signs[:, None, None] * left.T[scalar][:, :, None] * right[scalar][:, None]
        reached = operator_norms(jacobian - change, pair)
        place = int(reached.argmax())
        if float(reached[place]) <= best * (1 + _GAIN):
            break
        best = float(reached[place])
        turn[scalar[place], scalar[place]] *= -1
    return best


def _jacobian(
    form: Form, outflow: Float64[Tensor, "selected xi"], turn: Float64[Tensor, "psis psis"]
) -> tuple[Tensor, Tensor, Tensor]:
    """(J, a, v) of (1)."""
    drive, spread = form.inflow[:, : form.inputs], form.inflow[:, form.inputs :]
    onward = outflow[:, form.inputs :]
    eye = torch.eye(len(form.inflow), dtype=torch.float64)
    both = torch.linalg.solve(eye - spread @ turn, torch.cat([drive, spread], dim=1))
    right = both[:, : form.inputs]
    through = onward @ turn
    left = onward + through @ both[:, form.inputs :]
    return outflow[:, : form.inputs] + through @ right, left, right


def operator_norms(
    matrices: Float64[Tensor, "batch m n"], pair: NormPair
) -> Float64[Tensor, " batch"]:
    """Their norms where those are easy, else lower ends of them: at the best single row."""
    if pair.input is Norm.L1:
        order = {Norm.L1: 1.0, Norm.L2: 2.0, Norm.LINF: torch.inf}[pair.output]
        return torch.linalg.vector_norm(matrices, order, dim=1).amax(dim=1)
    if pair == NormPair(Norm.L2, Norm.L2):
        return torch.linalg.matrix_norm(matrices, 2)
    order = {Norm.L2: 2.0, Norm.LINF: 1.0}[pair.input]
    return torch.linalg.vector_norm(matrices, order, dim=2).amax(dim=1)
