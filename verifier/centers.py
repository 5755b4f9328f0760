"""The conductor for regions around many centers: one certificate for all, one budget for all.

Intervals around all centers come as one batch, and the bounds that hold everywhere once; then each
center has its share of what is left of the budget, the one with the greatest bound first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain

from verifier.certificate import (
    Attempt,
    Candidate,
    CentersProof,
    Certificate,
    Witness,
)
from verifier.checker import check
from verifier.errors import CapabilityBlocked, JobFailed, LipcertError, OutOfBudget, TooLarge
from verifier.methods import propagation, witness
from verifier.methods.clock import Clock
from verifier.methods.progress import Aim
from verifier.network.graph import Network
from verifier.property import Request
from verifier.proving import (
    Case,
    Unproved,
    breakdown,
    claiming,
    confirmed,
    finished,
    prove,
    rejection,
)
from verifier.quantiles import quantiles_of
from verifier.tiers import tiers_of

WITNESS_SECONDS = 2.0  #: the most that a search for a lower bound may take
WITNESS_SHARE = 0.1  #: of what is left of the budget, at most
PUBLISH_SECONDS = 5.0  #: between two certificates on the way, at least
PUBLISH_SHARE = 0.1  #: of the time, at most, for certificates on the way: each is proved as a whole


@dataclass(slots=True, kw_only=True)
class CenterRun:
    """One run: the best proof of each center so far."""

    case: Case
    request: Request
    network: Network
    clock: Clock
    seed: int
    publish: Callable[[Certificate], None]
    report: Callable[[str, int, float | None], None]  #: phase, centers done, bound
    _best: dict[int, Certificate] = field(default_factory=dict[int, Certificate])
    _witness: Witness | None = None
    _published: Certificate | None = None
    _next: float = 0.0  #: when the next one is due, in seconds of the clock
    _seconds: dict[str, float] = field(default_factory=dict[str, float])
    _troubles: list[LipcertError] = field(default_factory=list[LipcertError])

    def answer(self) -> Certificate:
        """The best certificate of all centers within the budget.

        Raises:
            JobFailed: a center has no bound.
            CapabilityBlocked: a node takes this answer from the model.
        """
        self._begin()
        self._look_for_witness()
        for done, (center, share) in enumerate(self._shares()):
            if self._is_answered():
                break
            self.report("centers", done, self._greatest())
            self._refine(center, share)
            if self._next < self.clock.elapsed:
                self._publish()
        self._publish()
        if self._published is None:
            raise self._failure()
        ended = finished(self._published, self._attempts(), self.clock.elapsed)
        return replace(ended, report={"quantiles": self._quantiles()})

    # --- finding ---------------------------------------------------------------------------------

    def _begin(self) -> None:
        """What all centers share: the bound everywhere, and intervals as one batch."""
        parts = self.request.property.parts
        first = replace(self.request, property=parts[0])
        names = [tier.name for tier in tiers_of(first, self.network)]
        self.report("centers: all at once", 0, None)
        if "product" in names:
            everywhere = self._of_tier("product", 0, self.clock)
            for center in range(len(parts)) if everywhere else ():
                self._keep(center, everywhere)
        if "propagation" in names:
            spent = Clock.start(0.0)
            for center, found in enumerate(propagation.batched(self.network, parts)):
                self._keep(center, self._proved(center, found))
            self._spend("propagation", spent)
        self._publish()

    def _shares(self) -> Iterator[tuple[int, Clock]]:
        """The centers, those without a bound and the greatest bounds first, each with its clock."""
        order = sorted(range(len(self.case.asked.parts)), key=self._level, reverse=True)
        for done, center in enumerate(order):
            if center in self._best and self.clock.has_expired:
                return
            yield center, Clock.start(self.clock.remaining / (len(order) - done))

    def _refine(self, center: int, share: Clock) -> None:
        """Run the tiers of one region."""
        request = replace(self.request, property=self.request.property.parts[center])
        for tier in tiers_of(request, self.network):
            is_enough = self._level(center) <= math.log10(self.request.target or 5e-324)
            if tier.name == "product" or is_enough or (share.has_expired and center in self._best):
                continue
            self._keep(center, self._of_tier(tier.name, center, share))

    def _of_tier(self, name: str, center: int, clock: Clock) -> Certificate | None:
        """The best that a tier finds for a center."""
        request = replace(self.request, property=self.request.property.parts[center])
        (tier,) = (tier for tier in tiers_of(request, self.network) if tier.name == name)
        aim = Aim(enough=self.request.target or 0.0, report=lambda _: None, note=lambda _, __: None)
        spent = Clock.start(0.0)
        best: Certificate | None = None
        try:
            for candidate in tier.run(clock, aim):
                proved = self._proved(center, candidate)
                if proved is None:
                    break
                best = proved if best is None or _log10(proved) < _log10(best) else best
                if clock.has_expired:
                    break
        except (CapabilityBlocked, TooLarge, JobFailed) as trouble:
            self._troubles.append(trouble)
        except (MemoryError, RuntimeError) as error:
            self._troubles.append(breakdown(name, error))
        self._spend(name, spent)
        return best

    def _proved(self, center: int, candidate: Candidate) -> Certificate | None:
        case = replace(self.case, asked=self.case.asked.parts[center], target=None)
        outcome = prove(case, candidate, None, ())
        if isinstance(outcome, Unproved):
            self._troubles.append(rejection(candidate.method, outcome))
            return None
        return outcome

    def _keep(self, center: int, found: Certificate | None) -> None:
        if found is not None and _log10(found) < self._level(center):
            self._best[center] = found

    def _look_for_witness(self) -> None:
        """Seek a lower bound where the bound is the greatest."""
        if not self._best:
            return
        center = max(self._best, key=self._level)
        asked, count = self.request.property.parts[center], len(self.case.items)
        share = min(WITNESS_SECONDS, WITNESS_SHARE * self.clock.remaining)
        self.report("witness", 0, self._greatest())
        found = witness.search(self.network, asked, Clock.start(share), self.seed)
        if found is not None:
            place = center * count + (found.item or 0)
            self._witness = confirmed(self.case, replace(found, item=place))

    # --- telling ---------------------------------------------------------------------------------

    def _publish(self) -> None:
        """One certificate of all centers, where each has a proof and the checker accepts it."""
        count = len(self.case.asked.parts)
        if len(self._best) < count:
            return
        each = [self._best[center] for center in range(count)]
        proofs = [part.proof for part in each]
        parts = tuple(proof for proof in proofs if not isinstance(proof, CentersProof))
        whole = claiming(
            self.case,
            CentersProof(patterns=self.case.patterns, parts=parts),
            list(chain.from_iterable(map(_claims, each))),
            max(map(_log10, each)),
            self._witness,
            (),
        )
        known = self._published
        if known is not None and (known.claim, known.lower_bound) == (whole.claim, self._witness):
            return
        spent = Clock.start(0.0)
        verdict = check(whole, self.case.model)
        pause = max(PUBLISH_SECONDS, spent.elapsed / PUBLISH_SHARE)
        self._next = self.clock.elapsed + pause
        if not verdict.valid:
            self._troubles.append(rejection("centers", Unproved(verdict)))
            return
        self._published = whole
        self.publish(finished(whole, self._attempts(), self.clock.elapsed))

    def _is_answered(self) -> bool:
        """Whether every center is within the target, or the witness is beyond it."""
        target = self.request.target
        if target is None or len(self._best) < len(self.case.asked.parts):
            return False
        greatest = self._greatest()
        is_beyond = self._witness is not None and target < self._witness.value
        return is_beyond or (greatest is not None and greatest <= target)

    def _level(self, center: int) -> float:
        """The logarithm of a center's bound; the greatest where there is none."""
        return _log10(self._best[center]) if center in self._best else math.inf

    def _greatest(self) -> float | None:
        bounds = [part.claim.bound for part in self._best.values()]
        known = [bound for bound in bounds if bound is not None]
        return max(known) if known and len(known) == len(self.case.asked.parts) else None

    def _quantiles(self) -> Mapping[str, float | None]:
        bounds = [part.claim.bound for part in self._best.values()]
        return quantiles_of([math.inf if bound is None else bound for bound in bounds])

    def _spend(self, name: str, spent: Clock) -> None:
        self._seconds[name] = self._seconds.get(name, 0.0) + spent.elapsed

    def _attempts(self) -> list[Attempt]:
        return [
            Attempt(method=name, bound=None, seconds=seconds)
            for name, seconds in self._seconds.items()
        ]

    def _failure(self) -> LipcertError:
        for kind in (CapabilityBlocked, TooLarge, JobFailed):
            for trouble in self._troubles:
                if isinstance(trouble, kind):
                    return trouble
        return OutOfBudget("the budget ended before every center had a bound", fix="give it more")


def _log10(certificate: Certificate) -> float:
    logarithm = certificate.claim.log10_bound
    return -math.inf if logarithm is None else logarithm


def _claims(certificate: Certificate) -> list[float | None]:
    """The bounds of one center's items."""
    claim = certificate.claim
    return [claim.bound] if claim.bounds is None else [item.bound for item in claim.bounds]
