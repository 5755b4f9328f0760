"""Groups made of affine nodes and gates |.|, exactly, so that proofs meet three kinds of node.

    max(a, b) = (a + b)/2 + |a - b|/2,    y = x - v d + v |d| with d = v.x.

Proofs name gates after the tensor that leaves the group (CERTIFICATE.md): "t" for pairs and
reflections, "t#0", "t#1", ... for the comparisons of a tournament, or of the odd-even
transposition network that sorts three and more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from verifier.checker.carry import Sparse
from verifier.checker.definite import NotProved
from verifier.checker.network import (
    Affine,
    Blocks,
    Elementwise,
    Gated,
    Maximum,
    Network,
    Node,
    Product,
    Reflection,
    Sort,
    Term,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jaxtyping import Float64, Int64

    from verifier.checker.network import Map

    Vector = Float64[np.ndarray, " n"]


@dataclass(frozen=True, slots=True)
class Absolute:
    """|.|, the gate of every lowered group."""

    def tiled(self, _count: int, /) -> Absolute:
        """The same for every entry."""
        return self

    def slope_range(self, size: int) -> tuple[Vector, Vector]:
        """[-1, 1]."""
        return -np.ones(size), np.ones(size)

    def slope_range_on(self, lower: Vector, upper: Vector) -> tuple[Vector, Vector]:
        """The sign where it is known. Secants from 0 have one sign: 0 belongs to both sides."""
        right, left = 0 <= lower, (upper <= 0) & (lower < 0)
        return np.where(right, 1.0, -1.0), np.where(left, -1.0, 1.0)

    def slopes_inside(self, lower: Vector, upper: Vector) -> tuple[Vector, Vector]:
        """The same."""
        return self.slope_range_on(lower, upper)

    def image(self, lower: Vector, upper: Vector) -> tuple[Vector, Vector]:
        """From the point nearest to 0 to the farthest."""
        return np.maximum(0.0, np.maximum(lower, -upper)), np.maximum(-lower, upper)

    def lines(self, lower: Vector, upper: Vector) -> tuple[Vector, Vector]:
        """Below: the branch of the farther end. Above: the chord."""
        farther = np.where(0 <= lower + upper, 1.0, -1.0)
        width = np.where(lower < upper, upper - lower, 1.0)
        chord = np.clip((np.abs(upper) - np.abs(lower)) / width, -1.0, 1.0)
        least, greatest = self.slope_range_on(lower, upper)
        known = least == greatest
        return np.where(known, least, farther), np.where(known, least, chord)

    def offsets(
        self, lower: Vector, upper: Vector, below: Vector, above: Vector
    ) -> tuple[Vector, Vector]:
        """|x| - s x is convex: greatest at an end, least at an end or at 0.

        One product and one difference round each: 4u of their magnitudes covers both.
        """
        ends = (lower, upper)
        great = [_outward(np.abs(x), above * x, 1.0) for x in ends]
        small = [_outward(np.abs(x), below * x, -1.0) for x in ends]
        zero = (lower <= 0) & (0 <= upper)
        least = np.minimum(*small)
        return np.where(zero, np.minimum(least, 0.0), least), np.maximum(*great)


def _outward(value: Vector, product: Vector, side: float) -> Vector:
    """Value - product, moved to its side beyond all rounding."""
    slack = 2.0**-50 * (np.abs(value) + np.abs(product)) + 2.0**-1060
    return value - product + side * slack


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowered:
    """Affine, Elementwise and Product nodes; where they were kept, Blocks and Sorts of three."""

    network: Network
    gates: dict[str, str]  #: what proofs call any node that is not affine, by its own name


def lowered(
    network: Network, sorts: Literal["keep", "compare"], *, keeps_blocks: bool = False
) -> Lowered:
    """The same function of affine nodes and gates; others are kept where they are asked for.

    Args:
        network: as it was read.
        sorts: whether those of three and more are kept.
        keeps_blocks: whether the proof knows what to do with blocks.

    Raises:
        NotProved: it does not, and there is one.
    """
    build = _Builder(network.tensors)
    for node in network.nodes:
        if isinstance(node, Blocks) and not keeps_blocks:
            raise NotProved(f"node {node.name!r} is no gate, and the proof needs gates")
        build.add(node, sorts)
    nodes = _reaching(build.nodes, network.output)
    return Lowered(
        network=replace(network, nodes=nodes, tensors=build.sizes),
        gates={node.name: build.gates[node.name] for node in nodes if node.name in build.gates},
    )


def lowered_maximum(network: Network, names: frozenset[str]) -> tuple[Network, dict[str, str]]:
    """The same function with some maxima lowered, and what proofs call the new gates."""
    build = _Builder(network.tensors)
    for node in network.nodes:
        if isinstance(node, Maximum) and node.name in names:
            build.maximum(node)
        else:
            build.nodes.append(node)
    nodes = _reaching(build.nodes, network.output)
    return replace(network, nodes=nodes, tensors=build.sizes), build.gates


def _reaching(nodes: Sequence[Node], output: str) -> tuple[Node, ...]:
    """The nodes that the output depends on."""
    needed, kept = {output}, list[Node]()
    for node in reversed(nodes):
        if node.name in needed:
            kept.append(node)
            needed |= set(sources(node))
    return tuple(reversed(kept))


def sources(node: Node) -> tuple[str, ...]:
    """The signals that enter a node."""
    if isinstance(node, Affine):
        return tuple(term.source for term in node.terms)
    return (node.left, node.right) if isinstance(node, Product) else (node.source,)


def entering(node: Node) -> str:
    """The one signal that enters a nonlinear node.

    Raises:
        NotProved: two do.
    """
    source, *others = sources(node)
    if others:
        raise NotProved(f"node {node.name!r} is entered by several signals")
    return source


def canonical_sort(node: Sort) -> Sort:
    """Indices ascend within a group, and groups ascend by their first: the order of proofs."""
    groups = np.sort(node.groups, axis=1)
    order = np.argsort(groups[:, 0], kind="stable")
    return replace(node, groups=groups[order], places=node.places[order])


@dataclass(frozen=True, slots=True)
class _Wire:
    """A vector on its way through comparisons: some entries of a signal."""

    source: str
    index: Int64[np.ndarray, " n"]
    in_size: int


class _Builder:
    """Collects the nodes of the lowered network."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.sizes = dict(sizes)
        self.nodes: list[Node] = []
        self.gates: dict[str, str] = {}

    def add(self, node: Node, sorts: Literal["keep", "compare"]) -> None:
        """A node of the network, lowered where it is a group."""
        match node:
            case Affine() | Blocks():
                self.nodes.append(node)
            case Elementwise() | Product() | Gated():
                self.nodes.append(node)
                self.gates[node.name] = node.name
            case Sort():
                self._sort(canonical_sort(node), sorts)
            case Reflection():
                self.reflection(node)
            case Maximum():
                self.maximum(node)

    def _sort(self, node: Sort, sorts: Literal["keep", "compare"]) -> None:
        if sorts == "keep" and 2 < node.groups.shape[1]:
            self.nodes.append(node)
            self.gates[node.name] = node.name
        else:
            self.sort(node)

    def sort(self, node: Sort) -> None:
        """One comparison for pairs; else n rounds of odd-even transposition."""
        width = node.groups.shape[1]
        size = self.sizes[node.source]
        wires = [_Wire(node.source, node.groups[:, j], size) for j in range(width)]
        gate = 0
        for turn in range(width if 2 < width else 1):
            for low in range(turn % 2, width - 1, 2):
                name = node.name if width == 2 else f"{node.name}#{gate}"
                wires[low : low + 2] = self._compared(name, wires[low], wires[low + 1])
                gate += 1
        terms: list[Term] = []
        for place, wire in zip(node.places.T, wires, strict=True):
            index = np.full(node.size, -1)
            index[place] = wire.index
            terms.append(Term(wire.source, Sparse(index[:, None], _ones(index), wire.in_size)))
        self._affine(node.name, node.size, terms)

    def maximum(self, node: Maximum) -> None:
        """A tournament: neighbours of a round are compared, an odd last one passes on."""
        size = self.sizes[node.source]
        current = [_Wire(node.source, column, size) for column in node.windows.T]
        gate = 0
        while 1 < len(current):
            winners: list[_Wire] = []
            for one, other in zip(current[::2], current[1::2], strict=False):
                pair = self._compared(f"{node.name}#{gate}", one, other)
                winners.append(pair[1] if node.sign == 1 else pair[0])
                gate += 1
            current = winners + current[len(current) - len(current) % 2 :]
        (wire,) = current
        term = Term(wire.source, Sparse(wire.index[:, None], _ones(wire.index), wire.in_size))
        self._affine(node.name, node.size, [term])

    def reflection(self, node: Reflection) -> None:
        """One gate a slice: d = v.x enters it, and v (|d| - d) is added to x."""
        size, width = self.sizes[node.source], node.slices.shape[1]
        entering, gate = f"{node.name}\0in", f"{node.name}\0gate"
        count = len(node.slices)
        along = Sparse(node.slices, node.vectors, size, node.vector_error)
        self._affine(entering, count, [Term(node.source, along)])
        self._gate(gate, node.name, count, entering)
        owner, weight, error = np.zeros(size, np.int64), np.zeros(size), np.zeros(size)
        owner[node.slices] = np.repeat(np.arange(count)[:, None], width, axis=1)
        weight[node.slices], error[node.slices] = node.vectors, node.vector_error

        def back(sign: float) -> Map:
            return Sparse(owner[:, None], sign * weight[:, None], count, error[:, None])

        unit = Sparse(np.arange(size)[:, None], np.ones((size, 1)), size)
        terms = [Term(node.source, unit), Term(entering, back(-1.0)), Term(gate, back(1.0))]
        self._affine(node.name, node.size, terms)

    def _compared(self, gate: str, one: _Wire, other: _Wire) -> list[_Wire]:
        """The lesser and the greater of two vectors, through the gate |one - other|."""
        size = len(one.index)
        entering, leaving = f"{gate}\0in", f"{gate}\0gate"
        self._affine(entering, size, _combined(one, other, 1.0, -1.0))
        self._gate(leaving, gate, size, entering)
        own = np.arange(size)
        ends: list[_Wire] = []
        for name, sign in ((f"{gate}\0min", -0.5), (f"{gate}\0max", 0.5)):
            swing = Term(leaving, Sparse(own[:, None], np.full((size, 1), sign), size))
            self._affine(name, size, [*_combined(one, other, 0.5, 0.5), swing])
            ends.append(_Wire(name, own, size))
        return ends

    def _affine(self, name: str, size: int, terms: Sequence[Term]) -> None:
        bias = np.zeros(size)
        self.sizes[name] = size
        self.nodes.append(
            Affine(name=name, size=size, terms=tuple(terms), bias=bias, bias_error=bias)
        )

    def _gate(self, name: str, gate: str, size: int, source: str) -> None:
        self.sizes[name] = size
        self.gates[name] = gate
        self.nodes.append(Elementwise(name=name, size=size, source=source, function=Absolute()))


def _combined(one: _Wire, other: _Wire, first: float, second: float) -> list[Term]:
    """First one + second other; an entry that meets itself is added up exactly."""
    if one.source != other.source:
        return [
            Term(wire.source, Sparse(wire.index[:, None], _ones(wire.index) * weight, wire.in_size))
            for wire, weight in ((one, first), (other, second))
        ]
    same = one.index == other.index
    weight = np.stack([np.where(same, first + second, first), np.where(same, 0.0, second)], axis=1)
    index = np.stack([one.index, np.where(same, -1, other.index)], axis=1)
    return [Term(one.source, Sparse(index, weight, one.in_size))]


def _ones(index: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, "n 1"]:
    return np.ones((len(index), 1))
