"""Parts of a region that have no point: their cuts contradict each other.

With weights on the cuts above a part, c_z the sum of those of z (lower parts count negative),

    0 <= sum over z of c_z (z - t_z)   in the part,  t_z the end of z's interval on c_z's side.  (1)

If lines around the gates on the part's intervals show that (1) holds nowhere, it has no point.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.arithmetic import below, enlarged, gamma
from verifier.checker.definite import NotProved
from verifier.checker.gate_facts import lines_within
from verifier.checker.network import Elementwise

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Float64

    from verifier.checker.network import Network
    from verifier.checker.parts_within import Chunk
    from verifier.checker.substitution import Substitution


def require_empty(chunk: Chunk, network: Network, graph: Substitution) -> None:
    """No part of the chunk has a point.

    Args:
        chunk: parts with weights.
        network: lowered.
        graph: the engine over the region, or the parts' boxes; it takes the parts' lines.

    Raises:
        NotProved: this is not shown.
    """
    for node in network.nodes:
        if isinstance(node, Elementwise):
            graph.lines[node.name] = lines_within(node.function, chunk.entering[node.source])
    rows = _pulled(chunk, network)
    # A part without cuts is the whole region.
    if not rows or not np.all(graph.greatest_sum(rows)[:, 0] < _least_needed(chunk, rows)):
        raise NotProved("a part is not shown to be empty")


def _pulled(chunk: Chunk, network: Network) -> dict[str, Float64[np.ndarray, "parts 1 n"]]:
    """The c of (1) by signal."""
    rows: dict[str, Float64[np.ndarray, "parts 1 n"]] = {}
    for place, part in enumerate(chunk.parts):
        for (name, entry), pull in part.pulls.items():
            if name not in rows:
                rows[name] = np.zeros((len(chunk.parts), 1, network.tensors[name]))
            rows[name][place, 0, entry] = pull
    return rows


def _least_needed(
    chunk: Chunk, rows: Mapping[str, Float64[np.ndarray, "parts 1 n"]]
) -> Float64[np.ndarray, " parts"]:
    """Numbers that the sums of c t of (1) are not below."""
    value, mass = np.zeros((2, len(chunk.parts)))
    count = len(rows) + 2
    for name, pulls in rows.items():
        bounds = chunk.entering.get(name, chunk.signals[name])
        moved = pulls[:, 0] * np.where(0 < pulls[:, 0], bounds.lower, bounds.upper)
        value, mass = value + moved.sum(axis=1), mass + np.abs(moved).sum(axis=1)
        count += moved.shape[1]
    return below(value - enlarged(gamma(count) * mass, count))
