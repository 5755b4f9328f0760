"""What an attempt has to show: the best that the checker accepted, of a bound or of radii.

An answer says what a certificate has to be about, which of two is better, and what the row keeps
(`incumbent`): from it the next attempt goes on, and the last one's is the job's.
"""

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

from service.store.jobs import NO_PROGRESS
from service.store.leases import Claim

Outcome: TypeAlias = Mapping[str, Any]  # Any: one JSON line of the checker's child


DECIDED = ("certified", "violated")


def asked_of(model: str, request: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a certificate that answers a job about a bound has to be about."""
    return {
        "model": model,
        "property": request["property"],
        "target": request["target"],
        "semantics": request.get("semantics", "real"),
    }


@runtime_checkable
class Answer(Protocol):
    """The best so far."""

    @property
    def incumbent(self) -> Mapping[str, Any] | None:
        """What the row keeps of it; None: nothing was accepted yet."""
        ...

    def asked(self, place: int) -> Mapping[str, Any]:
        """What the certificate of a place has to be about."""
        ...

    def is_better(self, place: int, outcome: Outcome) -> bool:
        """Whether an accepted certificate may take the place of the best so far."""
        ...

    def take(self, place: int, outcome: Outcome) -> None:
        """Keep it."""
        ...

    def is_answered(self, *, was_rejected: bool) -> bool:
        """Whether a run that came to its end has an answer."""
        ...

    @property
    def is_final(self) -> bool:
        """Whether more work would not be asked for: the target is decided, or the gap reached."""
        ...

    def progress(self) -> dict[str, object]:
        """The numbers of the job's progress."""
        ...


class BoundAnswer:
    """One certificate of one property."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._best: Outcome | None = claim.incumbent

    @property
    def incumbent(self) -> Mapping[str, Any] | None:
        """The accepted certificate."""
        return self._best

    def asked(self, place: int) -> Mapping[str, Any]:
        """What the job asks."""
        del place  # there is one
        return asked_of(self._claim.model, self._claim.request)

    def is_better(self, place: int, outcome: Outcome) -> bool:
        """No larger bound.

        At equal bounds the newer one wins: it may carry a better lower bound, hence the verdict.
        So it does where the kind has no bound, unless the older one decides what the newer one
        does not.
        """
        del place
        return self._best is None or _level(outcome) <= _level(self._best)

    def take(self, place: int, outcome: Outcome) -> None:
        """It is the best one."""
        del place
        self._best = outcome

    def is_answered(self, *, was_rejected: bool) -> bool:
        """A bound was accepted."""
        del was_rejected
        return self._best is not None

    @property
    def is_final(self) -> bool:
        """The target is decided, or the gap is reached."""
        gap, asked = self.progress()["gap"], self._claim.request["budget"]["gap"]
        is_close = isinstance(gap, float) and gap <= asked
        return is_close or (self._best is not None and self._best["verdict"] in DECIDED)

    def progress(self) -> dict[str, object]:
        """Both ends and their gap."""
        summary: Mapping[str, Any] = {} if self._best is None else self._best["summary"]
        upper, lower = summary.get("bound"), summary.get("lower")
        gap = upper / lower - 1 if upper is not None and lower else None
        return {**NO_PROGRESS, "upper": upper, "lower": lower, "gap": gap}


class RadiiAnswer:
    """A ball for every center, each with a certificate that proves the label on it."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        centers = claim.request["centers"]
        known = claim.incumbent
        self._rings: list[Outcome | None] = list(known["rings"] if known else [None] * len(centers))

    @property
    def incumbent(self) -> Mapping[str, Any] | None:
        """The accepted ones; certified where every center has one."""
        if not any(self._rings):
            return None
        return {"rings": self._rings, "verdict": "certified" if all(self._rings) else "undecided"}

    def asked(self, place: int) -> Mapping[str, Any]:
        """The model, and the question about one center."""
        request = self._claim.request
        question = {**request, "centers": [request["centers"][place]]}
        return {"model": self._claim.model, "question": question}

    def is_better(self, place: int, outcome: Outcome) -> bool:
        """No smaller radius."""
        known = self._rings[place]
        return known is None or known["radius"] <= outcome["radius"]

    def take(self, place: int, outcome: Outcome) -> None:
        """It is the center's."""
        self._rings[place] = outcome

    def is_answered(self, *, was_rejected: bool) -> bool:
        """That no center has a ball is an answer, too, unless one was claimed."""
        return any(self._rings) or not was_rejected

    @property
    def is_final(self) -> bool:
        """Radii have nothing to go on from."""
        return True

    def progress(self) -> dict[str, object]:
        """Radii are in the job; progress has no bounds."""
        return dict(NO_PROGRESS)


def answer_to(claim: Claim) -> Answer:
    """What the claimed job asks for."""
    return RadiiAnswer(claim) if claim.kind == "radius" else BoundAnswer(claim)


def _level(outcome: Outcome) -> tuple[bool, float]:
    """The bound as something to compare; beyond the range of float64, by its logarithm."""
    summary = outcome["summary"]
    if outcome["kind"] != "lipschitz":
        return outcome["verdict"] == "undecided", 0.0
    if summary["bound"] is not None:
        return False, summary["bound"]
    return True, summary["log10_bound"]
