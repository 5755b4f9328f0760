"""The cells that trees start from: the whole region, with multipliers from Newton's method."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from verifier.methods.branch.multipliers import Point, Systems, lowered, value_at
from verifier.methods.branch.question import Question, Task
from verifier.methods.branch.tree import Cell, Multipliers
from verifier.methods.lipsdp import forward_start
from verifier.norms import Norm

_UNFELT = 1e-9  #: g of a psi that nothing enters, against the least of others
_SCHEDULE = ((1.0, 4), (0.1, 6), (0.02, 5), (0.003, 5))  #: (share, steps) of Newton's method


def roots(question: Question) -> list[Cell]:
    """One for each task, in their order.

    Of an item's tasks those of the greatest bounds come first, and later ones stop as soon as their
    bounds are below the greatest: what they still lack is found when it counts.
    """
    start = _start(question)
    points = [_Rooted.of(question, task, start) for task in question.tasks]
    for item in {task.item for task in question.tasks}:
        enough = 0.0
        own = [point for point in points if point.task.item == item]
        for point in sorted(own, key=lambda each: -each.bound):
            for share, steps in _SCHEDULE[1:]:
                if enough <= point.bound:
                    point.lower(share, steps)
            enough = max(enough, point.bound)
    return [point.cell(question) for point in points]


def steps_of_roots(question: Question) -> int:
    """How many steps of Newton's method that takes, if one task of every item is solved."""
    first, *others = (steps for _, steps in _SCHEDULE)
    return len(question.tasks) * first + len(question.items) * sum(others)


@dataclass(slots=True, eq=False, kw_only=True)
class _Rooted:
    """The whole region, on the way to the best multipliers."""

    task: Task
    systems: Systems
    point: Point
    bound: float

    @staticmethod
    def of(question: Question, task: Task, start: Float64[Tensor, " psis"]) -> _Rooted:
        form = question.form
        systems = Systems(
            above=task.outflow[None],
            below=form.inflow[None],
            real=torch.ones(1, len(form.owner), dtype=torch.bool),
            in_linf=question.norm.input is Norm.LINF,
        ).grown()
        inputs = torch.ones(1, form.inputs, dtype=torch.float64)
        point = Point(gates=start[None], inputs=inputs)
        bound = float(value_at(systems, point).bound(point, systems.in_linf))
        found = _Rooted(task=task, systems=systems, point=point, bound=bound)
        found.lower(*_SCHEDULE[0])
        return found

    def lower(self, share: float, steps: int) -> None:
        """So many steps more."""
        self.point, value = lowered(self.systems, self.point, steps=steps, share=share)
        self.bound = float(value.bound(self.point, self.systems.in_linf))

    def cell(self, question: Question) -> Cell:
        """The root of a tree."""
        count = len(question.kinks.psi)
        return Cell(
            task=self.task,
            sides=torch.zeros(count, dtype=torch.float64),
            ends=torch.stack([question.values.least, question.values.greatest]),
            walls=torch.zeros(count, dtype=torch.bool),
            bound=self.bound,
            multipliers=Multipliers(1 / self.point.gates[0], 1 / self.point.inputs[0]),
        )


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
