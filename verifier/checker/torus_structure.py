"""Which signals of a network are tensors on a torus, where they may be other than 0, and the masks.

The torus network has, for every such signal, a signal on a torus that equals it on its window
[0, H), axis by axis. That holds

    at the input        its window, and 0 elsewhere;
    at maps             if no place within the result's window reads on the torus what is not there
                        in the file (`wraps_badly`); outside of that window anything may stand;
    at gates, masks     outside of the window phi = 0 v: slope ranges are widened to hold 0, so that
                        the gate's constraint holds there too. A mask is a gate with slopes [0, 1]
                        that is the identity within the window.

So for any two inputs of the file's network there are increments of the torus network that meet all
of its constraints and equal the file's within windows. What is not of this form is flat: it reads
the windows of tensors, entry by entry.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.definite import NotProved
from verifier.checker.frontier import CROPPED
from verifier.checker.lowering import sources
from verifier.checker.maps import Convolution, identity
from verifier.checker.network import Affine, Elementwise, Term
from verifier.checker.taps import spread, taps_of, unmoved, wraps_badly
from verifier.checker.torus_masks import masked

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from jaxtyping import Bool

    from verifier.checker.network import Network, Node
    from verifier.checker.taps import Taps

    Supports = tuple[Bool[np.ndarray, " side"], ...]

MOST_SIDE = 2**12  #: a torus of a longer side is not taken on


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """A signal on a torus."""

    channels: int
    window: tuple[int, ...]
    strides: tuple[int, ...]  #: of its resolution against the input's
    supports: Supports  #: where it may be other than 0, axis by axis

    @property
    def sides(self) -> tuple[int, ...]:
        """The sides of its torus."""
        return tuple(len(support) for support in self.supports)


@dataclass(frozen=True, slots=True, kw_only=True)
class Torus:
    """A network with masks, its tensors, and the taps of every term between them."""

    nodes: tuple[Node, ...]
    output: str
    tensors: Mapping[str, Tensor]
    taps: Mapping[str, tuple[tuple[Taps, ...], ...]]  #: by affine node, for each of its terms
    sizes: Mapping[str, int]  #: flat, of every signal

    def ranks(self) -> dict[str, float]:
        """How coarse each signal is; flat ones last of all."""
        return {
            name: float(math.prod(self.tensors[name].strides)) if name in self.tensors else CROPPED
            for name in self.sizes
        }

    def widths(self) -> dict[str, int]:
        """Channels of tensors, entries of flat signals."""
        return {
            name: self.tensors[name].channels if name in self.tensors else size
            for name, size in self.sizes.items()
        }


def torus_of(network: Network, sides: tuple[int, ...], masks: Collection[str]) -> Torus:
    """The torus network of a lowered network.

    Args:
        network: affine nodes, gates and sorts.
        sides: of the torus at the input's resolution.
        masks: the tensors behind which a mask stands, for all that read them.

    Raises:
        NotProved: the sides are too small, a mask is missing, or there is nothing on a torus.
    """
    names = {node.name for node in network.nodes}
    if unknown := sorted(set(masks) - names):
        raise NotProved(f"masks of {unknown}, which are no tensors of the network")
    nodes, output = masked(network, masks)
    reading = _Reading(network, nodes, sides)
    for node in nodes:
        reading.read(node)
    for name in masks:
        if name not in reading.tensors:
            raise NotProved(f"node {name!r} is no tensor on the torus, and takes no mask")
    return Torus(
        nodes=tuple(reading.nodes),
        output=output,
        tensors=reading.tensors,
        taps=reading.taps,
        sizes={"": network.input_size} | {node.name: node.size for node in reading.nodes},
    )


class _Reading:
    """One pass over the nodes."""

    def __init__(self, network: Network, nodes: Sequence[Node], sides: tuple[int, ...]) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.taps: dict[str, tuple[tuple[Taps, ...], ...]] = {}
        self.nodes: list[Node] = []
        self._shapes = network.shapes
        self._read_as: dict[str, tuple[int, ...]] = {}
        for node in nodes:
            for term in node.terms if isinstance(node, Affine) else ():
                if isinstance(term.map, Convolution):
                    self._read_as.setdefault(term.source, term.map.in_shape)
        shape = self._shape("", network.input_size, ())
        if shape is None or len(shape) - 1 != len(sides):
            raise NotProved(f"the input is no tensor of {len(sides)} axes")
        for side, size in zip(sides, shape[1:], strict=True):
            if not size <= side <= MOST_SIDE:
                raise NotProved(f"a torus of side {side} for an input of {size}")
        supports = _windows(sides, shape[1:])
        self.tensors[""] = Tensor(
            channels=shape[0], window=shape[1:], strides=(1,) * len(sides), supports=supports
        )

    def read(self, node: Node) -> None:
        """Find out what kind of signal leaves the node."""
        is_tensor = all(source in self.tensors for source in sources(node))
        if is_tensor and isinstance(node, Affine):
            self._affine(node)
        else:
            self.nodes.append(node)
        if is_tensor and isinstance(node, Elementwise):
            entering = self.tensors[node.source]
            inside = _windows(entering.sides, entering.window)
            supports = tuple(
                s & window for s, window in zip(entering.supports, inside, strict=True)
            )
            self.tensors[node.name] = replace(entering, supports=supports)

    def _affine(self, node: Affine) -> None:
        found = self._taps(node)
        if found is None:
            self.nodes.append(node)
            return
        shape, steps = found
        parts = [
            Tensor(
                channels=shape[0],
                window=shape[1:],
                strides=_strides(self.tensors[term.source].strides, own),
                supports=self._supports(node.name, self.tensors[term.source], own),
            )
            for term, own in zip(node.terms, steps, strict=True)
        ]
        if len({part.strides for part in parts}) != 1:
            self.nodes.append(node)
            return
        if len(parts) > 1 and any(part.strides != self._finest(node) for part in parts):
            node, steps = self._split(node, parts, steps)
        self._add(node, parts, steps)

    def _split(
        self, node: Affine, parts: Sequence[Tensor], steps: Sequence[tuple[Taps, ...]]
    ) -> tuple[Affine, tuple[tuple[Taps, ...], ...]]:
        """The sum of tensors, each made by itself: what strides has not to wait for the others."""
        terms: list[Term] = []
        for place, (term, part, own) in enumerate(zip(node.terms, parts, steps, strict=True)):
            name = f"{node.name}\0term{place}"
            self._add(replace(node, name=name, terms=(term,)), [part], (own,))
            terms.append(Term(name, identity(node.size)))
        same = (unmoved(parts[0].channels, parts[0].window),)
        return replace(node, terms=tuple(terms)), (same,) * len(terms)

    def _add(
        self, node: Affine, parts: Sequence[Tensor], steps: tuple[tuple[Taps, ...], ...]
    ) -> None:
        supports = zip(*(part.supports for part in parts), strict=True)
        joint = tuple(np.any(np.stack(axis), axis=0) for axis in supports)
        self.nodes.append(node)
        self.taps[node.name] = steps
        self.tensors[node.name] = replace(parts[0], supports=joint)

    def _finest(self, node: Affine) -> tuple[int, ...]:
        strides = (self.tensors[term.source].strides for term in node.terms)
        return min(strides, key=math.prod)

    def _taps(self, node: Affine) -> tuple[tuple[int, ...], tuple[tuple[Taps, ...], ...]] | None:
        """(the shape that leaves, the taps of every term)."""
        windows = [self.tensors[term.source].window for term in node.terms]
        shape = self._shape(node.name, node.size, windows[0]) if windows else None
        if shape is None:
            return None
        found: list[tuple[Taps, ...]] = []
        for term, window in zip(node.terms, windows, strict=True):
            channels = self.tensors[term.source].channels
            steps = taps_of(term.map, (channels, *window), shape)
            if steps is None:
                return None
            found.append(steps)
        return shape, tuple(found)

    def _supports(self, name: str, entering: Tensor, steps: tuple[Taps, ...]) -> Supports:
        supports, window = entering.supports, entering.window
        for step in steps:
            if wraps_badly(step, window, supports):
                raise NotProved(f"node {name!r}: the torus is too small, or a mask is missing")
            supports, window = spread(step, supports), step.leaving
        return supports

    def _shape(self, name: str, size: int, spatial: tuple[int, ...]) -> tuple[int, ...] | None:
        """(channels, *spatial): as made, as read, as the pattern's tensor, or as what enters.

        Any shape is sound: the maps that are read with it are compared entry by entry.
        """
        root = name.split("\0")[0]
        for known in (name, root, root.rsplit("#", 1)[0]):
            shape = self._shapes.get(known, ())
            if len(shape) > 2 and shape[0] == 1 and size % math.prod(shape[2:]) == 0:
                return (size // math.prod(shape[2:]), *shape[2:])
        if name in self._read_as:
            return self._read_as[name]
        if spatial and size % math.prod(spatial) == 0:
            return (size // math.prod(spatial), *spatial)
        return None


def _windows(sides: tuple[int, ...], window: tuple[int, ...]) -> Supports:
    return tuple(np.arange(side) < size for side, size in zip(sides, window, strict=True))


def _strides(strides: tuple[int, ...], steps: tuple[Taps, ...]) -> tuple[int, ...]:
    for step in steps:
        strides = tuple(a * b for a, b in zip(strides, step.stride, strict=True))
    return strides
