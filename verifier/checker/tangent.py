"""The increments over a region of a network with products: affine nodes and gates alone.

    x y - x' y' = y (x - x') + x' (y - y'),

so that over a region the increment of a product is that of its left factor times a number within
the bounds of the right one, plus the other way round. Of a product "p" the gates are "p:left" and
"p:right"; each multiplies its own factor's increment. The same holds of derivatives.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.lowering import Lowered
from verifier.checker.maps import identity
from verifier.checker.network import Affine, Elementwise, Node, Product, Term
from verifier.errors import NotLipschitzGlobally

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Float64

    from verifier.checker.network import Network

    Vector = Float64[np.ndarray, " n"]


def gates_of(product: Product) -> tuple[tuple[str, str], tuple[str, str]]:
    """(gate, the factor whose values it multiplies by): of the left increment, of the right one."""
    name = product.name
    return (f"{name}:left", product.right), (f"{name}:right", product.left)


def tangent(small: Lowered) -> Lowered:
    """The lowered network with every product in the place of which its increment stands."""
    products = [node for node in small.network.nodes if isinstance(node, Product)]
    own = {gate: gate for node in products for gate, _ in gates_of(node)}
    return Lowered(network=increments_of(small.network, {}), gates={**small.gates, **own})


def increments_of(network: Network, ranges: Mapping[str, tuple[Vector, Vector]]) -> Network:
    """The same of a network that is lowered or not.

    Args:
        network: with products.
        ranges: by gate, what it multiplies by, where that holds for all inputs.
    """
    nodes: list[Node] = []
    sizes = dict(network.tensors)
    for node in network.nodes:
        if not isinstance(node, Product):
            nodes.append(node)
            continue
        names = [name for name, _ in gates_of(node)]
        for name, factor in zip(names, (node.left, node.right), strict=True):
            function = Multiplier(ranges.get(name))
            nodes.append(Elementwise(name=name, size=node.size, source=factor, function=function))
            sizes[name] = node.size
        zero = np.zeros(node.size)
        terms = tuple(Term(name, identity(node.size)) for name in names)
        whole = Affine(name=node.name, size=node.size, terms=terms, bias=zero, bias_error=zero)
        nodes.append(whole)
    return replace(network, nodes=tuple(nodes), tensors=sizes)


@dataclass(frozen=True, slots=True)
class Multiplier:
    """s x for a number s of which nothing is known but its range, and that of a region not here."""

    range: tuple[Vector, Vector] | None = None  #: what s lies within for all inputs

    def tiled(self, _count: int, /) -> Multiplier:
        """The same."""
        return self

    def slope_range(self, _size: int) -> tuple[Vector, Vector]:
        """The range. Raises NotLipschitzGlobally where there is none."""
        if self.range is not None:
            return self.range
        raise NotLipschitzGlobally(
            "the product of two signals: its slopes grow without end",
            fix="ask for a bound on a region",
        )

    def slope_range_on(self, lower: Vector, _upper: Vector) -> tuple[Vector, Vector]:
        """All slopes."""
        return np.full_like(lower, -np.inf), np.full_like(lower, np.inf)

    def slopes_inside(self, lower: Vector, upper: Vector) -> tuple[Vector, Vector]:
        """All slopes."""
        return self.slope_range_on(lower, upper)

    def image(self, lower: Vector, upper: Vector) -> tuple[Vector, Vector]:
        """All values."""
        return self.slope_range_on(lower, upper)

    def lines(self, lower: Vector, _upper: Vector) -> tuple[Vector, Vector]:
        """None that is better than another."""
        return np.zeros_like(lower), np.zeros_like(lower)

    def offsets(
        self, lower: Vector, upper: Vector, _below: Vector, _above: Vector
    ) -> tuple[Vector, Vector]:
        """None that are finite."""
        return self.slope_range_on(lower, upper)
