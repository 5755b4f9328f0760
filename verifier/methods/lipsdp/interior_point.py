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
from verifier.methods.lipsdp.newton import Products, newton_factor, solved
from verifier.methods.lipsdp.step_length import longest_step

CENTRING = 12.0  #: the first mu, in shares of the objective over the order of T
_SHORTEST = 1e-6  #: a step shorter than this is a stall


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Solved:
    """The best point met."""

    point: Point
    value: float  #: the objective of the best point, after tightening its level
    lower: float  #: the dual objective, as far as the multipliers are feasible: an estimate


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _State:
    point: Point
    slack: Float64[Tensor, "rows rows"]  #: T
    factor: Float64[Tensor, "rows rows"]  #: of T
    inverse: Float64[Tensor, "rows rows"]  #: V
    dual: Float64[Tensor, "rows rows"]  #: X
    dual_inputs: Float64[Tensor, " inputs"]  #: u


def solve(
    problem: Inequality, *, gap: float, iterations: int, stop: Callable[[float], bool]
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
        dual = Products.of(problem, state.dual)
        lower = _dual_objective(problem, state, dual)
        if value - lower <= gap * value:
            break
        following = _step(problem, state, dual)
        if following is None:
            break
        state = following
        point = _tightened(problem, state)
        reached = problem.objective(point)
        if reached < value:
            best, value = point, reached
    return Solved(point=best, value=value, lower=lower)


def _start(problem: Inequality) -> _State:
    """The point of ones, its level raised by mu, and the multipliers that mu asks for."""
    unit = ones(problem)
    order = problem.rows + len(problem.weights)
    share = CENTRING * problem.objective(unit) / order
    point = Point(level=unit.level + share, gates=unit.gates, inputs=unit.inputs)
    slack = problem.slack(point)
    factor = torch.linalg.cholesky(slack)
    inverse = torch.cholesky_inverse(factor)
    mu = 1 / inverse.diagonal()[: problem.outputs].sum()
    return _State(
        point=point,
        slack=slack,
        factor=factor,
        inverse=inverse,
        dual=mu * inverse,
        dual_inputs=mu / point.inputs,
    )


def _tightened(problem: Inequality, state: _State) -> Point:
    """The least level for the state's g and e, then level and inputs in balance."""
    point = state.point
    outputs = state.inverse[: problem.outputs, : problem.outputs]
    level = point.level - 1 / torch.linalg.eigvalsh(outputs)[-1]
    return problem.balanced(Point(level=level, gates=point.gates, inputs=point.inputs))


def _dual_objective(problem: Inequality, state: _State, dual: Products) -> float:
    """The least of the Lagrangian, less what the multipliers miss of feasibility.

    inf over e of w/e + e F'XF is 2 sqrt(w F'XF).
    """
    traces = dual.traces(problem)
    roots = (problem.weights * -traces.inputs.clamp(max=0)).sqrt().sum()
    missed = (traces.gates * state.point.gates).abs().sum()
    return float(((state.dual * problem.fixed).sum() + 2 * roots - missed) / traces.level)


def _step(problem: Inequality, state: _State, dual: Products) -> _State | None:
    """The state after a predictor-corrector step; None when it stalls."""
    point = state.point
    inverse = Products.of(problem, state.inverse)
    curvature = 2 * problem.weights / point.inputs**3 + state.dual_inputs / point.inputs
    dual_factor, failed = torch.linalg.cholesky_ex(state.dual)
    if failed:
        return None
    factor = newton_factor(problem, dual, inverse, curvature)
    if factor is None:
        return None
    climb = Point(
        level=torch.ones_like(point.level),
        gates=torch.zeros_like(point.gates),
        inputs=-problem.weights / point.inputs**2,
    )

    # Predictor: straight to mu = 0.
    first = _Direction.of(problem, state, solved(problem, factor, climb * -1.0))
    reach = first.lengths(state, dual_factor, accuracy=10)
    mu = _complementarity(problem, state, first, (0.0, 0.0))
    target = _sigma(_complementarity(problem, state, first, reach) / mu) * mu

    # Corrector: to sigma mu, with the predictor's second-order terms.
    second = _symmetric(first.dual @ first.turned)
    barrier = inverse.traces(problem)
    right = barrier * target + (climb + problem.adjoint(second)) * -1.0
    right = Point(
        level=right.level,
        gates=right.gates,
        inputs=right.inputs + (target - first.dual_inputs * first.move.inputs) / point.inputs,
    )
    last = _Direction.of(problem, state, solved(problem, factor, right)).corrected(
        target * state.inverse - second,
        (target - first.dual_inputs * first.move.inputs) / point.inputs,
    )
    return _moved(
        state, last, last.lengths(state, dual_factor, share=0.9 + 0.08 * min(reach), accuracy=20)
    )


def _sigma(share: float) -> float:
    """How much of mu to keep, by how much of it the predictor would have left."""
    return min(max(share**2, 1e-3), 0.8)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Direction:
    move: Point  # dy
    slack: Float64[Tensor, "rows rows"]  # D = A(dy)
    turned: Float64[Tensor, "rows rows"]  # D V
    dual: Float64[Tensor, "rows rows"]  # dX
    dual_inputs: Float64[Tensor, " inputs"]  # du

    @staticmethod
    def of(problem: Inequality, state: _State, move: Point) -> _Direction:
        """The direction of a move at mu = 0."""
        slack = problem.linear(move)
        turned = slack @ state.inverse
        return _Direction(
            move=move,
            slack=slack,
            turned=turned,
            dual=-state.dual - _symmetric(state.dual @ turned),
            dual_inputs=-state.dual_inputs * (1 + move.inputs / state.point.inputs),
        )

    def corrected(
        self, dual: Float64[Tensor, "rows rows"], dual_inputs: Float64[Tensor, " inputs"]
    ) -> _Direction:
        """The same move with more in dX and du."""
        return _Direction(
            move=self.move,
            slack=self.slack,
            turned=self.turned,
            dual=self.dual + dual,
            dual_inputs=self.dual_inputs + dual_inputs,
        )

    def lengths(
        self,
        state: _State,
        dual_factor: Float64[Tensor, "rows rows"],
        *,
        share: float = 1.0,
        accuracy: int,
    ) -> tuple[float, float]:
        """This share of the way to the boundary, at most 1: of X and u, and of T and e."""
        dual = longest_step(dual_factor, self.dual, accuracy)
        slack = longest_step(state.factor, self.slack, accuracy)
        dual = min(dual, _longest_positive(state.dual_inputs, self.dual_inputs))
        slack = min(slack, _longest_positive(state.point.inputs, self.move.inputs))
        return min(1.0, share * dual), min(1.0, share * slack)


def _longest_positive(values: Float64[Tensor, " n"], rates: Float64[Tensor, " n"]) -> float:
    """The largest t with 0 <= values + t rates."""
    ratios = torch.where(rates < 0, -values / rates, torch.inf)
    return float(ratios.min()) if len(ratios) else math.inf


def _complementarity(
    problem: Inequality, state: _State, ahead: _Direction, lengths: tuple[float, float]
) -> float:
    """Mu after the step: (<X, T> + u.e) over the order."""
    dual, slack = lengths
    total = ((state.dual + dual * ahead.dual) * (state.slack + slack * ahead.slack)).sum()
    inputs = state.point.inputs + slack * ahead.move.inputs
    total = total + (state.dual_inputs + dual * ahead.dual_inputs) @ inputs
    return float(total) / (problem.rows + len(problem.weights))


def _symmetric(matrix: Float64[Tensor, "n n"]) -> Float64[Tensor, "n n"]:
    return (matrix + matrix.T) / 2


def _moved(state: _State, ahead: _Direction, lengths: tuple[float, float]) -> _State | None:
    """The state after the step, shortened until both factorisations succeed."""
    primal, forward = lengths
    dual, slack = state.dual + primal * ahead.dual, state.slack + forward * ahead.slack
    while torch.linalg.cholesky_ex(dual)[1]:
        primal *= 0.8
        if primal < _SHORTEST:
            return None
        dual = state.dual + primal * ahead.dual
    factor, failed = torch.linalg.cholesky_ex(slack)
    while failed:
        forward *= 0.8
        if forward < _SHORTEST:
            return None
        slack = state.slack + forward * ahead.slack
        factor, failed = torch.linalg.cholesky_ex(slack)
    if max(primal, forward) < _SHORTEST:
        return None
    return _State(
        point=state.point + ahead.move * forward,
        slack=slack,
        factor=factor,
        inverse=torch.cholesky_inverse(factor),
        dual=dual,
        dual_inputs=state.dual_inputs + primal * ahead.dual_inputs,
    )
