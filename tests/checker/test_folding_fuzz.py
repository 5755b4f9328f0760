"""Constants computed from hostile constants, against exact rationals: |W_true - W| <= E."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from tests.exact import Exact, fractions
from tests.onnx_import.graphs import info, model, node
from verifier.checker.graph import read_network
from verifier.checker.maps import Composed, Diagonal
from verifier.checker.network import Affine
from verifier.errors import NonFiniteWeights

SIZE = 3
HOSTILE = (1e-300, 1e300, 5e-324, 2.3e-308, 0.0, -0.0, 1.0, -3.0, 0.5, 2.0**-1022, 0.1, -1e-200)


class Drawn:
    """A random chain of folds, and the exact numbers that it stands for."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        two = np.array(2.0)
        self.constants = {"two": two} | {
            f"c{k}": self.rng.choice(np.array(HOSTILE), SIZE) for k in range(4)
        }
        self.exact = {name: fractions(value) for name, value in self.constants.items()}
        self.names = [f"c{k}" for k in range(4)]
        for _ in range(int(self.rng.integers(2, 9))):
            self._step()

    def _step(self) -> None:
        first, second = (self.names[int(n)] for n in self.rng.integers(len(self.names), size=2))
        first = self.names[-1] if self.rng.random() < 0.5 else first
        a, b = self.exact[first], self.exact[second]
        match int(self.rng.integers(8)):
            case 0 | 1 | 2:
                self._add("Mul", [first, second], a * b)
            case 3:
                self._add("Add", [first, second], a + b)
            case 4:
                self._add("Sub", [first, second], a - b)
            case 5 if all(b):
                self._add("Div", [first, second], a / b)
            case 6:
                self._add("Pow", [first, "two"], a * a)
            case _:
                self._add("Max", [first, second], np.maximum(a, b))

    def _add(self, op: str, inputs: list[str], value: Exact) -> None:
        name = f"t{len(self.nodes)}"
        self.nodes.append(node(op, inputs, [name]))
        self.names.append(name)
        self.exact[name] = value

    def file(self) -> bytes:
        """x times the last of them."""
        nodes = [*self.nodes, node("Mul", ["x", self.names[-1]], ["y"])]
        ends = {"inputs": [info("x", (1, SIZE), 11)], "outputs": [info("y", None, 11)]}
        return model(nodes, self.constants, **ends)


@pytest.mark.parametrize("seed", range(40))
def test_errors_cover_what_is_lost(seed: int) -> None:
    drawn = Drawn(seed)
    try:
        (last,) = read_network(drawn.file()).nodes[-1:] or (None,)
    except NonFiniteWeights:
        return  # beyond float64
    value, error = np.ones(SIZE), np.zeros(SIZE)
    if isinstance(last, Affine):
        to = last.terms[0].map
        to = to.second if isinstance(to, Composed) else to
        if isinstance(to, Diagonal):
            value, error = to.scale, np.zeros(SIZE) if to.error is None else to.error
    for true, near, spread in zip(drawn.exact[drawn.names[-1]], value, error, strict=True):
        assert abs(true - Fraction(float(near))) <= Fraction(float(spread))
