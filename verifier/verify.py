"""The one conductor: read the model, run the tiers, prove what they find, keep the best.

A run is anytime. Each tier's answer is proved and published as soon as it is there, and whatever
ends the run (gap, target, budget, a tier that does not apply) the best certificate stands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from verifier.centers import CenterRun
from verifier.certificate import Attempt, Certificate, LmiProof, Witness
from verifier.checkpoint import Checkpoint, Growth, read_checkpoint, unusable
from verifier.entries import EntryRun, options_of
from verifier.errors import (
    CapabilityBlocked,
    JobFailed,
    LipcertError,
    NotCheckable,
    OutOfBudget,
    TooLarge,
)
from verifier.estimate import available_bytes, refuse_too_large
from verifier.methods import report, witness
from verifier.methods.clock import Clock
from verifier.methods.items import items_of, varying_inputs
from verifier.methods.progress import Aim, Step
from verifier.network.graph import Network
from verifier.onnx_import import load
from verifier.options import RunOptions, read_options
from verifier.property import Reading, Request
from verifier.proving import (
    Case,
    Unproved,
    breakdown,
    confirmed,
    finished,
    prove,
    rejection,
    with_witness,
)
from verifier.regions import Centers, Everywhere
from verifier.sizes import sizes_of
from verifier.tiers import Tier, tiers_of
from verifier.version import PRODUCER

WITNESS_SECONDS = 2.0  #: the most that a search for a lower bound may take
GLANCE_SECONDS = 0.25  #: where methods follow that are told when a bound is near enough
WITNESS_SHARE = 0.2  #: of what is left of the budget, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run is: proved numbers only."""

    phase: str
    upper: float | None
    lower: float | None
    seconds: float
    iteration: int | None = None  #: of the search that is running
    gap: float | None = None  #: which that search sees between its own two sides; not proved
    open: int | None = None  #: parts of the region that branch and bound has not done yet


def inspect(model: bytes, request: Request | None = None) -> dict[str, object]:
    """What the importer understood of a model, as JSON members.

    Args:
        model: the bytes of an ONNX file.
        request: what is bound, chosen and frozen; None: nothing, all outputs.

    Raises:
        ModelRefused: the file cannot be read.
        InvalidRequest: the request does not fit it.
    """
    imported = load(model, None if request is None else reading_of(request))
    network = imported.network
    return {**imported.summary(), "sizes": None if network is None else sizes_of(network)}


def reading_of(request: Request) -> Reading:
    """The function of a file that a request is about."""
    freezes = read_options(RunOptions, request.options).freeze_initializers
    idealises = request.semantics == "real-idealised"
    return Reading.of(request.property, freezes=freezes, idealises=idealises)


def verify(
    model: bytes,
    request: Request,
    *,
    on_certificate: Callable[[Certificate], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_checkpoint: Callable[[bytes], None] | None = None,
    checkpoint: bytes | None = None,
) -> Certificate:
    """The best certificate that the budget allows; each one that the checker accepts on the way.

    Args:
        model: the bytes of an ONNX file.
        request: the property, the method, its options and the budget.
        on_certificate: called with every certificate that is better than those before it.
        on_progress: called at the start of every tier, and at every step of its search.
        on_checkpoint: called, every few seconds, with what branch and bound can be continued from.
        checkpoint: such bytes, from an earlier run: branch and bound goes on from there at once.

    Raises:
        ModelRefused: the file cannot be read.
        CapabilityBlocked: a node takes this answer from the model.
        RequestRefused: the question does not fit the model, or is too large.
        JobFailed: nothing was proved.
    """
    clock = Clock.start(request.budget.seconds)
    options = read_options(RunOptions, request.options)
    imported = load(model, reading_of(request))
    network = imported.require_network()
    # Methods know indices only; what is claimed is what was asked.
    asked = request.property.located(imported.output_places)
    claimed, request = request.property, replace(request, property=asked)
    varying_inputs(asked.entries, network.input_size)
    _refuse_too_large(request, network, imported.parameters)
    case = Case(
        model=model,
        model_id=imported.sha256,
        asked=claimed,
        assumptions=imported.assumptions,
        idealised=network.idealised,
        items=items_of(asked.entries, network.output_size),
        patterns=network.patterns,
        target=request.target,
        producer={**PRODUCER, "torch": torch.__version__, "seed": options.seed},
    )
    start = None if checkpoint is None else _start(checkpoint, case)
    listeners = _Listeners(on_certificate, on_progress, on_checkpoint)
    call = _Call(case=case, request=request, network=network, clock=clock, listeners=listeners)
    if asked.kind != "lipschitz":
        return _entries(call)
    if isinstance(asked.region, Centers):
        return _centers(call)
    tiers = tiers_of(request, network, start)

    def seek(budget: Clock) -> Witness | None:
        return witness.search(network, asked, budget, options.seed)

    def near(points: Sequence[tuple[float, ...]]) -> Witness | None:
        return witness.near(network, asked, points, clock)

    return _Run(call, (seek, near)).best_of(tiers)


def _refuse_too_large(request: Request, network: Network, parameters: int) -> None:
    """Refuse, before any work, what no method can answer in the memory of this process.

    Raises:
        TooLarge: with what is too large, and what to ask instead.
    """
    facts = {
        "input": {"size": network.input_size},
        "output": {"size": network.output_size},
        "parameters": parameters,
        "sizes": sizes_of(network, of_inequality=request.method == "lipsdp"),
    }
    refuse_too_large(request, facts, available_bytes())


def _start(checkpoint: bytes, case: Case) -> Growth:
    """The trees of a checkpoint, where it belongs to this run.

    Raises:
        InvalidRequest: it does not, or cannot be read.
    """
    growth = read_checkpoint(checkpoint).require(case.model_id, case.asked)
    if case.asked.kind != "lipschitz" or isinstance(case.asked.region, Centers):
        raise unusable("is of branch and bound, which this property is not answered by")
    return growth


@dataclass(frozen=True, slots=True)
class _Listeners:
    """Who is told what a run finds."""

    certificate: Callable[[Certificate], None] | None
    progress: Callable[[Progress], None] | None
    checkpoint: Callable[[bytes], None] | None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Call:
    """One call of `verify`: what is asked of what, and who is told."""

    case: Case
    request: Request
    network: Network
    clock: Clock
    listeners: _Listeners

    def publish(self, certificate: Certificate) -> None:
        """Tell of a better certificate."""
        if self.listeners.certificate is not None:
            self.listeners.certificate(certificate)

    def report(self, phase: str, done: int | None = None, upper: float | None = None) -> None:
        """Tell how far a run is that looks for no lower bound on the way."""
        seconds = self.clock.elapsed
        if self.listeners.progress is not None:
            self.listeners.progress(
                Progress(phase=phase, upper=upper, lower=None, seconds=seconds, iteration=done)
            )


def _entries(call: _Call) -> Certificate:
    """The answer of the kinds that are about entries of the Jacobian."""
    options, propagating = options_of(call.request)
    return EntryRun(
        case=call.case,
        asked=call.request.property,
        network=call.network,
        clock=call.clock,
        options=propagating,
        seed=options.seed,
        publish=call.publish,
        report=call.report,
    ).answer()


def _centers(call: _Call) -> Certificate:
    """The answer for regions around many centers."""
    return CenterRun(
        case=call.case,
        request=call.request,
        network=call.network,
        clock=call.clock,
        seed=read_options(RunOptions, call.request.options).seed,
        publish=call.publish,
        report=call.report,
    ).answer()


class _Run:
    """One run: what is proved so far, and when to stop."""

    def __init__(
        self,
        call: _Call,
        witnesses: tuple[
            Callable[[Clock], Witness | None],
            Callable[[Sequence[tuple[float, ...]]], Witness | None],
        ],
    ) -> None:
        self._call = call
        self._case = call.case
        self._request = call.request
        self._network = call.network
        self._clock = call.clock
        self._listeners = call.listeners
        self._seek, self._near = witnesses
        self._best: Certificate | None = None
        self._witness: Witness | None = None
        self._attempts: list[Attempt] = []
        self._layers: Mapping[str, object] | None = None  #: the product tier's report
        self._notes: dict[str, float] = {}  #: estimates of the tiers
        self._troubles: list[LipcertError] = []

    def best_of(self, tiers: list[Tier]) -> Certificate:
        """Run the tiers until the gap, the target, the budget or their end is reached."""
        for step in self._steps(tiers):
            if self._best is not None and (self._clock.has_expired or self._is_answered()):
                break
            step()
        if self._best is None:
            raise self._failure()
        return replace(self._finished(self._best), report=self._reported(self._best))

    def _steps(self, tiers: list[Tier]) -> Iterator[Callable[[], None]]:
        """The tiers, and the search for a witness: before the last, a glance after the first."""
        *before, last = tiers
        for place, tier in enumerate(before):
            yield lambda tier=tier: self._attempt(tier)
            if place == 0 and 1 < len(before):
                yield lambda: self._look_for_witness(GLANCE_SECONDS)
        yield lambda: self._look_for_witness(WITNESS_SECONDS)
        yield lambda: self._attempt(last)

    def _attempt(self, tier: Tier) -> None:
        """Run one tier and keep its certificate where it is better."""
        self._report(tier.name)
        spent = Clock.start(0.0)
        bound: float | None = None
        try:
            for candidate in tier.run(self._clock, self._aim(tier.name)):
                if candidate.points:
                    self._keep_higher(self._near(candidate.points))
                outcome = prove(self._case, candidate, self._witness, self._attempts)
                if isinstance(outcome, Unproved):
                    self._troubles.append(rejection(tier.name, outcome))
                    if outcome.verdict.code == NotCheckable.code:
                        break  # of this network nothing can be proved
                    continue
                bound = _lesser(bound, outcome.claim.bound)
                self._layers = outcome.report or self._layers
                self._keep_better(outcome)
                if self._clock.has_expired or self._is_answered():
                    break
        except (CapabilityBlocked, TooLarge, JobFailed) as trouble:
            # A tier that does not apply is no failure while another one answers.
            self._troubles.append(trouble)
        except (MemoryError, RuntimeError) as error:
            # torch reports exhausted memory and failed factorisations as RuntimeError. Whatever
            # ends a tier, what was proved before it stands.
            self._troubles.append(breakdown(tier.name, error))
        self._attempts.append(Attempt(method=tier.name, bound=bound, seconds=spent.elapsed))

    def _aim(self, phase: str) -> Aim:
        """What would answer the request, and where steps are reported."""
        lower = 0.0 if self._witness is None else self._witness.value
        enough = max(lower * (1 + self._request.budget.gap), self._request.target or 0.0)
        return Aim(
            enough=enough,
            gap=self._request.budget.gap,
            report=lambda step: self._report(phase, step),
            note=self._notes.__setitem__,
            keep=None if self._listeners.checkpoint is None else self._keep_growth,
        )

    def _keep_growth(self, growth: Growth) -> None:
        """Tell what can be continued, unless it is too large to be stored."""
        data = Checkpoint.of(self._case.model_id, self._case.asked, growth).to_bytes()
        if data is not None and self._listeners.checkpoint is not None:
            self._listeners.checkpoint(data)

    def _look_for_witness(self, most: float) -> None:
        """Seek a lower bound with a share of the budget; only what the checker confirms counts."""
        self._report("witness")
        seconds = min(most, WITNESS_SECONDS, WITNESS_SHARE * self._clock.remaining)
        self._keep_higher(self._seek(Clock.start(seconds)))

    def _keep_higher(self, found: Witness | None) -> None:
        """Keep a witness if the checker confirms it, and that it reaches more than the last."""
        proved = None if found is None else confirmed(self._case, found)
        reached = 0.0 if self._witness is None else self._witness.value
        if proved is None or (self._witness is not None and proved.value <= reached):
            return
        self._witness = proved
        if self._best is not None:
            self._publish(with_witness(self._case, self._best, proved))

    def _keep_better(self, certificate: Certificate) -> None:
        if self._best is None or _log10(certificate) < _log10(self._best):
            self._publish(certificate)

    def _publish(self, certificate: Certificate) -> None:
        self._best = certificate
        self._call.publish(self._finished(certificate))

    def _is_answered(self) -> bool:
        """Whether the gap or the target is reached."""
        if self._best is None:
            return False
        if self._best.verdict in ("certified", "violated"):
            return True
        upper, lower = self._best.claim.bound, self._best.lower_bound
        if upper == 0:
            return True
        if upper is None or lower is None or lower.value <= 0:
            return False
        return upper / lower.value - 1 <= self._request.budget.gap

    def _finished(self, certificate: Certificate) -> Certificate:
        """The certificate with what lies outside its id, as of now."""
        return finished(certificate, self._attempts, self._clock.elapsed)

    def _reported(self, best: Certificate) -> Mapping[str, object] | None:
        """Layers as the checker proved them, and estimates; None for local runs."""
        if not isinstance(best.claim.property.region, Everywhere):
            return None
        notes = dict[str, object](self._notes)
        vertex = self._notes.get("vertex_maximum", 0.0)
        if 0 < vertex and best.claim.bound is not None and isinstance(best.proof, LmiProof):
            notes["relaxation_tight"] = max(best.claim.bound / vertex - 1, 0.0)
        return report.completed(self._layers, notes, self._network, self._witness)

    def _failure(self) -> LipcertError:
        """Why there is no certificate: a node in the way tells more than a rejected proof."""
        for kind in (CapabilityBlocked, TooLarge, OutOfBudget, JobFailed):
            for trouble in self._troubles:
                if isinstance(trouble, kind):
                    return trouble
        return OutOfBudget("the budget ended before any bound was proved", fix="give more seconds")

    def _report(self, phase: str, step: Step | None = None) -> None:
        if self._listeners.progress is not None:
            best = self._best
            self._listeners.progress(
                Progress(
                    phase=phase if step is None else f"{phase}: {step.phase}",
                    upper=None if best is None else best.claim.bound,
                    lower=None if self._witness is None else self._witness.value,
                    seconds=self._clock.elapsed,
                    iteration=None if step is None else step.iteration,
                    gap=None if step is None else step.gap,
                    open=None if step is None else step.open,
                )
            )


def _lesser(one: float | None, other: float | None) -> float | None:
    known = [value for value in (one, other) if value is not None]
    return min(known) if known else None


def _log10(certificate: Certificate) -> float:
    logarithm = certificate.claim.log10_bound
    return -math.inf if logarithm is None else logarithm
