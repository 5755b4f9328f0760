"""The method's candidate: bounds of all items over a region, and how they are proved again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from verifier.certificate import Candidate, PropagationProof
from verifier.errors import InvalidRequest, OutOfBudget
from verifier.methods.clock import Clock
from verifier.methods.domain import Domain
from verifier.methods.items import Item, items_of, varying_inputs
from verifier.methods.propagation.forward import (
    BATCH_ENTRIES,
    Forward,
    Interval,
    Technique,
    affordable,
    gate_slopes,
)
from verifier.methods.propagation.jacobian import Jacobian
from verifier.methods.propagation.joint import Along, along, bends
from verifier.methods.propagation.norms import norm_bound
from verifier.methods.propagation.tighten import Slopes, tightened_lines
from verifier.methods.propagation.work import MOST_BEFORE, MOST_JACOBIAN, jacobian_work
from verifier.methods.weights import fronted, plain_norms
from verifier.network.graph import Network
from verifier.network.tangent import tangent
from verifier.norms import Norm, NormPair
from verifier.property import Property
from verifier.regions import Everywhere

#: Of the time that is left, what tilting lines may take.
_TILTING_SHARE = 0.1

#: Magnitudes of the entries of J, and bounds of the sums of its rows.
_Entries: TypeAlias = tuple[Float64[Tensor, "rows selected"], Float64[Tensor, " rows"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What propagation may be told; everything else it decides itself."""

    technique: Technique = "linear"  #: "interval": products of intervals alone, fast and loose
    steps: int = 12  #: gradient steps that tilt the lines of small networks; 0: none
    branch: bool = False  #: divide the region, too, until the gap is reached; `auto` does anyway


def candidate(
    network: Network,
    asked: Property,
    options: Options,
    clock: Clock,
    *,
    before_better: bool = False,
) -> Candidate:
    """Bounds of every item over the region, and how they are proved again.

    When the clock runs out during the linear technique, or the network is too large for it, the
    answer is that of intervals.

    Args:
        network: not lowered.
        asked: the property.
        options: of the method.
        clock: what may be spent.
        before_better: semidefinite bounds follow, so that of networks of straight pieces less is
            spent here.

    Raises:
        InvalidRequest: the property selects what does not exist, or is not local.
    """
    question = _Question.of(network, asked)
    steps = options.steps
    if before_better and not bends(question.lowered):
        question, steps = replace(question, most=MOST_BEFORE), 0
    lines = Slopes()
    if options.technique == "linear":
        lines = question.tilted(steps, clock)
    if options.technique == "linear":
        forward, entering = affordable(question.lowered, question.domain, lines)
    else:
        forward = Forward(question.lowered, question.domain, "interval", {})
        entering = forward.bounds()
    ranges = gate_slopes(question.lowered, entering)
    technique, bounds = question.best(options.technique, ranges, clock)
    has_lines = bool(forward.relaxations or forward.planes)
    if technique == "linear" and bends(question.lowered) and has_lines:
        joint = question.by_lines(ranges, clock, along(question.lowered, forward, entering))
        closer = bounds if joint is None else question.bounds(*joint)
        if max(closer) < max(bounds):
            technique, bounds = "joint", closer
    return Candidate(
        method="propagation",
        estimates=tuple(float(bound) for bound in bounds),
        proof=PropagationProof(
            patterns=network.patterns,
            forward=forward.proof,
            technique=technique,
        ),
    )


def refuse_everywhere(asked: Property) -> None:
    """Raises InvalidRequest where the property is not local."""
    if isinstance(asked.place, Everywhere):
        raise InvalidRequest(
            "propagation bounds a network over a region, and the scope is global",
            fix='give a region, or ask for method "lipsdp" or "product"',
            pointer="/method",
        )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Question:
    """What is asked, of a network that is lowered."""

    lowered: Network
    measured: Network  #: its tangent, of coordinates in which the input norm is plain
    domain: Domain
    norm: NormPair
    items: tuple[Item, ...]
    inputs: Int64[Tensor, " selected"]  #: those in which x and y can differ
    most: float = MOST_JACOBIAN  #: multiplications that lines of the Jacobian may cost

    @staticmethod
    def of(network: Network, asked: Property) -> _Question:
        """Raises InvalidRequest where the property does not fit."""
        refuse_everywhere(asked)
        assert not isinstance(asked.place, Everywhere)  # noqa: S101 (just refused)
        inputs = varying_inputs(asked, network.input_size)
        domain = Domain.of(asked.place, network.input_size)
        moving = inputs[0 < domain.reach[inputs]]
        lowered = network.lowered("compare")
        return _Question(
            lowered=lowered,
            measured=fronted(tangent(lowered), asked.norm, moving),
            domain=domain,
            norm=plain_norms(asked.norm),
            items=items_of(asked, network.output_size),
            inputs=moving,
        )

    def tilted(self, steps: int, clock: Clock) -> Slopes:
        """Slopes of lines (below, above) by gate, for which the Jacobian's bound is small.

        Empty where the network is too large for it, or the clock too short: then the activations'
        own lines are the best that is known.
        """
        rows = sum(len(item.rows) for item in self.items)
        widest = max(self.lowered.sizes.values())
        # Gradients keep every batch: only where the whole Jacobian is one.
        if steps == 0 or BATCH_ENTRIES < 2 * rows * len(self.inputs) * widest:
            return {}
        share = Clock.start(_TILTING_SHARE * clock.remaining)

        def bound(ranges: Mapping[str, Interval]) -> Float64[Tensor, ""]:
            entries = self.by_lines(ranges, share)
            if entries is None:
                raise OutOfBudget("lines were not tilted to the end", fix="give more seconds")
            return torch.stack(self.bounds(*entries)).amax()

        try:
            return tightened_lines(self.lowered, self.domain, bound, steps, share)
        except OutOfBudget:
            return {}

    def best(
        self, asked: Technique, ranges: Mapping[str, Interval], clock: Clock
    ) -> tuple[Literal["interval", "linear", "joint"], tuple[Float64[Tensor, ""], ...]]:
        """The bounds by lines, if they are asked for and can be had, else by intervals."""
        entries = self.by_lines(ranges, clock) if asked == "linear" else None
        if entries is not None:
            return "linear", self.bounds(*entries)
        return "interval", self.bounds(*self.by_intervals(ranges, clock))

    def by_intervals(self, ranges: Mapping[str, Interval], clock: Clock) -> _Entries:
        """The Jacobian by products of intervals."""
        lower, upper = (end[:, self.inputs] for end in self._jacobian(ranges, clock).intervals())
        magnitudes = torch.maximum(-lower, upper)
        return magnitudes, magnitudes.sum(dim=-1)

    def by_lines(
        self, ranges: Mapping[str, Interval], clock: Clock, along: Along | None = None
    ) -> _Entries | None:
        """The Jacobian by lines; None where it costs too much, or the clock ran out."""
        rows = sum(len(item.rows) for item in self.items)
        if self.most < jacobian_work(self.measured, ranges, rows, len(self.inputs)):
            return None
        jacobian = self._jacobian(ranges, clock, along)
        try:
            lower, upper = jacobian.bounds(self.inputs)
        except OutOfBudget:
            return None
        magnitudes = torch.maximum(-lower, upper)
        sums = magnitudes.sum(dim=-1)
        if self.norm.input is Norm.LINF:
            sums = torch.minimum(sums, jacobian.row_sums(self.inputs, lower, upper))
        return magnitudes, sums

    def bounds(
        self,
        magnitudes: Float64[Tensor, "rows selected"],
        row_sums: Float64[Tensor, " rows"],
    ) -> tuple[Float64[Tensor, ""], ...]:
        """One bound for each item."""
        counts = [len(item.rows) for item in self.items]
        pairs = zip(magnitudes.split(counts), row_sums.split(counts), strict=True)
        return tuple(norm_bound(self.norm, entries, sums) for entries, sums in pairs)

    def _jacobian(
        self, ranges: Mapping[str, Interval], clock: Clock, along: Along | None = None
    ) -> Jacobian:
        rows = torch.cat([item.rows for item in self.items])
        return Jacobian(self.measured, ranges, rows, clock, along)
