"""Functions of groups of entries: softmax, its logarithm, normalisation, length, cones.

They are not made of gates. What they state is the norm that increments keep; what holds over a
region (values, derivatives) the checker alone knows, and proves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from verifier.norms import Norm


@dataclass(frozen=True, slots=True, eq=False)
class Softmax:
    """exp(x_i) / sum_j exp(x_j) within disjoint groups that cover the signal.

    Entries that are not kept do not count, and what leaves there is 0; every group keeps one.
    """

    groups: Int64[Tensor, "groups n"]
    keeps: Bool[Tensor, "groups n"] | None = None  #: None: all

    @property
    def size(self) -> int:
        """The number of entries that leave."""
        return self.groups.numel()

    def forward(self, x: Float64[Tensor, "batch n"]) -> Float64[Tensor, "batch m"]:
        """The shares of every row."""
        entering = x[:, self.groups]
        if self.keeps is not None:
            entering = entering.masked_fill(~self.keeps, -torch.inf)
        return _placed(x, self.groups, entering.softmax(dim=-1))

    def steepness(self, x: Float64[Tensor, "batch n"]) -> Float64[Tensor, "batch n"]:
        """About the linf norm of the derivatives at every row, by entry."""
        return torch.full_like(x, self.norm_bound(Norm.LINF))

    def norm_bound(self, norm: Norm) -> float:  # noqa: ARG002 (the same in every norm)
        """1/2: rows of the Jacobian sum up to 2 p (1 - p), and it is symmetric."""
        return 0.5 if 1 < self.groups.shape[1] else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class LogSoftmax:
    """x_i - log sum_j exp(x_j) within disjoint groups that cover the signal."""

    groups: Int64[Tensor, "groups n"]

    @property
    def size(self) -> int:
        """The number of entries that leave."""
        return self.groups.numel()

    def forward(self, x: Float64[Tensor, "batch n"]) -> Float64[Tensor, "batch m"]:
        """The logarithms of the shares of every row."""
        return _placed(x, self.groups, x[:, self.groups].log_softmax(dim=-1))

    def steepness(self, x: Float64[Tensor, "batch n"]) -> Float64[Tensor, "batch n"]:
        """About the linf norm of the derivatives at every row, by entry."""
        return torch.full_like(x, self.norm_bound(Norm.LINF))

    def norm_bound(self, norm: Norm) -> float:
        """|I - 1 p'|: sqrt(n) in l2, 2 in linf, n - 1 in l1 (or 1, of two entries)."""
        width = self.groups.shape[1]
        if width == 1:
            return 0.0
        return {Norm.L1: max(1.0, width - 1.0), Norm.L2: math.sqrt(width), Norm.LINF: 2.0}[norm]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Normalise:
    """v/s within disjoint groups that cover the signal.

    "root": s^2 = |v|^2/divisor + epsilon; "floor": s = max(|v|, epsilon), and divisor 1.
    """

    groups: Int64[Tensor, "groups n"]
    epsilon: float
    form: Literal["root", "floor"]
    divisor: float = 1.0

    @property
    def size(self) -> int:
        """The number of entries that leave."""
        return self.groups.numel()

    def forward(self, x: Float64[Tensor, "batch n"]) -> Float64[Tensor, "batch m"]:
        """The normalised rows."""
        v = x[:, self.groups]
        return _placed(x, self.groups, v / self._length(v))

    def _length(self, v: Float64[Tensor, "batch groups n"]) -> Float64[Tensor, "batch groups 1"]:
        if self.form == "floor":
            return torch.linalg.vector_norm(v, dim=-1, keepdim=True).clamp(min=self.epsilon)
        return (v.square().sum(dim=-1, keepdim=True) / self.divisor + self.epsilon).sqrt()

    @property
    def longest(self) -> float:
        """A number that the length of no group exceeds."""
        return 1.0 if self.form == "floor" else math.sqrt(self.divisor)

    def steepness(self, x: Float64[Tensor, "batch n"]) -> Float64[Tensor, "batch n"]:
        """About the linf norm of the derivatives at every row, by entry."""
        v = x[:, self.groups]
        spread = (math.sqrt(self.groups.shape[1]) + 1) / 2
        return _placed(x, self.groups, (spread / self._length(v)).expand_as(v))

    def norm_bound(self, norm: Norm) -> float:
        """1/s at its least in l2; in l1 and linf with the factor of `checker.normalise`."""
        if self.epsilon == 0:
            return math.inf
        least = self.epsilon if self.form == "floor" else math.sqrt(self.epsilon)
        if norm is Norm.L2:
            return 1 / least
        c = (math.sqrt(self.groups.shape[1]) - 1) / 2
        if self.form == "floor":
            return (1 + c) / least
        return math.sqrt(4 * (1 + c) ** 3 / (27 * c)) / least if 0.5 < c else 1 / least


@dataclass(frozen=True, slots=True, eq=False)
class Length:
    """(|v|_2, 0, ..., 0) within disjoint groups that cover the signal."""

    groups: Int64[Tensor, "groups n"]

    @property
    def size(self) -> int:
        """The number of entries that leave."""
        return self.groups.numel()

    def forward(self, x: Float64[Tensor, "batch n"]) -> Float64[Tensor, "batch m"]:
        """The lengths of every row, each at the place of its group's first entry."""
        lengths = torch.zeros_like(x)
        lengths[:, self.groups[:, 0]] = torch.linalg.vector_norm(x[:, self.groups], dim=-1)
        return lengths

    def steepness(self, x: Float64[Tensor, "batch n"]) -> Float64[Tensor, "batch n"]:
        """About the linf norm of the derivatives at every row, by entry."""
        return torch.full_like(x, self.norm_bound(Norm.LINF))

    def norm_bound(self, norm: Norm) -> float:
        """The gradient is a unit vector: |v| moves by |dv|_2, and |dv|_2 <= sqrt(n) |dv|_inf."""
        return math.sqrt(self.groups.shape[1]) if norm is Norm.LINF else 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Cones:
    """A second-order mirror: (a, b) of every group, turned or mirrored by the cone that it is in.

    With the angle t of (a, b) counted from c0/2, in [0, 2 pi): nothing below c1/2, the mirror at
    the line of angle (c0 + c1)/2 below (c1 + c2)/2, the turn by -c2 below c2/2 + pi, else the
    mirror at the line of angle c0/2. Continuous where (c0 + c1 + c2)/2 < pi/2.
    """

    groups: Int64[Tensor, "groups 2"]
    constants: Float64[Tensor, "groups 3"]

    @property
    def size(self) -> int:
        """The number of entries that leave."""
        return self.groups.numel()

    def forward(self, x: Float64[Tensor, "batch n"]) -> Float64[Tensor, "batch m"]:
        """Angles t and lengths, and back."""
        c0, c1, c2 = self.constants.T
        pair = torch.view_as_complex(x[:, self.groups])
        angle = pair.angle()
        t = (angle - c0 / 2).remainder(2 * math.pi)
        turned = torch.where(t < c2 / 2 + math.pi, angle - c2, c0 - angle)
        turned = torch.where(t < (c1 + c2) / 2, c0 + c1 - angle, turned)
        turned = torch.where(t < c1 / 2, angle, turned)
        return _placed(x, self.groups, torch.view_as_real(torch.polar(pair.abs(), turned)))

    def steepness(self, x: Float64[Tensor, "batch n"]) -> Float64[Tensor, "batch n"]:
        """About the linf norm of the derivatives at every row, by entry."""
        return torch.full_like(x, self.norm_bound(Norm.LINF))

    def norm_bound(self, norm: Norm) -> float:
        """1 in l2: orthogonal on every cone; |cos| + |sin| else."""
        return 1.0 if norm is Norm.L2 else math.sqrt(2)


Block: TypeAlias = Softmax | LogSoftmax | Normalise | Length | Cones
MOST_DERIVATIVES = 2**24  #: of one block; the checker forms no more


def has_many_derivatives(block: Block) -> bool:
    """Whether they are too many for a bound over a region."""
    return MOST_DERIVATIVES < block.groups.numel() * block.groups.shape[1]


def _placed(
    x: Float64[Tensor, "batch n"],
    groups: Int64[Tensor, "groups width"],
    values: Float64[Tensor, "batch groups width"],
) -> Float64[Tensor, "batch n"]:
    out = torch.empty_like(x)
    out[:, groups] = values
    return out
