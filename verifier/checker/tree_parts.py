"""The parts into which a tree of closed cuts divides a region, with what its cuts say of each.

A cut divides by a signal's entry z at a number t: the lower part has z <= t, the upper one t <= z.
Both contain t, so that the leaves of any binary tree cover what its root stands for. Nodes come in
preorder: a cut, its lower part, its upper part. The walk keeps the cuts above a node as a list, so
that no depth is too great for it; what is deeper than `DEEPEST` is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from verifier.certificate import CUT, EMPTY, INEQUALITY, JACOBIAN
from verifier.checker.definite import NotProved

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from verifier.certificate import Tree

Neuron: TypeAlias = tuple[str, int]  #: a signal, and an entry of it
Ends: TypeAlias = tuple[float, float]

DEEPEST = 4096  #: cuts above a node
GREATEST_WEIGHT = 2.0**300


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The points of the region that all cuts above a leaf leave."""

    kind: int  #: EMPTY, INEQUALITY or JACOBIAN
    place: int  #: how many leaves of its kind come before it
    ends: Mapping[Neuron, Ends]  #: of every neuron that is cut: lower <= z <= upper
    #: of an empty leaf: for each neuron the sum of its cuts' weights, those of lower parts negative
    pulls: Mapping[Neuron, float]


@dataclass(slots=True)
class _Step:
    """A cut above the present node, and on which side of it the node is."""

    neuron: Neuron
    place: float
    before: Ends | None  #: what the cuts above this one say of the neuron
    is_upper: bool = False

    def ends(self) -> Ends:
        """What this cut and those above it say of the neuron."""
        lower, upper = self.before or (-math.inf, math.inf)
        if self.is_upper:
            return max(lower, self.place), upper
        return lower, min(self.place, upper)


def parts(tree: Tree, neurons: Sequence[Neuron]) -> Iterator[Part]:
    """Every leaf, in the tree's order.

    Args:
        tree: of a proof, as it was read.
        neurons: what each of its cuts divides.

    Raises:
        NotProved: the nodes are no binary tree in preorder, a list has not one entry for each of
            its nodes, or a number is out of range.
    """
    _require_counts(tree)
    _require_numbers(tree)
    path: list[_Step] = []
    ends: dict[Neuron, Ends] = {}
    seen, taken, open_parts = [0, 0, 0, 0], 0, 1
    for kind in tree.kinds:
        if open_parts == 0:
            raise NotProved("nodes come after the tree's last part")
        place, seen[kind] = seen[kind], seen[kind] + 1
        if kind == CUT:
            if len(path) == DEEPEST:
                raise NotProved(f"a part lies below more than {DEEPEST} cuts")
            path.append(_Step(neurons[place], float(tree.places[place]), ends.get(neurons[place])))
            ends[neurons[place]] = path[-1].ends()
            open_parts += 1
            continue
        pulls: dict[Neuron, float] = {}
        if kind == EMPTY:
            pulls = _pulls(path, tree.weights[taken : taken + len(path)])
            taken += len(path)
        yield Part(kind=kind, place=place, ends=dict(ends), pulls=pulls)
        open_parts -= 1
        _move_on(path, ends)
    if open_parts or taken != len(tree.weights):
        raise NotProved("the tree ends before its last part, or weights are left over")


def _move_on(path: list[_Step], ends: dict[Neuron, Ends]) -> None:
    """From a leaf to the upper part of the last cut whose lower part it ends."""
    while path and path[-1].is_upper:
        step = path.pop()
        if step.before is None:
            del ends[step.neuron]
        else:
            ends[step.neuron] = step.before
    if path:
        path[-1].is_upper = True
        ends[path[-1].neuron] = path[-1].ends()


def _pulls(path: Sequence[_Step], weights: np.ndarray) -> dict[Neuron, float]:
    if len(weights) != len(path):
        raise NotProved("an empty part has not one weight for each cut above it")
    pulls: dict[Neuron, float] = {}
    for step, weight in zip(path, weights.tolist(), strict=True):
        pulls[step.neuron] = pulls.get(step.neuron, 0.0) + (weight if step.is_upper else -weight)
    return pulls


def _require_counts(tree: Tree) -> None:
    if not all(kind in (CUT, EMPTY, INEQUALITY, JACOBIAN) for kind in tree.kinds):
        raise NotProved("a node is neither a cut nor a leaf of a known kind")
    cuts, inequalities = tree.kinds.count(CUT), tree.kinds.count(INEQUALITY)
    if not len(tree.gates) == len(tree.entries) == len(tree.places) == cuts:
        raise NotProved(f"a tree has {cuts} cuts, and not as many gates, entries and places")
    if not len(tree.rows) == len(tree.levels) == len(tree.scales) == inequalities:
        raise NotProved(f"{inequalities} inequalities, and not as many rows, levels and scales")


def _require_numbers(tree: Tree) -> None:
    if not np.all(np.isfinite(tree.places)):
        raise NotProved("a place of a cut is not finite")
    if not np.all((0 <= tree.weights) & (tree.weights <= GREATEST_WEIGHT)):
        raise NotProved("a weight of a cut is negative, nan or out of range")
    if not np.all((0 < tree.scales) & (tree.scales < math.inf)):
        raise NotProved("a scale of multipliers is not positive and finite")
