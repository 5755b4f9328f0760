"""Sums of squares behind a root, found among the network's nodes: their root is a length.

    s_o = sum_j w_oj x_oj^2 + c_o,    0 <= w, 0 <= c

along affine nodes back to squares. The root of a tensor t is a function of every entry where each
entry has one square of its own, one weight and one 0 < c for all. Otherwise it is three nodes, as
the checker names them too: "t:parts", entries times the roots of their weights, with sqrt(c) in
the last place of each; "t:length"; and "t".
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from verifier.network import elementwise as functions
from verifier.network.blocks import Length
from verifier.network.graph import Grouped
from verifier.network.linear_map import (
    Adjoint,
    Composed,
    Convolution,
    Dense,
    Diagonal,
    Gather,
    Identity,
    LinearMap,
)
from verifier.network.nodes import Affine, Elementwise, Term
from verifier.onnx_import.convert.emitted import (
    Emitted,
    elementwise,
    gather,
    index_tensor,
    tensor,
    then,
)
from verifier.onnx_import.values import Signal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from verifier.network.graph import Node
    from verifier.onnx_import.call import Call
    from verifier.onnx_import.values import Shape

Array: TypeAlias = np.ndarray

MOST: Final = 2**22  #: entries of a table of rows
WIDEST: Final = 2**12  #: entries of one length
DEEPEST: Final = 12  #: affine nodes between a root and its squares


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Of every output of a map, the entries that it adds up (-1: none) and their weights."""

    index: Array
    weight: Array
    in_size: int

    def after(self, first: Rows) -> Rows | None:
        """These rows of those."""
        width = self.index.shape[1] * first.index.shape[1]
        if MOST < len(self.index) * width:
            return None
        picked = np.maximum(self.index, 0)
        gone = (self.index[:, :, None] < 0) | (first.index[picked] < 0)
        weight = self.weight[:, :, None] * first.weight[picked]
        return Rows(
            np.where(gone, -1, first.index[picked]).reshape(-1, width),
            np.where(gone, 0.0, weight).reshape(-1, width),
            first.in_size,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Squares:
    """The rows of weights by the signal that is squared, and c."""

    parts: dict[str, Rows]
    shift: Array


def rows_of(linear: LinearMap) -> Rows | None:
    """The rows of a map; None where they are too many."""
    match linear:
        case Identity():
            return _plain(np.arange(linear.size), linear.size)
        case Gather():
            return _plain(linear.index.numpy(), linear.in_size)
        case Diagonal():
            places = np.arange(linear.in_size)[:, None]
            return Rows(places, linear.scale.numpy()[:, None], linear.in_size)
        case Dense():
            return _of_matrix(linear)
        case Convolution():
            return _of_kernel(linear)
        case Composed():
            first, second = rows_of(linear.first), rows_of(linear.second)
            return None if first is None or second is None else second.after(first)
        case Adjoint():
            found = rows_of(linear.of)
            return None if found is None else _transposed(found)
        case _:
            return None


def _plain(index: Array, in_size: int) -> Rows:
    return Rows(index[:, None], np.where(index < 0, 0.0, 1.0)[:, None], in_size)


def _of_matrix(linear: Dense) -> Rows | None:
    height, width = linear.weight.shape
    if MOST < linear.outer * height * width:
        return None
    index = np.arange(linear.in_size).reshape(linear.outer, 1, width)
    index = np.broadcast_to(index, (linear.outer, height, width)).reshape(-1, width)
    return Rows(index, np.tile(linear.weight.numpy(), (linear.outer, 1)), linear.in_size)


def _of_kernel(linear: Convolution) -> Rows | None:
    """Every output's window, found by sending the places themselves through one-hot kernels."""
    channels, inner, *window = linear.kernel.shape
    width = inner * prod(window)
    if MOST < linear.out_size * width:
        return None
    places = np.arange(1, linear.in_size + 1, dtype=np.float64)  # 0 stands for padding
    one_hot = np.tile(np.eye(width), (linear.groups, 1)).reshape(-1, inner, *window)
    picking = Convolution(
        tensor(one_hot),
        linear.in_shape,
        linear.stride,
        linear.pads,
        linear.dilation,
        linear.groups,
    )
    found = picking.apply(tensor(places)[None])[0].numpy().reshape(linear.groups, width, -1)
    each = np.repeat(found, channels // linear.groups, axis=0).transpose(0, 2, 1)
    index = np.rint(each).astype(np.int64).reshape(-1, width) - 1
    positions = linear.out_size // channels
    weight = np.repeat(linear.kernel.numpy().reshape(channels, -1), positions, axis=0)
    return Rows(index, weight, linear.in_size)


def _transposed(rows: Rows) -> Rows | None:
    size = rows.in_size
    owner, place = np.nonzero(0 <= rows.index)
    target = rows.index[owner, place]
    order = np.argsort(target, kind="stable")
    owner, place, target = owner[order], place[order], target[order]
    counts = np.bincount(target, minlength=size)
    width = int(counts.max(initial=0))
    if MOST < size * width:
        return None
    rank = np.arange(target.size) - np.repeat(np.cumsum(counts) - counts, counts)
    index, weight = np.full((size, width), -1), np.zeros((size, width))
    index[target, rank], weight[target, rank] = owner, rows.weight[owner, place]
    return Rows(index, weight, len(rows.index))


@dataclass(frozen=True, slots=True)
class _Search:
    """Looks back from a root; what is found of a signal is found once."""

    nodes: Mapping[str, Node]
    known: dict[str, Squares | None]

    def squares(self, name: str, depth: int = DEEPEST) -> Squares | None:
        """What the signal is the sum of, if of squares."""
        if name not in self.known:
            found: Squares | None = None
            match node := self.nodes.get(name):
                case Elementwise(function=functions.Power(exponent=2.0)):
                    own = _plain(np.arange(node.size), node.size)
                    found = Squares({node.source: own}, np.zeros(node.size))
                case Affine() if 0 < depth and bool((0 <= node.bias).all()):
                    found = self._of_sum(node, depth)
                case _:
                    pass
            self.known[name] = found
        return self.known[name]

    def _of_sum(self, node: Affine, depth: int) -> Squares | None:
        parts: dict[str, Rows] = {}
        shift = node.bias.numpy().copy()
        for term in node.terms:
            inner = self.squares(term.source, depth - 1)
            rows = None if inner is None else rows_of(term.map)
            if inner is None or rows is None or (rows.weight < 0).any():
                return None
            shift += (rows.weight * inner.shift[np.maximum(rows.index, 0)]).sum(axis=1)
            for name, of_part in inner.parts.items():
                whole = rows.after(of_part)
                if whole is None:
                    return None
                parts[name] = _beside(parts.get(name), whole)
            if MOST < node.size * sum(rows.index.shape[1] for rows in parts.values()):
                return None
        return Squares(parts, shift)


def _beside(one: Rows | None, other: Rows) -> Rows:
    if one is None:
        return other
    return Rows(
        np.concatenate([one.index, other.index], axis=1),
        np.concatenate([one.weight, other.weight], axis=1),
        one.in_size,
    )


def root(call: Call, x: Signal, nodes: Mapping[str, Node]) -> Emitted | None:
    """The root of the signal, if that is a sum of squares."""
    found = _Search(nodes, {}).squares(x.node)
    if found is None:
        return None
    alike = _alike(found)
    if alike is not None:
        source, weight, shift = alike
        function = functions.RootOfSquare(x.size, weight, shift)
        return elementwise(call, Signal(source, x.shape, x.dtype), function)
    return _length(call, x, found)


def _alike(found: Squares) -> tuple[str, float, float] | None:
    if len(found.parts) != 1:
        return None
    ((source, rows),) = found.parts.items()
    size = len(found.shift)
    own = np.arange(size)[:, None]
    if rows.in_size != size or not np.array_equal(rows.index, own) or not 0 < found.shift[0]:
        return None
    weight, shift = float(rows.weight[0, 0]), float(found.shift[0])
    if (rows.weight != weight).any() or (found.shift != shift).any() or not 0 < weight:
        return None
    return source, weight, shift


def _length(call: Call, x: Signal, found: Squares) -> Emitted | None:
    has_shift = bool(found.shift.any())
    width = sum(rows.index.shape[1] for rows in found.parts.values()) + has_shift
    if not 0 < width <= WIDEST:
        return None
    terms: list[Term] = []
    start = 0
    for source, rows in found.parts.items():
        end = start + rows.index.shape[1]
        index, weight = np.full((x.size, width), -1), np.zeros((x.size, width))
        index[:, start:end], weight[:, start:end] = rows.index, np.sqrt(rows.weight)
        terms.append(Term(source, _weighted(index, weight, rows.in_size)))
        start = end
    bias = np.zeros((x.size, width))
    if has_shift:
        bias[:, -1] = np.sqrt(found.shift)
    name = f"{call.output}:parts"
    parts = Affine(name, tuple(terms), tensor(bias.reshape(-1)))
    made = lengths(call, name, np.arange(bias.size).reshape(bias.shape), x.shape)
    return Emitted((parts, *made.nodes), x.shape)


def _weighted(index: Array, weight: Array, in_size: int) -> LinearMap:
    picked = gather(index, in_size)
    flat = weight.reshape(-1)
    return picked if (flat == 1.0).all() else then(picked, Diagonal(tensor(flat)))


def lengths(call: Call, source: str, groups: Array, shape: Shape) -> Emitted:
    """The lengths of groups that cover a signal, picked out."""
    name = f"{call.output}:length"
    block = Grouped(name, source, Length(index_tensor(groups).reshape(groups.shape)))
    picked = gather(np.ascontiguousarray(groups[:, 0]), groups.size)
    node = Affine(call.output, (Term(name, picked),), tensor(np.zeros(len(groups))))
    return Emitted((block, node), shape)
