"""The order of a recursion: which signals are alive at every step, and what a step does to them.

A signal is alive from where it is made to where it is last read. The live signals' increments,
stacked, are z. A step makes one signal more and forgets those that nothing reads any more:

    affine    z <- L z,               one row block of L is the node's maps, the others keep
    gate      z <- L (z + 0) + N psi  L puts A v in, N psi is the gate's Q psi at its place

All that the recursion needs of a step are L and N on rows. Each step also scales z by a power of
two, so that the gains of many layers stay within the range of float64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float64
from torch import Tensor

from verifier.methods.lipsdp import Slopes, global_slopes
from verifier.methods.recursion.gates import Gate, Scalars, Sorts
from verifier.network.graph import Grouped, Network, Node
from verifier.network.grouped import GroupSort
from verifier.network.nodes import Affine, Elementwise, Product, Term


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Step:
    """One node: the live signals before, `entering` entries, become those after it."""

    before: Mapping[str, slice]
    after: Mapping[str, slice]
    name: str  #: the signal that the step makes
    terms: tuple[Term, ...]  #: of an affine node; none of a gate
    gate: Gate | None
    source: str  #: what enters the gate; "" for an affine node
    scale: float = 1.0  #: of everything that leaves, a power of two

    @property
    def entering(self) -> int:
        """The entries of the live signals before."""
        return _length(self.before)

    @property
    def leaving(self) -> int:
        """The entries of the live signals after."""
        return _length(self.after)

    @property
    def gated(self) -> Gate:
        """The gate of a step that has one."""
        if self.gate is None:
            raise TypeError(f"step {self.name!r} is affine")
        return self.gate

    @property
    def psis(self) -> int:
        """How many psis the step adds."""
        return 0 if self.gate is None else len(self.gate.owner)

    @property
    def is_cut(self) -> bool:
        """Whether a gate is entered by all that is alive, entry by entry."""
        return isinstance(self.gate, Scalars) and self.psis == self.entering

    @property
    def entrance(self) -> slice:
        """Where the gate's v stands in z."""
        return self.before[self.source]

    @property
    def exit(self) -> slice:
        """Where the new signal stands afterwards."""
        return self.after[self.name]

    def apply(self, rows: Float64[Tensor, "batch before"]) -> Float64[Tensor, "batch after"]:
        """L z of every row z."""
        out = rows.new_zeros(rows.shape[0], self.leaving)
        for signal, place in self.after.items():
            if signal != self.name:
                out[:, place] = rows[:, self.before[signal]]
        if self.gate is not None:
            out[:, self.exit] = self.gate.through(rows[:, self.entrance])
        for term in self.terms:
            out[:, self.exit] += term.map.apply(rows[:, self.before[term.source]])
        return out if self.scale == 1.0 else out.mul_(self.scale)

    def adjoint(self, rows: Float64[Tensor, "batch after"]) -> Float64[Tensor, "batch before"]:
        """L' of every row."""
        out = rows.new_zeros(rows.shape[0], self.entering)
        for signal, place in self.after.items():
            if signal != self.name:
                out[:, self.before[signal]] = rows[:, place]
        here = rows[:, self.exit]
        if self.gate is not None:
            out[:, self.entrance] += self.gate.through_adjoint(here)
        for term in self.terms:
            out[:, self.before[term.source]] += term.map.adjoint(here)
        return out if self.scale == 1.0 else out.mul_(self.scale)


def steps_of(network: Network, slopes: Mapping[str, Slopes]) -> tuple[Step, ...]:
    """The steps of a lowered network; after the last one only the output is alive.

    Args:
        network: affine and elementwise nodes, and sorted groups.
        slopes: of every elementwise node, by gate.
    """
    sizes = network.sizes
    last = {source: place for place, node in enumerate(network.nodes) for source in node.sources}
    last[network.output] = len(network.nodes)
    steps: list[Step] = []
    before = {"": slice(0, network.input_size)}
    for place, node in enumerate(network.nodes):
        kept = [name for name in before if place < last.get(name, -1)]
        # What nothing reads still has to be processed: its scales are part of the proof.
        after = _stacked([*kept, node.name], sizes)
        steps.append(_step(node, before, after, slopes))
        before = after
    return tuple(steps)


def widest_of(steps: Sequence[Step], inputs: int) -> int:
    """The most entries that are alive at once."""
    return max([inputs, *(max(step.entering, step.leaving) for step in steps)])


def entries_of(steps: Sequence[Step], inputs: int) -> int:
    """What a search holds: some matrices of the live signals, and two kept for each gate."""
    kept = sum(step.psis * (step.psis + (0 if step.is_cut else step.entering)) for step in steps)
    return 6 * widest_of(steps, inputs) ** 2 + kept


def memory_of(network: Network) -> int:
    """The entries that a search over the network holds."""
    lowered = network.lowered("keep")
    return entries_of(steps_of(lowered, global_slopes(lowered)), network.input_size)


def work_of(network: Network) -> float:
    """The multiplications of one pass, about: its steps as if their maps were matrices."""
    lowered = network.lowered("keep")
    steps = steps_of(lowered, global_slopes(lowered))
    return sum(
        float(step.entering + step.leaving) * step.leaving * step.entering
        + float(step.psis) ** 2 * (step.psis + step.entering)
        for step in steps
    )


def gated(steps: Sequence[Step]) -> list[Step]:
    """The steps that have scales."""
    return [step for step in steps if step.psis]


def _step(
    node: Node,
    before: Mapping[str, slice],
    after: Mapping[str, slice],
    slopes: Mapping[str, Slopes],
) -> Step:
    gate: Gate | None = None
    match node:
        case Affine():
            return Step(
                before=before, after=after, name=node.name, terms=node.terms, gate=None, source=""
            )
        case Elementwise():
            gate = Scalars.of(node.gate, slopes[node.gate])
        case Grouped(group=GroupSort() as sort):
            gate = Sorts(node.name, sort)
        case Grouped() | Product():
            raise TypeError(f"node {node.name!r} is not lowered")
    return Step(before=before, after=after, name=node.name, terms=(), gate=gate, source=node.source)


def _stacked(names: list[str], sizes: Mapping[str, int]) -> dict[str, slice]:
    places: dict[str, slice] = {}
    start = 0
    for name in names:
        places[name] = slice(start, start + sizes[name])
        start += sizes[name]
    return places


def _length(places: Mapping[str, slice]) -> int:
    return max((place.stop for place in places.values()), default=0)
