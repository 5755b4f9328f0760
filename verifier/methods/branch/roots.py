"""The cells that trees start from: the whole region, with multipliers from Newton's method."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from verifier.methods.branch.multipliers import Point, Systems, lowered, value_at
from verifier.methods.branch.question import Question
from verifier.methods.branch.tree import Cell, Multipliers
from verifier.methods.lipsdp import forward_start
from verifier.norms import Norm

_UNFELT = 1e-9  #: g of a psi that nothing enters, against the least of others
_SCHEDULE = ((1.0, 4), (0.1, 6), (0.02, 5), (0.003, 5))  #: (share, steps) of Newton's method


def roots(question: Question) -> list[Cell]:
    """One for each task, in their order."""
    form, tasks = question.form, question.tasks
    n, psis = form.inputs, len(form.owner)
    start = _start(question)
    cells: list[Cell] = []
    for task in tasks:
        systems = Systems(
            above=task.outflow[None],
            below=form.inflow[None],
            real=torch.ones(1, psis, dtype=torch.bool),
            in_linf=question.norm.input is Norm.LINF,
        ).grown()
        point = Point(gates=start[None], inputs=torch.ones(1, n, dtype=torch.float64))
        value = value_at(systems, point)
        for share, steps in _SCHEDULE:
            point, value = lowered(systems, point, steps=steps, share=share)
        bound = float(value.bound(point, systems.in_linf))
        multipliers = Multipliers(1 / point.gates[0], 1 / point.inputs[0])
        sides = torch.zeros(len(question.kinks.psi), dtype=torch.float64)
        cells.append(Cell(task=task, sides=sides, bound=bound, multipliers=multipliers))
    return cells


def steps_of_roots(question: Question) -> int:
    """How many steps of Newton's method that takes."""
    return len(question.tasks) * sum(steps for _, steps in _SCHEDULE)


def _start(question: Question) -> Float64[Tensor, " psis"]:
    """g for which T is positive definite, e = 1: node by node, and what nothing enters at last.

    A psi that nothing enters is 0, but stands in the inequality: it gets a g that is hardly felt,
    and more than those of its kind that enter it.
    """
    form = question.form
    n = form.inputs
    drive, spread = form.inflow[:, :n], form.inflow[:, n:]
    entered = _entered(drive, spread)
    some = torch.nonzero(entered).flatten()
    counts = [int(entered[block].sum()) for block in form.blocks]
    ends = torch.tensor([0, *counts]).cumsum(dim=0).tolist()
    blocks = [slice(a, b) for a, b in pairwise(ends) if a < b]
    inner = spread[some][:, some]
    gates = torch.zeros(len(entered), dtype=torch.float64)
    if len(some):
        gram = drive[some] @ drive[some].T
        gates[some] = forward_start(inner, gram, torch.arange(len(some)), blocks).gates
    least = float(gates[some].min()) if len(some) else 1.0
    for psi in torch.nonzero(~entered).flatten().tolist():
        felt = 1 + float(spread[some, psi].square().sum())
        held = 2 * len(entered) * float((spread[psi].square() * gates).sum())
        gates[psi] = max(_UNFELT * least / felt, held)
    return gates


def _entered(
    drive: Float64[Tensor, "psis inputs"], spread: Float64[Tensor, "psis psis"]
) -> Bool[Tensor, " psis"]:
    """Which gates anything that varies enters, directly or through others."""
    entered = (drive != 0).any(dim=1)
    for psi in range(len(entered)):
        entered[psi] |= bool((spread[psi] != 0)[entered].any())
    return entered
