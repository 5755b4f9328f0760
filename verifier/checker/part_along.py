"""How slopes follow what enters their gates, in many parts of a region at once.

As in `verifier.checker.propagation` for a region, with lines of each part's own. Of gates of which
all pieces are straight the slope follows nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.gate_facts import by_interval, lines_within
from verifier.checker.intervals import Interval
from verifier.checker.jacobian import Along
from verifier.checker.joint_products import SlopeLines, slope_lines
from verifier.checker.network import Elementwise
from verifier.checker.scalars import PiecewiseLinear
from verifier.checker.substitution import Around, Exactly, Lines, Within

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float64, Int64

    from verifier.checker.network import Network, Scalar
    from verifier.checker.parts_within import Chunk
    from verifier.checker.substitution import Start, Substitution

    Vector = Float64[np.ndarray, " n"]

CELLS = 32  #: of an interval: parts are small


@dataclass(frozen=True, slots=True, kw_only=True)
class PartsAlong:
    """The parts of a chunk."""

    graph: Substitution  #: over the region, or the parts' boxes; every gate has lines in each part
    slopes: dict[str, SlopeLines]  #: by gate, a row for each part
    entering: dict[str, str]  #: the signal that enters each gate

    @staticmethod
    def of(chunk: Chunk, network: Network, graph: Substitution) -> PartsAlong | None:
        """None where no gate bends.

        Args:
            chunk: the parts.
            network: lowered.
            graph: the engine over the region, or the parts' boxes; it takes the parts' lines.
        """
        gates = [node for node in network.nodes if isinstance(node, Elementwise)]
        bent = [node for node in gates if not isinstance(node.function, PiecewiseLinear)]
        if not bent:
            return None
        for node in gates:
            graph.lines[node.name] = lines_within(node.function, chunk.entering[node.source])
        return PartsAlong(
            graph=graph,
            slopes={
                node.name: SlopeLines(
                    *by_interval(_slope_lines, node.function, chunk.entering[node.source])
                )
                for node in bent
            },
            entering={node.name: node.source for node in bent},
        )

    def chosen(self, parts: Int64[np.ndarray, " some"], count: int) -> Along:
        """Some parts, each so many times, in the parts' order."""
        rows = np.repeat(parts, count)

        def taken(values: Float64[np.ndarray, "batch n"]) -> Float64[np.ndarray, "batch n"]:
            return values if len(values) == 1 else values[rows]

        graph = self.graph
        forward = replace(
            graph,
            start=_moved(graph.start, taken),
            signals={
                name: Interval(taken(b.lower), taken(b.upper)) for name, b in graph.signals.items()
            },
            lines={
                name: Lines(*(taken(e) for e in (each.below, each.above, each.low, each.high)))
                for name, each in graph.lines.items()
            },
            _formed={},
            _costs={},
        )
        slopes = {
            name: SlopeLines(*(taken(e) for e in (each.tilt, each.low, each.high, each.reach)))
            for name, each in self.slopes.items()
        }
        return Along(slopes=slopes, forward=forward, entering=self.entering)


def _slope_lines(function: Scalar, lower: Vector, upper: Vector) -> tuple[Vector, ...]:
    found = slope_lines(function, lower, upper, CELLS)
    return found.tilt, found.low, found.high, found.reach


def _moved(
    start: Start, taken: Callable[[Float64[np.ndarray, "batch n"]], Float64[np.ndarray, "batch n"]]
) -> Start:
    """The same of some parts."""
    match start:
        case Around():
            return replace(start, centre=taken(start.centre), radius=taken(start.radius))
        case Within():
            first, second = (_moved(each, taken) for each in (start.first, start.second))
            assert isinstance(first, Around)  # noqa: S101 (a region and a box)
            assert isinstance(second, Around)  # noqa: S101
            return Within(first, second)
        case Exactly():
            return Exactly(taken(start.value))
