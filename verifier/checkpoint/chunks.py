"""Cutting a search's open parts into chunks for several workers, and joining what they made.

A chunk is the same trees without what the others do: where only other chunks go on there is one
leaf of kind ELSEWHERE. Joining puts trees upon each other; wherever two know something, they have
to say the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from verifier.certificate import INEQUALITY, JACOBIAN
from verifier.checkpoint.growth import ELSEWHERE, Growth, Node, Root, folded, is_cut, unusable


def cut(growth: Growth, parts: int) -> list[Growth]:
    """The growth in at most so many chunks with open parts as equal in number as can be.

    Every leaf goes to one of them; leaves that lie beside each other go together.
    """
    leaves = [node for root in growth.roots for node in root.node.preorder() if not is_cut(node)]
    is_open = np.array([node.kind in (INEQUALITY, JACOBIAN) for node in leaves])
    before = np.cumsum(is_open) - is_open
    count = max(1, min(parts, int(is_open.sum())))
    chunk = np.minimum(before * count // max(1, int(is_open.sum())), count - 1)
    return [
        _only(growth, {id(leaves[place]) for place in np.flatnonzero(chunk == number)})
        for number in range(count)
    ]


def join(chunks: Sequence[Growth]) -> Growth:
    """The growth that chunks make together.

    Raises:
        InvalidRequest: they are not chunks of one growth, or one of them is missing.
    """
    whole = chunks[0]
    for other in chunks[1:]:
        whole = _joined(whole, other)
    for root in whole.roots:
        if any(node.kind == ELSEWHERE for node in root.node.preorder()):
            raise unusable("is joined from chunks of which one is missing")
    return whole


def _only(growth: Growth, kept: set[int]) -> Growth:
    """The growth with ELSEWHERE in the place of all other leaves."""

    def step(node: Node) -> Node | tuple[Node, Node]:
        if node.children is not None:
            return node.children
        return node if id(node) in kept else Node(kind=ELSEWHERE)

    def joined(node: Node, below: Node, above: Node) -> Node:
        if below.kind == above.kind == ELSEWHERE:
            return below
        return replace(node, children=(below, above))

    roots = (replace(root, node=folded(root.node, step, joined)) for root in growth.roots)
    return replace(growth, roots=tuple(roots))


def _joined(one: Growth, other: Growth) -> Growth:
    heads = [[(root.item, root.output) for root in each.roots] for each in (one, other)]
    if heads[0] != heads[1] or one.gates != other.gates:
        raise unusable("is joined from chunks of different searches")
    pairs = zip(one.roots, other.roots, strict=True)
    points = np.unique(np.concatenate([one.points, other.points]), axis=0)
    return Growth(gates=one.gates, roots=tuple(_together(*pair) for pair in pairs), points=points)


def _together(one: Root, other: Root) -> Root:
    def step(pair: tuple[Node, Node]) -> Node | tuple[tuple[Node, Node], tuple[Node, Node]]:
        first, second = pair
        if ELSEWHERE in (first.kind, second.kind):
            return second if first.kind == ELSEWHERE else first
        if first.children is None or second.children is None or first.split != second.split:
            raise unusable("is joined from chunks that contradict each other")
        return (
            (first.children[0], second.children[0]),
            (first.children[1], second.children[1]),
        )

    def joined(pair: tuple[Node, Node], below: Node, above: Node) -> Node:
        return replace(pair[0], children=(below, above))

    return replace(one, node=folded((one.node, other.node), step, joined))
