"""Small random ONNX models, each with its exact value.

Every node is written twice, as ONNX and over the rationals, by the same line that chooses it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from tests.exact import (
    SCALAR,
    Exact,
    batch_norm,
    convolved,
    elu,
    entrywise,
    fractions,
    leaky,
    mean,
    pooled,
)
from tests.oracles import to_bytes

Weights: TypeAlias = npt.NDArray[np.float32]
Unary: TypeAlias = Callable[[Exact], Exact]
Binary: TypeAlias = Callable[[Exact, Exact], Exact]


@dataclass(frozen=True)
class Step:
    """A signal, and what it is of one or two earlier ones."""

    name: str
    sources: tuple[str, ...]
    value: Callable[[Sequence[Exact]], Exact]


@dataclass(frozen=True, kw_only=True)
class RandomNetwork:
    """A model, and what it denotes."""

    model: bytes
    shape: tuple[int, ...]  #: of the input, its leading 1 included
    description: str  #: the blocks, in order
    steps: tuple[Step, ...]
    output: str

    @property
    def size(self) -> int:
        """The number of entries of the input."""
        return int(np.prod(self.shape))

    def __call__(self, x: Exact) -> Exact:
        """The flat output at a flat input, over the rationals."""
        signals = {"x": x.reshape(self.shape)}
        for step in self.steps:
            signals[step.name] = step.value([signals[source] for source in step.sources])
        return signals[self.output].ravel()

    def __str__(self) -> str:
        return self.description


class Builder:
    """A model in the making: the last signal is the one that the next block reads."""

    def __init__(self, rng: np.random.Generator, shape: tuple[int, ...]) -> None:
        self.rng = rng
        self.last = "x"
        self._shape = shape
        self._shapes = {"x": shape}
        self._nodes: list[onnx.NodeProto] = []
        self._tensors: list[onnx.TensorProto] = []
        self._steps: list[Step] = []
        self._blocks: list[str] = []

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the last signal."""
        return self._shapes[self.last]

    def block(self, name: str) -> None:
        """Note what is being added."""
        self._blocks.append(name)

    def constant(self, numbers: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> str:
        """The name of a new initializer."""
        name = f"c{len(self._tensors)}"
        self._tensors.append(numpy_helper.from_array(np.asarray(numbers, dtype=dtype), name))
        return name

    def node(
        self, op: str, inputs: Sequence[str], *values: Unary, **attributes: object
    ) -> list[str]:
        """Add a node of one data input, the first; constants may follow.

        Args:
            op: the ONNX operator.
            inputs: the signal, and constants.
            values: what each output is of the signal.
            attributes: of the node.

        Returns:
            The names of the outputs; the first one is the last signal from now on.
        """
        steps = [
            self._step((inputs[0],), lambda signals, value=value: value(signals[0]))
            for value in values
        ]
        return self._add(op, inputs, steps, attributes)

    def merge(self, op: str, left: str, right: str, value: Binary, **attributes: object) -> str:
        """Add a node of two signals and one output; its name."""
        step = self._step((left, right), lambda signals: value(signals[0], signals[1]))
        return self._add(op, (left, right), [step], attributes)[0]

    def _step(self, sources: tuple[str, ...], value: Callable[[Sequence[Exact]], Exact]) -> Step:
        step = Step(f"s{len(self._steps)}", sources, value)
        blank = [np.full(self._shapes[source], Fraction(0), dtype=object) for source in sources]
        self._shapes[step.name] = value(blank).shape
        self._steps.append(step)
        return step

    def _add(
        self, op: str, inputs: Sequence[str], steps: list[Step], attributes: Mapping[str, object]
    ) -> list[str]:
        names = [step.name for step in steps]
        node = helper.make_node(op, inputs, names)
        node.attribute.extend(helper.make_attribute(*item) for item in attributes.items())
        self._nodes.append(node)
        self.last = names[0]
        return names

    def weights(self, *shape: int) -> Weights:
        """Normal numbers of a random decade."""
        decade = 10 ** self.rng.uniform(-1.5, 1.5)
        spread = decade / np.sqrt(max(1, np.prod(shape[1:])))
        return (self.rng.normal(size=shape) * spread).astype(np.float32)

    def finished(self) -> RandomNetwork:
        """The model whose output is the last signal."""
        graph = helper.make_graph(
            self._nodes,
            "random",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, self._shape)],
            [helper.make_tensor_value_info(self.last, onnx.TensorProto.FLOAT, self.shape)],
            self._tensors,
        )
        return RandomNetwork(
            model=to_bytes(graph),
            shape=self._shape,
            description=" ".join(self._blocks),
            steps=tuple(self._steps),
            output=self.last,
        )


Block: TypeAlias = Callable[[Builder], None]


def _side_by_side(x: Exact, y: Exact) -> Exact:
    return np.concatenate([x, y], axis=1)


def _gemm(b: Builder) -> None:
    rows = int(b.rng.integers(2, 7))
    weight, bias = b.weights(rows, b.shape[1]), b.weights(rows)
    exact, offset = fractions(weight), fractions(bias)
    b.node(
        "Gemm",
        [b.last, b.constant(weight), b.constant(bias)],
        lambda x: x @ exact.T + offset,
        transB=1,
    )


def _matmul(b: Builder) -> None:
    columns = int(b.rng.integers(2, 7))
    weight, bias = b.weights(b.shape[1], columns), b.weights(columns)
    exact, offset = fractions(weight), fractions(bias)
    b.node("MatMul", [b.last, b.constant(weight)], lambda x: x @ exact)
    b.node("Add", [b.last, b.constant(bias)], lambda x: x + offset)


def _square_gemm(b: Builder) -> None:
    weight = b.weights(b.shape[1], b.shape[1])
    exact = fractions(weight)
    b.node("Gemm", [b.last, b.constant(weight)], lambda x: x @ exact.T, transB=1)


def _scaling(b: Builder) -> None:
    scale = b.weights(*b.shape[1:])
    exact = fractions(scale)
    b.node("Mul", [b.last, b.constant(scale)], lambda x: x * exact)
    divisor = np.float32(b.rng.uniform(0.5, 2))
    b.node("Div", [b.last, b.constant(divisor)], lambda x: x / Fraction(float(divisor)))


def _residual(b: Builder) -> None:
    skip = b.last
    _square_gemm(b)
    _activation(b)
    _square_gemm(b)
    b.merge("Add", skip, b.last, lambda x, y: x + y)


def _difference(b: Builder) -> None:
    skip = b.last
    _square_gemm(b)
    b.merge("Sub", skip, b.last, lambda x, y: x - y)


def _split(b: Builder) -> None:
    """One half goes through an activation, and the halves change places."""
    n = b.shape[1]
    sizes = b.constant([n // 2, n - n // 2], np.int64)
    _, right = b.node(
        "Split", [b.last, sizes], lambda x: x[:, : n // 2], lambda x: x[:, n // 2 :], axis=1
    )
    _activation(b)
    b.merge("Concat", right, b.last, _side_by_side, axis=1)


def _slice(b: Builder) -> None:
    """Every other entry, and all but the first, side by side."""
    whole, n = b.last, b.shape[1]
    ends = [b.constant(numbers, np.int64) for numbers in ([0], [n], [1], [2])]
    start, end, axis, step = ends
    (strided,) = b.node("Slice", [whole, start, end, axis, step], lambda x: x[:, ::2])
    (tail,) = b.node("Slice", [whole, axis, end, axis], lambda x: x[:, 1:])
    b.merge("Concat", strided, tail, _side_by_side, axis=1)


def _transpose(b: Builder) -> None:
    n = b.shape[1]
    rows = 2 if n % 2 == 0 else 1
    b.node(
        "Reshape",
        [b.last, b.constant([1, rows, n // rows], np.int64)],
        lambda x: x.reshape(1, rows, n // rows),
    )
    b.node("Transpose", [b.last], lambda x: x.transpose(0, 2, 1), perm=[0, 2, 1])
    b.node("Flatten", [b.last], lambda x: x.reshape(1, -1), axis=1)


def _activation(b: Builder) -> None:
    """One of the operators of `SCALAR` or with parameters."""
    names = sorted(SCALAR)
    name = names[int(b.rng.integers(len(names)))]
    match name:
        case "GeluTanh":
            b.node("Gelu", [b.last], entrywise(SCALAR[name]), approximate="tanh")
        case "Silu":
            x = b.last
            b.node("Sigmoid", [x], entrywise(SCALAR["Sigmoid"]))
            silu = entrywise(SCALAR[name])
            b.merge("Mul", x, b.last, lambda x, _: silu(x))
        case "LeakyRelu":
            slope = float(b.rng.uniform(-0.5, 1.5))
            b.node(name, [b.last], entrywise(leaky(slope)), alpha=slope)
        case "Elu":
            alpha = float(b.rng.uniform(0.5, 2))
            b.node(name, [b.last], entrywise(elu(alpha)), alpha=alpha)
        case _:
            b.node(name, [b.last], entrywise(SCALAR[name]))
    b.block(name)


def relu(b: Builder) -> None:
    b.node("Relu", [b.last], entrywise(SCALAR["Relu"]))


def _prelu(b: Builder) -> None:
    slopes = b.rng.uniform(-0.5, 1.5, b.shape[1:]).astype(np.float32)
    exact = fractions(slopes)
    b.node(
        "PRelu",
        [b.last, b.constant(slopes)],
        lambda x: np.where(x < Fraction(0), x * exact, x),
    )


def _clip(b: Builder) -> None:
    lower, upper = b.constant(-0.5), b.constant(1.25)
    b.node(
        "Clip",
        [b.last, lower, upper],
        entrywise(lambda x: min(max(x, Fraction(-1, 2)), Fraction(5, 4))),
    )


def maxmin(b: Builder) -> None:
    n = b.shape[1] - b.shape[1] % 2
    if n < b.shape[1]:
        start, end, axis = (b.constant(numbers, np.int64) for numbers in ([0], [n], [1]))
        b.node("Slice", [b.last, start, end, axis], lambda x: x[:, :n])
    left, right = b.node(
        "Split", [b.last], lambda x: x[:, : n // 2], lambda x: x[:, n // 2 :], axis=1, num_outputs=2
    )
    greatest = b.merge("Max", left, right, np.maximum)
    least = b.merge("Min", left, right, np.minimum)
    b.merge("Concat", greatest, least, _side_by_side, axis=1)


def _group_sort(b: Builder) -> None:
    n = b.shape[1]
    k = next((k for k in (3, 4, 2, 5) if n % k == 0), 1)
    b.node(
        "Reshape",
        [b.last, b.constant([1, n // k, k], np.int64)],
        lambda x: x.reshape(1, n // k, k),
    )
    b.node(
        "TopK",
        [b.last, b.constant([k], np.int64)],
        lambda x: np.sort(x, axis=-1),
        lambda x: x,
        axis=-1,
        largest=0,
        sorted=1,
    )
    b.node("Reshape", [b.last, b.constant([1, n], np.int64)], lambda x: x.reshape(1, n))


def _householder(b: Builder) -> None:
    """X - 2 w relu(w.x), with w rounded to float32 and so not of length 1."""
    direction = b.rng.normal(size=(b.shape[1], 1))
    along = (direction / np.linalg.norm(direction)).astype(np.float32)
    back = (2 * along.T).astype(np.float32)
    exact, twice, x = fractions(along), fractions(back), b.last
    b.node("MatMul", [x, b.constant(along)], lambda x: x @ exact)
    relu(b)
    b.node("MatMul", [b.last, b.constant(back)], lambda x: x @ twice)
    b.merge("Sub", x, b.last, lambda x, y: x - y)


def _pad(b: Builder) -> int:
    """0 or 1, such that a window of two fits."""
    return int(b.rng.integers(0, 2)) if 1 < min(b.shape[2:]) else 1


def _convolution(b: Builder) -> None:
    channels = b.shape[1]
    groups = 2 if channels % 2 == 0 and b.rng.random() < 0.4 else 1
    out = groups * int(b.rng.integers(1, 3))
    side, pad, stride = int(b.rng.integers(1, 3)), _pad(b), int(b.rng.integers(1, 3))
    kernel, bias = b.weights(out, channels // groups, side, side), b.weights(out)
    exact, offset = fractions(kernel), fractions(bias)
    b.node(
        "Conv",
        [b.last, b.constant(kernel), b.constant(bias)],
        lambda x: convolved(x, exact, offset, stride, pad, groups),
        pads=[pad] * 4,
        strides=[stride] * 2,
        group=groups,
    )


def _batch_norm(b: Builder) -> None:
    channels = b.shape[1]
    scale, bias, average = b.weights(channels), b.weights(channels), b.weights(channels)
    variance = np.abs(b.weights(channels))
    exact = [fractions(numbers) for numbers in (scale, bias, average, variance)]
    epsilon = Fraction(float(np.float32(1e-5)))
    b.node(
        "BatchNormalization",
        [b.last, *(b.constant(numbers) for numbers in (scale, bias, average, variance))],
        lambda x: batch_norm(x, exact, epsilon),
        epsilon=1e-5,
    )


def _average_pool(b: Builder) -> None:
    pad = _pad(b)
    b.node(
        "AveragePool",
        [b.last],
        lambda x: pooled(x, (2, 2), 1, pad, mean),
        kernel_shape=[2, 2],
        pads=[pad] * 4,
        count_include_pad=0,
    )


def _max_pool(b: Builder) -> None:
    pad = _pad(b)
    b.node(
        "MaxPool",
        [b.last],
        lambda x: pooled(x, (2, 2), 1, pad, max),
        kernel_shape=[2, 2],
        pads=[pad] * 4,
    )


VECTOR: dict[str, Block] = {
    "activation": _activation,
    "clip": _clip,
    "difference": _difference,
    "gemm": _gemm,
    "group-sort": _group_sort,
    "householder": _householder,
    "matmul": _matmul,
    "maxmin": maxmin,
    "prelu": _prelu,
    "relu": relu,
    "residual": _residual,
    "scaling": _scaling,
    "slice": _slice,
    "split": _split,
    "transpose": _transpose,
}
IMAGE: dict[str, Block] = {
    "activation": _activation,
    "average-pool": _average_pool,
    "batch-norm": _batch_norm,
    "convolution": _convolution,
    "max-pool": _max_pool,
    "relu": relu,
}
GROWING = 12  #: entries; above that only a dense block may follow


def random_network(rng: np.random.Generator, blocks: int = 5) -> RandomNetwork:
    """A model of so many random blocks between two dense ones, perhaps after some on an image."""
    is_image = rng.random() < 0.35
    shape = (1, int(rng.integers(1, 3)), 3, 2) if is_image else (1, int(rng.integers(2, 7)))
    builder = Builder(rng, shape)
    if is_image:
        for _ in range(2):
            _add(builder, IMAGE)
        builder.node("Flatten", [builder.last], lambda x: x.reshape(1, -1), axis=1)
    for _ in range(blocks):
        if GROWING < builder.shape[1] or rng.random() < 0.3:
            builder.block("gemm")
            _gemm(builder)
        else:
            _add(builder, VECTOR)
    builder.block("matmul")
    _matmul(builder)
    return builder.finished()


def _add(builder: Builder, blocks: dict[str, Block]) -> None:
    name = sorted(blocks)[int(builder.rng.integers(len(blocks)))]
    small = {"split", "maxmin", "slice"}
    if name in small and builder.shape[1] < 2:
        name = "relu"
    builder.block(name)
    blocks[name](builder)
