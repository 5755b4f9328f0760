"""Increments in many parts of a region at once, over one xi = (dx, psi) for all of them.

As in `verifier.checker.constraints`, with a batch row for each part: a gate with the slopes [a, b]
in a part has phi = m v + r psi there. The psi of a gate is an entry of xi if it has two slopes in
some part; where it has one, r = 0, and its psi enters nothing. What comes before the first gate is
the same in all parts, and has one batch row.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.arithmetic import UNIT, enlarged
from verifier.checker.carry import Carried, push, summed
from verifier.checker.constraints import centred
from verifier.checker.definite import NotProved
from verifier.checker.network import Affine, Elementwise

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jaxtyping import Bool, Float64, Int64

    from verifier.checker.jacobian import BatchedSlopes
    from verifier.checker.lowering import Lowered
    from verifier.checker.network import Map


@dataclass(frozen=True, slots=True)
class Batch:
    """Increments over xi with |true - value| <= error; one batch row, or one for each part."""

    value: Float64[np.ndarray, "batch xi n"]
    error: Float64[np.ndarray, "batch xi n"]

    def behind(self, linear: Map) -> Batch:
        """Of what leaves a map."""
        batch, size, width = self.value.shape
        flat = self.value.reshape(batch * size, width)
        # What is exact is read off a map without a rounding.
        error = self.error.reshape(flat.shape) if np.any(self.error) else None
        found = push(linear, Carried(flat, error)).required_finite()
        shape = (batch, size, found.value.shape[1])
        return Batch(found.value.reshape(shape), found.errors().reshape(shape))

    def entries(self, chosen: Int64[np.ndarray, " k"]) -> Batch:
        """Of some entries."""
        return Batch(self.value[:, :, chosen], self.error[:, :, chosen])

    def as_rows(self) -> Batch:
        """Entries by xi."""
        return Batch(self.value.transpose(0, 2, 1), self.error.transpose(0, 2, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class PartGates:
    """The gates of a node that have two slopes in some part."""

    name: str  #: what the proof calls the node
    count: int  #: how many gates it has, those of one slope included
    free: Int64[np.ndarray, " free"]
    places: Int64[np.ndarray, " free"]  #: of their psi in xi
    is_free: Bool[np.ndarray, "parts free"]  #: whether a gate has two slopes in a part
    entering: Batch  #: over xi, one entry for each gate of `free`


@dataclass(slots=True)
class PartIncrements:
    """The size of xi, the gates, and the output's increment."""

    size: int
    inputs: int
    gates: list[PartGates] = field(default_factory=list[PartGates])
    output: Batch = field(default_factory=lambda: Batch(*np.zeros((2, 1, 0, 0))))


def part_increments(
    small: Lowered,
    inputs: Int64[np.ndarray, " varying"],
    slopes: Mapping[str, BatchedSlopes],
) -> PartIncrements:
    """Every increment over xi.

    Args:
        small: affine nodes and gates.
        inputs: the coordinates in which x and y may differ.
        slopes: by the gates' own names, with a row for each part.

    Raises:
        NotProved: an increment exceeds float64.
    """
    network = small.network
    free = {
        name: np.flatnonzero(np.any(low < high, axis=0)) for name, (low, high) in slopes.items()
    }
    size = len(inputs) + sum(map(len, free.values()))
    found = PartIncrements(size=size, inputs=len(inputs))
    start = np.zeros((1, size, network.input_size))
    start[0, np.arange(len(inputs)), inputs] = 1.0
    signals = {"": Batch(start, np.zeros_like(start))}
    known = len(inputs)
    for node in network.nodes:
        match node:
            case Affine():
                parts = [signals[term.source].behind(term.map) for term in node.terms]
                signals[node.name] = _summed(parts)
            case Elementwise():
                places = known + np.arange(len(free[node.name]), dtype=np.int64)
                known += len(places)
                entering = signals[node.source]
                lower, upper = slopes[node.name]
                signals[node.name] = _leaving(entering, lower, upper, free[node.name], places)
                found.gates.append(
                    PartGates(
                        name=small.gates[node.name],
                        count=node.size,
                        free=free[node.name],
                        places=places,
                        is_free=(lower < upper)[:, free[node.name]],
                        entering=entering.entries(free[node.name]),
                    )
                )
            case _:
                raise NotProved(f"node {node.name!r} was not lowered")
    found.output = signals[network.output]
    return found


def _leaving(
    entering: Batch,
    lower: Float64[np.ndarray, "parts n"],
    upper: Float64[np.ndarray, "parts n"],
    free: Int64[np.ndarray, " free"],
    places: Int64[np.ndarray, " free"],
) -> Batch:
    """M v + r psi; only the product rounds."""
    middle, radius = centred(lower, upper)
    value = entering.value * middle[:, None, :]
    spread = np.abs(value) * UNIT + entering.error * np.abs(middle)[:, None, :]
    value[:, places, free] = radius[:, free]
    return Batch(value, enlarged(spread, 4))


def _summed(parts: Sequence[Batch]) -> Batch:
    """The sum of increments, of as many batch rows as one of them has."""
    if len(parts) == 1:
        return parts[0]
    shape = np.broadcast_shapes(*(part.value.shape for part in parts))
    flat = [
        Carried(*(np.broadcast_to(a, shape).reshape(-1, shape[2]) for a in (p.value, p.error)))
        for p in parts
    ]
    whole = summed(flat).required_finite()
    return Batch(whole.value.reshape(shape), whole.errors().reshape(shape))
