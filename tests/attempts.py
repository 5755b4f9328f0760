"""The ways to ask for a bound that every soundness test goes through: one list for all of them.

Whatever can be asked for belongs here: a new tier by its method, a new search by its options.
"""

from __future__ import annotations

from dataclasses import dataclass

from verifier.certificate import Certificate
from verifier.property import Budget, Method, OptionValue, Property, Request
from verifier.verify import verify


@dataclass(frozen=True)
class Attempt:
    """A method and its options."""

    method: Method
    options: tuple[tuple[str, OptionValue], ...] = ()

    def __str__(self) -> str:
        return "-".join([self.method, *(str(value) for _, value in self.options)])

    def answer(self, model: bytes, asked: Property, seconds: float = 0.5) -> Certificate:
        """What `verify` says within so much time, however far from tight it is."""
        budget = Budget(seconds=seconds, gap=1e-6)
        options = dict(self.options)
        request = Request(property=asked, method=self.method, options=options, budget=budget)
        return verify(model, request)


def attempt(method: Method, **options: OptionValue) -> Attempt:
    """As requests say it."""
    return Attempt(method, tuple(options.items()))


PRODUCT, LIPSDP, PROPAGATION = Attempt("product"), Attempt("lipsdp"), Attempt("propagation")
FIRST_ORDER = attempt("lipsdp", solver="first_order")
CHANNELS = attempt("lipsdp", solver="first_order", multipliers="channel")
METHODS = (PRODUCT, LIPSDP, PROPAGATION)
GLOBAL = (
    PRODUCT,
    LIPSDP,
    Attempt("auto"),
    FIRST_ORDER,
    CHANNELS,
    attempt("lipsdp", solver="clarabel"),
    attempt("lipsdp", solver="scs"),
    attempt("lipsdp", iterations=1),
)
BRANCH = attempt("propagation", branch=True)
LOCAL = (PRODUCT, LIPSDP, PROPAGATION, Attempt("auto"), BRANCH)
#: For each kind of proof an attempt that makes one, of images too.
GLOBAL_KINDS = (PRODUCT, LIPSDP, FIRST_ORDER, CHANNELS)
LOCAL_KINDS = (LIPSDP, PROPAGATION, BRANCH)


def bounds(certificate: Certificate) -> list[float | None]:
    """The bound of every item, in order; None where it exceeds float64."""
    claim = certificate.claim
    return [claim.bound] if claim.bounds is None else [item.bound for item in claim.bounds]
