"""Power-of-two factors behind elementwise functions, taken into the functions.

Exporters write GELU as x (1 + erf(..)) and then 0.5 of it, and proofs name the whole after the
tensor that leaves it. For c = 2^k > 0 nothing is rounded: c f has c times the values, slopes and
offsets of f, and lines with slope s above or below c f are c times lines of slope s/c of f.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.lowering import sources
from verifier.checker.maps import Diagonal
from verifier.checker.network import Affine, Elementwise, Network, Node

if TYPE_CHECKING:
    from jaxtyping import Float64

    from verifier.checker.network import Scalar

#: Factors from 2^-20 to 2^20: what a scaled number underflows to would not be exact.
WIDEST_EXPONENT = 20


@dataclass(frozen=True, slots=True)
class Scaled:
    """Factor times a function; the factor is a power of two above 0."""

    function: Scalar
    factor: float

    def slope_range(
        self, size: int
    ) -> tuple[Float64[np.ndarray, " size"], Float64[np.ndarray, " size"]]:
        """The function's, scaled."""
        return self._scaled(*self.function.slope_range(size))

    def slope_range_on(
        self, lower: Float64[np.ndarray, " n"], upper: Float64[np.ndarray, " n"]
    ) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
        """The function's, scaled."""
        return self._scaled(*self.function.slope_range_on(lower, upper))

    def image(
        self, lower: Float64[np.ndarray, " n"], upper: Float64[np.ndarray, " n"]
    ) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
        """The function's, scaled."""
        return self._scaled(*self.function.image(lower, upper))

    def lines(
        self, lower: Float64[np.ndarray, " n"], upper: Float64[np.ndarray, " n"]
    ) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
        """The function's, scaled: any slopes will do."""
        return self._scaled(*self.function.lines(lower, upper))

    def offsets(
        self,
        lower: Float64[np.ndarray, " n"],
        upper: Float64[np.ndarray, " n"],
        below: Float64[np.ndarray, " n"],
        above: Float64[np.ndarray, " n"],
    ) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
        """The function's for slopes below/factor and above/factor, scaled."""
        unscaled = below / self.factor, above / self.factor
        return self._scaled(*self.function.offsets(lower, upper, *unscaled))

    def _scaled(
        self, lower: Float64[np.ndarray, " n"], upper: Float64[np.ndarray, " n"]
    ) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
        """Both ends scaled; where that underflows, the next number outward."""
        ends = lower * self.factor, upper * self.factor
        low = np.where(ends[0] / self.factor > lower, np.nextafter(ends[0], -np.inf), ends[0])
        high = np.where(ends[1] / self.factor < upper, np.nextafter(ends[1], np.inf), ends[1])
        return low, high


def with_factors_absorbed(network: Network) -> Network:
    """The same function, where a factor is the only reader of an elementwise node: one node."""
    readers = Counter(source for node in network.nodes for source in sources(node))
    readers[network.output] += 1
    functions = {node.name: node for node in network.nodes if isinstance(node, Elementwise)}
    nodes: list[Node] = []
    absorbed: set[str] = set()
    for node in network.nodes:
        factor = _factor(node)
        (source,) = set(sources(node)) if factor is not None else ("",)
        inner = functions.get(source)
        if factor is None or inner is None or readers[source] != 1:
            nodes.append(node)
            continue
        absorbed.add(source)
        whole = Scaled(inner.function, factor)
        nodes.append(replace(inner, name=node.name, function=whole))
    kept = tuple(node for node in nodes if node.name not in absorbed)
    sizes = {name: size for name, size in network.tensors.items() if name not in absorbed}
    return replace(network, nodes=kept, tensors=sizes)


def _factor(node: Node) -> float | None:
    """The power of two that an affine node multiplies one signal with, if that is all it does."""
    if not isinstance(node, Affine) or len(node.terms) != 1:
        return None
    linear = node.terms[0].map
    if not isinstance(linear, Diagonal) or linear.error is not None or linear.scale.size == 0:
        return None
    if np.any(node.bias) or np.any(node.bias_error):
        return None
    factor = float(linear.scale[0])
    mantissa, exponent = np.frexp(factor)
    if mantissa != 0.5 or WIDEST_EXPONENT < abs(int(exponent)):
        return None
    return factor if bool(np.all(linear.scale == factor)) else None
