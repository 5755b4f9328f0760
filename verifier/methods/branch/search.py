"""Best first: the cells of the greatest bounds are bounded anew, tightened, and divided.

One frontier holds the cells of all trees. A cell is done when its bound is at most the threshold of
its item, (1 + gap/2) times the steepest slope met so far. What happens to a cell, in this order:

    bounded     Newton's method on its multipliers, from those of its parent
    settled     no open gate reaches the output any more: the Jacobian is known
    tightened   a gate that no known point shows on both sides is on one: the other half is empty
    divided     at the gate whose halves' bounds, by the cell's own multipliers, are least

Points of cells, from the linear programs that show cells not empty, raise the steepest slope.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field, replace
from itertools import count

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from verifier.certificate import JACOBIAN, Candidate
from verifier.methods.branch.cells import increments
from verifier.methods.branch.feasible import Answers, decide
from verifier.methods.branch.multipliers import (
    Point,
    Systems,
    drops,
    lowered,
    value_at,
)
from verifier.methods.branch.planes import Planes, planes
from verifier.methods.branch.points import Pool
from verifier.methods.branch.proof import proof_of
from verifier.methods.branch.question import Question
from verifier.methods.branch.tree import Cell, Multipliers
from verifier.methods.clock import Clock
from verifier.methods.progress import Aim
from verifier.norms import Norm

_WIDTH = 32  #: cells of a batch
_STEPS = 3  #: of Newton's method in every cell
_SHARE = 0.05  #: of the barrier
_NO_DROP = 1e-12  #: of the square: what a gate without influence changes
_PROGRAMS = 128  #: linear programs of a batch
_OUTSIDE = 1e-9  #: what a plane's greatest value must fall below, against its terms


@dataclass(slots=True, eq=False)
class Search:
    """One run, over all trees of a question."""

    question: Question
    pool: Pool
    roots: list[Cell]
    clock: Clock
    aim: Aim
    _frontier: list[tuple[float, int, Cell]] = field(default_factory=list)
    _order: count[int] = field(default_factory=count)
    rounds: int = 0
    by_layer: bool = True
    foremost: int = 4

    def __post_init__(self) -> None:
        for root in self.roots:
            self._push(root)

    def threshold(self, item: int) -> float:
        """What the bounds of an item's cells need not be below."""
        reached = self.pool.steepest[item] * (1 + max(self.aim.gap / 2, 1e-9))
        return max(reached, self.aim.enough) if len(self.question.items) == 1 else reached

    def is_done(self) -> bool:
        """Whether no cell is above its threshold; closes those that no longer are."""
        while self._frontier:
            cell = self._frontier[0][2]
            if self.threshold(cell.task.item) < cell.bound:
                return False
            heapq.heappop(self._frontier)
        return True

    @property
    def open_cells(self) -> int:
        """How many there are."""
        return len(self._frontier)

    def bounds(self) -> list[float]:
        """Of every item, as the trees are."""
        found = [0.0] * len(self.question.items)
        for root in self.roots:
            found[root.task.item] = max(found[root.task.item], root.greatest())
        return found

    def gap(self) -> float | None:
        """The greatest share by which a bound exceeds the steepest slope met."""
        if not self._frontier:
            return None
        return max(-self._frontier[0][0] - 1, 0.0)

    def candidate(self) -> Candidate:
        """The trees as they are."""
        return Candidate(
            method="branch",
            estimates=tuple(self.bounds()),
            proof=proof_of(self.question, self.roots),
            points=tuple(tuple(x.tolist()) for x in self.pool.best),
        )

    def _push(self, cell: Cell) -> None:
        reached = max(self.pool.steepest[cell.task.item], 1e-300)
        heapq.heappush(self._frontier, (-cell.bound / reached, next(self._order), cell))

    def advance(self) -> None:
        """One batch."""
        self.rounds += 1
        cells = self._popped()
        if not cells:
            return
        self._settle(cells)
        cells = [cell for cell in cells if cell.kind != JACOBIAN]
        if not cells:
            return
        systems, psis = self._systems(cells)
        bounded = self._bounded(cells, systems, psis)
        still = [
            place for place, cell in enumerate(cells) if self.threshold(cell.task.item) < cell.bound
        ]
        if still:
            self._divide([cells[place] for place in still], bounded.of(still))

    def _popped(self) -> list[Cell]:
        cells: list[Cell] = []
        while self._frontier and len(cells) < _WIDTH:
            _, _, cell = heapq.heappop(self._frontier)
            if self.threshold(cell.task.item) < cell.bound:
                cells.append(cell)
        return cells

    def _settle(self, cells: list[Cell]) -> None:
        """Cells whose output no open gate reaches have one Jacobian."""
        if self.question.norm.input is not Norm.LINF:
            return
        sides = torch.stack([cell.sides for cell in cells])
        above = torch.stack([self._above(cell) for cell in cells])
        outflow = increments(
            self.question.form.inflow, above, sides * self.question.kinks.turn
        ).outflow
        inputs = self.question.form.inputs
        slope = outflow[:, 0, :inputs].abs().sum(dim=1)
        rest = outflow[:, 0, inputs:].abs().sum(dim=1)
        for cell, bound, other in zip(cells, slope.tolist(), rest.tolist(), strict=True):
            if other <= _NO_DROP * bound:
                cell.kind, cell.bound = JACOBIAN, bound

    def _above(self, cell: Cell) -> Float64[Tensor, "outputs xi"]:
        return cell.task.rows @ self.question.form.outflow

    def _systems(self, cells: list[Cell]) -> tuple[Systems, Tensor]:
        """The cells' inequalities, and which psis are open in them."""
        form, turn = self.question.form, self.question.kinks.turn
        sides = torch.stack([cell.sides for cell in cells])
        above = torch.stack([self._above(cell) for cell in cells])
        found = increments(form.inflow, above, sides * turn)
        opened = found.opened
        return (
            Systems(
                above=found.outflow,
                below=opened.taken(found.inflow),
                real=opened.real,
                in_linf=self.question.norm.input is Norm.LINF,
            ).grown(),
            opened.index,
        )

    def _bounded(self, cells: list[Cell], systems: Systems, psis: Tensor) -> _Bounded:
        """Better multipliers for the cells, kept where their bound is better."""
        gates = torch.stack([cell.multipliers.gates for cell in cells]).gather(1, psis)
        start = Point(
            gates=torch.where(systems.real, 1 / gates, 1.0),
            inputs=torch.stack([1 / cell.multipliers.inputs for cell in cells]),
        )
        point = lowered(systems, start, steps=_STEPS, share=_SHARE)
        value = value_at(systems, point)
        bounds = value.bound(point, systems.in_linf).tolist()
        none = torch.zeros(len(cells), len(self.question.form.owner), dtype=torch.float64)
        full = none.scatter(1, psis, torch.where(systems.real, 1 / point.gates, 0.0))
        inputs = 1 / point.inputs
        centred = [Multipliers(full[i].clone(), inputs[i].clone()) for i in range(len(cells))]
        for cell, bound, multipliers in zip(cells, bounds, centred, strict=True):
            if bound < cell.bound:
                cell.multipliers, cell.bound = multipliers, bound
        falls = drops(systems, value)
        share = falls / value.level.clamp(min=1e-300)[:, None]
        return _Bounded(
            multipliers=centred,
            bounds=bounds,
            shares=torch.stack([none.scatter(1, psis, each) for each in share]),
        )

    def _divide(self, cells: list[Cell], bounded: _Bounded) -> None:
        """Every cell by the gates that are on one side, or else in two."""
        sides = torch.stack([cell.sides for cell in cells])
        found = planes(self.question, sides)
        weight = bounded.shares.amax(dim=0)
        felt = (_NO_DROP < weight) & (sides == 0) & self.question.kinks.known
        fixed = self._tightened(cells, found, sides, felt, weight)
        for place, cell in enumerate(cells):
            if fixed[place]:
                self._push(self._below(cell, fixed[place]))
            elif bool(felt[place].any()):
                psi = self._gate(bounded.shares[:, place], felt[place])
                for side, child in enumerate(cell.divided(psi)):
                    self._inherit(child, bounded, place, float(bounded.shares[side, place, psi]))

    def _below(self, cell: Cell, fixed: list[_Fixed]) -> Cell:
        """What is left of a cell when its empty parts are cut away."""
        for one in fixed:
            children = cell.divided(one.psi)
            empty, cell = children if one.side < 0 else children[::-1]
            empty.close(one.weights)
        return cell

    def _gate(self, shares: Float64[Tensor, "2 psis"], felt: Bool[Tensor, " psis"]) -> int:
        """Where to divide: the greatest of min + .1 max over the first node with open gates."""
        score = shares.amin(dim=0) + 0.1 * shares.amax(dim=0)
        node = self.question.kinks.gate
        if self.by_layer:
            felt = felt & (node == node[felt].min())
        return int(torch.where(felt, score, -1.0).argmax())

    def _inherit(self, child: Cell, bounded: _Bounded, place: int, share: float) -> None:
        """A child with what its parent's multipliers prove of it; on the frontier if not enough."""
        # Of several outputs jointly the formula says what one direction loses, not the worst.
        share = share if len(child.task.rows) == 1 else 0.0
        bound = bounded.bounds[place] * math.sqrt(max(1 - share, 0.0))
        if bound <= child.bound:
            child.bound, child.multipliers = bound, bounded.multipliers[place]
        if self.threshold(child.task.item) < child.bound:
            self._push(child)

    def _tightened(
        self,
        cells: list[Cell],
        found: Planes,
        sides: Float64[Tensor, "cells psis"],
        felt: Bool[Tensor, "cells psis"],
        weight: Float64[Tensor, "cells psis"],
    ) -> list[list[_Fixed]]:
        """For every cell its gates of which one side is empty.

        Args:
            cells: their trees' leaves.
            found: their planes.
            sides: their sides.
            felt: gates that matter.
            weight: how much.
        """
        fixed: list[list[_Fixed]] = [[] for _ in cells]
        shown = torch.stack(self.pool.shown(self.pool.within(sides)))
        highest = found.highest
        beyond = felt & ~shown & found.usable & (highest < -_OUTSIDE * found.offset.abs())
        for side, cell, psi in beyond.nonzero().tolist():
            alone = torch.zeros_like(sides[0])
            alone[psi] = 1.0
            fixed[cell].append(_Fixed(psi=psi, side=2.0 * side - 1, weights=alone))
        tried = felt & (shown[0] != shown[1]) & ~beyond.any(dim=0)
        tried = tried & (found.exact | self._foremost(torch.where(tried, weight, 0.0)))
        places = tried.nonzero()
        for part in places.split(_PROGRAMS) if len(places) else ():
            cell, psi = part[:, 0], part[:, 1]
            side = torch.where(shown[0][cell, psi], 1.0, -1.0).double()
            answers, index = _asked(found, sides, cell, psi, side)
            self.pool.add(answers.point[answers.has_point])
            for k in answers.is_empty.nonzero().flatten().tolist():
                weights = torch.zeros_like(sides[0]).scatter(0, index[k], answers.weights[k])
                one = _Fixed(psi=int(psi[k]), side=float(side[k]), weights=weights)
                fixed[int(cell[k])].append(one)
        return fixed

    def _foremost(self, weight: Float64[Tensor, "cells psis"]) -> Bool[Tensor, "cells psis"]:
        """The gates of every cell that matter most."""
        count = min(self.foremost, weight.shape[1])
        least = weight.topk(count, dim=1).values[:, -1:] if count else torch.inf
        return (0 < weight) & (least <= weight)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Bounded:
    """What centred multipliers prove of every cell."""

    multipliers: list[Multipliers]
    bounds: list[float]
    shares: Float64[Tensor, "2 cells psis"]  #: of the squared bound, that a side of a gate saves

    def of(self, places: list[int]) -> _Bounded:
        """Those of some cells."""
        return _Bounded(
            multipliers=[self.multipliers[place] for place in places],
            bounds=[self.bounds[place] for place in places],
            shares=self.shares[:, places],
        )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Fixed:
    """A gate of a cell one side of which is empty."""

    psi: int
    side: float  #: the empty one
    weights: Float64[Tensor, " psis"]


def _asked(
    found: Planes,
    sides: Float64[Tensor, "cells psis"],
    cell: Int64[Tensor, " problems"],
    psi: Int64[Tensor, " problems"],
    side: Float64[Tensor, " problems"],
) -> tuple[Answers, Int64[Tensor, "problems m"]]:
    """Whether the cells have points on these sides, and which psi each weight is of."""
    wanted = sides[cell].clone()
    wanted[torch.arange(len(cell)), psi] = side
    choice = (0 < wanted).long()
    usable = found.usable[choice, cell[:, None], torch.arange(sides.shape[1])]
    used = (wanted != 0) & usable
    most = int(used.sum(dim=1).max())
    index = torch.argsort((~used).byte(), dim=1, stable=True)[:, :most]
    used, choice = used.gather(1, index), choice.gather(1, index)
    normal = found.normal[choice, cell[:, None], index]
    offset = found.offset[choice, cell[:, None], index]
    answers = decide(torch.where(used[:, :, None], -normal, 0.0), torch.where(used, offset, 1.0))
    return replace(answers, weights=torch.where(used, answers.weights, 0.0)), index
