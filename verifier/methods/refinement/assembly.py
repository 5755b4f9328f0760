"""One row's matrix inequality around the multipliers of LipSDP, in coordinates where those are 1.

With S = blkdiag(1/sqrt(rho) I, Lambda^-1/2) of the base row, S M S has the level and every gate's
multiplier as numbers near 1, and the rows of gate j are sqrt(lambda_j) v_j and e_j. For l2 inputs
dx enters only through the rows that read it: a basis of their span stands for it. For linf inputs
xi is (1, dx, psi), the level s and every tau have a square of their own, and dx_k is a gate which
1 enters (|dx_k| <= 1 = |u|).

Psis that nothing varying enters, or that the outputs do not depend on, keep the base's multipliers
and are not part of the problem.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import permutations

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from verifier.certificate import LmiRow
from verifier.methods.lipsdp import Form, forward_start, helmert
from verifier.methods.refinement.terms import Blocks, Problem, Squares

WIDEST_BLOCK = 6  #: n! vertices are too many beyond
_SPAN = 1e-13  #: singular values below this share of the largest are rounding


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Assembly:
    """The base's inequality in scaled coordinates."""

    form: Form
    kept: Int64[Tensor, " kept"]  #: the form's psis that the problem has
    owner: Int64[Tensor, " kept"]  #: the multiplier of each, counted from 0 without gaps
    owners: Int64[Tensor, " multipliers"]  #: which of the form's multipliers those are
    entering: Float64[Tensor, "gates xi"]  #: v of scalar gates; for linf, inputs come first
    leaving: Float64[Tensor, "gates xi"]  #: psi of the same
    scales: Float64[Tensor, " gates"]  #: sqrt(lambda) of the same, or sqrt(tau)
    names: tuple[tuple[str, int], ...]  #: node and entry of the same
    base: Squares  #: level, then tau for linf, then lambda
    goal: Float64[Tensor, " variables"]  #: of the squares of the base
    unit: Float64[Tensor, " variables"]  #: what 1 stands for in each of them
    interior: Float64[Tensor, " variables"]  #: a strictly feasible point of the base, well inside
    blocks: tuple[Blocks, ...]  #: of sorted groups that may have them
    block_owners: tuple[Int64[Tensor, " groups"], ...]  #: the squares' variable of each group
    block_names: tuple[tuple[tuple[str, int], ...], ...]  #: node and entry of each group
    constant: Float64[Tensor, "xi xi"]

    def problem(self, cuts: Squares) -> Problem:
        """The inequality with cuts, whose owners are counted from 0."""
        base = self.base
        squares = Squares(
            rows=torch.cat([base.rows, cuts.rows]),
            sign=torch.cat([base.sign, cuts.sign]),
            owner=torch.cat([base.owner, base.count + cuts.owner]),
            count=base.count + cuts.count,
        )
        goal = torch.cat([self.goal, self.goal.new_zeros(cuts.count)])
        return Problem(goal=goal, squares=squares, blocks=self.blocks, constant=self.constant)


def l2_assembly(form: Form, rows: Float64[Tensor, "selected outputs"], base: LmiRow) -> Assembly:
    """The assembly of a row for l2 inputs, of the outputs `rows` y."""
    gates = torch.cat(
        [
            torch.zeros(0),
            *(torch.from_numpy(base.multipliers[a.gate])[a.active] for a in form.gates),
        ]
    ).to(torch.float64)
    kept = torch.nonzero(_kept(form, rows)[form.owner]).flatten()
    owners, owner = torch.unique(form.owner[kept], return_inverse=True)
    basis = _basis(torch.cat([form.inflow[kept], rows @ form.outflow])[:, : form.inputs])
    columns = form.inputs + kept
    roots = gates[form.owner[kept]].sqrt()
    inputs, level = basis.shape[1], base.level

    def scaled(matrix: Float64[Tensor, "k whole"]) -> Float64[Tensor, "k xi"]:
        head = matrix[:, : form.inputs] @ basis / math.sqrt(level)
        return torch.cat([head, matrix[:, columns] / roots], dim=1)

    entering = scaled(form.inflow[kept]) * roots[:, None]
    outflow = scaled(rows @ form.outflow)
    size = inputs + len(kept)
    unit = torch.eye(size, dtype=torch.float64)
    leaving = unit[inputs:]
    squares = Squares(
        rows=torch.cat([unit[:inputs], leaving, entering]),
        sign=torch.cat([torch.ones(size), -torch.ones(len(kept))]).to(torch.float64),
        owner=torch.cat([torch.zeros(inputs, dtype=torch.int64), 1 + owner, 1 + owner]),
        count=1 + len(owners),
    )
    constant = outflow.T @ outflow
    goal = torch.zeros(squares.count, dtype=torch.float64)
    goal[0] = 1.0
    scalar, names = _scalar_gates(form, kept)
    groups = _groups(form, kept, entering, leaving, owner)
    return Assembly(
        form=form,
        kept=kept,
        owner=owner,
        owners=owners,
        entering=entering[scalar],
        leaving=leaving[scalar],
        scales=roots[scalar],
        names=names,
        base=squares,
        goal=goal,
        unit=torch.cat([torch.tensor([level], dtype=torch.float64), gates[owners]]),
        interior=_interior(form, kept, entering, owner, inputs, constant),
        blocks=tuple(block for block, _, _ in groups),
        block_owners=tuple(own for _, own, _ in groups),
        block_names=tuple(name for _, _, name in groups),
        constant=constant,
    )


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


def _scalar_gates(
    form: Form, kept: Int64[Tensor, " kept"]
) -> tuple[Int64[Tensor, " gates"], tuple[tuple[str, int], ...]]:
    """The places among the kept psis of those of scalar gates, and their names."""
    entries = _entries(form)
    found = [(place, entries[int(form.owner[psi])]) for place, psi in enumerate(kept)]
    scalar = [(place, (gate, entry)) for place, (gate, entry, psis) in found if psis == 1]
    return (
        torch.tensor([place for place, _ in scalar], dtype=torch.int64),
        tuple(name for _, name in scalar),
    )


_Group = tuple[Blocks, Tensor, tuple[tuple[str, int], ...]]


def _groups(
    form: Form,
    kept: Int64[Tensor, " kept"],
    entering: Float64[Tensor, "kept xi"],
    leaving: Float64[Tensor, "kept xi"],
    owner: Int64[Tensor, " kept"],
) -> list[_Group]:
    """The blocks of sorted groups, one `Blocks` for each width."""
    entries = _entries(form)
    numbers = form.owner[kept]
    found: list[_Group] = []
    for steps in range(2, WIDEST_BLOCK):
        chosen = [i for i in torch.unique(numbers).tolist() if entries[i][2] == steps]
        if not chosen:
            continue
        places = torch.stack([torch.nonzero(numbers == i).flatten() for i in chosen])
        rows = torch.cat([entering[places], leaving[places]], dim=1)
        names = tuple((entries[i][0], entries[i][1]) for i in chosen)
        found.append((Blocks(rows=rows, vertices=_vertices(steps)), 1 + owner[places[:, 0]], names))
    return found


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
    owner: Int64[Tensor, " kept"],
    inputs: int,
    constant: Float64[Tensor, "xi xi"],
) -> Float64[Tensor, " variables"]:
    """Multipliers of LipSDP's start, their common factor the one whose least level is least."""
    drive, spread = entering[:, :inputs], entering[:, inputs:]
    chosen = torch.zeros(len(form.inflow), dtype=torch.int64)
    chosen[kept] = 1
    ends = torch.cumsum(chosen, dim=0)
    cuts = [0, *(int(ends[block.stop - 1]) for block in form.blocks if block.stop)]
    blocks = [slice(a, b) for a, b in zip(cuts, cuts[1:], strict=False) if a < b]
    start = forward_start(spread, drive @ drive.T, owner, blocks)
    gates = 1 / start.gates
    levels = [
        (
            least_level(_base_matrix(entering, gates * factor, owner, inputs) - constant, inputs),
            factor,
        )
        for factor in (2.0**power for power in range(-12, 13))
    ]
    level, factor = min((found, factor) for found, factor in levels if found is not None)
    return torch.cat([torch.tensor([1.3 * level], dtype=torch.float64), gates * factor])


def _base_matrix(
    entering: Float64[Tensor, "kept xi"],
    gates: Float64[Tensor, " multipliers"],
    owner: Int64[Tensor, " kept"],
    inputs: int,
) -> Float64[Tensor, "xi xi"]:
    """M + C of level 0."""
    weight = gates[owner]
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
