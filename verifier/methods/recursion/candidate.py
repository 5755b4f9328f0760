"""From a property to candidates, each better than those before: closed forms, then searches."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from verifier.certificate import Candidate, RecursionProof
from verifier.errors import InvalidRequest, JobFailed, TooLarge
from verifier.methods import progress
from verifier.methods.clock import Clock
from verifier.methods.items import Item, items_of, varying_inputs
from verifier.methods.lipsdp import Options, global_slopes
from verifier.methods.progress import NO_AIM, Aim
from verifier.methods.recursion.barrier import MOST, Barrier, centred
from verifier.methods.recursion.closed import FAST, PRODUCT, SCAN, Found, Known, chosen, normalised
from verifier.methods.recursion.descent import FINE, FIRST_SHARE, ROUGH, Landscape, descend
from verifier.methods.recursion.idle import Settled, settled
from verifier.methods.recursion.objective import Objective, bound_of
from verifier.methods.recursion.plan import Step, entries_of, gated, steps_of, widest_of
from verifier.methods.weights import plain_norms
from verifier.network.graph import Network
from verifier.norms import Norm, NormPair
from verifier.property import Property
from verifier.regions import Everywhere

MEMORY_BYTES = 8e9  #: the most that a search may hold
_WORTH = 0.995  #: a candidate is handed out if its bound is below this multiple of the last one's
_PAUSE = 1.5  #: and not before the time since the start has grown by this factor
_SHARE = 0.02  #: of what is left: a closed form that costs more is the last one
_GREATEST = 2.0**900  #: scales beyond, or below its inverse, are not stored
_CLOSED = "closed forms"

Scales: TypeAlias = Float64[np.ndarray, " _"]


def candidates(
    network: Network,
    asked: Property,
    options: Options,
    clock: Clock,
    aim: Aim = NO_AIM,
    known: Mapping[str, Scales] | None = None,
) -> Iterator[Candidate]:
    """Scales that bound every item of the property, better and better until the clock runs out.

    All items share the scales; the searches make the largest bound small.

    Args:
        network: not lowered.
        asked: the property.
        options: of LipSDP.
        clock: no step begins after it has expired.
        aim: when a bound is enough, and who is told of steps.
        known: scales to start near, by gate: one for each neuron, or for as many as are alike.

    Raises:
        InvalidRequest: an index of the property is out of range, or the scope is local.
        JobFailed: the squares of the network's gains leave the range of float64.
        NotLipschitzGlobally: an activation's slopes are unbounded.
        TooLarge: the covariance of the live signals does not fit into memory.
    """
    if not isinstance(asked.region, Everywhere):
        raise InvalidRequest(
            "the block recursion bounds over all inputs, and the scope is local",
            fix='ask for scope "global"',
            pointer="/property/scope",
        )
    lowered = network.lowered("keep")
    steps = steps_of(lowered, global_slopes(lowered))
    _refuse_large(steps, network.input_size)
    question = _Question(
        network,
        items_of(asked, network.output_size),
        plain_norms(asked.norm),
        varying_inputs(asked, network.input_size),
    )
    hunt = _Hunt(question, normalised(steps, question.start), options, clock, aim)
    yield from hunt.candidates(known or {})


@dataclass(frozen=True, slots=True, eq=False)
class _Question:
    """The property, and the network it is asked of."""

    network: Network
    items: tuple[Item, ...]
    norm: NormPair
    inputs: Int64[Tensor, " selected"]  #: those that vary

    @property
    def start(self) -> Float64[Tensor, "inputs inputs"]:
        """The covariance of inputs that vary alike."""
        diagonal = torch.zeros(self.network.input_size, dtype=torch.float64)
        diagonal[self.inputs] = 1.0
        return torch.diag(diagonal)

    @property
    def searched(self) -> Int64[Tensor, " searched"]:
        """The inputs whose covariance is searched: for linf inputs all that vary, else none."""
        return self.inputs if self.norm.input is Norm.LINF else self.inputs[:0]


class _Hunt:
    """One run: the best scales so far, and when to hand them out."""

    def __init__(
        self, question: _Question, steps: tuple[Step, ...], options: Options, clock: Clock, aim: Aim
    ) -> None:
        self._question, self._steps, self._options = question, steps, options
        self._clock, self._aim = clock, aim
        self._best: Found | None = None
        self._origin: Found | None = None  #: where searches start
        self._told = math.inf  #: the largest bound handed out
        self._told_at = clock.elapsed
        self._began = clock.elapsed

    def candidates(self, known: Mapping[str, Scales]) -> Iterator[Candidate]:
        """Closed forms, the first-order search, and the barrier's path."""
        yield from self._followed(_CLOSED, self._closed(self._known(known)))
        if self._best is None or not math.isfinite(self._bound(self._best)):
            raise beyond_range()
        if not gated(self._steps) or not 0 < self._bound(self._best) or self._is_over():
            return
        yield from self._followed("descent", self._descent(self._origin or self._best))
        if self._may_centre(self._best):
            path = self._centred(self._origin or self._best)
            yield from self._followed("central path", islice(path, self._options.iterations))
        yield from self._told_best(1.0 - 1e-6)

    def _followed(self, phase: str, points: Iterable[Found]) -> Iterator[Candidate]:
        """The points of a search that are worth a certificate, and its last one."""
        for count, found in enumerate(points, 1):
            gap = found.gap
            self._aim.report(progress.Step(phase=phase, iteration=count, gap=gap))
            self._keep_better(found)
            if phase != _CLOSED and self._is_better(found, self._origin):
                self._origin = found
            if self._is_over() or (gap is not None and gap <= self._options.gap):
                break
            if self._is_due():
                yield from self._told_best()
        yield from self._told_best()

    def _keep_better(self, found: Found) -> None:
        if self._is_better(found, self._best):
            self._best = found

    def _is_better(self, found: Found, known: Found | None) -> bool:
        return known is None or self._bound(found) < self._bound(known)

    def _told_best(self, worth: float = _WORTH) -> Iterator[Candidate]:
        """The best one, if its bound is below this multiple of the last that was handed out."""
        if self._best is None or worth * self._told <= self._bound(self._best):
            return
        self._told, self._told_at = self._bound(self._best), self._clock.elapsed
        yield self._candidate(self._best)

    def _is_due(self) -> bool:
        spent = self._clock.elapsed - self._began
        return _PAUSE * (self._told_at - self._began) + 1.0 < spent

    def _is_over(self) -> bool:
        enough = self._best is not None and self._bound(self._best) <= self._aim.enough
        return enough or self._clock.has_expired

    def _known(self, scales: Mapping[str, Scales]) -> list[Known]:
        """The scales in the steps' units; none unless every gate has some."""
        found, exponent = dict[str, Tensor](), 0
        for step in self._steps:
            if step.psis:
                given = scales.get(step.gated.name)
                if given is None or not len(given) or step.gated.size % len(given):
                    return []
                found[step.gated.name] = torch.from_numpy(np.ldexp(given, 2 * exponent))
            exponent += _exponent(step)
        return [Known(found)]

    def _closed(self, known: list[Known]) -> Iterator[Found]:
        """The closed forms, as long as they cost little of what is left."""
        start = self._question.start
        for rule in chain(known, (FAST, PRODUCT), SCAN):
            before = self._clock.elapsed
            found = chosen(self._steps, start, rule)
            if found is not None:
                found = replace(found, inputs=self._unsearched())
                # At the product scales are on the verge of what is feasible: no place to start.
                if rule != PRODUCT and self._is_better(found, self._origin):
                    self._origin = found
                yield found
            if rule != FAST and _SHARE * self._clock.remaining < self._clock.elapsed - before:
                break

    def _unsearched(self) -> Float64[Tensor, " inputs"] | None:
        searched = self._question.searched
        return torch.ones(len(searched), dtype=torch.float64) if len(searched) else None

    def _descent(self, best: Found) -> Iterator[Found]:
        steps, start = self._steps, self._question.start
        objective, where = self._settled(best)
        landscape = Landscape(steps, start, objective, where, self._question.searched)
        return descend(landscape, ROUGH if self._may_centre(best) else FINE)

    def _may_centre(self, best: Found) -> bool:
        count = sum(step.gated.multipliers for step in gated(self._steps))
        is_convex = not len(self._question.searched) and self._objective(best).kind != "sum"
        return is_convex and count <= MOST and not self._is_over()

    def _centred(self, best: Found) -> Iterator[Found]:
        steps, start = self._steps, self._question.start
        objective, where = self._settled(best)
        level = float(objective.spectrum(best.covariance).max())
        return centred(Barrier(steps, start, objective, where, level))

    def _settled(self, best: Found) -> tuple[Objective, Settled]:
        objective = self._objective(best)
        order = sum(step.psis for step in gated(self._steps)) + len(objective.rows)
        barrier = FIRST_SHARE / order
        start = self._question.start
        return objective, settled(self._steps, start, best.scales, objective, barrier)

    def _objective(self, best: Found) -> Objective:
        return Objective.of(self._question.items, self._question.norm.output, best.covariance)

    def _bound(self, found: Found) -> float:
        return max(self._bounds(found))

    def _bounds(self, found: Found) -> tuple[float, ...]:
        """The items' bounds, in the units of the network."""
        question = self._question
        factor = 1.0
        if question.norm.input is Norm.LINF:
            inverse = len(question.inputs) if found.inputs is None else (1 / found.inputs).sum()
            factor = math.sqrt(float(inverse))
        exponent = sum(_exponent(step) for step in self._steps)
        bounds = (bound_of(item, question.norm.output, found.covariance) for item in question.items)
        return tuple(_power_of_two(bound * factor, -exponent) for bound in bounds)

    def _candidate(self, found: Found) -> Candidate:
        question = self._question
        inputs = None
        if question.norm.input is Norm.LINF:
            inputs = self._unsearched() if found.inputs is None else found.inputs
        return Candidate(
            method="lipsdp",
            estimates=self._bounds(found),
            proof=RecursionProof(
                patterns=question.network.patterns,
                inputs=None if inputs is None else inputs.numpy(),
                scales=self._named(found.scales),
            ),
        )

    def _named(self, scales: Sequence[Float64[Tensor, " _"]]) -> dict[str, Scales]:
        """The scales as proofs store them: in full length, in the units of the network."""
        named, remaining, exponent = dict[str, Scales](), iter(scales), 0
        for step in self._steps:
            if step.gate is not None:
                full = np.zeros(step.gate.size)
                if step.psis:
                    full[step.gate.owner.numpy()] = _scaled(next(remaining).numpy(), -2 * exponent)
                named[step.gate.name] = full
            exponent += _exponent(step)
        return named


def _exponent(step: Step) -> int:
    return math.frexp(step.scale)[1] - 1


def _scaled(values: Float64[np.ndarray, " n"], exponent: int) -> Float64[np.ndarray, " n"]:
    """The scales times a power of two."""
    with np.errstate(all="ignore"):
        scaled = np.ldexp(values, exponent)
    if not np.all((1 / _GREATEST <= scaled) & (scaled <= _GREATEST)):
        raise beyond_range()
    return scaled


def _power_of_two(value: float, exponent: int) -> float:
    try:
        return math.ldexp(value, exponent)
    except OverflowError:
        return math.inf


def beyond_range() -> JobFailed:
    """The error of networks whose gains, squared, no float64 holds."""
    return JobFailed(
        "the squares of the network's gains leave the range of float64",
        fix='ask for method "product", which carries exponents of its own',
    )


def _refuse_large(steps: Sequence[Step], inputs: int) -> None:
    """Refuse what does not fit: some matrices of the live signals, and two kept for each gate."""
    widest = widest_of(steps, inputs)
    needed = 8.0 * entries_of(steps, inputs)
    if MEMORY_BYTES < needed:
        raise TooLarge(
            f"up to {widest} signals are alive at once, and their covariances take about "
            f"{needed / 1e9:.0f} GB",
            fix='ask for method "product"',
        )
