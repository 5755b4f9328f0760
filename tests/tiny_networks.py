"""Exact Lipschitz constants of tiny networks of straight pieces, by enumeration of their pieces.

A gate has sides: on each of them it is affine. Two constants come from that.

`lipschitz_constant`: on a piece, where each gate has one side, the network is affine. Its constant
over a convex region is the largest operator norm among the pieces with an interior there (the
segment between two points crosses finitely many). Whether a piece has an interior is a linear
program: the radius of the largest ball within. Slivers of radius below 1e-6 are left out, so a
constant is never overestimated.

`vertex_constant`: the same over all choices of sides, reached or not, which is never less. Whatever
knows of a gate only which slopes it has (every method so far, over all inputs) proves no less.

Both are of the exact Jacobian of the choice that is found to be the worst in float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, reduce
from itertools import product
from math import prod
from operator import add
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.optimize import linprog

from tests.exact import Exact, Pair, floats, fractions, norm_below, norms_about
from tests.random_networks import Builder, RandomNetwork, Step

Matrix: TypeAlias = npt.NDArray[np.float64]

LEAST_RADIUS = 1e-6  #: ten times what the solver may violate a constraint by
MOST_VERTICES = 20_000


@dataclass(frozen=True, eq=False)
class Side:
    """An affine function, and where it holds: {v: conditions v <= limits}."""

    matrix: Matrix
    offset: Matrix
    conditions: Matrix
    limits: Matrix


def linear_side(matrix: npt.ArrayLike, conditions: npt.ArrayLike) -> Side:
    """Matrix v where conditions v <= 0."""
    rows, where = np.array(matrix, dtype=np.float64), np.array(conditions, dtype=np.float64)
    return Side(rows, np.zeros(len(rows)), where, np.zeros(len(where)))


@dataclass(frozen=True, eq=False)
class Unit:
    """A part of a gate that takes its side by itself."""

    reads: tuple[int, ...]
    writes: tuple[int, ...]
    sides: tuple[Side, ...]

    @cached_property
    def turns(self) -> list[int]:
        """One side for each matrix that it can be."""
        matrices = [side.matrix.tolist() for side in self.sides]
        return [k for k, matrix in enumerate(matrices) if matrix not in matrices[:k]]


@dataclass(frozen=True, eq=False)
class Gate:
    """A signal that is its units' function of another one."""

    source: str
    units: tuple[Unit, ...]
    is_straight: bool = True  #: or its sides are slopes that it comes near to

    def matrix(self, picks: Sequence[int], size: int, sources: int) -> Matrix:
        """What it is where unit k is on its side picks[k]."""
        whole = np.zeros((size, sources))
        for unit, pick in zip(self.units, picks, strict=True):
            whole[np.ix_(unit.writes, unit.reads)] = unit.sides[pick].matrix
        return whole


@dataclass(frozen=True, eq=False)
class _Affine:
    """A signal that is a sum of matrices of others."""

    terms: tuple[tuple[str, Exact], ...]
    offset: Matrix


class TinyBuilder(Builder):
    """A model in the making that knows its gates; whatever is no gate is affine."""

    def __init__(self, rng: np.random.Generator, shape: tuple[int, ...]) -> None:
        super().__init__(rng, shape)
        self._gates: dict[str, Gate] = {}

    def gate(self, source: str, units: Sequence[Unit], *, is_straight: bool = True) -> None:
        """The last signal is this gate of an earlier one, whatever lies between."""
        self._gates[self.last] = Gate(source, tuple(units), is_straight)

    def to(self, name: str) -> None:
        """Go on from an earlier signal."""
        self.last = name

    @property
    def choices(self) -> int:
        """How many choices of sides the gates so far have."""
        return prod(len(unit.turns) for gate in self._gates.values() for unit in gate.units)

    def size_of(self, name: str) -> int:
        """The number of entries of a signal."""
        return prod(self._shapes[name])

    def tiny(self) -> TinyNetwork:
        """The network whose output is the last signal."""
        network = self.finished()
        steps = {step.name: step for step in network.steps}
        program: dict[str, _Affine | Gate] = {}

        def visit(name: str) -> None:
            if name in program or name == "x":
                return
            sources = (self._gates[name].source,) if name in self._gates else steps[name].sources
            for source in sources:
                visit(source)
            program[name] = self._gates.get(name) or self._affine(steps[name])

        visit(self.last)
        sizes = {name: self.size_of(name) for name in ("x", *program)}
        return TinyNetwork(network, program, sizes)

    def _affine(self, step: Step) -> _Affine:
        blank = {s: np.full(self._shapes[s], Fraction(0), dtype=object) for s in step.sources}
        offset = step.value([blank[s] for s in step.sources]).ravel()
        terms: list[tuple[str, Exact]] = []
        for k, source in enumerate(step.sources):
            columns: list[Exact] = []
            for place in np.ndindex(*self._shapes[source]):
                unit = blank[source].copy()
                unit[place] = Fraction(1)
                probe = [unit if i == k else blank[s] for i, s in enumerate(step.sources)]
                columns.append(step.value(probe).ravel() - offset)
            terms.append((source, np.stack(columns, axis=1)))
        return _Affine(tuple(terms), floats(offset))


@dataclass(frozen=True, eq=False)
class TinyNetwork:
    """A model, and what its signals are of earlier ones, in order."""

    network: RandomNetwork
    program: Mapping[str, _Affine | Gate]
    sizes: Mapping[str, int]

    def __str__(self) -> str:
        return str(self.network)

    @cached_property
    def vertices(self) -> int:
        """How many choices of sides there are."""
        gates = (node for node in self.program.values() if isinstance(node, Gate))
        return prod(len(unit.turns) for gate in gates for unit in gate.units)

    @cached_property
    def is_straight(self) -> bool:
        """Whether its pieces are affine."""
        return all(node.is_straight for node in self.program.values() if isinstance(node, Gate))

    @cached_property
    def floats(self) -> Mapping[str, tuple[tuple[str, Matrix], ...]]:
        """The terms of the affine signals, rounded."""
        return {
            name: tuple((source, floats(matrix)) for source, matrix in node.terms)
            for name, node in self.program.items()
            if isinstance(node, _Affine)
        }

    def jacobian(self, choice: Mapping[str, Sequence[int]]) -> Exact:
        """Its exact Jacobian where every gate is on the chosen sides."""
        signals = {"x": fractions(np.eye(self.sizes["x"]))}
        for name, node in self.program.items():
            if isinstance(node, Gate):
                matrix = node.matrix(choice[name], self.sizes[name], self.sizes[node.source])
                signals[name] = fractions(matrix) @ signals[node.source]
            else:
                parts = [matrix @ signals[source] for source, matrix in node.terms]
                signals[name] = reduce(add, parts)
        return signals[self.network.output]


@dataclass(frozen=True, eq=False)
class Box:
    """[lower, upper] in every coordinate."""

    lower: Matrix
    upper: Matrix


# --- All choices of sides ------------------------------------------------------------------------


def vertex_constant(tiny: TinyNetwork, norms: Pair) -> Fraction:
    """The greatest norm of a Jacobian over all choices of sides; not above it."""
    assert tiny.vertices <= MOST_VERTICES
    jacobians, choices = _all_jacobians(tiny)
    worst = int(norms_about(jacobians, norms).argmax())
    choice = {name: picks[worst].tolist() for name, picks in choices.items()}
    return norm_below(tiny.jacobian(choice), norms)


def _all_jacobians(tiny: TinyNetwork) -> tuple[Matrix, dict[str, npt.NDArray[np.int64]]]:
    """[choices, outputs, inputs], and by gate [choices, units]."""
    signals = {"x": np.eye(tiny.sizes["x"])[None]}
    chosen: dict[str, npt.NDArray[np.int64]] = {}
    for name, node in tiny.program.items():
        if isinstance(node, Gate):
            options = list(product(*(unit.turns for unit in node.units)))
            sizes = tiny.sizes[name], tiny.sizes[node.source]
            sides = np.stack([node.matrix(picks, *sizes) for picks in options])
            count = len(signals["x"])
            # Every choice so far with every option of this gate.
            signals = {key: np.repeat(each, len(options), axis=0) for key, each in signals.items()}
            chosen = {key: np.repeat(each, len(options), axis=0) for key, each in chosen.items()}
            chosen[name] = np.tile(np.array(options), (count, 1))
            signals[name] = np.tile(sides, (count, 1, 1)) @ signals[node.source]
        else:
            parts = [matrix @ signals[source] for source, matrix in tiny.floats[name]]
            signals[name] = reduce(add, parts)
    return signals[tiny.network.output], chosen


# --- The pieces that are reached -----------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Cuts:
    """{x : normals x <= offsets}, the normals of length 1."""

    normals: Matrix
    offsets: Matrix

    def and_below(self, normal: Matrix, offset: float) -> _Cuts | None:
        """With normal x <= offset, or nothing where that cannot be."""
        length = float(np.linalg.norm(normal))
        if length == 0:
            return self if 0 <= offset else None
        return _Cuts(
            np.vstack([self.normals, normal / length]),
            np.append(self.offsets, offset / length),
        )

    def has_interior(self) -> bool:
        """Whether a ball of the least radius fits within."""
        count, n = self.normals.shape
        if count == 0:
            return True
        goal = np.append(np.zeros(n), -1.0)
        rows = np.hstack([self.normals, np.ones((count, 1))])
        bounds = [(None, None)] * n + [(0, 1)]
        answer = linprog(goal, A_ub=rows, b_ub=self.offsets, bounds=bounds)
        return answer.status == 0 and LEAST_RADIUS < -float(answer.fun)


@dataclass(frozen=True, eq=False)
class _Piece:
    """The signals so far as [matrix | offset] of x, the sides chosen, and where that is."""

    signals: Mapping[str, Matrix]
    choice: Mapping[str, tuple[int, ...]]
    cuts: _Cuts


def pieces(tiny: TinyNetwork, box: Box | None = None) -> Iterator[Exact]:
    """The Jacobian of every piece with an interior, in the box or everywhere."""
    for piece in _pieces(tiny, box):
        yield tiny.jacobian(piece.choice)


def lipschitz_constant(tiny: TinyNetwork, norms: Pair, box: Box | None = None) -> Fraction:
    """The least L with |f(x) - f(y)|_q <= L |x - y|_p in the box, or everywhere; not above it."""
    found = list(_pieces(tiny, box))
    jacobians = np.stack([piece.signals[tiny.network.output][:, :-1] for piece in found])
    worst = int(norms_about(jacobians, norms).argmax())
    return norm_below(tiny.jacobian(found[worst].choice), norms)


def _pieces(tiny: TinyNetwork, box: Box | None) -> Iterator[_Piece]:
    n = tiny.sizes["x"]
    cuts = _Cuts(np.empty((0, n)), np.empty(0))
    if box is not None:
        cuts = _Cuts(np.vstack([np.eye(n), -np.eye(n)]), np.append(box.upper, -box.lower))
    start = _Piece({"x": np.eye(n, n + 1)}, {}, cuts)
    yield from _descend(tiny, list(tiny.program), start)


def _descend(tiny: TinyNetwork, names: list[str], piece: _Piece) -> Iterator[_Piece]:
    if not names:
        yield piece
        return
    name, node = names[0], tiny.program[names[0]]
    if isinstance(node, Gate):
        blank = np.zeros((tiny.sizes[name], tiny.sizes["x"] + 1))
        entering = piece.signals[node.source]
        for value, picks, cuts in _sides(node.units, entering, blank, (), piece.cuts):
            signals, choice = {**piece.signals, name: value}, {**piece.choice, name: picks}
            yield from _descend(tiny, names[1:], _Piece(signals, choice, cuts))
        return
    parts = [matrix @ piece.signals[source] for source, matrix in tiny.floats[name]]
    value = reduce(add, parts)
    value[:, -1] += node.offset
    signals = {**piece.signals, name: value}
    yield from _descend(tiny, names[1:], _Piece(signals, piece.choice, piece.cuts))


def _sides(
    units: tuple[Unit, ...], entering: Matrix, leaving: Matrix, picks: tuple[int, ...], cuts: _Cuts
) -> Iterator[tuple[Matrix, tuple[int, ...], _Cuts]]:
    """Every choice of sides with an interior, and what leaves the gate there."""
    if not units:
        yield leaving, picks, cuts
        return
    unit = units[0]
    for pick, side in enumerate(unit.sides):
        within = _within(side, entering[list(unit.reads)], cuts)
        if within is not None and within.has_interior():
            value = leaving.copy()
            value[list(unit.writes)] = side.matrix @ entering[list(unit.reads)]
            value[list(unit.writes), -1] += side.offset
            yield from _sides(units[1:], entering, value, (*picks, pick), within)


def _within(side: Side, entering: Matrix, cuts: _Cuts) -> _Cuts | None:
    within: _Cuts | None = cuts
    for row, limit in zip(side.conditions @ entering, side.limits, strict=True):
        if within is not None:
            within = within.and_below(row[:-1], limit - row[-1])
    return within
