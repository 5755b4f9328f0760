"""Pair cuts: forms of two gates that are at least 0 where both are at a vertex, and finding them.

With alpha = v + psi, beta = v - psi, one of which is 0 at a vertex, the form of gates i and j

    |x|^2 + |y|^2 + 2 x'H y,   x = (p1 alpha_i, p2 beta_i),  y = (r1 alpha_j, r2 beta_j),
    H = [[1, 1], [1, -1]],     = |x + H y|^2 - |y|^2                                      (1)

is one square there for any p, r. Against moments E of xi, its least value over p, r of given
lengths E x'x = E y'y = 1 is 2 - 2|G|_2 with

    G = D_i^-1/2 h D_j^-1/2,   h = [[E alpha_i alpha_j, E alpha_i beta_j],
                                    [E beta_i alpha_j, -E beta_i beta_j]],                (2)

D_i = diag(E alpha_i^2, E beta_i^2): a cut is violated exactly if 1 < |G|_2, and then p and -r are
D^-1/2 times the singular vectors. All pairs at once cost a few products of matrices.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from verifier.methods.refinement.terms import Squares

VIOLATED = 1 + 1e-6  #: |G|_2 above this counts


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Cuts:
    """Pairs of gates, by their number, and p and r of each."""

    first: Int64[Tensor, " cuts"]
    second: Int64[Tensor, " cuts"]
    p: Float64[Tensor, "cuts 2"]
    r: Float64[Tensor, "cuts 2"]

    @staticmethod
    def none() -> Cuts:
        """No cuts."""
        empty = torch.zeros(0, dtype=torch.int64)
        pair = torch.zeros(0, 2, dtype=torch.float64)
        return Cuts(first=empty, second=empty, p=pair, r=pair)

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.first)

    def chosen(self, index: Int64[Tensor, " chosen"] | Bool[Tensor, " cuts"]) -> Cuts:
        """Some of them."""
        return Cuts(
            first=self.first[index], second=self.second[index], p=self.p[index], r=self.r[index]
        )

    def joined(self, other: Cuts) -> Cuts:
        """These, then the others."""
        return Cuts(
            first=torch.cat([self.first, other.first]),
            second=torch.cat([self.second, other.second]),
            p=torch.cat([self.p, other.p]),
            r=torch.cat([self.r, other.r]),
        )

    def squares(
        self, entering: Float64[Tensor, "gates xi"], leaving: Float64[Tensor, "gates xi"]
    ) -> Squares:
        """What is subtracted from M for each cut, by (1)."""
        alpha, beta = entering + leaving, entering - leaving
        p, r, i, j = self.p, self.r, self.first, self.second
        one = r[:, :1] * alpha[j]
        other = r[:, 1:] * beta[j]
        rows = [p[:, :1] * alpha[i] + one + other, p[:, 1:] * beta[i] + one - other, one, other]
        sign = torch.tensor([-1.0, -1.0, 1.0, 1.0], dtype=torch.float64)
        return Squares(
            rows=torch.cat(rows),
            sign=sign.repeat_interleave(self.count),
            owner=torch.arange(self.count).repeat(4),
            count=self.count,
            runs=tuple(slice(k * self.count, (k + 1) * self.count) for k in range(4))
            if self.count
            else (),
        )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Separation:
    """All pairs of gates against moments of xi."""

    norms: Float64[Tensor, "gates gates"]  #: |G|_2 of pairs i < j, else 0
    parts: Float64[Tensor, "4 gates gates"]  #: the entries of G
    lengths: Float64[Tensor, "gates 2"]  #: D^-1/2

    @staticmethod
    def of(
        moments: Float64[Tensor, "xi xi"],
        entering: Float64[Tensor, "gates xi"],
        leaving: Float64[Tensor, "gates xi"],
    ) -> Separation:
        """Equation (2)."""
        alpha, beta = entering + leaving, entering - leaving
        left, right = alpha @ moments, beta @ moments
        both, mixed, neither = left @ alpha.T, left @ beta.T, right @ beta.T
        least = 1e-300
        lengths = torch.stack(
            [both.diagonal().clamp(min=least).rsqrt(), neither.diagonal().clamp(min=least).rsqrt()],
            dim=1,
        )
        one, other = lengths.T
        parts = torch.stack(
            [
                both * one[:, None] * one,
                mixed * one[:, None] * other,
                mixed.T * other[:, None] * one,
                -neither * other[:, None] * other,
            ]
        )
        square = parts.square().sum(dim=0)
        minor = parts[0] * parts[3] - parts[1] * parts[2]
        root = (square.square() - 4 * minor.square()).clamp(min=0).sqrt()
        return Separation(
            norms=((square + root) / 2).sqrt().triu(1),
            parts=parts,
            lengths=lengths,
        )

    def most_violated(self, count: int) -> Cuts:
        """At most so many violated cuts, those of the greatest |G|_2 first."""
        excess = torch.where(self.norms > VIOLATED, self.norms, 0.0).flatten()
        count = min(count, int((excess > 0).sum()))
        top = torch.topk(excess, count).indices
        size = max(1, len(self.lengths))
        return self._cuts(top // size, top % size)

    def _cuts(self, first: Int64[Tensor, " cuts"], second: Int64[Tensor, " cuts"]) -> Cuts:
        matrix = self.parts[:, first, second].T.unflatten(1, (2, 2))
        left, _, right = torch.linalg.svd(matrix)
        return Cuts(
            first=first,
            second=second,
            p=left[:, :, 0] * self.lengths[first],
            r=-right[:, 0, :] * self.lengths[second],
        )
