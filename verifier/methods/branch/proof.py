"""From trees of cells to a proof: preorder, and the multipliers that leaves share.

A leaf of inputs in linf that takes multipliers (lambda, tau), with y'S^-1 y = s for them, has

    scale = B / sum tau,    level = s / scale = B,    B = sqrt(s sum tau),                 (1)

so that (level + sum of the scaled tau)/2 = B; of l2, tau = 1, scale = level = s = B^2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.certificate import (
    ABOVE,
    BELOW,
    CUT,
    INEQUALITY,
    LmiRow,
    Tree,
    TreeItem,
    TreeProof,
)
from verifier.methods.branch.question import Question
from verifier.methods.branch.tree import Cell, Multipliers
from verifier.norms import Norm

SLACK = 2e-9  #: by which levels are raised
_LEAST = 1e-80  #: of levels and scales


def proof_of(question: Question, roots: Sequence[Cell]) -> TreeProof:
    """The trees as they are: cells that were not divided count with the bounds they have."""
    items: list[TreeItem] = []
    for place in range(len(question.items)):
        rows = _Rows(question)
        own = [root for root in roots if root.task.item == place]
        trees = tuple(_tree(question, root, rows) for root in own)
        items.append(TreeItem(rows=tuple(rows.rows), trees=trees))
    return TreeProof(
        patterns=question.network.patterns,
        forward=question.forward,
        gates=question.kinks.gates,
        items=tuple(items),
    )


@dataclass(slots=True)
class _Rows:
    """The rows of an item, numbered as leaves ask for them."""

    question: Question
    rows: list[LmiRow] = field(default_factory=list)
    _numbers: dict[int, int] = field(default_factory=dict)

    def number(self, cell: Cell) -> int:
        """Which row has the cell's multipliers."""
        key = id(cell.multipliers)
        if key not in self._numbers:
            self._numbers[key] = len(self.rows)
            self.rows.append(_row(self.question, cell))
        return self._numbers[key]


def _row(question: Question, cell: Cell) -> LmiRow:
    multipliers = cell.multipliers
    gates = question.form.by_gate(multipliers.gates)
    return LmiRow(
        output=cell.task.output,
        level=1.0,
        input_multipliers=_of_inputs(question, multipliers),
        multipliers={gate: each.numpy() for gate, each in gates.items()},
    )


def _of_inputs(
    question: Question, multipliers: Multipliers
) -> Float64[np.ndarray, " selected"] | None:
    """Tau of every selected input; of those without room it is not read."""
    if question.norm.input is not Norm.LINF:
        return None
    full = torch.ones(len(question.moving), dtype=torch.float64)
    full[question.moving] = multipliers.inputs
    return full.numpy()


def _tree(question: Question, root: Cell, rows: _Rows) -> Tree:
    kinks = question.kinks
    nodes = _Nodes()
    leaves: list[Cell] = []
    for cell in root.preorder():
        nodes.add(cell)
        if cell.kind == INEQUALITY:
            leaves.append(cell)
    cuts = torch.tensor(nodes.columns, dtype=torch.int64)
    at = torch.tensor(nodes.at, dtype=torch.float64)
    levels, scales = _levels(question, leaves)
    return Tree(
        output=root.task.output,
        kinds=tuple(nodes.kinds),
        gates=tuple(kinks.gate[cuts].tolist()),
        entries=tuple(kinks.entry[cuts].tolist()),
        places=(kinks.place[cuts] + at).numpy(),
        weights=torch.cat([torch.zeros(0, dtype=torch.float64), *nodes.weights]).numpy(),
        rows=tuple(rows.number(cell) for cell in leaves),
        levels=levels,
        scales=scales,
    )


@dataclass(slots=True)
class _Nodes:
    """The nodes of a tree so far: every cell's trims, then the cell."""

    kinds: list[int] = field(default_factory=list[int])
    columns: list[int] = field(default_factory=list[int])
    at: list[float] = field(default_factory=list[float])
    weights: list[Float64[Tensor, " weights"]] = field(default_factory=list[Tensor])

    def add(self, cell: Cell) -> None:
        """The next one in preorder."""
        path = cell.path() if cell.trims or cell.weights is not None else []
        for trims in cell.trims:
            self.kinds += torch.where(trims.is_below, BELOW, ABOVE).tolist()
            self.columns += trims.column.tolist()
            self.at += trims.at.tolist()
            self.weights.append(trims.weights[:, path].double().flatten())
        self.kinds.append(cell.kind)
        if cell.kind == CUT:
            self.columns.append(cell.cut)
            self.at.append(0.0)
        if cell.weights is not None:
            self.weights.append(cell.weights[path])


def _levels(
    question: Question, leaves: Sequence[Cell]
) -> tuple[Float64[np.ndarray, " leaves"], Float64[np.ndarray, " leaves"]]:
    """(1), a little above."""
    bounds = np.array([cell.bound for cell in leaves], dtype=np.float64)
    if question.norm.input is Norm.LINF:
        sums = np.array([float(cell.multipliers.inputs.sum()) for cell in leaves])
        return np.maximum(bounds * (1 + SLACK), _LEAST), np.maximum(bounds / sums, _LEAST)
    squares = np.maximum(bounds**2, _LEAST)
    return squares * (1 + SLACK), squares
