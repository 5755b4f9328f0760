"""The frequencies of a torus of real signals: one of each pair w, -w, and how strides fold them.

What is left of P(w) after subsampling by s is the mean over the aliases

    P'(w') = 1/s^axes sum_j P((w' + 2 pi j)/s),    with P(-w) = conj P(w).               (1)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import pi, prod

import torch
from jaxtyping import Bool, Complex, Float64, Int64
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Frequencies:
    """Half of the frequencies of a torus."""

    sides: tuple[int, ...]
    kept: Int64[Tensor, "waves axes"]  #: the integers f of w = 2 pi f / N
    weights: Float64[Tensor, " waves"]  #: 1 where w = -w, else 2
    place: Int64[Tensor, " all"]  #: of every frequency, row-major: the one that stands for it
    turned: Bool[Tensor, " all"]  #: ... which is conjugate

    @property
    def count(self) -> int:
        """The number of all frequencies, and of places of the torus."""
        return prod(self.sides)

    @property
    def waves(self) -> Float64[Tensor, "waves axes"]:
        """The wave vectors."""
        return self.kept * (2 * pi / torch.tensor(self.sides, dtype=torch.float64))


@lru_cache(maxsize=64)
def frequencies(sides: tuple[int, ...]) -> Frequencies:
    """Those of a torus; the pair is represented by its first in row-major order."""
    grid = torch.tensor(list(product(*(range(side) for side in sides))))
    flat = torch.arange(len(grid))
    opposite = _flat(-grid, sides)
    first = torch.minimum(flat, opposite)
    kept = torch.nonzero(first == flat).flatten()
    rank = torch.empty(len(grid), dtype=torch.int64)
    rank[kept] = torch.arange(len(kept))
    weights = torch.where(opposite == flat, 1.0, 2.0).to(torch.float64)[kept]
    return Frequencies(sides, grid[kept], weights, rank[first], first != flat)


def _flat(grid: Int64[Tensor, "n axes"], sides: tuple[int, ...]) -> Int64[Tensor, " n"]:
    index = torch.zeros(len(grid), dtype=torch.int64)
    for axis, side in enumerate(sides):
        index = index * side + grid[:, axis] % side
    return index


@dataclass(frozen=True, slots=True, eq=False)
class Alias:
    """For every kept frequency of the coarser torus one of those that fold onto it."""

    place: Int64[Tensor, " waves"]  #: among the kept ones of the finer torus
    turned: Bool[Tensor, " waves"]  #: it stands for this one's opposite

    def of(self, values: Complex[Tensor, "fine n m"]) -> Complex[Tensor, "waves n m"]:
        """The matrices at these frequencies, or at their opposites: see `back`."""
        return self.back(values[self.place])

    def back(self, values: Complex[Tensor, "waves n m"]) -> Complex[Tensor, "waves n m"]:
        """Conjugates where turned; its own inverse."""
        return torch.where(self.turned[:, None, None], values.conj(), values)


@lru_cache(maxsize=64)
def aliases(sides: tuple[int, ...], strides: tuple[int, ...]) -> tuple[Alias, ...]:
    """All frequencies that fold onto each kept one when a torus of these sides is subsampled."""
    fine = frequencies(sides)
    coarse_sides = tuple(side // stride for side, stride in zip(sides, strides, strict=True))
    coarse = frequencies(coarse_sides)
    made: list[Alias] = []
    for shift in product(*(range(stride) for stride in strides)):
        flat = _flat(coarse.kept + torch.tensor(shift) * torch.tensor(coarse_sides), sides)
        made.append(Alias(fine.place[flat], fine.turned[flat]))
    return tuple(made)


def folded(
    values: Complex[Tensor, "waves n m"], sides: tuple[int, ...], strides: tuple[int, ...]
) -> Complex[Tensor, "coarse n m"]:
    """Equation (1)."""
    every = aliases(sides, strides)
    return sum((alias.of(values) for alias in every[1:]), every[0].of(values)) / len(every)
