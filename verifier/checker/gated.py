"""Signals that a sigmoid lets pass, as gates of several inputs, over all inputs.

Let x = s(u), s the logistic function. With psi for what is left beside a mean slope,

    z = x y or (1 - x) y, y = tanh(v)       dz = (3/8) dv + psi
        psi^2 <= (25/256) du^2 + (25/64) dv^2,
    z = x v or (1 - x) v, |v| <= c          dz = (1/2) dv + psi                             (1)
        psi^2 <= (c^2/16) du^2 + (1/4) dv^2,
    z = (1 - x) y + x h, or with x for      dz = (dv + dh)/3 + psi
        1 - x, y = tanh(v), |h| <= 1            psi^2 <= du^2/3 + (2/9) [(dv - dh)^2 + dv^2 + dh^2].

Proof. dz = g.(du, dv, ..) with g a mean of gradients. psi^2 <= a du^2 + (dv, ..)'Q(dv, ..) wherever
g_u^2/a + (g - m)'Q^-1(g - m) <= 1, a convex set, to which it is enough that gradients belong:

1.  x^2(1 - x)^2 q/a + (x(1 - q) - m)^2/b with q = y^2 is convex in q, so greatest at 0 or 1:
    (x - m)^2/b <= (1 - m)^2/b = 1, and x^2(1 - x)^2/a + m^2/b <= 16/25 + 9/25.
2.  16 x^2(1 - x)^2 + 4 (x - 1/2)^2 = (1 - 4p)^2 + 4p for p = (x - 1/2)^2 in [0, 1/4], convex in p,
    and 1 at both ends.
3.  Q = (2/9)[[2, -1], [-1, 2]], so the form is 3 (p^2 + p r + r^2) of p = (1 - x)t - 1/3 and
    r = x - 1/3, t = 1 - y^2; and (h - y)^2 <= 2 (1 + y^2) = 4 - 2t. With 3 x^2(1 - x)^2 (4 - 2t)
    the sum is convex in t, and with w = x(1 - x) <= 1/4 it is 1 - 3w + 12w^2 <= 1 at t = 0, and
    1 - 3w + 6w^2 <= 1 at t = 1. The same with 1 - x in the place of x.

With x and y apart, as numbers in [0, 1] and [-1, 1] and slopes in [0, 1/4] and [0, 1], all could be
at their worst at once; and 1 - x as large as x.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.arithmetic import above
from verifier.checker.definite import NotProved
from verifier.checker.maps import Adjoint, Composed, Diagonal, Gather
from verifier.checker.network import Affine, Elementwise, Gated, Node, Product, Term
from verifier.checker.scalars import Sigmoid, Tanh

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from verifier.checker.intervals import Interval
    from verifier.checker.network import Map, Network

    #: What enters a gate: sums of signals with factors; and for each its m, and its share of psi^2.
    Ways = list[tuple[list[tuple[str, float]], float, np.ndarray]]

_NINTH = float(np.nextafter(2 / 9, 1))
_THIRD = float(np.nextafter(1 / 3, 1))


def with_gated(network: Network, names: Sequence[str], signals: Mapping[str, Interval]) -> Network:
    """The network with (1) in the place of the nodes of these names.

    Args:
        network: with products.
        names: of products, and of sums of two.
        signals: bounds of every signal that hold for all inputs; infinite where there are none.

    Raises:
        NotProved: a name is not that of such a node, or is there twice.
    """
    if len(set(names)) != len(names):
        raise NotProved("a gated signal is named twice")
    find = _Finder({node.name: node for node in network.nodes}, signals)
    chosen = {name: find.parts(name) for name in names}
    nodes: list[Node] = []
    for node in network.nodes:
        nodes += chosen.get(node.name, (node,))
    sizes = {**network.tensors, **{node.name: node.size for node in nodes}}
    return replace(network, nodes=tuple(nodes), tensors=sizes)


@dataclass(frozen=True, slots=True)
class _Finder:
    """Recognises (1)."""

    makers: Mapping[str, Node]
    signals: Mapping[str, Interval]

    def parts(self, name: str) -> tuple[Affine, Gated]:
        """All that enters as one signal, and the gate.

        Raises:
            NotProved: it is none.
        """
        node = self.makers.get(name)
        ways: Ways | None = None
        if isinstance(node, Product):
            ways = self._product(node)
        elif isinstance(node, Affine):
            ways = self._mean(node)
        if node is None or ways is None:
            raise NotProved(f"{name!r} is no signal that a sigmoid lets pass")
        entering = _entering(f"{name}\0factors", node.size, ways)
        middles = tuple(middle for _, middle, _ in ways)
        shares = np.concatenate([share for _, _, share in ways])
        source = entering.name
        return entering, Gated(
            name=name, size=node.size, source=source, middles=middles, shares=shares
        )

    def _product(self, node: Product) -> Ways | None:
        one = np.ones(node.size)
        for first, second in ((node.left, node.right), (node.right, node.left)):
            found = self._sigmoid(first)
            if found is None:
                continue
            entering = [(found.source, 1.0)]
            other = self._tanh(second)
            if other is not None:
                return [(entering, 0.0, one * (25 / 256)), ([(other, 1.0)], 3 / 8, one * (25 / 64))]
            reach = self.signals[second].magnitude()[0]
            if np.all(np.isfinite(reach)):
                shares = above(reach * reach) / 16
                return [(entering, 0.0, shares), ([(second, 1.0)], 1 / 2, one / 4)]
        return None

    def _mean(self, node: Affine) -> Ways | None:
        """Of (1 - x) tanh(v) + x h, the two products in any order."""
        products = [self.makers.get(term.source) for term in node.terms]
        is_sum = len(products) == 2 and all(_is_identity(term.map) for term in node.terms)
        if not is_sum or np.any(node.bias) or np.any(node.bias_error):
            return None
        one, other = products
        for fresh, kept in ((one, other), (other, one)):
            if isinstance(fresh, Product) and isinstance(kept, Product):
                ways = self._mean_of(fresh, kept)
                if ways is not None:
                    return ways
        return None

    def _mean_of(self, fresh: Product, kept: Product) -> Ways | None:
        one = np.ones(fresh.size)
        for x, h in ((kept.left, kept.right), (kept.right, kept.left)):
            gate = self._sigmoid(x)
            if gate is None or not np.all(self.signals[h].magnitude() <= 1):
                continue
            for rest, y in ((fresh.left, fresh.right), (fresh.right, fresh.left)):
                v = self._tanh(y)
                # One of the two is s, the other 1 - s.
                is_rest = self._sigmoid(rest) is gate and (x == gate.name) != (rest == gate.name)
                if v is not None and is_rest:
                    return [
                        ([(gate.source, 1.0)], 0.0, one * _THIRD),
                        ([(v, 1.0), (h, -1.0)], 0.0, one * _NINTH),
                        ([(v, 1.0)], 1 / 3, one * _NINTH),
                        ([(h, 1.0)], 1 / 3, one * _NINTH),
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


def _entering(name: str, size: int, ways: Ways) -> Affine:
    """All that enters a gate as one signal."""
    count = len(ways)
    terms = tuple(
        Term(source, _placed(place, count, size, factor))
        for place, (sources, _, _) in enumerate(ways)
        for source, factor in sources
    )
    zero = np.zeros(count * size)
    return Affine(name=name, size=count * size, terms=terms, bias=zero, bias_error=zero)


def _is_complement(node: Affine) -> bool:
    """Whether it is 1 - x, exactly."""
    if len(node.terms) != 1 or np.any(node.bias != 1) or np.any(node.bias_error):
        return False
    onto = node.terms[0].map
    return isinstance(onto, Diagonal) and onto.error is None and bool(np.all(onto.scale == -1))


def _is_identity(onto: Map) -> bool:
    return isinstance(onto, Gather) and np.array_equal(onto.index, np.arange(onto.in_size))


def _placed(place: int, count: int, size: int, factor: float) -> Map:
    """The entries, times 1 or -1, at a place among so many signals."""
    onto = Adjoint(Gather(place * size + np.arange(size), count * size))
    return onto if factor == 1 else Composed(Diagonal(np.full(size, factor)), onto)
