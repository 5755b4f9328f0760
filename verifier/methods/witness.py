"""A pair that reaches as steep a secant as can be found: the lower end of the constant.

For s of dual norm 1 the slope of s.(C f) at x, measured in the dual of the input norm, is at most
the constant. Each round, from fresh points of the region,

    climbs smoothed slopes   of C f along d, where a gate's slope is taken over a window about z,
                             (phi(z + w) - phi(z - w)) / 2w, which has a gradient by x although
                             phi may be piecewise linear; d follows the gradient by d, and w falls
    climbs slopes            of s.(C f) by mutations of the best points
    tries pairs              x +- t d for all scales t, and keeps the one that reaches most

Nothing here is proved. A pair's value allows for rounding (`secant`), and the checker decides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import cycle

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from verifier.certificate import Witness
from verifier.methods.clock import Clock
from verifier.methods.derivatives import Derivatives, gradients, smoothed_rise
from verifier.methods.domain import Domain
from verifier.methods.duality import dual_vector, norm_of
from verifier.methods.items import items_of, varying_inputs
from verifier.methods.secant import secant_values
from verifier.methods.weights import Measure
from verifier.network.graph import Network
from verifier.norms import Norm
from verifier.property import Property

_STARTS = 48  #: points of a round
_ASCENT_STEPS = 24
_WIDTHS = (3.0, 1.0, 0.3, 10.0)  #: first windows of successive rounds, in deviations of z
_NARROW = 0.01  #: the last window
_MUTATION_STEPS = 40
_ELITE = 8  #: points whose neighbourhood is searched
_MUTANTS = 8  #: of each of them, a step
#: Scales t of pairs: shares of the greatest, then of the best of those.
_COARSE = 0.125 ** torch.arange(15, dtype=torch.float64)
_FINE = 8.0 ** torch.linspace(-1, 1, 13, dtype=torch.float64)
_PATIENCE = 8  #: rounds without a gain of `_GAIN`, then it ends
_GAIN = 1e-4
_DENSE_ROWS = 64  #: of Jacobians that are computed as a whole
_POWER_STEPS = 12
_BATCH_ENTRIES = 2**22  #: of all points of a batch, in the widest signal
_HELD_ENTRIES = 2**26  #: of all points of a batch, in all signals: gradients keep them


def search(network: Network, asked: Property, clock: Clock, seed: int) -> Witness | None:
    """The steepest pair found within the clock; None where the function moved nowhere.

    Its `value` is in plain float64, lowered by what rounding may do.

    Raises:
        InvalidRequest: the property selects what does not exist.
    """
    climb = _Climb(network, asked, torch.Generator().manual_seed(seed))
    best: Witness | None = None
    idle = 0
    for width in cycle(_WIDTHS):
        found = climb.round(width, clock)
        reached = 0.0 if best is None else best.value
        value = 0.0 if found is None else found.value
        idle = 0 if reached * (1 + _GAIN) < value else idle + 1
        best = found if reached < value else best
        if clock.has_expired or _PATIENCE <= idle:
            break
    return best


def near(
    network: Network, asked: Property, points: Sequence[tuple[float, ...]], clock: Clock
) -> Witness | None:
    """The steepest pair within the linear pieces of these points; None if the function is flat."""
    climb = _Climb(network, asked, torch.Generator().manual_seed(0))
    return climb.near(torch.tensor(points, dtype=torch.float64), clock)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Points:
    """Points with the functional s.(C f) whose slope is sought there, of one item each."""

    x: Float64[Tensor, "points inputs"]
    functional: Float64[Tensor, "points rows"]  #: 0 outside the item's rows
    item: Int64[Tensor, " points"]
    value: Float64[Tensor, " points"]

    def best(self, count: int) -> _Points:
        """The points of the greatest values, one of those that are equally steep."""
        value, order = self.value.sort(descending=True)
        # Points of one linear piece would crowd out all others.
        differs = torch.ones_like(value, dtype=torch.bool)
        differs[1:] = value[1:] < value[:-1] * (1 - 1e-9)
        chosen = order[differs][:count]
        return _Points(
            x=self.x[chosen],
            functional=self.functional[chosen],
            item=self.item[chosen],
            value=self.value[chosen],
        )


class _Climb:
    """One question, and the state of its random numbers."""

    def __init__(self, network: Network, asked: Property, random: torch.Generator) -> None:
        self._network = network
        self._lowered = network.lowered("compare", keeps_blocks=True)
        self._region = asked.place
        self._random = random
        self._elite: _Points | None = None  #: the best points of all rounds
        self._domain = Domain.of(asked.place, network.input_size).shrunk()
        sizes = self._lowered.sizes.values()
        self._most = max(2, min(_BATCH_ENTRIES // max(sizes), _HELD_ENTRIES // sum(sizes)))
        items = items_of(asked, network.output_size)
        self._is_list = any(item.output is not None or item.margin is not None for item in items)
        self._rows = torch.cat([item.rows for item in items])
        owner = torch.repeat_interleave(torch.tensor([len(item.rows) for item in items]))
        self._derivatives = Derivatives(network, self._rows)
        self._mask = (owner == torch.arange(len(items))[:, None]).double()
        varying = torch.zeros(network.input_size, dtype=torch.float64)
        varying[varying_inputs(asked, network.input_size)] = 1
        # A coordinate without room is no direction, although it is an input that may vary.
        self._varying = varying * (0 < self._domain.reach)
        moving = self._varying.nonzero().flatten()
        self._norm = Measure.of(asked.norm, moving, network.input_size)

    def round(self, width: float, clock: Clock) -> Witness | None:
        """The best pair from fresh points, smoothed with windows of `width` at first."""
        if not self._varying.any():
            return None
        x = self._sampled()
        if self._elite is not None:
            # Half of the points start again beside the best ones.
            parent = torch.arange(len(x) // 2) % len(self._elite.x)
            x = torch.cat((x[: len(x) - len(parent)], self._neighbours(self._elite.x[parent])))
        starts = self._scored(x, clock)
        climbed = self._scored(self._climbed(self._spread(starts), width, clock), clock)
        pool = _joined(starts, climbed)
        pool = pool if self._elite is None else _joined(pool, self._elite)
        self._elite = self._mutated(pool.best(min(_ELITE, self._most)), clock)
        return self._pair(self._elite, clock)

    def near(self, x: Float64[Tensor, "points inputs"], clock: Clock) -> Witness | None:
        """The best pair around points."""
        return self._pair(self._scored(x, clock), clock) if self._varying.any() else None

    def _sampled(self) -> Float64[Tensor, "points inputs"]:
        """Random points of the region: inside, and at its corners; of all sizes everywhere."""
        size = self._network.input_size
        count = min(_STARTS, self._most)
        normal = self._normal(count, size)
        share = self._uniform(count, 1)
        domain = self._domain
        if domain.norm is not None:
            length = norm_of(domain.norm, normal)[:, None]
            return self._within(domain.center + normal / length * domain.reach * share.sqrt())
        if domain.reach.isinf().any():
            return normal * 10 ** (4 * share - 2)
        inside = 2 * self._uniform(count, size) - 1
        corner = torch.arange(count)[:, None] % 2 == 0
        return domain.center + domain.reach * torch.where(corner, normal.sign(), inside)

    def _scored(self, x: Float64[Tensor, "points inputs"], clock: Clock) -> _Points:
        """The steepest item and functional that are found at every point."""
        if len(self._rows) <= _DENSE_ROWS:
            return self._by_jacobian(x)
        return self._by_power(x, clock)

    def _by_jacobian(self, x: Float64[Tensor, "points inputs"]) -> _Points:
        """The steepest item from the whole Jacobian of every point."""
        jacobian = self._derivatives.jacobian(x) * self._varying
        readings: list[_Points] = []
        for item in range(len(self._mask)):
            own = self._mask[item].nonzero().flatten()
            attained = self._norm.attained(jacobian[:, own])
            functional = x.new_zeros(len(x), len(self._rows))
            functional[:, own] = attained.functional
            readings.append(
                _Points(
                    x=x,
                    functional=functional,
                    item=torch.full((len(x),), item),
                    value=attained.value,
                )
            )
        return reduce(_steeper, readings)

    def _by_power(self, x: Float64[Tensor, "points inputs"], clock: Clock) -> _Points:
        """A steep functional of a random item at every point, by the power method."""
        item = torch.randint(len(self._mask), (len(x),), generator=self._random)
        functional = self._normal(len(x), len(self._rows)) * self._mask[item]
        value = torch.zeros_like(x[:, 0])
        for step in range(_POWER_STEPS):
            if 0 < step and clock.has_expired:
                break
            pulled = self._derivatives.pulled(x, functional) * self._varying
            direction = self._moving(self._norm.steepest(pulled))
            pushed = self._derivatives.pushed(x, direction) * self._mask[item]
            functional = dual_vector(self._norm.output.dual, pushed)
            value = norm_of(self._norm.output, pushed)
        return _Points(x=x, functional=functional, item=item, value=value)

    def _spread(self, points: _Points) -> _Points:
        """Half of the points as they are, the others with all rows in turn for linf outputs.

        Otherwise the row that is steepest at random points would be the only one that is climbed.
        """
        if self._norm.output is not Norm.LINF:
            return points
        count = torch.arange(len(points.x))
        row = count // 2 % len(self._rows)
        turn = count % 2 == 1
        unit = torch.eye(len(self._rows), dtype=torch.float64)[row]
        return _Points(
            x=points.x,
            functional=torch.where(turn[:, None], unit, points.functional),
            item=torch.where(turn, self._mask.argmax(dim=0)[row], points.item),
            value=points.value,
        )

    def _slopes(self, points: _Points) -> Float64[Tensor, "points inputs"]:
        """The gradient of s.(C f) at every point."""
        return self._derivatives.pulled(points.x, points.functional) * self._varying

    def _climbed(
        self, starts: _Points, width: float, clock: Clock
    ) -> Float64[Tensor, "points inputs"]:
        """Where the gradient of smoothed slopes has led the points."""
        x, direction = starts.x, self._norm.steepest(self._slopes(starts))
        direction = self._moving(direction)
        mask = (starts.functional != 0) * self._mask[starts.item]
        size = self._size(x)
        for step in range(_ASCENT_STEPS):
            if clock.has_expired:
                break
            window = width * (_NARROW / width) ** (step / _ASCENT_STEPS)
            x, direction = x.detach().requires_grad_(True), direction.detach().requires_grad_(True)
            rise = norm_of(
                self._norm.output,
                smoothed_rise(self._lowered, x, direction, window) @ self._rows.T * mask,
            )
            by_x, by_direction = gradients(rise.sum(), x, direction)
            direction = self._moving(self._norm.steepest(by_direction * self._varying), direction)
            x = self._within(x.detach() + min(1.0, window) * self._ascent(by_x, size))
        return x

    def _within(self, x: Float64[Tensor, "points inputs"]) -> Float64[Tensor, "points inputs"]:
        """The points, moved into the region."""
        return self._domain.middle(x, torch.zeros_like(x))

    def _ascent(
        self, gradient: Float64[Tensor, "points inputs"], size: Float64[Tensor, " points"]
    ) -> Float64[Tensor, "points inputs"]:
        """The step within a domain around 0 that the gradient likes best."""
        if self._domain.norm is not None:
            return dual_vector(self._domain.norm, gradient) * self._domain.reach
        if self._domain.reach.isinf().any():
            return dual_vector(Norm.L2, gradient) * size[:, None]
        return gradient.sign() * self._domain.reach

    def _size(self, x: Float64[Tensor, "points inputs"]) -> Float64[Tensor, " points"]:
        """How far from each point kinks are looked for, where the region sets no end."""
        return (
            0.1 + norm_of(Norm.L2, x)
            if self._domain.reach.isinf().any()
            else (torch.full_like(x[:, 0], torch.inf))
        )

    def _moving(
        self,
        direction: Float64[Tensor, "points inputs"],
        before: Float64[Tensor, "points inputs"] | None = None,
    ) -> Float64[Tensor, "points inputs"]:
        """The directions, and others where they are 0."""
        other = self._varying.expand_as(direction) if before is None else before.detach()
        moves = direction.abs().sum(dim=1, keepdim=True) != 0
        return torch.where(moves, direction, other / self._norm.length(other)[:, None])

    def _mutated(self, points: _Points, clock: Clock) -> _Points:
        """The points after mutations, each kept where the slope of its functional rose."""
        elite, mutants = points, min(_MUTANTS, max(1, self._most // len(points.x)))
        for _ in range(_MUTATION_STEPS):
            if clock.has_expired:
                break
            parent = torch.arange(len(elite.x)).repeat(mutants)
            x = self._neighbours(elite.x[parent])
            children = _Points(
                x=x, functional=elite.functional[parent], item=elite.item[parent], value=x[:, 0]
            )
            value = self._norm.slope(self._slopes(children))
            by_parent = value.unflatten(0, (mutants, len(elite.x)))
            chosen = by_parent.argmax(dim=0) * len(elite.x) + torch.arange(len(elite.x))
            rose = elite.value < value[chosen]
            elite = _Points(
                x=torch.where(rose[:, None], x[chosen], elite.x),
                functional=elite.functional,
                item=elite.item,
                value=torch.where(rose, value[chosen], elite.value),
            )
        return self._scored(elite.x, clock)

    def _neighbours(self, x: Float64[Tensor, "points inputs"]) -> Float64[Tensor, "points inputs"]:
        """Points near those given: at all distances, in all or in a few coordinates."""
        count, size = x.shape
        distance = 10 ** (-3 * self._uniform(count, 1))
        density = 10 ** (-math.log10(size) * self._uniform(count, 1))
        noise = self._normal(count, size) * (self._uniform(count, size) < density)
        if self._domain.norm is not None:
            noise = noise / norm_of(self._domain.norm, noise).clamp(min=1e-300)[:, None]
        size_of = self._domain.reach
        if size_of.isinf().any():
            size_of = (0.1 + x.abs().mean(dim=1, keepdim=True)).expand_as(x)
        return self._within(x + distance * size_of * noise)

    def _pair(self, points: _Points, clock: Clock) -> Witness | None:
        """The pair x +- t d that reaches most, over all points and scales t."""
        directions = self._moving(self._norm.steepest(self._slopes(points)))
        farthest = torch.minimum(self._domain.farthest(directions), self._size(points.x))
        best: tuple[float, Tensor, Tensor, int] | None = None
        for x, direction, far, item in zip(
            points.x, directions, farthest, points.item.tolist(), strict=True
        ):
            if best is not None and clock.has_expired:
                break
            rows = self._rows[self._mask[item] != 0]
            scale = far
            for shares in (_COARSE, _FINE):
                spread = (shares * scale)[:, None] * direction
                middle = self._domain.middle(x.expand_as(spread), spread)
                lower, upper = middle - spread, middle + spread
                values = self._secants(rows, lower, upper, clock)
                place = int(values.argmax())
                scale = shares[place] * scale
                value = float(values[place])
                ends = lower[place], upper[place]
                inside = all(self._region.contains(end.tolist()) for end in ends)
                if inside and (0.0 if best is None else best[0]) < value:
                    best = (value, *ends, item)
                if clock.has_expired:
                    break
        if best is None:
            return None
        value, lower, upper, item = best
        return Witness(
            value=value,
            x=tuple(lower.tolist()),
            y=tuple(upper.tolist()),
            item=item if self._is_list else None,
        )

    def _secants(
        self,
        rows: Float64[Tensor, "selected outputs"],
        lower: Float64[Tensor, "pairs inputs"],
        upper: Float64[Tensor, "pairs inputs"],
        clock: Clock,
    ) -> Float64[Tensor, " reached"]:
        """What the pairs are sure to reach; of the first ones only, where time is up."""
        values: list[Tensor] = []
        for ends in zip(lower.split(self._most), upper.split(self._most), strict=True):
            values.append(secant_values(self._lowered, rows, self._norm, *ends))
            if clock.has_expired:
                break
        return torch.cat(values)

    def _normal(self, *shape: int) -> Float64[Tensor, ...]:
        return torch.randn(*shape, dtype=torch.float64, generator=self._random)

    def _uniform(self, *shape: int) -> Float64[Tensor, ...]:
        return torch.rand(*shape, dtype=torch.float64, generator=self._random)


def _joined(first: _Points, second: _Points) -> _Points:
    """The points of both."""
    return _Points(
        x=torch.cat((first.x, second.x)),
        functional=torch.cat((first.functional, second.functional)),
        item=torch.cat((first.item, second.item)),
        value=torch.cat((first.value, second.value)),
    )


def _steeper(first: _Points, second: _Points) -> _Points:
    """Of two readings of the same points, the steeper one at each."""
    better = first.value < second.value
    return _Points(
        x=first.x,
        functional=torch.where(better[:, None], second.functional, first.functional),
        item=torch.where(better, second.item, first.item),
        value=torch.where(better, second.value, first.value),
    )
