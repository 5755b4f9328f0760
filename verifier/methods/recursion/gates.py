"""What a nonlinear node is to the recursion: three linear maps and one scale for each psi's owner.

    phi = A v + Q psi,    |psi_g| <= |C_g v|                                                  (1)

for secants of slopes within [a, b]: A = (a + b)/2, Q = (b - a)/2, C = 1, and for sorted groups
of n: A = 1 1'/n, Q an orthonormal basis of 1-perp, C = Q'. Entries with a = b have no psi.

Maps act on rows, as `LinearMap` does: `inflow` is C, `through` A and `noise` Q. `owner` says which
of a proof's `size` scales belongs to each psi; searches see the `multipliers` that some psi has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from verifier.methods.lipsdp import Slopes, helmert
from verifier.network.grouped import GroupSort


@dataclass(frozen=True, slots=True, eq=False)
class Scalars:
    """Scalar functions with slopes in [lower, upper]."""

    name: str  #: what proofs call the node
    middle: Float64[Tensor, " n"]
    half: Float64[Tensor, " psis"]  #: of those entries that have a psi
    owner: Int64[Tensor, " psis"]

    @staticmethod
    def of(name: str, slopes: Slopes) -> Scalars:
        """The gates of an elementwise node."""
        owner = torch.nonzero(slopes.lower < slopes.upper).flatten()
        half = (slopes.upper - slopes.lower)[owner] / 2
        return Scalars(name, (slopes.lower + slopes.upper) / 2, half, owner)

    @property
    def size(self) -> int:
        """The number of entries."""
        return len(self.middle)

    @property
    def multipliers(self) -> int:
        """One for each psi."""
        return len(self.owner)

    def per_psi(self, scales: Float64[Tensor, " multipliers"]) -> Float64[Tensor, " psis"]:
        """The same."""
        return scales

    def pooled(self, values: Float64[Tensor, "psis ..."]) -> Float64[Tensor, "multipliers ..."]:
        """The same."""
        return values

    mean = pooled

    @property
    def _has_all(self) -> bool:
        return len(self.owner) == len(self.middle)

    def inflow(self, rows: Float64[Tensor, "batch n"]) -> Float64[Tensor, "batch psis"]:
        """The entries that have a psi."""
        return rows if self._has_all else rows[:, self.owner]

    def inflow_adjoint(self, rows: Float64[Tensor, "batch psis"]) -> Float64[Tensor, "batch n"]:
        """The entries at their places."""
        if self._has_all:
            return rows
        out = rows.new_zeros(rows.shape[0], len(self.middle))
        out[:, self.owner] = rows
        return out

    def through(self, rows: Float64[Tensor, "batch n"]) -> Float64[Tensor, "batch n"]:
        """The middle slope of every entry."""
        return rows * self.middle

    through_adjoint = through

    def noise(self, rows: Float64[Tensor, "batch psis"]) -> Float64[Tensor, "batch n"]:
        """Half of the range of slopes, of every entry."""
        return self.inflow_adjoint(rows * self.half)

    def noise_adjoint(self, rows: Float64[Tensor, "batch n"]) -> Float64[Tensor, "batch psis"]:
        """The same."""
        return self.inflow(rows) * self.half


@dataclass(frozen=True, slots=True, eq=False)
class Sorts:
    """Sorted groups: their means are kept, the rest keeps its length at most."""

    name: str  #: what proofs call the node
    sort: GroupSort

    @property
    def size(self) -> int:
        """The number of groups."""
        return self.sort.groups.shape[0]

    @property
    def multipliers(self) -> int:
        """One for each group."""
        return self.size

    def per_psi(self, scales: Float64[Tensor, " multipliers"]) -> Float64[Tensor, " psis"]:
        """The group's, for each of its psis."""
        return scales[self.owner]

    def pooled(self, values: Float64[Tensor, "psis ..."]) -> Float64[Tensor, "multipliers ..."]:
        """Sums over each group."""
        return values.reshape(self.size, -1, *values.shape[1:]).sum(dim=1)

    def mean(self, values: Float64[Tensor, " psis"]) -> Float64[Tensor, " multipliers"]:
        """Means over each group."""
        return values.reshape(self.size, -1).mean(dim=1)

    @property
    def owner(self) -> Int64[Tensor, " psis"]:
        """Every group has n - 1."""
        count, members = self.sort.groups.shape
        return torch.arange(count).repeat_interleave(members - 1)

    def inflow(self, rows: Float64[Tensor, "batch n"]) -> Float64[Tensor, "batch psis"]:
        """Q' of every group."""
        return (rows[:, self.sort.groups] @ self._basis).flatten(1)

    def inflow_adjoint(self, rows: Float64[Tensor, "batch psis"]) -> Float64[Tensor, "batch n"]:
        """Q of every group, at the places that enter."""
        return self._spread(rows, self.sort.groups)

    def through(self, rows: Float64[Tensor, "batch n"]) -> Float64[Tensor, "batch n"]:
        """The mean of every group, at the places that leave."""
        return _means(rows, self.sort.groups, self.sort.places)

    def through_adjoint(self, rows: Float64[Tensor, "batch n"]) -> Float64[Tensor, "batch n"]:
        """The mean of every group that leaves, at the places that enter."""
        return _means(rows, self.sort.places, self.sort.groups)

    def noise(self, rows: Float64[Tensor, "batch psis"]) -> Float64[Tensor, "batch n"]:
        """Q of every group, at the places that leave."""
        return self._spread(rows, self.sort.places)

    def noise_adjoint(self, rows: Float64[Tensor, "batch n"]) -> Float64[Tensor, "batch psis"]:
        """Q' of every group that leaves."""
        return (rows[:, self.sort.places] @ self._basis).flatten(1)

    @property
    def _basis(self) -> Float64[Tensor, "members psis"]:
        return helmert(self.sort.groups.shape[1])

    def _spread(
        self, rows: Float64[Tensor, "batch psis"], places: Int64[Tensor, "groups members"]
    ) -> Float64[Tensor, "batch n"]:
        count, members = places.shape
        out = rows.new_zeros(rows.shape[0], places.numel())
        out[:, places] = rows.reshape(-1, count, members - 1) @ self._basis.T
        return out


#: What a step passes through.
Gate: TypeAlias = Scalars | Sorts


def _means(
    rows: Float64[Tensor, "batch n"],
    entering: Int64[Tensor, "groups members"],
    leaving: Int64[Tensor, "groups members"],
) -> Float64[Tensor, "batch n"]:
    out = torch.empty_like(rows)
    means = rows[:, entering].mean(dim=-1, keepdim=True)
    out[:, leaving] = means.expand(-1, -1, leaving.shape[1])
    return out
