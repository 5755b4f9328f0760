"""Proof kind `tree`: the region divided by closed cuts, and a bound for every part.

Between two points of a convex region f changes by the integral of J (x - y) along the segment. The
parts of a tree cover the region, and almost everywhere on the segment J has, in every gate, a slope
that what enters the gate allows in any part that contains the point: where that stays at a kink for
longer than a moment its derivative is 0, so that each side's slope is right. Hence

    |f(x) - f(y)| <= max over the parts of (a bound of |J dx| for |dx| <= 1) |x - y|.          (1)

A part is shown to be empty, or the matrix inequality bounds it with the slopes that it leaves, or
the Jacobian does. In a part a coordinate of the input that its cuts fix does not vary: the segment
is in it for no longer than a moment, or does not move in that coordinate.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from verifier.certificate import EMPTY, INEQUALITY
from verifier.checker.arithmetic import ZERO, Magnitude, greatest, least
from verifier.checker.definite import NotProved
from verifier.checker.lmi import COMBINED
from verifier.checker.lowering import lowered
from verifier.checker.network import Product
from verifier.checker.part_along import PartsAlong
from verifier.checker.part_emptiness import require_empty
from verifier.checker.part_inequality import Asked, inequality_bounds
from verifier.checker.part_jacobian import Rows, slopes_of
from verifier.checker.parts_within import Boxes
from verifier.checker.tree_cuts import Cuts
from verifier.checker.tree_parts import parts
from verifier.checker.weighting import unweighted
from verifier.norms import Norm, NormPair

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Bool

    from verifier.certificate import LmiRow, Tree, TreeItem, TreeProof
    from verifier.checker.carry import Sparse
    from verifier.checker.items import Selection
    from verifier.checker.lowering import Lowered
    from verifier.checker.network import Network
    from verifier.checker.parts_within import Chunk
    from verifier.checker.weighting import Unweighted
    from verifier.property import Property


def prove_tree(
    proof: TreeProof, network: Network, asked: Property, selected: Selection
) -> tuple[Magnitude, ...]:
    """The bounds that the trees prove, one for each item of the claim.

    Raises:
        NotProved: a tree is none, a part is not shown to be empty or has no bound, or the trees do
            not bound every output.
    """
    if len(proof.items) != len(selected.items):
        raise NotProved(f"{len(proof.items)} items for {len(selected.items)} of the claim")
    trees = _Trees(proof, network, asked, selected)
    return tuple(
        _item_bound(trees, claimed, item.rows)
        for claimed, item in zip(proof.items, selected.items, strict=True)
    )


def _item_bound(trees: _Trees, item: TreeItem, outputs: Sparse) -> Magnitude:
    """The best that the trees of an item prove together.

    A tree of all outputs bounds their norm in the claim's, and with it each of them.
    """
    count = len(outputs.index)
    proved = [(tree.output, trees.bound(tree, item.rows, outputs)) for tree in item.trees]
    joint = [bound for output, bound in proved if output is None]
    each = [[bound for output, bound in proved if output == i] + joint for i in range(count)]
    if not all(each):
        raise NotProved(f"the trees bound {sum(map(bool, each))} of {count} outputs")
    return least(COMBINED[trees.output_norm]([least(*bounds) for bounds in each]), *joint)


def require_gates(small: Lowered) -> None:
    """Refuse networks that trees do not know.

    Raises:
        NotProved: a node multiplies signals.
    """
    for node in small.network.nodes:
        if isinstance(node, Product):
            raise NotProved(f"a tree, and node {node.name!r} multiplies signals")


class _Trees:
    """One proof, on its network and region."""

    def __init__(
        self, proof: TreeProof, network: Network, asked: Property, selected: Selection
    ) -> None:
        self._small = lowered(network, sorts="compare")
        require_gates(self._small)
        self._boxes = Boxes(network, self._small, asked.place, proof.forward)
        self._cuts = Cuts(self._small, proof.gates)
        self._asked, self._selected = asked, selected
        self._unweighted: dict[bytes, Unweighted] = {}
        plain = asked.norm if isinstance(asked.norm, NormPair) else asked.norm.plain
        self.output_norm = plain.output

    def bound(self, tree: Tree, rows: Sequence[LmiRow], outputs: Sparse) -> Magnitude:
        """Equation (1) for one output of an item, or for all of them in the claim's norm."""
        if tree.output is not None and not 0 <= tree.output < len(outputs.index):
            raise NotProved(f"a tree of output {tree.output}, of {len(outputs.index)}")
        bounds = [ZERO]
        for chunk in self._boxes.chunks(parts(tree, self._cuts.neurons(tree))):
            if chunk.kind == EMPTY:
                require_empty(chunk, self._small.network, self._boxes.graph(chunk))
            else:
                bounds += self._bounds(chunk, tree, rows, outputs)
        return greatest(bounds)

    def _bounds(
        self, chunk: Chunk, tree: Tree, rows: Sequence[LmiRow], outputs: Sparse
    ) -> list[Magnitude]:
        """Bounds of the parts, or one of them all."""
        varying = np.zeros(self._small.network.input_size, np.bool_)
        chosen = self._selected.inputs
        varying[chosen] = chunk.varies[chosen]
        if not np.any(varying):
            return []
        plain = self._plain(varying)
        if chunk.kind == INEQUALITY:
            asked = Asked(
                small=replace(self._small, network=plain.network),
                outputs=outputs,
                selected=chosen,
                kept=varying[chosen],
                pair=plain.pair,
            )
            return list(plain.bounds(inequality_bounds(chunk, tree, rows, asked)))
        matrix = outputs.backward(np.eye(len(outputs.index)))
        pair = plain.pair
        if tree.output is not None:
            matrix, pair = matrix[tree.output][None], NormPair(pair.input, Norm.LINF)
        image = Rows(network=plain.network, rows=matrix, varying=varying, pair=pair)
        along = PartsAlong.of(chunk, self._small.network, self._boxes.graph(chunk))
        return list(plain.bounds([image.bound(slopes_of(chunk, plain.network), along)]))

    def _plain(self, varying: Bool[np.ndarray, " inputs"]) -> Unweighted:
        """The network in coordinates that are measured in a plain norm."""
        key = varying.tobytes()
        if key not in self._unweighted:
            inputs = np.flatnonzero(varying)
            self._unweighted[key] = unweighted(self._small.network, self._asked.norm, inputs)
        return self._unweighted[key]
