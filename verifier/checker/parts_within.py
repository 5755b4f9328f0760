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
from verifier.checker.forward import bounds_around, forward_bounds, start_of, substitution_of
from verifier.checker.intervals import Interval
from verifier.checker.network import Elementwise
from verifier.checker.substitution import Around, Within
from verifier.norms import Norm

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from jaxtyping import Bool, Float64

    from verifier.checker.lowering import Lowered
    from verifier.checker.network import Network
    from verifier.checker.substitution import Substitution
    from verifier.checker.tree_parts import Ends, Part
    from verifier.regions import Place

CHUNK_ENTRIES = 2**18  #: intervals that are held at a time
BOX_ENTRIES = 2**16  #: the same, where bounds in boxes are found

_Cuts: TypeAlias = "tuple[tuple[int, Ends], ...]"
_Bounds: TypeAlias = "dict[str, Interval]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Parts of one kind, none of which is known to be empty."""

    kind: int
    parts: tuple[Part, ...]
    has_boxes: bool  #: whether cuts of the input gave each part a box of its own
    signals: Mapping[str, Interval]  #: in the region, or in each part's box: one row, or many
    entering: Mapping[str, Interval]  #: by signal that enters a gate, a row for each part

    @property
    def varies(self) -> Bool[np.ndarray, " n"]:
        """Which coordinates can differ between two points of a part: the same for all parts."""
        box = self.signals[""]
        return box.lower[0] < box.upper[0]

    def only(self, chosen: Bool[np.ndarray, " parts"]) -> Chunk:
        """Some of the parts."""
        kept = tuple(part for part, is_chosen in zip(self.parts, chosen, strict=True) if is_chosen)
        signals = _rows(self.signals, chosen) if self.has_boxes else self.signals
        return replace(self, parts=kept, signals=signals, entering=_rows(self.entering, chosen))


def _rows(bounds: Mapping[str, Interval], chosen: Bool[np.ndarray, " parts"]) -> _Bounds:
    return {name: Interval(b.lower[chosen], b.upper[chosen]) for name, b in bounds.items()}


class Boxes:
    """The boxes of inputs into which trees cut a region."""

    def __init__(
        self, network: Network, small: Lowered, region: Place, forward: ForwardProof
    ) -> None:
        self._network, self._small = network, small
        self._forward = ForwardProof(technique=forward.technique)
        self._around, _ = start_of(region)
        self._whole = forward_bounds(network, small, region, forward)
        self._known: dict[_Cuts, _Bounds | None] = {(): self._whole}
        self._gates = {n.source for n in small.network.nodes if isinstance(n, Elementwise)}
        widths = sum(small.network.tensors[name] for name in self._gates)
        self._rows = max(1, CHUNK_ENTRIES // max(1, widths))
        self._boxes = max(1, BOX_ENTRIES // max(1, widths))

    def chunks(self, parts: Iterable[Part]) -> Iterator[Chunk]:
        """The parts that are not empty by their intervals, in chunks of one kind."""
        listed = [(_cuts_of(part), part) for part in parts]
        self._learn({cuts for cuts, _ in listed} - set(self._known))
        groups: dict[tuple[int, bool, bytes], list[tuple[Part, _Bounds]]] = defaultdict(list)
        for cuts, part in listed:
            bounds = self._known[cuts]
            if bounds is not None:
                varies = bounds[""].lower < bounds[""].upper
                groups[part.kind, bool(cuts), varies.tobytes()].append((part, bounds))
        for (kind, has_boxes, _), group in groups.items():
            for begin in range(0, len(group), self._rows):
                chunk = self._chunk(kind, has_boxes, group[begin : begin + self._rows])
                if chunk.parts:
                    yield chunk

    def graph(self, chunk: Chunk) -> Substitution:
        """The engine over the region, or over the boxes of a chunk; gates have no lines yet."""
        start = self._within(chunk.signals[""]) if chunk.has_boxes else self._around
        return substitution_of(self._small.network, start, dict(chunk.signals))

    def _within(self, boxes: Interval) -> Around | Within:
        """The boxes, and the ball that they are cut from."""
        around = _around(boxes)
        return around if self._around.norm is Norm.LINF else Within(self._around, around)

    def _chunk(self, kind: int, has_boxes: bool, group: Sequence[tuple[Part, _Bounds]]) -> Chunk:
        signals = _stacked([bounds for _, bounds in group]) if has_boxes else self._whole
        count = len(group) // len(signals[""].lower)
        lower = {name: np.repeat(signals[name].lower, count, axis=0) for name in self._gates}
        upper = {name: np.repeat(signals[name].upper, count, axis=0) for name in self._gates}
        for name, rows in self._cuts_by_signal([part for part, _ in group]).items():
            row, entry = rows[:, 0].astype(np.int64), rows[:, 1].astype(np.int64)
            # No part has two intervals of an entry.
            lower[name][row, entry] = np.maximum(lower[name][row, entry], rows[:, 2])
            upper[name][row, entry] = np.minimum(upper[name][row, entry], rows[:, 3])
        has_points = np.ones(len(group), np.bool_)
        for name in self._gates:
            has_points &= ~np.any(upper[name] < lower[name], axis=1)
        return Chunk(
            kind=kind,
            parts=tuple(part for part, _ in group),
            has_boxes=has_boxes,
            signals=signals,
            entering={name: Interval(lower[name], upper[name]) for name in self._gates},
        ).only(has_points)

    def _cuts_by_signal(self, parts: Sequence[Part]) -> dict[str, Float64[np.ndarray, "cuts 4"]]:
        """What cuts say of gates, not of the input: the part, the entry, its ends."""
        found: dict[str, list[tuple[float, ...]]] = {name: [] for name in self._gates}
        for row, part in enumerate(parts):
            for (name, entry), ends in part.ends.items():
                if name:
                    found[name].append((row, entry, *ends))
        return {name: np.array(rows) for name, rows in found.items() if rows}

    def _learn(self, missing: Iterable[_Cuts]) -> None:
        """Bounds in the boxes that cuts leave of the input; None where that is shown empty."""
        self._known |= dict.fromkeys(missing)
        boxes = [(cuts, box) for cuts in missing if (box := self._box(cuts)) is not None]
        for begin in range(0, len(boxes), self._boxes):
            some = boxes[begin : begin + self._boxes]
            box = _stacked([{"": box} for _, box in some])[""]
            start = (_around(box), box)
            found = bounds_around(self._network, self._small, start, self._forward)
            bounds = {name: b.intersected(self._whole[name]) for name, b in found.items()}
            has_points = np.ones(len(some), np.bool_)
            for each in bounds.values():
                has_points &= ~np.any(each.upper < each.lower, axis=1)
            for row in np.flatnonzero(has_points):
                self._known[some[row][0]] = {
                    name: Interval(b.lower[row : row + 1], b.upper[row : row + 1])
                    for name, b in bounds.items()
                }

    def _box(self, cuts: _Cuts) -> Interval | None:
        whole = self._whole[""]
        lower, upper = whole.lower.copy(), whole.upper.copy()
        for entry, ends in cuts:
            lower[0, entry] = max(lower[0, entry], ends[0])
            upper[0, entry] = min(upper[0, entry], ends[1])
        return None if np.any(upper < lower) else Interval(lower, upper)


def _cuts_of(part: Part) -> _Cuts:
    """What the cuts say of the input."""
    return tuple(sorted((n[1], ends) for n, ends in part.ends.items() if n[0] == ""))


def _around(boxes: Interval) -> Around:
    centre, radius = boxes.centred()
    return Around(centre=centre, radius=radius, norm=Norm.LINF)


def _stacked(bounds: Sequence[Mapping[str, Interval]]) -> _Bounds:
    """One row below the other."""
    return {
        name: Interval(
            np.concatenate([each[name].lower for each in bounds]),
            np.concatenate([each[name].upper for each in bounds]),
        )
        for name in bounds[0]
    }
