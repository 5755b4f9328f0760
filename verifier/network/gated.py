"""Signals that a sigmoid lets pass, as gates of several inputs, for all inputs.

With x = s(u), s the logistic function, and psi for what is left beside a mean slope,

    z = x y or (1 - x) y, y = tanh(v)       dz = (3/8) dv + psi
        psi^2 <= (25/256) du^2 + (25/64) dv^2,
    z = x v or (1 - x) v, |v| <= c          dz = (1/2) dv + psi                             (1)
        psi^2 <= (c^2/16) du^2 + (1/4) dv^2,
    z = (1 - x) y + x h, or with x for      dz = (dv + dh)/3 + psi
        1 - x, y = tanh(v), |h| <= 1            psi^2 <= du^2/3 + (2/9) [(dv - dh)^2 + dv^2 + dh^2].

Gradients lie in the ellipsoids that these are (the checker's module proves it). Gates of one input
would let x, 1 - x and the slope of tanh all be 1 at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.network.elementwise import Sigmoid, Tanh
from verifier.network.everywhere import factors_everywhere, require_bounded_everywhere
from verifier.network.graph import Grouped, Network, Node
from verifier.network.linear_map import Adjoint, Composed, Diagonal, Gather, Identity, LinearMap
from verifier.network.nodes import Affine, Elementwise, Product, Term, linear
from verifier.network.tangent import Range, left_gate, right_gate, tangent
from verifier.norms import Norm

#: What enters a gate: sums of signals with factors; and for each its m, and its share of psi^2.
_Ways: TypeAlias = list[tuple[list[tuple[str, float]], float, Tensor]]


_ROUNDED = 1e-9  #: by how much ranges here are wider than the checker's, at most


@dataclass(frozen=True, slots=True, eq=False)
class Gated:
    """One gate for each of n entries; of what enters, n entries after n entries are one way."""

    middles: tuple[float, ...]  #: m of each way
    shares: Float64[Tensor, "ways n"]  #: psi^2 is at most the sum of share w^2

    @property
    def size(self) -> int:
        """The number of entries that leave."""
        return self.shares.shape[1]

    def forward(self, x: Float64[Tensor, "batch entering"]) -> Float64[Tensor, "batch n"]:
        """No number: of the function nothing is known but (1)."""
        return x.new_full((len(x), self.size), torch.nan)

    def norm_bound(self, norm: Norm) -> float:
        """Of |m_k| + sqrt(share_k), which dz is at most times |w_k|, all ways together."""
        steep = self.shares.sqrt() + torch.tensor(self.middles).abs()[:, None]
        orders = {Norm.L1: torch.inf, Norm.L2: 2.0, Norm.LINF: 1.0}
        return float(torch.linalg.vector_norm(steep, orders[norm], dim=0).max())

    def lowered(self, name: str, source: str) -> tuple[Affine | Elementwise | Product, ...]:
        """It is not made of gates."""
        raise TypeError(f"node {name!r} of {source!r} is one gate")


def with_gated(network: Network) -> Network | None:
    """The increments of a network, with (1) for all that allow it; None where nothing does.

    Raises:
        NotLipschitzGlobally: a node's slopes have no bound over all inputs.
    """
    require_bounded_everywhere(network)
    find = _Finder({node.name: node for node in network.nodes}, factors_everywhere(network))
    found = {node.name: ways for node in network.nodes if (ways := find.ways(node)) is not None}
    if not found:
        return None
    nodes = [
        part
        for node in network.nodes
        for part in (_parts(node, found[node.name]) if node.name in found else (node,))
    ]
    live = tuple(_live(nodes, network.output))
    whole = tangent(replace(network, nodes=live), find.ranges)
    return replace(whole, nodes=tuple(_live(whole.nodes, whole.output)))


@dataclass(frozen=True, slots=True)
class _Finder:
    """Recognises (1)."""

    makers: Mapping[str, Node]
    ranges: Mapping[str, Range]  #: by gate of the tangent, what it multiplies by

    def ways(self, node: Node) -> _Ways | None:
        """What enters the gate that the node is; None where it is none."""
        match node:
            case Product():
                return self._product(node)
            case Affine():
                return self._mean(node)
            case _:
                return None

    def _product(self, node: Product) -> _Ways | None:
        one = torch.ones(node.size, dtype=torch.float64)
        left, right = left_gate(node.name), right_gate(node.name)
        for first, second, gate in ((node.left, node.right, left), (node.right, node.left, right)):
            found = self._sigmoid(first)
            if found is None:
                continue
            entering = [(found.source, 1.0)]
            other = self._tanh(second)
            if other is not None:
                return [(entering, 0.0, one * (25 / 256)), ([(other, 1.0)], 3 / 8, one * (25 / 64))]
            shares = self._reach(gate).square() / 16
            return [(entering, 0.0, shares), ([(second, 1.0)], 1 / 2, one / 4)]
        return None

    def _reach(self, gate: str) -> Float64[Tensor, " n"]:
        lower, upper = self.ranges[gate]
        return torch.maximum(lower.abs(), upper.abs())

    def _mean(self, node: Affine) -> _Ways | None:
        """Of (1 - x) tanh(v) + x h, the two products in any order."""
        is_sum = len(node.terms) == 2 and all(isinstance(term.map, Identity) for term in node.terms)
        if not is_sum or bool(node.bias.any()):
            return None
        one, other = (self.makers.get(term.source) for term in node.terms)
        for fresh, kept in ((one, other), (other, one)):
            if isinstance(fresh, Product) and isinstance(kept, Product):
                ways = self._mean_of(fresh, kept)
                if ways is not None:
                    return ways
        return None

    def _mean_of(self, fresh: Product, kept: Product) -> _Ways | None:
        one = torch.ones(fresh.size, dtype=torch.float64)
        left, right = left_gate(kept.name), right_gate(kept.name)
        for x, h, by in ((kept.left, kept.right, left), (kept.right, kept.left, right)):
            gate = self._sigmoid(x)
            if gate is None or 1 + _ROUNDED < float(self._reach(by).max()):
                continue
            for rest, y in ((fresh.left, fresh.right), (fresh.right, fresh.left)):
                v = self._tanh(y)
                # One of the two is s, the other 1 - s.
                is_rest = self._sigmoid(rest) is gate and (x == gate.name) != (rest == gate.name)
                if v is not None and is_rest:
                    return [
                        ([(gate.source, 1.0)], 0.0, one / 3),
                        ([(v, 1.0), (h, -1.0)], 0.0, one * (2 / 9)),
                        ([(v, 1.0)], 1 / 3, one * (2 / 9)),
                        ([(h, 1.0)], 1 / 3, one * (2 / 9)),
                    ]
        return None

    def _sigmoid(self, signal: str) -> Elementwise | None:
        """The gate s, where the signal is s or 1 - s."""
        node = self.makers.get(signal)
        if isinstance(node, Affine) and _is_complement(node):
            node = self.makers.get(node.terms[0].source)
        if isinstance(node, Elementwise) and isinstance(node.function, Sigmoid):
            return node
        return None

    def _tanh(self, signal: str) -> str | None:
        """What enters tanh."""
        node = self.makers.get(signal)
        if isinstance(node, Elementwise) and isinstance(node.function, Tanh):
            return node.source
        return None


def _is_complement(node: Affine) -> bool:
    """Whether it is 1 - x."""
    if len(node.terms) != 1 or not bool((node.bias == 1).all()):
        return False
    onto = node.terms[0].map
    return isinstance(onto, Diagonal) and bool((onto.scale == -1).all())


def _parts(node: Node, ways: _Ways) -> tuple[Node, Node]:
    """All that enters as one signal, and the gate."""
    terms = [
        Term(source, _placed(place, len(ways), node.size, factor))
        for place, (sources, _, _) in enumerate(ways)
        for source, factor in sources
    ]
    gate = Gated(tuple(way[1] for way in ways), torch.stack([way[2] for way in ways]))
    entering = linear(f"{node.name}\0factors", terms)
    return entering, Grouped(node.name, entering.name, gate)


def _placed(place: int, count: int, size: int, factor: float) -> LinearMap:
    """The entries, times 1 or -1, at a place among so many signals."""
    onto = Adjoint(Gather(place * size + torch.arange(size), count * size))
    if factor == 1:
        return onto
    return Composed(Diagonal(torch.full((size,), factor, dtype=torch.float64)), onto)


def _live(nodes: Sequence[Node], output: str) -> Iterator[Node]:
    """The nodes that the output depends on."""
    needed = {output}
    for node in reversed(nodes):
        if node.name in needed:
            needed |= set(node.sources)
    return (node for node in nodes if node.name in needed)
