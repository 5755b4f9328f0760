"""The l1 norm of outputs: their signs as gates.

|y|_1 is the greatest s'y over s in {-1, 1}^m: one output sum_j psi_j, of gates

    psi_j = s_j y_j,   |psi_j| <= |y_j|,                                                   (1)

with slopes in [-1, 1], which join xi and the constraints.
"""

from __future__ import annotations

import numpy as np

from verifier.checker.carry import Carried
from verifier.checker.constraints import Constraint, Increments

#: What the gates (1) are called; no tensor of a file has such a name.
SIGNS = "\0signs"


def with_signs(found: Increments, outputs: Carried) -> Increments:
    """The increments with (1) for the outputs, and their sum as the only output.

    Args:
        found: the increments.
        outputs: Y', xi by outputs.
    """
    count: int = outputs.value.shape[1]
    places = found.size + np.arange(count)
    signs = Constraint(
        name=SIGNS,
        gates=count,
        psis=1,
        entering=outputs,
        share=np.ones(count),
        owner=np.arange(count, dtype=np.int64),
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
