"""Matrix inequalities on parts of a region, with multipliers that the parts share.

A leaf takes a row of its item, all of its multipliers times one number, and a level of its own: the
inequality of `verifier.checker.lmi` with the slopes that the part leaves. Gates that have one slope
there have no psi, and their multipliers no place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from verifier.checker.arithmetic import Magnitude
from verifier.checker.constraints import increments
from verifier.checker.definite import NotProved
from verifier.checker.lmi import prove_row
from verifier.checker.operator_norms import norm_factor
from verifier.checker.part_jacobian import slopes_of
from verifier.norms import Norm, NormPair

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from jaxtyping import Bool, Int64

    from verifier.certificate import LmiRow, Tree
    from verifier.checker.carry import Sparse
    from verifier.checker.lowering import Lowered
    from verifier.checker.parts_within import Chunk


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What all parts of a chunk have in common."""

    small: Lowered  #: in the coordinates in which the input is measured
    outputs: Sparse  #: the item's
    inputs: Int64[np.ndarray, " selected"]  #: those that the claim selects
    varying: Bool[np.ndarray, " inputs"]  #: of them, those that vary in the parts
    pair: NormPair


def inequality_bounds(
    chunk: Chunk, tree: Tree, rows: Sequence[LmiRow], shared: Shared
) -> list[Magnitude]:
    """What each part's inequality proves: of the tree's output, or of all in the claim's norm.

    Raises:
        NotProved: a row does not exist, or an inequality is not shown to hold.
    """
    slopes = slopes_of(chunk, shared.small.network)
    kept = shared.varying[shared.inputs]
    bounds: list[Magnitude] = []
    for place, part in enumerate(chunk.parts):
        if not 0 <= tree.rows[part.place] < len(rows):
            raise NotProved(f"a part takes row {tree.rows[part.place]}, of {len(rows)}")
        row = scaled(rows[tree.rows[part.place]], float(tree.scales[part.place]), kept)
        row = replace(row, output=tree.output, level=float(tree.levels[part.place]))
        here = {name: (low[place], high[place]) for name, (low, high) in slopes.items()}
        found = increments(shared.small, shared.inputs[kept], here)
        bound = prove_row(found, row, shared.outputs, shared.pair.input)
        bounds.append(bound * _factor(row, len(shared.outputs.index), shared.pair.output))
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


def _factor(row: LmiRow, outputs: int, norm: Norm) -> Magnitude:
    """From what the row bounds to the claim's norm: l2, or with signs l1, which none exceeds."""
    if row.output is not None or row.output_multipliers is not None:
        return Magnitude.of(1.0)
    return Magnitude.of(norm_factor(NormPair(Norm.L2, norm), outputs))
