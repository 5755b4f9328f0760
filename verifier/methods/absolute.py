"""The product of absolute values, estimated: |J| <= |W_L| B_(L-1) |W_(L-1)| .. B_1 |W_1|.

Rows of outputs are carried backwards through the magnitudes of all maps and the steepest slopes;
what arrives bounds the rows of every Jacobian, entry by entry. The checker proves it again
(`verifier.checker.absolute`, which says why sorts pass the greatest entry of their groups).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from verifier.network.graph import Grouped, Network, Node
from verifier.network.grouped import GroupSort, Householder, Maximum
from verifier.network.nodes import Affine, Elementwise, Product

if TYPE_CHECKING:
    from verifier.methods.items import Item

CARRIED_ENTRIES = 2**22  #: of the widest signal, for all rows together


def jacobian_magnitudes(
    network: Network, item: Item, varying: Int64[Tensor, " selected"]
) -> Float64[Tensor, "rows selected"] | None:
    """Numbers that |J| does not exceed, up to rounding; None where there are too many."""
    count = item.rows.shape[0]
    if CARRIED_ENTRIES < count * max(network.sizes.values()):
        return None
    arrived = {network.output: item.rows.abs()}
    for node in reversed(network.nodes):
        if node.name not in arrived:
            continue
        whole = arrived.pop(node.name)
        for source, part in _parts(node, whole, network.sizes):
            arrived[source] = arrived[source] + part if source in arrived else part
    found = arrived.get("", torch.zeros(count, network.input_size, dtype=torch.float64))
    found = found[:, varying]
    return found if bool(torch.isfinite(found).all()) else None


def _parts(
    node: Node, whole: Float64[Tensor, "k m"], sizes: Mapping[str, int]
) -> list[tuple[str, Float64[Tensor, "k _"]]]:
    """What arrives at each signal that enters a node; infinite where slopes are."""
    match node:
        case Affine():
            return [(term.source, term.map.absolute().adjoint(whole)) for term in node.terms]
        case Elementwise():
            lower, upper = node.function.slope_range()
            return [(node.source, whole * torch.maximum(lower.abs(), upper.abs()))]
        case Product():
            return [(source, whole + math.inf) for source in node.sources]
        case Grouped():
            return [(node.source, _through(node, whole, sizes[node.source]))]


def _through(node: Grouped, rows: Float64[Tensor, "k m"], size: int) -> Float64[Tensor, "k n"]:
    """The magnitudes of one group's Jacobians, transposed."""
    result = torch.zeros(rows.shape[0], size, dtype=torch.float64)
    match node.group:
        case GroupSort() as sort:
            result[:, sort.groups] = rows[:, sort.places].amax(dim=2, keepdim=True)
        case Maximum() as best:
            for column in range(best.windows.shape[1]):
                again = (best.windows[:, :column] == best.windows[:, [column]]).any(dim=1)
                result.index_add_(1, best.windows[~again, column], rows[:, ~again])
        case Householder() as mirror:
            size_of = mirror.vectors.abs()
            inner = rows[:, mirror.slices]
            along = (inner * size_of).sum(dim=2, keepdim=True) - inner * size_of
            own = (1 - 2 * size_of.square()).abs().clamp(min=1.0)
            result[:, mirror.slices] = own * inner + 2 * size_of * along
        case _:
            return result + math.inf
    return result
