"""Exact answers in rationals, and small networks, for the tests of the checker."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.lowering import Absolute
from verifier.checker.maps import Dense
from verifier.checker.network import (
    Affine,
    Blocks,
    Elementwise,
    Maximum,
    Network,
    Node,
    Reflection,
    Sort,
    Term,
)
from verifier.checker.scalars import relu

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jaxtyping import Float64

    from verifier.checker.network import Scalar

Matrix = list[list[Fraction]]


def exact(matrix: Float64[np.ndarray, "m n"]) -> Matrix:
    """The matrix in rationals."""
    return [[Fraction(float(x)) for x in row] for row in matrix]


def product(left: Matrix, right: Matrix) -> Matrix:
    """The exact product."""
    columns = list(zip(*right, strict=True))
    return [
        [sum((a * b for a, b in zip(row, c, strict=True)), Fraction(0)) for c in columns]
        for row in left
    ]


def transposed(matrix: Matrix) -> Matrix:
    """Rows as columns."""
    return [list(column) for column in zip(*matrix, strict=True)]


def is_psd(matrix: Matrix) -> bool:
    """Whether a symmetric rational matrix is positive semidefinite, by exact LDL^T."""
    work = [row[:] for row in matrix]
    size = len(work)
    for k in range(size):
        pivot = work[k][k]
        if pivot < 0:
            return False
        if pivot == 0:
            if any(work[i][k] != 0 for i in range(k + 1, size)):
                return False
            continue
        for i in range(k + 1, size):
            factor = work[i][k] / pivot
            if factor:
                for j in range(k + 1, size):
                    work[i][j] -= factor * work[k][j]
    return True


def spectral_norm_at_most(matrix: Float64[np.ndarray, "m n"], bound: float) -> bool:
    """Whether |W|_2 <= bound, exactly."""
    tall = matrix if matrix.shape[1] <= matrix.shape[0] else matrix.T
    gram = product(transposed(exact(tall)), exact(tall))
    level = Fraction(bound) ** 2
    for i, row in enumerate(gram):
        for j in range(len(row)):
            row[j] = (level if i == j else 0) - row[j]
    return is_psd(gram)


def dense_network(
    weights: Sequence[Float64[np.ndarray, "out in"]],
    biases: Sequence[Float64[np.ndarray, " out"]] | None = None,
    scalar: Scalar | None = None,
) -> Network:
    """A chain: affine maps with one elementwise function (ReLU) between them."""
    nodes: list[Node] = []
    sizes = {"": weights[0].shape[1]}
    source = ""
    for place, weight in enumerate(weights):
        count = len(weight)
        bias = np.zeros(count) if biases is None else biases[place]
        nodes.append(
            Affine(
                name=f"z{place}",
                size=count,
                terms=(Term(source, Dense(weight)),),
                bias=bias,
                bias_error=np.zeros(count),
            )
        )
        sizes[f"z{place}"] = count
        source = f"z{place}"
        if place + 1 < len(weights):
            function = scalar or relu()
            nodes.append(
                Elementwise(name=f"h{place}", size=count, source=source, function=function)
            )
            sizes[f"h{place}"] = count
            source = f"h{place}"
    return Network(
        input_size=sizes[""],
        output=source,
        output_size=sizes[source],
        nodes=tuple(nodes),
        tensors=sizes,
    )


def relu_exact(x: Fraction) -> Fraction:
    """max(0, x)."""
    return max(x, Fraction(0))


def evaluate(
    network: Network, x: Sequence[Fraction], scalar: Callable[[Fraction], Fraction] = relu_exact
) -> dict[str, list[Fraction]]:
    """Every signal at a rational point, exactly; maps have to be stored, not folded."""
    signals = {"": list(x)}
    for node in network.nodes:
        match node:
            case Affine():
                signals[node.name] = _affine(node, signals)
            case Elementwise():
                function = abs if isinstance(node.function, Absolute) else scalar
                signals[node.name] = [function(v) for v in signals[node.source]]
            case Sort():
                signals[node.name] = _sorted(node, signals[node.source])
            case Maximum():
                source = signals[node.source]
                best = max if node.sign == 1 else min
                signals[node.name] = [best(source[int(i)] for i in w) for w in node.windows]
            case Reflection():
                signals[node.name] = _reflected(node, signals[node.source])
            case Blocks():
                raise NotImplementedError("blocks are not rational")
    return signals


def _sorted(node: Sort, source: list[Fraction]) -> list[Fraction]:
    out = [Fraction(0)] * node.size
    for group, places in zip(node.groups, node.places, strict=True):
        values = sorted(source[int(i)] for i in group)
        for place, value in zip(places, values, strict=True):
            out[int(place)] = value
    return out


def _reflected(node: Reflection, source: list[Fraction]) -> list[Fraction]:
    out = [Fraction(0)] * node.size
    for places, vector in zip(node.slices, exact(node.vectors), strict=True):
        pairs = [(c, int(i)) for c, i in zip(vector, places, strict=True)]
        along = sum((c * source[i] for c, i in pairs), Fraction(0))
        for c, i in pairs:
            out[i] = source[i] + c * (abs(along) - along)
    return out


def _affine(node: Affine, signals: dict[str, list[Fraction]]) -> list[Fraction]:
    out = [Fraction(float(b)) for b in node.bias]
    for term in node.terms:
        # Products with 0 and 1 alone: exact.
        columns = exact(term.map.forward(np.eye(term.map.in_size)))
        for value, column in zip(signals[term.source], columns, strict=True):
            if value:
                for place, weight in enumerate(column):
                    out[place] += weight * value
    return out


def affine(name: str, size: int, *terms: Term, bias: np.ndarray | None = None) -> Affine:
    """An affine node with exact constants."""
    zero = np.zeros(size)
    return Affine(
        name=name, size=size, terms=terms, bias=zero if bias is None else bias, bias_error=zero
    )


def network(nodes: Sequence[Node], inputs: int) -> Network:
    """A network whose last node is the output."""
    sizes = {"": inputs} | {node.name: node.size for node in nodes}
    last = nodes[-1]
    return Network(
        input_size=inputs,
        output=last.name,
        output_size=last.size,
        nodes=tuple(nodes),
        tensors=sizes,
    )


def rationals(rng: np.random.Generator, count: int) -> list[Fraction]:
    """Small dyadic numbers, kinks and ties among them."""
    return [Fraction(int(k), 8) for k in rng.integers(-24, 25, count)]
