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


@lru_cache(maxsize=64)
def _aliases(
    sides: tuple[int, ...], strides: tuple[int, ...]
) -> tuple[Int64[Tensor, "shifts waves"], Bool[Tensor, "shifts waves"]]:
    """For each alias of every kept coarse frequency: who stands for it, and whether conjugate."""
    fine = frequencies(sides)
    coarse_sides = tuple(side // stride for side, stride in zip(sides, strides, strict=True))
    coarse = frequencies(coarse_sides)
    shifts = torch.tensor(list(product(*(range(stride) for stride in strides))))
    moved = coarse.kept[None] + shifts[:, None] * torch.tensor(coarse_sides)
    flat = _flat(moved.flatten(0, 1), sides).reshape(moved.shape[:2])
    return fine.place[flat], fine.turned[flat]


def folded(
    values: Complex[Tensor, "waves n m"], sides: tuple[int, ...], strides: tuple[int, ...]
) -> Complex[Tensor, "coarse n m"]:
    """Equation (1)."""
    place, turned = _aliases(sides, strides)
    total = torch.zeros(place.shape[1], *values.shape[1:], dtype=values.dtype)
    for index, conjugate in zip(place, turned, strict=True):
        part = values[index]
        total = total + torch.where(conjugate[:, None, None], part.conj(), part)
    return total / len(place)
