"""Best first: the cells of the greatest bounds are bounded anew, tightened, and divided.

One frontier holds the cells of all trees. A cell is done when its bound is at most the threshold of
its item, (1 + gap/2) times the steepest slope met so far. What happens to a cell, in this order:

    emptied     no point of it is known, and a linear program shows that there is none
    trimmed     the intervals of what enters its gates are narrowed, past kinks where that is shown
    settled     no open gate reaches the output any more: the Jacobian is known
    bounded     Newton's method on its multipliers, from those of its parent
    divided     at the gate whose halves' bounds, by the cell's own multipliers, are least

Points of cells, from the linear programs that show cells not empty, raise the steepest slope.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.certificate import Candidate
from verifier.checkpoint import Growth
from verifier.methods.branch.bounding import (
    NO_SHARE,
    Bounded,
    bounded,
    gates_to_divide,
    settled,
)
from verifier.methods.branch.checkpoint import growth_of
from verifier.methods.branch.emptiness import without_empty
from verifier.methods.branch.frontier import Frontier
from verifier.methods.branch.points import Pool
from verifier.methods.branch.proof import SLACK, proof_of
from verifier.methods.branch.question import Question
from verifier.methods.branch.tree import Cell
from verifier.methods.branch.trimming import trimmed
from verifier.methods.progress import Aim

_ENTRIES = 2**20  #: of the matrices of a batch
_WIDEST = 512  #: cells of a batch
_LEAST_GAP = 2e-9  #: what rounding and slack may cost


class Search:
    """One run, over all trees of a question, which may have grown before.

    Args:
        question: what is bounded.
        roots: the trees.
        aim: when a bound is as good as needed.
        points: points that are known, |u| <= 1 in the box around the region.
    """

    def __init__(
        self,
        question: Question,
        roots: Sequence[Cell],
        aim: Aim,
        points: Float64[Tensor, "points inputs"] | None = None,
    ) -> None:
        self._question = question
        self._roots = roots
        self._aim = aim
        self.pool = Pool(question)
        if points is not None:
            self.pool.add(points)
        self.frontier = Frontier(self.pool.steepest.__getitem__)
        psis, columns = question.form.inflow.shape
        self._width = max(1, min(_WIDEST, _ENTRIES // (1 + psis * columns)))
        leaves = [leaf for root in roots for leaf in root.leaves()]
        self.leaves = len(leaves)
        for leaf in leaves:
            self._wait(leaf)

    @property
    def waiting(self) -> int:
        """How many cells may still be divided."""
        return len(self.frontier)

    @property
    def excess(self) -> float | None:
        """The share by which the first cell's bound exceeds the steepest slope of its item."""
        return self.frontier.excess

    def advance(self) -> bool:
        """One batch; whether there was any."""
        cells = [cell for cell in self.frontier.popped(self._width) if not self._is_done(cell)]
        if cells:
            self._treat(cells)
        self.frontier.drop(self._is_done)
        return 0 < len(self.frontier)

    def growth(self) -> Growth:
        """The trees as they are, to go on from."""
        return growth_of(self._question, self._roots, self.pool.best)

    def candidate(self) -> Candidate:
        """The trees as they are."""
        bounds = [0.0] * len(self._question.items)
        for root in self._roots:
            bounds[root.task.item] = max(bounds[root.task.item], root.greatest())
        return Candidate(
            method="branch",
            estimates=tuple(bound * (1 + SLACK) for bound in bounds),
            proof=proof_of(self._question, self._roots),
            points=tuple(tuple(x.tolist()) for x in self.pool.best),
        )

    def _is_done(self, cell: Cell) -> bool:
        """Whether a cell's bound is small enough."""
        item = cell.task.item
        enough = self.pool.steepest[item] * (1 + max(self._aim.gap / 2, _LEAST_GAP))
        if len(self._question.items) == 1:
            enough = max(enough, self._aim.enough)
        return cell.bound <= enough

    def _wait(self, cell: Cell) -> None:
        if not self._is_done(cell):
            self.frontier.push(cell)

    def _treat(self, cells: list[Cell]) -> None:
        """All that may happen to cells."""
        question = self._question
        cells = _chosen(cells, without_empty(question, self.pool, cells))
        cells = _chosen(cells, trimmed(question, self.pool, cells)) if cells else []
        if not cells:
            return
        known = settled(question, cells)
        self._continue(_chosen(cells, known))
        cells = _chosen(cells, [not each for each in known])
        if not cells:
            return
        results = bounded(question, cells)
        places = [place for place, cell in enumerate(cells) if not self._is_done(cell)]
        if places:
            self._divide([cells[place] for place in places], results.of(places))

    def _continue(self, cells: Sequence[Cell]) -> None:
        """Cells with one Jacobian of which no point is known are divided until that is decided."""
        for cell in cells:
            is_open = self._question.kinks.open(cell.sides[None])[0]
            if self._is_done(cell) or not bool(is_open.any()):
                continue
            kind = cell.kind
            self.leaves += 1
            for child in cell.divided(int(is_open.nonzero()[0])):
                child.kind = kind
                self._wait(child)

    def _divide(self, cells: list[Cell], results: Bounded) -> None:
        """Every cell in two."""
        sides = torch.stack([cell.sides for cell in cells])
        felt = (NO_SHARE < results.weight) & self._question.kinks.open(sides)
        gates = gates_to_divide(self._question, cells, results.shares, felt)
        divisible = felt.any(dim=1).tolist()
        for place, cell in enumerate(cells):
            if divisible[place]:
                self.leaves += 1
                self._halve(cell, gates[place], results, place)
            else:
                self._continue([cell])

    def _halve(self, cell: Cell, gate: int, results: Bounded, place: int) -> None:
        """Two cells, with what their parent's multipliers prove of them."""
        bound = float(results.bounds[place])
        shares = results.shares[:, place, gate].tolist()
        for child, share in zip(cell.divided(gate), shares, strict=True):
            # Of several outputs jointly the share is what one direction saves, not the worst.
            saved = share if len(child.task.rows) == 1 else 0.0
            inherited = bound * math.sqrt(max(1 - saved, 0.0))
            if inherited <= child.bound:
                child.bound, child.multipliers = inherited, results.multipliers[place]
            self._wait(child)


def _chosen(cells: Sequence[Cell], flags: Iterable[bool]) -> list[Cell]:
    """Those whose flags are true."""
    return [cell for cell, flag in zip(cells, flags, strict=True) if flag]
