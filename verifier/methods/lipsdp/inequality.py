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
it. A sorted group shares one g among its psis. Where inputs are many and F has a low rank, as that
of a first layer, F = F_0 M and M alone is as wide as the inputs.

Leading dimensions are a batch of inequalities that have their shapes and zeros in common.

Names: s is `level`, g `gates`, e `inputs`; a triple is a `Point`. C is `spread`, F_0 `drive`, M
`mix`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor

from verifier.methods.lipsdp.panels import Panel, mirrored, times, upper_outer, upper_product


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Point:
    """The variables of (2)."""

    level: Float64[Tensor, "*batch"]
    gates: Float64[Tensor, "*batch multipliers"]
    inputs: Float64[Tensor, "*batch inputs"]  #: empty for l2

    def __add__(self, other: Point) -> Point:
        return Point(
            level=self.level + other.level,
            gates=self.gates + other.gates,
            inputs=self.inputs + other.inputs,
        )

    def __mul__(self, factor: float | Float64[Tensor, "*batch"]) -> Point:
        inner = factor[..., None] if isinstance(factor, Tensor) else factor
        return Point(
            level=self.level * factor, gates=self.gates * inner, inputs=self.inputs * inner
        )

    def __getitem__(self, index: int | Shaped[Tensor, " some"] | None) -> Point:
        """Those of the batch."""
        return Point(level=self.level[index], gates=self.gates[index], inputs=self.inputs[index])

    def to(self, device: torch.device | str | None) -> Point:
        """The same on a device; None leaves it where it is."""
        return Point(
            level=self.level.to(device=device),
            gates=self.gates.to(device=device),
            inputs=self.inputs.to(device=device),
        )

    def at_level(self, level: Float64[Tensor, "*batch"]) -> Point:
        """The same gates and inputs at another level."""
        return Point(level=level, gates=self.gates, inputs=self.inputs)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Inequality:
    """The matrices of (2), rows ordered outputs first, psis of late nodes before early ones."""

    outputs: int
    spread: Float64[Tensor, "*batch rows psis"]  #: C
    drive: Float64[Tensor, "*batch rows rank"]  #: F_0; without columns for l2
    mix: Float64[Tensor, "*batch rank inputs"] | None  #: M; None for the identity
    fixed: Float64[Tensor, "*batch rows rows"]  #: F F' for l2, else 0
    weights: Float64[Tensor, "*batch inputs"]  #: w
    owner: Int64[Tensor, " psis"]
    multipliers: int
    panels: tuple[Panel, ...]  #: of C

    @property
    def rows(self) -> int:
        """The order of T."""
        return self.spread.shape[-2]

    @property
    def order(self) -> int:
        """The order of T and of e together."""
        return self.rows + self.weights.shape[-1]

    def __getitem__(self, index: int | Shaped[Tensor, " some"] | None) -> Inequality:
        """Those of the batch."""
        return replace(
            self,
            spread=self.spread[index],
            drive=self.drive[index],
            mix=None if self.mix is None else self.mix[index],
            fixed=self.fixed[index],
            weights=self.weights[index],
        )

    def to(self, device: torch.device | None) -> Inequality:
        """The same on a device; None leaves it where it is."""
        return replace(
            self,
            spread=self.spread.to(device=device),
            drive=self.drive.to(device=device),
            mix=None if self.mix is None else self.mix.to(device=device),
            fixed=self.fixed.to(device=device),
            weights=self.weights.to(device=device),
            owner=self.owner.to(device=device),
        )

    def pooled(
        self, values: Float64[Tensor, "*batch psis"]
    ) -> Float64[Tensor, "*batch multipliers"]:
        """Sums over the psis of each multiplier."""
        if self.multipliers == len(self.owner):
            return values
        pooled = values.new_zeros(*values.shape[:-1], self.multipliers)
        return pooled.index_add_(-1, self.owner, values)

    def per_psi(
        self, gates: Float64[Tensor, "*batch multipliers"]
    ) -> Float64[Tensor, "*batch psis"]:
        """Each psi's gate."""
        return gates if self.multipliers == len(self.owner) else gates[..., self.owner]

    def mixed(self, matrix: Float64[Tensor, "*batch m rank"]) -> Float64[Tensor, "*batch m inputs"]:
        """A M."""
        return matrix if self.mix is None else matrix @ self.mix

    def driven(
        self, inputs: Float64[Tensor, "*batch inputs"]
    ) -> Float64[Tensor, "*batch rows rank"]:
        """F_0 M diag(e) M'."""
        if self.mix is None:
            return self.drive * inputs[..., None, :]
        return self.drive @ ((self.mix * inputs[..., None, :]) @ self.mix.mT)

    def diagonal(self, point: Point) -> Float64[Tensor, "*batch rows"]:
        """Of N."""
        level = point.level[..., None].expand(*point.level.shape, self.outputs)
        return torch.cat([level, self.per_psi(point.gates)], dim=-1)

    def linear(
        self, point: Point, driven: Float64[Tensor, "*batch rows rank"] | None = None
    ) -> Float64[Tensor, "*batch rows rows"]:
        """T's linear part; `driven` where it is known."""
        scaled = self.spread * self.per_psi(point.gates)[..., None, :]
        matrix = upper_outer(self.spread, scaled, self.panels)
        if self.drive.shape[-1]:
            driven = self.driven(point.inputs) if driven is None else driven
            matrix += upper_product(driven, self.drive.mT)
        matrix = mirrored(matrix).neg_()
        matrix.diagonal(dim1=-2, dim2=-1).add_(self.diagonal(point))
        return matrix

    def slack(self, point: Point) -> Float64[Tensor, "*batch rows rows"]:
        """T."""
        return self.linear(point).sub_(self.fixed)

    def adjoint(self, matrix: Float64[Tensor, "*batch rows rows"]) -> Point:
        """The traces of Z with T's derivatives: <Z, linear(p)> is their inner product with p."""
        return self.traces(matrix, times(matrix, self.spread, self.panels), matrix @ self.drive)

    def traces(
        self,
        matrix: Float64[Tensor, "*batch rows rows"],
        spread: Float64[Tensor, "*batch rows psis"],
        drive: Float64[Tensor, "*batch rows rank"],
    ) -> Point:
        """The adjoint of Z, from Z, Z C and Z F_0."""
        diagonal = matrix.diagonal(dim1=-2, dim2=-1)
        through = (self.spread * spread).sum(dim=-2)
        if self.mix is None:
            inputs = (self.drive * drive).sum(dim=-2)
        else:
            inputs = (self.mix * ((self.drive.mT @ drive) @ self.mix)).sum(dim=-2)
        return Point(
            level=diagonal[..., : self.outputs].sum(dim=-1),
            gates=self.pooled(diagonal[..., self.outputs :] - through),
            inputs=-inputs,
        )

    def objective(self, point: Point) -> Float64[Tensor, "*batch"]:
        """What is minimised: s, or s + sum w/e."""
        return point.level + (self.weights / point.inputs).sum(dim=-1)

    def balanced(self, point: Point) -> Point:
        """The same bound with s = sum w/e: T is homogeneous, and the product does not change."""
        if not self.weights.shape[-1]:
            return point
        return point * ((self.weights / point.inputs).sum(dim=-1) / point.level).sqrt()

    def scaled(self, unit: Point) -> Inequality:
        """The same with T congruent by `unit`, so that the point `unit` becomes ones.

        Weights become shares of the level of `unit`.
        """
        roots = self.diagonal(unit).sqrt()
        inverse = 1 / roots[..., None]
        drive, mix = self.drive * inverse, self.mix
        if mix is None:
            drive = drive * unit.inputs.sqrt()[..., None, :]
        else:
            mix = mix * unit.inputs.sqrt()[..., None, :]
        return replace(
            self,
            spread=self.spread * inverse * roots[..., None, self.outputs :],
            drive=drive,
            mix=mix,
            fixed=self.fixed * inverse / roots[..., None, :],
            weights=self.weights / unit.inputs / unit.level[..., None],
        )


def ones(problem: Inequality) -> Point:
    """The point whose entries are all 1."""
    batch = problem.weights.shape[:-1]
    one = problem.spread.new_ones(())
    return Point(
        level=one.expand(batch),
        gates=one.expand(*batch, problem.multipliers),
        inputs=one.expand(problem.weights.shape),
    )


def least_level(
    slack: Float64[Tensor, "*batch rows rows"], outputs: int
) -> Float64[Tensor, "*batch"]:
    """lambda_max(T_ow T_ww^-1 T_wo - T_oo) for T of level 0: the least level with 0 <= T.

    Nan where T_ww is not positive definite: no level does.
    """
    factor, failed = torch.linalg.cholesky_ex(slack[..., outputs:, outputs:])
    cross = torch.linalg.solve_triangular(factor, slack[..., outputs:, :outputs], upper=False)
    # What a failed factorisation leaves must not reach the eigenvalues.
    cross = torch.where((failed == 0)[..., None, None], cross, 0.0).nan_to_num(0.0, 0.0, 0.0)
    level = torch.linalg.eigvalsh(cross.mT @ cross - slack[..., :outputs, :outputs])[..., -1]
    return torch.where(failed == 0, level, torch.nan)
