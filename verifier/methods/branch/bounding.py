"""Better bounds of cells: of the Jacobian where it is one, of multipliers elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from verifier.certificate import JACOBIAN
from verifier.methods.branch.cells import Increments, increments
from verifier.methods.branch.multipliers import Point, Systems, drops, lowered
from verifier.methods.branch.question import Question
from verifier.methods.branch.tree import Cell, Multipliers
from verifier.methods.branch.trimming import narrows
from verifier.norms import Norm

_STEPS = 3  #: of Newton's method in every cell
_SHARE = 0.02  #: of the barrier: near the least bound multipliers tell gates apart no longer
NO_SHARE = 1e-12  #: of the square of a bound: what a gate without influence changes


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Bounded:
    """What centred multipliers prove of some cells."""

    multipliers: Sequence[Multipliers]
    bounds: Float64[Tensor, " cells"]
    shares: Float64[Tensor, "2 cells columns"]  #: of the squared bound, that a side of a kink saves
    weight: Float64[Tensor, "cells columns"]  #: what knowing the gate would, at most

    def of(self, places: Sequence[int]) -> Bounded:
        """Those of some of them."""
        return Bounded(
            multipliers=[self.multipliers[place] for place in places],
            bounds=self.bounds[list(places)],
            shares=self.shares[:, list(places)],
            weight=self.weight[list(places)],
        )


def settled(question: Question, cells: Sequence[Cell]) -> list[bool]:
    """Which cells have one Jacobian, since no open gate reaches their output; it bounds them."""
    if question.norm.input is not Norm.LINF:
        return [False] * len(cells)
    outflow, inputs = _increments(question, cells).outflow, question.form.inputs
    slopes = outflow[:, 0, :inputs].abs().sum(dim=1).tolist()
    others = outflow[:, 0, inputs:].abs().sum(dim=1).tolist()
    found = [other <= NO_SHARE * slope for slope, other in zip(slopes, others, strict=True)]
    for cell, slope, is_settled in zip(cells, slopes, found, strict=True):
        if is_settled:
            cell.kind, cell.bound = JACOBIAN, slope
    return found


def bounded(question: Question, cells: Sequence[Cell]) -> Bounded:
    """Newton's method from the cells' multipliers; what it finds is kept where it is better."""
    systems, psis = _systems(question, cells)
    gates = torch.stack([cell.multipliers.gates for cell in cells]).gather(1, psis)
    start = Point(
        gates=torch.where(systems.real, 1 / gates, 1.0),
        inputs=torch.stack([1 / cell.multipliers.inputs for cell in cells]),
    )
    point, value = lowered(systems, start, steps=_STEPS, share=_SHARE)
    bounds = value.bound(point, systems.in_linf)
    none = torch.zeros(len(cells), len(question.form.owner), dtype=torch.float64)
    full = none.scatter(1, psis, torch.where(systems.real, 1 / point.gates, 0.0))
    inputs = 1 / point.inputs
    found = [Multipliers(full[i].clone(), inputs[i].clone()) for i in range(len(cells))]
    for cell, bound, multipliers in zip(cells, bounds.tolist(), found, strict=True):
        if bound < cell.bound:
            cell.multipliers, cell.bound = multipliers, bound
    by_sign = drops(systems, value) / value.level.clamp(min=1e-300)[:, None]
    minus, plus = (none.scatter(1, psis, each) for each in by_sign)
    columns = question.kinks.psi
    minus, plus = minus[:, columns], plus[:, columns]
    # (3) is of an end of the slopes; what a slope between them saves is not counted.
    shares = [
        torch.where(sigma == -1, minus, torch.where(sigma == 1, plus, 0.0))
        for sigma in question.kinks.parts(torch.stack([cell.sides for cell in cells]))
    ]
    weight = torch.maximum(minus, plus)
    return Bounded(multipliers=found, bounds=bounds, shares=torch.stack(shares), weight=weight)


def gates_to_divide(
    question: Question,
    cells: Sequence[Cell],
    shares: Float64[Tensor, "2 cells columns"],
    felt: Bool[Tensor, "cells columns"],
) -> list[int]:
    """Of every cell the gate with the greatest score, over the first node that has gates felt.

    In this order planes of later nodes become exact. The score is min + max/10 of what the sides
    save; where intervals are narrowed, so that later gates feel it, it is min + max and the room
    between the gate's lines, as far as they do: for t in [l, u]

        -2 l u / (u - l) sum_k |V_kj| max share_k / (u_k - l_k).
    """
    score = shares.amin(dim=0) + 0.1 * shares.amax(dim=0)
    if narrows(question):
        score = shares.sum(dim=0) + _felt_later(question, cells, shares.amax(dim=0), felt)
    node = torch.where(felt, question.kinks.gate, len(question.kinks.gates))
    first = node == node.amin(dim=1, keepdim=True)
    return torch.where(felt & first, score, -1.0).argmax(dim=1).tolist()


def _felt_later(
    question: Question,
    cells: Sequence[Cell],
    shares: Float64[Tensor, "cells columns"],
    felt: Bool[Tensor, "cells columns"],
) -> Float64[Tensor, "cells columns"]:
    """The room between the lines of gates, by the shares of those that it widens."""
    ends = torch.stack([cell.ends for cell in cells])
    least, greatest = ends[:, 0].clamp(max=0.0), ends[:, 1].clamp(min=0.0)
    width = (greatest - least).clamp(min=1e-300)
    room = torch.where(felt, -2 * least * greatest / width, 0.0)
    return room * (torch.where(felt, shares / width, 0.0) @ question.values.spread.abs())


def _increments(question: Question, cells: Sequence[Cell]) -> Increments:
    sides = torch.stack([cell.sides for cell in cells])
    above = torch.stack([cell.task.outflow for cell in cells])
    return increments(question.form.inflow, above, question.kinks.sigma(sides))


def _systems(
    question: Question, cells: Sequence[Cell]
) -> tuple[Systems, Int64[Tensor, "cells open"]]:
    """The cells' inequalities, and which psis are open in them."""
    found = _increments(question, cells)
    systems = Systems(
        above=found.outflow,
        below=found.opened.taken(found.inflow),
        real=found.opened.real,
        in_linf=question.norm.input is Norm.LINF,
    )
    return systems.grown(), found.opened.index
