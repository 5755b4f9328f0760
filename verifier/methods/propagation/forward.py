"""Bounds of every pre-activation over a region: intervals, and lines propagated backwards.

Intervals: an affine map sends the box with center c and half widths r into A c + b +- |A| r.

Lines: on its interval every activation lies between two lines,

    below_j z_j + c_j  <=  phi_j(z_j)  <=  above_j z_j + d_j,                           (1)

so that a linear function a.phi(z) of what leaves it is at most a linear function of what enters,

    a.phi(z) <= (a+ above + a- below).z + a+.d + a-.c,    a+ = max(a, 0), a- = min(a, 0).  (2)

Through (2) and the adjoints of the affine maps, from the last to the first, a function of any
signal becomes one of the input, whose greatest value over the region is a closed form. All
neurons of a signal go as one batch. The bound used is the better of the two. A product of signals
lies between planes (`planes`); bounds of its factors are tightened as those of what enters gates.

Source: Zhang et al. 2018 (arXiv 1811.00866); on graphs, Xu et al. 2020 (arXiv 2002.12920).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from verifier.certificate import ForwardProof, Lines
from verifier.errors import OutOfBudget
from verifier.methods.domain import Domain
from verifier.methods.propagation.copies import values_of
from verifier.methods.propagation.intervals import Interval, affine_interval, image_of
from verifier.methods.propagation.planes import Planes, product_interval
from verifier.methods.propagation.work import MOST_FORWARD, pulled_back
from verifier.network.graph import Network
from verifier.network.nodes import Affine, Elementwise, Product
from verifier.network.tangent import left_gate, right_gate
from verifier.regions import Bounded

Technique: TypeAlias = Literal["interval", "linear"]

#: Entries of one batch of linear functions: 2^22 of eight bytes are 32 MB a signal.
BATCH_ENTRIES = 2**22


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Relaxation:
    """The lines (1) of every neuron of one activation."""

    below: Float64[Tensor, " n"]
    below_offset: Float64[Tensor, " n"]
    above: Float64[Tensor, " n"]
    above_offset: Float64[Tensor, " n"]

    def upward(
        self, rows: Float64[Tensor, "batch n"]
    ) -> tuple[Float64[Tensor, "batch n"], Float64[Tensor, " batch"]]:
        """(2): the coefficients of z, and the constant."""
        positive, negative = rows.clamp(min=0), rows.clamp(max=0)
        constant = positive @ self.above_offset + negative @ self.below_offset
        return positive * self.above + negative * self.below, constant


def forward_bounds(
    lowered: Network,
    region: Bounded,
    technique: Technique = "linear",
    lines: Mapping[str, Lines] | None = None,
) -> dict[str, tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]]:
    """Bounds of what enters every gate, by the gate's name in proofs.

    Args:
        lowered: a network without groups.
        region: where they hold.
        technique: "interval", or "linear" for the better of intervals and lines.
        lines: slopes for gates by name; absent ones have the activation's own.

    Returns:
        (lower, upper) with lower <= z <= upper for every x of the region, to float64 rounding.
    """
    slopes = {
        gate: (torch.from_numpy(line.lower), torch.from_numpy(line.upper))
        for gate, line in (lines or {}).items()
    }
    return Forward(lowered, Domain.of(region, lowered.input_size), technique, slopes).bounds()


def affordable(
    lowered: Network, domain: Domain, slopes: Mapping[str, tuple[Tensor, Tensor]] | None = None
) -> tuple[Forward, dict[str, Interval]]:
    """The pass by lines and its bounds, or by intervals where lines would cost too much.

    Args:
        lowered: a network without groups.
        domain: where the bounds hold.
        slopes: of lines (below, above), by gate; absent ones have the activation's own.
    """
    forward = Forward(lowered, domain, "linear", slopes or {}, most=MOST_FORWARD)
    try:
        return forward, forward.bounds()
    except OutOfBudget:
        forward = Forward(lowered, domain, "interval", {})
        return forward, forward.bounds()


def gate_slopes(
    lowered: Network, entering: Mapping[str, Interval]
) -> dict[str, tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]]:
    """[least, greatest] Clarke slope of every neuron over the region, by gate of the tangent."""
    slopes: dict[str, Interval] = {}
    for node in lowered.nodes:
        match node:
            case Elementwise():
                slopes[node.gate] = node.function.slope_range_on(*entering[node.gate])
            case Product():
                left, right = left_gate(node.name), right_gate(node.name)
                slopes |= {left: entering[right], right: entering[left]}
            case _:
                pass
    return slopes


class Forward:
    """One pass through a lowered network; keeps the relaxations that it has made."""

    def __init__(
        self,
        lowered: Network,
        domain: Domain,
        technique: Technique,
        slopes: Mapping[str, tuple[Tensor, Tensor]],
        *,
        most: float = math.inf,
    ) -> None:
        """Keep the question.

        Args:
            lowered: a network without groups.
            domain: where the bounds are to hold.
            technique: "interval" or "linear".
            slopes: of lines (below, above), by gate; absent ones have the activation's own.
            most: multiplications that lines may cost.
        """
        self._network = lowered
        self._domain = domain
        self._technique: Technique = technique
        self._work, self._most = 0.0, most
        self._summed = {n.name for n in lowered.nodes if isinstance(n, Affine | Product)}
        self._cut_signals: set[str] = set()
        self._costs = pulled_back(lowered)
        self._exact = _exact_signals(lowered) if domain.norm is None else frozenset[str]()
        self._slopes = slopes
        self.relaxations: dict[str, Relaxation] = {}  #: by gate
        self.planes: dict[str, Planes] = {}  #: by product

    @property
    def proof(self) -> ForwardProof:
        """How the bounds are proved again."""
        return ForwardProof(technique=self._technique, lines=self.lines())

    def bounds(self) -> dict[str, tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]]:
        """Bounds of what enters every gate of the tangent, by the gate's name in proofs.

        Raises:
            OutOfBudget: lines would cost more than they may.
            NotLipschitzOnRegion: a gate's values or slopes have no bound over the region.
        """
        intervals: dict[str, Interval] = {"": self._domain.ends}
        entering: dict[str, Interval] = {}
        for node in self._network.nodes:
            match node:
                case Affine():
                    intervals[node.name] = affine_interval(node, intervals)
                case Elementwise():
                    interval = intervals[node.source]
                    if self._technique == "linear":
                        interval = self._tightened(node, interval)
                    intervals[node.name] = image_of(node, interval)
                    if self._technique == "linear":
                        self.relaxations[node.gate] = self._relaxation(node, interval)
                    entering[node.gate] = interval
                case Product():
                    left, right = (self._factor(name, intervals) for name in node.sources)
                    if self._technique == "linear":
                        self.planes[node.name] = self.chosen_planes(node, left, right)
                    entering |= {left_gate(node.name): left, right_gate(node.name): right}
                    intervals[node.name] = product_interval(left, right)
                case _:
                    raise TypeError(f"node {node.name!r} is not lowered")
        return entering

    def lines(self) -> dict[str, Lines]:
        """The slopes of all lines, as proofs store them.

        Stored even where they are the activation's own: of two that are equally good, rounding
        must not choose another one when they are proved again.
        """
        return {
            name: Lines(lower=each.below.numpy(), upper=each.above.numpy())
            for name, each in (self.relaxations | self.planes).items()
        }

    def upper_bound(
        self, signal: str, rows: Float64[Tensor, "batch n"]
    ) -> Float64[Tensor, " batch"]:
        """A number that rows.s does not exceed over the region, s the signal's value."""
        return self.greatest({signal: rows})

    def greatest(
        self, functions: Mapping[str, Float64[Tensor, "batch _"]]
    ) -> Float64[Tensor, " batch"]:
        """Numbers that sums of linear functions of several signals do not exceed."""
        coefficients = dict(functions)
        first = next(iter(coefficients.values()))
        constant = first.new_zeros(first.shape[0])
        for node in reversed(self._network.nodes):
            if (own := coefficients.pop(node.name, None)) is None:
                continue
            match node:
                case Affine():
                    constant = constant + own @ node.bias
                    parts = [(term.source, term.map.adjoint(own)) for term in node.terms]
                case Elementwise():
                    inner, added = self.relaxations[node.gate].upward(own)
                    constant = constant + added
                    parts = [(node.source, inner)]
                case Product():
                    left, right, added = self.planes[node.name].upward(own)
                    constant = constant + added
                    parts = [(node.left, left), (node.right, right)]
                case _:
                    raise TypeError(f"node {node.name!r} is not lowered")
            for source, part in parts:
                coefficients[source] = (
                    coefficients[source] + part if source in coefficients else part
                )
        if "" in coefficients:
            constant = constant + self._domain.greatest(coefficients[""])
        return constant

    def _tightened(self, node: Elementwise, interval: Interval) -> Interval:
        """The interval cut by lines, where a tighter one could matter."""
        if node.source in self._exact:
            return interval
        places = torch.nonzero(~_is_linear(node, interval)).flatten()
        return self._cut(node.source, interval, places)

    def _factor(self, signal: str, intervals: dict[str, Interval]) -> Interval:
        """The interval of a product's factor, cut by lines where its signal is picked from."""
        if self._technique == "interval":
            return intervals[signal]
        picked = values_of(self._network, signal)
        if picked.signal not in self._exact and picked.signal in self._summed:
            lower, upper = intervals[picked.signal]
            places = torch.nonzero(lower < upper).flatten()
            if picked.signal not in self._cut_signals:
                self._cut_signals.add(picked.signal)
                intervals[picked.signal] = self._cut(picked.signal, (lower, upper), places)
        lower, upper = intervals[picked.signal]
        return lower[picked.index], upper[picked.index]

    def _cut(self, signal: str, interval: Interval, open_places: Int64[Tensor, " k"]) -> Interval:
        """The interval cut by lines at some places."""
        lower, upper = interval
        if len(open_places) == 0:
            return interval
        self._work += 2.0 * len(open_places) * self._costs[signal]
        if self._most < self._work:
            raise OutOfBudget("lines cost too much here", fix="intervals cost less")
        size = max(1, BATCH_ENTRIES // max(self._network.sizes.values()))
        for places in open_places.split(size):
            unit = lower.new_zeros(len(places), len(lower))
            unit[torch.arange(len(places)), places] = 1
            highest = self.upper_bound(signal, torch.cat((unit, -unit)))
            upper = upper.index_put((places,), torch.minimum(upper[places], highest[: len(places)]))
            lower = lower.index_put(
                (places,), torch.maximum(lower[places], -highest[len(places) :])
            )
        # Rounding may let the ends of a point cross.
        return torch.minimum(lower, upper), upper

    def chosen(
        self,
        node: Elementwise,
        lower: Float64[Tensor, " n"],  # noqa: ARG002 (whoever chooses anew may want the interval)
        upper: Float64[Tensor, " n"],  # noqa: ARG002
    ) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]] | None:
        """The slopes of the lines (below, above) of a gate; None for the activation's own."""
        return self._slopes.get(node.gate)

    def chosen_planes(
        self,
        node: Product,
        left: Interval,
        right: Interval,
    ) -> Planes:
        """The planes of a product: those of the slopes given, else halfway between the corners'."""
        if (slopes := self._slopes.get(node.name)) is not None:
            return Planes.of_slopes(left, right, *slopes)
        half = torch.full_like(left[0], 0.5)
        return Planes.of_shares(left, right, half, half)

    def _relaxation(self, node: Elementwise, interval: Interval) -> Relaxation:
        lower, upper = interval
        if (slopes := self.chosen(node, lower, upper)) is not None:
            below, above = slopes
            below_offset, above_offset = node.function.offsets(lower, upper, below, above)
        else:
            below, below_offset, above, above_offset = node.function.relaxation(lower, upper)
        return Relaxation(
            below=below, below_offset=below_offset, above=above, above_offset=above_offset
        )


def _exact_signals(lowered: Network) -> frozenset[str]:
    """The signals whose intervals are exact on a box: the input, and one map of it."""
    direct = {
        node.name
        for node in lowered.nodes
        if isinstance(node, Affine) and [term.source for term in node.terms] == [""]
    }
    return frozenset({"", *direct})


def _is_linear(node: Elementwise, interval: Interval) -> Bool[Tensor, " n"]:
    """Neurons with one slope on the whole interval: their bounds matter no further."""
    least, greatest = node.function.slope_range_on(*interval)
    return least == greatest
