"""The anytime search: the best of a few starts, then the descent of all scales together.

The search of a large network runs in single precision; whatever leaves it has been evaluated again
in double.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import exp, inf, prod

import torch
from torch import Tensor

from verifier.methods.clock import Clock
from verifier.methods.progress import Aim, Step
from verifier.methods.torus.bounds import Measure
from verifier.methods.torus.descent import Evaluation, Point, descend
from verifier.methods.torus.leaving import Infeasible
from verifier.methods.torus.plan import Plan
from verifier.methods.torus.problem import Problem, Recorded
from verifier.methods.torus.recursion import Pass, Policy
from verifier.methods.torus.starts import Start
from verifier.methods.torus.structure import refusal

REACHES = (0.125, 0.18, 0.25, 0.35, 0.5, 0.7, 1.0, 1.4)  #: of the greedy starts, ascending
SLACKS = (0.3, 0.1, 0.02, 0.003, 3e-4)  #: of gates of mean slope 0; 1 is tried with the reaches
LARGE_WORK = 2e9  #: multiplications of a pass from which the search is in single precision
_FIRST = 3  #: the place among the reaches where the search for the best begins
_DUE = 0.98  #: the share of the last candidate's bound at which the next one is due
_PATIENCE = 12  #: passes between candidates: a check costs some
SHARES = (0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4)  #: of the barriers' means, in turn
_WINDOW = 4  #: points over which the descent has to fall
_LEAST_FALL = 0.1  #: in shares, over that window


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Scales by key of the gate, what they are relative to K, and the bounds that they give."""

    bounds: tuple[float, ...]
    scales: Mapping[str, Tensor]
    relative: Mapping[str, Tensor]

    @property
    def worst(self) -> float:
        """The largest bound of the items."""
        return max(self.bounds, default=0.0)


def improving(plan: Plan, measure: Measure, clock: Clock, aim: Aim) -> Iterator[Found]:
    """Better and better scales, until the clock or the aim stops it, or nothing improves.

    Raises:
        TooLarge: no start has a bound within the range of floats.
    """
    return _Search(plan, measure, clock, aim).improving()


def work_of(plan: Plan) -> float:
    """The multiplications of one pass, about."""
    total = 0.0
    for step in (*plan.torus, *plan.dense):
        total += prod(step.sides) * step.gate.size * float(step.gate.size + step.size) ** 2
    return total


class _Search:
    def __init__(self, plan: Plan, measure: Measure, clock: Clock, aim: Aim) -> None:
        self._double = Problem(Pass(plan, torch.float64), measure)
        is_large = LARGE_WORK < work_of(plan)
        self._quick = Problem(Pass(plan, torch.float32), measure) if is_large else self._double
        self._plan = plan
        self._clock = clock
        self._aim = aim
        self._steps = 0
        self._slowest = 0.0  #: seconds of a step
        self._reached = inf  #: the objective where the last candidate stands

    def improving(self) -> Iterator[Found]:
        start = self._best_start()
        best = None if start is None else self._proper(start)
        if start is None or best is None:
            raise refusal("no start has a bound within the range of floats")
        yield best
        since, last = self._steps, None
        for point in self._descent(start):
            last = point
            bound = best.worst * exp(point.objective - self._reached)
            is_due = _PATIENCE <= self._steps - since and bound < _DUE * best.worst
            if is_due or bound <= self._aim.enough:
                found, since, last = self._proper_at(point), self._steps, None
                if found is not None and found.worst < best.worst:
                    best = found
                    yield best
            if self._is_over(best):
                break
        found = None if last is None else self._proper_at(last)
        if found is not None and found.worst < best.worst:
            yield found

    def _is_over(self, best: Found) -> bool:
        return self._clock.remaining < self._slowest or best.worst <= self._aim.enough

    # --- Starts ----------------------------------------------------------------------------------

    def _best_start(self) -> Found | None:
        """The best reach, by walking from the middle as long as it gets better; then the rest."""
        seen: dict[int, Found | None] = {}

        def worst(place: int) -> float:
            if not 0 <= place < len(REACHES):
                return inf
            if place not in seen:
                seen[place] = self._tried(Start(reach=REACHES[place]))
            found = seen[place]
            return inf if found is None else found.worst

        place = _FIRST
        for turn in (1, -1):
            while not self._is_hurried(seen) and worst(place + turn) < worst(place):
                place += turn
        best = self._least(list(seen.values()))
        others = [Start(shape="level", reach=1.0, slack=SLACKS[-1])]
        if any(not gate.mean.any() for gate in self._plan.gates):
            others += [Start(reach=REACHES[place], slack=slack) for slack in SLACKS]
        for start in others:
            if not self._is_hurried(seen):
                best = self._least([best, self._tried(start)])
        return best

    def _is_hurried(self, seen: Mapping[int, Found | None]) -> bool:
        return bool(seen) and self._clock.remaining < 3 * self._slowest

    def _least(self, tried: list[Found | None]) -> Found | None:
        return min((found for found in tried if found), key=lambda found: found.worst, default=None)

    def _tried(self, policy: Policy, problem: Problem | None = None) -> Found | None:
        """What a policy gives; None where its scales are too small."""
        problem = problem or self._quick
        started = self._count("greedy")
        recorded = Recorded(policy)
        try:
            with torch.no_grad():
                covariance = problem.run.run(recorded).double()
        except Infeasible:
            return None
        finally:
            self._slowest = max(self._slowest, time.monotonic() - started)
        if not covariance.isfinite().all():
            return None
        return Found(problem.measure.bounds(covariance), recorded.scales, recorded.relative)

    # --- Descent ---------------------------------------------------------------------------------

    def _descent(self, start: Found) -> Iterator[Point]:
        """Points from a start on: barriers of falling shares keep them off what is infeasible."""
        place = self._quick.packed(start.relative)
        self._reached = inf
        for share in SHARES:
            values: list[float] = []
            for point in descend(self._evaluation(share / self._quick.count), place):
                place = point.place
                values.append(point.value)
                if self._reached == inf:
                    self._reached = point.objective
                yield point
                if _WINDOW < len(values):
                    fall = values[-_WINDOW - 1] - values[-1]
                    if fall < _LEAST_FALL * share:
                        break

    def _evaluation(self, share: float) -> Evaluation:
        def evaluate(theta: Tensor) -> Point | None:
            if self._clock.remaining < 2 * self._slowest:
                return None  # no time: every further step is as good as infeasible
            started = self._count("descent")
            point = self._quick.evaluate(theta, share)
            self._slowest = max(self._slowest, time.monotonic() - started)
            return point

        return evaluate

    def _proper_at(self, point: Point) -> Found | None:
        """A point in double precision, which is where later points start from."""
        self._reached = point.objective
        return self._tried(self._double.policy(point.place), self._double)

    def _proper(self, start: Found) -> Found | None:
        """A start in double precision."""
        if self._quick is self._double:
            return start
        return self._tried(self._double.policy(self._double.packed(start.relative)), self._double)

    def _count(self, phase: str) -> float:
        self._steps += 1
        self._aim.report(Step(phase=phase, iteration=self._steps))
        return time.monotonic()
