"""Rounds of one row: solve, separate the most violated cuts, drop idle ones, solve again.

Each round starts from (1 - eps) y + eps y0, y the last round's point and y0 the interior one; new
cuts begin with a share of what M has room for. A round's answer is its best strictly feasible
point with the least level for it, a little raised, so that a checker's rounding does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.methods.refinement.assembly import Assembly, least_level
from verifier.methods.refinement.cuts import Cuts, Separation
from verifier.methods.refinement.solver import Solver
from verifier.methods.refinement.terms import Problem

_INTERIOR = 0.3  #: eps times the interior point's level
_ROOM = 0.05  #: what the level is raised by at the start of a round
_CUTS_FIRST = 0.3  #: of the room that M has, for new cuts
_IDLE = 1e-4  #: cuts whose share of the heaviest one is below this are dropped
_SLACK = 1e-9  #: the share by which levels are raised in any case
_UNIT = 2.0**-53


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Found:
    """A round's point: strictly feasible, with a margin for rounding."""

    base: Float64[Tensor, " variables"]  #: the level and the multipliers, in the base's units
    cuts: Cuts  #: with the roots of their multipliers taken in
    blocks: tuple[Float64[Tensor, "groups order order"], ...]
    lower: float  #: the relaxation's own optimum with these cuts, about; 0 if not known


def rounds(
    assembly: Assembly,
    *,
    limit: int,
    most_cuts: int,
    fresh_cuts: int,
    gap: float,
    stop: Callable[[float], bool],
) -> Iterator[Found]:
    """Points whose levels fall, one a round.

    Args:
        assembly: of a row.
        limit: rounds, at most.
        most_cuts: at any time.
        fresh_cuts: in one round.
        gap: that each round is solved to.
        stop: told the objective before each step; true ends.
    """
    cuts = Cuts.none()
    values = _first(assembly)
    for _ in range(limit):
        problem = assembly.problem(cuts.squares(assembly.entering, assembly.leaving))
        start = _started(assembly, problem, values)
        if start is None:
            return
        solved = Solver(problem).solve(start, gap=gap, iterations=50, stop=stop)
        if solved is None:
            return
        found = _repaired(assembly, problem, cuts, solved.values)
        if found is not None:
            yield Found(base=found[0], cuts=found[1], blocks=found[2], lower=solved.lower)
        if stop(float(problem.goal @ solved.values[: len(problem.goal)])):
            return
        cuts, values = _without_idle(assembly, problem, cuts, solved.values)
        seen = Separation.of(solved.dual, assembly.entering, assembly.leaving)
        room = most_cuts - cuts.count
        fresh = seen.most_violated(min(room, fresh_cuts))
        if not fresh.count:
            return
        cuts = cuts.joined(fresh)
        values = _inserted(assembly, values, fresh.count)


def _first(assembly: Assembly) -> Float64[Tensor, " variables"]:
    """The base's point, blocks at lambda blkdiag(I, -I) with lambda taken from the squares."""
    parts = [torch.ones(assembly.base.count, dtype=torch.float64)]
    parts += [torch.zeros(block.count, dtype=torch.float64) for block in assembly.blocks]
    return torch.cat(parts)


def _inserted(
    assembly: Assembly, values: Float64[Tensor, " variables"], count: int
) -> Float64[Tensor, " more"]:
    """The point with multipliers of 0 for new cuts, which come last of the squares."""
    blocks = sum(block.count for block in assembly.blocks)
    head, tail = values[: len(values) - blocks], values[len(values) - blocks :]
    return torch.cat([head, values.new_zeros(count), tail])


def _started(
    assembly: Assembly, problem: Problem, values: Float64[Tensor, " variables"]
) -> Float64[Tensor, " variables"] | None:
    """A strictly feasible start near a feasible point."""
    squares, base = problem.squares, assembly.base.count
    inside = _inside(assembly, problem)
    share = _INTERIOR / max(1.0, float(problem.goal @ inside[: len(problem.goal)]))
    mixed = values * (1 - share) + inside * share
    mixed[: len(assembly.goal)] *= 1 + _ROOM * (assembly.goal > 0)
    lifted = _lifted_blocks(assembly, problem, mixed)
    if lifted is None:
        return None
    mixed = lifted
    inverse = torch.linalg.inv(problem.slack(mixed))
    felt = squares.pooled(((squares.rows @ inverse) * squares.rows).sum(dim=1))
    room = torch.zeros_like(mixed)
    room[base : squares.count] = 1 / felt[base:]
    # A cut's whole spectrum is within its sum of squares; several ones add up.
    factor = 1.0
    while torch.linalg.cholesky_ex(problem.slack(mixed + factor * room))[1]:
        factor /= 2
        if factor < 2.0**-40:
            return None
    return mixed + _CUTS_FIRST * factor * room


def _inside(assembly: Assembly, problem: Problem) -> Float64[Tensor, " variables"]:
    """The interior point, with cuts of weight 0."""
    cuts = problem.squares.count - assembly.base.count
    zeros = assembly.interior.new_zeros(cuts)
    return torch.cat([assembly.interior, zeros, assembly.interior_blocks])


def _lifted_blocks(
    assembly: Assembly, problem: Problem, values: Float64[Tensor, " variables"]
) -> Float64[Tensor, " variables"] | None:
    """The point with a multiple of I added to every block, as much as M has room for."""
    if torch.linalg.cholesky_ex(problem.slack(values))[1]:
        return None
    if not assembly.blocks:
        return values
    lift = torch.zeros_like(values)
    first = problem.squares.count
    for block in assembly.blocks:
        row, column = block.triangle
        lift[first : first + block.count] = (row == column).repeat(block.groups).to(lift)
        first += block.count
    factor = 1.0
    while torch.linalg.cholesky_ex(problem.slack(values + factor * lift))[1]:
        factor /= 2
        if factor < 2.0**-40:
            return None
    return values + 0.5 * factor * lift


def _without_idle(
    assembly: Assembly, problem: Problem, cuts: Cuts, values: Float64[Tensor, " variables"]
) -> tuple[Cuts, Float64[Tensor, " fewer"]]:
    """Cuts that bear something, and the point of those."""
    if not cuts.count:
        return cuts, values
    base = assembly.base.count
    squares = problem.squares
    mass = squares.pooled(squares.rows.square().sum(dim=1))[base:]
    borne = values[base : squares.count] * mass
    busy = _IDLE * borne.max() < borne
    keep = torch.ones(len(values), dtype=torch.bool)
    keep[base : squares.count] = busy
    return cuts.chosen(busy), values[keep]


def _repaired(
    assembly: Assembly, problem: Problem, cuts: Cuts, values: Float64[Tensor, " variables"]
) -> tuple[Tensor, Cuts, tuple[Tensor, ...]] | None:
    """The point with the least level, blended with the interior until it has a margin."""
    base = assembly.base.count
    inside = _inside(assembly, problem)
    for blend in (0.0, *(10.0**power for power in range(-10, -2))):
        mixed = values * (1 - blend) + inside * blend
        levelled = _levelled(assembly, problem, mixed)
        if levelled is None:
            continue
        _, *blocks = problem.parts(levelled)
        squares = levelled[: problem.squares.count]
        roots = squares[base:].sqrt()[:, None]
        weighed = Cuts(first=cuts.first, second=cuts.second, p=cuts.p * roots, r=cuts.r * roots)
        matrices = tuple(b.matrices(v) for b, v in zip(problem.blocks, blocks, strict=True))
        return squares[:base], weighed, matrices
    return None


def _levelled(
    assembly: Assembly, problem: Problem, values: Float64[Tensor, " variables"]
) -> Float64[Tensor, " variables"] | None:
    """The point with the least level that leaves the margin; None where there is none."""
    weight = problem.squares.sign * values[problem.squares.owner]
    rows = problem.squares.rows
    size = rows.shape[1]
    mass = float((rows.square() * weight.abs()[:, None]).sum())
    margin = 4 * _UNIT * (size * size + len(rows) * mass) + 1e-11
    eye = torch.eye(size, dtype=torch.float64)
    bare = values.clone()
    bare[0] = 0.0
    head = int((assembly.base.owner == 0).sum())
    level = least_level(problem.slack(bare) - margin * eye, head)
    if level is None:
        return None
    bare[0] = max(level, 0.0) * (1 + _SLACK) + margin
    if torch.linalg.cholesky_ex(problem.slack(bare) - margin * eye / 2)[1]:
        return None
    for slack in problem.vertex_slacks(bare):
        least = torch.linalg.eigvalsh(slack)[..., 0]
        if float(least.min()) <= 1e-12 * math.sqrt(size):
            return None
    return bare
