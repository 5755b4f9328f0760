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

A batch of inequalities is solved side by side, each with step lengths and an end of its own.

Knows matrices and no network. Source: Helmberg, Rendl, Vanderbei, Wolkowicz 1996, "An
interior-point method for semidefinite programming", for the direction.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float64, Int64, Shaped
from torch import Tensor

from verifier.methods.lipsdp.conjugate import Conjugate, Effort, is_worth
from verifier.methods.lipsdp.inequality import Inequality, Point, ones
from verifier.methods.lipsdp.newton import Factored, Products
from verifier.methods.lipsdp.panels import symmetric
from verifier.methods.lipsdp.step_length import longest_step

CENTRING = 12.0  #: from the usual start
CENTRING_WARM = 4.0  #: from near the optimum
_SHORTEST = 1e-6  #: a step shorter than this is a stall
_SHORTENED = 0.8  #: what is left of a step that leaves the cone
_ROUGHEST, _FINEST = 0.1, 1e-5  #: what conjugate gradients may leave of a right side
_TRIALS = 60  #: of shorter ones: the last is below _SHORTEST


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Solved:
    """The best points met."""

    point: Point
    value: Float64[Tensor, " batch"]  #: the objectives of the best points, their levels tightened
    lower: Float64[
        Tensor, " batch"
    ]  #: the dual ones, as far as multipliers are feasible: estimates


#: Told the iteration from 1, the best objectives and the dual ones; true ends an inequality.
Watch: TypeAlias = Callable[
    [int, Float64[Tensor, " batch"], Float64[Tensor, " batch"]], Bool[Tensor, " batch"]
]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _State:
    point: Point
    slack: Float64[Tensor, "batch rows rows"]  #: T
    factor: Float64[Tensor, "batch rows rows"]  #: of T
    inverse: Float64[Tensor, "batch rows rows"]  #: V
    dual: Float64[Tensor, "batch rows rows"]  #: X
    dual_factor: Float64[Tensor, "batch rows rows"]  #: of X
    dual_inputs: Float64[Tensor, "batch inputs"]  #: u

    def __getitem__(self, index: Shaped[Tensor, " some"]) -> _State:
        return _State(
            point=self.point[index],
            slack=self.slack[index],
            factor=self.factor[index],
            inverse=self.inverse[index],
            dual=self.dual[index],
            dual_factor=self.dual_factor[index],
            dual_inputs=self.dual_inputs[index],
        )


def solve(
    problem: Inequality, *, gap: float, iterations: int, watch: Watch, centring: float = CENTRING
) -> Solved:
    """The best points met on the way to `gap`, from the points of ones.

    Args:
        problem: a batch, scaled so that T(1, 1, 1) is singular or positive definite, and its part
            of the psis positive definite.
        gap: stop when objective and dual objective differ by this share.
        iterations: at most.
        watch: asked before each iteration what to leave as it is.
        centring: the first mu, in shares of the objective over the order of T.

    Returns:
        Points with 0 < T in floating point.
    """
    value = problem.objective(ones(problem))
    best = _Best(ones(problem), value, torch.full_like(value, -math.inf))
    live = torch.arange(len(value), device=value.device)
    state, holds = _start(problem, centring)
    effort = Effort(gives_up=not is_worth(problem))
    for iteration in range(1, iterations + 1):
        if not bool(holds.all()):
            live, problem, state = live[holds], problem[holds], state[holds]
        if not len(live):
            break
        best.improve(problem, _tightened(problem, state), live)
        dual = Products.of(problem, state.dual)
        best.lower[live] = _dual_objective(problem, state, dual)
        goes = ~(watch(iteration, best.value, best.lower) | best.is_within(gap))[live]
        if not bool(goes.all()):
            live, problem, state, dual = live[goes], problem[goes], state[goes], dual[goes]
        if not len(live):
            break
        open_gap = float(((best.value - best.lower) / best.value)[live].min())
        state, holds = _step(problem, state, dual, (effort, open_gap))
    else:
        best.improve(problem[holds], _tightened(problem[holds], state[holds]), live[holds])
    return Solved(point=best.point, value=best.value, lower=best.lower)


class _Best:
    """The best points so far."""

    def __init__(
        self, point: Point, value: Float64[Tensor, " batch"], lower: Float64[Tensor, " batch"]
    ) -> None:
        self.point = Point(
            level=point.level.clone(), gates=point.gates.clone(), inputs=point.inputs.clone()
        )
        self.value = value.clone()
        self.lower = lower

    def improve(self, problem: Inequality, point: Point, live: Int64[Tensor, " some"]) -> None:
        """Take what is better; `live` says whose points they are."""
        reached = problem.objective(point)
        # Nan is not less.
        better = reached < self.value[live]
        places = live[better]
        self.value[places] = reached[better]
        self.point.level[places] = point.level[better]
        self.point.gates[places] = point.gates[better]
        self.point.inputs[places] = point.inputs[better]

    def is_within(self, gap: float) -> Bool[Tensor, " batch"]:
        """Whether objective and dual objective are as near as asked."""
        return self.value - self.lower <= gap * self.value


def _start(problem: Inequality, centring: float) -> tuple[_State, Bool[Tensor, " batch"]]:
    """The point of ones, its level raised by mu, and the multipliers that mu asks for."""
    unit = ones(problem)
    share = centring * problem.objective(unit) / problem.order
    point = unit.at_level(unit.level + share)
    slack = problem.slack(point)
    factor, failed = torch.linalg.cholesky_ex(slack.mT)
    inverse = _inverse(factor)
    outputs = inverse.diagonal(dim1=-2, dim2=-1)[..., : problem.outputs]
    mu = 1 / outputs.sum(dim=-1)
    dual = mu[..., None, None] * inverse
    dual_factor, dual_failed = torch.linalg.cholesky_ex(dual.mT)
    state = _State(
        point=point,
        slack=slack,
        factor=factor,
        inverse=inverse,
        dual=dual,
        dual_factor=dual_factor,
        dual_inputs=mu[..., None] / point.inputs,
    )
    return state, (failed == 0) & (dual_failed == 0)


def _tightened(problem: Inequality, state: _State) -> Point:
    """The least level for the state's g and e, then level and inputs in balance."""
    point = state.point
    outputs = state.inverse[..., : problem.outputs, : problem.outputs]
    greatest = torch.linalg.eigvalsh(outputs)[..., -1]
    return problem.balanced(point.at_level(point.level - 1 / greatest))


def _dual_objective(
    problem: Inequality, state: _State, dual: Products
) -> Float64[Tensor, " batch"]:
    """The least of the Lagrangian, less what the multipliers miss of feasibility.

    inf over e of w/e + e F'XF is 2 sqrt(w F'XF).
    """
    traces = dual.traces(problem)
    roots = (problem.weights * -traces.inputs.clamp(max=0)).sqrt().sum(dim=-1)
    missed = (traces.gates * state.point.gates).abs().sum(dim=-1)
    return (_inner(state.dual, problem.fixed) + 2 * roots - missed) / traces.level


def _system(
    problem: Inequality,
    state: _State,
    products: tuple[Products, Products],
    paced: tuple[Effort, float],
) -> Factored | Conjugate:
    """H, formed or applied: whichever costs less."""
    point = state.point
    curvature = 2 * problem.weights / point.inputs**3 + state.dual_inputs / point.inputs
    effort, gap = paced
    if not effort.gives_up:
        # Far from the optimum a rough direction leads as far as an exact one.
        tolerance = min(max(0.3 * gap, _FINEST), _ROUGHEST)
        system = Conjugate(problem, state.slack, products, curvature, effort, tolerance)
        if bool(system.holds.all()):
            return system
    return Factored.of(problem, *products, curvature)


def _step(
    problem: Inequality, state: _State, dual: Products, paced: tuple[Effort, float]
) -> tuple[_State, Bool[Tensor, " batch"]]:
    """The states after a predictor-corrector step, and which of them did not stall."""
    point = state.point
    inverse = Products.of(problem, state.inverse)
    system = _system(problem, state, (dual, inverse), paced)
    climb = Point(
        level=torch.ones_like(point.level),
        gates=torch.zeros_like(point.gates),
        inputs=-problem.weights / point.inputs**2,
    )

    # Predictor: straight to mu = 0.
    first = _Direction.of(problem, state, inverse, system.solve(climb * -1.0))
    reach = first.lengths(state, share=1.0, accuracy=6)
    mu = _complementarity(problem, state, first, (0.0, 0.0))
    kept = _sigma(_complementarity(problem, state, first, reach) / mu)
    target = (kept * mu)[..., None]

    # Corrector: to sigma mu, with the predictor's second-order terms.
    second = symmetric(first.dual @ first.turned)
    missing = (target - first.dual_inputs * first.move.inputs) / point.inputs
    right = inverse.traces(problem) * (kept * mu) + (climb + problem.adjoint(second)) * -1.0
    right = Point(level=right.level, gates=right.gates, inputs=right.inputs + missing)
    added = second.neg_().add_(target[..., None] * state.inverse)
    last = _Direction.of(problem, state, inverse, system.solve(right), added=(added, missing))
    share = 0.8 + 0.18 * torch.minimum(*reach)
    return _moved(state, last, last.lengths(state, share=share, accuracy=12), system.holds)


def _sigma(share: Float64[Tensor, " batch"]) -> Float64[Tensor, " batch"]:
    """How much of mu to keep, by how much of it the predictor would have left."""
    return share.square().clamp(1e-3, 0.8)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Direction:
    move: Point  # dy
    slack: Float64[Tensor, "batch rows rows"]  # D = A(dy)
    turned: Float64[Tensor, "batch rows rows"]  # D V
    dual: Float64[Tensor, "batch rows rows"]  # dX
    dual_inputs: Float64[Tensor, "batch inputs"]  # du

    @staticmethod
    def of(
        problem: Inequality,
        state: _State,
        inverse: Products,
        move: Point,
        added: tuple[Float64[Tensor, "batch rows rows"], Float64[Tensor, "batch inputs"]]
        | None = None,
    ) -> _Direction:
        """The direction of a move at mu = 0, with more in dX and du."""
        driven = problem.driven(move.inputs)
        turned = inverse.turned(problem, move, driven)
        dual = symmetric(state.dual @ turned).add_(state.dual).neg_()
        dual_inputs = -state.dual_inputs * (1 + move.inputs / state.point.inputs)
        if added is not None:
            dual.add_(added[0])
            dual_inputs = dual_inputs + added[1]
        return _Direction(
            move=move,
            slack=problem.linear(move, driven),
            turned=turned,
            dual=dual,
            dual_inputs=dual_inputs,
        )

    def lengths(
        self, state: _State, *, share: float | Float64[Tensor, " batch"], accuracy: int
    ) -> tuple[Float64[Tensor, " batch"], Float64[Tensor, " batch"]]:
        """This share of the way to the boundary, at most 1: of X and u, and of T and e."""
        dual = longest_step(state.dual_factor, self.dual, accuracy)
        slack = longest_step(state.factor, self.slack, accuracy)
        dual = torch.minimum(dual, _longest_positive(state.dual_inputs, self.dual_inputs))
        slack = torch.minimum(slack, _longest_positive(state.point.inputs, self.move.inputs))
        return (share * dual).clamp(max=1.0), (share * slack).clamp(max=1.0)


def _longest_positive(
    values: Float64[Tensor, "batch n"], rates: Float64[Tensor, "batch n"]
) -> Float64[Tensor, " batch"]:
    """The largest t with 0 <= values + t rates."""
    ratios = torch.where(rates < 0, -values / rates, torch.inf)
    return (
        ratios.amin(dim=-1) if ratios.shape[-1] else ratios.new_full(ratios.shape[:-1], torch.inf)
    )


def _complementarity(
    problem: Inequality,
    state: _State,
    ahead: _Direction,
    lengths: tuple[float | Float64[Tensor, " batch"], float | Float64[Tensor, " batch"]],
) -> Float64[Tensor, " batch"]:
    """Mu after the step: (<X, T> + u.e) over the order."""
    dual, slack = lengths
    now = _inner(state.dual, state.slack) + (state.dual_inputs * state.point.inputs).sum(dim=-1)
    by_slack = _inner(state.dual, ahead.slack) + (state.dual_inputs * ahead.move.inputs).sum(dim=-1)
    by_dual = _inner(ahead.dual, state.slack) + (ahead.dual_inputs * state.point.inputs).sum(dim=-1)
    by_both = _inner(ahead.dual, ahead.slack) + (ahead.dual_inputs * ahead.move.inputs).sum(dim=-1)
    return (now + slack * by_slack + dual * by_dual + dual * slack * by_both) / problem.order


def _inverse(factor: Float64[Tensor, "batch n n"]) -> Float64[Tensor, "batch n n"]:
    """(LL')^-1, by rows in memory."""
    return torch.cholesky_inverse(factor).mT.contiguous()


def _inner(
    one: Float64[Tensor, "batch n n"], other: Float64[Tensor, "batch n n"]
) -> Float64[Tensor, " batch"]:
    """<A, B>, without a temporary."""
    return torch.linalg.vecdot(one.flatten(-2), other.flatten(-2))


def _moved(
    state: _State,
    ahead: _Direction,
    lengths: tuple[Float64[Tensor, " batch"], Float64[Tensor, " batch"]],
    holds: Bool[Tensor, " batch"],
) -> tuple[_State, Bool[Tensor, " batch"]]:
    """The states after the step, shortened until both factorisations succeed."""
    primal, dual, dual_factor = _shortened(state.dual, ahead.dual, lengths[0])
    forward, slack, factor = _shortened(state.slack, ahead.slack, lengths[1])
    following = _State(
        point=state.point + ahead.move * forward,
        slack=slack,
        factor=factor,
        inverse=_inverse(factor),
        dual=dual,
        dual_factor=dual_factor,
        dual_inputs=state.dual_inputs + primal[..., None] * ahead.dual_inputs,
    )
    shortest, longest = torch.minimum(primal, forward), torch.maximum(primal, forward)
    return following, holds & (0 < shortest) & (_SHORTEST <= longest)


def _shortened(
    matrix: Float64[Tensor, "batch n n"],
    rate: Float64[Tensor, "batch n n"],
    length: Float64[Tensor, " batch"],
) -> tuple[Float64[Tensor, " batch"], Float64[Tensor, "batch n n"], Float64[Tensor, "batch n n"]]:
    """A length at most this one, 0 if need be; the definite matrix there and its factor."""
    length = length.nan_to_num(0.0)
    moved = torch.addcmul(matrix, rate, length[..., None, None])
    factor, failed = torch.linalg.cholesky_ex(moved.mT)
    for _ in range(_TRIALS):
        if not bool(failed.any()):
            break
        length = torch.where(failed == 0, length, _SHORTENED * length)
        moved = torch.addcmul(matrix, rate, length[..., None, None])
        factor, failed = torch.linalg.cholesky_ex(moved.mT)
    return torch.where(failed == 0, length, 0.0), moved, factor
