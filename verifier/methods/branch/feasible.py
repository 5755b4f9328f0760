"""Whether half-spaces meet within a box: a point of all, or weights that show there is none.

    maximise t   subject to   G u + t |G_i|_2 <= h,  |u| <= 1,  t <= 2                     (1)

by Mehrotra's method, every problem of a batch at once. The primal iterate is feasible
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
_BELOW = 0.1  #: how far below the greatest feasible t the iterates start
_SHRUNK = 0.9  #: of a start: inside the box


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Answers:
    """For every problem a point, weights, or neither where the method did not get so far."""

    has_point: Bool[Tensor, " problems"]
    point: Float64[Tensor, "problems n"]
    is_empty: Bool[Tensor, " problems"]
    weights: Float64[Tensor, "problems m"]  #: the greatest is 1


def decide(
    gradient: Float64[Tensor, "problems m n"],
    offset: Float64[Tensor, "problems m"],
    start: Float64[Tensor, "problems n"] | None = None,
) -> Answers:
    """Which of the problems G u <= h, |u| <= 1 has a solution.

    Args:
        gradient: G; a row of zeros with h = 1 asks nothing.
        offset: h.
        start: points of the box from which few steps are expected; the middle, if none is given.
    """
    length = gradient.norm(dim=2).clamp(min=1e-300)
    asks = 1e-290 < length
    unit = torch.where(asks[:, :, None], gradient / length[:, :, None], 0.0)
    shift = torch.where(asks, offset / length, torch.where(offset < 0, -1.0, 1.0))
    has_point, is_empty = torch.zeros(2, len(offset), dtype=torch.bool)
    point, weights = gradient.new_zeros(len(offset), gradient.shape[2]), torch.zeros_like(offset)
    program, left = _Program(unit, asks.double(), shift, start), torch.arange(len(offset))
    for _ in range(_ROUNDS):
        inside, outside = program.has_point(), program.is_empty()
        settled = inside | outside
        if bool(settled.any()):
            done = left[settled]
            has_point[done], is_empty[done] = (inside & ~outside)[settled], outside[settled]
            point[done], weights[done] = program.u[settled], program.weights()[settled]
            program, left = program.only(~settled), left[~settled]
        if not len(left):
            break
        program.advance()
    weights = torch.where(asks, weights / length, weights)
    return Answers(
        has_point=has_point,
        point=point,
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
        start: Float64[Tensor, "problems n"] | None = None,
    ) -> None:
        self._gradient, self._shift, self._offset = gradient, shift, offset
        self.u = gradient.new_zeros(gradient.shape[0], gradient.shape[2])
        if start is not None:
            self.u = _SHRUNK * start
        ahead = offset - (gradient @ self.u[:, :, None])[:, :, 0]
        self._t = ahead.amin(dim=1).clamp(max=1.0) - _BELOW
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

    def only(self, chosen: Bool[Tensor, " problems"]) -> _Program:
        """The same state of some of the problems."""
        part = _Program(self._gradient[chosen], self._shift[chosen], self._offset[chosen])
        part.u, part._t, part._dual = self.u[chosen], self._t[chosen], self._dual[chosen]
        return part

    def advance(self) -> None:
        """One step, predictor and corrector."""
        slack, dual = self._slacks(), self._dual
        system = self._system(dual / slack)
        mu = (slack * dual).mean(dim=1, keepdim=True)
        ahead = self._direction(system, slack, dual, slack * dual)
        reach_p, reach_d = _reach(slack, ahead[2]), _reach(dual, ahead[3])
        after = (slack + reach_p * ahead[2]) * (dual + reach_d * ahead[3])
        centre = (after.mean(dim=1, keepdim=True) / mu).clamp(0, 1) ** 3 * mu
        wanted = slack * dual + ahead[2] * ahead[3] - centre
        u, t, by_slack, by_dual = self._direction(system, slack, dual, wanted)
        reach_p = _STEP * _reach(slack, by_slack)
        reach_d = _STEP * _reach(dual, by_dual)
        stays = ~u.isfinite().all(dim=1) | ~t.isfinite()
        move_p = torch.where(stays[:, None], 0.0, reach_p)
        move_d = torch.where(stays[:, None], 0.0, reach_d)
        self.u = self.u + move_p * u.nan_to_num()
        self._t = self._t + move_p[:, 0] * t.nan_to_num()
        self._dual = dual + move_d * by_dual.nan_to_num()

    def _system(self, weight: Float64[Tensor, "problems all"]) -> _Normal:
        """A' diag(weight) A, factored."""
        m, n = self._gradient.shape[1:]
        rows = torch.cat([self._gradient, self._shift[:, :, None]], dim=2)
        box = weight[:, m : m + n] + weight[:, m + n : -1]
        return _Normal.of(rows, weight[:, :m], torch.cat([box, weight[:, -1:]], dim=1))

    def _direction(
        self,
        system: _Normal,
        slack: Float64[Tensor, "problems all"],
        dual: Float64[Tensor, "problems all"],
        product: Float64[Tensor, "problems all"],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(du, dt, ds, dy) with S dy + Y ds = -product and the residuals made 0."""
        by_u, by_t = self._pulled(dual - product / slack)
        step = system.solved(torch.cat([-by_u, 1 - by_t[:, None]], dim=1))
        u, t = step[:, :-1], step[:, -1]
        by_slack = -torch.cat([self._applied(u, t), u, -u, t[:, None]], dim=1)
        return u, t, by_slack, -(product + dual * by_slack) / slack


@dataclass(frozen=True, slots=True, eq=False)
class _Normal:
    """D + R'W R, D and W diagonal, by the smaller of two Cholesky factors.

    With B = W^1/2 R D^-1/2 either that of I + B'B, or that of I + B B', for

        (D + R'W R)^-1 = D^-1/2 (I - B'(I + B B')^-1 B) D^-1/2.                           (3)
    """

    factor: Float64[Tensor, "problems k k"]
    inner: Float64[Tensor, "problems m unknowns"] | None  #: B
    roots: Float64[Tensor, "problems unknowns"]  #: D^-1/2

    @staticmethod
    def of(
        rows: Float64[Tensor, "problems m unknowns"],
        weight: Float64[Tensor, "problems m"],
        diagonal: Float64[Tensor, "problems unknowns"],
    ) -> _Normal:
        """From R, W and D."""
        roots = diagonal.rsqrt()
        inner = rows * weight.sqrt()[:, :, None] * roots[:, None, :]
        is_wide = rows.shape[1] < rows.shape[2]
        matrix = inner @ inner.mT if is_wide else inner.mT @ inner
        matrix.diagonal(dim1=1, dim2=2).add_(1.0)
        factor = torch.linalg.cholesky_ex(matrix)[0]
        return _Normal(factor, inner if is_wide else None, roots)

    def solved(
        self, right: Float64[Tensor, "problems unknowns"]
    ) -> Float64[Tensor, "problems unknowns"]:
        """The solution of the system."""
        scaled = (right * self.roots)[:, :, None]
        if self.inner is None:
            return torch.cholesky_solve(scaled, self.factor)[:, :, 0] * self.roots
        correction = self.inner.mT @ torch.cholesky_solve(self.inner @ scaled, self.factor)
        return (scaled - correction)[:, :, 0] * self.roots


def _reach(
    values: Float64[Tensor, "problems all"], steps: Float64[Tensor, "problems all"]
) -> Float64[Tensor, "problems one"]:
    """The greatest step up to 1 that keeps the values positive."""
    rate = (-steps / values).amax(dim=1, keepdim=True).clamp(min=1e-300)
    return (1 / rate).clamp(max=1.0)
