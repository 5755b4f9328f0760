"""The cells that wait: those of the greatest bounds first, and every so often the deepest.

Depth leads to cells with one Jacobian, whose points raise the steepest slope.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

from verifier.methods.branch.tree import Cell

_DEEPEST_FIRST = 4  #: every so many batches


class Frontier:
    """Cells of all trees, by how far their bounds exceed the steepest slopes met."""

    def __init__(self, steepest: Callable[[int], float]) -> None:
        self._steepest = steepest
        self._cells: list[tuple[float, int, Cell]] = []
        self._order = count()
        self._batches = 0

    def __len__(self) -> int:
        return len(self._cells)

    def push(self, cell: Cell) -> None:
        """One more."""
        reached = max(self._steepest(cell.task.item), 1e-300)
        heapq.heappush(self._cells, (-cell.bound / reached, next(self._order), cell))

    @property
    def excess(self) -> float | None:
        """The share by which the first one's bound exceeds the steepest slope of its item."""
        if not self._cells:
            return None
        first = self._cells[0][2]
        return max(first.bound / max(self._steepest(first.task.item), 1e-300) - 1, 0.0)

    def drop(self, is_done: Callable[[Cell], bool]) -> None:
        """Leave out the first ones for as long as they are done."""
        while self._cells and is_done(self._cells[0][2]):
            heapq.heappop(self._cells)

    def popped(self, most: int) -> list[Cell]:
        """The next batch."""
        self._batches += 1
        if self._batches % _DEEPEST_FIRST:
            most = min(most, len(self._cells))
            return [heapq.heappop(self._cells)[2] for _ in range(most)]
        deepest = heapq.nlargest(most, self._cells, key=lambda one: one[2].depth)
        chosen = {order for _, order, _ in deepest}
        self._cells = [one for one in self._cells if one[1] not in chosen]
        heapq.heapify(self._cells)
        return [cell for _, _, cell in deepest]
