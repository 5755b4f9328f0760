"""Trees that divide every gate at its kinks, grown by linear programs: a search for the tests.

Gates are divided in the order of the network, so that in every part what enters the next one is an
affine function of the input. Where the cuts contradict each other, the weights are the duals of
the linear program (over a box), or a convex minimum (over an l2 ball).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.optimize import linprog, minimize

from verifier.certificate import (
    CUT,
    EMPTY,
    JACOBIAN,
    ForwardProof,
    Tree,
    TreeItem,
    TreeProof,
)
from verifier.checker.forward import forward_bounds, start_of
from verifier.checker.lowering import Lowered, lowered
from verifier.checker.network import Affine, Elementwise, Network
from verifier.checker.scalars import PiecewiseLinear
from verifier.checker.substitution import Around
from verifier.norms import Norm
from verifier.regions import Place

Numbers: TypeAlias = npt.NDArray[np.float64]

MARGIN = 1e-9  #: contradictions that are weaker are not looked for
FORWARD = ForwardProof(technique="linear")


@dataclass(frozen=True, kw_only=True)
class Half:
    """0 <= sign (z - place) for z = slopes.x + offset."""

    gate: int
    entry: int
    place: float
    sign: int
    slopes: Numbers
    offset: float


@dataclass
class Grown:
    """A tree in the making."""

    kinds: list[int] = field(default_factory=list[int])
    cuts: list[tuple[int, int, float]] = field(default_factory=list[tuple[int, int, float]])
    weights: list[float] = field(default_factory=list[float])

    def tree(self, output: int | None) -> Tree:
        """Its cells left to the Jacobian."""
        return Tree(
            output=output,
            kinds=tuple(self.kinds),
            gates=tuple(gate for gate, _, _ in self.cuts),
            entries=tuple(entry for _, entry, _ in self.cuts),
            places=np.array([place for _, _, place in self.cuts], dtype=np.float64),
            weights=np.array(self.weights, dtype=np.float64),
            rows=(),
            levels=np.zeros(0),
            scales=np.zeros(0),
        )


class Grower:
    """One network over one region."""

    def __init__(self, network: Network, region: Place) -> None:
        self.small: Lowered = lowered(network, sorts="compare")
        around, _ = start_of(region)
        assert isinstance(around, Around)  # trees here are of regions that are not clipped
        self._around = around
        self._signals = forward_bounds(network, self.small, region, FORWARD)
        self.gates = tuple(dict.fromkeys(self.small.gates.values()))

    def grown(self) -> Grown:
        """The whole tree."""
        grown = Grown()
        ends = {
            node.name: np.stack(
                [self._signals[node.source].lower[0], self._signals[node.source].upper[0]]
            )
            for node in self.small.network.nodes
            if isinstance(node, Elementwise)
        }
        self._grow(grown, ends, ())
        return grown

    def _grow(self, grown: Grown, ends: dict[str, Numbers], path: tuple[Half, ...]) -> None:
        weights = self._contradiction(path)
        if weights is not None:
            grown.kinds.append(EMPTY)
            grown.weights += weights.tolist()
            return
        cut = self._next(ends)
        if cut is None:
            grown.kinds.append(JACOBIAN)
            return
        name, half = cut
        grown.kinds.append(CUT)
        grown.cuts.append((half.gate, half.entry, half.place))
        for sign in (-1, 1):
            below = {key: value.copy() for key, value in ends.items()}
            below[name][0 if sign == 1 else 1, half.entry] = half.place
            self._grow(grown, below, (*path, replace(half, sign=sign)))

    def _next(self, ends: dict[str, Numbers]) -> tuple[str, Half] | None:
        """The first kink of the first gate that has two slopes."""
        inputs = self.small.network.input_size
        signals = {"": np.eye(inputs + 1)[:, :inputs]}
        for node in self.small.network.nodes:
            if isinstance(node, Affine):
                parts = [term.map.forward(signals[term.source]) for term in node.terms]
                signals[node.name] = np.sum(parts, axis=0)
                signals[node.name][-1] += node.bias
                continue
            assert isinstance(node, Elementwise)
            low, high = ends[node.name]
            least, greatest = node.function.slopes_inside(low, high)
            entering = signals[node.source]
            bent = np.flatnonzero((least < greatest) & (low < high))
            if len(bent):
                entry = int(bent[0])
                place = next(k for k in _kinks(node) if low[entry] < k < high[entry])
                gate = self.gates.index(self.small.gates[node.name])
                slopes, offset = entering[:-1, entry], float(entering[-1, entry])
                return node.name, Half(
                    gate=gate, entry=entry, place=place, sign=1, slopes=slopes, offset=offset
                )
            middle = (low + high) / 2
            value = np.mean(node.function.image(middle, middle), axis=0)
            signals[node.name] = entering * least
            signals[node.name][-1] += value - least * middle
        return None

    def _contradiction(self, path: Sequence[Half]) -> Numbers | None:
        """Weights with which the cuts contradict each other over the region."""
        if not path:
            return None
        normals = np.array([half.sign * half.slopes for half in path])
        offsets = np.array([half.sign * (half.offset - half.place) for half in path])
        solve = _over_box if self._around.norm is Norm.LINF else _over_ball
        weights = solve(normals, offsets, self._around)
        top = weights @ offsets + _reach(weights @ normals, self._around)
        return weights if top < -MARGIN else None


def tree_proof(
    network: Network, region: Place, outputs: Sequence[Sequence[int | None]]
) -> TreeProof:
    """For each item of a claim the same tree, for each of its outputs that is named."""
    grower = Grower(network, region)
    grown = grower.grown()
    return TreeProof(
        patterns=(),
        forward=FORWARD,
        gates=grower.gates,
        items=tuple(
            TreeItem(rows=(), trees=tuple(grown.tree(output) for output in each))
            for each in outputs
        ),
    )


def _kinks(node: Elementwise) -> list[float]:
    if isinstance(node.function, PiecewiseLinear):
        return [float(np.max(start)) for start, _ in node.function.knots]
    return [0.0]


def _reach(row: Numbers, around: Around) -> float:
    """The greatest value of a row over the region."""
    size = (
        np.abs(row) @ around.radius[0]
        if around.norm is Norm.LINF
        else (float(np.linalg.norm(row)) * around.radius[0, 0])
    )
    return float(row @ around.centre[0] + size)


def _over_box(normals: Numbers, offsets: Numbers, around: Around) -> Numbers:
    """The duals of: the greatest t with t <= normals.x + offsets for some x."""
    count, inputs = normals.shape
    rows = np.hstack([-normals, np.ones((count, 1))])
    centre, radius = around.centre[0], around.radius[0]
    limits = [*zip(centre - radius, centre + radius, strict=True)]
    goal = np.append(np.zeros(inputs), -1.0)
    answer = linprog(goal, A_ub=rows, b_ub=offsets, bounds=[*limits, (None, None)])
    return np.maximum(-np.asarray(answer.ineqlin.marginals), 0.0)


def _over_ball(normals: Numbers, offsets: Numbers, around: Around) -> Numbers:
    """Weights on the simplex with the least greatest value of their row."""
    count = len(offsets)

    def top(weights: Numbers) -> float:
        return float(weights @ offsets + _reach(weights @ normals, around))

    def excess(weights: Numbers) -> float:
        return float(weights.sum()) - 1

    answer = minimize(
        top,
        np.full(count, 1 / count),
        bounds=[(0.0, 1.0)] * count,
        constraints={"type": "eq", "fun": excess},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 200},
    )
    return np.maximum(np.asarray(answer.x), 0.0)
