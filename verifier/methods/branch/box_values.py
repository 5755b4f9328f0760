"""Bounds of what enters the gates over many boxes at once, and the lines around the gates there.

The equations are those of `verifier.methods.propagation.forward`, with a batch row for every box:
intervals through the network, and linear functions of its signals carried back to the input through
a line above or below every gate. In a ball the input lies in the box and in the ball.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from verifier.methods.domain import Domain
from verifier.methods.duality import norm_of
from verifier.network.graph import Network
from verifier.network.linear_map import LinearMap
from verifier.network.nodes import Affine, Elementwise

_SAMPLES = 17  #: of a gate on an interval


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Ends:
    """Closed intervals of a signal's entries, a row for every box."""

    lower: Float64[Tensor, "boxes n"]
    upper: Float64[Tensor, "boxes n"]

    def cut(self, other: Ends) -> Ends:
        """What both leave; where rounding crosses the ends, a point."""
        lower, upper = (
            torch.maximum(self.lower, other.lower),
            torch.minimum(self.upper, other.upper),
        )
        return Ends(lower=torch.minimum(lower, upper), upper=upper)

    def repeated(self, count: int) -> Ends:
        """Every row so many times."""
        return Ends(
            lower=self.lower.repeat_interleave(count, dim=0),
            upper=self.upper.repeat_interleave(count, dim=0),
        )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Lines:
    """Below z + low <= h(z) <= above z + high in every box."""

    below: Float64[Tensor, "boxes n"]
    low: Float64[Tensor, "boxes n"]
    above: Float64[Tensor, "boxes n"]
    high: Float64[Tensor, "boxes n"]

    def upward(
        self, rows: Float64[Tensor, "_ k n"]
    ) -> tuple[Float64[Tensor, "boxes k n"], Float64[Tensor, "boxes k"]]:
        """What stands in front of z in place of h(z), at most, and the constant."""
        rise, fall = rows.clamp(min=0), rows.clamp(max=0)
        constant = _products(rise, self.high) + _products(fall, self.low)
        return rise * self.above[:, None] + fall * self.below[:, None], constant


def _products(
    rows: Float64[Tensor, "_ k n"], values: Float64[Tensor, "boxes n"]
) -> Float64[Tensor, "boxes k"]:
    return (rows @ values[:, :, None])[:, :, 0]


class Values:
    """One pass through a lowered network, all boxes together."""

    def __init__(
        self, lowered: Network, domain: Domain, box: Ends, known: Mapping[str, Ends]
    ) -> None:
        """Bounds of what enters every gate.

        Args:
            lowered: a network of affine and elementwise nodes only.
            domain: the region.
            box: of the input, within the least box around the region.
            known: what enters the gates in the whole region, one row each.
        """
        self.network, self._domain, self._box = lowered, domain, box
        self.entering: dict[str, Ends] = {}  #: by the gate's node
        self.lines: dict[str, Lines] = {}
        intervals = {"": box}
        direct = {""}
        for node in lowered.nodes:
            match node:
                case Affine():
                    intervals[node.name] = _image(node, intervals)
                    if {term.source for term in node.terms} <= {""}:
                        direct.add(node.name)
                case Elementwise():
                    here = intervals[node.source].cut(known[node.name])
                    if node.source not in direct:
                        here = self._tightened(node, here)
                    self.set(node, here)
                    image = node.function.image(here.lower, here.upper)
                    intervals[node.name] = Ends(lower=image[0], upper=image[1])
                case _:
                    raise TypeError(f"node {node.name!r} is not lowered")

    def set(self, node: Elementwise, here: Ends) -> None:
        """What enters a gate, and the lines around it there."""
        self.entering[node.name] = here
        below, above = _supports(node, here)
        low, high = node.function.offsets(here.lower, here.upper, below, above)
        self.lines[node.name] = Lines(below=below, low=low, above=above, high=high)

    def greatest(
        self, rows: Mapping[str, Float64[Tensor, "_ k _n"]], *, only_box: bool = False
    ) -> Float64[Tensor, "boxes k"]:
        """Numbers that sums of linear functions of several signals do not exceed.

        Args:
            rows: the functions, by signal.
            only_box: for every input of the boxes, whether it lies in the region or not.
        """
        pulled = dict(rows)
        count = next(iter(pulled.values())).shape[1]
        constant = self._box.lower.new_zeros(len(self._box.lower), count)
        for node in reversed(self.network.nodes):
            if (own := pulled.pop(node.name, None)) is None:
                continue
            match node:
                case Affine():
                    constant = constant + own @ node.bias
                    parts = [(term.source, adjoint(term.map, own)) for term in node.terms]
                case Elementwise():
                    inner, added = self.lines[node.name].upward(own)
                    constant = constant + added
                    parts = [(node.source, inner)]
                case _:
                    raise TypeError(f"node {node.name!r} is not lowered")
            for source, part in parts:
                pulled[source] = pulled[source] + part if source in pulled else part
        if "" in pulled:
            constant = constant + self._of_input(pulled[""], only_box)
        return constant

    def _of_input(
        self, rows: Float64[Tensor, "_ k inputs"], only_box: bool
    ) -> Float64[Tensor, "boxes k"]:
        center = (self._box.lower + self._box.upper) / 2
        reach = (self._box.upper - self._box.lower) / 2
        by_box = _products(rows, center) + _products(rows.abs(), reach)
        if self._domain.norm is None or only_box:
            return by_box
        length = norm_of(self._domain.norm.dual, rows)
        by_ball = rows @ self._domain.center + self._domain.reach[0] * length
        return torch.minimum(by_box, by_ball)

    def _tightened(self, node: Elementwise, here: Ends) -> Ends:
        """The intervals cut by lines, where a gate has two slopes in some box."""
        least, greatest = node.function.slope_range_on(here.lower, here.upper)
        places = torch.nonzero((least < greatest).any(dim=0)).flatten()
        if not len(places):
            return here
        unit = units(places, node.size)
        rows = {node.source: torch.cat([unit, -unit], dim=1)}
        highest = self.greatest(rows, only_box=True)
        lower, upper = here.lower.clone(), here.upper.clone()
        lower[:, places] = -highest[:, len(places) :]
        upper[:, places] = highest[:, : len(places)]
        return here.cut(Ends(lower=lower, upper=upper))


def units(places: Int64[Tensor, " k"], size: int) -> Float64[Tensor, "1 k size"]:
    """The functions that read these entries."""
    rows = torch.zeros(1, len(places), size, dtype=torch.float64)
    rows[0, torch.arange(len(places)), places] = 1.0
    return rows


def adjoint(linear: LinearMap, rows: Float64[Tensor, "b k m"]) -> Float64[Tensor, "b k n"]:
    """The adjoint on the last axis."""
    return linear.adjoint(rows.flatten(0, 1)).unflatten(0, rows.shape[:2])


def applied(linear: LinearMap, rows: Float64[Tensor, "b k n"]) -> Float64[Tensor, "b k m"]:
    """The map on the last axis."""
    return linear.apply(rows.flatten(0, 1)).unflatten(0, rows.shape[:2])


def _supports(
    node: Elementwise, here: Ends
) -> tuple[Float64[Tensor, "boxes n"], Float64[Tensor, "boxes n"]]:
    """Slopes of lines below and above: of the hulls of samples at their middle one.

    Chords of a sample on either side that pass the middle one on the side of the line; without any,
    the tangent there.
    """
    share = torch.linspace(0.0, 1.0, _SAMPLES, dtype=torch.float64)[:, None, None]
    x = here.lower + (here.upper - here.lower) * share
    middle, height = _SAMPLES // 2, node.function.forward(x)
    tangent = sum(node.function.slope_range_on(x[middle], x[middle])) / 2
    width = torch.where(here.lower < here.upper, here.upper - here.lower, 1.0)
    left = torch.arange(middle)[:, None].expand(middle, middle).flatten()
    right = torch.arange(_SAMPLES - 1, middle, -1).expand(middle, middle).flatten()
    run = (right - left)[:, None, None] / (_SAMPLES - 1) * width
    chord = (height[right] - height[left]) / run
    there = height[left] + chord * (x[middle] - x[left]) - height[middle]
    slopes: list[Tensor] = []
    for side in (-1.0, 1.0):
        best, place = (side * there).max(dim=0, keepdim=True)
        slopes.append(torch.where(0 < best[0], chord.gather(0, place)[0], tangent))
    return slopes[0], slopes[1]


def _image(node: Affine, intervals: Mapping[str, Ends]) -> Ends:
    """A c + b +- |A| r, summed over the terms."""
    center, reach = node.bias[None], torch.zeros_like(node.bias)[None]
    for term in node.terms:
        own = intervals[term.source]
        center = center + term.map.apply((own.lower + own.upper) / 2)
        reach = reach + term.map.absolute().apply((own.upper - own.lower) / 2)
    return Ends(lower=center - reach, upper=center + reach)
