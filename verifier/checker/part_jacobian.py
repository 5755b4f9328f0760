"""Bounds of the Jacobian on parts of a region, by the slopes that each part leaves.

Where no gate is left with two slopes, J is one matrix, known up to rounding; else its entries are
bounded as in `verifier.checker.propagation`, by intervals and by lines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.arithmetic import Magnitude, greatest, norm_up, sum_up
from verifier.checker.carry import Carried
from verifier.checker.gate_facts import slopes_within
from verifier.checker.jacobian import Jacobian
from verifier.checker.network import Elementwise
from verifier.checker.operator_norms import matrix_norm
from verifier.norms import Norm, NormPair

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Bool, Float64, Int64

    from verifier.checker.jacobian import BatchedSlopes
    from verifier.checker.network import Network
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

    def bound(self, slopes: Mapping[str, BatchedSlopes]) -> Magnitude:
        """A number that no part's |C J| exceeds.

        Raises:
            NotProved: an entry is not finite.
        """
        is_cell = np.all(
            [np.all(lower == upper, axis=1) for lower, upper in slopes.values()], axis=0
        )
        # A network without gates is one cell.
        places = np.flatnonzero(is_cell), np.flatnonzero(~is_cell)
        return greatest(
            Magnitude.of(self._greatest(_some(slopes, chosen), len(chosen), linear=linear))
            for every, linear in zip(places, (False, True), strict=True)
            for chosen in self._in_turns(every)
        )

    def _in_turns(self, every: Int64[np.ndarray, " parts"]) -> list[Int64[np.ndarray, " some"]]:
        """As many parts at a time as fit."""
        widest = max(self.network.tensors.values())
        step = max(1, HELD // (len(self.rows) * widest))
        return [every[begin : begin + step] for begin in range(0, len(every), step)]

    def _greatest(self, slopes: Mapping[str, BatchedSlopes], parts: int, *, linear: bool) -> float:
        count = len(self.rows)
        repeated = {
            name: (np.repeat(low, count, axis=0), np.repeat(high, count, axis=0))
            for name, (low, high) in slopes.items()
        }
        rows = np.tile(self.rows, (parts, 1))
        jacobian = Jacobian(self.network, repeated, rows, linear=linear)
        entries = jacobian.entries(self.varying)
        whole = entries.magnitude()[:, self.varying]
        if self.pair.input is Norm.LINF:
            sums = jacobian.row_sums(entries, self.varying)
            if self.pair.output is Norm.LINF:
                return float(sums.max())
            size = norm_up if self.pair.output is Norm.L2 else sum_up
            tops = [size(each) for each in np.split(sums, parts)]
        elif self.pair.output is Norm.LINF:
            return matrix_norm(Carried(whole), self.pair)
        else:
            tops = [matrix_norm(Carried(each), self.pair) for each in np.split(whole, parts)]
        centres, radii = (end[:, self.varying] for end in entries.centred())
        spectral = [
            matrix_norm(Carried(centre, radius), self.pair)
            for centre, radius in zip(np.split(centres, parts), np.split(radii, parts), strict=True)
        ]
        return max(min(pair) for pair in zip(tops, spectral, strict=True))


def _some(
    slopes: Mapping[str, BatchedSlopes], chosen: Int64[np.ndarray, " some"]
) -> dict[str, BatchedSlopes]:
    return {name: (low[chosen], high[chosen]) for name, (low, high) in slopes.items()}
