"""Trees that grow: cells as their nodes, each with the best bound that is known of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from jaxtyping import Bool, Float32, Float64, Int64
from torch import Tensor

from verifier.certificate import CUT, EMPTY, INEQUALITY, JACOBIAN
from verifier.methods.branch.question import Task


@dataclass(slots=True, eq=False)
class Multipliers:
    """Of one inequality, shared by the cells that inherit it; 0 at gates that are not open."""

    gates: Float64[Tensor, " psis"]  #: lambda
    inputs: Float64[Tensor, " inputs"]  #: tau


@dataclass(frozen=True, slots=True, eq=False)
class Trims:
    """Some of a cell's: t of a gate is not above, or not below a number, in all of the cell."""

    column: Int64[Tensor, " trims"]
    is_below: Bool[Tensor, " trims"]  #: whether t <= at is left
    at: Float64[Tensor, " trims"]  #: 0 is the kink
    weights: Float32[Tensor, "trims columns"]  #: by column, how much each cut counts in that


@dataclass(slots=True, eq=False, kw_only=True)
class Cell:
    """A node of a tree. Open ones count as leaves with the bound that they inherit."""

    task: Task
    sides: Float64[Tensor, " columns"]
    ends: Float64[Tensor, "2 columns"]  #: of t, what enters a gate less its kink
    walls: Bool[Tensor, " columns"]  #: on whose sides the cell is by cuts, not by trims
    bound: float
    multipliers: Multipliers
    parent: Cell | None = None
    depth: int = 0
    kind: int = INEQUALITY
    cut: int = -1  #: the column whose kink the children divide
    children: tuple[Cell, Cell] | None = None  #: below, above
    #: of the empty: by column, how much each cut counts in the contradiction
    weights: Float64[Tensor, " columns"] | None = None
    trims: list[Trims] = field(default_factory=list[Trims])  #: after its parent's cut, in order

    def divided(self, column: int) -> tuple[Cell, Cell]:
        """The cells below and above a kink, which are this one's from now on."""
        children: list[Cell] = []
        for side in (-1.0, 1.0):
            sides, ends, walls = self.sides.clone(), self.ends.clone(), self.walls.clone()
            sides[column], ends[int(side < 0), column], walls[column] = side, 0.0, True
            children.append(
                Cell(
                    task=self.task,
                    sides=sides,
                    ends=ends,
                    walls=walls,
                    bound=self.bound,
                    multipliers=self.multipliers,
                    parent=self,
                    depth=self.depth + 1,
                )
            )
        self.kind, self.cut, self.children = CUT, column, (children[0], children[1])
        return self.children

    def path(self) -> list[int]:
        """The cuts above the cell, the root's first."""
        cuts: list[int] = []
        above = self.parent
        while above is not None:
            cuts.append(above.cut)
            above = above.parent
        return cuts[::-1]

    def preorder(self) -> Iterator[Cell]:
        """The cell and all below it: a cell, its lower part, its upper part."""
        pending: list[Cell] = [self]
        while pending:
            cell = pending.pop()
            yield cell
            if cell.children is not None:
                pending.extend(reversed(cell.children))

    def leaves(self) -> Iterator[Cell]:
        """Those below it that have a bound."""
        return (cell for cell in self.preorder() if cell.kind in (INEQUALITY, JACOBIAN))

    def greatest(self) -> float:
        """The greatest bound among the leaves."""
        return max((cell.bound for cell in self.leaves()), default=0.0)

    def close(self, weights: Float64[Tensor, " columns"]) -> None:
        """The cell is empty."""
        self.kind, self.weights, self.bound = EMPTY, weights, 0.0
