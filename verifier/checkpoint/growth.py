"""Trees of parts of a region as far as they have grown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

from verifier.certificate import CUT
from verifier.errors import InvalidRequest

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float32, Float64

Problem = TypeVar("Problem")

ELSEWHERE = -1  #: the kind of a node below which another chunk goes on; others are a tree's

SplitKind: TypeAlias = Literal["threshold"]

SPLIT_KINDS: tuple[SplitKind, ...] = ("threshold",)  #: by number; new ones at the end


@dataclass(frozen=True, slots=True)
class Split:
    """How a part is divided. "threshold": a signal's entry at a number, `t <= z` or `z <= t`."""

    gate: int  #: which of the growth's `gates` the signal enters
    entry: int
    place: float
    kind: SplitKind = "threshold"


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """Multipliers of one inequality, shared by the parts that take them."""

    gates: Float64[np.ndarray, " psis"]
    inputs: Float64[np.ndarray, " inputs"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Trim:
    """An interval of a part that was narrowed: beyond a number there is no point of it."""

    split: Split  #: the kink that the number counts from
    at: float
    is_below: bool  #: whether z - place <= at is left, or at <= z - place
    weights: Float32[np.ndarray, " depth"]  #: how much each cut above counts in that


@dataclass(slots=True, eq=False, kw_only=True)
class Node:
    """One part. Its kind is that of a tree's node in a proof, or ELSEWHERE."""

    kind: int
    bound: float = 0.0  #: claimed
    split: Split | None = None  #: of a CUT
    children: tuple[Node, Node] | None = None  #: of a CUT: below, above
    row: Row | None = None  #: of a leaf with a bound
    weights: Float64[np.ndarray, " depth"] | None = None  #: of an EMPTY one, the root's first
    trims: tuple[Trim, ...] = ()  #: in the order in which they were found

    def preorder(self) -> Iterator[Node]:
        """The node and all below it: a node, its lower part, its upper part."""
        pending: list[Node] = [self]
        while pending:
            node = pending.pop()
            yield node
            if node.children is not None:
                pending.extend(reversed(node.children))


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Root:
    """A tree: what it bounds, and its first node."""

    item: int  #: of the claim
    output: int | None  #: position among the item's outputs; None: all of them jointly
    node: Node


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Growth:
    """All trees of a search, and the points where its slopes were the steepest."""

    gates: tuple[str, ...]  #: what splits divide, by name; "" is the input
    roots: tuple[Root, ...]
    points: Float64[np.ndarray, "points inputs"]

    @property
    def nodes(self) -> int:
        """How many there are."""
        return sum(1 for root in self.roots for _ in root.node.preorder())


def folded(
    start: Problem,
    step: Callable[[Problem], Node | tuple[Problem, Problem]],
    joined: Callable[[Problem, Node, Node], Node],
) -> Node:
    """What is made of a binary tree from its leaves up; as a loop, since trees may be deep.

    Args:
        start: the problem at the root.
        step: its answer, or the two problems below it.
        joined: from a problem and the answers below it to its own.
    """
    pending: list[tuple[Problem, Problem, Node | None]] = []  #: (problem, its second, first answer)
    here = start
    while True:
        answer = step(here)
        if isinstance(answer, tuple):
            first, second = answer
            pending.append((here, second, None))
            here = first
            continue
        while pending:
            problem, second, first_answer = pending.pop()
            if first_answer is None:
                pending.append((problem, second, answer))
                here = second
                break
            answer = joined(problem, first_answer, answer)
        else:
            return answer


def is_cut(node: Node) -> bool:
    """Whether the node has parts."""
    return node.kind == CUT


def unusable(detail: str) -> InvalidRequest:
    """What is wrong with a checkpoint."""
    return InvalidRequest(f"the checkpoint {detail}", fix="start without it", pointer="/checkpoint")
