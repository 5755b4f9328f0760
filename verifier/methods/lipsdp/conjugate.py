"""The Newton system where inputs are many: conjugate gradients, and H is never formed.

With A_i the derivatives of T, X its multiplier, V = T^-1 and A(y) = sum_i y_i A_i,

    (H y)_i = <A_i, X A(y) V> + curvature_i y_i                                            (1)

costs a few products of the order of T, while H is as large as the inputs are many. Where the
bound is nearly tight X has few large eigenvalues, and with X = Y Y' + R, 0 <= R, as Nystrom's
approximation gives it,

    M = J' (I (x) V) J + blkdiag(R_aa, D),    J_i = (A_i y_1, ..., A_i y_r),               (2)

a of level and gates, e of inputs, R_aa and D = diag R_ee + curvature what R leaves of H within
each, is H but for what couples inputs through R: it preconditions (1). With Q = J_e D^-1 J_e',

    J_e M_ee^-1 J_e' = (I (x) T) (I (x) T + Q)^-1 Q,    and M's Schur complement of level and gates

is R_aa + J_a' (I (x) T + Q)^-1 J_a: all as small as r times the order of T.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from verifier.methods.lipsdp.inequality import Inequality, Point
from verifier.methods.lipsdp.newton import Products, factored, pooled_rows, upper_hessian
from verifier.methods.lipsdp.panels import mirrored, symmetric

GREATEST_RANK = 4
_FEW = 4  #: steps up to which the rank is high enough
_LEAST_STEPS = 4


def is_worth(problem: Inequality) -> bool:
    """Whether some steps with (1) cost less than forming and factoring H."""
    return 2 * problem.rows <= problem.weights.shape[-1]


def most_steps(problem: Inequality) -> int:
    """The steps with (1) of one solution; two of them cost as much as H."""
    rows, inputs = problem.rows, problem.weights.shape[-1]
    formed = (1 + problem.multipliers + inputs) ** 3 / 3 + 2.0 * rows * inputs**2
    stepped = 3.0 * inputs * rows**2 + 4.0 * rows**3
    return max(_LEAST_STEPS, int(0.5 * formed / stepped))


@dataclass(slots=True)
class Effort:
    """How hard the systems of one run turn out to be."""

    rank: int = 1  #: of Y
    gives_up: bool = False  #: H itself is cheaper from now on

    def learn(self, steps: int, most: int) -> None:
        """From the steps that one solution took."""
        self.gives_up = self.gives_up or most <= steps
        if _FEW < steps:
            self.rank = min(2 * self.rank, GREATEST_RANK)


class Conjugate:
    """H at one iterate, applied by (1) and preconditioned by (2)."""

    def __init__(
        self,
        problem: Inequality,
        slack: Float64[Tensor, "*batch rows rows"],
        products: tuple[Products, Products],
        curvature: Float64[Tensor, "*batch inputs"],
        effort: Effort,
        tolerance: float,
    ) -> None:
        """Form and factor (2).

        Args:
            problem: T.
            slack: its value.
            products: of X and of V.
            curvature: f'' + u/e, of the inputs.
            effort: says which rank, and learns how many steps were taken.
            tolerance: the share of the right side, measured by M^-1, that may be left of it.
        """
        self._problem, self._curvature = problem, curvature
        self._dual, self._inverse = products
        self._effort, self._tolerance = effort, tolerance
        self._drive = problem.mixed(problem.drive)
        image = _nystrom(self._dual.matrix, problem.outputs, min(effort.rank, problem.rows))
        self._felt = self._drive.mT @ image  # F'y, a column for each y
        self._left = self._diagonal()
        self._into = _into(problem, image)
        joined = _joined(self._drive, self._felt, self._left, slack)
        self._joined, failed = torch.linalg.cholesky_ex(joined)
        self._gates, solvable = factored(self._schur_complement())
        self.holds: Bool[Tensor, "*batch"] = (failed == 0) & solvable

    def solve(self, right: Point) -> Point:
        """About H^-1 right."""
        most = most_steps(self._problem)
        rest = torch.cat([right.level[..., None], right.gates, right.inputs], dim=-1)
        found = torch.zeros_like(rest)
        ahead = preconditioned = self._preconditioned(rest)
        mass = first = (rest * preconditioned).sum(dim=-1)
        steps = 0
        while steps < most:
            steps += 1
            image = self._times(ahead)
            unfinished = self._tolerance**2 * first < mass
            share = torch.where(unfinished, mass / (ahead * image).sum(dim=-1), 0.0)[..., None]
            found = found + share * ahead
            rest = rest - share * image
            preconditioned = self._preconditioned(rest)
            last, mass = mass, (rest * preconditioned).sum(dim=-1)
            if not bool((self._tolerance**2 * first < mass).any()):
                break
            ahead = preconditioned + torch.where(last > 0, mass / last, 0.0)[..., None] * ahead
        self._effort.learn(steps, most)
        return _point(self._problem, found)

    def _times(
        self, vector: Float64[Tensor, "*batch variables"]
    ) -> Float64[Tensor, "*batch variables"]:
        """(1)."""
        problem, move = self._problem, _point(self._problem, vector)
        turned = self._inverse.turned(problem, move, problem.driven(move.inputs))
        back = problem.adjoint(symmetric(self._dual.matrix @ turned))
        inputs = back.inputs + self._curvature * move.inputs
        return torch.cat([back.level[..., None], back.gates, inputs], dim=-1)

    def _diagonal(self) -> Float64[Tensor, "*batch inputs"]:
        """D of (2)."""
        drive, mixed = self._drive, self._problem.mixed
        whole = (drive * mixed(self._dual.drive)).sum(dim=-2)
        rest = (whole - self._felt.square().sum(dim=-1)).clamp(min=0)
        return rest * (drive * mixed(self._inverse.drive)).sum(dim=-2) + self._curvature

    def _schur_complement(self) -> Float64[Tensor, "*batch leading leading"]:
        """Of level and gates, its upper triangle."""
        problem, into = self._problem, self._into
        matrix = upper_hessian(problem, self._dual, self._inverse, 1 + problem.multipliers)
        shown = into.mT @ self._inverted(into)
        half = torch.linalg.solve_triangular(self._joined, into, upper=False)
        return mirrored(matrix).sub_(shown).add_(half.mT @ half)

    def _preconditioned(
        self, vector: Float64[Tensor, "*batch variables"]
    ) -> Float64[Tensor, "*batch variables"]:
        """M^-1 v, block by block."""
        first = 1 + self._problem.multipliers
        leading, inputs = vector[..., :first, None], vector[..., first:]
        alone = self._of_inputs(inputs)
        crossed = self._into.mT @ self._inverted(self._forth(alone))
        leading = torch.cholesky_solve(leading - crossed, self._gates)
        through = self._back(self._inverted(self._into @ leading))
        return torch.cat([leading[..., 0], alone - self._of_inputs(through)], dim=-1)

    def _of_inputs(
        self, vector: Float64[Tensor, "*batch inputs"]
    ) -> Float64[Tensor, "*batch inputs"]:
        """M_ee^-1 v = D^-1 v - D^-1 J_e' (I (x) T + Q)^-1 J_e D^-1 v."""
        alone = vector / self._left
        return (
            alone - self._back(torch.cholesky_solve(self._forth(alone), self._joined)) / self._left
        )

    def _forth(
        self, vector: Float64[Tensor, "*batch inputs"]
    ) -> Float64[Tensor, "*batch stacked 1"]:
        """J_e v: A_k y = -F_k F_k'y."""
        return -(self._drive @ (self._felt * vector[..., None])).mT.flatten(-2)[..., None]

    def _back(
        self, vector: Float64[Tensor, "*batch stacked 1"]
    ) -> Float64[Tensor, "*batch inputs"]:
        """J_e' v."""
        parts = vector.unflatten(-2, (self._felt.shape[-1], -1))[..., 0]
        return -(self._felt * (self._drive.mT @ parts.mT)).sum(dim=-1)

    def _inverted(
        self, vector: Float64[Tensor, "*batch stacked k"]
    ) -> Float64[Tensor, "*batch stacked k"]:
        """(I (x) V) v."""
        parts = vector.unflatten(-2, (self._felt.shape[-1], -1))
        return (self._inverse.matrix[..., None, :, :] @ parts).flatten(-3, -2)


def _point(problem: Inequality, vector: Float64[Tensor, "*batch variables"]) -> Point:
    first = 1 + problem.multipliers
    return Point(level=vector[..., 0], gates=vector[..., 1:first], inputs=vector[..., first:])


def _nystrom(
    matrix: Float64[Tensor, "*batch n n"], outputs: int, rank: int
) -> Float64[Tensor, "*batch n r"]:
    """Y with 0 <= X - Y Y': X U (U'X U)^-1/2, U the outputs' sum and images of fixed vectors."""
    size = matrix.shape[-1]
    whole = matrix.new_zeros(size, 1)
    whole[:outputs] = 1.0
    # A fixed start makes runs repeat; entries of one size touch every eigenvector.
    angles = torch.arange(1, size + 1)[:, None] * torch.arange(1, rank)
    turned = matrix @ (matrix @ angles.to(matrix).sin())
    whole = whole.expand(*matrix.shape[:-1], 1)
    units = torch.linalg.qr(torch.cat([whole, turned], dim=-1))[0]
    image = matrix @ units
    factor, _ = torch.linalg.cholesky_ex(units.mT @ image)
    return torch.linalg.solve_triangular(factor.mT, image, upper=True, left=False)


def _into(
    problem: Inequality, image: Float64[Tensor, "*batch rows r"]
) -> Float64[Tensor, "*batch stacked leading"]:
    """J_a: of the level, y's part of the outputs; of a gate, its c (c'y) - d (d'y)."""
    outputs, spread = problem.outputs, problem.spread
    parts: list[Tensor] = []
    for column in range(image.shape[-1]):
        y = image[..., column]
        level = torch.cat([y[..., :outputs], torch.zeros_like(y[..., outputs:])], dim=-1)
        gates = -spread * (spread.mT @ y[..., None])[..., None, :, 0]
        gates[..., outputs:, :].diagonal(dim1=-2, dim2=-1).add_(y[..., outputs:])
        gates = pooled_rows(problem, gates.mT).mT
        parts.append(torch.cat([level[..., None], gates], dim=-1))
    return torch.cat(parts, dim=-2)


def _joined(
    drive: Float64[Tensor, "*batch rows inputs"],
    felt: Float64[Tensor, "*batch inputs r"],
    left: Float64[Tensor, "*batch inputs"],
    slack: Float64[Tensor, "*batch rows rows"],
) -> Float64[Tensor, "*batch stacked stacked"]:
    """I (x) T + Q, its lower triangle."""
    rows, rank = drive.shape[-2], felt.shape[-1]
    joined = drive.new_zeros(*drive.shape[:-2], rank * rows, rank * rows)
    for i in range(rank):
        for j in range(i + 1):
            share = (felt[..., i] * felt[..., j] / left)[..., None, :]
            block = (drive * share) @ drive.mT
            place = (..., slice(i * rows, (i + 1) * rows), slice(j * rows, (j + 1) * rows))
            joined[place] = block + slack if i == j else block
    return joined
