"""The certificate's inequality by general solvers, through cvxpy: an oracle and a yardstick.

Their answers are not feasible: repair follows, as after every solver.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.methods.lipsdp.form import Form
from verifier.methods.lipsdp.multipliers import Multipliers


def solved(
    form: Form,
    rows: Float64[Tensor, "selected outputs"],
    *,
    inputs_in_linf: bool,
    solver: Literal["scs", "clarabel"],
) -> Multipliers | None:
    """What the solver prints for (1), or for (3); None where it gives up.

    Equations are those of the package.
    """
    # The one import of cvxpy, and a slow one.
    import cvxpy as cp

    outflow = (rows @ form.outflow).numpy()
    inflow = form.inflow.numpy()
    share = torch.nn.functional.one_hot(form.owner, form.multipliers).double().numpy()
    gates = cp.Variable(form.multipliers, nonneg=True)
    level = cp.Variable(nonneg=True)
    per_psi = share @ gates
    if inputs_in_linf:
        inputs = cp.Variable(form.inputs, nonneg=True)
        core = cp.diag(cp.hstack([inputs, per_psi])) - inflow.T @ cp.diag(per_psi) @ inflow
        corner = level * torch.eye(len(outflow)).numpy()
        matrix = cp.bmat([[corner, -outflow], [-outflow.T, core]])
        objective = (level + cp.sum(inputs)) / 2
    else:
        inputs = None
        diagonal = cp.diag(cp.hstack([level * torch.ones(form.inputs).numpy(), per_psi]))
        matrix = diagonal - outflow.T @ outflow - inflow.T @ cp.diag(per_psi) @ inflow
        objective = level
    problem = cp.Problem(cp.Minimize(objective), [matrix + matrix.T >> 0])
    try:
        problem.solve(solver={"scs": cp.SCS, "clarabel": cp.CLARABEL}[solver])
    except cp.SolverError:
        return None
    if gates.value is None or level.value is None:
        return None
    tau = [] if inputs is None else inputs.value
    return Multipliers(
        level=float(level.value),
        gates=torch.tensor(gates.value, dtype=torch.float64),
        inputs=torch.tensor(tau, dtype=torch.float64),
    )
