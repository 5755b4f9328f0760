"""Nonlinear functions of groups of entries: sorting, reflection, maximum.

Each states the norm that its increments keep, and how it is made of affine maps and |.| alone
(`lowered`), which is exact over the reals:

    max(a, b) = (a + b)/2 + |a - b|/2,    y = x - v (v.x) + v |v.x| for a mirror v.

Gates of a lowered node are named after it, in the order that the certificate fixes: "t" for pairs
and mirrors, "t#0", "t#1", ... for the comparisons of a tournament or of a sorting network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from verifier.network.elementwise import Abs
from verifier.network.linear_map import Adjoint, Composed, Diagonal, Gather, Identity, LinearMap
from verifier.network.nodes import Elementwise, Lowered, Term, linear
from verifier.norms import Norm

if TYPE_CHECKING:
    from collections.abc import Sequence


@runtime_checkable
class Group(Protocol):
    """A function of groups of entries."""

    @property
    def size(self) -> int:
        """The number of entries that leave."""
        ...

    def forward(self, x: Float64[Tensor, "batch n"]) -> Float64[Tensor, "batch m"]:
        """The function of every row."""
        ...

    def norm_bound(self, norm: Norm) -> float:
        """|f(x) - f(y)| <= this |x - y|, both in `norm`, for all x, y."""
        ...

    def lowered(self, name: str, source: str) -> tuple[Lowered, ...]:
        """The same function from affine nodes and gates; the last node is called `name`.

        The affine node that enters a gate is called "<gate>:in".
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class GroupSort:
    """Entries sorted within disjoint groups that cover the signal; MaxMin is n = 2.

    `groups[g]` are the flat input indices of group g, `places[g]` the flat output indices that
    receive its values, smallest first. Groups are ordered by their smallest input index, and the
    indices within a group ascend.
    """

    groups: Int64[Tensor, "groups n"]
    places: Int64[Tensor, "groups n"]

    @property
    def size(self) -> int:
        """The number of entries that leave."""
        return self.groups.numel()

    def forward(self, x: Float64[Tensor, "batch n"]) -> Float64[Tensor, "batch m"]:
        """The sorted values of every row, at their places."""
        out = torch.empty_like(x)
        out[:, self.places] = x[:, self.groups].sort(dim=-1).values
        return out

    def norm_bound(self, norm: Norm) -> float:  # noqa: ARG002 (the same in every norm)
        """1: sorted differences are a doubly stochastic average of the differences."""
        return 1.0

    def lowered(self, name: str, source: str) -> tuple[Lowered, ...]:
        """One comparison for pairs; else the odd-even transposition network of n rounds."""
        columns = [self._column(j) for j in range(self.groups.shape[1])]
        comparisons = [
            (low, low + 1)
            for turn in range(len(columns) if 2 < len(columns) else 1)
            for low in range(turn % 2, len(columns) - 1, 2)
        ]
        sorting = _Comparisons(name, [Part(source, column) for column in columns])
        for count, (low, high) in enumerate(comparisons):
            gate = name if len(columns) == 2 else f"{name}#{count}"
            sorting.compare(gate, low, high)
        return sorting.merged([self.places[:, j] for j in range(len(columns))], self.size)

    def _column(self, j: int) -> LinearMap:
        return Gather(self.groups[:, j], self.size)


@dataclass(frozen=True, slots=True, eq=False)
class Householder:
    """x - v (v.x) + v |v.x| within disjoint slices that cover the signal."""

    slices: Int64[Tensor, "slices n"]
    vectors: Float64[Tensor, "slices n"]

    @property
    def size(self) -> int:
        """The number of entries that leave."""
        return self.slices.numel()

    def forward(self, x: Float64[Tensor, "batch n"]) -> Float64[Tensor, "batch m"]:
        """The folded rows."""
        inner = x[:, self.slices]
        along = (inner * self.vectors).sum(dim=-1, keepdim=True)
        out = torch.empty_like(x)
        out[:, self.slices] = inner + self.vectors * (along.abs() - along)
        return out

    def norm_bound(self, norm: Norm) -> float:
        """max(1, |I - 2vv'|): on one side the identity, on the other a reflection."""
        if norm is Norm.L2:
            squares = self.vectors.square().sum(dim=-1)
            return max(1.0, float((1 - 2 * squares).abs().max()))
        mirrors = torch.eye(self.slices.shape[1], dtype=torch.float64) - 2 * (
            self.vectors[:, :, None] * self.vectors[:, None, :]
        )
        # A mirror is symmetric, so row and column sums agree: l1 and linf are one number.
        return max(1.0, float(mirrors.abs().sum(dim=-1).max()))

    def lowered(self, name: str, source: str) -> tuple[Lowered, ...]:
        """v.x into one gate |.| a slice, and back along v."""
        along = self._along()
        count = self.slices.shape[0]
        fold = Composed(along, Adjoint(along))
        gate = name + ":gate"
        return (
            linear(f"{name}:in", (Term(source, along),)),
            Elementwise(gate, f"{name}:in", Abs(count), gate=name),
            linear(
                name,
                (
                    Term(source, Identity(self.size)),
                    Term(source, Composed(fold, Diagonal(-_ones(self.size)))),
                    Term(gate, Adjoint(along)),
                ),
            ),
        )

    def _along(self) -> LinearMap:
        """X to v.x of every slice."""
        scale = torch.zeros(self.size, dtype=torch.float64)
        scale[self.slices.flatten()] = self.vectors.flatten()
        owner = torch.empty(self.size, dtype=torch.int64)
        owner[self.slices] = torch.arange(self.slices.shape[0])[:, None].expand_as(self.slices)
        return Composed(Diagonal(scale), Adjoint(Gather(owner, self.slices.shape[0])))


@dataclass(frozen=True, slots=True, eq=False)
class Maximum:
    """The greatest (sign 1) or least (sign -1) entry of each window.

    `windows[j]` are flat input indices in kernel order; a missing place repeats the first of them.
    """

    windows: Int64[Tensor, "out k"]
    in_size: int
    sign: int = 1

    @property
    def size(self) -> int:
        """The number of entries that leave."""
        return self.windows.shape[0]

    def forward(self, x: Float64[Tensor, "batch n"]) -> Float64[Tensor, "batch m"]:
        """The extreme entries of every row's windows."""
        choose = torch.maximum if self.sign == 1 else torch.minimum
        first, *others = self.windows.T
        best = x.index_select(1, first)
        for places in others:
            best = choose(best, x.index_select(1, places))
        return best

    @property
    def overlap(self) -> int:
        """The most windows that share one entry."""
        members = self.windows[self._is_first_copy()]
        return int(torch.bincount(members, minlength=self.in_size).max())

    def _is_first_copy(self) -> Bool[Tensor, "out k"]:
        """Places that do not repeat the window's first entry."""
        mask = self.windows != self.windows[:, :1]
        mask[:, 0] = True
        return mask

    def norm_bound(self, norm: Norm) -> float:
        """1 in linf; an entry counts once for each window that it wins: overlap, or its root."""
        match norm:
            case Norm.LINF:
                return 1.0
            case Norm.L2:
                return math.sqrt(self.overlap)
            case Norm.L1:
                return float(self.overlap)

    def lowered(self, name: str, source: str) -> tuple[Lowered, ...]:
        """A tournament of comparisons, round by round."""
        count = self.windows.shape[1]
        parts = [Part(source, Gather(self.windows[:, j], self.in_size)) for j in range(count)]
        tournament = _Comparisons(name, parts)
        current, gates = list(range(count)), 0
        while 1 < len(current):
            winners: list[int] = []
            for left, right in zip(current[::2], current[1::2], strict=False):
                tournament.compare(f"{name}#{gates}", left, right)
                winners.append(right if self.sign == 1 else left)
                gates += 1
            current = winners + ([current[-1]] if len(current) % 2 else [])
        return tournament.only(current[0])


@dataclass(frozen=True, slots=True)
class Part:
    """A vector on its way through comparisons: a linear map of a signal."""

    source: str
    map: LinearMap


class _Comparisons:
    """Compare-exchange steps on vectors: afterwards `low` holds the minima, `high` the maxima.

    A step on a and b adds the gate |a - b| and two affine nodes, (a + b -+ |a - b|)/2.
    """

    def __init__(self, name: str, parts: Sequence[Part]) -> None:
        self._name = name
        self._parts = list(parts)
        self._nodes: list[Lowered] = []

    def compare(self, gate: str, low: int, high: int) -> None:
        """Exchange vectors `low` and `high` where they are in the wrong order."""
        a, b = self._parts[low], self._parts[high]
        size = a.map.out_size

        def scaled(part: Part, factor: float) -> Term:
            return Term(part.source, Composed(part.map, Diagonal(_ones(size) * factor)))

        node = f"{gate}:gate"
        self._nodes += [
            linear(f"{gate}:in", (Term(a.source, a.map), scaled(b, -1.0))),
            Elementwise(node, f"{gate}:in", Abs(size), gate=gate),
        ]
        for place, sign, end in ((low, -0.5, "min"), (high, 0.5, "max")):
            terms = (scaled(a, 0.5), scaled(b, 0.5), Term(node, Diagonal(_ones(size) * sign)))
            self._nodes.append(linear(f"{gate}:{end}", terms))
            self._parts[place] = Part(f"{gate}:{end}", Identity(size))

    def merged(self, places: Sequence[Int64[Tensor, " groups"]], size: int) -> tuple[Lowered, ...]:
        """The nodes, and one that puts vector j at places[j] of the output."""
        terms = tuple(
            Term(part.source, Composed(part.map, Adjoint(Gather(place, size))))
            for part, place in zip(self._parts, places, strict=True)
        )
        return (*self._nodes, linear(self._name, terms))

    def only(self, place: int) -> tuple[Lowered, ...]:
        """The nodes that lead to one vector, under the name of the whole."""
        part = self._parts[place]
        whole = linear(self._name, (Term(part.source, part.map),))
        read = {source for node in (*self._nodes, whole) for source in node.sources}
        return (*(node for node in self._nodes if node.name in read), whole)


def _ones(size: int) -> Float64[Tensor, " size"]:
    return torch.ones(size, dtype=torch.float64)
