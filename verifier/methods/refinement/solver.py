"""A primal-dual interior-point method for `terms.Problem`.

    minimise c'y  subject to  0 <= M(y), 0 <= S_gP(y), 0 <= y_i for squares                 (1)

With multipliers X of M, Z of S and z of y the central path is

    c = A*(X, Z) + z,      X M = mu I,   Z S = omega mu I,   z y = mu,                       (2)

omega the weight of a vertex: n! of them with weight 1 would make the path keep its distance from
the vertices and not from M. The direction is that of Helmberg, Rendl, Vanderbei and Wolkowicz, as
in `verifier.methods.lipsdp.interior_point`: X + dX = mu V - sym(X A(dy) V) with V = M^-1 drops out,

    H dy = mu A*(V) - c,    H_ij = <F_i, X F_j V> + ...,                                    (3)

so that y stays strictly feasible and X becomes feasible as steps are taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.methods.refinement.terms import Problem

_SHORTEST = 1e-4  #: a step shorter than this is a stall


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Solved:
    """The last point, strictly feasible, and its multipliers."""

    values: Float64[Tensor, " variables"]  #: y
    dual: Float64[Tensor, "xi xi"]  #: X
    lower: float  #: the dual objective where the multipliers are nearly feasible: an estimate


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Cone:
    """One slack S with its multiplier Z; a batch of matrices of one size, with one weight."""

    slack: Tensor
    factor: Tensor
    inverse: Tensor
    dual: Tensor
    weight: float

    @staticmethod
    def of(slack: Tensor, weight: float, dual: Tensor | None, mu: float) -> _Cone | None:
        """None where the slack is not positive definite; without a dual, that of mu."""
        factor, failed = torch.linalg.cholesky_ex(slack)
        if bool(failed.any()):
            return None
        inverse = torch.cholesky_inverse(factor)
        return _Cone(
            slack=slack,
            factor=factor,
            inverse=inverse,
            dual=weight * mu * inverse if dual is None else dual,
            weight=weight,
        )

    @property
    def order(self) -> float:
        """What <Z, S>/mu is on the path."""
        return self.weight * math.prod(self.slack.shape[:-1])

    def dual_move(self, move: Tensor, mu: float) -> Tensor:
        """DZ = omega mu S^-1 - Z - sym(Z D S^-1)."""
        return self.weight * mu * self.inverse - self.dual - _sym(self.dual @ move @ self.inverse)


def _sym(matrix: Tensor) -> Tensor:
    return (matrix + matrix.mT) / 2


def _longest(factor: Tensor, move: Tensor) -> float:
    """The largest t with 0 <= L L' + t D."""
    half = torch.linalg.solve_triangular(factor, move, upper=False)
    turned = torch.linalg.solve_triangular(factor, half.mT, upper=False)
    least = float(torch.linalg.eigvalsh(_sym(turned)).min())
    return math.inf if least >= 0 else -1 / least


def _longest_positive(values: Tensor, rates: Tensor) -> float:
    ratios = torch.where(rates < 0, -values / rates, torch.inf)
    return float(ratios.min()) if len(ratios) else math.inf


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _State:
    values: Tensor  # y
    linear: Tensor  # z
    cones: list[_Cone]  # M, then S of every width

    @property
    def duals(self) -> list[Tensor]:
        return [cone.dual for cone in self.cones]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Ahead:
    move: Tensor  # dy
    moves: list[Tensor]  # dM, dS
    duals: list[Tensor]  # dX, dZ
    linear: Tensor  # dz


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Second:
    """The predictor's second-order terms."""

    cones: list[Tensor]
    linear: Tensor


class Solver:
    """Steps of the method for one problem."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._bounded = problem.squares.count
        self._goal = torch.zeros(problem.variables, dtype=torch.float64)
        self._goal[: self._bounded] = problem.goal
        self._weights = [1.0, *(2.0 / len(block.vertices) for block in problem.blocks)]

    def solve(
        self,
        start: Float64[Tensor, " variables"],
        *,
        gap: float,
        iterations: int,
        stop: Callable[[float], bool],
    ) -> Solved | None:
        """From a strictly feasible y to a gap, or as far as it goes.

        Args:
            start: y.
            gap: stop when the objective and the dual one differ by this share.
            iterations: at most.
            stop: told the objective before each iteration; true ends.

        Returns:
            None where the start is not strictly feasible.
        """
        state = self._start(start)
        if state is None:
            return None
        lower = 0.0
        for _ in range(iterations):
            value = float(self._goal @ state.values)
            if stop(value):
                break
            if self._missed(state) <= gap * value:
                lower = max(lower, self._dual_objective(state))
                if value - lower <= gap * value:
                    break
            following = self._step(state)
            if following is None:
                break
            state = following
        return Solved(values=state.values, dual=state.cones[0].dual, lower=lower)

    def _slacks(self, values: Tensor) -> list[Tensor]:
        return [self._problem.slack(values), *self._problem.vertex_slacks(values)]

    def _moves(self, move: Tensor) -> list[Tensor]:
        return [self._problem.linear(move), *self._problem.vertex_slacks(move)]

    def _adjoint(self, parts: list[Tensor]) -> Tensor:
        return self._problem.adjoint(parts[0], parts[1:])

    def _start(self, values: Float64[Tensor, " variables"]) -> _State | None:
        """The multipliers that mu asks for; mu so that the goal's equations of (2) hold in sum."""
        slacks = self._slacks(values)
        first = _Cone.of(slacks[0], 1.0, None, 1.0)
        if first is None:
            return None
        traces = self._adjoint([first.inverse, *(torch.zeros_like(s) for s in slacks[1:])])
        wanted = self._goal * values
        mu = float(wanted.sum() / (traces * values)[wanted != 0].sum())
        cones = _all([_Cone.of(s, w, None, mu) for s, w in zip(slacks, self._weights, strict=True)])
        if cones is None:
            return None
        return _State(values=values, linear=mu / values[: self._bounded], cones=cones)

    def _dual_objective(self, state: _State) -> float:
        return float((state.cones[0].dual * self._problem.constant).sum())

    def _missed(self, state: _State) -> float:
        """How far the multipliers are from (2), weighed by y."""
        rest = self._goal - self._adjoint(state.duals)
        rest[: self._bounded] -= state.linear
        return float((rest * state.values).abs().sum())

    def _step(self, state: _State) -> _State | None:
        """Predictor and corrector; None when they stall."""
        factor = self._hessian_factor(state)
        if factor is None:
            return None
        bounded, cones = self._bounded, state.cones
        values = state.values[:bounded]
        ahead = self._ahead(state, factor, -self._goal, 0.0, None)
        lengths = self._lengths(state, ahead, 1.0)
        if min(lengths) <= 0:
            return None
        order = sum(cone.order for cone in cones) + bounded
        mu = self._complementarity(state, ahead, (0.0, 0.0)) / order
        reached = self._complementarity(state, ahead, lengths) / order
        target = min(max((reached / mu) ** 2, 1e-3), 0.8) * mu
        second = _Second(
            cones=[
                _sym(a @ m @ c.inverse)
                for c, m, a in zip(cones, ahead.moves, ahead.duals, strict=True)
            ],
            linear=ahead.linear * ahead.move[:bounded] / values,
        )
        barrier = [
            c.weight * target * c.inverse - s for c, s in zip(cones, second.cones, strict=True)
        ]
        right = self._adjoint(barrier) - self._goal
        right[:bounded] += target / values - second.linear
        ahead = self._ahead(state, factor, right, target, second)
        return self._moved(state, ahead, self._lengths(state, ahead, 0.9 + 0.08 * min(lengths)))

    def _hessian_factor(self, state: _State) -> Tensor | None:
        duals, inverses = state.duals, [cone.inverse for cone in state.cones]
        matrix = self._problem.hessian(duals[0], inverses[0], duals[1:], inverses[1:])
        own = matrix.diagonal()[: self._bounded]
        own += state.linear / state.values[: self._bounded]
        return _factor(matrix)

    def _ahead(
        self, state: _State, factor: Tensor, right: Tensor, target: float, second: _Second | None
    ) -> _Ahead:
        move = torch.cholesky_solve(right[:, None], factor)[:, 0]
        moves = self._moves(move)
        values = state.values[: self._bounded]
        linear = target / values - state.linear * (1 + move[: self._bounded] / values)
        duals = [c.dual_move(m, target) for c, m in zip(state.cones, moves, strict=True)]
        if second is not None:
            linear = linear - second.linear
            duals = [d - s for d, s in zip(duals, second.cones, strict=True)]
        return _Ahead(move=move, moves=moves, duals=duals, linear=linear)

    def _complementarity(self, state: _State, ahead: _Ahead, lengths: tuple[float, float]) -> float:
        """<Z, S> of all after the step."""
        dual, slack = lengths
        linear = state.linear + dual * ahead.linear
        total = float(linear @ (state.values + slack * ahead.move)[: self._bounded])
        for cone, move, other in zip(state.cones, ahead.moves, ahead.duals, strict=True):
            total += float(((cone.slack + slack * move) * (cone.dual + dual * other)).sum())
        return total

    def _lengths(self, state: _State, ahead: _Ahead, share: float) -> tuple[float, float]:
        """This share of the way to the boundary, at most 1: of the multipliers and of y."""
        dual = _longest_positive(state.linear, ahead.linear)
        slack = _longest_positive(state.values[: self._bounded], ahead.move[: self._bounded])
        for cone, move, other in zip(state.cones, ahead.moves, ahead.duals, strict=True):
            slack = min(slack, _longest(cone.factor, move))
            factor, failed = torch.linalg.cholesky_ex(cone.dual)
            if bool(failed.any()):
                return 0.0, 0.0
            dual = min(dual, _longest(factor, other))
        return min(1.0, share * dual), min(1.0, share * slack)

    def _moved(self, state: _State, ahead: _Ahead, lengths: tuple[float, float]) -> _State | None:
        dual, slack = lengths
        while _SHORTEST < slack:
            values = state.values + slack * ahead.move
            cones = _all(
                [
                    _Cone.of(s, c.weight, c.dual + dual * a, 0.0)
                    for s, c, a in zip(self._slacks(values), state.cones, ahead.duals, strict=True)
                ]
            )
            if cones is not None:
                linear = state.linear + dual * ahead.linear
                return _State(values=values, linear=linear, cones=cones)
            slack *= 0.8
        return None


def _all(cones: list[_Cone | None]) -> list[_Cone] | None:
    found = [cone for cone in cones if cone is not None]
    return found if len(found) == len(cones) else None


def _factor(matrix: Float64[Tensor, "n n"]) -> Float64[Tensor, "n n"] | None:
    """A Cholesky factor of it, its diagonal raised as little as need be."""
    for share in (1e-15, 1e-13, 1e-11, 1e-9):
        raised = matrix.diagonal_scatter(matrix.diagonal() * (1 + share))
        factor, failed = torch.linalg.cholesky_ex(raised)
        if not failed:
            return factor
    return None
