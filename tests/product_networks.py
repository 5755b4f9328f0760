"""Random networks in which signals are multiplied, divided and raised to powers, as ONNX bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tests.onnx_import.graphs import model, node

INPUTS, WIDTH, OUTPUTS = 3, 4, 2


class Weaver:
    """A graph that grows step by step; every step reads one or two of the last signals."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}
        self.signals: list[str] = []

    def constant(self, value: np.ndarray | float) -> str:
        """A float32 constant."""
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(value, np.float32)
        return name

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:  # noqa: ANN401 (any attribute)
        """One node, and the name of what leaves it."""
        name = f"t{len(self.nodes)}"
        self.nodes.append(node(op, inputs, [name], **attributes))
        return name

    def dense(self, source: str, rows: int, columns: int, scale: float = 1.0) -> str:
        """An affine map with a bias."""
        weight = self.rng.standard_normal((rows, columns)) * scale / np.sqrt(rows)
        made = self.add("MatMul", source, self.constant(weight))
        return self.add("Add", made, self.constant(self.rng.standard_normal(columns) * 0.5))

    def picked(self) -> str:
        """One of the signals so far, a late one more often."""
        return self.signals[-1 - int(self.rng.integers(min(3, len(self.signals))))]

    def step(self, kind: str) -> None:
        """One more signal of WIDTH entries."""
        self.signals.append(STEPS[kind](self, self.picked(), self.picked()))

    def gate(self, a: str, b: str) -> str:
        """A gated linear unit, or its like."""
        gate = self.add(str(self.rng.choice(["Sigmoid", "Tanh", "Relu", "Abs"])), b)
        return self.add("Mul", self.dense(a, WIDTH, WIDTH), gate)

    def product(self, a: str, b: str) -> str:
        """Two signals, one of them mixed anew."""
        return self.add("Mul", a, self.dense(b, WIDTH, WIDTH))

    def quotient(self, a: str, b: str) -> str:
        """a / (b^2 + 1.5)."""
        return self.add("Div", a, self.add("Add", self.add("Mul", b, b), self.constant(1.5)))

    def exp(self, a: str, _b: str) -> str:
        """Of something not too large."""
        return self.add("Exp", self.dense(a, WIDTH, WIDTH, 0.4))

    def log(self, a: str, _b: str) -> str:
        """Log of `|a| + 0.75`."""
        return self.add("Log", self.add("Add", self.add("Abs", a), self.constant(0.75)))

    def root(self, a: str, b: str) -> str:
        """b / sqrt(mean a^2 + 0.5), broadcast."""
        squares = self.add("Mul", a, a)
        mean = self.add("MatMul", squares, self.constant(np.full((WIDTH, 1), 1 / WIDTH)))
        return self.add("Div", b, self.add("Sqrt", self.add("Add", mean, self.constant(0.5))))

    def power(self, a: str, _b: str) -> str:
        """A square or a cube."""
        made = self.add("Pow", a, self.constant(float(self.rng.choice([2.0, 3.0]))))
        return self.add("Mul", made, self.constant(0.3))

    def wave(self, a: str, _b: str) -> str:
        """Sine or cosine."""
        return self.add(str(self.rng.choice(["Sin", "Cos"])), a)

    def residual(self, a: str, b: str) -> str:
        """a + relu(W b)."""
        return self.add("Add", a, self.add("Relu", self.dense(b, WIDTH, WIDTH)))

    def matrix(self, a: str, b: str) -> str:
        """A 2 x 2 matrix times another one."""
        self.constants.setdefault("square", np.array([2, 2], np.int64))
        self.constants.setdefault("row", np.array([1, WIDTH], np.int64))
        left, right = (self.add("Reshape", x, "square") for x in (a, b))
        right = self.add("Transpose", right, perm=[1, 0])
        return self.add("Reshape", self.add("MatMul", left, right), "row")


STEPS: Mapping[str, Callable[[Weaver, str, str], str]] = {
    "gate": Weaver.gate,
    "product": Weaver.product,
    "quotient": Weaver.quotient,
    "exp": Weaver.exp,
    "log": Weaver.log,
    "root": Weaver.root,
    "power": Weaver.power,
    "wave": Weaver.wave,
    "matrix": Weaver.matrix,
    "residual": Weaver.residual,
}
KINDS = tuple(STEPS)


def product_network(seed: int, steps: int = 3) -> bytes:
    """A network of a few steps, the first of the kind that the seed names."""
    weaver = Weaver(np.random.default_rng([seed, 77]))
    weaver.signals = [weaver.dense("x", INPUTS, WIDTH), weaver.dense("x", INPUTS, WIDTH)]
    weaver.step(KINDS[seed % len(KINDS)])
    for _ in range(steps - 1):
        weaver.step(str(weaver.rng.choice(KINDS)))
    made = weaver.dense(weaver.signals[-1], WIDTH, OUTPUTS)
    weaver.nodes.append(node("Identity", [made], ["y"]))
    return model(weaver.nodes, weaver.constants, shape=(1, INPUTS))


def bounded_network(seed: int) -> bytes:
    """Gated layers whose factors are bounded whatever enters, and a residual sum."""
    weaver = Weaver(np.random.default_rng([seed, 78]))
    signal = weaver.dense("x", INPUTS, WIDTH)
    for _ in range(2):
        value = weaver.add(str(weaver.rng.choice(BOUNDED)), weaver.dense(signal, WIDTH, WIDTH))
        gate = weaver.add("Sigmoid", weaver.dense(signal, WIDTH, WIDTH))
        product = weaver.add("Mul", value, gate)
        signal = weaver.add("Add", signal, weaver.dense(product, WIDTH, WIDTH))
    weaver.nodes.append(node("Identity", [weaver.dense(signal, WIDTH, OUTPUTS)], ["y"]))
    return model(weaver.nodes, weaver.constants, shape=(1, INPUTS))


BOUNDED = ("Tanh", "Sin", "Erf", "HardSigmoid", "Softsign")
