"""Scales for recursions, and the bound that they stand for, in plain float64 by another route.

For scales D, hence multipliers 1/D, the covariance of the outputs is

    P = Y M^-1 Y',    M = blkdiag(E^-1, D^-1) - sum_g (C_g V_g)' D_g^-1 C_g V_g,

of the whole of xi = (dx, psi) at once, E the inputs' covariance: no recursion at all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from verifier.checker.constraints import increments
from verifier.checker.lmi import global_slopes
from verifier.checker.lowering import lowered
from verifier.checker.network import Network


@dataclass(frozen=True)
class Reference:
    """Scales by gate, and the outputs' covariance."""

    scales: dict[str, np.ndarray]
    covariance: np.ndarray

    @property
    def bound(self) -> float:
        """L2 to l2."""
        return float(np.sqrt(np.linalg.eigvalsh(self.covariance)[-1]))


def reference(
    network: Network,
    share: float = 2.0,
    rng: np.random.Generator | None = None,
    inputs: np.ndarray | None = None,
) -> Reference:
    """Scales `share` times as large as the least common one of each node, or up to twice that."""
    small = lowered(network, "keep")
    found = increments(small, np.arange(network.input_size), global_slopes(small))
    matrix = np.zeros((found.size, found.size))
    first = np.ones(found.inputs) if inputs is None else inputs
    matrix[: found.inputs, : found.inputs] = np.diag(1 / first)
    scales: dict[str, np.ndarray] = {}
    for constraint in found.constraints:
        values = np.zeros(constraint.gates)
        entering = constraint.entering.value
        height = len(entering)
        scaled = entering * np.sqrt(constraint.share)
        inner = scaled.T @ np.linalg.solve(matrix[:height, :height], scaled)
        used = np.unique(constraint.owner)
        largest = float(np.linalg.eigvalsh(inner)[-1]) if len(used) else 1.0
        spread = np.ones(len(used)) if rng is None else rng.uniform(1, 2, len(used))
        values[used] = max(largest, 1e-6) * share * spread
        scales[constraint.name] = values
        weight = 1 / values[constraint.owner]
        matrix[:height, :height] -= (entering * (weight * constraint.share)) @ entering.T
        place = constraint.coordinates
        matrix[place, place] += weight * constraint.weight
    rows = np.zeros((found.size, found.output.value.shape[1]))
    rows[: len(found.output.value)] = found.output.value
    return Reference(scales, rows.T @ np.linalg.solve(matrix, rows))
