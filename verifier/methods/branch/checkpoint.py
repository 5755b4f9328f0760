"""Between a search's cells and what is stored of them; the one place that knows both.

Splits are named as a proof's cuts are, by gate, entry and place, so that a growth can be read
whatever a search's numbers for its gates are. Bounds and multipliers of a growth are a start, not
believed: a search betters them, and the checker decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.checkpoint import ELSEWHERE, Growth, Node, Root, Row, Split, Trim, unusable
from verifier.methods.branch.question import Question
from verifier.methods.branch.tree import Cell, Multipliers, Trims
from verifier.methods.clock import Clock

_EVERY = 5.0  #: seconds between two checkpoints, at least
_SHARE = 20.0  #: times what the last one took


class Keeper:
    """Makes checkpoints of a search, not too often."""

    def __init__(self, made: Callable[[], Growth], keep: Callable[[Growth], None] | None) -> None:
        self._made = made
        self._keep = keep
        self._clock = Clock.start(_EVERY)

    def tick(self) -> None:
        """One, if it is time."""
        if self._clock.has_expired:
            self.now()

    def now(self) -> None:
        """One."""
        if self._keep is None:
            return
        spent = Clock.start(0.0)
        self._keep(self._made())
        self._clock = Clock.start(max(_EVERY, _SHARE * spent.elapsed))


def growth_of(
    question: Question, roots: Sequence[Cell], points: Sequence[Float64[Tensor, " inputs"]]
) -> Growth:
    """What is stored of trees, and of the points where slopes were the steepest."""
    rows: dict[Multipliers, Row] = {}
    return Growth(
        gates=question.kinks.gates,
        roots=tuple(
            Root(
                item=root.task.item,
                output=root.task.output,
                node=_node_of(question, root, rows),
            )
            for root in roots
        ),
        points=torch.stack(list(points)).numpy().copy(),
    )


def cells_of(question: Question, growth: Growth) -> list[Cell]:
    """The roots of a growth's trees, as a search goes on from them.

    Raises:
        InvalidRequest: they are not of this question.
    """
    heads = [(root.item, root.output) for root in growth.roots]
    if heads != [(task.item, task.output) for task in question.tasks]:
        raise unusable("has other trees than the property")
    if (
        growth.gates != question.kinks.gates
        or growth.points.shape[1:] != question.domain.center.shape
    ):
        raise unusable("is of another network")
    known: dict[Row, Multipliers] = {}
    psis = _psis(question)
    none = Multipliers(
        torch.zeros(len(question.form.owner), dtype=torch.float64),
        torch.ones(question.form.inputs, dtype=torch.float64),
    )
    cells: list[Cell] = []
    for task, root in zip(question.tasks, growth.roots, strict=True):
        sides = torch.zeros_like(question.kinks.place)
        cell = Cell(
            task=task,
            sides=sides,
            ends=torch.stack([question.values.least, question.values.greatest]),
            walls=torch.zeros_like(sides, dtype=torch.bool),
            bound=root.node.bound,
            multipliers=none,
        )
        pending = [(cell, root.node)]
        while pending:
            here, node = pending.pop()
            _trim(here, node, psis)
            _restore(here, node, none, known)
            if node.children is not None:
                pending.extend(
                    zip(here.divided(_psi(here, node, psis)), node.children, strict=True)
                )
        cells.append(cell)
    return cells


def units_of(question: Question, growth: Growth) -> Float64[Tensor, "points inputs"]:
    """The growth's points as |u| <= 1 in the box around the region."""
    domain = question.domain
    x = torch.from_numpy(growth.points.copy())
    room = torch.where(0 < domain.reach, domain.reach, 1.0)
    return ((x - domain.center) / room).clamp(-1.0, 1.0)


def _node_of(question: Question, root: Cell, rows: dict[Multipliers, Row]) -> Node:
    """A tree from its leaves up: parts come after what they are parts of."""
    nodes: dict[Cell, Node] = {}
    for cell in reversed(list(root.preorder())):
        node = Node(kind=cell.kind, bound=cell.bound, trims=tuple(_trims(question, cell)))
        if cell.children is not None:
            node.split = _split(question, cell.cut)
            node.children = (nodes.pop(cell.children[0]), nodes.pop(cell.children[1]))
        elif cell.weights is not None:
            node.weights = cell.weights[cell.path()].numpy()
        elif cell.kind != ELSEWHERE:
            node.row = _row(cell.multipliers, rows)
        nodes[cell] = node
    return nodes[root]


def _row(multipliers: Multipliers, rows: dict[Multipliers, Row]) -> Row:
    if multipliers not in rows:
        rows[multipliers] = Row(multipliers.gates.numpy(), multipliers.inputs.numpy())
    return rows[multipliers]


def _split(question: Question, psi: int) -> Split:
    kinks = question.kinks
    gate, entry = int(kinks.gate[psi]), int(kinks.entry[psi])
    return Split(gate=gate, entry=entry, place=float(kinks.place[psi]))


def _trims(question: Question, cell: Cell) -> Iterator[Trim]:
    path = cell.path() if cell.trims else []
    for trims in cell.trims:
        parts = zip(trims.column.tolist(), trims.at.tolist(), trims.is_below.tolist(), strict=True)
        for (psi, at, is_below), weights in zip(parts, trims.weights[:, path], strict=True):
            split = _split(question, psi)
            yield Trim(split=split, at=at, is_below=is_below, weights=weights.numpy())


def _trim(cell: Cell, node: Node, psis: dict[Split, int]) -> None:
    """The trims of a cell, and what they leave of it."""
    if not node.trims:
        return
    path = cell.path()
    weights = torch.zeros(len(node.trims), len(cell.sides), dtype=torch.float32)
    found: list[int] = []
    for place, trim in enumerate(node.trims):
        psi = psis.get(trim.split)
        if psi is None:
            raise unusable("trims what is no gate's")
        found.append(psi)
        weights[place, path] = torch.from_numpy(trim.weights.copy())
        cell.ends[int(trim.is_below), psi] = trim.at
        if trim.at == 0:
            cell.sides[psi] = -1.0 if trim.is_below else 1.0
    cell.trims.append(
        Trims(
            column=torch.tensor(found),
            is_below=torch.tensor([trim.is_below for trim in node.trims]),
            at=torch.tensor([trim.at for trim in node.trims], dtype=torch.float64),
            weights=weights,
        )
    )


def _psis(question: Question) -> dict[Split, int]:
    """The psi that each split divides."""
    kinks = question.kinks
    places = zip(kinks.gate.tolist(), kinks.entry.tolist(), kinks.place.tolist(), strict=True)
    return {Split(*each): psi for psi, each in enumerate(places) if bool(kinks.known[psi])}


def _psi(cell: Cell, node: Node, psis: dict[Split, int]) -> int:
    psi = None if node.split is None else psis.get(node.split)
    if psi is None or float(cell.sides[psi]) != 0:
        raise unusable("divides what cannot be divided")
    return psi


def _restore(cell: Cell, node: Node, none: Multipliers, known: dict[Row, Multipliers]) -> None:
    """What a cell knows of itself, without its parts."""
    cell.kind, cell.bound = node.kind, node.bound
    if node.row is not None:
        if node.row not in known:
            known[node.row] = _multipliers(node.row, none)
        cell.multipliers = known[node.row]
    if node.weights is not None:
        weights = torch.zeros_like(cell.sides)
        weights[cell.path()] = torch.from_numpy(node.weights.copy())
        cell.close(weights)


def _multipliers(row: Row, none: Multipliers) -> Multipliers:
    gates, inputs = torch.from_numpy(row.gates.copy()), torch.from_numpy(row.inputs.copy())
    if gates.shape != none.gates.shape or inputs.shape != none.inputs.shape:
        raise unusable("has multipliers of another network")
    return Multipliers(gates, inputs)
