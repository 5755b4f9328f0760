"""The same constraints over other xi: with one input only, and with the signs of the outputs.

One input. |f(x) - f(y)| <= sum_k |dx_k| b_k where b_k bounds steps in input k alone, so that the
greatest b_k bounds steps of |dx|_1 = 1. Such steps have xi = (dx_k, psi): the other inputs' rows of
every increment are left out.

Signs. |y|_1 is the greatest s'y over s in {-1, 1}^m: one output sum_j psi_j, of gates

    psi_j = s_j y_j,   |psi_j| <= |y_j|,                                                   (1)

with slopes in [-1, 1], which join xi and the constraints.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.carry import Carried
from verifier.checker.constraints import Constraint, Increments

if TYPE_CHECKING:
    from jaxtyping import Int64

#: What the gates (1) are called; no tensor of a file has such a name.
SIGNS = "\0signs"


def only_input(found: Increments, place: int) -> Increments:
    """The increments of steps in one of the inputs, counted among those that vary."""
    inputs = found.inputs
    kept = np.concatenate([[place], np.arange(inputs, found.size)]).astype(np.int64)
    constraints = [
        replace(
            constraint,
            entering=_picked(constraint.entering, kept),
            coordinates=constraint.coordinates - (inputs - 1),
        )
        for constraint in found.constraints
    ]
    return Increments(
        size=len(kept), inputs=1, constraints=constraints, output=_picked(found.output, kept)
    )


def _picked(rows: Carried, kept: Int64[np.ndarray, " k"]) -> Carried:
    """The kept rows, as far as there are rows: later ones are 0."""
    index = kept[kept < rows.rows]
    return Carried(rows.value[index], rows.errors()[index])


def with_signs(found: Increments, outputs: Carried) -> Increments:
    """The increments with (1) for the outputs, and their sum as the only output.

    Args:
        found: the increments.
        outputs: Y', xi by outputs.
    """
    count: int = outputs.value.shape[1]
    places = found.size + np.arange(count)
    each = np.arange(count, dtype=np.int64)
    signs = Constraint(
        name=SIGNS,
        gates=count,
        psis=1,
        entering=outputs,
        share=np.ones(count),
        owner=each,
        coordinates=places,
        weight=np.ones(count),
    )
    total = np.zeros((found.size + count, 1))
    total[places] = 1.0
    return Increments(
        size=found.size + count,
        inputs=found.inputs,
        constraints=[*found.constraints, signs],
        output=Carried(total),
    )
