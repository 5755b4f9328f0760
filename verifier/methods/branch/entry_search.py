"""Boxes of inputs for entries of the Jacobian: intervals of all, or the sign of one.

Cut first is the box whose interval of some entry exceeds by most what the entry takes at points:
for a sign, the box whose entry lies farthest on its other side.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import count

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.certificate import ForwardProof, TreeItem, TreeProof
from verifier.methods.branch.box_bounds import Asked, best_cuts, evaluated
from verifier.methods.branch.box_values import Ends
from verifier.methods.branch.boxes import Box, Cut, middles, tree_of
from verifier.methods.derivatives import Derivatives
from verifier.methods.domain import Domain
from verifier.methods.items import items_of, varying_inputs
from verifier.methods.propagation import affordable
from verifier.network.graph import Network
from verifier.network.nodes import Elementwise
from verifier.norms import Norm, NormPair
from verifier.property import Property

_WIDEST = 64  #: boxes of a batch
_NEAR = 1e-9  #: of the greatest entry: an entry is at least this far on its side
_FIRST_LEAVES = 32  #: before which boxes may gain nothing
_GAINED = 0.99  #: of the excess, that twice as many boxes leave at most
MOST_BOXED = 8  #: inputs


class EntrySearch:
    """One run over a region that is a box or a ball."""

    def __init__(self, network: Network, asked: Property, gap: float) -> None:
        """Keep the question.

        Args:
            network: f.
            asked: of kind jacobian or monotone, over a region.
            gap: the share of the greatest entry by which intervals may be too wide.
        """
        self._sign = asked.monotone
        about = asked.entries
        self._columns = varying_inputs(about, network.input_size)
        self._rows = items_of(about, network.output_size)[0].rows
        domain = Domain.of(asked.place, network.input_size)
        lowered = network.lowered("compare")
        forward, entering = affordable(lowered, domain)
        self._forward: ForwardProof = forward.proof
        self._patterns, self._gap, self._domain = network.patterns, gap, domain
        self._asked = Asked(
            lowered=lowered,
            measured=lowered,
            domain=domain,
            norm=NormPair(Norm.LINF, Norm.LINF),
            moving=0 < domain.reach,
            known={
                node.name: Ends(
                    lower=entering[node.gate][0][None], upper=entering[node.gate][1][None]
                )
                for node in lowered.nodes
                if isinstance(node, Elementwise)
            },
        )
        self._derivatives = Derivatives(network, self._rows)
        shape = len(self._rows), len(self._columns)
        self._least = torch.full(shape, torch.inf, dtype=torch.float64)
        self._greatest = -self._least
        lower, upper = domain.ends
        self._root = Box(item=0, lower=lower, upper=upper)
        self._waiting: list[tuple[float, int, Box, Cut]] = []
        self._order = count()
        self.leaves = 1
        self._before = (_FIRST_LEAVES, float("inf"))  #: how many leaves had which excess

    @property
    def applies(self) -> bool:
        """Whether smaller boxes help: inputs that vary are few, and there are gates."""
        return 0 < int(self._asked.moving.sum()) <= MOST_BOXED and 0 < len(self._asked.gates)

    @property
    def gates(self) -> int:
        """How many neurons have one."""
        return sum(node.size for node in self._asked.gates)

    def start(self) -> None:
        """Bound the whole region."""
        self._bound([self._root])

    def advance(self) -> bool:
        """One batch; whether more can be gained."""
        parts: list[Box] = []
        while self._waiting and len(parts) < 2 * _WIDEST:
            parts += self._cut(*heapq.heappop(self._waiting)[2:])
        left = [part for part in parts if not part.emptied(self._domain)]
        if left:
            self._bound(left)
        return 0 < len(self._waiting) and not self._is_stuck()

    def _is_stuck(self) -> bool:
        """Whether twice as many boxes gained next to nothing: a kink that no box leaves."""
        excess = -self._waiting[0][0]
        if self.leaves < 2 * self._before[0]:
            return False
        last, self._before = self._before[1], (self.leaves, excess)
        return _GAINED * last < excess

    def proof(self) -> TreeProof:
        """The tree as it is."""
        return TreeProof(
            patterns=self._patterns,
            forward=self._forward,
            gates=("", *(node.gate for node in self._asked.gates)),
            items=(TreeItem(rows=(), trees=(tree_of(self._root),)),),
        )

    def _cut(self, box: Box, cut: Cut) -> tuple[Box, ...]:
        self.leaves += 1
        return box.divided(cut)

    def _bound(self, boxes: Sequence[Box]) -> None:
        """Intervals and next cuts."""
        self._meet(boxes)
        found = evaluated(self._asked, boxes, self._rows)
        unit = torch.eye(self._asked.lowered.input_size, dtype=torch.float64)[self._columns][None]
        excess = self._excess(*found.derivatives.entries(unit))
        cuts = best_cuts(self._asked, found, self._rows, kinks=False)
        for box, bound, cut in zip(boxes, excess.tolist(), cuts, strict=True):
            box.bound = bound
            if 0 < bound:
                heapq.heappush(self._waiting, (-bound, next(self._order), box, cut))

    def _excess(
        self, lower: Float64[Tensor, "boxes rows k"], upper: Float64[Tensor, "boxes rows k"]
    ) -> Float64[Tensor, " boxes"]:
        """How far the worst entry of every box is from good enough; not above 0 where it is."""
        scale = float(torch.maximum(self._greatest.abs(), self._least.abs()).amax())
        if self._sign is not None:
            wrong = -lower if self._sign.direction == "increasing" else upper
            is_zero = (lower == 0) & (upper == 0)
            return torch.where(is_zero, -1.0, wrong + _NEAR * scale).amax(dim=(1, 2))
        beyond = torch.maximum(upper - self._greatest, self._least - lower)
        return (beyond - self._gap * scale).amax(dim=(1, 2))

    def _meet(self, boxes: Sequence[Box]) -> None:
        """Entries at the boxes' middles."""
        x = middles(boxes, self._domain)
        found = self._derivatives.jacobian(x)[:, :, self._columns]
        self._least = torch.minimum(self._least, found.amin(dim=0))
        self._greatest = torch.maximum(self._greatest, found.amax(dim=0))
