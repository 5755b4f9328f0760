"""One row's matrix inequality around the multipliers of LipSDP, in coordinates where those are 1.

With S = blkdiag(1/sqrt(rho) I, Lambda^-1/2) of the base row (`frame`), S M S has the level and
every gate's multiplier as numbers near 1, and the rows of gate j are sqrt(lambda_j) v_j and e_j.

A sorted group of up to six keeps its multiplier, which a block (`sort_blocks`) may change by any
amount: blkdiag(I, -I) is 0 at every vertex.

Psis that nothing varying enters, or that the outputs do not depend on, keep the base's multipliers
and are not part of the problem.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from verifier.certificate import LmiRow
from verifier.methods.lipsdp import Form, helmert
from verifier.methods.refinement.frame import frame_of, interior_of
from verifier.methods.refinement.terms import Blocks, Problem, Squares

WIDEST_BLOCK = 6  #: n! vertices are too many beyond


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
    inputs: Int64[Tensor, " inputs"]  #: those with a tau, for linf
    entering: Float64[
        Tensor, "gates xi"
    ]  #: v of scalar gates; for one output and linf, inputs first
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


def assembled(
    form: Form, rows: Float64[Tensor, "selected outputs"], base: LmiRow
) -> Assembly | None:
    """The assembly of a row, of the outputs `rows` y.

    None where no gate has a part in them, or rounding leaves no interior point.
    """
    gates = _multipliers(form, base)
    kept = torch.nonzero(_kept(form, rows)[form.owner]).flatten()
    if not len(kept):
        return None
    owner = form.owner[kept]
    roots = gates[owner].sqrt()
    frame = frame_of(form, rows, base, kept, roots)
    front = frame.lead + len(frame.inputs)
    entering, unit = frame.entering, torch.eye(front + len(kept), dtype=torch.float64)
    leaving = unit[front:]
    entries = _entries(form)
    names = [entries[int(i)][:2] for i in owner]
    steps = torch.tensor([entries[int(i)][2] for i in owner], dtype=torch.int64)
    groups = _groups(entering, leaving, names, steps, roots)
    plain = torch.nonzero((steps == 1) | (WIDEST_BLOCK <= steps)).flatten()
    owners, own = torch.unique(owner[plain], return_inverse=True)
    first = 1 + len(frame.inputs)
    heads = torch.cat([torch.zeros(frame.lead, dtype=torch.int64), torch.arange(1, first)])
    squares = Squares(
        rows=torch.cat([unit[:front], leaving[plain], entering[plain]]),
        sign=torch.cat([torch.ones(front + len(plain)), -torch.ones(len(plain))]).double(),
        owner=torch.cat([heads, first + own, first + own]),
        count=first + len(owners),
        runs=_runs(frame.lead, len(frame.inputs), len(plain), len(plain)),
    )
    blocks = [block.start for block in form.blocks]
    interior = interior_of(frame, owner, torch.bucketize(kept, torch.tensor(blocks), right=True))
    if interior is None:
        return None
    levels, factors = interior
    fixed = torch.cat([group.places.flatten() for group in groups] or [plain[:0]])
    held = leaving[fixed].T @ leaving[fixed] - entering[fixed].T @ entering[fixed]
    scalar = torch.nonzero(steps == 1).flatten()
    heads_in, heads_out = frame.input_gates()
    return Assembly(
        form=form,
        inputs=frame.inputs,
        entering=torch.cat([heads_in, entering[scalar]]),
        leaving=torch.cat([heads_out, leaving[scalar]]),
        scales=torch.cat([frame.units[1:].sqrt()[: len(heads_in)], roots[scalar]]),
        names=(
            *(("", int(i)) for i in frame.inputs[: len(heads_in)]),
            *(names[int(i)] for i in scalar),
        ),
        base=squares,
        owners=tuple(entries[int(i)][:2] for i in owners),
        goal=torch.cat([frame.goal, frame.goal.new_zeros(len(owners))]),
        unit=torch.cat([frame.units, gates[owners]]),
        groups=groups,
        interior=torch.cat([levels, factors[torch.searchsorted(owner, owners)]]),
        interior_blocks=_interior_blocks(groups, factors),
        constant=frame.constant - held,
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
