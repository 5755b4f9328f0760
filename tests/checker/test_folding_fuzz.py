"""Constants computed from hostile constants, against exact rationals: |W_true - W| <= E."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from tests.exact import SCALAR, Exact, entrywise, fractions
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


ROWS = np.array([[0.1, -3.0, 1e-300], [7.0, 0.3, -0.7]])
MATRIX = np.array([[0.1, 2.0], [-0.3, 5e-324], [1e10, 0.7]])
ADDEND = np.array([[0.1, 0.2]])


def _general_product() -> Exact:
    beta = Fraction(float(np.float32(0.3)))
    return fractions(ROWS) @ fractions(MATRIX) * Fraction(0.5) + fractions(ADDEND) * beta


FOLDED: dict[str, tuple[Any, dict[str, np.ndarray], Exact]] = {
    "Gemm": (
        node("Gemm", ["a", "b", "c"], ["f"], alpha=0.5, beta=0.3),
        {"a": ROWS, "b": MATRIX, "c": ADDEND},
        _general_product(),
    ),
    "Gemm turned": (
        node("Gemm", ["a", "b"], ["f"], transA=1, transB=1),
        {"a": np.ascontiguousarray(ROWS.T), "b": np.ascontiguousarray(MATRIX.T)},
        fractions(ROWS) @ fractions(MATRIX),
    ),
    "ReduceMean": (
        node("ReduceMean", ["a"], ["f"], axes=[1], keepdims=0),
        {"a": ROWS},
        fractions(ROWS).sum(axis=1) / 3,
    ),
    "Relu": (node("Relu", ["a"], ["f"]), {"a": ROWS}, fractions(np.maximum(ROWS, 0))),
    "Sign": (node("Sign", ["a"], ["f"]), {"a": ROWS}, fractions(np.sign(ROWS))),
    "Sin": (node("Sin", ["a"], ["f"]), {"a": ROWS}, entrywise(SCALAR["Sin"])(fractions(ROWS))),
    "Cos": (node("Cos", ["a"], ["f"]), {"a": ROWS}, entrywise(SCALAR["Cos"])(fractions(ROWS))),
    "CumSum": (
        node("CumSum", ["a", "i"], ["f"]),
        {"a": np.array([[1, 2], [3, -7]]), "i": np.array(1)},
        fractions(np.array([[1.0, 3.0], [3.0, -4.0]])),
    ),
    "Eye": (node("EyeLike", ["a"], ["f"], k=1), {"a": ROWS}, fractions(np.eye(2, 3, 1))),
    "Scatter": (
        node("ScatterElements", ["a", "i", "u"], ["f"], axis=1),
        {"a": ROWS, "i": np.array([[2], [-2]]), "u": np.array([[4.0], [5.0]])},
        fractions(np.array([[0.1, -3.0, 4.0], [7.0, 5.0, -0.7]])),
    ),
    "ScatterND": (
        node("ScatterND", ["a", "i", "u"], ["f"]),
        {"a": ROWS, "i": np.array([[1, 0]]), "u": np.array([4.0])},
        fractions(np.array([[0.1, -3.0, 1e-300], [4.0, 0.3, -0.7]])),
    ),
    "Floor": (node("Floor", ["a"], ["f"]), {"a": ROWS}, fractions(np.floor(ROWS))),
    "ReduceProd": (
        node("ReduceProd", ["a"], ["f"], axes=[0], keepdims=0),
        {"a": np.array([[3.0, -4.0], [5.0, 7.0]])},
        fractions(np.array([15.0, -28.0])),
    ),
}


@pytest.mark.parametrize("form", FOLDED)
def test_an_error_covers_what_one_fold_loses(form: str) -> None:
    made, constants, exact = FOLDED[form]
    value, error = _folded([made], constants, exact.size)
    for true, near, spread in zip(exact.reshape(-1), value, error, strict=True):
        assert abs(true - Fraction(float(near))) <= Fraction(float(spread))
        assert Fraction(float(spread)) <= abs(true) / 10**12 + Fraction(1, 10**12)


def test_a_logarithm_of_a_constant_and_its_exponential_enclose_it() -> None:
    nodes = [node("Log", ["a"], ["l"]), node("Exp", ["l"], ["f"])]
    numbers = np.array([0.1, 1.0, 7e5])
    value, error = _folded(nodes, {"a": numbers}, 3)
    assert (np.abs(value - numbers) <= error).all()
    assert (error <= 1e-12 * numbers).all()


@pytest.mark.parametrize("number", [0.0, -1.0])
def test_no_logarithm_of_what_is_not_positive(number: float) -> None:
    with pytest.raises(NonFiniteWeights):
        _folded([node("Log", ["a"], ["f"])], {"a": np.array([number])}, 1)


def _folded(
    nodes: list[Any], constants: dict[str, np.ndarray], size: int
) -> tuple[np.ndarray, np.ndarray]:
    """The constant f of these nodes, flat, as the checker multiplies x by it."""
    shape = np.array([-1], np.int64)
    cast = node("Cast", ["f"], ["d"], to=11)
    nodes = [*nodes, cast, node("Reshape", ["d", "s"], ["r"]), node("Mul", ["x", "r"], ["y"])]
    ends = {"inputs": [info("x", (size,), 11)], "outputs": [info("y", None, 11)]}
    (last,) = read_network(model(nodes, constants | {"s": shape}, **ends)).nodes[-1:]
    assert isinstance(last, Affine)
    to = last.terms[0].map
    assert isinstance(to, Diagonal)
    return to.scale, np.zeros(size) if to.error is None else to.error
