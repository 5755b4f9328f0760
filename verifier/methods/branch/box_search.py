"""Best first over boxes: those of the greatest bounds are cut in two, and their parts bounded.

Where slopes change smoothly, or inputs are few, smaller boxes have tighter bounds of everything:
of what enters the gates, of their slopes, and of how slopes follow the input. A box is done when
its bound is at most the threshold of its item, as in `verifier.methods.branch.search`; its middle
is a point whose slope the constant is not below.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import count

import torch

from verifier.certificate import JACOBIAN, Candidate, ForwardProof, TreeItem, TreeProof
from verifier.methods.branch.box_bounds import Asked, bounded
from verifier.methods.branch.box_values import Ends
from verifier.methods.branch.boxes import Box, Cut, middles, tree_of
from verifier.methods.derivatives import Derivatives
from verifier.methods.domain import Domain
from verifier.methods.items import items_of, varying_inputs
from verifier.methods.progress import Aim
from verifier.methods.propagation import affordable, jacobian_work, pulled_back
from verifier.methods.weights import Measure, fronted, plain_norms
from verifier.network.activations.piecewise import PiecewiseLinear
from verifier.network.graph import Network
from verifier.network.nodes import Elementwise
from verifier.property import Property
from verifier.regions import Everywhere

_ENTRIES = 2**21  #: of the functions of a batch
_WIDEST = 256  #: boxes of a batch
_LEAST_GAP = 2e-9
SLACK = 1e-8  #: by which estimates exceed what is found here: the checker rounds outward


class BoxSearch:
    """One run over a region that is a box or a ball; the candidate is a tree for every item."""

    def __init__(self, network: Network, asked: Property, aim: Aim) -> None:
        """Raises InvalidRequest where the property selects what does not exist."""
        region = asked.place
        if isinstance(region, Everywhere):
            raise TypeError("boxes are parts of a region")
        inputs = varying_inputs(asked, network.input_size)
        self._domain = Domain.of(region, network.input_size)
        inputs = inputs[0 < self._domain.reach[inputs]]
        moving = torch.zeros(network.input_size, dtype=torch.bool)
        moving[inputs] = True
        self._items = items_of(asked, network.output_size)
        self._aim, self._patterns = aim, network.patterns
        lowered = network.lowered("compare")
        forward, entering = affordable(lowered, self._domain)
        self._forward: ForwardProof = forward.proof
        self._asked = Asked(
            lowered=lowered,
            measured=fronted(lowered, asked.norm, inputs),
            domain=self._domain,
            norm=plain_norms(asked.norm),
            moving=moving,
            known={
                node.name: Ends(
                    lower=entering[node.gate][0][None], upper=entering[node.gate][1][None]
                )
                for node in lowered.nodes
                if isinstance(node, Elementwise)
            },
        )
        self._measure = Measure.of(asked.norm, inputs, network.input_size)
        self._varying = moving.double()
        self._rows = torch.cat([item.rows for item in self._items])
        self._derivatives = Derivatives(network, self._rows)
        counts = [len(item.rows) for item in self._items]
        self._own = torch.arange(sum(counts)).split(counts)
        self.steepest = [0.0] * len(counts)
        self._best = [self._domain.center] * len(counts)
        self._waiting: list[tuple[float, int, Box, Cut]] = []
        self._order = count()
        lower, upper = self._domain.ends
        self.roots = [Box(item=item, lower=lower, upper=upper) for item in range(len(self._items))]
        self.leaves = len(self.roots)

    def start(self) -> None:
        """Bound the whole region."""
        for root in self.roots:
            self._bound([root])

    @property
    def inputs(self) -> int:
        """How many vary."""
        return int(self._asked.moving.sum())

    @property
    def gates(self) -> int:
        """How many neurons have one."""
        return sum(node.size for node in self._asked.gates)

    @property
    def bends(self) -> bool:
        """Whether some slope changes other than at kinks."""
        return any(not isinstance(node.function, PiecewiseLinear) for node in self._asked.gates)

    @property
    def multiplications(self) -> float:
        """Of one box, about."""
        slopes = {
            node.gate: node.function.slope_range_on(here.lower[0], here.upper[0])
            for node in self._asked.gates
            for here in [self._asked.known[node.name]]
        }
        rows, inputs = max(len(item.rows) for item in self._items), self.inputs
        costs = pulled_back(self._asked.lowered)
        forward = sum(
            2.0 * costs[node.source] * int(torch.count_nonzero(least < greatest))
            for node in self._asked.gates
            for least, greatest in [slopes[node.gate]]
        )
        return forward + 2 * jacobian_work(self._asked.measured, slopes, rows, inputs)

    @property
    def excess(self) -> float | None:
        """The share by which the first box's bound exceeds the steepest slope of its item."""
        if not self._waiting:
            return None
        box = self._waiting[0][2]
        return max(box.bound / max(self.steepest[box.item], 1e-300) - 1, 0.0)

    @property
    def waiting(self) -> int:
        """How many boxes may still be cut."""
        return len(self._waiting)

    def advance(self) -> bool:
        """One batch; whether there was any."""
        parts: list[Box] = []
        while self._waiting and len(parts) < 2 * self._width:
            _, _, box, cut = heapq.heappop(self._waiting)
            if self._is_done(box):
                continue
            if parts and parts[0].item != box.item:
                self._push(box, cut)
                break
            self.leaves += 1
            parts += box.divided(cut)
        left = [part for part in parts if not part.emptied(self._domain)]
        if left:
            self._bound(left)
        return 0 < len(self._waiting)

    def candidate(self) -> Candidate:
        """The trees as they are."""
        return Candidate(
            method="branch",
            estimates=tuple(root.greatest() * (1 + SLACK) for root in self.roots),
            proof=TreeProof(
                patterns=self._patterns,
                forward=self._forward,
                gates=("", *(node.gate for node in self._asked.gates)),
                items=tuple(TreeItem(rows=(), trees=(tree_of(root),)) for root in self.roots),
            ),
            points=tuple(tuple(x.tolist()) for x in self._best),
        )

    @property
    def _width(self) -> int:
        """How many boxes fit into a batch."""
        sizes = self._asked.lowered.sizes.values()
        rows = max(len(item.rows) for item in self._items)
        return max(1, min(_WIDEST, _ENTRIES // (2 * rows * max(sizes) ** 2)))

    def _bound(self, boxes: Sequence[Box]) -> None:
        """Bounds and next cuts of boxes of one item."""
        self._meet(boxes)
        item = self._items[boxes[0].item]
        found = bounded(self._asked, boxes, item.rows)
        for box, bound, cut in zip(boxes, found.bounds.tolist(), found.cuts, strict=True):
            box.bound = bound
            if not self._is_done(box):
                self._push(box, cut)

    def _push(self, box: Box, cut: Cut) -> None:
        reached = max(self.steepest[box.item], 1e-300)
        heapq.heappush(self._waiting, (-box.bound / reached, next(self._order), box, cut))

    def _is_done(self, box: Box) -> bool:
        enough = self.steepest[box.item] * (1 + max(self._aim.gap / 2, _LEAST_GAP))
        if len(self._items) == 1:
            enough = max(enough, self._aim.enough)
        return box.kind != JACOBIAN or box.bound <= enough

    def _meet(self, boxes: Sequence[Box]) -> None:
        """Slopes at the boxes' middles."""
        x = middles(boxes, self._domain)
        jacobian = self._derivatives.jacobian(x) * self._varying
        for item, own in enumerate(self._own):
            value, place = self._measure.attained(jacobian[:, own]).value.max(dim=0)
            if self.steepest[item] < float(value):
                self.steepest[item], self._best[item] = float(value), x[place]
