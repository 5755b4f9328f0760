"""Vectors that attain a norm's dual, and directions that attain a matrix's operator norm.

For g there is d with |d|_p = 1 and g.d = |g|_p*: sign(g) for linf, g/|g| for l2, a signed unit
vector for l1. Applied in turn to inputs and outputs,

    s = dual of J d,    d = dual of J' s,

|J d|_q never falls. It ends at |J| for l1 inputs and linf outputs when started from the best
column or row, and for l2 -> l2 the singular vector gives it; in the other pairs it is a lower end.
Every number here is one that a direction attains: lower ends, never bounds.

Source: Boyd 1974, "The power method for lp norms", Linear Algebra and its Applications 9.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.norms import Norm, NormPair

#: The p of torch for each norm.
ORDERS = {Norm.L1: 1.0, Norm.L2: 2.0, Norm.LINF: float("inf")}
_ROUNDS = 12


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Attained:
    """|J d|_q = s.J d = `value` with |d|_p = 1 and s of dual norm 1, for every matrix."""

    value: Float64[Tensor, " batch"]
    direction: Float64[Tensor, "batch n"]
    functional: Float64[Tensor, "batch m"]


def norm_of(norm: Norm, vectors: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch"]:
    """The norm of every vector."""
    return torch.linalg.vector_norm(vectors, ORDERS[norm], dim=-1)


def dual_vector(norm: Norm, g: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
    """The d of norm at most 1 that maximises g.d; 0 only where g is 0."""
    match norm:
        case Norm.LINF:
            return g.sign()
        case Norm.L2:
            length = torch.linalg.vector_norm(g, dim=-1, keepdim=True)
            return g / torch.where(0 < length, length, 1.0)
        case Norm.L1:
            place = g.abs().argmax(dim=-1, keepdim=True)
            return torch.zeros_like(g).scatter(-1, place, g.gather(-1, place).sign())


def attained_norm(norm: NormPair, matrices: Float64[Tensor, "batch m n"]) -> Attained:
    """The best of a few starts of the iteration, for every matrix."""
    directions = _starts(norm, matrices)
    values, functionals = _outputs(norm, matrices, directions)
    for _ in range(_ROUNDS if directions.shape[0] else 0):
        directions = dual_vector(norm.input, _pulled(matrices, functionals))
        values, functionals = _outputs(norm, matrices, directions)
    best = values.argmax(dim=0)
    row = torch.arange(len(matrices))
    return Attained(
        value=values[best, row], direction=directions[best, row], functional=functionals[best, row]
    )


def _starts(
    norm: NormPair, matrices: Float64[Tensor, "batch m n"]
) -> Float64[Tensor, "starts batch n"]:
    """The best row's and the best column's direction, and the singular vector in l2."""
    row = torch.arange(len(matrices))
    rows = matrices[row, norm_of(norm.input.dual, matrices).argmax(dim=1)]
    columns = norm_of(norm.output, matrices.transpose(1, 2)).argmax(dim=1)
    unit = torch.zeros_like(rows).scatter(1, columns[:, None], 1.0)
    starts = [dual_vector(norm.input, rows), unit]
    if Norm.LINF is not norm.output and Norm.L1 is not norm.input:
        # Where a slope is infinite any start is as good as another.
        finite = torch.where(matrices.isfinite(), matrices, 0.0)
        singular = torch.linalg.svd(finite, full_matrices=False)[2][:, 0]
        starts.append(dual_vector(norm.input, singular))
    return torch.stack(starts)


def _outputs(
    norm: NormPair,
    matrices: Float64[Tensor, "batch m n"],
    directions: Float64[Tensor, "starts batch n"],
) -> tuple[Float64[Tensor, "starts batch"], Float64[Tensor, "starts batch m"]]:
    """|J d|_q, and its s."""
    moved = torch.einsum("bmn,sbn->sbm", matrices, directions)
    return norm_of(norm.output, moved), dual_vector(norm.output.dual, moved)


def _pulled(
    matrices: Float64[Tensor, "batch m n"], functionals: Float64[Tensor, "starts batch m"]
) -> Float64[Tensor, "starts batch n"]:
    return torch.einsum("bmn,sbm->sbn", matrices, functionals)
