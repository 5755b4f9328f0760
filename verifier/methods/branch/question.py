"""What is branched on: a lowered network's increments over a region, its kinks, and its tasks.

A gate with one kink has psi = -v on one side of it and psi = +v on the other: on each side its
increment is linear. All other gates keep the slopes that the region leaves them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from verifier.certificate import ForwardProof
from verifier.errors import NotCheckable
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


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Kinks:
    """Where every psi's gate may be cut."""

    gates: tuple[str, ...]  #: names, "" (the input) first
    gate: Int64[Tensor, " psis"]  #: which of `gates`
    entry: Int64[Tensor, " psis"]
    place: Float64[Tensor, " psis"]  #: the kink; nan where there is not one
    turn: Float64[Tensor, " psis"]  #: psi = turn v above the kink, -turn v below

    @property
    def known(self) -> Bool[Tensor, " psis"]:
        """Which gates can be cut."""
        return ~self.place.isnan()


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Values:
    """What enters the gates, as `planes` puts it: t = offset + drive (x - c) + spread psi.

    Over the region t lies between `least` and `greatest`, infinite where there is no kink to cut.
    """

    drive: Float64[Tensor, "psis inputs"]
    spread: Float64[Tensor, "psis psis"]
    offset: Float64[Tensor, " psis"]
    least: Float64[Tensor, " psis"]
    greatest: Float64[Tensor, " psis"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Gate:
    """A nonlinear node: where it is linear over the region, and where it has psis."""

    node: Elementwise
    slope: Float64[Tensor, " n"]  #: nan where it is not linear
    offset: Float64[Tensor, " n"]
    middle: Float64[Tensor, " n"]  #: of the least and the greatest slope
    psis: slice
    entries: Int64[Tensor, " psis"]
    function: PiecewiseLinear | None  #: with one kink, which may be cut


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
        if isinstance(region, Everywhere) or norm.input is Norm.L1:
            return None
        lowered = network.lowered("compare")
        _refuse_products(lowered)
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
        gates = _gates(lowered, slopes, domain, form)
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
            values=_values(lowered, gates, region, whole, forward),
            kinks=_kinks(gates),
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


def _with_one_kink(node: Elementwise) -> PiecewiseLinear | None:
    function = node.function
    return function if isinstance(function, PiecewiseLinear) and len(function.breaks) == 1 else None


def _exact(lowered: Network, widened: Mapping[str, Slopes]) -> dict[str, Slopes]:
    """The slopes that are to be proved: those of a kink are its two slopes, not rounded."""
    slopes = dict(widened)
    for node in lowered.nodes:
        if isinstance(node, Elementwise) and _with_one_kink(node) is not None:
            lower, upper = node.function.slope_range()
            near = widened[node.gate]
            is_open = near.lower < near.upper
            slopes[node.gate] = Slopes(
                torch.where(is_open, lower, near.lower), torch.where(is_open, upper, near.upper)
            )
    return slopes


def _gates(
    lowered: Network, slopes: Mapping[str, Slopes], domain: Domain, form: Form
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
                psis=block,
                entries=array.active,
                function=_with_one_kink(node),
            )
        )
    return tuple(gates)


def _values(
    lowered: Network, gates: tuple[Gate, ...], region: Bounded, form: Form, forward: ForwardProof
) -> Values:
    """Where a gate has no kink to cut, nothing is said of t."""
    entering = forward_bounds(lowered, region, "linear", forward.lines)
    ends = [_ends(gate, *entering[gate.node.gate]) for gate in gates]
    none = torch.zeros(0, dtype=torch.float64)
    size = lowered.input_size
    return Values(
        drive=form.inflow[:, :size],
        spread=form.inflow[:, size:],
        offset=_at_center(lowered, gates, Domain.of(region, size)),
        least=torch.cat([none, *(least for least, _ in ends)]),
        greatest=torch.cat([none, *(greatest for _, greatest in ends)]),
    )


def _ends(
    gate: Gate, lower: Float64[Tensor, " n"], upper: Float64[Tensor, " n"]
) -> tuple[Float64[Tensor, " psis"], Float64[Tensor, " psis"]]:
    """The ends of t."""
    if gate.function is None:
        none = torch.full((len(gate.entries),), torch.inf, dtype=torch.float64)
        return -none, none
    kink = gate.function.breaks[0]
    return lower[gate.entries] - kink, upper[gate.entries] - kink


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
                kink = 0.0 if gate.function is None else gate.function.breaks[0]
                entering.append(z[0, gate.entries] - kink)
                middle = node.function.forward(torch.full_like(z, kink)) + gate.middle * (z - kink)
                linear = gate.slope * z + gate.offset
                signals[node.name] = torch.where(gate.slope.isnan(), middle, linear)
            case _:
                raise TypeError(f"node {node.name!r} is not lowered")
    return torch.cat(entering)


def _kinks(gates: tuple[Gate, ...]) -> Kinks:
    """The kinks of all psis."""
    gate = [torch.full_like(each.entries, place + 1) for place, each in enumerate(gates)]
    place, turn = list[Tensor](), list[Tensor]()
    for each in gates:
        count = len(each.entries)
        none = torch.full((count,), torch.nan, dtype=torch.float64)
        if each.function is None:
            place.append(none)
            turn.append(torch.ones_like(none))
            continue
        place.append(torch.full_like(none, each.function.breaks[0]))
        left, right = (none.new_zeros(each.node.size) + side for side in each.function.slopes)
        turn.append(torch.where(left < right, 1.0, -1.0).double()[each.entries])
    none = torch.zeros(0, dtype=torch.float64)
    return Kinks(
        gates=("", *(each.node.gate for each in gates)),
        gate=torch.cat([torch.arange(0), *gate]),
        entry=torch.cat([torch.arange(0), *(each.entries for each in gates)]),
        place=torch.cat([none, *place]),
        turn=torch.cat([none, *turn]),
    )
