"""Second-order search with a duality gap: the barrier's central path in the scales themselves.

The least level s for scales D is a convex function of D: T(s, D), whose block factors are the S of
the recursion and s I - R P R', is linear in both. The central path minimises

    s/mu - log det T(s, D),    log det T = sum_g log det S_g + log det (s I - R P R')        (1)

for falling mu. With H the Hessian of the last, c = (1, 0) and a_i = <T^-1, A_i> the Newton step is

    dy = -H^-1 c/mu + H^-1 a,     and if T(y - dy) is positive definite too,
    s - mu (order of T - a'dy) <= the least s of all scales                                  (2)

for then mu T^-1 T(y - dy) T^-1 is feasible for the dual. On the path the tangent is the first
term of dy: a step along it shortens what is left of s in proportion to mu.

Equation (2) compares with the best scales, not with the network's constant. Dense in the number of
multipliers: for up to `MOST`.

Source: Benson, Ye and Zhang 2000, "Solving large-scale sparse semidefinite programs for
combinatorial optimization", for (2).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.methods.recursion.closed import Found
from verifier.methods.recursion.curvature import curvature
from verifier.methods.recursion.frontier import Pass, forward
from verifier.methods.recursion.idle import Settled
from verifier.methods.recursion.objective import Objective
from verifier.methods.recursion.plan import Step, gated

MOST = 12_000  #: multipliers
_FIRST = 0.1  #: mu times the order of T at the start, in units of s
_NEAR = 1.0  #: a Newton step of this length or less, in its own norm, is near the path
_TAKEN = 0.85  #: of the way to where T stops being positive definite
_SHORTEST = 1e-5


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    point: Float64[Tensor, " multipliers"]
    level: float
    run: Pass
    spectrum: Float64[Tensor, " outputs"]  #: of R P R', or its diagonal
    merit: float  #: (1)


@dataclass(frozen=True, slots=True, eq=False)
class _Newton:
    """The step is `descent`/mu + `centring`; entry 0 is the level's."""

    descent: Float64[Tensor, " variables"]
    centring: Float64[Tensor, " variables"]
    traces: Float64[Tensor, " variables"]  #: a

    def step(self, share: float) -> Float64[Tensor, " variables"]:
        """The step at mu = `share`."""
        return self.descent / share + self.centring

    def length(self, share: float) -> float:
        """The step's length in the Hessian's norm."""
        square = -self.descent[0] / share**2 + 2 * (self.descent @ self.traces) / share
        return math.sqrt(max(float(square + self.centring @ self.traces), 0.0))


class Barrier:
    """T in units of its start: the point of ones, and a level of 1."""

    def __init__(
        self,
        steps: Sequence[Step],
        start: Float64[Tensor, "inputs inputs"],
        objective: Objective,
        settled: Settled,
        level: float,
    ) -> None:
        """`level` is a unit for s."""
        self._steps, self._start, self._objective = steps, start, objective
        self._gates = [step.gated for step in gated(steps)]
        self._unit = torch.cat(
            [gate.mean(each) for gate, each in zip(self._gates, settled.scales, strict=True)]
        )
        self._is_fixed = settled.is_fixed
        self._level = level
        self.order = len(objective.rows) + int((~settled.is_fixed).sum())

    @property
    def origin(self) -> Float64[Tensor, " multipliers"]:
        """The start."""
        return torch.ones_like(self._unit)

    @property
    def multipliers(self) -> int:
        """The number of variables but the level."""
        return len(self._unit)

    def scales(self, point: Float64[Tensor, " multipliers"]) -> list[Float64[Tensor, " _"]]:
        """D of every gate."""
        parts = (point * self._unit).split([gate.multipliers for gate in self._gates])
        return [gate.per_psi(part) for gate, part in zip(self._gates, parts, strict=True)]

    def state(
        self, point: Float64[Tensor, " multipliers"], share: float, level: float | None = None
    ) -> _State | None:
        """The point with its level, or the best level; None where T is not positive definite."""
        if not bool((0 < point).all()):
            return None
        run = forward(self._steps, self._start, self.scales(point), keeps=True)
        if run is None:
            return None
        spectrum = self._objective.spectrum(run.covariance) / self._level
        if level is None:
            level = _best_level(spectrum, share)
        if level <= float(spectrum.max()):
            return None
        log_det = run.log_det + float((level - spectrum).log().sum())
        return _State(point, level, run, spectrum, level / share - log_det)

    def newton(self, state: _State) -> _Newton | None:
        """The Newton step's parts; None where the Hessian is not positive definite."""
        rows = self._objective.rows
        inverse = self._objective.inverse(state.run.covariance, state.level * self._level)
        found = curvature(self._steps, state.run, rows, inverse)
        size = self.multipliers + 1
        hessian = inverse.new_empty(size, size)
        hessian[1:, 1:] = self._pooled(found.hessian)
        hessian[1:, 1:].mul_(self._unit).mul_(self._unit[:, None])
        hessian[0, 1:] = self._pooled(found.crossed) * self._unit * self._level
        hessian[1:, 0] = hessian[0, 1:]
        hessian[0, 0] = inverse.square().sum() * self._level**2
        traces = inverse.new_empty(size)
        traces[0] = inverse.diagonal().sum() * self._level
        traces[1:] = -self._pooled(found.gradient) * self._unit
        # A scale that stays: its equation says that it does.
        fixed = 1 + torch.nonzero(self._is_fixed).flatten()
        hessian[fixed], hessian[:, fixed], traces[fixed] = 0.0, 0.0, 0.0
        hessian[fixed, fixed] = 1.0
        factor, failed = torch.linalg.cholesky_ex(hessian)
        if failed:
            return None
        first = torch.zeros_like(traces)
        first[0] = -1.0
        solved = torch.cholesky_solve(torch.stack([first, traces], dim=1), factor)
        return _Newton(solved[:, 0], solved[:, 1], traces)

    def _pooled(self, values: Float64[Tensor, "psis ..."]) -> Float64[Tensor, "multipliers ..."]:
        sizes = [len(gate.owner) for gate in self._gates]
        if sum(sizes) == self.multipliers:
            return values
        parts = zip(self._gates, values.split(sizes), strict=True)
        rows = torch.cat([gate.pooled(part) for gate, part in parts])
        return self._pooled(rows.T).T if 1 < values.dim() and len(rows.T) != len(rows) else rows


def centred(barrier: Barrier, share: float = _FIRST) -> Iterator[Found]:
    """Points along the path from the point of ones, one an iteration, until it stalls."""
    mu = share / barrier.order
    state = barrier.state(barrier.origin, mu)
    lowest = 0.0
    while state is not None:
        newton = barrier.newton(state)
        if newton is None:
            return
        lowest = max(lowest, _lower_level(barrier, state, newton, mu))
        state, mu = _advanced(barrier, state, newton, mu)
        if state is None:
            return
        top = float(state.spectrum.max())
        gap = math.sqrt(top / lowest) - 1 if 0 < lowest else math.inf
        yield Found(
            scales=tuple(barrier.scales(state.point)), covariance=state.run.covariance, gap=gap
        )


def _lower_level(barrier: Barrier, state: _State, newton: _Newton, mu: float) -> float:
    """Equation (2), for the smallest of halved mu that it holds for; 0 if for none."""
    lowest = 0.0
    while newton.length(mu) < 3.0:
        step = newton.step(mu)
        mirrored = barrier.state(state.point - step[1:], mu, state.level - float(step[0]))
        if mirrored is None:
            break
        lowest = state.level - mu * (barrier.order - float(newton.traces @ step))
        mu /= 2
    return lowest


def _advanced(
    barrier: Barrier, state: _State, newton: _Newton, mu: float
) -> tuple[_State | None, float]:
    """Along the path where it is near, else towards it; the state and its mu."""
    if newton.length(mu) < _NEAR:
        reach = 0.95
        while 0.05 < reach:
            ahead = newton.step(mu) + newton.descent * (reach / mu)
            if barrier.state(state.point + ahead[1:], mu) is not None:
                reach *= _TAKEN
                ahead = newton.step(mu) + newton.descent * (reach / mu)
                mu *= 1 - reach
                return barrier.state(state.point + ahead[1:], mu), mu
            reach *= 0.75
    step, best, length = newton.step(mu), None, 1.0
    while _SHORTEST < length:
        trial = barrier.state(state.point + length * step[1:], mu)
        if trial is not None and trial.merit < (best or state).merit:
            best = trial
        elif best is not None:
            break
        length *= 0.5
    return best, mu


def _best_level(spectrum: Float64[Tensor, " outputs"], mu: float) -> float:
    """The s that minimises s/mu - sum log (s - q_i): within [mu, n mu] of the greatest q."""
    top = float(spectrum.max())
    low, high = mu, mu * len(spectrum)
    for _ in range(50):
        middle = (low + high) / 2
        if 1 / mu < float((1 / (top + middle - spectrum)).sum()):
            low = middle
        else:
            high = middle
    return top + high
