"""Bounds of the Jacobian on parts of a region, by the slopes that each part leaves.

Where no gate is left with two slopes, J is one matrix, known up to rounding; else its entries are
bounded as in `verifier.checker.propagation`, by intervals and by lines, which follow the slopes
where gates bend.

From l2 to l2 or linf J is also bounded in other coordinates, in which it is nearly diagonal: with
any float64 matrices U and V, |I - U'U|_2 <= d and |I - V'V|_2 <= e, d and e at most 1/2,

    |J|_2 <= |U' J V|_2 (1 + d)(1 + e),                                                        (1)

since the inverse of U is at most (1 - d)^(-1/2) <= 1 + d. U has no place where a row is by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.arithmetic import Magnitude, enlarged, gamma, greatest, norm_up, sum_up, up
from verifier.checker.carry import Carried
from verifier.checker.gate_facts import slopes_within
from verifier.checker.jacobian import Jacobian
from verifier.checker.network import Elementwise
from verifier.checker.operator_norms import matrix_norm
from verifier.norms import Norm, NormPair

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Bool, Float64, Int64

    from verifier.checker.intervals import Interval
    from verifier.checker.jacobian import BatchedSlopes
    from verifier.checker.network import Network
    from verifier.checker.part_along import PartsAlong
    from verifier.checker.parts_within import Chunk


HELD = 2**18  #: entries of one gradient, over all parts and rows, that are held at a time


def slopes_of(chunk: Chunk, network: Network) -> dict[str, BatchedSlopes]:
    """For every gate, by its node's name, slopes with a row for each part."""
    return {
        node.name: slopes_within(node.function, chunk.entering[node.source])
        for node in network.nodes
        if isinstance(node, Elementwise)
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """What is to be bounded: C J, of the coordinates that vary."""

    network: Network  #: lowered, in the coordinates in which the input is measured
    rows: Float64[np.ndarray, "rows outputs"]  #: C
    varying: Bool[np.ndarray, " inputs"]
    pair: NormPair  #: that of outputs is linf for a single row

    def bound(
        self, slopes: Mapping[str, BatchedSlopes], along: PartsAlong | None = None
    ) -> Magnitude:
        """A number that no part's |C J| exceeds.

        Args:
            slopes: of every gate, a row for each part.
            along: how slopes follow what enters their gates.

        Raises:
            NotProved: an entry is not finite.
        """
        is_cell = np.all(
            [np.all(lower == upper, axis=1) for lower, upper in slopes.values()], axis=0
        )
        # A network without gates is one cell.
        places = np.flatnonzero(is_cell), np.flatnonzero(~is_cell)
        return greatest(
            Magnitude.of(self._greatest(slopes, chosen, along if linear else None, linear=linear))
            for every, linear in zip(places, (False, True), strict=True)
            for chosen in self._in_turns(every)
        )

    def _in_turns(self, every: Int64[np.ndarray, " parts"]) -> list[Int64[np.ndarray, " some"]]:
        """As many parts at a time as fit."""
        widest = max(self.network.tensors.values())
        step = max(1, HELD // (len(self.rows) * widest))
        return [every[begin : begin + step] for begin in range(0, len(every), step)]

    def _greatest(
        self,
        slopes: Mapping[str, BatchedSlopes],
        chosen: Int64[np.ndarray, " some"],
        along: PartsAlong | None,
        *,
        linear: bool,
    ) -> float:
        parts = len(chosen)
        passes = _Passes(self.network, slopes, chosen, len(self.rows), along, linear)
        jacobian = passes.of(np.tile(self.rows, (parts, 1)))
        entries = jacobian.entries(self.varying)
        whole = entries.magnitude()[:, self.varying]
        if self.pair.input is Norm.LINF:
            sums = jacobian.row_sums(entries, self.varying)
            if self.pair.output is Norm.LINF:
                return float(sums.max())
            size = norm_up if self.pair.output is Norm.L2 else sum_up
            tops = [size(each) for each in np.split(sums, parts)]
        else:
            tops = [matrix_norm(Carried(each), self.pair) for each in np.split(whole, parts)]
        if linear and self.pair.input is Norm.L2 and self.pair.output is not Norm.L1:
            turned = self._turned(passes, entries, parts)
            tops = [min(each) for each in zip(tops, turned, strict=True)]
        if self.pair.output is Norm.LINF:
            return max(tops)
        centres, radii = (end[:, self.varying] for end in entries.centred())
        spectral = [
            matrix_norm(Carried(centre, radius), self.pair)
            for centre, radius in zip(np.split(centres, parts), np.split(radii, parts), strict=True)
        ]
        return max(min(pair) for pair in zip(tops, spectral, strict=True))

    def _turned(self, passes: _Passes, entries: Interval, parts: int) -> list[float]:
        """(1) for each part, with singular vectors of the middle; any would do."""
        middle = entries.centred()[0][:, self.varying]
        apart = self.pair.output is Norm.LINF or not self._are_units
        count = len(self.rows)
        left, _, right = np.linalg.svd(middle.reshape(-1, 1 if apart else count, middle.shape[1]))
        directions = np.zeros((len(right), right.shape[1], self.network.input_size))
        directions[:, :, self.varying] = right
        if self.pair.output is Norm.LINF:
            rows = np.tile(self.rows, (parts, 1))
        elif apart:
            return [np.inf] * parts
        else:
            directions = np.repeat(directions, count, axis=0)
            # Each column of C has one entry of size 1 at most: the product does not round.
            rows = (left.transpose(0, 2, 1) @ self.rows).reshape(parts * count, -1)
        bounds = passes.of(rows).turned(directions).magnitude()
        inner = [matrix_norm(Carried(each), self.pair) for each in np.split(bounds, parts)]
        stretch = np.max(_stretch(right).reshape(parts, -1), axis=1)
        if not apart:
            stretch = stretch * _stretch(left)
        return [up(up(one * by)) for one, by in zip(inner, stretch.tolist(), strict=True)]

    @property
    def _are_units(self) -> bool:
        is_unit = np.isin(self.rows, (-1.0, 0.0, 1.0)).all()
        return bool(is_unit and (np.count_nonzero(self.rows, axis=0) <= 1).all())


@dataclass(frozen=True, slots=True)
class _Passes:
    """Bounds of rows of J over some parts, so many rows for each."""

    network: Network
    slopes: Mapping[str, BatchedSlopes]
    chosen: Int64[np.ndarray, " some"]
    count: int
    along: PartsAlong | None
    linear: bool

    def of(self, rows: Float64[np.ndarray, "batch outputs"]) -> Jacobian:
        """A row of C for each batch row."""
        index = np.repeat(self.chosen, self.count)
        return Jacobian(
            self.network,
            {name: (low[index], high[index]) for name, (low, high) in self.slopes.items()},
            rows,
            linear=self.linear,
            along=None if self.along is None else self.along.chosen(self.chosen, self.count),
        )


def _stretch(turns: Float64[np.ndarray, "batch n n"]) -> Float64[np.ndarray, " batch"]:
    """Numbers that the norms of the inverses do not exceed; inf where that is not shown."""
    size = turns.shape[1]
    off = np.abs(turns.transpose(0, 2, 1) @ turns - np.eye(size))
    slack = gamma(size + 4) * (1 + (np.abs(turns.transpose(0, 2, 1)) @ np.abs(turns)))
    excess = np.sqrt(enlarged(np.sum(np.square(enlarged(off + slack, 4)), axis=(1, 2)), size**2))
    excess = enlarged(excess, 4) + 2.0**-500
    return np.where(excess <= 0.5, enlarged(1 + excess, 4), np.inf)
