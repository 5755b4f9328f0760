"""Signs of derivatives that hold exactly, with no rounding to spoil a zero.

Rows g of derivatives go through the graph reversed (`jacobian`). Kept of every entry is whether it
may be below 0 and whether it may be above. Through a map with entries of known sign,

    (W g)_i may be above 0   only if   some w_ij g_j may be,                              (1)

a count of ones, which float64 adds exactly; through a gate with slopes in [a, b] the same with s in
place of w. Intervals say so too, but for their rounding: a sum of numbers of at least 0 is at least
0 less an ulp, which is no sign.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.carry import Sparse, stages
from verifier.checker.convolution import Convolution
from verifier.checker.definite import NotProved
from verifier.checker.jacobian import gradient, reversed_graph
from verifier.checker.maps import Adjoint, Dense, Diagonal, Gather
from verifier.checker.network import Affine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Bool, Float64

    from verifier.checker.constraints import Slopes
    from verifier.checker.network import Map, Network


@dataclass(frozen=True, slots=True)
class Signs:
    """What every entry of a batch may be."""

    below: Bool[np.ndarray, "batch n"]
    above: Bool[np.ndarray, "batch n"]

    def either(self, other: Signs) -> Signs:
        """Of a sum."""
        return Signs(self.below | other.below, self.above | other.above)

    def behind(self, linear: Map) -> Signs:
        """Of W g, by (1)."""
        signs = self
        for stage in stages(linear):
            positive, negative = _pattern(stage, 1), _pattern(stage, -1)
            below, above = signs.below.astype(np.float64), signs.above.astype(np.float64)
            signs = Signs(
                below=0 < positive.forward(below) + negative.forward(above),
                above=0 < positive.forward(above) + negative.forward(below),
            )
        return signs

    def scaled(
        self, least: Float64[np.ndarray, " n"], greatest: Float64[np.ndarray, " n"]
    ) -> Signs:
        """Of s g for s in [least, greatest], entry by entry."""
        rises, falls = ~(greatest <= 0), ~(0 <= least)  # whatever is not known has both
        return Signs(
            below=(self.below & rises) | (self.above & falls),
            above=(self.above & rises) | (self.below & falls),
        )


def derivative_signs(
    network: Network, slopes: Mapping[str, Slopes], rows: Float64[np.ndarray, "batch outputs"]
) -> Signs:
    """What the derivatives of the rows by every input may be, for all slopes of the ranges.

    Args:
        network: affine nodes and gates.
        slopes: a range by gate.
        rows: exact rows of outputs.
    """
    known = {"": Signs(rows < 0, 0 < rows)}
    for node in reversed_graph(network):
        if isinstance(node, Affine):
            parts = [known[term.source].behind(term.map) for term in node.terms]
            signs = parts[0]
            for part in parts[1:]:
                signs = signs.either(part)
            known[node.name] = signs
        else:
            known[node.name] = known[node.source].scaled(*slopes[node.name])
    nothing = np.zeros((len(rows), network.input_size), np.bool_)
    return known.get(gradient(""), Signs(nothing, nothing))


def _pattern(linear: Map, sign: int) -> Map:
    """Ones where an entry may have this sign, zeros elsewhere."""

    def ones(
        stored: Float64[np.ndarray, ...], error: Float64[np.ndarray, ...] | None
    ) -> Float64[np.ndarray, ...]:
        farthest = sign * stored if error is None else sign * stored + error
        return (~(farthest <= 0)).astype(np.float64)

    match linear:
        case Adjoint():
            return Adjoint(_pattern(linear.of, sign))
        case Gather():
            return linear if sign == 1 else Gather(np.full_like(linear.index, -1), linear.in_size)
        case Dense() | Sparse():
            return replace(linear, weight=ones(linear.weight, linear.error), error=None)
        case Diagonal():
            return replace(linear, scale=ones(linear.scale, linear.error), error=None)
        case Convolution():
            return replace(linear, kernel=ones(linear.kernel, linear.error), error=None)
        case _:
            raise NotProved(f"a map of type {type(linear).__name__} has no signs")
