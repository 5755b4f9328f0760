"""Parts of a region with bounds of what enters the gates: many parts at a time.

A part keeps the bounds that hold in its box of inputs, cut by its cuts. Cuts of the input make the
box smaller, whose bounds are then found anew with the checker's own lines, once for all of its
parts. Where an interval has no point left the part is empty, whatever its leaf says.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from verifier.certificate import ForwardProof
from verifier.checker.arithmetic import below, enlarged, gamma
from verifier.checker.definite import NotProved
from verifier.checker.forward import bounds_around, forward_bounds, start_of, substitution_of
from verifier.checker.gate_facts import lines_within
from verifier.checker.intervals import Interval
from verifier.checker.network import Elementwise
from verifier.checker.substitution import Around
from verifier.norms import Norm

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from jaxtyping import Bool, Float64

    from verifier.checker.lowering import Lowered
    from verifier.checker.network import Network
    from verifier.checker.substitution import Substitution
    from verifier.checker.tree_parts import Ends, Part
    from verifier.regions import Region

CHUNK_ENTRIES = 2**18  #: intervals that are held at a time

_Cuts: TypeAlias = "tuple[tuple[int, Ends], ...]"


@dataclass(frozen=True, slots=True)
class Within:
    """One box of inputs."""

    graph: Substitution  #: bounds of every signal in the box; lines are those of the last chunk

    @property
    def varies(self) -> Bool[np.ndarray, " n"]:
        """Which coordinates can differ between two points of the box."""
        box = self.graph.signals[""]
        return box.lower[0] < box.upper[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Parts of one kind in one box, none of which is known to be empty."""

    kind: int
    within: Within
    parts: tuple[Part, ...]
    entering: Mapping[str, Interval]  #: by signal that enters a gate, a row for each part

    def only(self, chosen: Bool[np.ndarray, " parts"]) -> Chunk:
        """Some of the parts."""
        kept = tuple(part for part, is_chosen in zip(self.parts, chosen, strict=True) if is_chosen)
        entering = {
            name: Interval(bounds.lower[chosen], bounds.upper[chosen])
            for name, bounds in self.entering.items()
        }
        return replace(self, parts=kept, entering=entering)


class Boxes:
    """The boxes of inputs into which trees cut a region."""

    def __init__(
        self, network: Network, small: Lowered, region: Region, forward: ForwardProof
    ) -> None:
        self._network, self._small = network, small
        self._forward = ForwardProof(technique=forward.technique)
        around, _ = start_of(region)
        signals = forward_bounds(network, small, region, forward)
        self._whole = Within(substitution_of(small.network, around, signals))
        self._known: dict[_Cuts, Within | None] = {(): self._whole}
        self._gates = {n.source for n in small.network.nodes if isinstance(n, Elementwise)}
        widths = sum(small.network.tensors[name] for name in self._gates)
        self._rows = max(1, CHUNK_ENTRIES // max(1, widths))

    def chunks(self, parts: Iterable[Part]) -> Iterator[Chunk]:
        """The parts that are not empty by their intervals, in chunks of one kind and box."""
        groups: dict[tuple[_Cuts, int], list[Part]] = defaultdict(list)
        for part in parts:
            cuts = sorted((n[1], ends) for n, ends in part.ends.items() if n[0] == "")
            groups[tuple(cuts), part.kind].append(part)
        for (cuts, kind), group in groups.items():
            within = self._within(cuts)
            if within is None:
                continue
            for begin in range(0, len(group), self._rows):
                chunk = self._chunk(kind, within, group[begin : begin + self._rows])
                if chunk.parts:
                    yield chunk

    def _chunk(self, kind: int, within: Within, group: Sequence[Part]) -> Chunk:
        signals = within.graph.signals
        lower = {name: np.repeat(signals[name].lower, len(group), axis=0) for name in self._gates}
        upper = {name: np.repeat(signals[name].upper, len(group), axis=0) for name in self._gates}
        for row, part in enumerate(group):
            for (name, entry), ends in part.ends.items():
                if name:  # cuts of the input are in the box
                    lower[name][row, entry] = max(lower[name][row, entry], ends[0])
                    upper[name][row, entry] = min(upper[name][row, entry], ends[1])
        entering = {name: Interval(lower[name], upper[name]) for name in self._gates}
        whole = Chunk(kind=kind, within=within, parts=tuple(group), entering=entering)
        has_points = np.ones(len(group), np.bool_)
        for bounds in entering.values():
            has_points &= np.all(bounds.lower <= bounds.upper, axis=1)
        return whole.only(has_points)

    def _within(self, cuts: _Cuts) -> Within | None:
        """Bounds in the box that the cuts leave of the input; None where that is shown empty."""
        if cuts not in self._known:
            self._known[cuts] = self._cut(cuts)
        return self._known[cuts]

    def _cut(self, cuts: _Cuts) -> Within | None:
        known = self._whole.graph.signals
        lower, upper = known[""].lower.copy(), known[""].upper.copy()
        for entry, ends in cuts:
            lower[0, entry] = max(lower[0, entry], ends[0])
            upper[0, entry] = min(upper[0, entry], ends[1])
        if np.any(upper < lower):
            return None
        box = Interval(lower, upper)
        centre, radius = box.centred()
        around = Around(centre=centre[0], radius=radius[0], norm=Norm.LINF)
        found = bounds_around(self._network, self._small, (around, box), self._forward)
        signals = {name: bounds.intersected(known[name]) for name, bounds in found.items()}
        if any(np.any(bounds.upper < bounds.lower) for bounds in signals.values()):
            return None
        return Within(substitution_of(self._small.network, around, signals))


def require_empty(chunk: Chunk, small: Lowered) -> None:
    """No part of the chunk has a point: (2) of `verifier.checker.tree` holds nowhere in it.

    Raises:
        NotProved: this is not shown.
    """
    graph = chunk.within.graph
    for node in small.network.nodes:
        if isinstance(node, Elementwise):
            graph.lines[node.name] = lines_within(node.function, chunk.entering[node.source])
    rows = _pulled(chunk, small)
    least = _least_needed(chunk, rows)
    if not rows or not np.all(graph.greatest_sum(rows)[:, 0] < least):
        raise NotProved("a part is not shown to be empty")


def _pulled(chunk: Chunk, small: Lowered) -> dict[str, Float64[np.ndarray, "parts 1 n"]]:
    """The c of (2) by signal."""
    rows: dict[str, Float64[np.ndarray, "parts 1 n"]] = {}
    for place, part in enumerate(chunk.parts):
        for (name, entry), pull in part.pulls.items():
            if name not in rows:
                rows[name] = np.zeros((len(chunk.parts), 1, small.network.tensors[name]))
            rows[name][place, 0, entry] = pull
    return rows


def _least_needed(
    chunk: Chunk, rows: Mapping[str, Float64[np.ndarray, "parts 1 n"]]
) -> Float64[np.ndarray, " parts"]:
    """Numbers that the sums of c t of (2) are not below."""
    value, mass = np.zeros((2, len(chunk.parts)))
    count = len(rows) + 2
    for name, pulls in rows.items():
        bounds = chunk.entering.get(name, chunk.within.graph.signals[name])
        moved = pulls[:, 0] * np.where(0 < pulls[:, 0], bounds.lower, bounds.upper)
        value, mass = value + moved.sum(axis=1), mass + np.abs(moved).sum(axis=1)
        count += moved.shape[1]
    return below(value - enlarged(gamma(count) * mass, count))
