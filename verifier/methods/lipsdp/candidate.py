"""From a property to a candidate: slopes, form, inequalities, proof."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verifier.certificate import Candidate, LmiProof
from verifier.methods.items import items_of, varying_inputs
from verifier.methods.lipsdp.form import form_of, global_slopes
from verifier.methods.lipsdp.rows import Search, item_of
from verifier.regions import Everywhere

if TYPE_CHECKING:
    from verifier.methods.clock import Clock
    from verifier.methods.lipsdp.options import Options
    from verifier.network.graph import Network
    from verifier.property import Property


def candidate(network: Network, asked: Property, options: Options, clock: Clock) -> Candidate:
    """Multipliers that prove a bound for each item of the property.

    When the clock runs out, what remains gets the bound of its start.

    Raises:
        InvalidRequest: an index of the property is out of range.
        NotLipschitzGlobally: a global bound is asked for, and an activation has none.
        TooLarge: the inequality is larger than dense matrices allow.
    """
    inputs = varying_inputs(asked, network.input_size)
    if not isinstance(asked.region, Everywhere):
        raise NotImplementedError
    lowered = network.lowered("keep")
    form = form_of(lowered, inputs, global_slopes(lowered))
    search = Search(form=form, norm=asked.norm, options=options, clock=clock)
    family = search.family()
    found = [item_of(search, family, item.rows) for item in items_of(asked, network.output_size)]
    return Candidate(
        method="lipsdp",
        estimates=tuple(bound for _, bound in found),
        proof=LmiProof(patterns=network.patterns, items=tuple(item for item, _ in found)),
    )
