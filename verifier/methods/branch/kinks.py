"""Where gates may be cut, and what is left of them: pieces of functions between known kinks.

A piecewise linear gate phi has slopes s_0, s_1, ... between its kinks k_1 < k_2 < ... With m and r
the middle and half the range of those that the region leaves, psi = sigma v on a piece,

    sigma = (s - m)/r,    |sigma| <= 1.

Cuts are at kinks; one column for each kink that lies within the region's interval of its gate, and
one for each gate that has none. Of a gate with cuts the pieces between them are left.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

_MIDDLE = 1e-300  #: in the place of a sigma of 0, which stands for an open gate


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Kinks:
    """The columns, psi by psi, and the pieces of every psi's gate."""

    gates: tuple[str, ...]  #: names, "" (the input) first
    gate: Int64[Tensor, " columns"]  #: which of `gates`
    entry: Int64[Tensor, " columns"]
    place: Float64[Tensor, " columns"]  #: the kink; nan where there is none
    psi: Int64[Tensor, " columns"]
    piece: Int64[Tensor, " columns"]  #: the one on the left of the kink
    first: Int64[Tensor, " psis"]  #: the pieces that the region leaves
    last: Int64[Tensor, " psis"]
    sigmas: Float64[Tensor, "psis pieces"]  #: nan of gates that are not piecewise linear

    @property
    def known(self) -> Bool[Tensor, " columns"]:
        """Which columns are kinks."""
        return ~self.place.isnan()

    @property
    def single(self) -> bool:
        """Whether no gate has more than one: columns are psis, and psi = |t| or -|t|."""
        return self.sigmas.shape[1] <= 2

    def columns(self, psis: slice) -> slice:
        """Those of psis in a row."""
        ends = torch.tensor([psis.start, psis.stop])
        start, stop = torch.searchsorted(self.psi, ends).tolist()
        return slice(start, stop)

    def open(self, sides: Float64[Tensor, "cells columns"]) -> Bool[Tensor, "cells columns"]:
        """Which kinks lie between pieces that are left."""
        first, last = (ends[:, self.psi] for ends in self.left(sides))
        return (first <= self.piece) & (self.piece < last) & self.known

    def left(
        self, sides: Float64[Tensor, "cells columns"]
    ) -> tuple[Int64[Tensor, "cells psis"], Int64[Tensor, "cells psis"]]:
        """The first and the last piece of every gate on these sides: -1 below, 1 above, 0 open."""
        psi = self.psi.expand(sides.shape)
        after = torch.where(0 < sides, self.piece + 1, 0)
        before = torch.where(sides < 0, self.piece, self.sigmas.shape[1])
        first = self.first.repeat(len(sides), 1).scatter_reduce(1, psi, after, "amax")
        last = self.last.repeat(len(sides), 1).scatter_reduce(1, psi, before, "amin")
        return first, torch.maximum(first, last)

    def sigma(self, sides: Float64[Tensor, "cells columns"]) -> Float64[Tensor, "cells psis"]:
        """What every psi is of its v, and 0 where that is not known."""
        return self._of_pieces(*self.left(sides))

    def parts(
        self, sides: Float64[Tensor, "cells columns"]
    ) -> tuple[Float64[Tensor, "cells columns"], Float64[Tensor, "cells columns"]]:
        """The same of every column's psi, below the column's kink and above it."""
        first, last = (ends[:, self.psi] for ends in self.left(sides))
        piece = self.piece.expand(first.shape)
        below = torch.maximum(torch.minimum(last, piece), first)
        above = torch.minimum(torch.maximum(first, piece + 1), last)
        return self._of_columns(first, below), self._of_columns(above, last)

    def _of_pieces(
        self, first: Int64[Tensor, "cells psis"], last: Int64[Tensor, "cells psis"]
    ) -> Float64[Tensor, "cells psis"]:
        psi = torch.arange(len(self.sigmas))
        return _one(self.sigmas[psi, first], self.sigmas[psi, last], first, last)

    def _of_columns(
        self, first: Int64[Tensor, "cells columns"], last: Int64[Tensor, "cells columns"]
    ) -> Float64[Tensor, "cells columns"]:
        return _one(self.sigmas[self.psi, first], self.sigmas[self.psi, last], first, last)


def _one(
    low: Float64[Tensor, "cells n"],
    high: Float64[Tensor, "cells n"],
    first: Int64[Tensor, "cells n"],
    last: Int64[Tensor, "cells n"],
) -> Float64[Tensor, "cells n"]:
    """The sigma of gates with one piece left."""
    sigma = torch.where(low == 0, _MIDDLE, low)
    return torch.where((first == last) & ~high.isnan(), sigma, 0.0)
