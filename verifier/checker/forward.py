"""Bounds of every signal over a region: intervals, tightened by linear bounds before the gates.

`interval` carries intervals forward. `linear` also bounds what enters each gate by lines carried
back to the input, with the slopes that the proof brings or the checker's own, and intersects. Where
only affine nodes lie between the input and a gate nothing is relaxed, and both techniques do so.
Factors of products are tightened like what enters gates, at the signals that they are copied from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.block_values import value_node
from verifier.checker.copies import copied_from
from verifier.checker.definite import NotProved
from verifier.checker.intervals import Interval, affine_image, scaled_by
from verifier.checker.lowering import sources
from verifier.checker.network import Affine, Blocks, Elementwise, Maximum, Network, Product, Sort
from verifier.checker.planes import planes
from verifier.checker.substitution import Around, Gate, Lines, Substitution, Within
from verifier.checker.surroundings import Surroundings
from verifier.checker.tangent import gates_of
from verifier.norms import Norm
from verifier.regions import Ball, CenterBox, EndsBox, Everywhere

if TYPE_CHECKING:
    from jaxtyping import Bool, Float64

    from verifier.certificate import ForwardProof
    from verifier.certificate import Lines as Slopes
    from verifier.checker.constraints import Slopes as Range
    from verifier.checker.lowering import Lowered
    from verifier.checker.network import Node, Scalar
    from verifier.checker.substitution import Start
    from verifier.regions import Place


SMALLEST_SLOPE = 2.0**-500


def start_of(region: Place) -> tuple[Around | Within, Interval]:
    """What a region says of the input, and the least box around it.

    Raises:
        NotProved: the region is everywhere.
    """
    match region:
        case Everywhere():
            raise _no_region()
        case Ball(norm=Norm.L1 | Norm.L2 as norm):
            centre, radius = np.array([region.center]), np.full((1, 1), region.radius)
            ball, box = Around(centre=centre, radius=radius, norm=norm), _box(region)
            return ball if region.clip is None else Within(ball, around_box(box)), box
        case Ball() | CenterBox() | EndsBox():
            box = _box(region)
            return around_box(box), box


def around_box(box: Interval) -> Around:
    """A box, or one for each batch row, as what is known of the input."""
    centre, radius = box.centred()
    return Around(centre=centre, radius=radius, norm=Norm.LINF)


def is_box(start: Start) -> bool:
    """Whether nothing but a box is known of the input."""
    return isinstance(start, Around) and start.norm is Norm.LINF


def _box(region: Place) -> Interval:
    """The least float64 box around the region."""
    if isinstance(region, Everywhere):
        raise _no_region()
    lower, upper = region.interval()
    return Interval(lower[None, :], upper[None, :])


def _no_region() -> NotProved:
    return NotProved("a proof over a region, and the claim has none")


def forward_bounds(
    network: Network, lowered: Lowered, region: Place, proof: ForwardProof
) -> dict[str, Interval]:
    """Bounds of every signal of the lowered network over the region, one batch row.

    Args:
        network: the network before lowering, whose groups bound their outputs directly.
        lowered: affine nodes and gates |.|.
        region: a box or a ball.
        proof: the technique, and slopes for some gates.

    Raises:
        NotProved: a bound is not finite, or a gate's slopes have the wrong length or no gate.
    """
    return forward_walk(network, lowered, region, proof).signals


def bounds_around(
    network: Network, lowered: Lowered, start: tuple[Start, Interval], proof: ForwardProof
) -> dict[str, Interval]:
    """The same of what is known of the input, in one batch row or many."""
    return _walked(network, lowered, start, proof).signals


def forward_walk(
    network: Network, lowered: Lowered, region: Place, proof: ForwardProof
) -> Substitution:
    """The same with the lines of every gate.

    Raises:
        NotProved: a bound is not finite, or a gate's slopes have the wrong length or no gate.
    """
    return _walked(network, lowered, start_of(region), proof)


def _walked(
    network: Network, lowered: Lowered, start: tuple[Start, Interval], proof: ForwardProof
) -> Substitution:
    walk = _Walk(network, lowered, *start, proof)
    for node in lowered.network.nodes:
        walk.visit(node)
    return walk.substitution


def substitution_of(network: Network, start: Start, signals: dict[str, Interval]) -> Substitution:
    """The engine on a lowered network; its gates have no lines yet."""
    nodes = [node if isinstance(node, Affine) else _gate(node) for node in network.nodes]
    return Substitution(nodes=nodes, sizes=network.tensors, start=start, signals=signals)


def _gate(node: Node) -> Gate:
    source, *others = sources(node)
    return Gate(name=node.name, size=node.size, source=source, second=others[0] if others else None)


def slopes_over(lowered: Lowered, signals: dict[str, Interval]) -> dict[str, Range]:
    """For every gate of the tangent, a range of slopes that holds over the region.

    Raises:
        NotProved: a range is endless.
    """
    ranges: dict[str, Range] = {}
    for node in lowered.network.nodes:
        match node:
            case Elementwise():
                entering = signals[node.source]
                found = node.function.slope_range_on(entering.lower[0], entering.upper[0])
                ranges[node.name] = _finite(node.name, *found)
            case Product():
                for gate, factor in gates_of(node):
                    ranges[gate] = signals[factor].lower[0], signals[factor].upper[0]
            case _:
                pass
    return ranges


def _finite(name: str, lower: Float64[np.ndarray, " n"], upper: Float64[np.ndarray, " n"]) -> Range:
    if not (np.all(np.isfinite(lower)) and np.all(np.isfinite(upper))):
        raise NotProved(f"gate {name!r} has slopes without bound over the region")
    return lower, upper


class _Walk:
    """One pass through the lowered network."""

    def __init__(
        self,
        network: Network,
        lowered: Lowered,
        around: Start,
        box: Interval,
        proof: ForwardProof,
    ) -> None:
        if unknown := sorted(set(proof.lines) - set(lowered.gates.values())):
            raise NotProved(f"lines for {unknown}, which are no gates of the network")
        self._groups = {
            node.name: node for node in network.nodes if isinstance(node, Sort | Maximum)
        }
        self._gates = lowered.gates
        self._proof = proof
        self._is_box = is_box(around)
        nodes = lowered.network.nodes
        self._entering: dict[str, list[Elementwise | Blocks]] = {}
        for node in nodes:
            if isinstance(node, Elementwise | Blocks):
                self._entering.setdefault(node.source, []).append(node)
        self._makers = {node.name: node for node in nodes}
        self._factors = {
            copied_from(self._makers, factor)[0]
            for node in nodes
            if isinstance(node, Product)
            for factor in (node.left, node.right)
        }
        self._affine_only = {""}
        self.substitution = substitution_of(lowered.network, around, {"": box})

    def visit(self, node: object) -> None:
        """Bound one node's signal."""
        match node:
            case Affine():
                self._affine(node)
            case Elementwise():
                self._gate(node)
            case Product():
                self._product(node)
            case Blocks():
                self._blocks(node)
            case _:
                raise NotProved("a group was not lowered")

    def _blocks(self, node: Blocks) -> None:
        """From here on the node is affine, with an error."""
        signals = self.substitution.signals
        is_linear = self._proof.technique == "linear"
        known = Surroundings(self._makers, self.substitution, has_lines=is_linear)
        found, image = value_node(node, known)
        signals[node.name] = image.intersected(affine_image(found, signals))
        self.substitution.nodes = [
            found if other.name == node.name else other for other in self.substitution.nodes
        ]
        self._tighten_read(node.name)

    def _affine(self, node: Affine) -> None:
        signals = self.substitution.signals
        bounds = affine_image(node, signals)
        group = self._groups.get(node.name)
        if group is not None:
            bounds = bounds.intersected(_group_image(group, signals[group.source]))
        signals[node.name] = bounds
        direct = all(term.source in self._affine_only for term in node.terms)
        if direct:
            self._affine_only.add(node.name)
        # One exact step from a box: the interval is as good as the line.
        first = self._is_box and len(node.terms) == 1 and node.terms[0].source == ""
        relaxed = self._proof.technique == "linear" and not first
        is_read = node.name in self._entering or node.name in self._factors
        if is_read and (relaxed or (direct and not first)):
            self._tighten(node.name)

    def _tighten_read(self, signal: str) -> None:
        """The same, if lines are asked for and something reads the signal."""
        is_read = signal in self._entering or signal in self._factors
        if is_read and self._proof.technique == "linear":
            self._tighten(signal)

    def _tighten(self, signal: str) -> None:
        """Bounds by lines where some gate that the signal enters has more than one slope."""
        known = self.substitution.signals[signal]
        is_open = self._is_open(signal, known)
        places = np.flatnonzero(np.any(is_open, axis=0))
        if not len(places):
            return
        better = self.substitution.bounds(signal, places.tolist())
        lower, upper = known.lower.copy(), known.upper.copy()
        chosen = is_open[:, places]
        lower[:, places] = np.maximum(lower[:, places], np.where(chosen, better.lower, -np.inf))
        upper[:, places] = np.minimum(upper[:, places], np.where(chosen, better.upper, np.inf))
        self.substitution.signals[signal] = Interval(lower, upper).required_finite(signal)

    def _is_open(self, signal: str, known: Interval) -> Bool[np.ndarray, "batch n"]:
        """Where bounds matter: of other entries each gate is a line already."""
        shape = known.lower.shape
        lower, upper = known.lower.reshape(-1), known.upper.reshape(-1)
        is_open = np.zeros(shape, np.bool_)
        if signal in self._factors:
            is_open |= known.lower < known.upper
        for gate in self._entering.get(signal, ()):
            if isinstance(gate, Blocks):
                return np.ones(shape, np.bool_)
            least, greatest = gate.function.tiled(shape[0]).slope_range_on(lower, upper)
            is_open |= (least < greatest).reshape(shape)
        return is_open

    def _gate(self, node: Elementwise) -> None:
        signals = self.substitution.signals
        entering = signals[node.source]
        shape = entering.lower.shape
        # The rows of a batch one after another: a gate of as many entries more.
        function = node.function.tiled(shape[0])
        lower, upper = entering.lower.reshape(-1), entering.upper.reshape(-1)
        least, greatest = function.image(lower, upper)
        image = Interval(least.reshape(shape), greatest.reshape(shape))
        signals[node.name] = image.required_finite(node.name)
        slopes = self._slopes(node, function, lower, upper)
        lines = (*slopes, *function.offsets(lower, upper, *slopes))
        if not all(np.all(np.isfinite(part)) for part in lines):
            raise NotProved(f"gate {node.name!r} has no finite lines")
        self.substitution.lines[node.name] = Lines(*(part.reshape(shape) for part in lines))

    def _product(self, node: Product) -> None:
        """Bounds of the products, and planes around them."""
        signals = self.substitution.signals
        left, right = signals[node.left], signals[node.right]
        signals[node.name] = scaled_by(left, right).required_finite(node.name)
        given = self._proof.lines.get(node.name)
        if given is not None and not given.lower.shape == given.upper.shape == (node.size,):
            raise NotProved(f"planes of {node.name!r}: expected {node.size} slopes")
        slopes = None if given is None else (given.lower, given.upper)
        found = planes(left, right, slopes)
        if not all(np.all(np.isfinite(part)) for part in (found.low, found.high)):
            raise NotProved(f"product {node.name!r} has no finite planes")
        self.substitution.lines[node.name] = found
        self._tighten_read(node.name)

    def _slopes(
        self,
        node: Elementwise,
        function: Scalar,
        lower: Float64[np.ndarray, " n"],
        upper: Float64[np.ndarray, " n"],
    ) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
        given: Slopes | None = self._proof.lines.get(self._gates[node.name])
        if given is None:
            return function.lines(lower, upper)
        if given.lower.shape != (node.size,) or given.upper.shape != (node.size,):
            raise NotProved(f"lines of {self._gates[node.name]!r}: expected {node.size} slopes")
        # Any slopes are sound; those that a later product could lose to underflow become 0.
        ends = (np.tile(end, len(lower) // node.size) for end in (given.lower, given.upper))
        flat, steep = (np.where(np.abs(slope) < SMALLEST_SLOPE, 0.0, slope) for slope in ends)
        return flat, steep


def _group_image(node: Sort | Maximum, entering: Interval) -> Interval:
    """Sorting and maxima are monotone: they map ends to ends, exactly."""
    ends = entering.lower, entering.upper
    if isinstance(node, Sort):
        least, greatest = np.full((2, len(entering.lower), node.size), np.nan)
        for end, found in zip(ends, (least, greatest), strict=True):
            found[:, node.places] = np.sort(end[:, node.groups], axis=2)
        return Interval(least, greatest)
    best = np.max if node.sign == 1 else np.min
    return Interval(*(best(end[:, node.windows], axis=2) for end in ends))


def varies(region: Place) -> Bool[np.ndarray, " n"]:
    """Which coordinates can differ between two points of the region."""
    box = _box(region)
    return box.lower[0] < box.upper[0]
