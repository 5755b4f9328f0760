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
from jaxtyping import Float64
from torch import Tensor

from verifier.methods.lipsdp.inequality import Inequality, Point


@dataclass(frozen=True, slots=True, eq=False)
class Products:
    """A symmetric matrix Z by C and by F."""

    matrix: Float64[Tensor, "rows rows"]
    spread: Float64[Tensor, "rows psis"]
    drive: Float64[Tensor, "rows inputs"]

    @staticmethod
    def of(problem: Inequality, matrix: Float64[Tensor, "rows rows"]) -> Products:
        """Z, Z C and Z F."""
        return Products(matrix, matrix @ problem.spread, matrix @ problem.drive)

    def traces(self, problem: Inequality) -> Point:
        """A*(Z), the traces of Z with T's derivatives."""
        diagonal = self.matrix.diagonal()
        through = (problem.spread * self.spread).sum(dim=0)
        return Point(
            level=diagonal[: problem.outputs].sum(),
            gates=problem.pooled(diagonal[problem.outputs :] - through),
            inputs=-(problem.drive * self.drive).sum(dim=0),
        )


def newton_factor(
    problem: Inequality, dual: Products, inverse: Products, curvature: Float64[Tensor, " inputs"]
) -> Float64[Tensor, "variables variables"] | None:
    """Cholesky's factor of H, variables in the order level, gates, inputs.

    Args:
        problem: T.
        dual: of X.
        inverse: of V.
        curvature: f'' + u/e, of the inputs.

    Returns:
        None where H is not positive definite to rounding.
    """
    outputs, spread, drive = problem.outputs, problem.spread, problem.drive
    x_c, v_c = dual.spread, inverse.spread
    crossed = x_c[outputs:] * v_c[outputs:]
    gates = dual.matrix[outputs:, outputs:] * inverse.matrix[outputs:, outputs:]
    gates = gates - crossed - crossed.T
    gates += (spread.T @ x_c) * (spread.T @ v_c)
    level = (dual.matrix[:outputs, :outputs] * inverse.matrix[:outputs, :outputs]).sum()
    level_gates = dual.matrix[:outputs, outputs:] * inverse.matrix[:outputs, outputs:]
    level_gates = (level_gates - x_c[:outputs] * v_c[:outputs]).sum(dim=0)
    level_inputs = -(dual.drive[:outputs] * inverse.drive[:outputs]).sum(dim=0)
    gates_inputs = (spread.T @ dual.drive) * (spread.T @ inverse.drive)
    gates_inputs -= dual.drive[outputs:] * inverse.drive[outputs:]
    inputs = (drive.T @ dual.drive) * (drive.T @ inverse.drive) + torch.diag(curvature)

    gates = _pooled_rows(problem, _pooled_rows(problem, gates).T)
    gates_inputs = _pooled_rows(problem, gates_inputs)
    level_gates = problem.pooled(level_gates)
    count, size = problem.multipliers, 1 + problem.multipliers + len(curvature)
    matrix = spread.new_empty(size, size)
    # Only the lower triangle is read.
    matrix[0, 0] = level
    matrix[1 : 1 + count, 0] = level_gates
    matrix[1 + count :, 0] = level_inputs
    matrix[1 : 1 + count, 1 : 1 + count] = gates
    matrix[1 + count :, 1 : 1 + count] = gates_inputs.T
    matrix[1 + count :, 1 + count :] = inputs
    return _factored(matrix)


def solved(
    problem: Inequality, factor: Float64[Tensor, "variables variables"], right: Point
) -> Point:
    """H^-1 right."""
    flat = torch.cat([right.level[None], right.gates, right.inputs])
    out = torch.cholesky_solve(flat[:, None], factor)[:, 0]
    count = problem.multipliers
    return Point(level=out[0], gates=out[1 : 1 + count], inputs=out[1 + count :])


def _pooled_rows(
    problem: Inequality, matrix: Float64[Tensor, "psis n"]
) -> Float64[Tensor, "multipliers n"]:
    """Sums over the psis of each multiplier."""
    if problem.multipliers == matrix.shape[0]:
        return matrix
    pooled = matrix.new_zeros(problem.multipliers, matrix.shape[1])
    return pooled.index_add_(0, problem.owner, matrix)


def _factored(matrix: Float64[Tensor, "n n"]) -> Float64[Tensor, "n n"] | None:
    """Cholesky's factor; near the optimum rounding may ask for a little more on the diagonal."""
    diagonal = matrix.diagonal().clone()
    for share in (0.0, 1e-15, 1e-13, 1e-11, 1e-9):
        factor, failed = torch.linalg.cholesky_ex(
            matrix if share == 0.0 else matrix.diagonal_scatter(diagonal * (1 + share))
        )
        if not failed:
            return factor
    return None
