"""Bounds of the Jacobian over many boxes at once, by lines that follow what enters the gates.

In a box the slope s of a gate that z enters has |s - s_m| <= r and lo <= s - p z <= hi, and the
derivative g that reaches it |g - g_m| <= h. Then

    s g = s_m g + g_m s - s_m g_m + (s - s_m)(g - g_m),    |last| <= r h,                    (1)

is s_m g + g_m p z and a constant: lines of z, which are carried back to the input. What they lose
falls with the square of the box's size. Elsewhere chords of max(a g, b g) and min(a g, b g) are
nearer, for s in [a, b].

Linear functions of the derivatives C J, C one of `rows`, are pushed from the input to the output.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.methods.branch.box_values import Ends, Values, applied, units
from verifier.network.activations.piecewise import PiecewiseLinear
from verifier.network.graph import Network
from verifier.network.nodes import Affine, Elementwise

CELLS = 32  #: of an interval, on which the slope's distance from its chord is known
_INSET = 1e-9  #: of an interval: slopes are those of its inner points


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Slopes:
    """Least <= s <= greatest and low <= s - tilt z <= high in every box."""

    least: Float64[Tensor, "boxes n"]
    greatest: Float64[Tensor, "boxes n"]
    tilt: Float64[Tensor, "boxes n"]
    low: Float64[Tensor, "boxes n"]
    high: Float64[Tensor, "boxes n"]

    @staticmethod
    def of(node: Elementwise, here: Ends) -> Slopes:
        """Of a gate, where what enters it lies within."""
        inset = _INSET * (here.upper - here.lower)
        least, greatest = node.function.slope_range_on(here.lower + inset, here.upper - inset)
        if isinstance(node.function, PiecewiseLinear):
            tilt = torch.zeros_like(least)
            return Slopes(least=least, greatest=greatest, tilt=tilt, low=least, high=greatest)
        share = torch.linspace(0.0, 1.0, CELLS + 1, dtype=torch.float64)[:, None, None]
        marks = here.lower + (here.upper - here.lower) * share
        ends = [sum(node.function.slope_range_on(end, end)) / 2 for end in marks[[0, -1]]]
        width = torch.where(here.lower < here.upper, here.upper - here.lower, 1.0)
        tilt = torch.where(here.lower < here.upper, (ends[1] - ends[0]) / width, 0.0)
        cells = node.function.slope_range_on(marks[:-1], marks[1:])
        lines = tilt * marks[:-1], tilt * marks[1:]
        return Slopes(
            least=least,
            greatest=greatest,
            tilt=tilt,
            low=(cells[0] - torch.maximum(*lines)).amin(dim=0),
            high=(cells[1] - torch.minimum(*lines)).amax(dim=0),
        )

    def repeated(self, count: int) -> Slopes:
        """Every row so many times."""
        return Slopes(
            **{
                name: getattr(self, name).repeat_interleave(count, dim=0)
                for name in ("least", "greatest", "tilt", "low", "high")
            }
        )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Products:
    """Lines of s g, each g + offset + beside z."""

    below: Float64[Tensor, "batch n"]
    low: Float64[Tensor, "batch n"]
    above: Float64[Tensor, "batch n"]
    high: Float64[Tensor, "batch n"]
    beside: Float64[Tensor, "batch n"]

    @staticmethod
    def of(slopes: Slopes, entering: Ends) -> _Products:
        """The chords, or (1) where it is nearer at the middle."""
        a, b, lower, upper = slopes.least, slopes.greatest, entering.lower, entering.upper
        width = torch.where(lower < upper, upper - lower, 1.0)
        right, one_sign = 0 <= lower, (0 <= lower) | (upper <= 0)
        below = torch.where(one_sign, torch.where(right, a, b), (a * upper - b * lower) / width)
        above = torch.where(one_sign, torch.where(right, b, a), (b * upper - a * lower) / width)
        height = torch.where(one_sign, 0.0, -(b - a) * lower * upper / width)
        middle, half = (lower + upper) / 2, (upper - lower) / 2
        center, spread = (a + b) / 2, (b - a) / 2
        ends = middle * slopes.low, middle * slopes.high
        high = torch.maximum(*ends) - center * middle + spread * half
        low = torch.minimum(*ends) - center * middle - spread * half
        nearer = high - low < (above - below) * middle + 2 * height
        return _Products(
            below=torch.where(nearer, center, below),
            low=torch.where(nearer, low, -height),
            above=torch.where(nearer, center, above),
            high=torch.where(nearer, high, height),
            beside=torch.where(nearer, middle * slopes.tilt, 0.0),
        )


class Derivatives:
    """C J of every box, for the same rows in all boxes or for each box's own."""

    def __init__(
        self,
        measured: Network,
        values: Values,
        slopes: Mapping[str, Slopes],
        rows: Float64[Tensor, "boxes rows outputs"],
    ) -> None:
        """Bounds of what reaches every gate.

        Args:
            measured: the lowered network in the coordinates of its input's norm.
            values: of the network in its own coordinates.
            slopes: of its gates.
            rows: C.
        """
        self._network, self._values = measured, values
        self._boxes, self._count = rows.shape[:2]
        self._rows = rows.flatten(0, 1)
        self._lines: dict[str, _Products] = {}
        self._live = _ancestors(measured)
        for node in reversed(measured.nodes):
            if isinstance(node, Elementwise) and node.name in self._live:
                own = slopes[node.name].repeated(self._count)
                self._lines[node.name] = _Products.of(own, self._reaching(node, own))

    def entries(
        self, directions: Float64[Tensor, "_ k inputs"]
    ) -> tuple[Float64[Tensor, "boxes rows k"], Float64[Tensor, "boxes rows k"]]:
        """Least and greatest C J d for directions d, the same for all rows and boxes or of each."""
        ends = self._greatest("", torch.cat([directions, -directions], dim=1))
        count = directions.shape[1]
        shape = (self._boxes, self._count)
        greatest, least = ends[:, :count].unflatten(0, shape), -ends[:, count:].unflatten(0, shape)
        return torch.minimum(least, greatest), greatest

    def sums(
        self,
        lower: Float64[Tensor, "boxes rows inputs"],
        upper: Float64[Tensor, "boxes rows inputs"],
    ) -> Float64[Tensor, "boxes rows"]:
        """Bounds of sum_k |J_k| by |J_k| <= its chord on [lower, upper]."""
        width = torch.where(lower < upper, upper - lower, 1.0)
        chord = ((upper.abs() - lower.abs()) / width).clamp(-1, 1)
        slope = torch.where(0 <= lower, 1.0, torch.where(upper <= 0, -1.0, chord))
        offset = torch.maximum(upper.abs() - slope * upper, lower.abs() - slope * lower)
        joint = self._greatest("", slope.flatten(0, 1)[:, None])[:, 0]
        return joint.unflatten(0, lower.shape[:2]) + offset.sum(dim=2)

    def _reaching(self, node: Elementwise, slopes: Slopes) -> Ends:
        """Bounds of the derivatives at a gate where it has two slopes; elsewhere none is read."""
        places = torch.nonzero((slopes.least < slopes.greatest).any(dim=0)).flatten()
        lower, upper = (self._rows.new_zeros(len(self._rows), node.size) for _ in range(2))
        if len(places):
            unit = units(places, node.size)
            ends = self._greatest(node.name, torch.cat([unit, -unit], dim=1))
            upper[:, places], lower[:, places] = ends[:, : len(places)], -ends[:, len(places) :]
        return Ends(lower=torch.minimum(lower, upper), upper=upper)

    def _greatest(
        self, signal: str, functions: Float64[Tensor, "_ k n"]
    ) -> Float64[Tensor, "batch k"]:
        pushed = {signal: functions}
        beside: dict[str, Tensor] = {}
        constant = self._rows.new_zeros(len(self._rows), functions.shape[1])
        for node in self._network.nodes:
            if node.name not in self._live or not any(name in pushed for name in node.sources):
                continue
            if isinstance(node, Affine):
                terms = [term for term in node.terms if term.source in pushed]
                parts = [applied(term.map, pushed[term.source]) for term in terms]
                pushed[node.name] = sum(parts[1:], parts[0])
                continue
            assert isinstance(node, Elementwise)  # noqa: S101 (lowered)
            own, lines = pushed[node.source], self._lines[node.name]
            rise, fall = own.clamp(min=0), own.clamp(max=0)
            constant = constant + (rise @ lines.high[:, :, None])[:, :, 0]
            constant = constant + (fall @ lines.low[:, :, None])[:, :, 0]
            if bool(lines.beside.any()):
                beside[node.name] = own * lines.beside[:, None]
            pushed[node.name] = rise * lines.above[:, None] + fall * lines.below[:, None]
        if self._network.output in pushed:
            last = pushed[self._network.output]
            constant = constant + (last @ self._rows[:, :, None])[:, :, 0]
        return constant + self._carried_back(beside)

    def _carried_back(
        self, beside: Mapping[str, Float64[Tensor, "batch k _n"]]
    ) -> Float64[Tensor, "batch k"] | float:
        """The greatest value of functions of what enters the gates."""
        if not beside:
            return 0.0
        sources = {
            n.name: n.source for n in self._values.network.nodes if isinstance(n, Elementwise)
        }
        rows: dict[str, Tensor] = {}
        for name, part in beside.items():
            moved = part.unflatten(0, (self._boxes, self._count)).flatten(1, 2)
            source = sources[name]
            rows[source] = rows[source] + moved if source in rows else moved
        shape = next(iter(beside.values())).shape[:2]
        return self._values.greatest(rows).reshape(shape)


def _ancestors(lowered: Network) -> frozenset[str]:
    """The nodes that the output depends on, itself included."""
    live = {lowered.output}
    for node in reversed(lowered.nodes):
        if node.name in live:
            live |= set(node.sources)
    return frozenset(live)
