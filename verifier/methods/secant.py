"""What a pair of points reaches: |C f(x) - C f(y)|_q / |x - y|_p, rounded down.

The increment d of every signal is carried from x to y beside the value u at x, each with a bound
of its error. An affine map sends d to A d: the biases cancel before they are rounded. A gate with
one slope s between its two values sends d to s d; elsewhere it is the better of

    phi(u + d) - phi(u)    and    (s + S)/2 d +- (S - s)/2 |d|,    slopes in [s, S].

So inside a linear piece the value is the slope there to about 1e-13, however near x and y are. The
error terms allow for float64 with some room; whether the value holds, the checker decides.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.methods.duality import norm_of
from verifier.network.graph import Network
from verifier.network.nodes import Affine, Elementwise
from verifier.norms import NormPair

#: Twice the unit roundoff.
_ULP = 2.0**-52


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Carried:
    """The value of a signal at x, its increment to y, and how wrong each may be."""

    value: Float64[Tensor, "batch n"]
    value_error: Float64[Tensor, "batch n"]
    increment: Float64[Tensor, "batch n"]
    increment_error: Float64[Tensor, "batch n"]


def secant_values(
    lowered: Network,
    rows: Float64[Tensor, "selected outputs"],
    norm: NormPair,
    x: Float64[Tensor, "batch inputs"],
    y: Float64[Tensor, "batch inputs"],
) -> Float64[Tensor, " batch"]:
    """Numbers that the pairs reach; 0 where x = y.

    Args:
        lowered: a network of affine and elementwise nodes only.
        rows: C.
        norm: p and q.
        x: one end of every pair.
        y: the other.
    """
    growth = _ULP * (8 + 2 * max(lowered.sizes.values()))
    zero = torch.zeros_like(x)
    step = y - x
    start = _Carried(value=x, value_error=zero, increment=step, increment_error=_ULP * step.abs())
    carried = {"": start}
    for node in lowered.nodes:
        match node:
            case Affine():
                carried[node.name] = _through_affine(node, carried, growth)
            case Elementwise():
                carried[node.name] = _through_gate(node, carried[node.source])
            case _:
                raise TypeError(f"node {node.name!r} is not lowered")
    last = carried[lowered.output]
    moved = last.increment @ rows.T
    error = (last.increment_error + growth * last.increment.abs()) @ rows.abs().T
    rise = norm_of(norm.output, (moved.abs() - error).clamp(min=0))
    run = norm_of(norm.input, start.increment.abs() + start.increment_error)
    return torch.where(0 < run, rise / run * (1 - growth), 0.0)


def _through_affine(node: Affine, carried: dict[str, _Carried], growth: float) -> _Carried:
    value = node.bias.expand(len(carried[""].value), -1)
    value_error = growth * value.abs()
    increment = increment_error = torch.zeros_like(value)
    for term in node.terms:
        source, absolute = carried[term.source], term.map.absolute()
        value = value + term.map.apply(source.value)
        value_error = value_error + absolute.apply(source.value_error + growth * source.value.abs())
        increment = increment + term.map.apply(source.increment)
        increment_error = increment_error + absolute.apply(
            source.increment_error + growth * source.increment.abs()
        )
    return _Carried(
        value=value,
        value_error=value_error,
        increment=increment,
        increment_error=increment_error,
    )


def _through_gate(node: Elementwise, source: _Carried) -> _Carried:
    start, step = source.value, source.increment
    wobble = source.value_error + source.increment_error + _ULP * (start.abs() + step.abs())
    least, greatest = node.function.slope_range_on(
        torch.minimum(start, start + step) - wobble, torch.maximum(start, start + step) + wobble
    )
    steepest = torch.maximum(least.abs(), greatest.abs())
    first, second = node.function.forward(start), node.function.forward(start + step)
    by_values = steepest * 2 * wobble + 8 * _ULP * (first.abs() + second.abs())
    by_slopes = steepest * source.increment_error + step.abs() * (
        (greatest - least) / 2 + 8 * _ULP * steepest
    )
    sloped = by_slopes <= by_values
    return _Carried(
        value=first,
        value_error=steepest * source.value_error + 8 * _ULP * first.abs(),
        increment=torch.where(sloped, (least + greatest) / 2 * step, second - first),
        increment_error=torch.where(sloped, by_slopes, by_values),
    )
