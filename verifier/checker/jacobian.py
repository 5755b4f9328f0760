"""Bounds of the Clarke Jacobian over a region, carried from the outputs back to the inputs.

Over the region every gate has a slope s in [s_l, s_u], so that a row c of outputs has the gradient

    g_out = c,   g_z = s o g_h through a gate h(z),   g_x = A'g_z through an affine node.     (1)

The reversed graph is affine with gates g -> s g, where for g in [g_l, g_u]

    min(s_l g, s_u g) <= s g <= max(s_l g, s_u g),                                            (2)

concave below, convex above: chords bound both. `interval` carries intervals through (1); `linear`
bounds every unstable gate's g, and at last J itself, by carrying lines back to c; `joint` lets
slopes follow what enters their gates (`joint_products`), and carries lines on through the network
to its input. Rows of outputs are a batch. For x, y in the region f(x) - f(y) is the integral of
J (x - y) along the segment, where a gate whose input is constant along it may take any slope.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.arithmetic import above, enlarged
from verifier.checker.copies import copied_from
from verifier.checker.intervals import Interval, affine_image, scaled_by
from verifier.checker.joint_products import SlopeLines, joint_lines
from verifier.checker.lowering import sources
from verifier.checker.maps import Adjoint, identity
from verifier.checker.network import Affine, Term
from verifier.checker.substitution import Exactly, Gate, Lines, Substitution

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Bool, Float64, Int64

    from verifier.checker.constraints import Slopes
    from verifier.checker.linearised import Cap
    from verifier.checker.network import Network


BatchedSlopes = tuple["Float64[np.ndarray, 'batch n']", "Float64[np.ndarray, 'batch n']"]


def gradient(name: str) -> str:
    """What the reversed graph calls the gradient at a signal."""
    return f"{name}\0d"


class Jacobian:
    """Bounds of c'J for a batch of rows c; slopes may have a row for each of them, too."""

    def __init__(
        self,
        network: Network,
        slopes: Mapping[str, Slopes | BatchedSlopes],
        rows: Float64[np.ndarray, "batch outputs"],
        *,
        linear: bool,
        along: Along | None = None,
        caps: Mapping[str, Cap] | None = None,
    ) -> None:
        """Carry the bounds of every gate's derivatives.

        Args:
            network: affine nodes and gates.
            slopes: of every gate over the region.
            rows: c.
            linear: by lines, or by intervals alone.
            along: how slopes follow what enters their gates.
            caps: what norms of blocks say, by the signal that enters them.
        """
        nodes = reversed_graph(network)
        if along is not None:
            nodes = tuple(_reading(node, along) for node in nodes)
        self._along = along
        self._inputs = gradient("")
        self._linear = linear
        sizes = {"": network.output_size} | {node.name: node.size for node in nodes}
        self._reached = self._inputs in sizes
        self._shape = (len(rows), network.input_size)
        self._makers = {node.name: node for node in nodes}
        self._known: dict[tuple[str, bytes], Interval] = {}
        self.graph = Substitution(
            nodes=nodes, sizes=sizes, start=Exactly(rows), signals={"": Interval(rows, rows)}
        )
        if along is not None:
            along.join(self.graph)
        capped = {gradient(name): cap for name, cap in (caps or {}).items()}
        for node in nodes:
            if isinstance(node, Affine):
                self.graph.signals[node.name] = affine_image(node, self.graph.signals)
                if node.name in capped:
                    self._cap(node.name, capped[node.name])
            else:
                self._gate(node, *slopes[node.name])

    def _cap(self, name: str, cap: Cap) -> None:
        known = self.graph.signals
        known[name] = known[name].intersected(cap.of(known[gradient(cap.leaving)]))

    def entries(self, wanted: Bool[np.ndarray, " inputs"]) -> Interval:
        """Bounds of every entry of the rows' J; 0 where an entry is not wanted."""
        lower, upper = np.zeros((2, *self._shape))
        if not self._reached:
            return Interval(lower, upper)
        bounds = self.graph.signals[self._inputs]
        chosen = np.flatnonzero(wanted)
        part = Interval(bounds.lower[:, chosen], bounds.upper[:, chosen])
        if self._linear:
            part = part.intersected(self.graph.bounds(self._inputs, chosen.tolist()))
        lower[:, chosen], upper[:, chosen] = part.lower, part.upper
        return Interval(lower, upper).required_finite("the Jacobian")

    def turned(self, directions: Float64[np.ndarray, "batch k inputs"]) -> Interval:
        """Bounds of c'J d for directions d of every row's own."""
        if not self._reached:
            zero = np.zeros(directions.shape[:2])
            return Interval(zero, zero)
        ends = self.graph.greatest(self._inputs, np.concatenate([directions, -directions], axis=1))
        count = directions.shape[1]
        return Interval(-ends[:, count:], ends[:, :count]).required_finite("the Jacobian")

    def row_sums(
        self, entries: Interval, wanted: Bool[np.ndarray, " inputs"]
    ) -> Float64[np.ndarray, " batch"]:
        """Numbers that the sum of |J_k| over the wanted k does not exceed, all k jointly.

        |J_k| <= t_k J_k + e_k, the chord on its bounds `entries`, and t.J is bounded once more.
        """
        apart = enlarged(entries.magnitude().sum(axis=1), self._shape[1])
        if not (self._linear and self._reached):
            return apart
        slope, offset = absolute_chord(entries)
        # An entry that is not wanted is no zero: it has no part in the row.
        slope = slope * wanted
        joint = self.graph.greatest(self._inputs, slope[:, None, :])[:, 0]
        together = above(joint + enlarged(offset.sum(axis=1), self._shape[1]))
        return np.minimum(apart, np.maximum(together, 0.0))

    def _gate(
        self,
        gate: Gate,
        lower: Float64[np.ndarray, "*batch n"],
        upper: Float64[np.ndarray, "*batch n"],
    ) -> None:
        graph = self.graph
        unstable = np.flatnonzero(np.any(np.atleast_2d(lower < upper), axis=0))
        if self._linear and len(unstable):
            known = graph.signals[gate.source]
            better = self._bounds(gate.source, unstable)
            ends = known.lower.copy(), known.upper.copy()
            ends[0][:, unstable] = np.maximum(ends[0][:, unstable], better.lower)
            ends[1][:, unstable] = np.minimum(ends[1][:, unstable], better.upper)
            graph.signals[gate.source] = Interval(*ends).required_finite(gate.source)
        entering = graph.signals[gate.source]
        slopes = Interval(np.atleast_2d(lower), np.atleast_2d(upper))
        graph.signals[gate.name] = scaled_by(entering, slopes).required_finite(gate.name)
        lines = product_lines(slopes, entering)
        if self._along is not None and gate.name in self._along.slopes:
            lines = joint_lines(lines, slopes, entering, self._along.slopes[gate.name])
        graph.lines[gate.name] = lines

    def _bounds(self, signal: str, places: Int64[np.ndarray, " k"]) -> Interval:
        """Bounds of some derivatives by lines; what only copies another one shares its bounds.

        All products of a matrix product that are added up have the derivative of their sum.
        """
        signal, index = copied_from(self._makers, signal, places)
        assert index is not None  # noqa: S101 (the places are given)
        wanted, which = np.unique(index, return_inverse=True)
        key = (signal, wanted.tobytes())
        if key not in self._known:
            self._known[key] = self.graph.bounds(signal, wanted.tolist())
        found = self._known[key]
        return Interval(found.lower[:, which], found.upper[:, which])


@dataclass(frozen=True, slots=True, kw_only=True)
class Along:
    """How slopes follow what enters their gates, and the network that says what that is."""

    slopes: Mapping[str, SlopeLines]  #: by gate
    forward: Substitution
    entering: Mapping[str, str]  #: the signal that enters each gate

    def join(self, graph: Substitution) -> None:
        """Put the network's nodes, under names of their own, before those of a reversed graph."""
        forward = self.forward
        assert not isinstance(forward.start, Exactly)  # noqa: S101 (a region)
        graph.nodes = (*(_renamed(node) for node in forward.nodes), *graph.nodes)
        graph.sizes = {
            **{value_of(name): size for name, size in forward.sizes.items()},
            **graph.sizes,
        }
        graph.second = (value_of(""), forward.start)
        graph.signals |= {value_of(name): known for name, known in forward.signals.items()}
        graph.lines |= {value_of(name): lines for name, lines in forward.lines.items()}


def value_of(name: str) -> str:
    """What a graph of both calls a signal of the network, next to the gradient there."""
    return f"{name}\0v"


def _renamed(node: Affine | Gate) -> Affine | Gate:
    if isinstance(node, Gate):
        second = None if node.second is None else value_of(node.second)
        return replace(node, name=value_of(node.name), source=value_of(node.source), second=second)
    terms = tuple(replace(term, source=value_of(term.source)) for term in node.terms)
    return replace(node, name=value_of(node.name), terms=terms)


def _reading(node: Affine | Gate, along: Along) -> Affine | Gate:
    """A gate that reads its slope's signal as well, where the slope follows one."""
    if isinstance(node, Gate) and node.name in along.slopes:
        return replace(node, second=value_of(along.entering[node.name]))
    return node


def reversed_graph(network: Network) -> tuple[Affine | Gate, ...]:
    """The graph of (1): the input "" is the row c, the node `gradient("")` is c'J."""
    arriving: dict[str, list[Term]] = {network.output: [Term("", identity(network.output_size))]}
    nodes: list[Affine | Gate] = []

    def gathered(name: str, size: int) -> None:
        zero = np.zeros(size)
        terms = tuple(arriving.pop(name))
        nodes.append(
            Affine(name=gradient(name), size=size, terms=terms, bias=zero, bias_error=zero)
        )

    for node in reversed(network.nodes):
        gathered(node.name, node.size)
        if isinstance(node, Affine):
            for term in node.terms:
                adjoint = Term(gradient(node.name), Adjoint(term.map))
                arriving.setdefault(term.source, []).append(adjoint)
        else:
            (source,) = sources(node)  # of products there is the tangent
            nodes.append(Gate(name=node.name, size=node.size, source=gradient(node.name)))
            arriving.setdefault(source, []).append(Term(node.name, identity(node.size)))
    if "" in arriving:
        gathered("", network.input_size)
    return tuple(nodes)


def product_lines(slopes: Interval, entering: Interval) -> Lines:
    """Lines of s g for s in `slopes` and g in `entering`, by (2).

    Where g keeps its sign, or s is one number, (2) is linear and the lines are exact.
    """
    least, greatest = np.broadcast_arrays(slopes.lower, slopes.upper)
    low, high = entering.lower, entering.upper
    least, greatest = (np.broadcast_to(s, low.shape) for s in (least, greatest))
    upper_ends = [np.maximum(least * g, greatest * g) for g in (low, high)]
    lower_ends = [np.minimum(least * g, greatest * g) for g in (low, high)]
    width = np.where(low < high, high - low, 1.0)
    right, left = (0 <= low) | (least == greatest), high <= 0
    exact = right | left
    steep = np.where(
        right, greatest, np.where(left, least, (upper_ends[1] - upper_ends[0]) / width)
    )
    flat = np.where(right, least, np.where(left, greatest, (lower_ends[1] - lower_ends[0]) / width))
    # Convex minus linear is greatest at an end. Three roundings, each of at most these magnitudes.
    tops = [_beyond(end, steep * g, 1.0) for end, g in zip(upper_ends, (low, high), strict=True)]
    lows = [_beyond(end, flat * g, -1.0) for end, g in zip(lower_ends, (low, high), strict=True)]
    return Lines(
        below=flat,
        above=steep,
        low=np.where(exact, 0.0, np.minimum(*lows)),
        high=np.where(exact, 0.0, np.maximum(*tops)),
    )


def absolute_chord(
    entries: Interval,
) -> tuple[Float64[np.ndarray, "batch n"], Float64[np.ndarray, "batch n"]]:
    """(t, e) with |J| <= t J + e for every J in the interval."""
    low, high = entries.lower, entries.upper
    width = np.where(low < high, high - low, 1.0)
    chord = np.clip((np.abs(high) - np.abs(low)) / width, -1.0, 1.0)
    slope = np.where(0 <= low, 1.0, np.where(high <= 0, -1.0, chord))
    ends = [_beyond(np.abs(j), slope * j, 1.0) for j in (low, high)]
    return slope, np.where((0 <= low) | (high <= 0), 0.0, np.maximum(*ends))


def _beyond(
    value: Float64[np.ndarray, "batch n"], product: Float64[np.ndarray, "batch n"], side: float
) -> Float64[np.ndarray, "batch n"]:
    """Value - product, beyond the rounding of both and of the difference."""
    slack = 2.0**-50 * (np.abs(value) + np.abs(product)) + 2.0**-1060
    return value - product + side * slack
