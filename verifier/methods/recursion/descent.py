"""First-order search over all scales at once: L-BFGS in relative logarithms.

    D_t = exp(theta_t) tr K_t / n_t,    minimise log of the bound over theta              (1)

In these variables a change of an early gate's scales carries the later ones with it, and the
search needs some tens of gradients where absolute scales need hundreds. The greatest eigenvalue
is smoothed by a p-norm of growing power. For linf inputs the inputs' covariance diag(e) is
searched as well: |dx|_2 in the norm of 1/e is at most sqrt(sum 1/e) |dx|_inf.

Source: Liu and Nocedal 1989, "On the limited memory BFGS method".
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from verifier.methods.recursion.closed import Found
from verifier.methods.recursion.frontier import backward, forward
from verifier.methods.recursion.idle import Settled
from verifier.methods.recursion.objective import Objective
from verifier.methods.recursion.plan import Step, gated


@dataclass(frozen=True, slots=True)
class Patience:
    """How far the search goes."""

    powers: tuple[float, ...]  #: of the p-norm, one after another
    flat: float  #: progress over `_WINDOW` iterations, in the logarithm, that ends a power


ROUGH = Patience((20.0,), 2e-3)  #: for a start
FINE = Patience((20.0, 80.0, 320.0), 2e-4)

_MEMORY = 20  #: pairs of L-BFGS
_WINDOW = 8
_ARMIJO = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class _Value:
    log: float
    gradient: Float64[Tensor, " variables"]
    found: Found


class Landscape:
    """The objective as a function of theta and of log e."""

    def __init__(
        self,
        steps: Sequence[Step],
        start: Float64[Tensor, "inputs inputs"],
        objective: Objective,
        settled: Settled,
        searched: Int64[Tensor, " searched"],
    ) -> None:
        """`searched` are the inputs whose covariance is searched, if any."""
        self._steps, self._start, self._objective = steps, start, objective
        self._settled, self._searched = settled, searched
        self._sizes = [step.gated.multipliers for step in gated(steps)]
        moving = torch.zeros(len(searched), dtype=torch.bool)
        self._is_fixed = torch.cat([settled.is_fixed, moving])

    @property
    def origin(self) -> Float64[Tensor, " variables"]:
        """The variables of the scales to start from."""
        run = forward(self._steps, self._start, self._settled.scales, keeps=True)
        if run is None:
            raise ValueError("the scales are not feasible")
        passed = [left for left in run.passed if left is not None]
        parts = [
            (step.gated.mean(left.noise) / left.mean).log()
            for step, left in zip(gated(self._steps), passed, strict=True)
        ]
        return torch.cat([*parts, self._start.diagonal()[self._searched].log()])

    def value(self, point: Float64[Tensor, " variables"], power: float) -> _Value | None:
        """Value and gradient; None where a scale is too small."""
        *thetas, last = point.split([*self._sizes, len(self._searched)])
        gates = [step.gated for step in gated(self._steps)]
        inputs = last.exp() if len(last) else None
        start = self._start
        if inputs is not None:
            start = torch.diag(torch.zeros_like(start[0]).index_copy(0, self._searched, inputs))
        scales = [gate.per_psi(theta.exp()) for gate, theta in zip(gates, thetas, strict=True)]
        run = forward(self._steps, start, scales, keeps=True, relative=True)
        if run is None or not bool(run.covariance.isfinite().all()):
            return None
        log, weight = self._objective.smoothed(run.covariance, power)
        gradients, first = backward(self._steps, run, weight, relative=True)
        noises = [left.noise for left in run.passed if left is not None]
        slopes = [
            gate.pooled((each.felt - each.drawn) * noise)
            for gate, each, noise in zip(gates, gradients, noises, strict=True)
        ]
        if inputs is not None:
            total = (1 / inputs).sum()
            log += float(total.log())
            slopes.append(first.diagonal()[self._searched] * inputs - 1 / (inputs * total))
        gradient = torch.cat([point.new_zeros(0), *slopes]).masked_fill(self._is_fixed, 0.0)
        found = Found(scales=tuple(noises), covariance=run.covariance, inputs=inputs)
        return _Value(log, gradient, found)


def descend(landscape: Landscape, patience: Patience) -> Iterator[Found]:
    """Points of falling objective, one an iteration, until progress ends."""
    point = landscape.origin
    for power in patience.powers:
        for reached, found in _lbfgs(landscape, point, power, patience.flat):
            point = reached
            yield found


def _lbfgs(
    landscape: Landscape, point: Float64[Tensor, " variables"], power: float, flat: float
) -> Iterator[tuple[Float64[Tensor, " variables"], Found]]:
    here = landscape.value(point, power)
    pairs: list[tuple[Tensor, Tensor]] = []
    logs: list[float] = []
    while here is not None and float(here.gradient.norm()):
        yield point, here.found
        logs.append(here.log)
        if _WINDOW < len(logs) and logs[-1 - _WINDOW] - logs[-1] < flat:
            return
        way = _direction(here.gradient, pairs)
        length, ahead = _step_along(landscape, point, power, here, way)
        if ahead is None:
            return
        moved, bent = length * way, ahead.gradient - here.gradient
        if 1e-12 * float(moved.norm() * bent.norm()) < float(moved @ bent):
            pairs = [*pairs, (moved, bent)][-_MEMORY:]
        point, here = point + moved, ahead


def _direction(
    gradient: Float64[Tensor, " n"], pairs: Sequence[tuple[Tensor, Tensor]]
) -> Float64[Tensor, " n"]:
    """Minus the inverse Hessian's estimate times the gradient, by the two loops of L-BFGS."""
    way, shares = -gradient, list[Tensor]()
    for moved, bent in reversed(pairs):
        share = (moved @ way) / (moved @ bent)
        shares.append(share)
        way = way - share * bent
    if pairs:
        moved, bent = pairs[-1]
        way = way * (moved @ bent) / (bent @ bent)
    else:
        way = way * (0.3 / way.norm())
    for (moved, bent), share in zip(pairs, reversed(shares), strict=True):
        way = way + (share - (bent @ way) / (moved @ bent)) * moved
    return way


def _step_along(
    landscape: Landscape,
    point: Float64[Tensor, " n"],
    power: float,
    here: _Value,
    way: Float64[Tensor, " n"],
) -> tuple[float, _Value | None]:
    """The longest of halved steps that falls enough; none where none does."""
    slope, length = float(here.gradient @ way), 1.0
    while 1e-6 < length and slope < 0:
        ahead = landscape.value(point + length * way, power)
        if ahead is not None and ahead.log <= here.log + _ARMIJO * length * slope:
            return length, ahead
        length /= 2
    return math.nan, None
