"""How far linear functions reach in polytopes within a box: upper ends, and weights that show them.

    maximise a'u   subject to   0 <= s = h + G u,   |u| <= 1                               (1)

by the dual simplex method, many problems at once. A dictionary writes the basic ones among (s, u),
and the objective, by n others, which are at 0 (s) or at -1 or 1 (u):

    basic = T other + b,     objective = d other + z.                                      (2)

The first has the others u = sign(a), and from then on d <= 0 for every other s, and u = sign(d).
The basic variable that is farthest beyond its bounds leaves; what enters in its place is found
among the breaks of the objective, as the dual variable of the one that leaves grows: those u whose
d changes its sign before that go over to their other bounds.

Whatever the dictionary, every y >= 0 has, for all u of the polytope,

    a'u  <=  a'u + y'(h + G u)  <=  h'y + |a + G'y|_1,                                     (3)

and y = -d of those s that are others is taken: nothing need be exact, nor come to its end.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

_ENTRIES = 2**19  #: of the dictionaries that are held at a time
_ROUNDS = 60
_WORTH = 0.75  #: the share of problems that are not at their ends, below which others are left out
_INSIDE = 1e-7  #: how far a basic variable may be beyond its bounds
_NOTHING = 1e-9  #: entries of dictionaries that are taken for 0
_EMPTY = 1e-9  #: what (3) of a = 0 must fall below, against the size of its terms


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Reached:
    """(3) of every problem; where a polytope is shown empty, the weights of that."""

    most: Float64[Tensor, " problems"]
    weights: Float64[Tensor, "problems m"]  #: y, numbers of float32
    is_empty: Bool[Tensor, " problems"]
    point: Float64[Tensor, "problems n"]  #: the last u: the farthest, where the method came to it


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Polytopes:
    """(1): rows of zeros with h = 1 ask nothing."""

    gradient: Float64[Tensor, "cells m n"]
    offset: Float64[Tensor, "cells m"]


def reached(
    polytopes: Polytopes,
    cell: Int64[Tensor, " problems"],
    functions: Float64[Tensor, "problems n"],
    enough: Float64[Tensor, " problems"],
) -> Reached:
    """Upper ends.

    Args:
        polytopes: of all cells.
        cell: in which of them every problem is.
        functions: a.
        enough: an upper end that need not be lowered further.
    """
    m, n = polytopes.gradient.shape[1:]
    size = max(1, _ENTRIES // ((m + 1) * (n + 1)))
    parts = [
        _reached(polytopes, *some)
        for some in zip(cell.split(size), functions.split(size), enough.split(size), strict=True)
    ]
    return Reached(
        most=torch.cat([part.most for part in parts]),
        weights=torch.cat([part.weights for part in parts]),
        is_empty=torch.cat([part.is_empty for part in parts]),
        point=torch.cat([part.point for part in parts]),
    )


def _reached(
    polytopes: Polytopes,
    cell: Int64[Tensor, " problems"],
    functions: Float64[Tensor, "problems n"],
    enough: Float64[Tensor, " problems"],
) -> Reached:
    length = polytopes.gradient.norm(dim=2).clamp(min=1e-300)
    rows = polytopes.gradient / length[:, :, None]
    shift = polytopes.offset / length
    dual = _solved(_first(rows, shift, cell, functions), enough)
    weights = (dual.weights.clamp(min=0) / length[cell]).float().double()
    wanted = torch.where(dual.is_empty[:, None], 0.0, functions)
    pulled = wanted + (weights[:, None, :] @ polytopes.gradient[cell])[:, 0]
    least, size = (weights * polytopes.offset[cell]).sum(dim=1), pulled.abs().sum(dim=1)
    most = least + size
    return Reached(
        most=torch.where(dual.is_empty, torch.inf, most),
        weights=weights,
        is_empty=dual.is_empty & (most < -_EMPTY * (least.abs() + size)),
        point=dual.point.clamp(-1.0, 1.0),
    )


def _first(
    rows: Float64[Tensor, "cells m n"],
    shift: Float64[Tensor, "cells m"],
    cell: Int64[Tensor, " problems"],
    functions: Float64[Tensor, "problems n"],
) -> _Dictionaries:
    """(2) of u."""
    count, m, n = len(cell), rows.shape[1], rows.shape[2]
    table = functions.new_zeros(count, m + 1, n + 1)
    table[:, :m, :n], table[:, :m, n], table[:, m, :n] = rows[cell], shift[cell], functions
    return _Dictionaries(
        table=table,
        basic=torch.arange(m).repeat(count, 1),
        other=torch.arange(m, m + n).repeat(count, 1),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Dual:
    """Unscaled weights, or with `is_empty` the direction in which they may grow for ever."""

    weights: Float64[Tensor, "problems m"]
    is_empty: Bool[Tensor, " problems"]
    point: Float64[Tensor, "problems n"]


def _solved(state: _Dictionaries, enough: Float64[Tensor, " problems"]) -> _Dual:
    """Dictionary after dictionary, of the problems that are not at their ends."""
    count, m = state.basic.shape
    weights, is_empty = state.table.new_zeros(count, m), torch.zeros(count, dtype=torch.bool)
    point = state.table.new_zeros(count, state.other.shape[1])
    left, pending = torch.arange(count), torch.ones(count, dtype=torch.bool)
    for _ in range(_ROUNDS):
        move = state.move()
        ends = (move.beyond <= _INSIDE) | (state.value() < enough[left]) | move.is_ray
        fresh = ends & pending
        if bool(fresh.any()):
            ended = left[fresh]
            weights[ended] = torch.where(move.is_ray[:, None], move.ray, state.weights())[fresh]
            is_empty[ended] = move.is_ray[fresh] & (_INSIDE < move.beyond[fresh])
            point[ended] = state.point()[fresh]
            pending = pending & ~ends
            # What has ended goes along, to no purpose, until it is worth a copy of the others.
            if int(pending.sum()) < _WORTH * len(left):
                state, move, left = state.only(pending), move.only(pending), left[pending]
                pending = torch.ones_like(left, dtype=torch.bool)
        if not len(left):
            break
        state.advance(move)
    weights[left[pending]], point[left[pending]] = state.weights()[pending], state.point()[pending]
    return _Dual(weights, is_empty, point)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Move:
    """What leaves, what enters, and the weights' direction where nothing can."""

    leaves: Int64[Tensor, " problems"]
    enters: Int64[Tensor, " problems"]
    beyond: Float64[Tensor, " problems"]
    is_ray: Bool[Tensor, " problems"]
    ray: Float64[Tensor, "problems m"]

    def only(self, chosen: Bool[Tensor, " problems"]) -> _Move:
        """Of some of the problems."""
        return _Move(
            leaves=self.leaves[chosen],
            enters=self.enters[chosen],
            beyond=self.beyond[chosen],
            is_ray=self.is_ray[chosen],
            ray=self.ray[chosen],
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Dictionaries:
    """(2): T and b, and d and z as the last row; s are numbered 0 .. m-1, u from m on."""

    table: Float64[Tensor, "problems rows columns"]
    basic: Int64[Tensor, "problems m"]
    other: Int64[Tensor, "problems n"]

    def only(self, chosen: Bool[Tensor, " problems"]) -> _Dictionaries:
        """Of some of the problems."""
        return _Dictionaries(self.table[chosen], self.basic[chosen], self.other[chosen])

    @property
    def _rises(self) -> Float64[Tensor, "problems n"]:
        return self.table[:, -1, :-1]

    @property
    def _is_boxed(self) -> Bool[Tensor, "problems n"]:
        return self.basic.shape[1] <= self.other

    def _at(self) -> Float64[Tensor, "problems n"]:
        """Where the others are."""
        end = torch.where(0 < self._rises, 1.0, -1.0).double()
        return torch.where(self._is_boxed, end, 0.0)

    def value(self) -> Float64[Tensor, " problems"]:
        """The objective."""
        boxed = torch.where(self._is_boxed, self._rises.abs(), 0.0)
        return self.table[:, -1, -1] + boxed.sum(dim=1)

    def weights(self) -> Float64[Tensor, "problems m"]:
        """Y of (3)."""
        return self._of_slacks(-self._rises)

    def point(self) -> Float64[Tensor, "problems n"]:
        """U of (1)."""
        m, at = self.basic.shape[1], self._at()
        found = at.new_zeros(len(at), m + at.shape[1]).scatter(1, self.other, at)
        return found.scatter(1, self.basic, self._basic_at(at))[:, m:]

    def _basic_at(self, at: Float64[Tensor, "problems n"]) -> Float64[Tensor, "problems m"]:
        """The basic variables, by the others."""
        bodies, shift = self.table[:, :-1, :-1], self.table[:, :-1, -1:]
        return torch.baddbmm(shift, bodies, at[:, :, None])[:, :, 0]

    def _of_slacks(self, others: Float64[Tensor, "problems n"]) -> Float64[Tensor, "problems m"]:
        """Numbers of others, by s."""
        m, n = self.basic.shape[1], self.other.shape[1]
        found = others.new_zeros(len(others), m + n).scatter(1, self.other, others)
        return found[:, :m]

    def move(self) -> _Move:
        """The next step."""
        m = self.basic.shape[1]
        place = torch.arange(len(self.basic))
        x = self._basic_at(self._at())
        is_boxed = m <= self.basic
        low = torch.where(is_boxed, -1.0 - x, -x)
        high = torch.where(is_boxed, x - 1.0, -torch.inf)
        beyond, leaves = torch.maximum(low, high).max(dim=1)
        turn = torch.where(high[place, leaves] <= low[place, leaves], 1.0, -1.0).double()
        row = self.table[place, leaves, :-1] * turn[:, None]
        enters, is_ray = self._break(row, beyond)
        ray = self._of_slacks(-row)
        own = self.basic[place, leaves]
        is_slack = own < m
        ray[place[is_slack], own[is_slack]] = 1.0
        return _Move(leaves=leaves, enters=enters, beyond=beyond, is_ray=is_ray, ray=ray)

    def _break(
        self, row: Float64[Tensor, "problems n"], beyond: Float64[Tensor, " problems"]
    ) -> tuple[Int64[Tensor, " problems"], Bool[Tensor, " problems"]]:
        """The break where the objective falls no longer, and whether there is none.

        As the dual variable y of x grows, d + y row changes its signs; past a u that does, x is
        nearer to its bounds by 2 |row|; past an s one cannot go.
        """
        rises, size = self._rises, row.abs()
        is_boxed = self._is_boxed
        turns = torch.where(is_boxed, row * rises < 0, 0 < row) & (_NOTHING < size)
        length = torch.where(turns, -rises / row, torch.inf)
        gain = torch.where(is_boxed, 2 * size, torch.inf)
        order = length.argsort(dim=1)
        gained = torch.where(turns, gain, 0.0).gather(1, order).cumsum(dim=1)
        is_far = beyond[:, None] <= gained
        first = is_far.byte().argmax(dim=1, keepdim=True)
        return order.gather(1, first)[:, 0], ~is_far[:, -1]

    def advance(self, move: _Move) -> None:
        """The next dictionary, in the place of this one.

        With r the row and e the column, p = T_re: T - T_.e T_r./p elsewhere, -T_r./p in the row,
        T_.e/p in the column, and 1/p in both. One update of rank 1 is all of that.
        """
        place, leaves, enters = torch.arange(len(move.leaves)), move.leaves, move.enters
        whole = self.table[place, leaves]
        pivot = whole[place, enters]
        row = whole / pivot[:, None]
        row[place, enters] -= 1 / pivot
        column = self.table[place, :, enters]
        column[place, leaves] += 1
        self.table.baddbmm_(column[:, :, None], row[:, None, :], alpha=-1)
        gone, come = self.basic[place, leaves], self.other[place, enters]
        self.basic[place, leaves], self.other[place, enters] = come, gone
