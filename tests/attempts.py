"""The ways to ask for a bound that every soundness test goes through: one list for all of them.

Whatever can be asked for belongs here: a new tier by its method, a new search by its options.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from verifier.certificate import Certificate
from verifier.property import Budget, Method, OptionValue, Property, Request
from verifier.verify import verify


@dataclass(frozen=True)
class Attempt:
    """A method and its options."""

    method: Method
    options: Mapping[str, OptionValue] = field(default_factory=dict[str, OptionValue])

    def __str__(self) -> str:
        return "-".join([self.method, *map(str, self.options.values())])

    def answer(self, model: bytes, asked: Property, seconds: float = 0.5) -> Certificate:
        """What `verify` says within so much time, however far from tight it is."""
        budget = Budget(seconds=seconds, gap=1e-6)
        request = Request(property=asked, method=self.method, options=self.options, budget=budget)
        return verify(model, request)


PRODUCT, LIPSDP, PROPAGATION = Attempt("product"), Attempt("lipsdp"), Attempt("propagation")
METHODS = (PRODUCT, LIPSDP, PROPAGATION)
GLOBAL = (
    PRODUCT,
    LIPSDP,
    Attempt("auto"),
    Attempt("lipsdp", {"solver": "clarabel"}),
    Attempt("lipsdp", {"solver": "scs"}),
    Attempt("lipsdp", {"iterations": 1}),
)
LOCAL = (PRODUCT, LIPSDP, PROPAGATION, Attempt("auto"))


def bounds(certificate: Certificate) -> list[float | None]:
    """The bound of every item, in order; None where it exceeds float64."""
    claim = certificate.claim
    return [claim.bound] if claim.bounds is None else [item.bound for item in claim.bounds]
