"""One row's matrix inequality around the multipliers of LipSDP, in coordinates where those are 1.

With S = blkdiag(1/sqrt(rho) I, Lambda^-1/2) of the base row, S M S has the level and every gate's
multiplier as numbers near 1, and the rows of gate j are sqrt(lambda_j) v_j and e_j. For l2 inputs
dx enters only through the rows that read it: a basis of their span stands for it. For linf inputs
xi is (1, dx, psi), the level s and every tau have a square of their own, and dx_k is a gate which
1 enters (|dx_k| <= 1 = |u|).

A sorted group of up to six keeps its multiplier, which a block (`sort_blocks`) may change by any
amount: blkdiag(I, -I) is 0 at every vertex.

Psis that nothing varying enters, or that the outputs do not depend on, keep the base's multipliers
and are not part of the problem.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from verifier.certificate import LmiRow
from verifier.methods.lipsdp import Form, forward_start, helmert
from verifier.methods.refinement.terms import Blocks, Problem, Squares

WIDEST_BLOCK = 6  #: n! vertices are too many beyond
_SPAN = 1e-13  #: singular values below this share of the largest are rounding


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Groups:
    """Sorted groups of one width, each with a block besides its base's multiplier."""

    blocks: Blocks
    places: Int64[Tensor, "groups steps"]  #: among the kept psis
    names: tuple[tuple[str, int], ...]  #: node and entry
    multipliers: Float64[Tensor, " groups"]  #: the base's lambda, which stays as it is


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Assembly:
    """The base's inequality in scaled coordinates."""

    form: Form
    entering: Float64[Tensor, "gates xi"]  #: v of scalar gates; for linf, inputs come first
    leaving: Float64[Tensor, "gates xi"]  #: psi of the same
    scales: Float64[Tensor, " gates"]  #: sqrt(lambda) of the same, or sqrt(tau)
    names: tuple[tuple[str, int], ...]  #: node and entry of the same
    base: Squares  #: level, then tau for linf, then lambda of all that have no block
    owners: tuple[tuple[str, int], ...]  #: node and entry of those lambda
    goal: Float64[Tensor, " variables"]  #: of the squares of the base
    unit: Float64[Tensor, " variables"]  #: what 1 stands for in each of them
    groups: tuple[Groups, ...]  #: sorted groups that have blocks
    interior: Float64[Tensor, " variables"]  #: a strictly feasible point, well inside: squares,
    interior_blocks: Float64[Tensor, " entries"]  #: and blocks, but for a multiple of I
    constant: Float64[Tensor, "xi xi"]

    @property
    def blocks(self) -> tuple[Blocks, ...]:
        """Those of all groups."""
        return tuple(group.blocks for group in self.groups)

    def problem(self, cuts: Squares) -> Problem:
        """The inequality with cuts, whose owners are counted from 0."""
        base, shift = self.base, len(self.base.rows)
        squares = Squares(
            rows=torch.cat([base.rows, cuts.rows]),
            sign=torch.cat([base.sign, cuts.sign]),
            owner=torch.cat([base.owner, base.count + cuts.owner]),
            count=base.count + cuts.count,
            runs=(*base.runs, *(slice(s.start + shift, s.stop + shift) for s in cuts.runs)),
        )
        goal = torch.cat([self.goal, self.goal.new_zeros(cuts.count)])
        return Problem(goal=goal, squares=squares, blocks=self.blocks, constant=self.constant)


def l2_assembly(form: Form, rows: Float64[Tensor, "selected outputs"], base: LmiRow) -> Assembly:
    """The assembly of a row for l2 inputs, of the outputs `rows` y."""
    gates = _multipliers(form, base)
    kept = torch.nonzero(_kept(form, rows)[form.owner]).flatten()
    owner = form.owner[kept]
    basis = _basis(torch.cat([form.inflow[kept], rows @ form.outflow])[:, : form.inputs])
    roots = gates[owner].sqrt()
    inputs = basis.shape[1]

    def scaled(matrix: Float64[Tensor, "k whole"]) -> Float64[Tensor, "k xi"]:
        head = matrix[:, : form.inputs] @ basis / math.sqrt(base.level)
        return torch.cat([head, matrix[:, form.inputs + kept] / roots], dim=1)

    entering = scaled(form.inflow[kept]) * roots[:, None]
    outflow = scaled(rows @ form.outflow)
    unit = torch.eye(inputs + len(kept), dtype=torch.float64)
    leaving = unit[inputs:]
    entries = _entries(form)
    names = [entries[int(i)][:2] for i in owner]
    steps = torch.tensor([entries[int(i)][2] for i in owner], dtype=torch.int64)
    groups = _groups(entering, leaving, names, steps, roots)
    plain = torch.nonzero((steps == 1) | (WIDEST_BLOCK <= steps)).flatten()
    owners, own = torch.unique(owner[plain], return_inverse=True)
    squares = Squares(
        rows=torch.cat([unit[:inputs], leaving[plain], entering[plain]]),
        sign=torch.cat([torch.ones(inputs + len(plain)), -torch.ones(len(plain))]).double(),
        owner=torch.cat([torch.zeros(inputs, dtype=torch.int64), 1 + own, 1 + own]),
        count=1 + len(owners),
        runs=_runs(inputs, len(plain), len(plain)),
    )
    goal = torch.zeros(squares.count, dtype=torch.float64)
    goal[0] = 1.0
    constant = outflow.T @ outflow
    level, factors = _interior(form, kept, entering, inputs, constant)
    first = torch.searchsorted(owner, owners)
    fixed = torch.cat([group.places.flatten() for group in groups] or [plain[:0]])
    held = leaving[fixed].T @ leaving[fixed] - entering[fixed].T @ entering[fixed]
    scalar = torch.nonzero(steps == 1).flatten()
    return Assembly(
        form=form,
        entering=entering[scalar],
        leaving=leaving[scalar],
        scales=roots[scalar],
        names=tuple(names[int(i)] for i in scalar),
        base=squares,
        owners=tuple(entries[int(i)][:2] for i in owners),
        goal=goal,
        unit=torch.cat([gates.new_tensor([base.level]), gates[owners]]),
        groups=groups,
        interior=torch.cat([gates.new_tensor([1.3 * level]), factors[first]]),
        interior_blocks=_interior_blocks(groups, factors),
        constant=constant - held,
    )


def _multipliers(form: Form, base: LmiRow) -> Float64[Tensor, " multipliers"]:
    """The base's lambda in the form's order."""
    parts = [torch.from_numpy(base.multipliers[a.gate])[a.active] for a in form.gates]
    return torch.cat([torch.zeros(0, dtype=torch.float64), *parts])


def _runs(*sizes: int) -> tuple[slice, ...]:
    """Consecutive ranges of these sizes, without empty ones."""
    ends = [0]
    for size in sizes:
        ends.append(ends[-1] + size)
    return tuple(slice(a, b) for a, b in pairwise(ends) if a < b)


def _basis(reading: Float64[Tensor, "rows inputs"]) -> Float64[Tensor, "inputs rank"]:
    """Orthonormal columns that span the rows."""
    _, values, right = torch.linalg.svd(reading, full_matrices=False)
    largest = float(values[0]) if len(values) else 0.0
    return right[values > _SPAN * largest].T


def _kept(form: Form, rows: Float64[Tensor, "selected outputs"]) -> Bool[Tensor, " multipliers"]:
    """The multipliers whose psis vary and matter."""
    owner, count = form.owner, form.multipliers
    spread = form.inflow[:, form.inputs :] != 0

    def any_of(flags: Bool[Tensor, " psis"]) -> Bool[Tensor, " multipliers"]:
        return torch.zeros(count).index_add_(0, owner, flags.float()) > 0

    entered = any_of((form.inflow[:, : form.inputs] != 0).any(dim=1))
    read = any_of(((rows @ form.outflow)[:, form.inputs :] != 0).any(dim=0))
    for _ in form.gates:
        entered |= any_of(spread[:, entered[owner]].any(dim=1))
        read |= any_of(spread[read[owner]].any(dim=0))
    return entered & read


def _entries(form: Form) -> list[tuple[str, int, int]]:
    """Node, entry and number of psis of every multiplier."""
    return [(a.gate, int(entry), a.psis) for a in form.gates for entry in a.active]


def _groups(
    entering: Float64[Tensor, "kept xi"],
    leaving: Float64[Tensor, "kept xi"],
    names: Sequence[tuple[str, int]],
    steps: Int64[Tensor, " kept"],
    roots: Float64[Tensor, " kept"],
) -> tuple[Groups, ...]:
    """The sorted groups that may have blocks, by width."""
    found: list[Groups] = []
    for width in range(2, WIDEST_BLOCK):
        # The psis of a group stand together.
        places = torch.nonzero(steps == width).reshape(-1, width)
        if len(places):
            rows = torch.cat([entering[places], leaving[places]], dim=1)
            found.append(
                Groups(
                    blocks=Blocks(rows=rows, vertices=_vertices(width)),
                    places=places,
                    names=tuple(names[int(i)] for i in places[:, 0]),
                    multipliers=roots[places[:, 0]].square(),
                )
            )
    return tuple(found)


def _interior_blocks(
    groups: Sequence[Groups], factors: Float64[Tensor, " kept"]
) -> Float64[Tensor, " entries"]:
    """(factor - 1) blkdiag(I, -I) of every group."""
    parts = [factors.new_zeros(0)]
    for group in groups:
        row, column = group.blocks.triangle
        sign = torch.where(row < group.blocks.order // 2, 1.0, -1.0).to(factors)
        unit = torch.where(row == column, sign, 0.0)
        parts.append(((factors[group.places[:, 0]] - 1)[:, None] * unit).flatten())
    return torch.cat(parts)


def _vertices(steps: int) -> Float64[Tensor, "permutations order steps"]:
    """[I; Q'P Q] for all P."""
    basis = helmert(steps + 1)
    unit = torch.eye(steps, dtype=torch.float64)
    return torch.stack(
        [
            torch.cat([unit, basis.T @ basis[list(moved)]])
            for moved in permutations(range(steps + 1))
        ]
    )


def _interior(
    form: Form,
    kept: Int64[Tensor, " kept"],
    entering: Float64[Tensor, "kept xi"],
    inputs: int,
    constant: Float64[Tensor, "xi xi"],
) -> tuple[float, Float64[Tensor, " kept"]]:
    """(the least level, multipliers) of LipSDP's start, their factor the one with the least."""
    drive, spread = entering[:, :inputs], entering[:, inputs:]
    chosen = torch.zeros(len(form.inflow), dtype=torch.int64)
    chosen[kept] = 1
    ends = torch.cumsum(chosen, dim=0)
    cuts = [0, *(int(ends[block.stop - 1]) for block in form.blocks if block.stop)]
    blocks = [slice(a, b) for a, b in pairwise(cuts) if a < b]
    owner = torch.unique(form.owner[kept], return_inverse=True)[1]
    start = forward_start(spread, drive @ drive.T, owner, blocks)
    gates = 1 / start.gates[owner]
    levels = [
        (least_level(_base_matrix(entering, gates * factor, inputs) - constant, inputs), factor)
        for factor in (2.0**power for power in range(-12, 13))
    ]
    level, factor = min((found, factor) for found, factor in levels if found is not None)
    return level, gates * factor


def _base_matrix(
    entering: Float64[Tensor, "kept xi"],
    weight: Float64[Tensor, " kept"],
    inputs: int,
) -> Float64[Tensor, "xi xi"]:
    """M + C of level 0."""
    matrix = -(entering.T @ (entering * weight[:, None]))
    matrix.diagonal()[inputs:] += weight
    return matrix


def least_level(matrix: Float64[Tensor, "xi xi"], inputs: int) -> float | None:
    """The least rho with 0 <= M + blkdiag(rho I, 0) for M of level 0; None where there is none."""
    factor, failed = torch.linalg.cholesky_ex(matrix[inputs:, inputs:])
    if failed:
        return None
    cross = torch.linalg.solve_triangular(factor, matrix[inputs:, :inputs], upper=False)
    return float(torch.linalg.eigvalsh(cross.T @ cross - matrix[:inputs, :inputs])[-1])
