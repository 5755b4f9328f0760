"""Entries of the Jacobian, bounded part by part: for properties that are about them.

Every point x of the region lies in a closed part. What enters each gate at x lies in the part's
interval, and derivatives near x, wherever they exist, tend to products with Clarke slopes of the
gates there: on the closed interval, kinks at its ends included with both sides. So the Clarke
Jacobian at x is within what is found for the part, and all are within the hull over the parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from verifier.certificate import EMPTY, JACOBIAN
from verifier.checker.definite import NotProved
from verifier.checker.gate_facts import by_interval
from verifier.checker.intervals import Interval
from verifier.checker.jacobian import Jacobian
from verifier.checker.network import Elementwise
from verifier.checker.part_along import PartsAlong
from verifier.checker.part_emptiness import require_empty
from verifier.checker.part_jacobian import HELD
from verifier.checker.parts_within import Boxes
from verifier.checker.tree_cuts import Cuts
from verifier.checker.tree_parts import parts

if TYPE_CHECKING:
    from jaxtyping import Bool, Float64

    from verifier.certificate import TreeProof
    from verifier.checker.lowering import Lowered
    from verifier.checker.network import Network, Scalar
    from verifier.checker.parts_within import Chunk
    from verifier.regions import Place

    Vector = Float64[np.ndarray, " n"]


def tree_entries(
    proof: TreeProof,
    network: Network,
    small: Lowered,
    place: Place,
    rows: Float64[np.ndarray, "rows outputs"],
    wanted: Bool[np.ndarray, " inputs"],
) -> Interval:
    """Bounds of C J over the region.

    Args:
        proof: of one tree, of all outputs.
        network: before lowering.
        small: lowered.
        place: the region.
        rows: C.
        wanted: the inputs that are asked about.

    Raises:
        NotProved: the tree is none, or a part has no bounds.
    """
    trees = [tree for item in proof.items for tree in item.trees]
    if len(proof.items) != 1 or len(trees) != 1 or trees[0].output is not None:
        raise NotProved("entries of a Jacobian take one tree, of all outputs")
    boxes = Boxes(network, small, place, proof.forward)
    found: list[Interval] = []
    neurons = Cuts(small, proof.gates).neurons(trees[0])
    for chunk in boxes.chunks(parts(trees[0], neurons)):
        if chunk.kind == EMPTY:
            require_empty(chunk, small.network, boxes.graph(chunk))
        elif chunk.kind == JACOBIAN:
            along = PartsAlong.of(chunk, small.network, boxes.graph(chunk))
            found += _entries(chunk, small.network, along, rows, wanted)
        else:
            raise NotProved("an inequality bounds no entries of a Jacobian")
    if not found:
        raise NotProved("no part of the region has a point")
    return Interval(
        np.min([each.lower for each in found], axis=0),
        np.max([each.upper for each in found], axis=0),
    )


def _entries(
    chunk: Chunk,
    network: Network,
    along: PartsAlong | None,
    rows: Float64[np.ndarray, "rows outputs"],
    wanted: Bool[np.ndarray, " inputs"],
) -> list[Interval]:
    """The hulls over some parts at a time."""
    slopes = {
        node.name: by_interval(_closed, node.function, chunk.entering[node.source])
        for node in network.nodes
        if isinstance(node, Elementwise)
    }
    count, total = len(rows), len(chunk.parts)
    step = max(1, HELD // (count * max(network.tensors.values())))
    found: list[Interval] = []
    for begin in range(0, total, step):
        chosen = np.arange(begin, min(begin + step, total), dtype=np.int64)
        index = np.repeat(chosen, count)
        jacobian = Jacobian(
            network,
            {name: (low[index], high[index]) for name, (low, high) in slopes.items()},
            np.tile(rows, (len(chosen), 1)),
            linear=True,
            along=None if along is None else along.chosen(chosen, count),
        )
        entries = jacobian.entries(wanted)
        shape = (len(chosen), *rows.shape[:1], network.input_size)
        found.append(
            Interval(
                entries.lower.reshape(shape).min(axis=0), entries.upper.reshape(shape).max(axis=0)
            )
        )
    return found


def _closed(function: Scalar, lower: Vector, upper: Vector) -> tuple[Vector, ...]:
    return function.slope_range_on(np.nextafter(lower, -np.inf), np.nextafter(upper, np.inf))
