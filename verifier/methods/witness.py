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
from dataclasses import dataclass
from itertools import cycle

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from verifier.certificate import Witness
from verifier.methods.clock import Clock
from verifier.methods.domain import Domain
from verifier.methods.duality import attained_norm, dual_vector, norm_of
from verifier.methods.items import items_of, varying_inputs
from verifier.methods.secant import secant_values
from verifier.network.graph import Network
from verifier.network.nodes import Affine, Elementwise
from verifier.norms import Norm
from verifier.property import Property

_STARTS = 48  #: points of a round
_ASCENT_STEPS = 24
_WIDTHS = (3.0, 1.0, 10.0)  #: first windows of successive rounds, in deviations of z
_NARROW = 0.01  #: the last window
_MUTATION_STEPS = 40
_ELITE = 8  #: points whose neighbourhood is searched
_MUTANTS = 8  #: of each of them, a step
_SCALES = 44  #: t = 1, 1/2, ... of the greatest
_PATIENCE = 6  #: rounds without a gain of `_GAIN`, then it ends
_GAIN = 1e-4
_JACOBIAN_ENTRIES = 2**23  #: of all points of a batch


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


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Points:
    """Points with the functional s.(C f) whose slope is sought there, of one item each."""

    x: Float64[Tensor, "points inputs"]
    functional: Float64[Tensor, "points rows"]  #: 0 outside the item's rows
    item: Int64[Tensor, " points"]
    value: Float64[Tensor, " points"]

    def best(self, count: int) -> _Points:
        """The points of the greatest values."""
        chosen = self.value.topk(min(count, len(self.value))).indices
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
        self._lowered = network.lowered("compare")
        self._region = asked.region
        self._norm = asked.norm
        self._random = random
        self._domain = Domain.of(asked.region, network.input_size).shrunk()
        items = items_of(asked, network.output_size)
        self._is_list = any(item.output is not None or item.margin is not None for item in items)
        self._rows = torch.cat([item.rows for item in items])
        owner = torch.repeat_interleave(torch.tensor([len(item.rows) for item in items]))
        self._mask = (owner == torch.arange(len(items))[:, None]).double()
        varying = torch.zeros(network.input_size, dtype=torch.float64)
        varying[varying_inputs(asked, network.input_size)] = 1
        # A coordinate without room is no direction, although it is an input that may vary.
        self._varying = varying * (0 < self._domain.reach)

    def round(self, width: float, clock: Clock) -> Witness | None:
        """The best pair from fresh points, smoothed with windows of `width` at first."""
        if not self._varying.any():
            return None
        starts = self._scored(self._sampled())
        climbed = self._climbed(self._spread(starts), width, clock)
        pool = _joined(starts, self._scored(climbed)).best(_ELITE)
        return self._pair(self._mutated(pool, clock))

    def _sampled(self) -> Float64[Tensor, "points inputs"]:
        """Random points of the region: inside, and at its corners; of all sizes everywhere."""
        size = self._network.input_size
        budget = _JACOBIAN_ENTRIES // (size * min(len(self._rows), 64))
        count = max(2, min(_STARTS, budget))
        normal = self._normal(count, size)
        share = self._uniform(count, 1)
        domain = self._domain
        if domain.norm is not None:
            length = norm_of(domain.norm, normal)[:, None]
            return domain.center + normal / length * domain.reach * share.sqrt()
        if domain.reach.isinf().any():
            return normal * 10 ** (4 * share - 2)
        inside = 2 * self._uniform(count, size) - 1
        corner = torch.arange(count)[:, None] % 2 == 0
        return domain.center + domain.reach * torch.where(corner, normal.sign(), inside)

    def _scored(self, x: Float64[Tensor, "points inputs"]) -> _Points:
        """The steepest item and functional at every point, from its Jacobian."""
        jacobian = self._jacobian(x) * self._varying
        best: _Points | None = None
        for item in range(len(self._mask)):
            own = self._mask[item].nonzero().flatten()
            attained = attained_norm(self._norm, jacobian[:, own])
            functional = x.new_zeros(len(x), len(self._rows))
            functional[:, own] = attained.functional
            points = _Points(
                x=x,
                functional=functional,
                item=torch.full((len(x),), item),
                value=attained.value,
            )
            best = points if best is None else _steeper(best, points)
        if best is None:
            raise ValueError("a property has at least one item")
        return best

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

    def _jacobian(
        self, x: Float64[Tensor, "points inputs"]
    ) -> Float64[Tensor, "points rows inputs"]:
        """The derivative of C f at every point; at a kink, one that autograd takes."""
        x = x.detach().requires_grad_(True)
        outputs = self._network.forward(x) @ self._rows.T
        slopes = [
            _gradients(column.sum(), x)[0]
            for column in outputs.unbind(dim=1)
        ]
        return torch.stack(slopes, dim=1)

    def _slopes(self, points: _Points) -> Float64[Tensor, "points inputs"]:
        """The gradient of s.(C f) at every point."""
        x = points.x.detach().requires_grad_(True)
        rises = (self._network.forward(x) @ self._rows.T * points.functional).sum()
        return _gradients(rises, x)[0] * self._varying

    def _climbed(
        self, starts: _Points, width: float, clock: Clock
    ) -> Float64[Tensor, "points inputs"]:
        """Where the gradient of smoothed slopes has led the points."""
        x, direction = starts.x, dual_vector(self._norm.input, self._slopes(starts))
        direction = self._moving(direction)
        mask = (starts.functional != 0) * self._mask[starts.item]
        size = self._size(x)
        for step in range(_ASCENT_STEPS):
            if clock.has_expired:
                break
            window = width * (_NARROW / width) ** (step / _ASCENT_STEPS)
            x, direction = x.detach().requires_grad_(True), direction.detach().requires_grad_(True)
            rise = norm_of(self._norm.output, self._smoothed(x, direction, window) * mask)
            by_x, by_direction = _gradients(rise.sum(), x, direction)
            direction = self._moving(
                dual_vector(self._norm.input, by_direction * self._varying), direction
            )
            x = self._within(x.detach() + min(1.0, window) * self._ascent(by_x, size))
        return x

    def _smoothed(
        self,
        x: Float64[Tensor, "points inputs"],
        direction: Float64[Tensor, "points inputs"],
        window: float,
    ) -> Float64[Tensor, "points rows"]:
        """The derivative of C f along the directions, with the gates' slopes over a window."""
        values, rises = self._lowered.signals(x), {"": direction}
        for node in self._lowered.nodes:
            match node:
                case Affine():
                    parts = [term.map.apply(rises[term.source]) for term in node.terms]
                    rises[node.name] = sum(parts[1:], parts[0])
                case Elementwise():
                    z, phi = values[node.source], node.function.forward
                    w = window * z.detach().std(dim=0).clamp(min=1e-9)
                    rises[node.name] = rises[node.source] * (phi(z + w) - phi(z - w)) / (2 * w)
                case _:
                    raise TypeError(f"node {node.name!r} is not lowered")
        return rises[self._lowered.output] @ self._rows.T

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
        return torch.where(moves, direction, other / norm_of(self._norm.input, other)[:, None])

    def _mutated(self, points: _Points, clock: Clock) -> _Points:
        """The points after mutations, each kept where the slope of its functional rose."""
        elite = points
        for _ in range(_MUTATION_STEPS):
            if clock.has_expired:
                break
            parent = torch.arange(len(elite.x)).repeat(_MUTANTS)
            x = self._neighbours(elite.x[parent])
            children = _Points(
                x=x, functional=elite.functional[parent], item=elite.item[parent], value=x[:, 0]
            )
            value = norm_of(self._norm.input.dual, self._slopes(children))
            by_parent = value.unflatten(0, (_MUTANTS, len(elite.x)))
            chosen = by_parent.argmax(dim=0) * len(elite.x) + torch.arange(len(elite.x))
            rose = elite.value < value[chosen]
            elite = _Points(
                x=torch.where(rose[:, None], x[chosen], elite.x),
                functional=elite.functional,
                item=elite.item,
                value=torch.where(rose, value[chosen], elite.value),
            )
        return self._scored(elite.x)

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

    def _pair(self, points: _Points) -> Witness | None:
        """The pair x +- t d that reaches most, over all points and scales t."""
        directions = self._moving(dual_vector(self._norm.input, self._slopes(points)))
        farthest = torch.minimum(self._domain.farthest(directions), self._size(points.x))
        best: tuple[float, Tensor, Tensor, int] | None = None
        shares = 0.5 ** torch.arange(_SCALES, dtype=torch.float64)
        for x, direction, far, item in zip(
            points.x, directions, farthest, points.item.tolist(), strict=True
        ):
            spread = (shares * far)[:, None] * direction
            middle = self._domain.middle(x.expand_as(spread), spread)
            lower, upper = middle - spread, middle + spread
            rows = self._rows[self._mask[item] != 0]
            values = secant_values(self._lowered, rows, self._norm, lower, upper)
            for place in values.argsort(descending=True)[:3].tolist():
                value = float(values[place])
                if value <= (0.0 if best is None else best[0]):
                    break
                ends = lower[place].tolist(), upper[place].tolist()
                if all(self._region.contains(end) for end in ends):
                    best = (value, lower[place], upper[place], item)
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

    def _normal(self, *shape: int) -> Float64[Tensor, ...]:
        return torch.randn(*shape, dtype=torch.float64, generator=self._random)

    def _uniform(self, *shape: int) -> Float64[Tensor, ...]:
        return torch.rand(*shape, dtype=torch.float64, generator=self._random)


def _gradients(total: Float64[Tensor, ""], *variables: Tensor) -> tuple[Tensor, ...]:
    """The derivatives, 0 by what the total does not depend on; the graph is kept."""
    if not total.requires_grad:
        return tuple(torch.zeros_like(variable) for variable in variables)
    return torch.autograd.grad(total, variables, retain_graph=True, materialize_grads=True)


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
