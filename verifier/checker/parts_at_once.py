"""Inequalities of gates alone, shown for many parts of a region at once.

With D = blkdiag(rho I, Lambda) or blkdiag(diag tau, Lambda), 0 < D, and R the rows sqrt(lambda) V
and Y, or sqrt(lambda) V and Y/sqrt(s), the inequalities (1) and (2) of `verifier.checker.lmi` are

    0 <= D - R'R,    that is    |R D^(-1/2)|_2 <= 1.                                          (1)

A psi that has no place in a part enters no row there, and D has 1 for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.arithmetic import LEAST, UNIT, Magnitude, above, enlarged, root_up
from verifier.checker.contraction import are_contractions
from verifier.checker.definite import NotProved
from verifier.checker.lmi import require_multipliers
from verifier.checker.operator_norms import norm_factor
from verifier.checker.part_increments import Batch, PartIncrements, part_increments
from verifier.norms import Norm, NormPair

if TYPE_CHECKING:
    from jaxtyping import Bool, Float64

    from verifier.checker.part_inequality import Asked, Leaves


def bound_of_all(leaves: Leaves, asked: Asked) -> Magnitude | None:
    """The greatest of the leaves' bounds; None where (1) is not shown for all of them.

    Args:
        leaves: all with multipliers of inputs, or none.
        asked: what is to be bounded.

    Raises:
        NotProved: multipliers are missing, negative or out of range.
    """
    require_multipliers(leaves.levels, "level")
    found = part_increments(asked.small, asked.inputs, leaves.slopes)
    tau = _input_multipliers(leaves, asked.kept)
    diagonal, rows = _psis(found, leaves)
    diagonal[:, : found.inputs] = leaves.levels[:, None] if tau is None else tau
    if not (np.all(0 < diagonal) and (tau is None or np.all(0 < leaves.levels))):
        return None
    outputs = _outputs(found.output.behind(asked.outputs), leaves, divided=tau is not None)
    value = np.concatenate([rows.value, outputs.value], axis=1)
    error = np.concatenate([rows.error, outputs.error], axis=1)
    # 1/sqrt(D) is two roundings off, the product one more: 4u cover them.
    inverse = 1 / np.sqrt(diagonal)[:, None, :]
    value = value * inverse
    error = enlarged(error * inverse + (4 * UNIT) * np.abs(value), 8) + LEAST
    if not are_contractions(value, error):
        return None
    factor = asked.factor(leaves.rows[0])
    if tau is None:
        measured = norm_factor(NormPair(asked.pair.input, Norm.L2), found.inputs)
        return Magnitude.of(root_up(float(leaves.levels.max()))) * Magnitude.of(measured) * factor
    sums = above(leaves.levels + enlarged(tau.sum(axis=1), tau.shape[1]))
    return Magnitude.of(float(sums.max())).shifted(-1) * factor


def _outputs(outputs: Batch, leaves: Leaves, *, divided: bool) -> Batch:
    """Y, or Y/sqrt(s), of the rows' output or of all."""
    output = leaves.rows[0].output
    rows = outputs.as_rows()
    index = slice(None) if output is None else slice(output, output + 1)
    root = (np.sqrt(leaves.levels) if divided else np.ones(len(leaves.levels)))[:, None, None]
    value = rows.value[:, index] / root
    # The root and the quotient round.
    return Batch(value, enlarged(rows.error[:, index] / root + (4 * UNIT) * np.abs(value), 4))


def _input_multipliers(
    leaves: Leaves, kept: Bool[np.ndarray, " selected"]
) -> Float64[np.ndarray, "parts varying"] | None:
    """Each part's tau."""
    given = [row.input_multipliers for row in leaves.rows]
    known = [tau for tau in given if tau is not None]
    if not known:
        return None
    if any(tau.shape != kept.shape for tau in known):
        raise NotProved(f"input multipliers that are not those of {len(kept)} inputs")
    tau = np.stack(known)[:, kept] * leaves.scales[:, None]
    require_multipliers(tau, "input multipliers")
    return tau


def _psis(found: PartIncrements, leaves: Leaves) -> tuple[Float64[np.ndarray, "parts xi"], Batch]:
    """D on the psi, and the rows sqrt(lambda) V."""
    names = {gates.name for gates in found.gates}
    if any(set(row.multipliers) != names for row in leaves.rows):
        raise NotProved("a row has not multipliers for every gate, or for other ones")
    parts = len(leaves.rows)
    diagonal = np.ones((parts, found.size))
    rows = [Batch(*np.zeros((2, parts, 0, found.size)))]
    for gates in found.gates:
        given = [row.multipliers[gates.name] for row in leaves.rows]
        if any(each.shape != (gates.count,) for each in given):
            raise NotProved(f"node {gates.name!r} needs {gates.count} multipliers")
        every = np.stack(given) * leaves.scales[:, None]
        require_multipliers(every, gates.name)
        own = every[:, gates.free]
        diagonal[:, gates.places] = np.where(gates.is_free, own, 1.0)
        root = np.sqrt(np.where(gates.is_free, own, 0.0))[:, :, None]
        entering = gates.entering.as_rows()
        value = root * entering.value
        # sqrt, its argument and the product round: 6u covers them.
        error = enlarged(root * entering.error + (6 * UNIT) * np.abs(value), 4)
        rows.append(Batch(value, error))
    return diagonal, Batch(
        np.concatenate([each.value for each in rows], axis=1),
        np.concatenate([each.error for each in rows], axis=1),
    )
