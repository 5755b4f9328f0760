"""Trims: cells' intervals of what enters gates, narrowed; a gate whose kink is left out is known.

Node by node, from the first on: the planes of a node's gates, with what the intervals before it
are, reach so far in the polytope of the cell's walls and no farther (`extremes`). What is beyond
has no point of the cell. Gates that enter no others are asked about their kinks alone, and only
where no known point shows that both sides have points; so are all gates where inputs are many, a
few half-spaces of which hardly narrow anything, and where a gate has several kinks.

Walls are the planes of the cuts that made the cell, of this node and earlier ones. Sides that trims
found follow from those.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from verifier.methods.branch.extremes import Polytopes, Reached, reached
from verifier.methods.branch.planes import Planes, planes
from verifier.methods.branch.points import Pool
from verifier.methods.branch.question import Question
from verifier.methods.branch.tree import Cell, Trims

_LEAST = 0.1  #: share of an interval whose loss is worth a trim
_INWARDS = 0.02  #: from the farthest points of a cell to their mean
_MOST_INPUTS = 128  #: with which intervals are narrowed short of their kinks
_OUTSIDE = 1e-9  #: by how much more planes are taken to reach, against the size of their terms


def narrows(question: Question) -> bool:
    """Whether intervals are narrowed short of their kinks."""
    return question.kinks.single and question.network.input_size <= _MOST_INPUTS


def trimmed(question: Question, pool: Pool, cells: Sequence[Cell]) -> list[bool]:
    """Narrow the cells, and tell which of them may have points; the others are closed.

    The points that functions reach are tried for the slopes there.
    """
    state = _State.of(cells, pool)
    enters = (question.values.spread != 0).any(dim=0)[question.kinks.psi]
    leads = question.kinks.known & enters & narrows(question)
    for block in question.form.blocks:
        asked = _asked(question, state, block, leads)
        if bool(asked.any()):
            answer, where = _narrow(question, cells, state, asked, leads, block)
            pool.tried(_inner(answer, where, len(cells)), [cells[k].task for k in where.tolist()])
    for cell, sides, ends in zip(cells, state.sides, state.ends, strict=True):
        cell.sides, cell.ends = sides, ends
    return (~state.is_empty).tolist()


@dataclass(slots=True, eq=False, kw_only=True)
class _State:
    """What is known of the cells so far."""

    sides: Float64[Tensor, "cells columns"]
    ends: Float64[Tensor, "cells 2 columns"]
    walls: Bool[Tensor, "cells columns"]
    shown: Bool[Tensor, "2 cells columns"]  #: of which sides points are known: below, above
    is_empty: Bool[Tensor, " cells"]

    @staticmethod
    def of(cells: Sequence[Cell], pool: Pool) -> _State:
        """Before any trim."""
        sides = torch.stack([cell.sides for cell in cells])
        return _State(
            sides=sides,
            ends=torch.stack([cell.ends for cell in cells]),
            walls=torch.stack([cell.walls for cell in cells]),
            shown=torch.stack(pool.shown(pool.within(sides))),
            is_empty=torch.zeros(len(cells), dtype=torch.bool),
        )


def _asked(
    question: Question, state: _State, block: slice, leads: Bool[Tensor, " columns"]
) -> Bool[Tensor, "2 cells columns"]:
    """Of which open kinks of a node the ends below and above are sought."""
    here = torch.zeros_like(leads)
    here[question.kinks.columns(block)] = True
    return here & question.kinks.open(state.sides) & (leads | ~state.shown)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Places:
    """Problems: whether the end sought is above, in which cell, of which kink."""

    above: Int64[Tensor, " problems"]
    cell: Int64[Tensor, " problems"]
    column: Int64[Tensor, " problems"]

    def of(self, chosen: Bool[Tensor, " problems"]) -> _Places:
        """Some of them."""
        return _Places(above=self.above[chosen], cell=self.cell[chosen], column=self.column[chosen])


def _narrow(
    question: Question,
    cells: Sequence[Cell],
    state: _State,
    asked: Bool[Tensor, "2 cells columns"],
    leads: Bool[Tensor, " columns"],
    block: slice,
) -> tuple[Reached, Int64[Tensor, " problems"]]:
    """The trims of one node's gates, and what they leave; the problems, and their cells."""
    found = planes(question, state.sides, state.ends, block.stop)
    stop = question.kinks.columns(block).stop
    asked = asked[:, :, :stop] & found.usable
    cell, column, above = asked.permute(1, 2, 0).nonzero().unbind(dim=1)
    places = _Places(above=above, cell=cell, column=column)
    functions, offset = found.normal[above, cell, column], found.offset[above, cell, column]
    enough = torch.where(leads[column], -torch.inf, -offset - 2 * _OUTSIDE * offset.abs())
    polytopes, index = _walls(found, state, stop)
    answer = reached(polytopes, cell, functions, enough)
    _close(cells, state, places, answer, index)
    # From here on numbers are of t and of -t: how far they reach.
    most = offset + answer.most
    most = most + _OUTSIDE * (offset.abs() + functions.abs().sum(dim=1))
    ends = state.ends[cell, above, column] * (2 * above - 1)
    width = state.ends[cell, 1, column] - state.ends[cell, 0, column]
    worth = (most < 0) | (leads[column] & (most < ends - _LEAST * width))
    # Where both sides of a kink are beyond, one is left: the cell is empty, as others will show.
    twice = (above == 1) & _repeats(cell, column) & (most < 0) & (most.roll(1) < 0)
    chosen = worth & ~twice & ~state.is_empty[cell]
    _trim(
        cells, state, places.of(chosen), most[chosen].clamp(min=0.0), answer.weights[chosen], index
    )
    return answer, cell


def _inner(
    answer: Reached, cell: Int64[Tensor, " problems"], cells: int
) -> Float64[Tensor, "problems inputs"]:
    """The farthest points, moved towards the mean of those of their cells."""
    count = torch.bincount(cell, minlength=cells).clamp(min=1)
    total = answer.point.new_zeros(cells, answer.point.shape[1]).index_add(0, cell, answer.point)
    return answer.point + _INWARDS * ((total / count[:, None])[cell] - answer.point)


def _repeats(
    cell: Int64[Tensor, " problems"], column: Int64[Tensor, " problems"]
) -> Bool[Tensor, " problems"]:
    """Whether the problem before was of the same gate."""
    return (cell == cell.roll(1)) & (column == column.roll(1))


def _walls(found: Planes, state: _State, stop: int) -> tuple[Polytopes, Int64[Tensor, "cells m"]]:
    """The planes that hold the cells on the sides of their cuts, and the column of each."""
    choice, cell = (0 < state.sides[:, :stop]).long(), torch.arange(len(state.sides))[:, None]
    used = state.walls[:, :stop] & found.usable[choice, cell, torch.arange(stop)]
    most = max(1, int(used.sum(dim=1).max()))
    index = torch.argsort((~used).byte(), dim=1, stable=True)[:, :most]
    used, choice = used.gather(1, index), choice.gather(1, index)
    polytopes = Polytopes(
        gradient=torch.where(used[:, :, None], found.normal[choice, cell, index], 0.0),
        offset=torch.where(used, found.offset[choice, cell, index], 1.0),
    )
    return polytopes, index


def _close(
    cells: Sequence[Cell],
    state: _State,
    places: _Places,
    answer: Reached,
    index: Int64[Tensor, "cells m"],
) -> None:
    """Cells whose walls are shown to contradict each other."""
    for problem in answer.is_empty.nonzero().flatten().tolist():
        cell = int(places.cell[problem])
        if not state.is_empty[cell]:
            state.is_empty[cell] = True
            none = torch.zeros_like(state.sides[cell])
            cells[cell].close(none.scatter(0, index[cell], answer.weights[problem]))


def _trim(
    cells: Sequence[Cell],
    state: _State,
    places: _Places,
    most: Float64[Tensor, " trims"],
    weights: Float64[Tensor, "trims m"],
    index: Int64[Tensor, "cells m"],
) -> None:
    """Note the trims at the numbers that t, or -t, do not exceed."""
    cell, above, column = places.cell, places.above, places.column
    at = most * (2 * above - 1)
    state.ends[cell, above, column] = at
    known = at == 0
    state.sides[cell[known], column[known]] = (1 - 2 * above[known]).double()
    full = torch.zeros(len(cell), state.sides.shape[1], dtype=torch.float32)
    full.scatter_(1, index[cell], weights.float())
    counts = torch.bincount(cell, minlength=len(cells)).tolist()
    parts = zip(
        column.split(counts),
        (above == 1).split(counts),
        at.split(counts),
        full.split(counts),
        strict=True,
    )
    for one, part in zip(cells, parts, strict=True):
        if len(part[0]):
            one.trims.append(Trims(*part))
