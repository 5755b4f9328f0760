"""A network as a torus net: which signals are tensors, where masks stand, where the torus ends.

Every signal before the crop is a tensor (channels, *spatial) with a window [0, H) on a torus of
side N / stride, the stride being the product of those on the way. Its entries outside the window
have to be 0 wherever a map that shifts reads them. They are 0

    behind a gate: its slope range is widened to hold 0, and slope 0 is what masks;
    behind a mask, a gate of slopes [0, 1] that stands where neither is so;
    where the taps reach no entry of a clean window (pools without padding).

Linear maps between gates are fused: `maps` of a node leads from what leaves it to the nodes that it
enters. What follows the first map without taps is dense; it reads one tensor, the crop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import lcm, prod

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.errors import TooLarge
from verifier.methods.torus.shapes import spatial_shape
from verifier.methods.torus.support import Support, spread, whole, within
from verifier.methods.torus.taps import Taps, pointwise
from verifier.methods.torus.terms import Moved, moved
from verifier.network.graph import Grouped, Network
from verifier.network.graph import Node as GraphNode
from verifier.network.nodes import Affine, Elementwise, Product

CROP = "\0crop"  #: the target that stands for the tensor which leaves the torus
INPUT = ""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Node:
    """A gate, a mask, the input or the crop, on the torus."""

    name: str  #: of its scales in proofs
    is_mask: bool = False
    channels: int
    strides: tuple[int, ...]  #: of its resolution, against the input's
    lower: Float64[Tensor, " channels"]  #: slopes, widened to hold 0; 1 and 1 where linear
    upper: Float64[Tensor, " channels"]
    maps: Mapping[str, Taps] = field(default_factory=dict[str, Taps])  #: by key of the target

    @property
    def key(self) -> str:
        """Unique among nodes: a mask may bear the name of a gate's tensor."""
        return ("\0mask:" if self.is_mask else "") + self.name

    @property
    def is_linear(self) -> bool:
        """The input, and the crop."""
        return self.name in (INPUT, CROP)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TorusNet:
    """The nodes in topological order, input first and crop last; then a dense network."""

    sides: tuple[int, ...]  #: of the torus at the input's resolution
    nodes: tuple[Node, ...]
    crop: tuple[int, ...]  #: (channels, *spatial) of the tensor that leaves the torus
    tail: Network  #: of its entries


@dataclass(frozen=True, slots=True, eq=False)
class _Signal:
    """A tensor of the torus part."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """The tensors, the terms that enter each affine one, and the least sides."""

    signals: Mapping[str, _Signal]
    terms: Mapping[str, tuple[tuple[str, Moved], ...]]
    sides: tuple[int, ...]


def structure_of(network: Network) -> TorusNet:
    """The torus net that a network is.

    Raises:
        TooLarge: it is none.
    """
    lowered = network.lowered("keep")
    read = _read(lowered)
    crop = _crop_of(lowered, read.signals)
    nodes = _Builder(lowered, read, crop).run()
    return TorusNet(
        sides=read.sides,
        nodes=nodes,
        crop=read.signals[crop].shape,
        tail=_tail(lowered, read.signals, crop),
    )


def refusal(why: str) -> TooLarge:
    """The refusal of a network that is no torus net."""
    return TooLarge(
        f"channel-shared multipliers do not apply: {why}",
        fix='ask for method "auto", which takes another way',
    )


def _read(network: Network) -> _Read:
    """Walk the graph as long as maps have taps."""
    spatial = spatial_shape(network)
    if spatial is None or network.input_size % prod(spatial):
        raise refusal("no convolution reads the input")
    shape = (network.input_size // prod(spatial), *spatial)
    signals = {INPUT: _Signal(shape, (1,) * len(spatial))}
    terms: dict[str, tuple[tuple[str, Moved], ...]] = {}
    sides = spatial
    for node in network.nodes:
        match node:
            case Elementwise() if node.source in signals:
                signals[node.name] = signals[node.source]
            case Affine() if node.terms and all(s in signals for s in node.sources):
                found = _affine(node, signals)
                if found is not None:
                    signals[node.name], terms[node.name] = found
                    for source, step in found[1]:
                        needed = map_sides(step.sides, signals[source].strides)
                        sides = tuple(max(pair) for pair in zip(sides, needed, strict=True))
            case _:
                pass
    return _Read(signals, terms, _divisible(sides, signals))


def map_sides(sides: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, ...]:
    """Sides at the input's resolution."""
    return tuple(side * stride for side, stride in zip(sides, strides, strict=True))


def _divisible(sides: tuple[int, ...], signals: Mapping[str, _Signal]) -> tuple[int, ...]:
    whole_strides = [
        lcm(*(signal.strides[axis] for signal in signals.values())) for axis in range(len(sides))
    ]
    return tuple(-(-side // s) * s for side, s in zip(sides, whole_strides, strict=True))


def _affine(
    node: Affine, signals: Mapping[str, _Signal]
) -> tuple[_Signal, tuple[tuple[str, Moved], ...]] | None:
    """The tensor that a sum of taps is; None where a term has none, or they do not fit."""
    found: list[tuple[str, Moved]] = []
    leaving: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()
    for term in node.terms:
        source = signals[term.source]
        step = moved(term.map, source.shape)
        if step is None:
            return None
        channels = step.taps.weights.shape[1]
        leaving.add(((channels, *step.spatial), map_sides(step.taps.stride, source.strides)))
        found.append((term.source, step))
    if len(leaving) != 1:
        return None
    shape, strides = leaving.pop()
    return _Signal(shape, strides), tuple(found)


def _crop_of(network: Network, signals: Mapping[str, _Signal]) -> str:
    """The one tensor that the rest of the network reads."""
    read = {
        source
        for node in network.nodes
        if node.name not in signals
        for source in node.sources
        if source in signals
    }
    if network.output in signals:
        read.add(network.output)
    if len(read) != 1:
        raise refusal(f"{len(read)} tensors leave the convolutional part")
    return read.pop()


def _tail(network: Network, signals: Mapping[str, _Signal], crop: str) -> Network:
    """What follows the crop, as a network of the crop's entries."""

    def renamed(name: str) -> str:
        return INPUT if name == crop else name

    nodes: list[GraphNode] = []
    for node in network.nodes:
        if node.name in signals:
            continue
        match node:
            case Affine():
                terms = tuple(replace(term, source=renamed(term.source)) for term in node.terms)
                nodes.append(replace(node, terms=terms))
            case Elementwise() | Grouped():
                nodes.append(replace(node, source=renamed(node.source)))
            case Product():
                raise refusal(f"node {node.name!r} multiplies signals")
    size = prod(signals[crop].shape)
    return Network(nodes=tuple(nodes), input_size=size, output=renamed(network.output))


class _Builder:
    """Expressions of every tensor in what leaves nodes, and the masks on the way."""

    def __init__(self, network: Network, read: _Read, crop: str) -> None:
        self._network = network
        self._read = read
        self._crop = crop
        self._nodes: dict[str, Node] = {}
        self._maps: dict[str, dict[str, Taps]] = {}
        self._made: dict[str, dict[str, Taps]] = {}
        self._supports: dict[str, tuple[Support, ...]] = {}
        self._shifted = {
            source
            for terms in read.terms.values()
            for source, step in terms
            if not step.taps.is_pointwise
        }

    def run(self) -> tuple[Node, ...]:
        """All nodes, each with its maps."""
        ones = torch.ones(self._read.signals[INPUT].shape[0], dtype=torch.float64)
        self._add(INPUT, INPUT, ones, ones)
        self._supports[INPUT] = self._window(INPUT)
        for node in self._network.nodes:
            if node.name in self._read.signals:
                self._tensor(node)
        if self._crop not in self._made:
            raise refusal("nothing leaves the convolutional part")
        ones = torch.ones(self._read.signals[self._crop].shape[0], dtype=torch.float64)
        self._enter(CROP, self._crop)
        self._add(CROP, self._crop, ones, ones)
        return tuple(replace(node, maps=self._maps[key]) for key, node in self._nodes.items())

    def _tensor(self, node: GraphNode) -> None:
        match node:
            case Affine():
                self._sum(node.name)
            case Elementwise():
                self._gate(node)
            case Grouped():
                raise refusal(f"node {node.name!r} sorts groups of three or more")
            case Product():
                raise refusal(f"node {node.name!r} multiplies signals")
        if node.name in self._shifted and not within(
            self._supports[node.name], self._window(node.name)
        ):
            self._mask(node.name)

    def _sum(self, name: str) -> None:
        made: dict[str, Taps] = {}
        supports: list[tuple[Support, ...]] = []
        for source, step in self._read.terms[name]:
            supports.append(spread(step.taps, self._supports[source]))
            for key, taps in self._made[source].items():
                whole_taps = taps.then(step.taps)
                made[key] = made[key].plus(whole_taps) if key in made else whole_taps
        self._made[name] = made
        self._supports[name] = tuple(
            torch.stack(axis).any(dim=0) for axis in zip(*supports, strict=True)
        )

    def _gate(self, node: Elementwise) -> None:
        channels = self._read.signals[node.source].shape[0]
        lower, upper = node.function.slope_range()
        if not (lower.isfinite().all() and upper.isfinite().all()):
            raise refusal(f"the slopes of {node.name!r} are unbounded")
        least = lower.expand(node.size).reshape(channels, -1).amin(dim=1).clamp(max=0.0)
        greatest = upper.expand(node.size).reshape(channels, -1).amax(dim=1).clamp(min=0.0)
        self._enter(node.gate, node.source)
        self._add(node.gate, node.name, least, greatest)
        self._supports[node.name] = tuple(
            inside & window
            for inside, window in zip(
                self._supports[node.source], self._window(node.name), strict=True
            )
        )

    def _mask(self, name: str) -> None:
        channels = self._read.signals[name].shape[0]
        node = self._nodes_key(name, is_mask=True)
        self._enter(node, name)
        zeros = torch.zeros(channels, dtype=torch.float64)
        self._add(name, name, zeros, zeros + 1, is_mask=True)
        self._supports[name] = self._window(name)

    def _nodes_key(self, name: str, *, is_mask: bool) -> str:
        return ("\0mask:" if is_mask else "") + name

    def _enter(self, target: str, tensor: str) -> None:
        for key, taps in self._made[tensor].items():
            self._maps[key][target] = taps

    def _add(
        self, name: str, tensor: str, lower: Tensor, upper: Tensor, *, is_mask: bool = False
    ) -> None:
        signal = self._read.signals[tensor]
        node = Node(
            name=name,
            is_mask=is_mask,
            channels=signal.shape[0],
            strides=signal.strides,
            lower=lower,
            upper=upper,
        )
        self._nodes[node.key] = node
        self._maps[node.key] = {}
        unit = torch.eye(signal.shape[0], dtype=torch.float64)
        self._made[tensor] = {node.key: pointwise(unit, len(signal.strides))}

    def _window(self, name: str) -> tuple[Support, ...]:
        signal = self._read.signals[name]
        return tuple(
            whole(side // stride, size)
            for side, stride, size in zip(
                self._read.sides, signal.strides, signal.shape[1:], strict=True
            )
        )
