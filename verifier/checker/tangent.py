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
    from jaxtyping import Float64

    Vector = Float64[np.ndarray, " n"]


def gates_of(product: Product) -> tuple[tuple[str, str], tuple[str, str]]:
    """(gate, the factor whose values it multiplies by): of the left increment, of the right one."""
    name = product.name
    return (f"{name}:left", product.right), (f"{name}:right", product.left)


def tangent(small: Lowered) -> Lowered:
    """The lowered network with every product in the place of which its increment stands."""
    nodes: list[Node] = []
    gates, sizes = dict(small.gates), dict(small.network.tensors)
    for node in small.network.nodes:
        if not isinstance(node, Product):
            nodes.append(node)
            continue
        names = [name for name, _ in gates_of(node)]
        for name, factor in zip(names, (node.left, node.right), strict=True):
            nodes.append(
                Elementwise(name=name, size=node.size, source=factor, function=Multiplier())
            )
            gates[name], sizes[name] = name, node.size
        zero = np.zeros(node.size)
        terms = tuple(Term(name, identity(node.size)) for name in names)
        whole = Affine(name=node.name, size=node.size, terms=terms, bias=zero, bias_error=zero)
        nodes.append(whole)
    return Lowered(network=replace(small.network, nodes=tuple(nodes), tensors=sizes), gates=gates)


@dataclass(frozen=True, slots=True)
class Multiplier:
    """s x for a number s that only a region bounds; of itself it knows nothing."""

    def tiled(self, _count: int, /) -> Multiplier:
        """The same."""
        return self

    def slope_range(self, _size: int) -> tuple[Vector, Vector]:
        """None. Raises NotLipschitzGlobally."""
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
