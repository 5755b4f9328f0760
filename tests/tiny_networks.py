"""Exact Lipschitz constants of tiny networks of straight pieces, by enumeration of their pieces.

On a piece, where each gate is on one side of its kink, the network is affine. Its constant over a
convex region is the largest operator norm among the pieces with an interior there (the segment
between two points crosses finitely many). Whether a piece has an interior is a linear program: the
radius of the largest ball within. Weights are small dyadic numbers, so every Jacobian is exact;
slivers of radius below 1e-6 are left out, so a constant is never overestimated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.optimize import linprog

from tests.exact import SCALAR, Exact, Pair, entrywise, fractions, leaky, norm_below
from tests.random_networks import Builder, RandomNetwork, maxmin

Matrix: TypeAlias = npt.NDArray[np.float64]
Gate: TypeAlias = Literal["abs", "leaky", "maxmin", "relu"]

LEAK = 0.125
LEAST_RADIUS = 1e-6  #: ten times what the solver may violate a constraint by


@dataclass(frozen=True)
class Layer:
    """gate(W x + b)."""

    weight: Matrix
    bias: Matrix
    gate: Gate


@dataclass(frozen=True)
class TinyNetwork:
    """The layers, and a last matrix."""

    layers: tuple[Layer, ...]
    last: Matrix

    @property
    def inputs(self) -> int:
        """The number of inputs."""
        return (*(layer.weight for layer in self.layers), self.last)[0].shape[1]

    def built(self) -> RandomNetwork:
        """The network as an ONNX model."""
        builder = Builder(np.random.default_rng(0), (1, self.inputs))
        for layer in self.layers:
            _gemm(builder, layer.weight, layer.bias)
            _gate(builder, layer.gate)
            builder.block(layer.gate)
        _gemm(builder, self.last, np.zeros(self.last.shape[0]))
        return builder.finished()


@dataclass(frozen=True)
class Box:
    """[lower, upper] in every coordinate."""

    lower: Matrix
    upper: Matrix


@dataclass(frozen=True)
class _Cuts:
    """{x : normals x <= offsets}, the normals of length 1."""

    normals: Matrix
    offsets: Matrix

    def and_below(self, normal: Matrix, offset: float) -> _Cuts | None:
        """With normal x <= offset, or nothing if that leaves no interior."""
        length = float(np.linalg.norm(normal))
        if length == 0:
            return self if 0 <= offset else None
        cuts = _Cuts(
            np.vstack([self.normals, normal / length]),
            np.append(self.offsets, offset / float(length)),
        )
        return cuts if LEAST_RADIUS < cuts.radius() else None

    def radius(self) -> float:
        """The radius of the largest ball within, or 1 if that is larger."""
        count, n = self.normals.shape
        goal = np.append(np.zeros(n), -1.0)
        rows = np.hstack([self.normals, np.ones((count, 1))])
        bounds = [(None, None)] * n + [(0, 1)]
        answer = linprog(goal, A_ub=rows, b_ub=self.offsets, bounds=bounds)
        return -float(answer.fun) if answer.status == 0 else 0.0


@dataclass(frozen=True)
class _Unit:
    """A gate: the affine function whose sign decides, and its matrix on either side."""

    places: list[int]
    normal: Matrix
    offset: float
    negative: Matrix
    positive: Matrix


def pieces(network: TinyNetwork, box: Box | None = None) -> Iterator[Exact]:
    """The Jacobian of every piece with an interior, in the box or everywhere."""
    n = network.inputs
    cuts = _Cuts(np.empty((0, n)), np.empty(0))
    if box is not None:
        cuts = _Cuts(np.vstack([np.eye(n), -np.eye(n)]), np.append(box.upper, -box.lower))
    for matrix in _descend(network.layers, np.eye(n), np.zeros(n), cuts):
        yield fractions(network.last @ matrix)


def lipschitz_constant(network: TinyNetwork, norms: Pair, box: Box | None = None) -> Fraction:
    """The least L with |f(x) - f(y)|_q <= L |x - y|_p in the box, or everywhere; not above it."""
    return max(norm_below(jacobian, norms) for jacobian in pieces(network, box))


def _descend(
    layers: tuple[Layer, ...], matrix: Matrix, offset: Matrix, cuts: _Cuts
) -> Iterator[Matrix]:
    if not layers:
        yield matrix
        return
    weight, bias = layers[0].weight, layers[0].bias
    matrix, offset = weight @ matrix, weight @ offset + bias
    units = list(_units(layers[0].gate, matrix, offset))
    for side, within in _sides(units, np.zeros((len(bias), len(bias))), cuts):
        yield from _descend(layers[1:], side @ matrix, side @ offset, within)


def _sides(units: list[_Unit], side: Matrix, cuts: _Cuts) -> Iterator[tuple[Matrix, _Cuts]]:
    """Every choice of sides with an interior, and the matrix that the gates are there."""
    if not units:
        yield side, cuts
        return
    unit, place = units[0], np.ix_(units[0].places, units[0].places)
    for sign, block in ((1.0, unit.negative), (-1.0, unit.positive)):
        within = cuts.and_below(sign * unit.normal, -sign * unit.offset)
        if within is not None:
            chosen = side.copy()
            chosen[place] = block
            yield from _sides(units[1:], chosen, within)


def _units(gate: Gate, matrix: Matrix, offset: Matrix) -> Iterator[_Unit]:
    size = len(offset)
    if gate == "maxmin":
        swap, stay = np.array([[0.0, 1.0], [1.0, 0.0]]), np.eye(2)
        for first in range(size // 2):
            second = first + size // 2
            # The greater of the two comes first.
            yield _Unit(
                [first, second],
                matrix[second] - matrix[first],
                offset[second] - offset[first],
                stay,
                swap,
            )
        return
    negative = {"abs": -1.0, "leaky": LEAK, "relu": 0.0}[gate]
    for i in range(size):
        yield _Unit([i], matrix[i], offset[i], np.array([[negative]]), np.array([[1.0]]))


def _gemm(builder: Builder, weight: Matrix, bias: Matrix) -> None:
    exact, offset = (fractions(numbers.astype(np.float32)) for numbers in (weight, bias))
    builder.node(
        "Gemm",
        [builder.last, builder.constant(weight), builder.constant(bias)],
        lambda x: x @ exact.T + offset,
        transB=1,
    )


def _gate(builder: Builder, gate: Gate) -> None:
    match gate:
        case "abs":
            builder.node("Abs", [builder.last], entrywise(SCALAR["Abs"]))
        case "leaky":
            builder.node("LeakyRelu", [builder.last], entrywise(leaky(LEAK)), alpha=LEAK)
        case "maxmin":
            maxmin(builder)
        case "relu":
            builder.node("Relu", [builder.last], entrywise(SCALAR["Relu"]))


def tiny_network(
    rng: np.random.Generator, sizes: tuple[int, ...], gates: tuple[Gate, ...]
) -> TinyNetwork:
    """A network with eighths as weights: `sizes` from input to output, one more than gates + 1."""

    def eighths(*shape: int) -> Matrix:
        return rng.integers(-12, 13, shape) / 8

    layers = tuple(
        Layer(eighths(after, before), eighths(after), gate)
        for before, after, gate in zip(sizes, sizes[1:-1], gates, strict=False)
    )
    return TinyNetwork(layers, eighths(sizes[-1], sizes[-2]))


def _singles(numbers: list[list[float]]) -> Matrix:
    """What an ONNX file holds of them; products of two are exact in float64."""
    return np.array(numbers, dtype=np.float32).astype(np.float64)


#: Multipliers that couple neurons claim an l2 bound of 0.86496 for this network.
COUPLED = TinyNetwork(
    (Layer(_singles([[-1.0379, 1.06128], [-0.47245, -0.21774]]), np.zeros(2), "relu"),),
    _singles([[0.60827, -0.88520]]),
)
COUPLED_CLAIM = 0.86496
COUPLED_SLOPE = 0.90293  #: and it has a slope of 0.902938
