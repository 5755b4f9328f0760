"""The conductor for the kinds that are about entries of the Jacobian: `jacobian`, `monotone`.

Intervals through the graph first, then lines, then both in boxes of inputs, where those are few; a
sign that is not shown yet is refuted where a pair can be found. The claim is what the checker
proves of a proof, rounded outward once more to decimals that keep their side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from verifier.certificate import (
    Attempt,
    Certificate,
    Claim,
    Entries,
    ForwardProof,
    Proof,
    PropagationProof,
    TreeProof,
    Verdict,
    Witness,
    decimal_lower,
    decimal_upper,
)
from verifier.checker import check, entry_bounds
from verifier.checker.definite import NotProved
from verifier.checker.intervals import Interval
from verifier.errors import CheckRejected, JobFailed, LipcertError, OutOfBudget, TooLarge
from verifier.methods import branch, lipsdp, monotone, propagation
from verifier.methods.clock import Clock
from verifier.network.graph import Network
from verifier.norms import Norm, NormPair
from verifier.options import RunOptions, read_options, refuse_unknown
from verifier.property import Property, Request
from verifier.proving import Case, breakdown, confirmed, finished
from verifier.regions import Everywhere

MOST_ENTRIES = 2**22  #: that a certificate lists
WITNESS_SECONDS = 2.0  #: the most that a search for a pair may take
WITNESS_SHARE = 0.3  #: of what is left of the budget, at most
BOX_SHARE = 0.7  #: of what is left of the budget, for boxes
BOX_GAP = 0.01  #: of the greatest entry: intervals that are no wider than so much are enough
CHECKED_GATE = 1e-3  #: seconds that the checker takes for a box, by its gates, both times

_Proof: TypeAlias = PropagationProof | TreeProof


def options_of(request: Request) -> tuple[RunOptions, propagation.Options]:
    """What the request says to a run of these kinds.

    Raises:
        InvalidRequest: an option is unknown or wrong.
    """
    others = [lipsdp.Options] if request.method == "auto" else []
    refuse_unknown(request.options, [RunOptions, propagation.Options, *others])
    return (
        read_options(RunOptions, request.options),
        read_options(propagation.Options, request.options),
    )


@dataclass(slots=True, kw_only=True)
class EntryRun:
    """One run: the best proof so far, and the pair that refutes, if there is one."""

    case: Case
    asked: Property  #: the case's, with outputs by index
    network: Network
    clock: Clock
    options: propagation.Options
    seed: int
    publish: Callable[[Certificate], None]
    report: Callable[[str], None]
    _best: Certificate | None = None
    _proved: Interval | None = None
    _witness: Witness | None = None
    _attempts: list[Attempt] = field(default_factory=list[Attempt])
    _troubles: list[LipcertError] = field(default_factory=list[LipcertError])

    def answer(self) -> Certificate:
        """The narrowest intervals within the budget, or the sign as soon as it is decided.

        Raises:
            TooLarge: the Jacobian has too many entries.
            JobFailed: nothing was proved.
            CapabilityBlocked: a node has no slopes of the kind that is needed.
        """
        self._refuse_large()
        is_global = isinstance(self.case.asked.entries.place, Everywhere)
        self.network.lowered("compare", keeps_blocks=not is_global)  # or refuses
        for step in self._steps():
            if self._best is not None and (self.clock.has_expired or self._is_decided()):
                break
            step()
        if self._best is None:
            raise self._failure()
        return finished(self._best, self._attempts, self.clock.elapsed)

    def _steps(self) -> Iterator[Callable[[], None]]:
        yield lambda: self._attempt("interval", self._by_intervals)
        if self.case.asked.kind == "monotone":
            yield self._refute
        if self.options.technique == "linear":
            yield lambda: self._attempt("linear", self._by_lines)
            if not isinstance(self.case.asked.place, Everywhere):
                yield lambda: self._attempt("boxes", self._by_boxes)

    def _attempt(self, phase: str, find: Callable[[], _Proof]) -> None:
        """Prove what one technique finds, and keep it where it is no worse."""
        self.report(f"propagation: {phase}")
        spent = Clock.start(0.0)
        try:
            proof = find()
            proved = entry_bounds(
                self.case.model,
                self.case.asked,
                proof,
                freezes=bool(self.case.assumptions),
                idealises=bool(self.case.idealised),
            )
            if self._is_better(proved):
                self._keep(proof, proved)
        except LipcertError as trouble:
            self._troubles.append(trouble)
        except NotProved as trouble:
            self._troubles.append(_rejected(str(trouble)))
        except (MemoryError, RuntimeError) as error:
            self._troubles.append(breakdown("propagation", error))
        self._attempts.append(Attempt(method="propagation", bound=None, seconds=spent.elapsed))

    def _is_better(self, proved: Interval) -> bool:
        """Whether an answer follows, or else intervals are narrower."""
        if self._proved is None or _verdict(self.case.asked, proved, None) == "certified":
            return True
        return _width(proved) < _width(self._proved)

    def _by_boxes(self) -> _Proof:
        """Boxes until intervals are narrow, the sign is shown, or a share of the clock is used."""
        search = branch.EntrySearch(self.network, self.asked, BOX_GAP)
        if not search.applies:
            raise OutOfBudget("boxes do not help here", fix="ask about fewer inputs")
        share = Clock.start(BOX_SHARE * self.clock.remaining)
        per_leaf = CHECKED_GATE * search.gates
        search.start()
        while search.advance() and search.leaves * per_leaf < share.remaining:
            pass
        return search.proof()

    def _by_intervals(self) -> PropagationProof:
        forward = ForwardProof(technique="interval")
        return PropagationProof(patterns=self.case.patterns, forward=forward, technique="interval")

    def _by_lines(self) -> PropagationProof:
        asked = self.asked.entries
        forward = ForwardProof(technique="linear")
        plain = PropagationProof(patterns=self.case.patterns, forward=forward, technique="linear")
        is_found = not (isinstance(asked.place, Everywhere) or self.network.has_blocks)
        if not (is_found and _moves(asked, self.network.input_size)):
            return plain
        norm = NormPair(Norm.L1, Norm.L1)  # bounded by the sums of columns: every entry counts
        bounding = replace(asked, kind="lipschitz", monotone=None, norm=norm)
        found = propagation.candidate(self.network, bounding, self.options, self.clock).proof
        return found if isinstance(found, PropagationProof) else plain

    def _refute(self) -> None:
        """Seek a pair with a share of the budget; only what the checker confirms counts."""
        if self._proved is None or self._best is None:
            return
        self.report("witness")
        share = min(WITNESS_SECONDS, WITNESS_SHARE * self.clock.remaining)
        ends = float(self._proved.lower[0, 0]), float(self._proved.upper[0, 0])
        found = monotone.search(self.network, self.case.asked, ends, Clock.start(share), self.seed)
        self._witness = None if found is None else confirmed(self.case, found)
        if self._witness is not None:
            self._keep(self._best.proof, self._proved)

    def _keep(self, proof: Proof, proved: Interval) -> None:
        certificate = self._certificate(proof, proved)
        verdict = check(certificate, self.case.model)
        if not verdict.valid:
            self._troubles.append(_rejected(f"{verdict.code}: {verdict.reason}"))
            return
        self._best, self._proved = certificate, proved
        self.publish(finished(certificate, self._attempts, self.clock.elapsed))

    def _certificate(self, proof: Proof, proved: Interval) -> Certificate:
        asked = self.case.asked
        return Certificate(
            claim=Claim(
                model=self.case.model_id,
                property=asked,
                bound=None,
                log10_bound=None,
                entries=_entries(proved) if asked.kind == "jacobian" else None,
                assumptions=self.case.assumptions,
                idealised=self.case.idealised,
            ),
            proof=proof,
            lower_bound=self._witness,
            verdict=_verdict(asked, proved, self._witness),
            producer=self.case.producer,
        )

    def _is_decided(self) -> bool:
        return self._best is not None and self._best.verdict in ("certified", "violated")

    def _refuse_large(self) -> None:
        rows, columns = (len(item.rows) for item in self.case.items), self.network.input_size
        count = sum(rows) * columns
        if MOST_ENTRIES < count:
            raise TooLarge(
                f"the Jacobian has {count} entries; {MOST_ENTRIES} can be listed",
                fix="ask about some inputs or outputs, by indices",
            )

    def _failure(self) -> LipcertError:
        for trouble in self._troubles:
            if not isinstance(trouble, JobFailed):
                return trouble  # a node in the way tells more than a proof that failed
        late = OutOfBudget("the budget ended before anything was proved", fix="give more seconds")
        return self._troubles[0] if self._troubles else late


def _width(proved: Interval) -> float:
    return float(np.sum(proved.upper - proved.lower))


def _moves(asked: Property, size: int) -> bool:
    """Whether the region lets one of the selected inputs vary."""
    if isinstance(asked.place, Everywhere):
        return True
    lower, upper = asked.place.interval()
    chosen = getattr(asked.inputs, "indices", tuple(range(size)))
    return bool(np.any(lower[list(chosen)] < upper[list(chosen)]))


def _entries(proved: Interval) -> Entries:
    rows, columns = proved.lower.shape
    return Entries(
        shape=(rows, columns),
        lower=tuple(map(decimal_lower, proved.lower.ravel().tolist())),
        upper=tuple(map(decimal_upper, proved.upper.ravel().tolist())),
    )


def _verdict(asked: Property, proved: Interval, witness: Witness | None) -> Verdict | None:
    """Whether the one entry has the sign that is asked about."""
    if asked.monotone is None:
        return None
    lower, upper = float(proved.lower[0, 0]), float(proved.upper[0, 0])
    if (0 <= lower) if asked.monotone.direction == "increasing" else (upper <= 0):
        return "certified"
    return "undecided" if witness is None else "violated"


def _rejected(detail: str) -> CheckRejected:
    return CheckRejected(
        f"the checker did not follow: {detail}",
        fix="report this as a defect of lipcert, with the model",
    )
