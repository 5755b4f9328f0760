"""What is branched on: a lowered network's increments over a region, its kinks, and its tasks.

Between its kinks a piecewise linear gate has psi = sigma v: on each piece its increment is linear.
All other gates keep the slopes that the region leaves them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from verifier.certificate import ForwardProof
from verifier.errors import NotCheckable
from verifier.methods.branch.kinks import Kinks
from verifier.methods.derivatives import Derivatives
from verifier.methods.domain import Domain
from verifier.methods.items import Item, items_of, varying_inputs
from verifier.methods.lipsdp import Form, Slopes, form_of, local_slopes
from verifier.methods.propagation import forward_bounds
from verifier.methods.weights import Measure, fronted, plain_norms
from verifier.network.activations.piecewise import PiecewiseLinear
from verifier.network.graph import Network
from verifier.network.nodes import Affine, Elementwise, Product
from verifier.norms import Norm, NormPair
from verifier.property import Property
from verifier.regions import Bounded, Everywhere

UNBOUNDED = 1e30  #: in the place of infinity, which times 0 is nan


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Values:
    """What enters the gates, as `planes` puts it: t = offset + drive (x - c) + spread psi.

    Psis of which the pieces from a to b are left lie between low_slope t + low_shift and
    high_slope t + high_shift, row a P + b of P pieces; the two are one if a = b. Over the region
    what enters a column's gate, less its kink, lies between `least` and `greatest`, infinite where
    there is none.
    """

    drive: Float64[Tensor, "psis inputs"]
    spread: Float64[Tensor, "psis psis"]
    offset: Float64[Tensor, " psis"]
    low_slope: Float64[Tensor, "states psis"]
    low_shift: Float64[Tensor, "states psis"]
    high_slope: Float64[Tensor, "states psis"]
    high_shift: Float64[Tensor, "states psis"]
    kink: Float64[Tensor, " psis"]  #: from which t counts
    least: Float64[Tensor, " columns"]
    greatest: Float64[Tensor, " columns"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Gate:
    """A nonlinear node: where it is linear over the region, and where it has psis."""

    node: Elementwise
    slope: Float64[Tensor, " n"]  #: nan where it is not linear
    offset: Float64[Tensor, " n"]
    middle: Float64[Tensor, " n"]  #: of the least and the greatest slope
    reach: Float64[Tensor, " n"]  #: half of their difference
    psis: slice
    entries: Int64[Tensor, " psis"]
    function: PiecewiseLinear | None  #: with kinks, which may be cut
    entering: tuple[Tensor, Tensor]  #: least and greatest over the region

    @property
    def kink(self) -> float:
        """From which values count."""
        return 0.0 if self.function is None else self.function.breaks[0]

    @property
    def pieces(self) -> list[tuple[Float64[Tensor, " psis"], float, float]]:
        """The slope of every piece of the psis' gates, and its ends."""
        if self.function is None:
            return []
        ends = [-math.inf, *self.function.breaks, math.inf]
        none = torch.zeros(self.node.size, dtype=torch.float64)
        slopes = [(none + slope)[self.entries] for slope in self.function.slopes]
        return list(zip(slopes, ends[:-1], ends[1:], strict=True))


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Task:
    """One tree: a bound of one output, or of all of an item's jointly."""

    item: int
    output: int | None  #: position among the item's outputs; None: all jointly
    rows: Float64[Tensor, "selected outputs"]
    outflow: Float64[Tensor, "selected xi"]  #: Y of the rows


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Question:
    """A property of a network, as branch and bound sees it."""

    network: Network
    lowered: Network
    region: Bounded
    domain: Domain
    forward: ForwardProof
    norm: NormPair
    moving: Bool[Tensor, " selected"]  #: which of the selected inputs have room in the region
    form: Form  #: over those, measured in plain norms
    values: Values
    kinks: Kinks
    items: tuple[Item, ...]
    tasks: tuple[Task, ...]
    measure: Measure
    varying: Float64[Tensor, " inputs"]  #: 1 for those that move, 0 for others
    derivatives: Derivatives
    gates: tuple[Gate, ...]  #: in topological order

    @staticmethod
    def of(network: Network, asked: Property) -> Question | None:
        """None where branching does not apply to the scope or the norms.

        Raises:
            InvalidRequest: the property selects what does not exist.
            TooLarge: the increments' matrices are too large.
            NotCheckable: a node multiplies signals, which no tree divides.
        """
        norm = plain_norms(asked.norm)
        region = asked.place
        items = items_of(asked, network.output_size)
        lowered = network.lowered("compare")
        _refuse_products(lowered)
        if isinstance(region, Everywhere) or norm.input is Norm.L1:
            return None
        widened, forward = local_slopes(lowered, region)
        slopes = _exact(lowered, widened)
        domain = Domain.of(region, network.input_size)
        inputs = varying_inputs(asked, network.input_size)
        moving = 0 < domain.reach[inputs]
        inputs = inputs[moving]
        if not len(inputs):
            return None
        form = form_of(fronted(lowered, asked.norm, inputs), inputs, slopes)
        tasks = _tasks(items, norm, form)
        if tasks is None:
            return None
        entering = forward_bounds(lowered, region, forward.technique, forward.lines)
        gates = _gates(lowered, slopes, domain, form, entering)
        kinks = _kinks(gates)
        everything = torch.arange(network.input_size)
        whole = form_of(lowered, everything, slopes)
        return Question(
            network=network,
            lowered=lowered,
            region=region,
            domain=domain,
            forward=forward,
            norm=norm,
            moving=moving,
            form=form,
            values=_values(lowered, gates, whole, domain, kinks),
            kinks=kinks,
            items=items,
            tasks=tasks,
            measure=Measure.of(asked.norm, inputs, network.input_size),
            varying=torch.zeros(network.input_size).double().index_fill(0, inputs, 1.0),
            derivatives=Derivatives(network, torch.cat([item.rows for item in items])),
            gates=gates,
        )


def _refuse_products(lowered: Network) -> None:
    for node in lowered.nodes:
        if isinstance(node, Product):
            raise NotCheckable(
                f"node {node.name!r} multiplies two signals, and branch and bound cuts kinks only",
                fix='ask for method "propagation" without branching, or "lipsdp"',
                node=node.name,
            )


def _tasks(items: tuple[Item, ...], norm: NormPair, form: Form) -> tuple[Task, ...] | None:
    """One for each output in linf, one for all jointly from l2 to l2; None where neither is it."""
    tasks: list[Task] = []
    for place, item in enumerate(items):
        alone = len(item.rows) == 1 or norm.output is Norm.LINF
        if not alone and norm != NormPair(Norm.L2, Norm.L2):
            return None
        outputs = list(range(len(item.rows))) if alone else [None]
        for output in outputs:
            rows = item.rows if output is None else item.rows[[output]]
            task = Task(item=place, output=output, rows=rows, outflow=rows @ form.outflow)
            tasks.append(task)
    return tuple(tasks)


def _with_kinks(node: Elementwise) -> PiecewiseLinear | None:
    function = node.function
    return function if isinstance(function, PiecewiseLinear) and function.kinks else None


def _exact(lowered: Network, widened: Mapping[str, Slopes]) -> dict[str, Slopes]:
    """The slopes that are to be proved: those of pieces are theirs, not rounded."""
    slopes = dict(widened)
    for node in lowered.nodes:
        if isinstance(node, Elementwise) and (function := _with_kinks(node)) is not None:
            near = widened[node.gate]
            pieces = torch.stack([torch.zeros_like(near.lower) + each for each in function.slopes])
            is_open = near.lower < near.upper
            lower = torch.where(near.lower <= pieces, pieces, torch.inf).amin(dim=0)
            upper = torch.where(pieces <= near.upper, pieces, -torch.inf).amax(dim=0)
            slopes[node.gate] = Slopes(
                torch.where(is_open, lower, near.lower), torch.where(is_open, upper, near.upper)
            )
    return slopes


def _gates(
    lowered: Network,
    slopes: Mapping[str, Slopes],
    domain: Domain,
    form: Form,
    entering: Mapping[str, tuple[Tensor, Tensor]],
) -> tuple[Gate, ...]:
    """All of them; the center lies in every interval that the region leaves."""
    signals = lowered.signals(domain.center[None])
    nodes = [node for node in lowered.nodes if isinstance(node, Elementwise)]
    gates: list[Gate] = []
    for node, array, block in zip(nodes, form.gates, form.blocks, strict=True):
        own = slopes[node.gate]
        offset = signals[node.name][0] - own.lower * signals[node.source][0]
        gates.append(
            Gate(
                node=node,
                slope=torch.where(own.lower < own.upper, torch.nan, own.lower),
                offset=offset,
                middle=(own.lower + own.upper) / 2,
                reach=(own.upper - own.lower) / 2,
                psis=block,
                entries=array.active,
                function=_with_kinks(node),
                entering=entering[node.gate],
            )
        )
    return tuple(gates)


def _values(
    lowered: Network, gates: tuple[Gate, ...], form: Form, domain: Domain, kinks: Kinks
) -> Values:
    """Where a gate has no kink to cut, its psi is left without bounds."""
    count = _most_pieces(gates)
    pairs = [(first, last) for first in range(count) for last in range(count)]
    none = torch.zeros(4, len(pairs), 0, dtype=torch.float64)
    tables = [torch.stack([_lines(gate, *pair) for pair in pairs], dim=1) for gate in gates]
    low_slope, low_shift, high_slope, high_shift = torch.cat([none, *tables], dim=2)
    size = lowered.input_size
    counts = [torch.full((len(gate.entries),), gate.kink).double() for gate in gates]
    return Values(
        drive=form.inflow[:, :size],
        spread=form.inflow[:, size:],
        offset=_at_center(lowered, gates, domain),
        low_slope=low_slope,
        low_shift=low_shift,
        high_slope=high_slope,
        high_shift=high_shift,
        kink=torch.cat([torch.zeros(0, dtype=torch.float64), *counts]),
        least=_beyond(gates, kinks, 0),
        greatest=_beyond(gates, kinks, 1),
    )


def _beyond(gates: tuple[Gate, ...], kinks: Kinks, end: int) -> Float64[Tensor, " columns"]:
    """How far an end of what enters is beyond the kinks: 0 the least, 1 the greatest."""
    none = torch.zeros(0, dtype=torch.float64)
    entering = torch.cat([none, *(gate.entering[end][gate.entries] for gate in gates)])
    nowhere = torch.inf if end else -torch.inf
    return torch.where(kinks.known, entering[kinks.psi] - kinks.place, nowhere)


def _most_pieces(gates: tuple[Gate, ...]) -> int:
    return max((len(gate.pieces) for gate in gates), default=0) or 1


def _lines(gate: Gate, first: int, last: int) -> Float64[Tensor, "4 psis"]:
    """Slopes and shifts of lines around every psi where these pieces are left."""
    pieces, function = gate.pieces, gate.function
    none = torch.zeros(len(gate.entries), dtype=torch.float64)
    if function is None or len(pieces) <= last or last < first:
        return torch.stack([none, none - UNBOUNDED, none, none + UNBOUNDED])
    middle, reach = gate.middle[gate.entries], gate.reach[gate.entries]
    lower, upper = gate.entering
    at_kink = function.forward(torch.full_like(lower, gate.kink))[gate.entries]
    if first == last:
        # On a piece the lines are its own, whether the region leaves it or not.
        slope, left, right = pieces[first]
        end = left if math.isfinite(left) else right
        height = function.forward(torch.full_like(lower, end))[gate.entries]
        shift = (height + slope * (gate.kink - end) - at_kink) / reach
        return torch.stack([(slope - middle) / reach, shift] * 2)
    lower = lower.clamp(min=pieces[first][1])
    upper = torch.maximum(lower, upper.clamp(max=pieces[last][2]))
    below, least, above, greatest = (
        each[gate.entries] for each in function.relaxation(lower, upper)
    )
    return torch.stack(
        [
            (below - middle) / reach,
            (least + below * gate.kink - at_kink) / reach,
            (above - middle) / reach,
            (greatest + above * gate.kink - at_kink) / reach,
        ]
    )


def _at_center(
    lowered: Network, gates: tuple[Gate, ...], domain: Domain
) -> Float64[Tensor, " psis"]:
    """What enters the gates at the center, less their kinks, if open ones have middle slopes."""
    by_name = {gate.node.name: gate for gate in gates}
    signals = {"": domain.center[None]}
    entering = [torch.zeros(0, dtype=torch.float64)]
    for node in lowered.nodes:
        match node:
            case Affine():
                parts = [term.map.apply(signals[term.source]) for term in node.terms]
                signals[node.name] = sum(parts, node.bias[None])
            case Elementwise():
                gate, z = by_name[node.name], signals[node.source]
                entering.append(z[0, gate.entries] - gate.kink)
                middle = node.function.forward(torch.full_like(z, gate.kink))
                middle = middle + gate.middle * (z - gate.kink)
                linear = gate.slope * z + gate.offset
                signals[node.name] = torch.where(gate.slope.isnan(), middle, linear)
            case _:
                raise TypeError(f"node {node.name!r} is not lowered")
    return torch.cat(entering)


def _kinks(gates: tuple[Gate, ...]) -> Kinks:
    """Columns of all psis, in their order."""
    columns = list[tuple[int, int, float, int, int]]()
    firsts, lasts, sigmas = list[int](), list[int](), list[list[float]]()
    count = _most_pieces(gates)
    for place, gate in enumerate(gates, start=1):
        least, greatest = (end[gate.entries].tolist() for end in gate.entering)
        breaks = () if gate.function is None else gate.function.breaks
        by_piece = _sigmas(gate)
        for row, entry in enumerate(gate.entries.tolist()):
            inside = _within(breaks, least[row], greatest[row])
            psi = len(firsts)
            columns += [(place, entry, breaks[k], psi, k) for k in inside]
            columns += [] if inside else [(place, entry, math.nan, psi, 0)]
            firsts.append(inside[0] if inside else 0)
            lasts.append(inside[-1] + 1 if inside else 0)
            own = [each[row] for each in by_piece]
            sigmas.append(own + [math.nan] * (count - len(own)))
    gate_of, entry_of, place_of, psi_of, piece_of = (
        zip(*columns, strict=True) if columns else ((),) * 5
    )
    return Kinks(
        gates=("", *(each.node.gate for each in gates)),
        gate=torch.tensor(gate_of, dtype=torch.int64),
        entry=torch.tensor(entry_of, dtype=torch.int64),
        place=torch.tensor(place_of, dtype=torch.float64),
        psi=torch.tensor(psi_of, dtype=torch.int64),
        piece=torch.tensor(piece_of, dtype=torch.int64),
        first=torch.tensor(firsts, dtype=torch.int64),
        last=torch.tensor(lasts, dtype=torch.int64),
        sigmas=torch.tensor(sigmas, dtype=torch.float64).reshape(len(firsts), count),
    )


def _within(breaks: Sequence[float], least: float, greatest: float) -> list[int]:
    """The kinks within an interval of an open gate, or next to it: rounding left two slopes."""
    inside = [k for k, at in enumerate(breaks) if least < at < greatest]
    if inside or not breaks:
        return inside
    beyond = [max(least - at, at - greatest) for at in breaks]
    return [beyond.index(min(beyond))]


def _sigmas(gate: Gate) -> list[list[float]]:
    """Of every piece, those of the psis."""
    middle, reach = gate.middle[gate.entries], gate.reach[gate.entries]
    return [((slope - middle) / reach).clamp(-1, 1).tolist() for slope, _, _ in gate.pieces]
