"""Which cells are empty, and which gates of a cell are on one side: points, planes, programs.

A point in a cell shows that it is not empty. Where none is known, a linear program over the cell's
planes finds a point, or weights with which its cuts contradict each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from verifier.methods.branch.feasible import Answers, decide
from verifier.methods.branch.planes import Planes
from verifier.methods.branch.points import Pool
from verifier.methods.branch.tree import Cell

_ENTRIES = 2**20  #: of the planes of a batch of linear programs
_PROGRAMS = 2048  #: of a batch, at most
_FOREMOST = 4  #: gates of a cell whose sides are looked for although their planes are not exact
_SHORT = 1 - 1e-6  #: of a ray's length, what is taken for inside
_OUTSIDE = 1e-9  #: what a plane's greatest value must fall below, against its offset


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Fixed:
    """A gate of a cell one side of which is empty."""

    psi: int
    side: float  #: the empty one
    weights: Float64[Tensor, " psis"]


def without_empty(pool: Pool, cells: Sequence[Cell], found: Planes) -> list[bool]:
    """Which cells may have points; the others are closed."""
    sides = torch.stack([cell.sides for cell in cells])
    unknown = (~pool.within(sides).any(dim=1)).nonzero().flatten()
    kept = [True] * len(cells)
    for part in _batches(unknown, found):
        answers, index = _asked(found, part, sides[part])
        pool.add(answers.point[answers.has_point])
        for place in answers.is_empty.nonzero().flatten().tolist():
            cell = int(part[place])
            cells[cell].close(_weights(answers, index, place, sides.shape[1]))
            kept[cell] = False
    return kept


def tightened(
    pool: Pool,
    found: Planes,
    sides: Float64[Tensor, "cells psis"],
    felt: Bool[Tensor, "cells psis"],
    weight: Float64[Tensor, "cells psis"],
) -> list[list[Fixed]]:
    """For every cell its gates of which one side is empty.

    Args:
        pool: points.
        found: the cells' planes.
        sides: their sides.
        felt: open gates that matter.
        weight: how much they do.
    """
    fixed: list[list[Fixed]] = [[] for _ in sides]
    shown = torch.stack(pool.shown(pool.within(sides)))
    alone = felt & ~shown & found.usable & (found.highest < -_OUTSIDE * found.offset.abs())
    # Where both sides are beyond, the cell is empty: its other program says so.
    alone[1] &= ~alone[0]
    for side, cell, psi in alone.nonzero().tolist():
        weights = torch.zeros_like(sides[0])
        weights[psi] = 1.0
        fixed[cell].append(Fixed(psi=psi, side=2.0 * side - 1, weights=weights))
    tried = felt & (shown[0] != shown[1]) & ~alone.any(dim=0)
    tried = tried & (found.exact | _foremost(torch.where(tried, weight, 0.0)))
    places = tried.nonzero()
    for part in _batches(places, found):
        cell, psi = part[:, 0], part[:, 1]
        side = torch.where(shown[0][cell, psi], 1.0, -1.0).double()
        wanted = sides[cell].scatter(1, psi[:, None], side[:, None])
        hit, start = _shot(pool, found, sides, (cell, psi, side))
        cell, psi, side, wanted = cell[~hit], psi[~hit], side[~hit], wanted[~hit]
        if not len(cell):
            continue
        answers, index = _asked(found, cell, wanted, start[~hit])
        pool.add(answers.point[answers.has_point])
        for place in answers.is_empty.nonzero().flatten().tolist():
            weights = _weights(answers, index, place, sides.shape[1])
            one = Fixed(psi=int(psi[place]), side=float(side[place]), weights=weights)
            fixed[int(cell[place])].append(one)
    return fixed


def _batches(
    problems: Int64[Tensor, "problems ..."], found: Planes
) -> tuple[Int64[Tensor, "_ ..."], ...]:
    """As many problems at a time as memory is good for."""
    each = found.normal.shape[2] * found.normal.shape[3]
    size = max(1, min(_PROGRAMS, _ENTRIES // max(1, each)))
    return problems.split(size) if len(problems) else ()


def cut_away(cell: Cell, fixed: Sequence[Fixed]) -> Cell:
    """What is left of a cell without its empty parts.

    Late gates come first: their planes were found with the early ones open. A plane through a known
    side is no tighter by itself than one through lines, only together with that side's own.
    """
    for one in sorted(fixed, key=lambda each: -each.psi):
        children = cell.divided(one.psi)
        empty, cell = children if one.side < 0 else children[::-1]
        empty.close(one.weights)
    return cell


def _foremost(weight: Float64[Tensor, "cells psis"]) -> Bool[Tensor, "cells psis"]:
    """The gates of every cell that matter most."""
    count = min(_FOREMOST, weight.shape[1])
    return (0 < weight) & (weight.topk(count, dim=1).values[:, -1:] <= weight)


def _shot(
    pool: Pool,
    found: Planes,
    sides: Float64[Tensor, "cells psis"],
    places: tuple[Tensor, Tensor, Tensor],
) -> tuple[Bool[Tensor, " problems"], Float64[Tensor, "problems inputs"]]:
    """Which sides of gates rays reach within their cells, and from where; what is reached joins.

    Rays go from the known point of the cell that is nearest to the plane, along the plane's normal,
    and to the corner of the box that is farthest beyond it.

    Args:
        pool: points.
        found: the cells' planes.
        sides: their sides.
        places: of every problem the cell, the psi and the side.
    """
    cell, psi, side = places
    known = sides[cell]
    above = (0 < side).long()
    normal, offset = found.normal[above, cell, psi], found.offset[above, cell, psi]
    start = pool.nearest(pool.within(known), normal)
    index = torch.arange(known.shape[1])
    walls = (0 < known).long(), cell[:, None], index
    wall, is_wall = found.normal[walls], known != 0
    room = torch.where(is_wall, found.offset[walls] + _products(wall, start), 1.0)
    # A plane through lines may have room for a point that is on the other side: no program either.
    ahead = offset + (normal * start).sum(dim=1)
    hit = 0 <= ahead
    for ray in (normal, normal.sign() - start):
        needed = -ahead / (normal * ray).sum(dim=1)
        falls = torch.where(is_wall, -_products(wall, ray), 0.0)
        free = torch.minimum(_until(room, falls), _until(1 - start * ray.sign(), ray.abs()))
        reached = (0 < needed) & (needed < free * _SHORT) & ~hit
        length = (needed + torch.minimum(free, 3 * needed)) / 2
        pool.add((start + length[:, None] * ray)[reached])
        hit |= reached
    return hit, start


def _products(
    rows: Float64[Tensor, "problems m n"], vectors: Float64[Tensor, "problems n"]
) -> Float64[Tensor, "problems m"]:
    return (rows @ vectors[:, :, None])[:, :, 0]


def _until(
    room: Float64[Tensor, "problems m"], rate: Float64[Tensor, "problems m"]
) -> Float64[Tensor, " problems"]:
    """How far one may go until some room is used up at its rate."""
    return torch.where(0 < rate, room / rate, torch.inf).amin(dim=1)


def _asked(
    found: Planes,
    cell: Int64[Tensor, " problems"],
    wanted: Float64[Tensor, "problems psis"],
    start: Float64[Tensor, "problems inputs"] | None = None,
) -> tuple[Answers, Int64[Tensor, "problems m"]]:
    """Whether the cells' planes leave points on these sides, and which psi each weight is of."""
    choice = (0 < wanted).long()
    usable = found.usable[choice, cell[:, None], torch.arange(wanted.shape[1])]
    used = (wanted != 0) & usable
    most = max(1, int(used.sum(dim=1).max()))
    index = torch.argsort((~used).byte(), dim=1, stable=True)[:, :most]
    used, choice = used.gather(1, index), choice.gather(1, index)
    normal = found.normal[choice, cell[:, None], index]
    offset = found.offset[choice, cell[:, None], index]
    answers = decide(
        torch.where(used[:, :, None], -normal, 0.0), torch.where(used, offset, 1.0), start
    )
    return replace(answers, weights=torch.where(used, answers.weights, 0.0)), index


def _weights(
    answers: Answers, index: Int64[Tensor, "problems m"], place: int, psis: int
) -> Float64[Tensor, " psis"]:
    """By psi."""
    none = torch.zeros(psis, dtype=torch.float64)
    return none.scatter(0, index[place], answers.weights[place])
