"""A strictly feasible start on any graph, without a phase 1: gates one node after another.

The psis of a node enter only later nodes, so T is factored block by block in topological order,
and each block's g is chosen when it is met. With T of the earlier blocks factored, block l is

    S_l = diag(g_l) - K_l,   K_l = C_l diag(g) C_l' + F_l F_l' + T_lp T_pp^-1 T_pl,        (1)

and g_l = excess d lambda_max(d^-1/2 K_l d^-1/2) with d the diagonal of K_l makes S_l positive
definite. Nothing in (1) reads the output: one start serves every row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from verifier.errors import JobFailed
from verifier.methods.lipsdp.inequality import Inequality, Point, least_level
from verifier.methods.lipsdp.panels import times

FACTOR = 1.6  #: of l2
FACTOR_LINF = 2.0
MORE_ROOM = (2.5, 5.0)  #: in their place, where rounding takes the room that they leave
_ROOM = 1.3  #: the level above the least, in shares of it, where (2) is looked at
_UNEVEN = 3.0  #: quotients of (2) are let be up to this multiple of their median
_GREATEST_RAISE = 1e6
_LEAST_FELT = 0.3  #: inputs that the outputs feel less, in shares of the mean, count as so much
_SIZES = (1.4, 1.0, 0.7, 0.5, 0.35, 0.25)  #: of such inputs, by the sum of w/e


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """Gates for which T's part of the psis is positive definite, and its Cholesky factor."""

    gates: Float64[Tensor, " multipliers"]
    factor: Float64[Tensor, "psis psis"]


def forward_start(
    spread: Float64[Tensor, "psis psis"],
    gram: Float64[Tensor, "psis psis"],
    owner: Int64[Tensor, " psis"],
    blocks: Sequence[slice],
    excess: float = FACTOR,
) -> Start:
    """Equation (1) along the blocks.

    Args:
        spread: C, strictly lower triangular by blocks.
        gram: F F'. No row of [C F] is zero.
        owner: the multiplier of each psi, ascending.
        blocks: consecutive ranges of psis that cover them; a multiplier stays within one.
        excess: above 1; the nearer to it, the better the level, and the less room around.

    Raises:
        JobFailed: the squares of the network's gains leave the range of float64.
    """
    size = spread.shape[0]
    factor = torch.zeros_like(spread)
    per_psi = spread.new_zeros(size)
    for block in blocks:
        past = slice(0, block.start)
        inflow = spread[block, past] * per_psi[past]
        cross = -inflow @ spread[past, past].T - gram[block, past]
        solved = torch.linalg.solve_triangular(factor[past, past], cross.T, upper=False)
        needed = inflow @ spread[block, past].T + gram[block, block] + solved.T @ solved
        if not bool(needed.isfinite().all()):
            raise beyond_range()
        shape = _shared(needed.diagonal(), owner[block])
        roots = shape.sqrt()
        growth = torch.linalg.eigvalsh(needed / roots / roots[:, None])[-1]
        per_psi[block] = excess * growth * shape
        factor[block, past] = solved.T
        corner, failed = torch.linalg.cholesky_ex(torch.diag(per_psi[block]) - needed)
        if failed:
            raise beyond_range()
        factor[block, block] = corner
    gates = spread.new_zeros(int(owner[-1]) + 1 if size else 0)
    gates[owner] = per_psi
    return Start(gates, factor)


def beyond_range() -> JobFailed:
    """The error of networks whose gains, squared, no float64 holds."""
    return JobFailed(
        "the inequality's entries leave the range of float64",
        fix='ask for method "product", which carries exponents of its own',
    )


def _shared(
    values: Float64[Tensor, " block"], owner: Int64[Tensor, " block"]
) -> Float64[Tensor, " block"]:
    """The greatest value of each owner, at each of its psis."""
    first = int(owner[0]) if len(owner) else 0
    greatest = values.new_zeros(len(values))
    greatest.scatter_reduce_(0, owner - first, values, "amax", include_self=False)
    return greatest[owner - first]


def freed(problem: Inequality, start: Point) -> Point:
    """The start with those gates raised that the outputs hardly feel; twice, if that helps.

    Args:
        problem: T.
        start: gates and inputs for which its level is the least.
    """
    if not problem.multipliers:
        return start
    return _raised(problem, _raised(problem, start))


def _raised(problem: Inequality, start: Point) -> Point:
    """One round of it; the same point where T would leave the cone, or nothing is to be done."""
    factor, failed = torch.linalg.cholesky_ex(problem.slack(start.at_level(start.level * _ROOM)).mT)
    inverse = torch.cholesky_inverse(factor).mT
    image = times(inverse, problem.spread, problem.panels)
    felt = problem.pooled((problem.spread * image).sum(dim=-2))
    held = problem.pooled(inverse.diagonal(dim1=-2, dim2=-1)[..., problem.outputs :])
    quotient = held / felt.clamp(min=1e-300)
    median = quotient.median(dim=-1, keepdim=True).values
    raised = (quotient / (_UNEVEN * median)).sqrt().clamp(1.0, _GREATEST_RAISE)
    some = (failed == 0) & (1.0 < raised).any(dim=-1)
    gates = torch.where(some[..., None], start.gates * raised, start.gates)
    if not bool(some.any()):
        return start
    bare = Point(level=torch.zeros_like(start.level), gates=gates, inputs=start.inputs)
    level = least_level(problem.slack(bare), problem.outputs)
    holds = some & level.isfinite()
    return problem.balanced(
        Point(
            level=torch.where(holds, level, start.level),
            gates=torch.where(holds[..., None], gates, start.gates),
            inputs=start.inputs,
        )
    )


def leaning(problem: Inequality, start: Point) -> Point:
    """The start with inputs e by what the outputs feel of them, where that bounds better.

    With X of rank one, the optimal e_k is sqrt(w_k) / |F_k'x|, and x = (1, -T_ww^-1 T_wo) for
    one output; of several, the root of the squares takes the place of |F_k'x|.
    """
    if problem.weights.shape[-1] < 2:
        return start
    outputs = problem.outputs
    slack = problem.slack(start.at_level(torch.zeros_like(start.level)))
    factor, _ = torch.linalg.cholesky_ex(slack[..., outputs:, outputs:])
    through = -torch.cholesky_solve(slack[..., outputs:, :outputs], factor)
    unit = torch.eye(outputs).to(through).expand(*through.shape[:-2], outputs, outputs)
    image = torch.cat([unit, through], dim=-2)
    felt = problem.mixed((problem.drive.mT @ image).mT).norm(dim=-2)
    felt = torch.maximum(felt, _LEAST_FELT * felt.mean(dim=-1, keepdim=True)).clamp(min=1e-300)
    inputs = problem.weights.sqrt() / felt
    mass = (problem.weights / inputs).sum(dim=-1) / (problem.weights / start.inputs).sum(dim=-1)
    best = start
    for size in _SIZES:
        best = _better(problem, best, inputs * (mass * size)[..., None])
    return best


def _better(problem: Inequality, known: Point, inputs: Float64[Tensor, "*batch inputs"]) -> Point:
    """The known point, or the one with these inputs at its least level where that bounds better."""
    bare = Point(level=torch.zeros_like(known.level), gates=known.gates, inputs=inputs)
    level = least_level(problem.slack(bare), problem.outputs)
    found = problem.balanced(bare.at_level(level))
    nearer = (0 < level) & (problem.objective(found) < problem.objective(known))
    return Point(
        level=torch.where(nearer, found.level, known.level),
        gates=torch.where(nearer[..., None], found.gates, known.gates),
        inputs=torch.where(nearer[..., None], found.inputs, known.inputs),
    )
