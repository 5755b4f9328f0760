"""The parts into which a tree of closed cuts divides a region, with what its cuts say of each.

A cut divides by a signal's entry z at a number t: the lower part has z <= t, the upper one t <= z.
Both contain t, so that the leaves of any binary tree cover what its root stands for. Nodes come in
preorder: a cut, its lower part, its upper part. A trim is a cut one part of which is an empty leaf,
made at once: below a trim z <= t is left, above one t <= z, and that part's nodes follow. The walk
keeps the cuts above a node as a list, so that no depth is too great for it; what is deeper than
`DEEPEST` is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from verifier.certificate import ABOVE, BELOW, CUT, EMPTY, INEQUALITY, JACOBIAN
from verifier.checker.definite import NotProved

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from verifier.certificate import Tree

Neuron: TypeAlias = tuple[str, int]  #: a signal, and an entry of it
Ends: TypeAlias = tuple[float, float]

DEEPEST = 4096  #: cuts above a node
GREATEST_WEIGHT = 2.0**300

_DIVIDING = frozenset((CUT, BELOW, ABOVE))
_LEAVES = frozenset((EMPTY, INEQUALITY, JACOBIAN))


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The points of the region that all cuts above a leaf leave."""

    kind: int  #: EMPTY, INEQUALITY or JACOBIAN
    place: int  #: how many leaves of its kind come before it
    ends: Mapping[Neuron, Ends]  #: of every neuron that is cut: lower <= z <= upper
    #: of an empty part: for each neuron the sum of its cuts' weights, those of lower parts negative
    pulls: Mapping[Neuron, float]


@dataclass(slots=True)
class _Step:
    """A cut or trim above the present node, and on which side of it the node is."""

    neuron: Neuron
    place: float
    before: Ends | None  #: what the cuts above this one say of the neuron
    is_upper: bool = False
    is_last: bool = False  #: whether no other part of it follows

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
    walk = _Walk(tree, neurons)
    seen, open_parts = dict.fromkeys(_DIVIDING | _LEAVES, 0), 1
    for kind in tree.kinds:
        if open_parts == 0:
            raise NotProved("nodes come after the tree's last part")
        place, seen[kind] = seen[kind], seen[kind] + 1
        if kind == CUT:
            walk.cut()
            open_parts += 1
        elif kind in _DIVIDING:
            yield walk.trim(is_upper=kind == ABOVE)
        else:
            yield walk.leaf(kind, place)
            open_parts -= 1
    if open_parts or walk.taken != len(tree.weights):
        raise NotProved("the tree ends before its last part, or weights are left over")


class _Walk:
    """The cuts above the present node, and what they say of each neuron."""

    def __init__(self, tree: Tree, neurons: Sequence[Neuron]) -> None:
        self._tree, self._neurons = tree, neurons
        self._path: list[_Step] = []
        self._cuts: list[_Step] = []  #: of the path, those that are no trims
        self._ends: dict[Neuron, Ends] = {}
        self._divided = 0  #: cuts and trims so far
        self.taken = 0  #: weights that leaves and trims have used

    def cut(self) -> None:
        """Go on to a cut's lower part."""
        step = self._next()
        self._path.append(step)
        self._cuts.append(step)
        self._ends[step.neuron] = step.ends()

    def trim(self, *, is_upper: bool) -> Part:
        """The part that a trim leaves out; go on to the other one."""
        step = self._next()
        step.is_upper, step.is_last = not is_upper, True
        pulls = self._pulls()
        pulls[step.neuron] = pulls.get(step.neuron, 0.0) + (1.0 if step.is_upper else -1.0)
        ends = self._ends | {step.neuron: step.ends()}
        step.is_upper = is_upper
        self._path.append(step)
        self._ends[step.neuron] = step.ends()
        return Part(kind=EMPTY, place=0, ends=ends, pulls=pulls)

    def leaf(self, kind: int, place: int) -> Part:
        """The part of a leaf; go on to the upper part of the last cut whose lower part it ends."""
        pulls = self._pulls() if kind == EMPTY else {}
        part = Part(kind=kind, place=place, ends=dict(self._ends), pulls=pulls)
        while self._path and self._path[-1].is_last:
            self._leave(self._path.pop())
        if self._path:
            step = self._path[-1]
            step.is_upper = step.is_last = True
            self._ends[step.neuron] = step.ends()
        return part

    def _next(self) -> _Step:
        """The next cut or trim."""
        if len(self._path) == DEEPEST:
            raise NotProved(f"a part lies below more than {DEEPEST} cuts")
        place, self._divided = self._divided, self._divided + 1
        neuron = self._neurons[place]
        return _Step(neuron, float(self._tree.places[place]), self._ends.get(neuron))

    def _leave(self, step: _Step) -> None:
        if self._cuts and self._cuts[-1] is step:
            self._cuts.pop()
        if step.before is None:
            del self._ends[step.neuron]
        else:
            self._ends[step.neuron] = step.before

    def _pulls(self) -> dict[Neuron, float]:
        """The next weights, one for each cut above."""
        weights = self._tree.weights[self.taken : self.taken + len(self._cuts)]
        if len(weights) != len(self._cuts):
            raise NotProved("an empty part has not one weight for each cut above it")
        self.taken += len(self._cuts)
        pulls: dict[Neuron, float] = {}
        for step, weight in zip(self._cuts, weights.tolist(), strict=True):
            pull = weight if step.is_upper else -weight
            pulls[step.neuron] = pulls.get(step.neuron, 0.0) + pull
        return pulls


def _require_counts(tree: Tree) -> None:
    if not _DIVIDING | _LEAVES >= set(tree.kinds):
        raise NotProved("a node is neither a cut nor a leaf of a known kind")
    cuts = sum(map(tree.kinds.count, _DIVIDING))
    inequalities = tree.kinds.count(INEQUALITY)
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
