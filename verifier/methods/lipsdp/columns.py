"""Inputs in l1: steps in one input at a time, and the multipliers that bound the worst of them.

|f(x) - f(y)| <= sum_k |dx_k| b_k where b_k bounds steps in input k alone. For multipliers lambda
under which the psis' part P of the inequality is positive definite,

    b_k^2 = K_kk,   K = R_x'R_x + R_x'R_psi P^-1 R_psi'R_x,   P = Lambda - R_psi'R_psi,     (1)

R the rows Y and sqrt(lambda_g) C_g V_g: one factorisation bounds all inputs. So rows are collected,
each input takes its best, and the worst input is solved by itself until it is solved already: then
its bound is the optimum, for no input's is above.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.certificate import LmiRow
from verifier.methods.lipsdp.form import Form
from verifier.methods.lipsdp.multipliers import Multipliers
from verifier.methods.lipsdp.repair import SLACK

MOST_ROWS = 128  #: for all items together
_SETTLED = 1e-6  #: inputs above the best that is solved by this share are let be


def only_input(form: Form, place: int) -> Form:
    """The form of steps in one of its inputs."""
    kept = torch.cat([torch.tensor([place]), torch.arange(form.inputs, form.inflow.shape[1])])
    return replace(
        form,
        inputs=1,
        inflow=form.inflow[:, kept],
        outflow=form.outflow[:, kept],
        inflow_noise=form.inflow_noise[:, kept],
        outflow_noise=form.outflow_noise[:, kept],
    )


def column_bounds(
    form: Form, rows: Float64[Tensor, "selected outputs"], found: Multipliers
) -> Float64[Tensor, " inputs"]:
    """The b of (1), a little raised; infinite where P is not positive definite."""
    weights = found.gates[form.owner]
    scale = weights.sqrt()
    squares = torch.cat([rows @ form.outflow, form.inflow * scale[:, None]])
    drive, inner = squares[:, : form.inputs], squares[:, form.inputs :] / scale
    part = torch.eye(len(weights), dtype=torch.float64) - inner.T @ inner
    factor, failed = torch.linalg.cholesky_ex(part)
    if failed:
        return torch.full((form.inputs,), torch.inf, dtype=torch.float64)
    through = torch.linalg.solve_triangular(factor, inner.T @ drive, upper=False)
    return (drive.square().sum(dim=0) + through.square().sum(dim=0)).sqrt() * (1 + SLACK)


def worst_input_settled(
    form: Form,
    rows: Float64[Tensor, "selected outputs"],
    shared: tuple[LmiRow, Multipliers],
    solve: Callable[[Form, float], tuple[LmiRow, Multipliers]],
    goes_on: Callable[[int], bool],
    enough: float,
) -> tuple[list[LmiRow], Float64[Tensor, " inputs"]]:
    """Rows that bound every input, and the bounds.

    Args:
        form: the increments.
        rows: the outputs.
        shared: the row of l2 inputs, which bounds all.
        solve: the row of a form with one input; it may stop at a bound that is enough.
        goes_on: whether so many rows may become one more.
        enough: bounds up to this need not be better.
    """
    row, multipliers = shared
    found, bounds = [row], column_bounds(form, rows, multipliers)
    settled = torch.zeros(form.inputs, dtype=torch.bool)
    best = enough
    while goes_on(len(found)):
        open_bounds = torch.where(settled, -math.inf, bounds)
        worst = int(open_bounds.argmax())
        if float(open_bounds[worst]) <= best * (1 + _SETTLED):
            break
        row, multipliers = solve(only_input(form, worst), best)
        found.append(row)
        bounds = torch.minimum(bounds, column_bounds(form, rows, multipliers))
        settled[worst] = True
        best = max(best, float(bounds[worst]))
    return found, bounds
