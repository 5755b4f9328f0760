"""Parts of a region as boxes of inputs, with sides of kinks: a tree of them, and its proof."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.certificate import CUT, EMPTY, JACOBIAN, Tree
from verifier.methods.domain import Domain
from verifier.methods.duality import norm_of
from verifier.norms import Norm

_BEYOND = 1e-9  #: of a ball's radius, by which a box must lie outside to be taken for empty


@dataclass(frozen=True, slots=True)
class Cut:
    """What the two parts of a box divide: the entry of a gate, or of the input, at a place."""

    gate: int  #: 0: the input
    entry: int
    place: float


@dataclass(slots=True, eq=False, kw_only=True)
class Box:
    """A node of a tree. Open ones count as leaves with the bound that they have."""

    item: int
    lower: Float64[Tensor, " inputs"]
    upper: Float64[Tensor, " inputs"]
    #: of gates' entries that are cut
    ends: Mapping[tuple[int, int], tuple[float, float]] = field(
        default_factory=dict[tuple[int, int], tuple[float, float]]
    )
    bound: float = float("inf")
    parent: Box | None = None
    depth: int = 0
    kind: int = JACOBIAN
    cut: Cut | None = None
    children: tuple[Box, Box] | None = None  #: below, above
    weights: Float64[np.ndarray, " cuts"] | None = None  #: of the empty

    def divided(self, cut: Cut) -> tuple[Box, Box]:
        """The parts below and above a cut, which are this one's from now on."""
        self.kind, self.cut = CUT, cut
        self.children = self._part(cut, is_upper=False), self._part(cut, is_upper=True)
        return self.children

    def _part(self, cut: Cut, *, is_upper: bool) -> Box:
        part = Box(
            item=self.item,
            lower=self.lower,
            upper=self.upper,
            ends=self.ends,
            bound=self.bound,
            parent=self,
            depth=self.depth + 1,
        )
        if cut.gate == 0:
            end = (self.lower if is_upper else self.upper).clone()
            end[cut.entry] = cut.place
            part.lower, part.upper = (end, self.upper) if is_upper else (self.lower, end)
            return part
        low, high = self.ends.get((cut.gate, cut.entry), (-np.inf, np.inf))
        own = (cut.place, high) if is_upper else (low, cut.place)
        part.ends = {**self.ends, (cut.gate, cut.entry): own}
        return part

    def path(self) -> list[tuple[Cut, bool]]:
        """The cuts above with whether this lies in the upper part, the root's first."""
        cuts: list[tuple[Cut, bool]] = []
        box = self
        while box.parent is not None:
            above = box.parent
            assert above.cut is not None  # noqa: S101 (it has parts)
            assert above.children is not None  # noqa: S101
            cuts.append((above.cut, above.children[1] is box))
            box = above
        return cuts[::-1]

    def preorder(self) -> Iterator[Box]:
        """The box and all below it: a box, its lower part, its upper part."""
        pending: list[Box] = [self]
        while pending:
            box = pending.pop()
            yield box
            if box.children is not None:
                pending.extend(reversed(box.children))

    def greatest(self) -> float:
        """The greatest bound among the leaves."""
        return max((box.bound for box in self.preorder() if box.kind == JACOBIAN), default=0.0)

    def emptied(self, domain: Domain) -> bool:
        """Whether the box lies outside the ball; then it is closed, with weights for its cuts.

        The sum of c_k (x_k - t_k) over the box's nearest faces t is not negative in the box. With c
        the functional that attains the distance of the nearest point in the ball's norm, it is
        negative in a ball that does not reach so far.
        """
        if domain.norm is None:
            return False
        near = torch.minimum(torch.maximum(domain.center, self.lower), self.upper) - domain.center
        pull = near.sign() if domain.norm is Norm.L1 else near
        dual = torch.linalg.vector_norm(pull, float("inf") if domain.norm is Norm.L1 else 2.0)
        if float(pull @ near) <= float(dual * domain.reach[0]) * (1 + _BEYOND):
            return False
        self.weights = self._weights(pull)
        self.kind, self.bound = EMPTY, 0.0
        return True

    def _weights(self, pull: Float64[Tensor, " inputs"]) -> Float64[np.ndarray, " cuts"]:
        """The pull of every coordinate on the cut that made its near face."""
        path = self.path()
        weights = np.zeros(len(path))
        for entry in torch.nonzero(pull).flatten().tolist():
            is_upper = 0 < float(pull[entry])
            face = float(self.lower[entry] if is_upper else self.upper[entry])
            for place, (cut, side) in enumerate(path):
                if (cut.gate, cut.entry, side, cut.place) == (0, entry, is_upper, face):
                    weights[place] = abs(float(pull[entry]))
                    break
        return weights


def middles(boxes: Sequence[Box], domain: Domain) -> Float64[Tensor, "boxes inputs"]:
    """A point of the region near the middle of every box: what lies beyond a ball is moved."""
    x = torch.stack([(box.lower + box.upper) / 2 for box in boxes])
    if domain.norm is None:
        return x
    offset = x - domain.center
    length = norm_of(domain.norm, offset) / domain.reach[0]
    return domain.center + offset / length.clamp(min=1 + 1e-12)[:, None]


def tree_of(root: Box) -> Tree:
    """The tree of all outputs jointly, as proofs store it."""
    boxes = list(root.preorder())
    cuts = [box.cut for box in boxes if box.cut is not None]
    weights = [box.weights for box in boxes if box.weights is not None]
    return Tree(
        output=None,
        kinds=tuple(box.kind for box in boxes),
        gates=tuple(cut.gate for cut in cuts),
        entries=tuple(cut.entry for cut in cuts),
        places=np.array([cut.place for cut in cuts], dtype=np.float64),
        weights=np.concatenate([np.zeros(0), *weights]),
        rows=(),
        levels=np.zeros(0),
        scales=np.zeros(0),
    )
