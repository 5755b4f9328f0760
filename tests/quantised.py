"""Random dense networks in QuantizeLinear and DequantizeLinear, and what they are in float64.

Every number is read here from the arrays that the file is made of, once more than by the importer
and the checker: `smooth` is the network without its rounding, `rounded` with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from onnx import TensorProto

from tests.onnx_import.graphs import info, model, node

Rng = np.random.Generator
RANGES = {"uint8": (0, 255), "int8": (-128, 127), "uint16": (0, 65535), "int16": (-32768, 32767)}
#: By opset, the types of integers that it has; 16 bits come from a foreign domain before 21.
KINDS = {10: ("uint8", "int8"), 13: ("uint8", "int8"), 19: ("uint8", "int8"), 21: tuple(RANGES)}


@dataclass(frozen=True)
class Grid:
    """Steps of one size from a zero point."""

    step: np.float32
    zero: int
    kind: str

    def smooth(self, x: np.ndarray) -> np.ndarray:
        """The numbers within the grid's ends."""
        least, greatest = RANGES[self.kind]
        step = float(self.step)
        return x.clip((least - self.zero) * step, (greatest - self.zero) * step)

    def rounded(self, x: np.ndarray) -> np.ndarray:
        """The nearest numbers of the grid."""
        counts = np.rint(x / float(self.step)) + self.zero
        return (counts.clip(*RANGES[self.kind]) - self.zero) * float(self.step)

    def is_open(self, x: np.ndarray) -> np.ndarray:
        """Where the clip has slope 1."""
        return self.smooth(x) == x


@dataclass(frozen=True)
class Layer:
    """A dense layer, perhaps with a ReLU, and the grid of what leaves."""

    weight: np.ndarray
    bias: np.ndarray
    gated: bool
    grid: Grid


@dataclass(frozen=True)
class Network:
    """A file, and the numbers in it."""

    data: bytes
    first: Grid
    layers: Sequence[Layer]

    @property
    def size(self) -> int:
        """Entries of the input."""
        return self.layers[0].weight.shape[1]

    def smooth(self, x: np.ndarray) -> np.ndarray:
        """Without rounding, in float64."""
        x = self.first.smooth(x)
        for layer in self.layers:
            x = layer.weight @ x + layer.bias
            x = layer.grid.smooth(np.maximum(x, 0) if layer.gated else x)
        return x

    def jacobian(self, x: np.ndarray) -> np.ndarray:
        """Of `smooth`, where it has one."""
        found = np.diag(self.first.is_open(x).astype(np.float64))
        x = self.first.smooth(x)
        for layer in self.layers:
            x = layer.weight @ x + layer.bias
            x, is_on = (np.maximum(x, 0), 0 < x) if layer.gated else (x, np.ones(len(x), bool))
            found = (is_on & layer.grid.is_open(x))[:, None] * (layer.weight @ found)
            x = layer.grid.smooth(x)
        return found


def grid(rng: Rng, kind: str, reach: float) -> Grid:
    """Steps that cover about [-reach, reach], or [0, reach]."""
    least, greatest = RANGES[kind]
    zero = int(rng.choice([0, (least + greatest) // 2, least, int(rng.integers(least, greatest))]))
    return Grid(np.float32(reach / (greatest - least) * rng.uniform(0.5, 3)), zero, kind)


def random_network(rng: Rng, opset: int = 13) -> Network:
    """One to three layers; weights with one step, or one for every row."""
    kinds = KINDS[opset]
    sizes = rng.integers(2, 7, size=int(rng.integers(2, 5)))
    made = _File(opset)
    first = grid(rng, str(rng.choice(kinds)), 4.0)
    signal = made.rounded("x", first)
    layers: list[Layer] = []
    for number, (width, height) in enumerate(pairwise(sizes)):
        weight = made.weight(rng, f"w{number}", (int(height), int(width)))
        bias = made.bias(rng, f"b{number}", int(height))
        made.nodes.append(
            node("Gemm", [signal, f"w{number}", f"b{number}"], [f"h{number}"], transB=1)
        )
        gated = bool(rng.random() < 0.5)
        if gated:
            made.nodes.append(node("Relu", [f"h{number}"], [f"r{number}"]))
        after = grid(rng, str(rng.choice(kinds)), 6.0)
        signal = made.rounded(f"r{number}" if gated else f"h{number}", after)
        layers.append(Layer(weight, bias, gated, after))
    return Network(made.finished(signal, int(sizes[0]), int(sizes[-1])), first, layers)


class _File:
    """Nodes and constants of a file that is being written."""

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.nodes: list[object] = []
        self.constants: dict[str, np.ndarray] = {}

    def rounded(self, name: str, after: Grid) -> str:
        """A tensor through the grid and back; what the numbers are called."""
        self.constants[f"{name}.s"] = np.array(after.step)
        self.constants[f"{name}.z"] = np.array(after.zero, after.kind)
        numbers = [f"{name}.s", f"{name}.z"]
        self.nodes.append(node("QuantizeLinear", [name, *numbers], [f"{name}.q"]))
        self.nodes.append(node("DequantizeLinear", [f"{name}.q", *numbers], [f"{name}.d"]))
        return f"{name}.d"

    def weight(self, rng: Rng, name: str, shape: tuple[int, int]) -> np.ndarray:
        """Stored in 8 bits."""
        kind = str(rng.choice(["int8", "uint8"]))
        along = self.opset >= 13 and bool(rng.random() < 0.5)
        count = (shape[0],) if along else ()
        steps = rng.uniform(0.2, 1.5, size=count).astype(np.float32) / np.float32(128)
        zero = np.zeros(count, kind) if kind == "int8" else np.full(count, 128, kind)
        stored = rng.integers(*RANGES[kind], size=shape).astype(kind)
        axis = {"axis": 0} if self.opset >= 13 else {}
        return self._stored(name, stored, np.asarray(steps), zero, **axis)

    def bias(self, rng: Rng, name: str, size: int) -> np.ndarray:
        """Stored in 32 bits."""
        stored = rng.integers(-1000, 1000, size=size).astype(np.int32)
        return self._stored(name, stored, np.asarray(np.float32(1e-3)), None)

    def _stored(
        self,
        name: str,
        stored: np.ndarray,
        steps: np.ndarray,
        zero: np.ndarray | None,
        **attributes: int,
    ) -> np.ndarray:
        parts = {f"{name}.q": stored, f"{name}.s": steps}
        parts |= {} if zero is None else {f"{name}.z": zero}
        self.constants |= parts
        self.nodes.append(node("DequantizeLinear", [*parts], [name], **attributes))
        start = np.zeros((), np.int64) if zero is None else zero.astype(np.int64)
        rows = (-1, *(1,) * (stored.ndim - 1))
        spread = [a.reshape(rows) if a.ndim else a for a in (start, steps.astype(np.float64))]
        return (stored.astype(np.int64) - spread[0]) * spread[1]

    def finished(self, signal: str, inputs: int, outputs: int) -> bytes:
        """The file."""
        self.nodes.append(node("Identity", [signal], ["y"]))
        ends = [info("y", (1, outputs), TensorProto.FLOAT)]
        return model(
            self.nodes, self.constants, shape=(1, inputs), outputs=ends, opset=self.opset, ir=8
        )
