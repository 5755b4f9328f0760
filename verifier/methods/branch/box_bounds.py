"""What is known of boxes: bounds of the Jacobian's norm, points of them, and where to cut them.

In l2 the Jacobian is bounded in coordinates in which it is nearly diagonal: U and V orthogonal,
|J|_2 = |U' J V|_2, and off the diagonal entries are as small as J changes in the box. So what their
intervals lose falls with the square of the box's size, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from verifier.methods.branch.box_jacobian import Derivatives, Slopes
from verifier.methods.branch.box_values import Ends, Values, adjoint, applied
from verifier.methods.branch.boxes import Box, Cut
from verifier.methods.domain import Domain
from verifier.methods.duality import ORDERS
from verifier.network.activations.piecewise import Piecewise
from verifier.network.graph import Network
from verifier.network.nodes import Affine, Elementwise
from verifier.norms import Norm, NormPair

_INSIDE = 1e-9  #: of an interval, by which a kink must lie inside to be cut
_BEYOND = 1e-7  #: of an interval's ends, by which a cut must leave it out for a box to be empty


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Asked:
    """What is bounded."""

    lowered: Network
    measured: Network  #: the same in coordinates in which the input norm is plain
    domain: Domain
    norm: NormPair
    moving: Bool[Tensor, " inputs"]  #: the inputs that vary
    known: Mapping[str, Ends]  #: what enters the gates in the whole region

    @property
    def gates(self) -> list[Elementwise]:
        """In topological order; cuts count them from 1."""
        return [node for node in self.lowered.nodes if isinstance(node, Elementwise)]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Bounded:
    """Of some boxes."""

    bounds: Float64[Tensor, " boxes"]
    cuts: Sequence[Cut]  #: where each had best be cut


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Evaluated:
    """What enters the gates in some boxes, their slopes, and the Jacobian."""

    box: Ends
    values: Values
    slopes: Mapping[str, Slopes]
    derivatives: Derivatives
    is_empty: Bool[Tensor, " boxes"]  #: a cut of a gate leaves nothing of what enters it


def evaluated(
    asked: Asked, boxes: Sequence[Box], rows: Float64[Tensor, "rows outputs"]
) -> Evaluated:
    """Bounds of C J over every box."""
    box = Ends(
        lower=torch.stack([each.lower for each in boxes]),
        upper=torch.stack([each.upper for each in boxes]),
    )
    values = Values(asked.lowered, asked.domain, box, asked.known)
    is_empty = _narrow(asked, values, boxes)
    slopes = {node.name: Slopes.of(node, values.entering[node.name]) for node in asked.gates}
    each = rows.expand(len(boxes), *rows.shape)
    derivatives = Derivatives(asked.measured, values, slopes, each)
    return Evaluated(
        box=box, values=values, slopes=slopes, derivatives=derivatives, is_empty=is_empty
    )


def bounded(asked: Asked, boxes: Sequence[Box], rows: Float64[Tensor, "rows outputs"]) -> Bounded:
    """Bounds of |C J| over every box, and cuts.

    Args:
        asked: the question.
        boxes: within the least box around the region.
        rows: C.
    """
    found = evaluated(asked, boxes, rows)
    derivatives = found.derivatives
    columns = torch.nonzero(asked.moving).flatten()
    unit = torch.eye(asked.lowered.input_size, dtype=torch.float64)[columns][None]
    lower, upper = derivatives.entries(unit)
    magnitudes = torch.maximum(-lower, upper)
    sums = magnitudes.sum(dim=2)
    if asked.norm.input is Norm.LINF:
        full = lower.new_zeros(*lower.shape[:2], asked.lowered.input_size)
        ends = [full.index_copy(2, columns, end) for end in (lower, upper)]
        sums = torch.minimum(sums, derivatives.sums(*ends))
    bounds = _norms(asked.norm, magnitudes, sums)
    if asked.norm.input is Norm.L2 and asked.norm.output is not Norm.L1:
        turned = _turned(asked, found, rows, (lower + upper) / 2)
        bounds = torch.minimum(bounds, turned)
    bounds = torch.where(found.is_empty, 0.0, bounds)
    return Bounded(bounds=bounds, cuts=best_cuts(asked, found, rows))


def _narrow(asked: Asked, values: Values, boxes: Sequence[Box]) -> Bool[Tensor, " boxes"]:
    """What the boxes' cuts of gates leave of the intervals; which boxes they leave nothing of."""
    is_empty = torch.zeros(len(boxes), dtype=torch.bool)
    for place, node in enumerate(asked.gates, start=1):
        here = values.entering[node.name]
        lower, upper = here.lower.clone(), here.upper.clone()
        has_cuts = False
        for row, box in enumerate(boxes):
            for (gate, entry), (low, high) in box.ends.items():
                if gate == place:
                    has_cuts = True
                    lower[row, entry] = lower[row, entry].clamp(min=low)
                    upper[row, entry] = upper[row, entry].clamp(max=high)
        if has_cuts:
            size = torch.maximum(here.lower.abs(), here.upper.abs())
            is_empty |= (upper + _BEYOND * size < lower).any(dim=1)
            values.set(node, Ends(lower=torch.minimum(lower, upper), upper=upper))
    return is_empty


def _norms(
    norm: NormPair,
    magnitudes: Float64[Tensor, "boxes rows inputs"],
    sums: Float64[Tensor, "boxes rows"],
) -> Float64[Tensor, " boxes"]:
    """The operator norm of all matrices within, as in `verifier.methods.propagation.norms`."""
    match norm.input, norm.output:
        case Norm.L1, output:
            return torch.linalg.vector_norm(magnitudes, ORDERS[output], dim=1).amax(dim=1)
        case Norm.L2, Norm.L1:
            return torch.linalg.vector_norm(magnitudes.sum(dim=1), dim=1)
        case Norm.L2, Norm.L2:
            return torch.linalg.matrix_norm(magnitudes, 2)
        case Norm.L2, Norm.LINF:
            return torch.linalg.vector_norm(magnitudes, dim=2).amax(dim=1)
        case Norm.LINF, output:
            return torch.linalg.vector_norm(sums, ORDERS[output], dim=1)


def _turned(
    asked: Asked,
    found: Evaluated,
    rows: Float64[Tensor, "rows outputs"],
    middle: Float64[Tensor, "boxes rows moving"],
) -> Float64[Tensor, " boxes"]:
    """Of l2 inputs, in singular directions of the middle: of all rows, or of each row by itself."""
    count = len(rows)
    apart = asked.norm.output is Norm.LINF
    parts = middle.flatten(0, 1)[:, None] if apart else middle
    left, _, right = torch.linalg.svd(parts, full_matrices=True)
    columns = torch.nonzero(asked.moving).flatten()
    size = asked.lowered.input_size
    directions = right.new_zeros(len(right), len(columns), size).index_copy(2, columns, right)
    if apart:
        turned = rows.expand(len(middle), *rows.shape)
    else:
        directions = directions.repeat_interleave(count, dim=0)
        turned = left.mT @ rows
    lower, upper = Derivatives(asked.measured, found.values, found.slopes, turned).entries(
        directions
    )
    magnitudes = torch.maximum(-lower, upper)
    return _norms(asked.norm, magnitudes, magnitudes.sum(dim=2))


def best_cuts(
    asked: Asked, found: Evaluated, rows: Float64[Tensor, "rows outputs"], *, kinks: bool = True
) -> list[Cut]:
    """Every box's best cut by estimate: halves of an input, or sides of a kink.

    With g the derivatives behind a gate and d those before it, at the middle slopes, a gate whose
    slopes differ by w costs about c = w max|g| |d|_1. A cut at its kink saves c. A cut of the
    input k halves that share of c which k has in the width of what enters the gate.
    """
    box, slopes = found.box, found.slopes
    before, behind = _middle(asked, slopes, rows)
    width = box.upper - box.lower
    halves = torch.zeros_like(width)
    best = torch.full((len(width),), -1.0, dtype=torch.float64)
    chosen: list[Cut | None] = [None] * len(width)
    for place, node in enumerate(asked.gates, start=1):
        own = slopes[node.name]
        moved = before[node.name].abs() * width[:, :, None]
        share = moved / moved.sum(dim=1, keepdim=True).clamp(min=1e-300)
        length = (before[node.name].abs() * asked.moving[:, None]).sum(dim=1)
        cost = (own.greatest - own.least) * behind[node.name].abs().amax(dim=1) * length
        halves += (share * cost[:, None]).sum(dim=2) / 2
        if not kinks:
            continue
        kink, is_inside = _kinks(node, found.values.entering[node.name])
        most, entry = torch.where(is_inside, cost, -1.0).max(dim=1)
        for row in torch.nonzero(best < most).flatten().tolist():
            best[row] = most[row]
            at = int(entry[row])
            chosen[row] = Cut(place, at, float(kink[row, at]))
    halves = torch.where(0 < width, halves + 1e-12 * width / width.amax(), -1.0)
    score, entry = halves.max(dim=1)
    middle = (box.lower + box.upper) / 2
    return [
        cut
        if cut is not None and score[row] < best[row]
        else Cut(0, int(entry[row]), float(middle[row, entry[row]]))
        for row, cut in enumerate(chosen)
    ]


def _middle(
    asked: Asked, slopes: Mapping[str, Slopes], rows: Float64[Tensor, "rows outputs"]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Derivatives of what enters the gates by the input, and of C f by what leaves them."""
    size = asked.lowered.input_size
    forward: dict[str, Tensor] = {"": torch.eye(size, dtype=torch.float64)[None]}
    before: dict[str, Tensor] = {}
    middles = {name: (each.least + each.greatest) / 2 for name, each in slopes.items()}
    for node in asked.lowered.nodes:
        if isinstance(node, Affine):
            parts = [applied(term.map, forward[term.source]) for term in node.terms]
            forward[node.name] = sum(parts[1:], parts[0])
        elif isinstance(node, Elementwise):
            before[node.name] = forward[node.source]
            forward[node.name] = forward[node.source] * middles[node.name][:, None]
    back: dict[str, Tensor] = {asked.lowered.output: rows[None]}
    behind: dict[str, Tensor] = {}
    for node in reversed(asked.lowered.nodes):
        own = back.pop(node.name, None)
        if isinstance(node, Elementwise):
            own = rows.new_zeros(1, len(rows), node.size) if own is None else own
            behind[node.name] = own
            parts = [(node.source, own * middles[node.name][:, None])]
        elif own is None:
            continue
        else:
            terms = node.terms if isinstance(node, Affine) else ()
            parts = [(term.source, adjoint(term.map, own)) for term in terms]
        for source, part in parts:
            back[source] = back[source] + part if source in back else part
    return before, behind


def _kinks(
    node: Elementwise, here: Ends
) -> tuple[Float64[Tensor, "boxes n"], Bool[Tensor, "boxes n"]]:
    """Of every entry the kink nearest to the middle of its interval, and whether it is inside."""
    middle = (here.lower + here.upper) / 2
    inset = _INSIDE * (here.upper - here.lower)
    kink, found = torch.zeros_like(middle), torch.zeros_like(middle, dtype=torch.bool)
    if not isinstance(node.function, Piecewise):
        return kink, found
    for at in node.function.kinks:
        left, right = node.function.sides(torch.full_like(middle, at))
        inside = (left != right) & (here.lower + inset < at) & (at < here.upper - inset)
        better = inside & (~found | ((at - middle).abs() < (kink - middle).abs()))
        kink = torch.where(better, at, kink)
        found = found | inside
    return kink, found
