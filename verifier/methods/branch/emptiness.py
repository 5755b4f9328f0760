"""Which cells are empty: points of cells, or weights with which their cuts contradict each other.

A point in a cell shows that it is not empty. Where none is known, a linear program over the planes
of the cell's cuts finds a point, or weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from verifier.methods.branch.feasible import Answers, decide
from verifier.methods.branch.planes import planes
from verifier.methods.branch.points import Pool
from verifier.methods.branch.question import Question
from verifier.methods.branch.tree import Cell

_ENTRIES = 2**20  #: of the planes of a batch of linear programs
_PROGRAMS = 2048  #: of a batch, at most


def without_empty(question: Question, pool: Pool, cells: Sequence[Cell]) -> list[bool]:
    """Which cells may have points; the others are closed."""
    sides = torch.stack([cell.sides for cell in cells])
    unknown = (~pool.within(sides).any(dim=1)).nonzero().flatten()
    kept = [True] * len(cells)
    each = sides.shape[1] * question.network.input_size
    size = max(1, min(_PROGRAMS, _ENTRIES // max(1, each)))
    for part in unknown.split(size) if len(unknown) else ():
        some = [cells[place] for place in part.tolist()]
        answers, index = _asked(question, some)
        pool.add(answers.point[answers.has_point])
        for place in answers.is_empty.nonzero().flatten().tolist():
            some[place].close(_weights(answers, index, place, sides.shape[1]))
            kept[int(part[place])] = False
    return kept


def _asked(question: Question, cells: Sequence[Cell]) -> tuple[Answers, Int64[Tensor, "cells m"]]:
    """Whether the cells' planes leave points, and which column each weight is of."""
    sides = torch.stack([cell.sides for cell in cells])
    found = planes(question, sides, torch.stack([cell.ends for cell in cells]))
    choice, cell = (0 < sides).long(), torch.arange(len(cells))[:, None]
    walls = torch.stack([cell.walls for cell in cells])
    used = walls & found.usable[choice, cell, torch.arange(sides.shape[1])]
    most = max(1, int(used.sum(dim=1).max()))
    index = torch.argsort((~used).byte(), dim=1, stable=True)[:, :most]
    used, choice = used.gather(1, index), choice.gather(1, index)
    normal, offset = found.normal[choice, cell, index], found.offset[choice, cell, index]
    answers = decide(torch.where(used[:, :, None], -normal, 0.0), torch.where(used, offset, 1.0))
    return replace(answers, weights=torch.where(used, answers.weights, 0.0)), index


def _weights(
    answers: Answers, index: Int64[Tensor, "cells m"], place: int, columns: int
) -> Float64[Tensor, " columns"]:
    """By column."""
    none = torch.zeros(columns, dtype=torch.float64)
    return none.scatter(0, index[place], answers.weights[place])
