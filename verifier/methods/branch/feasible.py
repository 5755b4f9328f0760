"""Whether half-spaces meet within a box: a point of all of them, or weights that show there is none.

    maximise t   subject to   G u + t |G_i|_2 <= h,  |u| <= 1,  t <= 2                     (1)

by Mehrotra's method from u = 0, every problem of a batch at once. The primal iterate is feasible
throughout: 0 < t makes u an inner point. Any weights mu >= 0 give, for every u of the box,

    mu.(h - G u)  <=  h'mu + |G'mu|_1,                                                   (2)

so that a negative right-hand side shows that no u has G u <= h. Either ends a problem.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

_ROUNDS = 30
_INSIDE = 1e-9  #: t from which on a point is inside, in shares of the box
_OUTSIDE = 1e-9  #: what (2) must fall below, against the size of its terms
_CEILING = 2.0
_STEP = 0.97


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Answers:
    """For every problem a point, weights, or neither where the method did not get so far."""

    has_point: Bool[Tensor, " problems"]
    point: Float64[Tensor, "problems n"]
    is_empty: Bool[Tensor, " problems"]
    weights: Float64[Tensor, "problems m"]  #: the greatest is 1


def decide(gradient: Float64[Tensor, "problems m n"], offset: Float64[Tensor, "problems m"]) -> Answers:
    """Which of the problems G u <= h, |u| <= 1 has a solution.

    Args:
        gradient: G; a row of zeros with h = 1 asks nothing.
        offset: h.
    """
    length = gradient.norm(dim=2).clamp(min=1e-300)
    asks = 1e-290 < length
    G = torch.where(asks[:, :, None], gradient / length[:, :, None], 0.0)
    h = torch.where(asks, offset / length, torch.where(offset < 0, -1.0, 1.0))
    program = _Program(G, asks.double(), h)
    for _ in range(_ROUNDS):
        if bool(program.settled().all()):
            break
        program.advance()
    is_empty = program.is_empty()
    weights = torch.where(asks, program.weights() / length, program.weights())
    return Answers(
        has_point=program.has_point() & ~is_empty,
        point=program.u,
        is_empty=is_empty,
        weights=weights / weights.amax(dim=1, keepdim=True).clamp(min=1e-300),
    )


class _Program:
    """The iterates of (1): slacks a of G, p and m of the box, c of the ceiling, and their duals."""

    def __init__(
        self,
        gradient: Float64[Tensor, "problems m n"],
        shift: Float64[Tensor, "problems m"],
        offset: Float64[Tensor, "problems m"],
    ) -> None:
        self._gradient, self._shift, self._offset = gradient, shift, offset
        self.u = gradient.new_zeros(gradient.shape[0], gradient.shape[2])
        self._t = offset.amin(dim=1).clamp(max=1.0) - 1
        slack = self._slacks()
        # Duals of equal products with their slacks.
        self._dual = 1 / slack / (1 / slack).sum(dim=1, keepdim=True)

    def _slacks(self) -> Float64[Tensor, "problems all"]:
        ahead = self._offset - self._applied(self.u, self._t)
        top = _CEILING - self._t
        return torch.cat([ahead, 1 - self.u, 1 + self.u, top[:, None]], dim=1)

    def _applied(
        self, u: Float64[Tensor, "problems n"], t: Float64[Tensor, " problems"]
    ) -> Float64[Tensor, "problems m"]:
        return (self._gradient @ u[:, :, None])[:, :, 0] + self._shift * t[:, None]

    def _pulled(
        self, y: Float64[Tensor, "problems all"]
    ) -> tuple[Float64[Tensor, "problems n"], Float64[Tensor, " problems"]]:
        """A'y, its parts of u and of t."""
        m, n = self._gradient.shape[1:]
        own = y[:, :m]
        u = (self._gradient.mT @ own[:, :, None])[:, :, 0] + y[:, m : m + n] - y[:, m + n : -1]
        return u, (self._shift * own).sum(dim=1) + y[:, -1]

    def weights(self) -> Float64[Tensor, "problems m"]:
        """The duals of G."""
        return self._dual[:, : self._gradient.shape[1]]

    def has_point(self) -> Bool[Tensor, " problems"]:
        """Whether u lies inside."""
        return _INSIDE < self._t

    def is_empty(self) -> Bool[Tensor, " problems"]:
        """Whether (2) shows that there is none."""
        mu = self.weights()
        pulled = (self._gradient.mT @ mu[:, :, None])[:, :, 0].abs().sum(dim=1)
        size = (self._offset.abs() * mu).sum(dim=1) + pulled
        return (self._offset * mu).sum(dim=1) + pulled < -_OUTSIDE * size

    def settled(self) -> Bool[Tensor, " problems"]:
        """Whether either is known."""
        return self.has_point() | self.is_empty()

    def advance(self) -> None:
        """One step, predictor and corrector."""
        slack, dual = self._slacks(), self._dual
        system = self._system(dual / slack)
        mu = (slack * dual).mean(dim=1, keepdim=True)
        ahead = self._direction(system, slack, dual, slack * dual)
        reach_p, reach_d = _reach(slack, ahead[2]), _reach(dual, ahead[3])
        after = ((slack + reach_p * ahead[2]) * (dual + reach_d * ahead[3])).mean(dim=1, keepdim=True)
        centre = (after / mu).clamp(0, 1) ** 3 * mu
        wanted = slack * dual + ahead[2] * ahead[3] - centre
        u, t, by_slack, by_dual = self._direction(system, slack, dual, wanted)
        reach_p = _STEP * _reach(slack, by_slack)
        reach_d = _STEP * _reach(dual, by_dual)
        stays = self.settled() | ~u.isfinite().all(dim=1) | ~t.isfinite()
        move_p = torch.where(stays[:, None], 0.0, reach_p)
        move_d = torch.where(stays[:, None], 0.0, reach_d)
        self.u = self.u + move_p * u.nan_to_num()
        self._t = self._t + move_p[:, 0] * t.nan_to_num()
        self._dual = dual + move_d * by_dual.nan_to_num()

    def _system(
        self, weight: Float64[Tensor, "problems all"]
    ) -> Float64[Tensor, "problems unknowns unknowns"]:
        """The Cholesky factor of A' diag(weight) A."""
        m, n = self._gradient.shape[1:]
        rows = torch.cat([self._gradient, self._shift[:, :, None]], dim=2)
        matrix = rows.mT @ (rows * weight[:, :m, None])
        diagonal = matrix.diagonal(dim1=1, dim2=2)
        diagonal[:, :n] += weight[:, m : m + n] + weight[:, m + n : -1]
        diagonal[:, n] += weight[:, -1]
        return torch.linalg.cholesky_ex(matrix)[0]

    def _direction(
        self,
        system: Float64[Tensor, "problems unknowns unknowns"],
        slack: Float64[Tensor, "problems all"],
        dual: Float64[Tensor, "problems all"],
        product: Float64[Tensor, "problems all"],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(du, dt, ds, dy) with S dy + Y ds = -product and the residuals made 0."""
        by_u, by_t = self._pulled(dual - product / slack)
        right = torch.cat([-by_u, 1 - by_t[:, None]], dim=1)
        step = torch.cholesky_solve(right[:, :, None], system)[:, :, 0]
        u, t = step[:, :-1], step[:, -1]
        by_slack = -torch.cat([self._applied(u, t), u, -u, t[:, None]], dim=1)
        return u, t, by_slack, -(product + dual * by_slack) / slack


def _reach(
    values: Float64[Tensor, "problems all"], steps: Float64[Tensor, "problems all"]
) -> Float64[Tensor, "problems one"]:
    """The greatest step up to 1 that keeps the values positive."""
    rate = (-steps / values).amax(dim=1, keepdim=True).clamp(min=1e-300)
    return (1 / rate).clamp(max=1.0)
