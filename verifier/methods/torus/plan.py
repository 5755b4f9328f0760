"""The order of the recursion: which covariance is carried, and what each node does to it.

The frontier is the nodes that have been entered and have not been left; J is the covariance of what
entered them, jointly, at every frequency of the resolution that they share. A node leaves:

    sent     = what it sends to the frontier that follows, by the maps of its targets
    waiting  = the others, which stay as they are.

Behind the crop there is one frequency, and channels are entries. Gates there that are linear have
no scale; a sorting group of n, turned by an orthogonal matrix whose first row is 1'/sqrt(n), is one
linear entry and n - 1 gates |psi| <= |v| of one scale.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from verifier.methods.fused import Target, fused
from verifier.methods.torus.structure import CROP, INPUT, Node, TorusNet, refusal
from verifier.methods.torus.taps import Taps
from verifier.network.graph import Grouped
from verifier.network.grouped import GroupSort
from verifier.network.nodes import Elementwise

MAX_ENTRIES = 2**26  #: of one covariance, or of the rows behind the crop, at all frequencies

Map: TypeAlias = Taps | Float64[Tensor, "_ _"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Gate:
    """Scalar gates of one node with slopes mean +- radius, all with scales or all without."""

    key: str
    name: str  #: of the scales in proofs
    is_mask: bool
    is_linear: bool
    mean: Float64[Tensor, " entries"]
    radius: Float64[Tensor, " entries"]
    owner: Int64[Tensor, " entries"]  #: the place of each entry's scale in the proof's array
    scales: int  #: the length of that array
    strides: tuple[int, ...]  #: of its resolution; () behind the crop
    maps: Mapping[str, Map]

    @property
    def size(self) -> int:
        """The number of entries, or channels."""
        return len(self.mean)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Step:
    """A gate leaves the frontier."""

    gate: Gate
    own: Int64[Tensor, " entries"]  #: its places in J
    waiting: Int64[Tensor, " rest"]  #: the places of the others
    kept: Int64[Tensor, " rest"]  #: where they are afterwards
    sent: tuple[tuple[int, Map], ...]  #: the first place, and the map, of every target
    size: int  #: of J afterwards
    sides: tuple[int, ...]  #: of the torus before; () behind the crop
    strides: tuple[int, ...]  #: by which the torus shrinks

    @property
    def is_coarser(self) -> bool:
        """Whether what is sent has another resolution."""
        return any(1 < stride for stride in self.strides)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Plan:
    """The steps on the torus, the rows that cross to the dense part, and the steps there."""

    sides: tuple[int, ...]
    torus: tuple[Step, ...]
    crop: tuple[int, ...]  #: (channels, *spatial)
    crop_sides: tuple[int, ...]
    rows: Float64[Tensor, "rows crop"]  #: of the crop's entries, into the dense frontier
    dense: tuple[Step, ...]

    @property
    def gates(self) -> tuple[Gate, ...]:
        """All gates that have scales, in order."""
        steps = (*self.torus, *self.dense)
        return tuple(step.gate for step in steps if not step.gate.is_linear)


def plan_of(net: TorusNet) -> Plan:
    """The recursion of a torus net.

    Raises:
        TooLarge: two resolutions would be pending at once, or the dense part is too large.
    """
    *nodes, crop = net.nodes
    torus = tuple(_steps([_torus_gate(node) for node in nodes], net.sides, INPUT, ()))
    sides = tuple(n // s for n, s in zip(net.sides, crop.strides, strict=True))
    gates, rows, start = _dense_gates(net)
    if MAX_ENTRIES < rows.shape[0] * net.crop[0] * prod(sides):
        raise refusal(f"{rows.shape[0]} rows behind {list(net.crop)} are too many")
    dense = _steps(gates, (), "", start) if gates else ()
    return Plan(
        sides=net.sides,
        torus=torus,
        crop=net.crop,
        crop_sides=sides,
        rows=rows,
        dense=tuple(dense),
    )


def _torus_gate(node: Node) -> Gate:
    return Gate(
        key=node.key,
        name=node.name,
        is_mask=node.is_mask,
        is_linear=node.name == INPUT,
        mean=(node.lower + node.upper) / 2,
        radius=(node.upper - node.lower) / 2,
        owner=torch.arange(node.channels),
        scales=node.channels,
        strides=node.strides,
        maps=node.maps,
    )


def _steps(
    gates: Sequence[Gate],
    sides: tuple[int, ...],
    first: str,
    start: Sequence[tuple[str, int]],
) -> Iterator[Step]:
    """The gates in order; the frontier before is `start`, or the first gate alone."""
    sizes = {gate.key: gate.size for gate in gates}
    frontier = list(start) or [(first, gates[0].size)]
    if sum(size for _, size in frontier) ** 2 * prod(sides) > MAX_ENTRIES:
        raise refusal("the covariance of the input is too large")
    for gate in gates:
        step, frontier = _step(gate, frontier, sizes, sides)
        yield step


def _step(
    gate: Gate,
    frontier: list[tuple[str, int]],
    sizes: Mapping[str, int],
    sides: tuple[int, ...],
) -> tuple[Step, list[tuple[str, int]]]:
    places = dict(zip((key for key, _ in frontier), _ranges(frontier), strict=True))
    waiting = [(key, size) for key, size in frontier if key != gate.key]
    new = list(waiting)
    for target, linear in gate.maps.items():
        if target not in places:
            new.append((target, sizes.get(target, _rows(linear))))
    after = dict(zip((key for key, _ in new), _ranges(new), strict=True))
    here = tuple(n // s for n, s in zip(sides, gate.strides, strict=True))
    step = Step(
        gate=gate,
        own=places[gate.key],
        waiting=_joined(places[key] for key, _ in waiting),
        kept=_joined(after[key] for key, _ in waiting),
        sent=tuple((int(after[key][0]), linear) for key, linear in gate.maps.items()),
        size=sum(size for _, size in new),
        sides=here,
        strides=_shrinking(gate),
    )
    if step.is_coarser and len(step.waiting):
        raise refusal(f"two resolutions are pending when {gate.name!r} is passed")
    after = prod(n // s for n, s in zip(here, step.strides, strict=True))
    if MAX_ENTRIES < max(step.size * after, gate.size * prod(here)) * step.size:
        raise refusal(f"the covariance behind {gate.name!r} is too large")
    return step, new


def _shrinking(gate: Gate) -> tuple[int, ...]:
    strides = {linear.stride for linear in gate.maps.values() if isinstance(linear, Taps)}
    if 1 < len(strides):
        raise refusal(f"what leaves {gate.name!r} goes on at two resolutions")
    return strides.pop() if strides else gate.strides


def _rows(linear: Map) -> int:
    return linear.weights.shape[1] if isinstance(linear, Taps) else linear.shape[0]


def _ranges(members: Sequence[tuple[str, int]]) -> Iterator[Int64[Tensor, " places"]]:
    first = 0
    for _, size in members:
        yield torch.arange(first, first + size)
        first += size


def _joined(parts: Iterator[Int64[Tensor, " places"]]) -> Int64[Tensor, " places"]:
    return torch.cat([torch.arange(0), *parts])


# --- Behind the crop -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Part:
    """Entries of a dense node, all active or all linear, in coordinates of their own."""

    key: str
    turn: Float64[Tensor, "entries node"]  #: the coordinates of what enters
    back: Float64[Tensor, "node entries"]  #: what leaves, from its coordinates
    gate: Gate | None  #: without maps; None for the output


def _dense_gates(
    net: TorusNet,
) -> tuple[list[Gate], Float64[Tensor, "rows crop"], list[tuple[str, int]]]:
    """The gates behind the crop, the rows that enter them from it, and the first frontier."""
    size = net.tail.input_size
    targets = list(fused(net.tail, torch.arange(size)))
    parts = {target.name: tuple(_parts(target)) for target in targets}
    rows: list[Tensor] = []
    start: list[tuple[str, int]] = []
    leaving: dict[str, dict[str, Map]] = {}
    for target in targets:
        for part in parts[target.name]:
            for source, block in target.blocks.items():
                turned = part.turn @ block
                if source == INPUT:
                    rows.append(turned)
                    start.append((part.key, len(turned)))
                    continue
                for before in parts[source]:
                    leaving.setdefault(before.key, {})[part.key] = turned @ before.back
    gates = [
        _with_maps(part.gate, leaving.get(part.key, {}))
        for target in targets
        for part in parts[target.name]
        if part.gate is not None
    ]
    return gates, torch.cat(rows), start


def _with_maps(gate: Gate, maps: Mapping[str, Map]) -> Gate:
    return Gate(
        key=gate.key,
        name=gate.name,
        is_mask=False,
        is_linear=gate.is_linear,
        mean=gate.mean,
        radius=gate.radius,
        owner=gate.owner,
        scales=gate.scales,
        strides=(),
        maps=maps,
    )


def _parts(target: Target) -> Iterator[_Part]:
    match target.node:
        case None:
            size = next(iter(target.blocks.values())).shape[0]
            unit = torch.eye(size, dtype=torch.float64)
            yield _Part(key=CROP, turn=unit, back=unit, gate=None)
        case Elementwise() as node:
            lower, upper = (end.expand(node.size) for end in node.function.slope_range())
            if not (lower.isfinite().all() and upper.isfinite().all()):
                raise refusal(f"the slopes of {node.name!r} are unbounded")
            yield from _scalar_parts(node, (lower + upper) / 2, (upper - lower) / 2)
        case Grouped(group=GroupSort() as sort) as node:
            yield from _sort_parts(node, sort)
        case Grouped() as node:
            raise refusal(f"node {node.name!r} is a group behind the crop")


def _scalar_parts(node: Elementwise, mean: Tensor, radius: Tensor) -> Iterator[_Part]:
    unit = torch.eye(node.size, dtype=torch.float64)
    for chosen in (radius != 0, radius == 0):
        if chosen.any():
            turn = unit[chosen]
            owner = torch.nonzero(chosen).flatten()
            gate = _gate(node.name, node.gate, owner, node.size, mean[chosen], radius[chosen])
            yield _Part(key=gate.key, turn=turn, back=turn.T, gate=gate)


def _sort_parts(node: Grouped, sort: GroupSort) -> Iterator[_Part]:
    """Each group in the coordinates of an orthogonal matrix whose first row is +-1/sqrt(n)."""
    count, size = sort.groups.shape
    start = torch.eye(size, dtype=torch.float64)
    start[:, 0] = 1.0
    turn = torch.linalg.qr(start).Q.T

    def placed(places: Tensor, rows: slice) -> Tensor:
        whole = torch.zeros(count, size, node.size, dtype=torch.float64)
        whole[torch.arange(count)[:, None], :, places] = turn.T
        return whole[:, rows].flatten(0, 1)

    groups = torch.arange(count)
    inner = torch.ones(count * (size - 1), dtype=torch.float64)
    means = torch.ones(count, dtype=torch.float64)
    for rows, owner, mean, radius in (
        (slice(1, None), groups.repeat_interleave(size - 1), inner * 0, inner),
        (slice(0, 1), groups, means, means * 0),
    ):
        gate = _gate(node.name, node.name, owner, count, mean, radius)
        yield _Part(
            key=gate.key,
            turn=placed(sort.groups, rows),
            back=placed(sort.places, rows).T,
            gate=gate,
        )


def _gate(key: str, name: str, owner: Tensor, scales: int, mean: Tensor, radius: Tensor) -> Gate:
    is_linear = not radius.any()
    return Gate(
        key=key + "\0linear" if is_linear else key,
        name=name,
        is_mask=False,
        is_linear=is_linear,
        mean=mean,
        radius=radius,
        owner=owner,
        scales=scales,
        strides=(),
        maps={},
    )
