"""A primal-dual interior-point method for the inequality 0 <= T(s, g, e).

    minimise f(y) = s + sum_k w_k/e_k  over y = (s, g, e)  subject to  0 <= T(y),  0 < e      (1)

has the multipliers X >= 0 of T and u >= 0 of e, and the central path

    grad f(y) = A*(X) + (0, 0, u),    X T = mu I,    u e = mu                                 (2)

with A* the adjoint of T's linear part A. Linearised as X + dX = mu V - sym(X A(dy) V), V = T^-1
(the HKM direction), dX drops out:

    H dy = mu (A*(V) + (0, 0, 1/e)) - grad f,    H_ij = <A_i, X A_j V> + f''_ij + [u/e]_ij.   (3)

Mehrotra's predictor takes mu = 0; the corrector takes mu' = sigma mu and the predictor's
second-order terms. T stays positive definite throughout, so every iterate is a bound: with
V_oo the block of the outputs, s - 1/lambda_max(V_oo) is the least level for these g and e, and
the product with sum w/e is minimised by scaling.

Knows matrices and no network. Source: Helmberg, Rendl, Vanderbei, Wolkowicz 1996, "An
interior-point method for semidefinite programming", for the direction.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.methods.lipsdp.inequality import Inequality, Point, ones
from verifier.methods.lipsdp.step_length import longest_step

CENTRING = 12.0  #: the first mu, in shares of the objective over the order of T


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Solved:
    """The best point met."""

    point: Point
    value: float  #: the objective of the best point, after tightening its level
    lower: float  #: the dual objective, as far as the multipliers are feasible: an estimate


@dataclass(slots=True, eq=False)
class _State:
    point: Point
    dual: Float64[Tensor, "rows rows"]  # X
    dual_inputs: Float64[Tensor, " inputs"]  # u
    factor: Float64[Tensor, "rows rows"]  # Cholesky of T
    inverse: Float64[Tensor, "rows rows"]  # V


def solve(
    problem: Inequality,
    *,
    gap: float,
    iterations: int,
    stop: Callable[[float], bool],
) -> Solved:
    """The best point met on the way to `gap`, from the point of ones.

    Args:
        problem: scaled so that T(1, 1, 1) is singular or positive definite, and its part of the
            psis positive definite.
        gap: stop when objective and dual objective differ by this share.
        iterations: at most.
        stop: told the best objective before each iteration; true ends.

    Returns:
        A point with 0 < T in floating point.
    """
    state = _start(problem)
    best = _tightened(problem, state)
    value, lower = problem.objective(best), -math.inf
    for _ in range(iterations):
        if stop(value):
            break
        step = _step(problem, state)
        if step is None:
            break
        state, lower = step
        point = _tightened(problem, state)
        reached = problem.objective(point)
        if reached < value:
            best, value = point, reached
        if value - lower <= gap * value:
            break
    return Solved(point=best, value=value, lower=lower)


def _start(problem: Inequality) -> _State:
    """The point of ones, its level raised by mu, and the multipliers that mu asks for."""
    unit = ones(problem)
    order = problem.rows + len(problem.weights)
    share = CENTRING * problem.objective(unit) / order
    point = Point(level=unit.level + share, gates=unit.gates, inputs=unit.inputs)
    factor = torch.linalg.cholesky(problem.slack(point))
    inverse = torch.cholesky_inverse(factor)
    mu = 1 / inverse.diagonal()[: problem.outputs].sum()
    return _State(point, mu * inverse, mu / point.inputs, factor, inverse)


def _tightened(problem: Inequality, state: _State) -> Point:
    """The least level for the state's g and e, then level and inputs in balance."""
    point = state.point
    outputs = state.inverse[: problem.outputs, : problem.outputs]
    level = point.level - 1 / torch.linalg.eigvalsh(outputs)[-1]
    return problem.balanced(Point(level=level, gates=point.gates, inputs=point.inputs))


@dataclass(frozen=True, slots=True, eq=False)
class _System:
    """The products with X and V that (3) and its right sides are made of, and H factored."""

    inverse_traces: Point  # A*(V) + (0, 0, 1/e)
    gradient: Point  # of f
    dual_traces: Point  # A*(X)
    factor: Float64[Tensor, "variables variables"]


def _system(problem: Inequality, state: _State) -> _System:
    outputs, spread, drive = problem.outputs, problem.spread, problem.drive
    dual, inverse, point = state.dual, state.inverse, state.point
    dual_spread, inverse_spread = dual @ spread, inverse @ spread
    gates = (
        dual[outputs:, outputs:] * inverse[outputs:, outputs:]
        - dual_spread[outputs:] * inverse_spread[outputs:]
        - (dual_spread[outputs:] * inverse_spread[outputs:]).T
        + (spread.T @ dual_spread) * (spread.T @ inverse_spread)
    )
    level = (dual[:outputs, :outputs] * inverse[:outputs, :outputs]).sum()
    level_gates = (
        dual[:outputs, outputs:] * inverse[:outputs, outputs:]
        - dual_spread[:outputs] * inverse_spread[:outputs]
    ).sum(dim=0)
    dual_drive, inverse_drive = dual @ drive, inverse @ drive
    gates_inputs = -(
        dual_drive[outputs:] * inverse_drive[outputs:]
        - (spread.T @ dual_drive) * (spread.T @ inverse_drive)
    )
    level_inputs = -(dual_drive[:outputs] * inverse_drive[:outputs]).sum(dim=0)
    inputs = (drive.T @ dual_drive) * (drive.T @ inverse_drive)
    curvature = 2 * problem.weights / point.inputs**3 + state.dual_inputs / point.inputs
    inputs = inputs.diagonal_scatter(inputs.diagonal() + curvature)

    pooled = _pooled_rows(problem, _pooled_rows(problem, gates).T)
    pooled_inputs = _pooled_rows(problem, gates_inputs)
    pooled_level = problem.pooled(level_gates)
    matrix = torch.cat(
        [
            torch.cat([level[None, None], pooled_level[None], level_inputs[None]], dim=1),
            torch.cat([pooled_level[:, None], pooled, pooled_inputs], dim=1),
            torch.cat([level_inputs[:, None], pooled_inputs.T, inputs], dim=1),
        ]
    )

    def traces(of: Tensor, of_spread: Tensor, of_drive: Tensor) -> Point:
        diagonal = of.diagonal()
        through = (spread * of_spread).sum(dim=0)
        return Point(
            level=diagonal[:outputs].sum(),
            gates=problem.pooled(diagonal[outputs:] - through),
            inputs=-(drive * of_drive).sum(dim=0),
        )

    barrier = Point(
        level=level.new_zeros(()), gates=torch.zeros_like(point.gates), inputs=1 / point.inputs
    )
    return _System(
        inverse_traces=traces(inverse, inverse_spread, inverse_drive) + barrier,
        gradient=Point(
            level=torch.ones_like(level),
            gates=torch.zeros_like(point.gates),
            inputs=-problem.weights / point.inputs**2,
        ),
        dual_traces=traces(dual, dual_spread, dual_drive),
        factor=_factored(matrix),
    )


def _pooled_rows(
    problem: Inequality, matrix: Float64[Tensor, "psis n"]
) -> Float64[Tensor, "multipliers n"]:
    if problem.multipliers == matrix.shape[0]:
        return matrix
    pooled = matrix.new_zeros(problem.multipliers, matrix.shape[1])
    return pooled.index_add_(0, problem.owner, matrix)


def _factored(matrix: Float64[Tensor, "n n"]) -> Float64[Tensor, "n n"]:
    """Cholesky's factor; near the optimum rounding may ask for a little more on the diagonal."""
    diagonal = matrix.diagonal()
    for share in (0.0, 1e-15, 1e-13, 1e-11, 1e-9):
        factor, failed = torch.linalg.cholesky_ex(matrix.diagonal_scatter(diagonal * (1 + share)))
        if not failed:
            return factor
    raise torch.linalg.LinAlgError("the Newton system is not positive definite")


def _solved(problem: Inequality, system: _System, right: Point) -> Point:
    """H^-1 right."""
    flat = torch.cat([right.level[None], right.gates, right.inputs])
    out = torch.cholesky_solve(flat[:, None], system.factor)[:, 0]
    count = problem.multipliers
    return Point(level=out[0], gates=out[1 : 1 + count], inputs=out[1 + count :])


def _symmetric(matrix: Float64[Tensor, "n n"]) -> Float64[Tensor, "n n"]:
    return (matrix + matrix.T) / 2


def _step(problem: Inequality, state: _State) -> tuple[_State, float] | None:
    """One predictor-corrector step and the dual objective before it; None when it stalls."""
    try:
        system = _system(problem, state)
    except torch.linalg.LinAlgError:
        return None
    dual, inverse, point = state.dual, state.inverse, state.point
    dual_factor, failed = torch.linalg.cholesky_ex(dual)
    if failed:
        return None
    order = problem.rows + len(problem.weights)
    slack = problem.slack(point)
    mu = float((dual * slack).sum() + state.dual_inputs @ point.inputs) / order

    # Predictor: straight to mu = 0.
    move = _solved(problem, system, system.gradient * -1.0)
    change = problem.linear(move)
    dual_change = -dual - _symmetric(dual @ change @ inverse)
    input_change = -state.dual_inputs * (1 + move.inputs / point.inputs)
    primal = _length(dual_factor, dual_change, state.dual_inputs, input_change, 1.0)
    ahead = _length(state.factor, change, point.inputs, move.inputs, 1.0)
    after = float(
        ((dual + primal * dual_change) * (slack + ahead * change)).sum()
        + (state.dual_inputs + primal * input_change) @ (point.inputs + ahead * move.inputs)
    )
    sigma = min(max((after / order / mu) ** 2, 1e-3), 0.8)

    # Corrector: to sigma mu, with the predictor's second-order terms.
    second = _symmetric(dual_change @ change @ inverse)
    second_inputs = input_change * move.inputs / point.inputs
    bent = problem.adjoint(second)
    right = system.inverse_traces * (sigma * mu) + (system.gradient + bent) * -1.0
    right = Point(level=right.level, gates=right.gates, inputs=right.inputs - second_inputs)
    move = _solved(problem, system, right)
    change = problem.linear(move)
    dual_change = sigma * mu * inverse - dual - _symmetric(dual @ change @ inverse) - second
    input_change = (
        sigma * mu / point.inputs
        - state.dual_inputs * (1 + move.inputs / point.inputs)
        - second_inputs
    )
    share = 0.9 + 0.08 * min(primal, ahead)
    primal = _length(dual_factor, dual_change, state.dual_inputs, input_change, share)
    ahead = _length(state.factor, change, point.inputs, move.inputs, share)
    return _moved(problem, state, move, (dual_change, input_change), (primal, ahead))


def _length(
    factor: Float64[Tensor, "n n"],
    change: Float64[Tensor, "n n"],
    values: Float64[Tensor, " k"],
    rates: Float64[Tensor, " k"],
    share: float,
) -> float:
    """This share of the way to the boundary of both cones, at most 1."""
    ratios = torch.where(rates < 0, -values / rates, torch.inf)
    linear = float(ratios.min()) if len(ratios) else 1.0
    return min(1.0, share * min(longest_step(factor, change), linear))


def _moved(
    problem: Inequality,
    state: _State,
    move: Point,
    changes: tuple[Float64[Tensor, "rows rows"], Float64[Tensor, " inputs"]],
    lengths: tuple[float, float],
) -> tuple[_State, float] | None:
    """The state after the step, shortened until both factorisations succeed."""
    primal, ahead = lengths
    for _ in range(20):
        dual = state.dual + primal * changes[0]
        if not torch.linalg.cholesky_ex(dual)[1]:
            break
        primal *= 0.8
    for _ in range(20):
        point = state.point + move * ahead
        factor, failed = torch.linalg.cholesky_ex(problem.slack(point))
        if not failed:
            break
        ahead *= 0.8
    else:
        return None
    if max(primal, ahead) < 1e-6:
        return None
    inverse = torch.cholesky_inverse(factor)
    dual_inputs = state.dual_inputs + primal * changes[1]
    new = _State(point, dual, dual_inputs, factor, inverse)
    return new, _dual_objective(problem, new)


def _dual_objective(problem: Inequality, state: _State) -> float:
    """The least of the Lagrangian, less what the multipliers miss of feasibility.

    inf over e of w/e + e F'XF is 2 sqrt(w F'XF).
    """
    traces = problem.adjoint(state.dual)
    roots = (problem.weights * -traces.inputs.clamp(max=0)).sqrt().sum()
    missed = (traces.gates * state.point.gates).abs().sum()
    return float(((state.dual * problem.fixed).sum() + 2 * roots - missed) / traces.level)
