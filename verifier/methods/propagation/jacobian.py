"""Bounds of the Clarke Jacobian over a region, by intervals or by lines through the graph reversed.

Let C f be the selected outputs, and g_t the row of derivatives of C f by the signal t. From the
output to the input, affine maps pull g back by their adjoints, and a gate with slopes in [a, b]
multiplies it by any s of [a, b], neuron by neuron:

    g_output = C,    h = s o g (what leaves a gate),    a <= s <= b.

The product of one neuron lies between its two extremes, the upper one convex in g, the lower
concave; on [gl, gu] their chords are the best lines that there are,

    chord of min(a g, b g)  <=  s g  <=  chord of max(a g, b g).                        (1)

A linear function of g at any signal is then pushed *forward* through the graph: affine maps apply
as they are, a gate takes from (1) the line that the coefficient's sign asks for, and at the
output g = C gives its greatest value. This bounds g at every gate, last gates first; g at the
input, which is the Jacobian J; and with |J_k| <= its chord on [Jl, Ju] the sum of a whole row at
once. Gates with a = b are exact. Slopes that follow what enters their gates: `joint`.

Names: R rows of C, all in one batch with K functions of each; a leading 1 stands for all rows.
Source: Shi et al. 2022 (arXiv 2210.07394).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from verifier.errors import OutOfBudget
from verifier.methods.clock import Clock
from verifier.methods.propagation.copies import ancestors, derivatives_by, readers_of
from verifier.methods.propagation.forward import BATCH_ENTRIES
from verifier.methods.propagation.joint import Along, SlopeLines
from verifier.network.graph import Network, Node
from verifier.network.linear_map import LinearMap
from verifier.network.nodes import Affine, Elementwise


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Chords:
    """The lines (1) of every neuron of a gate, for every row of C; a leading 1 is every row."""

    below: Float64[Tensor, "rows n"]
    below_offset: Float64[Tensor, "rows n"]
    above: Float64[Tensor, "rows n"]
    above_offset: Float64[Tensor, "rows n"]
    beside: Float64[Tensor, "rows n"] | None = None  #: of what enters the gate, in both lines

    @staticmethod
    def of_product(
        least: Float64[Tensor, " n"],
        greatest: Float64[Tensor, " n"],
        lower: Float64[Tensor, "rows n"],
        upper: Float64[Tensor, "rows n"],
    ) -> Chords:
        """(1) for slopes in [least, greatest] and g in [lower, upper].

        Where g has one sign the extremes are lines through 0. Elsewhere the chord of max(a g, b g)
        runs from a gl to b gu, and that of min(a g, b g) from b gl to a gu.
        """
        width = torch.where(lower < upper, upper - lower, 1.0)
        above = (greatest * upper - least * lower) / width
        below = (least * upper - greatest * lower) / width
        # -gl gu / (gu - gl) >= 0 times b - a: both chords pass 0 at that height.
        height = (greatest - least) * lower * upper / width
        positive, one_sign = 0 <= lower, (0 <= lower) | (upper <= 0)
        return Chords(
            below=torch.where(one_sign, torch.where(positive, least, greatest), below),
            below_offset=torch.where(one_sign, 0.0, height),
            above=torch.where(one_sign, torch.where(positive, greatest, least), above),
            above_offset=torch.where(one_sign, 0.0, -height),
        )

    def joined(
        self,
        least: Float64[Tensor, " n"],
        greatest: Float64[Tensor, " n"],
        bounds: tuple[Float64[Tensor, "rows n"], Float64[Tensor, "rows n"]],
        slope: SlopeLines,
    ) -> Chords:
        """Lines that follow the slope, where they are nearer than these at the middle of g."""
        lower, upper = bounds
        middle, half = (lower + upper) / 2, (upper - lower) / 2
        center, spread = (least + greatest) / 2, (greatest - least) / 2
        ends = middle * slope.low, middle * slope.high
        high = torch.maximum(*ends) - center * middle + spread * half
        low = torch.minimum(*ends) - center * middle - spread * half
        gap = (self.above - self.below) * middle + self.above_offset - self.below_offset
        nearer = high - low < gap
        return Chords(
            below=torch.where(nearer, center, self.below),
            below_offset=torch.where(nearer, low, self.below_offset),
            above=torch.where(nearer, center, self.above),
            above_offset=torch.where(nearer, high, self.above_offset),
            beside=torch.where(nearer, middle * slope.tilt, 0.0),
        )

    def upward(
        self, functions: Float64[Tensor, "rows k n"]
    ) -> tuple[Float64[Tensor, "rows2 k n"], Float64[Tensor, "rows2 k"]]:
        """What stands in front of g in place of s o g, at most, and the constant."""
        positive, negative = functions.clamp(min=0), functions.clamp(max=0)
        constant = (positive @ self.above_offset[:, :, None]).squeeze(-1) + (
            negative @ self.below_offset[:, :, None]
        ).squeeze(-1)
        return positive * self.above[:, None] + negative * self.below[:, None], constant


class Jacobian:
    """The derivatives of C f over a region where every gate's slopes are known."""

    def __init__(
        self,
        lowered: Network,
        slopes: Mapping[str, tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]],
        rows: Float64[Tensor, "rows outputs"],
        clock: Clock,
        along: Along | None = None,
    ) -> None:
        """Keep the question.

        Args:
            lowered: a network of affine and elementwise nodes only.
            slopes: [least, greatest] of every neuron over the region, by gate.
            rows: C.
            clock: when it runs out, `bounds` gives up.
            along: how slopes follow what enters their gates; None: they are only in their ranges.
        """
        self._along = along
        self._network = lowered
        self._slopes = slopes
        self._rows = rows
        self._clock = clock
        self._live = ancestors(lowered)
        self._last_reader = {source: node.name for node in lowered.nodes for source in node.sources}
        self._readers = readers_of(lowered, self._live)
        self._bounded: dict[tuple[str, bytes], tuple[Tensor, Tensor]] = {}
        self._chords: dict[str, Chords] = {}

    def intervals(
        self,
    ) -> tuple[Float64[Tensor, "rows inputs"], Float64[Tensor, "rows inputs"]]:
        """[Jl, Ju] by interval products alone."""
        zero = self._rows.new_zeros(len(self._rows), self._network.input_size)
        middle: dict[str, Tensor] = {self._network.output: self._rows}
        reach: dict[str, Tensor] = {self._network.output: torch.zeros_like(self._rows)}

        def add(source: str, center: Tensor, spread: Tensor) -> None:
            middle[source] = middle[source] + center if source in middle else center
            reach[source] = reach[source] + spread if source in reach else spread

        for node in reversed(self._network.nodes):
            if node.name not in middle:
                continue
            center, spread = middle.pop(node.name), reach.pop(node.name)
            match node:
                case Affine():
                    for term in node.terms:
                        pulled = term.map.absolute().adjoint(spread)
                        add(term.source, term.map.adjoint(center), pulled)
                case Elementwise():
                    add(node.source, *self._gated(node.gate, center, spread))
                case _:
                    raise TypeError(f"node {node.name!r} is not lowered")
        center, spread = middle.get("", zero), reach.get("", zero)
        return center - spread, center + spread

    def bounds(
        self, inputs: Int64[Tensor, " selected"]
    ) -> tuple[Float64[Tensor, "rows selected"], Float64[Tensor, "rows selected"]]:
        """[Jl, Ju] of the selected inputs by lines.

        Raises:
            OutOfBudget: the clock ran out.
        """
        for node in reversed(self._network.nodes):
            if isinstance(node, Elementwise) and node.name in self._live:
                self._chords[node.gate] = self._relaxed(node)
        return self._between("", self._network.input_size, inputs)

    def row_sums(
        self,
        inputs: Int64[Tensor, " selected"],
        lower: Float64[Tensor, "rows selected"],
        upper: Float64[Tensor, "rows selected"],
    ) -> Float64[Tensor, " rows"]:
        """Bounds of sum_k |J_k|, given [Jl, Ju] from `bounds`.

        |J_k| lies below its chord, which is max(-1 J, 1 J): (1) with slopes -1 and 1.
        """
        one = torch.ones_like(lower[0])
        chord = Chords.of_product(-one, one, lower, upper)
        functions = lower.new_zeros(len(lower), 1, self._network.input_size)
        functions[:, 0, inputs] = chord.above
        return self._greatest("", functions)[:, 0] + chord.above_offset.sum(dim=-1)

    def _gated(self, gate: str, center: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
        """Center and reach of the interval [a, b] o [center +- spread]."""
        least, greatest = self._slopes[gate]
        lower, upper = center - spread, center + spread
        ends = torch.stack((least * lower, least * upper, greatest * lower, greatest * upper))
        low, high = ends.amin(dim=0), ends.amax(dim=0)
        return (low + high) / 2, (high - low) / 2

    def _relaxed(self, node: Elementwise) -> Chords:
        """The chords (1) of one gate: with bounds of g where the slope is not known."""
        least, greatest = self._slopes[node.gate]
        open_places = torch.nonzero(least < greatest).flatten()
        if len(open_places) == 0:
            nothing = torch.zeros_like(least[None])
            return Chords(
                below=least[None],
                below_offset=nothing,
                above=greatest[None],
                above_offset=nothing,
            )
        lower, upper = (
            least.new_zeros(len(self._rows), node.size).index_copy(1, open_places, end)
            for end in self._copied(node.name, open_places)
        )
        chords = Chords.of_product(least, greatest, lower, upper)
        if self._along is None:
            return chords
        slope = self._along.slopes[node.gate]
        return chords.joined(least, greatest, (lower, upper), slope)

    def _copied(
        self, signal: str, places: Int64[Tensor, " k"]
    ) -> tuple[Float64[Tensor, "rows k"], Float64[Tensor, "rows k"]]:
        """The same as `_between`, each derivative that is a copy of another one found once."""
        origin = derivatives_by(self._network, self._readers, signal)
        wanted, which = torch.unique(origin.index[places], return_inverse=True)
        key = (origin.signal, wanted.numpy().tobytes())
        if key not in self._bounded:
            size = self._network.sizes[origin.signal]
            self._bounded[key] = self._between(origin.signal, size, wanted)
        lower, upper = self._bounded[key]
        return lower[:, which], upper[:, which]

    def _between(
        self, signal: str, size: int, places: Int64[Tensor, " k"]
    ) -> tuple[Float64[Tensor, "rows k"], Float64[Tensor, "rows k"]]:
        """Bounds of g at some places of a signal, for every row."""
        widest = max(self._network.sizes.values())
        batch = max(1, BATCH_ENTRIES // (2 * widest * len(self._rows)))
        lower, upper = list[Tensor](), list[Tensor]()
        for chosen in places.split(batch):
            if self._clock.has_expired:
                raise OutOfBudget("the Jacobian is not bounded yet", fix="give more seconds")
            unit = self._rows.new_zeros(1, len(chosen), size)
            unit[0, torch.arange(len(chosen)), chosen] = 1
            highest = self._greatest(signal, torch.cat((unit, -unit), dim=1))
            upper.append(highest[:, : len(chosen)])
            lower.append(-highest[:, len(chosen) :])
        least, greatest = torch.cat(lower, dim=1), torch.cat(upper, dim=1)
        # Rounding may let the ends of a point cross.
        return torch.minimum(least, greatest), greatest

    def _greatest(
        self, signal: str, functions: Float64[Tensor, "_ k n"]
    ) -> Float64[Tensor, "rows k"]:
        """The greatest value of every linear function of g at a signal, for every row of C."""
        pushed = {signal: functions}
        beside: dict[str, Tensor] = {}
        constant = functions.new_zeros(len(self._rows), functions.shape[1])
        for node in self._network.nodes:
            if node.name not in self._live or not any(name in pushed for name in node.sources):
                continue
            match node:
                case Affine():
                    parts = [
                        _apply(term.map, pushed[term.source])
                        for term in node.terms
                        if term.source in pushed
                    ]
                    moved = sum(parts[1:], parts[0])
                case Elementwise():
                    moved, added = self._chords[node.gate].upward(pushed[node.source])
                    constant = constant + added
                    self._add_beside(beside, node.gate, pushed[node.source])
                case _:
                    raise TypeError(f"node {node.name!r} is not lowered")
            self._drop_read(pushed, node)
            pushed[node.name] = moved
        if self._network.output in pushed:
            last = pushed[self._network.output]
            constant = constant + (last @ self._rows[:, :, None]).squeeze(-1)
        return constant + self._carried_back(beside)

    def _drop_read(self, pushed: dict[str, Tensor], node: Node) -> None:
        """Let go of what no later node reads."""
        for source in node.sources:
            if self._last_reader[source] == node.name and source != self._network.output:
                pushed.pop(source, None)

    def _add_beside(self, beside: dict[str, Tensor], gate: str, functions: Tensor) -> None:
        """What stands in front of the signal that a gate's slope follows."""
        factor = self._chords[gate].beside
        if self._along is not None and factor is not None:
            name = self._along.signals[gate]
            part = functions * factor[:, None]
            beside[name] = beside[name] + part if name in beside else part

    def _carried_back(
        self, beside: Mapping[str, Float64[Tensor, "rows k _"]]
    ) -> Float64[Tensor, "rows k"] | float:
        """The greatest value of functions of the network's signals over the region."""
        if self._along is None or not beside:
            return 0.0
        shape = next(iter(beside.values())).shape[:2]
        flat = {name: part.flatten(0, 1) for name, part in beside.items()}
        return self._along.forward.greatest(flat).unflatten(0, shape)


def _apply(
    linear: LinearMap, functions: Float64[Tensor, "rows k n"]
) -> Float64[Tensor, "rows k m"]:
    """A map of the last axis."""
    flat = linear.apply(functions.flatten(0, 1))
    return flat.unflatten(0, functions.shape[:2])
