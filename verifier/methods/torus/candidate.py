"""From a property to candidates: starts, then the descent of all scales together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.certificate import Candidate, Pattern, TorusProof
from verifier.errors import TooLarge
from verifier.methods.clock import Clock
from verifier.methods.items import items_of, varying_inputs
from verifier.methods.lipsdp import Options
from verifier.methods.progress import NO_AIM, Aim, Step
from verifier.methods.torus.bounds import Measure
from verifier.methods.torus.descent import descend
from verifier.methods.torus.leaving import Infeasible
from verifier.methods.torus.plan import Plan, plan_of
from verifier.methods.torus.recursion import Pass, Policy
from verifier.methods.torus.search import Problem, Recorded
from verifier.methods.torus.starts import Start
from verifier.methods.torus.structure import refusal, structure_of
from verifier.network.graph import Network
from verifier.network.linear_map import Adjoint, Composed, Convolution, LinearMap
from verifier.network.nodes import Affine
from verifier.property import Property
from verifier.regions import Everywhere

REACHES = (0.125, 0.25, 0.375, 0.5, 0.75, 1.0, 1.5)  #: of the greedy starts
SLACKS = (0.5, 0.1, 0.02, 0.003, 3e-4)  #: for gates of mean slope 0, 1 being tried already
_WORTH = 0.99  #: a candidate in the midst of the search is this share of the last
_PATIENCE = 12  #: passes between candidates: a check costs some


def applies(network: Network) -> bool:
    """Whether a network has convolutions at all: cheap, and no promise."""
    return any(
        _is_convolution(term.map)
        for node in network.nodes
        if isinstance(node, Affine)
        for term in node.terms
    )


def _is_convolution(linear: LinearMap) -> bool:
    match linear:
        case Convolution():
            return True
        case Adjoint():
            return _is_convolution(linear.of)
        case Composed():
            return _is_convolution(linear.first) or _is_convolution(linear.second)
        case _:
            return False


def candidates(
    network: Network,
    asked: Property,
    options: Options,  # noqa: ARG001 (all tiers of a method are called alike)
    clock: Clock,
    aim: Aim = NO_AIM,
) -> Iterator[Candidate]:
    """Scales shared by channels that prove ever better bounds.

    Raises:
        InvalidRequest: an index of the property is out of range.
        TooLarge: the network is no torus net, or too large a one.
    """
    if not isinstance(asked.region, Everywhere):
        raise refusal("the scope is local")
    measure = Measure(
        items=[item.rows for item in items_of(asked, network.output_size)],
        norm=asked.norm,
        inputs=len(varying_inputs(asked, network.input_size)),
    )
    search = _Search(plan_of(structure_of(network)), measure, clock, aim)
    for found in search.improving():
        yield Candidate(
            method="lipsdp",
            estimates=found.bounds,
            proof=_proof(search.plan, network.patterns, found.scales),
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """Scales by key of the gate, and the bounds that they give."""

    bounds: tuple[float, ...]
    scales: Mapping[str, Tensor]
    relative: Mapping[str, Tensor]

    @property
    def worst(self) -> float:
        """The largest bound of the items."""
        return max(self.bounds, default=0.0)


class _Search:
    """The anytime search."""

    def __init__(self, plan: Plan, measure: Measure, clock: Clock, aim: Aim) -> None:
        self.plan = plan
        self._measure = measure
        self._clock = clock
        self._aim = aim
        self._steps = 0

    def improving(self) -> Iterator[_Found]:
        """Better and better, until the clock or the aim stops it, or nothing improves."""
        best = self._best_start()
        if best is None:
            raise refusal("no start has a bound within the range of floats")
        yield best
        last, since = best, self._steps
        for found in self._descent(best):
            if found.worst < best.worst:
                best = found
            due = _PATIENCE <= self._steps - since and best.worst < _WORTH * last.worst
            if due or best.worst <= self._aim.enough:
                last, since = best, self._steps
                yield best
            if self._is_over(best):
                break
        if best.worst < last.worst:
            yield best

    def _is_over(self, best: _Found) -> bool:
        return self._clock.has_expired or best.worst <= self._aim.enough

    def _best_start(self) -> _Found | None:
        best: _Found | None = None
        has_abs = any(not gate.mean.any() for gate in self.plan.gates)
        starts: list[Start] = [Start(reach=reach) for reach in REACHES]
        for start in starts:
            best = self._better(best, self._tried(start))
            if self._clock.has_expired:
                break
        return best if not has_abs else self._slackened(best)

    def _slackened(self, best: _Found | None) -> _Found | None:
        for shape in ("greedy", "level"):
            for slack in SLACKS:
                if best is not None and self._is_over(best):
                    return best
                best = self._better(best, self._tried(Start(shape=shape, slack=slack)))
        return best

    def _better(self, best: _Found | None, found: _Found | None) -> _Found | None:
        if best is None or found is None:
            return best or found
        return found if found.worst < best.worst else best

    def _tried(self, policy: Policy) -> _Found | None:
        """What a policy gives, in float64; None where its scales are too small."""
        self._count("greedy")
        recorded = Recorded(policy)
        try:
            with torch.no_grad():
                covariance = Pass(self.plan).run(recorded)
        except Infeasible:
            return None
        if not covariance.isfinite().all():
            return None
        return _Found(self._measure.bounds(covariance), recorded.scales, recorded.relative)

    def _descent(self, start: _Found) -> Iterator[_Found]:
        """Descent in single precision; every point is evaluated again in double."""
        problem = Problem(Pass(self.plan, torch.float32), self._measure)

        def evaluate(theta: Tensor) -> tuple[float, Tensor] | None:
            self._count("descent")
            return problem.evaluate(theta)

        for point in descend(evaluate, problem.packed(start.relative)):
            found = self._tried(problem.policy(point.place))
            if found is not None:
                yield found
            if self._clock.has_expired:
                return

    def _count(self, phase: str) -> None:
        self._steps += 1
        self._aim.report(Step(phase=phase, iteration=self._steps))


def _proof(
    plan: Plan, patterns: Sequence[Pattern], scales: Mapping[str, Tensor]
) -> TorusProof:
    gates: dict[str, Tensor] = {}
    masks: dict[str, Tensor] = {}
    for step in (*plan.torus, *plan.dense):
        gate = step.gate
        if not gate.name:
            continue
        array = (masks if gate.is_mask else gates).setdefault(
            gate.name, torch.zeros(gate.scales, dtype=torch.float64)
        )
        if not gate.is_linear:
            array[gate.owner] = scales[gate.key]
    return TorusProof(
        patterns=tuple(patterns),
        sides=plan.sides,
        scales={name: array.numpy() for name, array in gates.items()},
        masks={name: array.numpy() for name, array in masks.items()},
    )
