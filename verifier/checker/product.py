"""Proof kind `product`: norms of the linear maps between nonlinear nodes, over the whole graph.

With K_t a bound of |increment entering t| / |dx| and M_ts the linear map, along all paths, from
what leaves s to what enters t,

    K_t = sum_s |M_ts| |phi_s| K_s,    |phi_""| K_"" = 1,    bound = K_"",                  (1)

where |phi_s| is the node's own Lipschitz constant in the internal norm and s runs over the
nonlinear nodes and the input "". Every number is a `Magnitude`, rounded up, so that a product
beyond float64 keeps its logarithm. The table of |phi| is in CERTIFICATE.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.absolute import prove_absolute
from verifier.checker.arithmetic import (
    ONE,
    ZERO,
    Magnitude,
    above,
    enlarged,
    greatest,
    least,
    product_of,
    root_of_squares,
    total,
)
from verifier.checker.carry import Carried, push, stages
from verifier.checker.composites import DENSE_ENTRIES, Composites, is_formable
from verifier.checker.definite import NotProved
from verifier.checker.joint import CUTS, Cut, Joint
from verifier.checker.layers import Layer, greatest_layers, layers_of
from verifier.checker.lowering import entering, lowered_maximum
from verifier.checker.maps import Gather
from verifier.checker.network import (
    Affine,
    Blocks,
    Elementwise,
    Maximum,
    Network,
    Node,
    Reflection,
    Sort,
)
from verifier.checker.operator_norms import (
    FORMED_WORK,
    gram_work,
    map_norm,
    matrix_norm,
    norm_factor,
)
from verifier.checker.runs import run_norm
from verifier.norms import Norm, NormPair

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jaxtyping import Int64

    from verifier.certificate import ProductItem, ProductProof, ProductTechnique
    from verifier.checker.carry import Sparse
    from verifier.checker.items import Selection


@dataclass(frozen=True, slots=True)
class Product:
    """What a product proof proves."""

    bounds: tuple[Magnitude, ...]  #: one for each item
    layers: tuple[Layer, ...]  #: of all items, by sums; none where no item uses them


def prove_product(
    proof: ProductProof, network: Network, pair: NormPair, selected: Selection
) -> Product:
    """The bounds that the proof proves, and the layers' constants on the way.

    Raises:
        NotProved: the proof has another number of items, or names what the network has not.
        NotLipschitzGlobally: a node has no global constant.
    """
    if len(proof.items) != len(selected.items):
        raise NotProved(f"{len(proof.items)} items for {len(selected.items)} of the claim")
    graphs = _Graphs(network)
    bounds = tuple(
        graphs.bound(claimed, pair, item.rows, selected.inputs)
        for claimed, item in zip(proof.items, selected.items, strict=True)
    )
    return Product(bounds, greatest_layers(graphs.layers))


class _Graphs:
    """The network as it is, and with the maxima lowered whose comparisons a proof names."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._graphs: dict[frozenset[str], _Graph] = {}
        self.layers: list[tuple[Layer, ...]] = []  #: of every item that was bounded by sums

    def bound(
        self, item: ProductItem, pair: NormPair, rows: Sparse, inputs: Int64[np.ndarray, " k"]
    ) -> Magnitude:
        """The least that the item's techniques prove; one that does not apply proves nothing."""
        found: list[Magnitude] = []
        refused = NotProved("no technique")
        for technique in item.techniques:
            try:
                found.append(self._by(technique, item, pair, rows, inputs))
            except NotProved as error:
                refused = error
        if not found:
            raise refused
        return least(*found)

    def _by(
        self,
        technique: ProductTechnique,
        item: ProductItem,
        pair: NormPair,
        rows: Sparse,
        inputs: Int64[np.ndarray, " k"],
    ) -> Magnitude:
        match technique:
            case "sums":
                layers = self.of(item).sums(item, pair, rows, inputs)
                self.layers.append(layers)
                return layers[-1].prefix
            case "absolute":
                return prove_absolute(self._network, pair, rows, inputs)
            case "joint" | "balanced":
                return self.of(item).joint(pair, item.internal, rows, inputs, technique)

    def of(self, item: ProductItem) -> _Graph:
        """The graph in which the item's names are those of nodes."""
        named = {block.target for block in item.blocks} | {block.source for block in item.blocks}
        split = frozenset(
            node.name
            for node in self._network.nodes
            if isinstance(node, Maximum) and f"{node.name}#0" in named
        )
        if split not in self._graphs:
            self._graphs[split] = _Graph(lowered_maximum(self._network, split))
        return self._graphs[split]


class _Graph:
    """One network's product bounds; norms that several items share are proved once."""

    def __init__(self, lowered: tuple[Network, dict[str, str]]) -> None:
        self._network, self._labels = lowered
        self._composites = Composites(self._network)
        self._norms: dict[tuple[object, ...], Magnitude] = {}
        self._constants: dict[tuple[str, Norm], Magnitude] = {}
        self._joint: dict[Cut, Joint] = {}

    def sums(
        self, item: ProductItem, pair: NormPair, rows: Sparse, inputs: Int64[np.ndarray, " k"]
    ) -> tuple[Layer, ...]:
        """(1) for one item; the bound is the last layer's prefix."""
        hints = {(block.target, block.source): block.norm for block in item.blocks}
        factors = {factor.node: factor.norm for factor in item.factors}
        inner = item.internal
        columns = inputs if len(inputs) < self._network.input_size else None
        hops: dict[tuple[str, str], Magnitude] = {}
        constants: dict[str, Magnitude] = {}
        sizes = {"": rows.out_size}
        for node in self._network.nodes:
            if isinstance(node, Affine):
                continue
            name = self._label(node.name)
            constants[name] = self._constant(node, inner)
            sizes[name] = self._network.tensors[entering(node)]
            for source in self._composites.sources(entering(node)):
                hops[name, self._label(source)] = self._hop(
                    entering(node),
                    source,
                    NormPair(pair.input if source == "" else inner, inner),
                    hints.get((name, self._label(source))),
                    factors,
                    columns if source == "" else None,
                )
        for source in self._composites.sources(self._network.output):
            hop = NormPair(pair.input if source == "" else inner, pair.output)
            hint = hints.get(("", self._label(source)))
            chosen = columns if source == "" else None
            norm = self._last(rows, source, hop, hint, factors, chosen)
            hops["", self._label(source)] = norm
        return layers_of(hops, constants, sizes, inner)

    def joint(
        self,
        pair: NormPair,
        internal: Norm,
        rows: Sparse,
        inputs: Int64[np.ndarray, " k"],
        technique: ProductTechnique,
    ) -> Magnitude:
        """The bound of one item, by the product of joint norms over the better cut."""
        found: list[Magnitude] = []
        refused = NotProved("no cut")
        for cut in CUTS:
            try:
                if cut not in self._joint:
                    self._joint[cut] = Joint(self._network, self._constant, cut)
                balanced = technique == "balanced"
                found.append(self._joint[cut].bound(pair, internal, rows, inputs, balanced))
            except NotProved as error:
                refused = error
        if not found:
            raise refused
        return least(*found)

    def _label(self, name: str) -> str:
        return self._labels.get(name, name)

    def _hop(
        self,
        signal: str,
        source: str,
        pair: NormPair,
        hint: float | None,
        factors: dict[str, float],
        columns: Int64[np.ndarray, " k"] | None,
    ) -> Magnitude:
        """|M| from a source to what enters a node."""
        used = tuple(sorted(factors.items())) if pair == _BOTH_L2 and hint is None else ()
        chosen = None if columns is None else tuple(columns.tolist())
        key = (signal, source, pair, hint, used, chosen)
        if key not in self._norms:
            self._norms[key] = self._whole(signal, source, pair, hint, factors, columns)
        return self._norms[key]

    def _whole(
        self,
        signal: str,
        source: str,
        pair: NormPair,
        hint: float | None,
        factors: dict[str, float],
        columns: Int64[np.ndarray, " k"] | None,
    ) -> Magnitude:
        sizes = self._network.tensors
        if signal == source:
            size = sizes[source] if columns is None else len(columns)
            return Magnitude.of(norm_factor(pair, size))
        width = sizes[source] if columns is None else len(columns)
        work = gram_work(sizes[signal], width)
        by_factors = pair == _BOTH_L2 and hint is None and (factors or FORMED_WORK < work)
        formable = is_formable(sizes[signal], width) and sizes[signal] * sizes[source] <= (
            DENSE_ENTRIES
        )
        if formable and not by_factors:
            matrix = self._composites.matrix(signal, source)
            return _norm_of(matrix if columns is None else matrix.columns(columns), pair, hint)
        return self._by_operators(signal, source, pair, factors)

    def _last(
        self,
        rows: Sparse,
        source: str,
        pair: NormPair,
        hint: float | None,
        factors: dict[str, float],
        columns: Int64[np.ndarray, " k"] | None,
    ) -> Magnitude:
        """|C M| from a source to the outputs of an item, C the item's rows."""
        output, sizes = self._network.output, self._network.tensors
        height, width = sizes[output], sizes[source]
        if len(rows.index) == height:
            return self._hop(output, source, pair, hint, factors, columns)
        if height * width <= DENSE_ENTRIES:
            matrix = push(rows, self._composites.matrix(output, source).transposed()).transposed()
        elif len(rows.index) * width <= DENSE_ENTRIES:
            dense = Carried(rows.backward(np.eye(len(rows.index))))
            matrix = self._composites.pulled(output, dense)[source]
        else:
            hop = self._hop(output, source, pair, hint, factors, columns)
            return hop * Magnitude.of(map_norm(rows, pair.output))
        return _norm_of(matrix if columns is None else matrix.columns(columns), pair, hint)

    def _by_operators(
        self, signal: str, source: str, pair: NormPair, factors: dict[str, float]
    ) -> Magnitude:
        """N(node) = sum over terms of |A| N(source of the term), in one of the two norms."""
        sizes = self._network.tensors
        bounds: list[Magnitude] = []
        for norm, size in ((pair.input, sizes[signal]), (pair.output, sizes[source])):
            reached = {source: ONE}
            for node in self._ends(signal, source):
                parts = [
                    self._run(node, place, norm, source, reached, factors)
                    for place in range(len(node.terms))
                ]
                reached[node.name] = _together(node, parts, norm)
            bounds.append(reached[signal] * Magnitude.of(norm_factor(pair, size)))
        return least(*bounds)

    def _ends(self, signal: str, source: str) -> tuple[Affine, ...]:
        """The nodes at which runs end: the signal, and sums of several terms on the way to it."""
        between = reversed(self._composites.between(signal))
        return tuple(
            node
            for node in between
            if node.name != source and (node.name == signal or 1 < len(node.terms))
        )

    def _run(
        self,
        node: Affine,
        place: int,
        norm: Norm,
        source: str,
        reached: Mapping[str, Magnitude],
        factors: Mapping[str, float],
    ) -> Magnitude:
        """One term's share of N(node), through all nodes of one term before it."""
        maps, start = [node.terms[place].map], node.terms[place].source
        while start != source and start not in reached:
            before = self._composites.node(start)
            if before is None or len(before.terms) != 1:
                return ZERO
            maps, start = [before.terms[0].map, *maps], before.terms[0].source
        hint = factors.get(node.name) if norm is Norm.L2 else None
        key = (node.name, place, norm, start, hint)
        if key not in self._norms:
            if norm is Norm.L2:
                self._norms[key] = run_norm(maps, hint)
            else:
                self._norms[key] = product_of(Magnitude.of(map_norm(m, norm)) for m in maps)
        return self._norms[key] * reached[start]

    def _constant(self, node: Node, norm: Norm) -> Magnitude:
        key = (node.name, norm)
        if key not in self._constants:
            self._constants[key] = node_constant(node, norm)
        return self._constants[key]


_BOTH_L2 = NormPair(Norm.L2, Norm.L2)


def _norm_of(matrix: Carried, pair: NormPair, hint: float | None) -> Magnitude:
    return Magnitude.of(matrix_norm(matrix, pair, hint))


def _together(node: Affine, parts: Sequence[Magnitude], norm: Norm) -> Magnitude:
    """The norm of a sum of terms; where they fill different entries it is that of a stack."""
    if len(parts) < 2 or not _is_disjoint(node):
        return total(parts)
    match norm:
        case Norm.L1:
            return total(parts)
        case Norm.L2:
            return root_of_squares(parts)
        case Norm.LINF:
            return greatest(parts)


def _is_disjoint(node: Affine) -> bool:
    """Whether no entry takes anything from two terms, as in a Concat."""
    filled = np.zeros(node.size, dtype=np.int64)
    for term in node.terms:
        *_, last = stages(term.map)
        if not isinstance(last, Gather):
            return False
        filled += last.index >= 0
    return bool(np.all(filled <= 1))


# --- The nodes' own constants --------------------------------------------------------------------


def node_constant(node: Node, norm: Norm) -> Magnitude:
    """A number that |phi(x) - phi(y)| / |x - y| does not exceed anywhere.

    Elementwise: the greatest |slope|. Sorting: 1, for sorted differences are a doubly stochastic
    average of the differences. A maximum: every window takes one entry's increment, so an entry
    counts as often as windows share it: overlap in l1, its root in l2, once in linf.
    """
    match node:
        case Elementwise():
            lower, upper = node.function.slope_range(node.size)
            slopes = np.maximum(np.abs(lower), np.abs(upper))
            return Magnitude.of(float(slopes.max(initial=0.0)))
        case Sort():
            return ONE
        case Maximum():
            overlap = Magnitude.of(float(node.overlap))
            return {Norm.L1: overlap, Norm.L2: overlap.root(), Norm.LINF: ONE}[norm]
        case Reflection():
            return _reflection_constant(node, norm)
        case Blocks():
            return node.function.constant(norm, node.groups.shape[1])
        case _:
            raise NotProved(f"node {node.name!r} has no constant of its own")


def _reflection_constant(node: Reflection, norm: Norm) -> Magnitude:
    """max(1, |I - 2vv'|), for I - (1-s) vv' with s in [-1, 1] lies between I and I - 2vv'.

    In l2 |I - 2vv'| = max(1, 2|v|^2 - 1) where v has two entries or more, |1 - 2 v^2| where one.
    In l1 and linf the greatest |1 - 2 v_i^2| + 2 |v_i| sum_(j != i) |v_j|.
    """
    high = above(np.abs(node.vectors) + node.vector_error)
    low = np.maximum(0.0, np.nextafter(np.abs(node.vectors) - node.vector_error, -np.inf))
    width = high.shape[1]
    if norm is Norm.L2:
        squares = enlarged(np.sum(np.square(high), axis=1), width)
        return greatest((ONE, Magnitude.of(max(0.0, float(above(2 * squares - 1).max())))))
    # |1 - 2t| is convex in t = v_i^2: greatest at an end; two roundings, hence 4u.
    ends = np.maximum(np.abs(1 - 2 * low**2), np.abs(1 - 2 * high**2)) + 2.0**-50 * (1 + high**2)
    whole = enlarged(np.sum(high, axis=1, keepdims=True), width)
    rest = above(whole - high)
    sums = enlarged(ends + 2 * high * rest, 4)
    return greatest((ONE, Magnitude.of(float(sums.max()))))
