"""Local bounds by propagation through the graph: forward bounds, gates, then the Jacobian.

Over the region every pre-activation is bounded (`forward`), hence every gate's Clarke slope;
between those slopes the Jacobian is bounded entry by entry, and row sums at once (`jacobian`);
its norm bounds the constant by the mean value theorem, since the region is convex.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from verifier.certificate import Candidate, ForwardProof, PropagationProof
from verifier.errors import InvalidRequest, OutOfBudget
from verifier.methods.clock import Clock
from verifier.methods.domain import Domain
from verifier.methods.items import Item, items_of, varying_inputs
from verifier.methods.propagation.forward import Forward, Interval, Technique, forward_bounds
from verifier.methods.propagation.jacobian import Jacobian
from verifier.methods.propagation.norms import norm_bound
from verifier.network.graph import Network
from verifier.network.nodes import Elementwise
from verifier.norms import Norm, NormPair
from verifier.property import Property
from verifier.regions import Everywhere

__all__ = ["Forward", "Options", "candidate", "forward_bounds", "gate_slopes"]


@dataclass(frozen=True, slots=True)
class Options:
    """What propagation may be told; everything else it decides itself."""

    technique: Technique = "linear"  #: "interval": products of intervals alone, fast and loose


def candidate(network: Network, asked: Property, options: Options, clock: Clock) -> Candidate:
    """Bounds of every item over the region, and how they are proved again.

    When the clock runs out during the linear technique, the answer is that of intervals.

    Raises:
        InvalidRequest: the property selects what does not exist, or is not local.
    """
    if isinstance(asked.region, Everywhere):
        raise InvalidRequest(
            "propagation bounds a network over a region, and the scope is global",
            fix='give a region, or ask for method "lipsdp" or "product"',
            pointer="/method",
        )
    lowered = network.lowered("compare")
    items = items_of(asked, network.output_size)
    domain = Domain.of(asked.region, network.input_size)
    inputs = varying_inputs(asked, network.input_size)
    inputs = inputs[0 < domain.reach[inputs]]
    forward = Forward(lowered, domain, options.technique, {})
    slopes = gate_slopes(lowered, forward.bounds())
    jacobian = Jacobian(lowered, slopes, torch.cat([item.rows for item in items]), clock)
    technique, entries = options.technique, None
    if technique == "linear":
        entries = _linear(jacobian, inputs, asked.norm)
    if entries is None:
        technique, entries = "interval", _interval(jacobian, inputs)
    return Candidate(
        method="propagation",
        estimates=_estimates(asked.norm, items, *entries),
        proof=PropagationProof(
            patterns=network.patterns,
            forward=ForwardProof(technique=options.technique, lines=forward.lines()),
            technique=technique,
        ),
    )


def gate_slopes(
    lowered: Network, entering: dict[str, Interval]
) -> dict[str, tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]]:
    """[least, greatest] Clarke slope of every neuron over the region, by gate."""
    return {
        node.gate: node.function.slope_range_on(*entering[node.gate])
        for node in lowered.nodes
        if isinstance(node, Elementwise)
    }


#: Magnitudes of the entries of J, and bounds of the sums of its rows.
_Entries = tuple[Float64[Tensor, "rows selected"], Float64[Tensor, " rows"]]


def _interval(jacobian: Jacobian, inputs: Int64[Tensor, " selected"]) -> _Entries:
    lower, upper = (end[:, inputs] for end in jacobian.intervals())
    magnitudes = torch.maximum(-lower, upper)
    return magnitudes, magnitudes.sum(dim=-1)


def _linear(
    jacobian: Jacobian, inputs: Int64[Tensor, " selected"], norm: NormPair
) -> _Entries | None:
    """None where the clock ran out."""
    try:
        lower, upper = jacobian.bounds(inputs)
    except OutOfBudget:
        return None
    magnitudes = torch.maximum(-lower, upper)
    if norm.input is not Norm.LINF:
        return magnitudes, magnitudes.sum(dim=-1)
    joint = jacobian.row_sums(inputs, lower, upper)
    return magnitudes, torch.minimum(joint, magnitudes.sum(dim=-1))


def _estimates(
    norm: NormPair,
    items: tuple[Item, ...],
    magnitudes: Float64[Tensor, "rows selected"],
    row_sums: Float64[Tensor, " rows"],
) -> tuple[float, ...]:
    counts = [len(item.rows) for item in items]
    return tuple(
        float(norm_bound(norm, entries, sums))
        for entries, sums in zip(magnitudes.split(counts), row_sums.split(counts), strict=True)
    )
