"""The Newton system of the interior-point method.

With A_i the derivatives of T, X the multiplier of T and V = T^-1,

    H_ij = <A_i, X A_j V> + f''_ij + [u/e]_ij.                                             (1)

A_i is c c' - d d' with sparse c and a column d of C, -d d' with a column of F, or the identity of
the outputs, so that all of (1) is made of the products X C, V C, X F, V F and of their products
with C' and F', entry by entry.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Shaped
from torch import Tensor

from verifier.methods.lipsdp.inequality import Inequality, Point
from verifier.methods.lipsdp.panels import mirrored, outer, times, upper_gram, upper_product

_RAISED = (0.0, 1e-15, 1e-13, 1e-11, 1e-9)  #: the diagonal, by shares, until H can be factored


@dataclass(frozen=True, slots=True, eq=False)
class Products:
    """A symmetric matrix Z by C and by F_0."""

    matrix: Float64[Tensor, "*batch rows rows"]
    spread: Float64[Tensor, "*batch rows psis"]
    drive: Float64[Tensor, "*batch rows rank"]

    @staticmethod
    def of(problem: Inequality, matrix: Float64[Tensor, "*batch rows rows"]) -> Products:
        """Z, Z C and Z F_0."""
        return Products(
            matrix, times(matrix, problem.spread, problem.panels), matrix @ problem.drive
        )

    def __getitem__(self, index: Shaped[Tensor, " some"]) -> Products:
        """Those of the batch."""
        return Products(self.matrix[index], self.spread[index], self.drive[index])

    def traces(self, problem: Inequality) -> Point:
        """A*(Z), the traces of Z with T's derivatives."""
        return problem.traces(self.matrix, self.spread, self.drive)

    def turned(
        self, problem: Inequality, move: Point, driven: Float64[Tensor, "*batch rows rank"]
    ) -> Float64[Tensor, "*batch rows rows"]:
        """A(dy) Z, with F_0 M diag(de) M' as `driven`."""
        gates = problem.per_psi(move.gates)[..., None]
        out = outer(problem.spread, gates * self.spread.mT, problem.panels).neg_()
        out += problem.diagonal(move)[..., None] * self.matrix
        if problem.drive.shape[-1]:
            out -= driven @ self.drive.mT
        return out


def newton_factor(
    problem: Inequality,
    dual: Products,
    inverse: Products,
    curvature: Float64[Tensor, "*batch inputs"],
) -> tuple[Float64[Tensor, "*batch variables variables"], Bool[Tensor, "*batch"]]:
    """Cholesky's factor of H, variables in the order level, gates, inputs; and whether it is one.

    Args:
        problem: T.
        dual: of X.
        inverse: of V.
        curvature: f'' + u/e, of the inputs.
    """
    first = 1 + problem.multipliers
    # Only the upper triangle is read.
    matrix = upper_hessian(problem, dual, inverse, first + curvature.shape[-1])
    if problem.drive.shape[-1]:
        _fill_inputs(problem, dual, inverse, matrix)
        matrix.diagonal(dim1=-2, dim2=-1)[..., first:].add_(curvature)
    return factored(matrix)


def upper_hessian(
    problem: Inequality, dual: Products, inverse: Products, size: int
) -> Float64[Tensor, "*batch variables variables"]:
    """H of level and gates, its upper triangle, in the corner of a matrix of this size."""
    x_c, v_c, outputs = dual.spread, inverse.spread, problem.outputs
    first = 1 + problem.multipliers
    matrix = x_c.new_zeros(*x_c.shape[:-2], size, size)
    among = slice(0, outputs)
    matrix[..., 0, 0] = (dual.matrix[..., among, among] * inverse.matrix[..., among, among]).sum(
        dim=(-2, -1)
    )
    level = dual.matrix[..., among, outputs:] * inverse.matrix[..., among, outputs:]
    level = (level - x_c[..., among, :] * v_c[..., among, :]).sum(dim=-2)
    matrix[..., 0, 1:first] = problem.pooled(level)
    matrix[..., 1:first, 1:first] = _gates(problem, dual, inverse)
    return matrix


def _gates(
    problem: Inequality, dual: Products, inverse: Products
) -> Float64[Tensor, "*batch multipliers multipliers"]:
    """H of the gates, its upper triangle."""
    outputs, spread = problem.outputs, problem.spread
    crossed = dual.spread[..., outputs:, :] * inverse.spread[..., outputs:, :]
    gates = upper_gram(spread, dual.spread, problem.panels)
    gates *= upper_gram(spread, inverse.spread, problem.panels)
    gates.addcmul_(dual.matrix[..., outputs:, outputs:], inverse.matrix[..., outputs:, outputs:])
    gates -= crossed
    gates -= crossed.mT.contiguous()
    if problem.multipliers == len(problem.owner):
        return gates
    return pooled_rows(problem, pooled_rows(problem, mirrored(gates)).mT)


def _fill_inputs(
    problem: Inequality,
    dual: Products,
    inverse: Products,
    matrix: Float64[Tensor, "*batch variables variables"],
) -> None:
    """H's columns of the inputs, without their curvature."""
    outputs, drive = problem.outputs, problem.drive
    first = 1 + problem.multipliers
    x_f, v_f = problem.mixed(dual.drive), problem.mixed(inverse.drive)
    matrix[..., 0, first:] = -(x_f[..., :outputs, :] * v_f[..., :outputs, :]).sum(dim=-2)
    gates = problem.mixed(dual.spread.mT @ drive) * problem.mixed(inverse.spread.mT @ drive)
    gates -= x_f[..., outputs:, :] * v_f[..., outputs:, :]
    matrix[..., 1:first, first:] = pooled_rows(problem, gates)
    matrix[..., first:, first:] = _upper_inputs(problem, dual) * _upper_inputs(problem, inverse)


def _upper_inputs(
    problem: Inequality, products: Products
) -> Float64[Tensor, "*batch inputs inputs"]:
    """F'Z F, its upper triangle."""
    if problem.mix is None:
        return upper_product(problem.drive.mT, products.drive)
    return upper_product(problem.mix.mT @ (problem.drive.mT @ products.drive), problem.mix)


@dataclass(frozen=True, slots=True, eq=False)
class Factored:
    """H by its Cholesky factor."""

    problem: Inequality
    factor: Float64[Tensor, "*batch variables variables"]
    holds: Bool[Tensor, "*batch"]

    @staticmethod
    def of(
        problem: Inequality,
        dual: Products,
        inverse: Products,
        curvature: Float64[Tensor, "*batch inputs"],
    ) -> Factored:
        """H, formed and factored."""
        return Factored(problem, *newton_factor(problem, dual, inverse, curvature))

    def solve(self, right: Point) -> Point:
        """H^-1 right."""
        flat = torch.cat([right.level[..., None], right.gates, right.inputs], dim=-1)
        out = torch.cholesky_solve(flat[..., None], self.factor)[..., 0]
        first = 1 + self.problem.multipliers
        return Point(level=out[..., 0], gates=out[..., 1:first], inputs=out[..., first:])


def pooled_rows(
    problem: Inequality, matrix: Float64[Tensor, "*batch psis n"]
) -> Float64[Tensor, "*batch multipliers n"]:
    """Sums over the psis of each multiplier."""
    if problem.multipliers == matrix.shape[-2]:
        return matrix
    pooled = matrix.new_zeros(*matrix.shape[:-2], problem.multipliers, matrix.shape[-1])
    return pooled.index_add_(-2, problem.owner, matrix)


def factored(
    matrix: Float64[Tensor, "*batch n n"],
) -> tuple[Float64[Tensor, "*batch n n"], Bool[Tensor, "*batch"]]:
    """Cholesky's factor; near the optimum rounding may ask for a little more on the diagonal."""
    diagonal = matrix.diagonal(dim1=-2, dim2=-1)
    kept = diagonal.clone()
    factor, failed = torch.linalg.cholesky_ex(matrix.mT)
    for share in _RAISED[1:]:
        if not bool(failed.any()):
            break
        again = failed != 0
        diagonal.copy_(torch.where(again[..., None], kept * (1 + share), kept))
        factor, failed = torch.linalg.cholesky_ex(matrix.mT)
    return factor, failed == 0
