"""The inequality that is solved: linear in inverse multipliers, and without the inputs.

With D = blkdiag(rho I, Lambda), N = blkdiag(I, 1/Lambda) and Z = [Y; B] over xi = (dx, psi), both
Schur complements of [[D, Z'], [Z, N]] say the same for 0 < D, N:

    0 <= D - Y'Y - B' Lambda B      <=>      0 <= N - Z D^-1 Z'.                       (1)

The left is the certificate's; the right is linear in g = 1/lambda and e = 1/rho, and has as many
rows as there are outputs and psis, however many inputs there are. For inputs in linf, D has
diag(tau) in the place of rho I, e = 1/tau, and N = blkdiag(s, 1/Lambda). Split Z = [F | C] into
its columns of dx and of psi. Then

    T(s, g, e) = blkdiag(s I, diag g) - C diag(g) C' - F diag(e) F',                   (2)

T is homogeneous, so for l2 one sets e = 1: minimise s subject to 0 <= T, and the bound is sqrt(s)
with rho = s, lambda = s/g. For linf: minimise s + sum_k w_k/e_k with w = 1; the bound is half of
it. A sorted group shares one g among its psis.

Names: s is `level`, g `gates`, e `inputs`; a triple is a `Point`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Point:
    """The variables of (2)."""

    level: Float64[Tensor, ""]
    gates: Float64[Tensor, " multipliers"]
    inputs: Float64[Tensor, " inputs"]  #: empty for l2

    def __add__(self, other: Point) -> Point:
        return Point(
            level=self.level + other.level,
            gates=self.gates + other.gates,
            inputs=self.inputs + other.inputs,
        )

    def __mul__(self, factor: float | Float64[Tensor, ""]) -> Point:
        return Point(
            level=self.level * factor, gates=self.gates * factor, inputs=self.inputs * factor
        )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Inequality:
    """The matrices of (2), rows ordered outputs first."""

    outputs: int
    spread: Float64[Tensor, "rows psis"]  #: C
    drive: Float64[Tensor, "rows inputs"]  #: F; without columns for l2
    fixed: Float64[Tensor, "rows rows"]  #: F F' for l2, else 0
    weights: Float64[Tensor, " inputs"]  #: w
    owner: Int64[Tensor, " psis"]
    multipliers: int

    @property
    def rows(self) -> int:
        """The order of T."""
        return self.spread.shape[0]

    def pooled(self, values: Float64[Tensor, " psis"]) -> Float64[Tensor, " multipliers"]:
        """Sums over the psis of each multiplier."""
        return values.new_zeros(self.multipliers).index_add_(0, self.owner, values)

    def linear(self, point: Point) -> Float64[Tensor, "rows rows"]:
        """T's linear part."""
        gates = point.gates[self.owner]
        matrix = -((self.spread * gates) @ self.spread.T)
        if self.drive.shape[1]:
            matrix -= (self.drive * point.inputs) @ self.drive.T
        diagonal = torch.cat([point.level.expand(self.outputs), gates])
        return matrix.diagonal_scatter(matrix.diagonal() + diagonal)

    def slack(self, point: Point) -> Float64[Tensor, "rows rows"]:
        """T."""
        return self.linear(point) - self.fixed

    def adjoint(self, matrix: Float64[Tensor, "rows rows"]) -> Point:
        """The traces of Z with T's derivatives: <Z, linear(p)> is their inner product with p."""
        diagonal = matrix.diagonal()
        through = (self.spread * (matrix @ self.spread)).sum(dim=0)
        return Point(
            level=diagonal[: self.outputs].sum(),
            gates=self.pooled(diagonal[self.outputs :] - through),
            inputs=-(self.drive * (matrix @ self.drive)).sum(dim=0),
        )

    def objective(self, point: Point) -> float:
        """What is minimised: s, or s + sum w/e."""
        return float(point.level + (self.weights / point.inputs).sum())

    def balanced(self, point: Point) -> Point:
        """The same bound with s = sum w/e: T is homogeneous, and the product does not change."""
        if not len(self.weights):
            return point
        return point * ((self.weights / point.inputs).sum() / point.level).sqrt()

    def scaled(self, unit: Point) -> Inequality:
        """The same with T congruent by `unit`, so that the point `unit` becomes ones.

        Weights become shares of the level of `unit`.
        """
        roots = torch.cat([unit.level.expand(self.outputs), unit.gates[self.owner]]).sqrt()
        inside = roots[self.outputs :]
        return Inequality(
            outputs=self.outputs,
            spread=self.spread * inside / roots[:, None],
            drive=self.drive * unit.inputs.sqrt() / roots[:, None],
            fixed=self.fixed / roots / roots[:, None],
            weights=self.weights / unit.inputs / unit.level,
            owner=self.owner,
            multipliers=self.multipliers,
        )


def ones(problem: Inequality) -> Point:
    """The point whose entries are all 1."""
    one = problem.spread.new_ones(())
    return Point(
        level=one, gates=one.expand(problem.multipliers), inputs=one.expand(len(problem.weights))
    )


def least_level(slack: Float64[Tensor, "rows rows"], outputs: int) -> Float64[Tensor, ""] | None:
    """lambda_max(T_ow T_ww^-1 T_wo - T_oo) for T of level 0: the least level with 0 <= T.

    None where T_ww is not positive definite: no level does.
    """
    factor, failed = torch.linalg.cholesky_ex(slack[outputs:, outputs:])
    if failed:
        return None
    cross = torch.linalg.solve_triangular(factor, slack[outputs:, :outputs], upper=False)
    return torch.linalg.eigvalsh(cross.T @ cross - slack[:outputs, :outputs])[-1]
