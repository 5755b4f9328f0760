"""Matrix inequalities on parts of a region, with multipliers that the parts share.

A leaf takes a row of its item, all of its multipliers times one number, and a level of its own: the
inequality of `verifier.checker.lmi` with the slopes that the part leaves. Gates that have one slope
there have no psi, and their multipliers no place.

Plain rows, of gates alone, are shown for many parts at once; other rows, and parts of which this
does not show it, one by one.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.arithmetic import Magnitude
from verifier.checker.constraints import increments
from verifier.checker.definite import NotProved
from verifier.checker.lmi import prove_row
from verifier.checker.operator_norms import norm_factor
from verifier.checker.part_jacobian import slopes_of
from verifier.checker.parts_at_once import bound_of_all
from verifier.norms import Norm, NormPair

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Bool, Float64, Int64

    from verifier.certificate import LmiRow, Tree
    from verifier.checker.carry import Sparse
    from verifier.checker.jacobian import BatchedSlopes
    from verifier.checker.lowering import Lowered
    from verifier.checker.parts_within import Chunk

TOGETHER = 2**21  #: entries of an increment over xi that are held at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is to be bounded, and in which coordinates."""

    small: Lowered  #: in the coordinates in which the input is measured
    outputs: Sparse  #: the item's
    selected: Int64[np.ndarray, " selected"]  #: the inputs that the claim selects
    kept: Bool[np.ndarray, " selected"]  #: of them, those that vary in the parts
    pair: NormPair

    @property
    def inputs(self) -> Int64[np.ndarray, " varying"]:
        """The coordinates in which x and y differ."""
        return self.selected[self.kept]

    def factor(self, row: LmiRow) -> Magnitude:
        """From what a row bounds to the claim's norm: l2, or with signs l1, which none exceeds."""
        if row.output is not None or row.output_multipliers is not None:
            return Magnitude.of(1.0)
        return Magnitude.of(
            norm_factor(NormPair(Norm.L2, self.pair.output), len(self.outputs.index))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaves:
    """Some inequality leaves of a tree."""

    rows: tuple[LmiRow, ...]  #: each one's, with the output of the tree
    levels: Float64[np.ndarray, " parts"]
    scales: Float64[np.ndarray, " parts"]
    slopes: dict[str, BatchedSlopes]  #: by the gates' own names, a row for each part

    def only(self, chosen: Sequence[int]) -> Leaves:
        """Some of them."""
        index = np.array(chosen, dtype=np.int64)
        return Leaves(
            rows=tuple(self.rows[k] for k in chosen),
            levels=self.levels[index],
            scales=self.scales[index],
            slopes={name: (low[index], high[index]) for name, (low, high) in self.slopes.items()},
        )


def inequality_bounds(
    chunk: Chunk, tree: Tree, rows: Sequence[LmiRow], asked: Asked
) -> list[Magnitude]:
    """What the parts' inequalities prove: of the tree's output, or of all in the claim's norm.

    Raises:
        NotProved: a row does not exist, or an inequality is not shown to hold.
    """
    places = [part.place for part in chunk.parts]
    if not all(0 <= tree.rows[place] < len(rows) for place in places):
        raise NotProved(f"a part takes a row that is none of the item's {len(rows)}")
    leaves = Leaves(
        rows=tuple(replace(rows[tree.rows[place]], output=tree.output) for place in places),
        levels=tree.levels[np.array(places)],
        scales=tree.scales[np.array(places)],
        slopes=slopes_of(chunk, asked.small.network),
    )
    groups: dict[bool | None, list[int]] = defaultdict(list)
    for place, row in enumerate(leaves.rows):
        groups[_kind(row, asked.pair.input)].append(place)
    bounds: list[Magnitude] = []
    for kind, group in groups.items():
        size = len(group) if kind is None else _at_once(leaves, asked)
        for begin in range(0, len(group), size):
            some = leaves.only(group[begin : begin + size])
            whole = None if kind is None else bound_of_all(some, asked)
            bounds += _one_by_one(some, asked) if whole is None else [whole]
    return bounds


def _kind(row: LmiRow, measured: Norm) -> bool | None:
    """Whether a plain row has multipliers of inputs; None of a row that is not plain."""
    if row.cuts or row.sort_blocks or row.output_multipliers is not None:
        return None
    if row.input_multipliers is None and measured is Norm.L1:
        return None
    return row.input_multipliers is not None


def _at_once(leaves: Leaves, asked: Asked) -> int:
    """How many parts are shown together."""
    slopes = leaves.slopes.values()
    psis = sum(int(np.any(low < high, axis=0).sum()) for low, high in slopes)
    sizes = asked.small.network.tensors
    widest = max((size for name, size in sizes.items() if name), default=1)
    return max(1, TOGETHER // ((len(asked.inputs) + psis) * max(1, widest)))


def _one_by_one(leaves: Leaves, asked: Asked) -> list[Magnitude]:
    bounds: list[Magnitude] = []
    for place, given in enumerate(leaves.rows):
        row = scaled(given, float(leaves.scales[place]), asked.kept)
        row = replace(row, level=float(leaves.levels[place]))
        here = {name: (low[place], high[place]) for name, (low, high) in leaves.slopes.items()}
        found = increments(asked.small, asked.inputs, here)
        bound = prove_row(found, row, asked.outputs, asked.pair.input)
        bounds.append(bound * asked.factor(row))
    return bounds


def scaled(row: LmiRow, scale: float, kept: Bool[np.ndarray, " selected"]) -> LmiRow:
    """The row with its multipliers times a number, those of inputs only where they are kept.

    Raises:
        NotProved: the row counts inputs otherwise, or its cuts name inputs of which some are not
            kept.
    """
    tau = row.input_multipliers
    if tau is not None and tau.shape != kept.shape:
        raise NotProved(f"{tau.shape} input multipliers for {len(kept)} inputs")
    if not kept.all() and any("" in (cuts.first, cuts.second) for cuts in row.cuts):
        raise NotProved("cuts with inputs, of which some do not vary")
    signs = row.output_multipliers
    return replace(
        row,
        input_multipliers=None if tau is None else tau[kept] * scale,
        multipliers={name: values * scale for name, values in row.multipliers.items()},
        cuts=tuple(replace(c, weights=c.weights * math.sqrt(scale)) for c in row.cuts),
        output_multipliers=None if signs is None else signs * scale,
    )
