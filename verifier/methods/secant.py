"""What a pair of points is sure to reach: |C f(x) - C f(y)|_q / |x - y|_p, rounded down.

Every signal u of both points is carried with a bound e of its error, as intervals would be:

    affine    e <- |A| (e + gamma |u|) + gamma |b|,    gamma = (n + 4) 2^-52, n entries summed
    gate      e <- S e + 2^-50 |phi(u)|,               S the greatest |slope| on [u - e, u + e]
    product   e <- |u| e' + |u'| e + e e' + 2^-50 |u u'|
    block     the same with S about |J(u)|_inf, and the greatest e

and what is left of the rise when the errors of both ends are taken off is reached in exact
arithmetic. The smaller a pair, the more they take: of pairs within one linear piece the widest
reaches most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.methods.duality import norm_of
from verifier.network.blocks import Block
from verifier.network.graph import Grouped
from verifier.network.nodes import Affine, Elementwise, Product

if TYPE_CHECKING:
    from verifier.methods.weights import Measure
    from verifier.network.graph import Network

#: Twice the unit roundoff.
_ULP = 2.0**-52


def secant_values(
    lowered: Network,
    rows: Float64[Tensor, "selected outputs"],
    norm: Measure,
    x: Float64[Tensor, "pairs inputs"],
    y: Float64[Tensor, "pairs inputs"],
) -> Float64[Tensor, " pairs"]:
    """Numbers that the pairs reach; 0 where x = y.

    Args:
        lowered: a network without groups.
        rows: C.
        norm: of inputs, p, and of outputs, q.
        x: one end of every pair.
        y: the other.
    """
    values, errors = _evaluated(lowered, torch.cat((x, y)))
    gamma = _gamma(len(rows.T))
    image = values @ rows.T
    wrong = errors @ rows.abs().T + gamma * (values.abs() @ rows.abs().T)
    first, second = image.chunk(2)
    rise = (first - second).abs() * (1 - _ULP) - sum(wrong.chunk(2))
    run = norm.length(x - y) * (1 + _gamma(x.shape[1]))
    reached = norm_of(norm.output, rise.clamp(min=0)) * (1 - _gamma(len(rows)))
    # Beyond a function's domain there are no numbers, and nothing is reached.
    return torch.where(0 < run, reached / run * (1 - _ULP), 0.0).nan_to_num(nan=0.0, posinf=0.0)


def _evaluated(
    lowered: Network, points: Float64[Tensor, "points inputs"]
) -> tuple[Float64[Tensor, "points outputs"], Float64[Tensor, "points outputs"]]:
    """The output at every point, and how wrong it may be."""
    values, errors = {"": points}, {"": torch.zeros_like(points)}
    finished = lowered.finished
    for node in lowered.nodes:
        match node:
            case Affine():
                values[node.name], errors[node.name] = _affine(node, values, errors)
            case Elementwise():
                u, e = values[node.source], errors[node.source]
                least, greatest = node.function.slope_range_on(u - e, u + e)
                steepest = torch.maximum(least.abs(), greatest.abs())
                values[node.name] = node.function.forward(u)
                errors[node.name] = steepest * e + 4 * _ULP * values[node.name].abs()
            case Product():
                (u, e), (w, d) = ((values[source].abs(), errors[source]) for source in node.sources)
                values[node.name] = values[node.left] * values[node.right]
                errors[node.name] = (u * d + w * e + e * d) * (1 + 4 * _ULP) + 4 * _ULP * u * w
            case Grouped(group=block) if isinstance(block, Block):
                u, e = values[node.source], errors[node.source]
                values[node.name] = block.forward(u)
                widest = e.amax(dim=1, keepdim=True) + 4 * _ULP * u.abs()
                errors[node.name] = block.steepness(u) * widest + (
                    _gamma(node.size) * values[node.name].abs()
                )
            case _:
                raise TypeError(f"node {node.name!r} is not lowered")
        for source in finished[node.name]:
            del values[source], errors[source]
    return values[lowered.output], errors[lowered.output]


def _affine(
    node: Affine, values: dict[str, Tensor], errors: dict[str, Tensor]
) -> tuple[Float64[Tensor, "points n"], Float64[Tensor, "points n"]]:
    value = node.bias.expand(len(next(iter(values.values()))), -1)
    error = _gamma(len(node.terms)) * value.abs()
    for term in node.terms:
        u, e = values[term.source], errors[term.source]
        value = value + term.map.apply(u)
        gamma = _gamma(term.map.in_size + len(node.terms))
        error = error + term.map.absolute().apply(e + gamma * u.abs())
    return value, error


def _gamma(terms: int) -> float:
    """The relative error of a sum of so many products, with room."""
    return (terms + 4) * _ULP
