"""Small convolutional networks, as ONNX files, and by hand on a torus of which nothing is a symbol.

On a torus everything is materialised: an increment is an array [channels, *places, xi] over
xi = (dx, psi), a circular convolution adds shifted copies, and the covariance of the outputs is
found as in `tests.checker.recursions`, from one matrix for the whole torus.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import onnx
from onnx import helper

from tests.oracles import to_bytes

Array: TypeAlias = np.ndarray


@dataclass(frozen=True)
class Conv:
    """A convolution; the bias is zero."""

    name: str
    source: str
    kernel: Array
    pads: tuple[tuple[int, int], ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    groups: int = 1


@dataclass(frozen=True)
class Gate:
    """LeakyReLU of a slope; 0: ReLU."""

    name: str
    source: str
    leak: float = 0.0


@dataclass(frozen=True)
class Add:
    """The sum of two tensors."""

    name: str
    source: str
    other: str


@dataclass(frozen=True)
class Scale:
    """A product with one number for each channel: what BatchNormalization does to increments."""

    name: str
    source: str
    factor: Array


Layer: TypeAlias = Conv | Gate | Add | Scale


@dataclass(frozen=True, kw_only=True)
class ConvNet:
    """Layers from the input "x", and a last matrix of what the last one gives."""

    shape: tuple[int, ...]  #: channels, then the spatial axes
    layers: tuple[Layer, ...]
    last: Array
    masks: tuple[str, ...] = field(default=())  #: tensors that need a mask

    def model(self) -> bytes:
        """The file."""
        nodes: list[onnx.NodeProto] = []
        tensors: list[onnx.TensorProto] = []

        def constant(name: str, value: Array) -> str:
            tensors.append(onnx.numpy_helper.from_array(value.astype(np.float32), name))
            return name

        for layer in self.layers:
            match layer:
                case Conv():
                    pads = [pad for side in zip(*layer.pads, strict=True) for pad in side]
                    node = helper.make_node(
                        "Conv",
                        [layer.source, constant(f"{layer.name}.w", layer.kernel)],
                        [layer.name],
                        pads=pads,
                        strides=list(layer.strides),
                        dilations=list(layer.dilations),
                        group=layer.groups,
                    )
                case Gate():
                    node = helper.make_node(
                        "LeakyRelu", [layer.source], [layer.name], alpha=layer.leak
                    )
                case Add():
                    node = helper.make_node("Add", [layer.source, layer.other], [layer.name])
                case Scale():
                    factor = layer.factor.reshape(1, -1, *(1,) * (len(self.shape) - 1))
                    node = helper.make_node(
                        "Mul", [layer.source, constant(f"{layer.name}.s", factor)], [layer.name]
                    )
            nodes.append(node)
        nodes.append(helper.make_node("Flatten", [self.layers[-1].name], ["flat"]))
        last = constant("last", self.last.T)
        nodes.append(helper.make_node("MatMul", ["flat", last], ["y"]))
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            nodes,
            "net",
            [value("x", onnx.TensorProto.FLOAT, (1, *self.shape))],
            [value("y", onnx.TensorProto.FLOAT, (1, len(self.last)))],
            tensors,
        )
        return to_bytes(graph)


@dataclass(frozen=True)
class OnTorus:
    """Scales found on a torus, and the covariance of the outputs that they stand for."""

    scales: dict[str, Array]
    masks: dict[str, Array]
    covariance: Array

    @property
    def bound(self) -> float:
        """L2 to l2."""
        return float(np.sqrt(np.linalg.eigvalsh(self.covariance)[-1]))


class Walk:
    """The increments on a torus, and the matrix of their constraints."""

    def __init__(self, sides: tuple[int, ...], channels: int, share: float) -> None:
        size = channels * int(np.prod(sides))
        self.share = share
        self.matrix = np.eye(size)
        self.start = np.eye(size).reshape(channels, *sides, size)

    def gate(self, entering: Array, least: float, greatest: float) -> tuple[Array, Array]:
        """(what leaves, one scale for each channel)."""
        channels, size = len(entering), len(self.matrix)
        flat = grown(entering, size).reshape(-1, size)
        inner = flat @ np.linalg.solve(self.matrix, flat.T)
        count = len(flat)
        scale = np.full(channels, self.share * float(np.linalg.eigvalsh(inner)[-1]))
        every = np.repeat(scale, count // channels)
        matrix = np.zeros((size + count, size + count))
        matrix[:size, :size] = self.matrix - (flat.T / every) @ flat
        matrix[size:, size:] = np.diag(1 / every)
        self.matrix = matrix
        middle, half = (greatest + least) / 2, (greatest - least) / 2
        leaving = np.concatenate([middle * flat, half * np.eye(count)], axis=1)
        return leaving.reshape(*entering.shape[:-1], size + count), scale


def grown(rows: Array, size: int) -> Array:
    """With zeros for later entries of xi."""
    return np.concatenate([rows, np.zeros((*rows.shape[:-1], size - rows.shape[-1]))], axis=-1)


def circular(x: Array, layer: Conv) -> Array:
    """The convolution on the torus that x fills, at every stride-th place."""
    inner, out = layer.kernel.shape[1], layer.kernel.shape[0] // layer.groups
    axes = tuple(range(1, x.ndim - 1))
    whole = np.zeros((layer.kernel.shape[0], *x.shape[1:]))
    for tap in np.ndindex(*layer.kernel.shape[2:]):
        shift = [
            pad - d * t for (pad, _), d, t in zip(layer.pads, layer.dilations, tap, strict=True)
        ]
        part = np.roll(x, shift, axes)
        for group in range(layer.groups):
            rows, columns = slice(group * out, (group + 1) * out), slice(group * inner, None)
            weight = layer.kernel[(rows, slice(None), *tap)]
            whole[rows] += np.tensordot(weight, part[columns][:inner], axes=1)
    return whole[(slice(None), *(slice(None, None, s) for s in layer.strides))]


def on_torus(net: ConvNet, sides: tuple[int, ...], share: float = 2.0) -> OnTorus:
    """Scales `share` times as large as the least common one of each gate, and what they prove."""
    walk = Walk(sides, net.shape[0], share)
    signals, windows = {"x": walk.start}, {"x": net.shape[1:]}
    scales: dict[str, Array] = {}
    masks: dict[str, Array] = {}
    for layer in net.layers:
        x = signals[layer.source]
        window = windows[layer.source]
        match layer:
            case Conv():
                x = circular(x, layer)
                window = valid_window(window, layer)
            case Gate():
                x, scales[layer.name] = walk.gate(x, min(layer.leak, 0.0), 1.0)
            case Add():
                other = signals[layer.other]
                size = max(x.shape[-1], other.shape[-1])
                x = grown(x, size) + grown(other, size)
            case Scale():
                x = x * layer.factor.reshape(-1, *(1,) * (x.ndim - 1))
        if layer.name in net.masks:
            x, masks[layer.name] = walk.gate(x, 0.0, 1.0)
        signals[layer.name], windows[layer.name] = x, window
    tail = signals[net.layers[-1].name]
    window = windows[net.layers[-1].name]
    inside = tail[(slice(None), *(slice(0, size) for size in window))]
    rows = net.last @ grown(inside, len(walk.matrix)).reshape(-1, len(walk.matrix))
    return OnTorus(scales, masks, rows @ np.linalg.solve(walk.matrix, rows.T))


def valid_window(window: tuple[int, ...], layer: Conv) -> tuple[int, ...]:
    """The spatial shape that a convolution leaves."""
    return tuple(
        (size + sum(pad) - d * (k - 1) - 1) // s + 1
        for size, pad, d, k, s in zip(
            window,
            layer.pads,
            layer.dilations,
            layer.kernel.shape[2:],
            layer.strides,
            strict=True,
        )
    )


def kernel(rng: np.random.Generator, out: int, inner: int, *window: int) -> Array:
    """Eighths."""
    return rng.integers(-8, 9, (out, inner, *window)) / 8


def line(
    name: str, source: str, weights: Array, pad: int, stride: int = 1, dilation: int = 1
) -> Conv:
    """A convolution of one axis."""
    return Conv(name, source, weights, ((pad, pad),), (stride,), (dilation,))


def chain(rng: np.random.Generator, leak: float) -> ConvNet:
    """Two padded convolutions, each with its gate."""
    layers = (
        line("a", "x", kernel(rng, 3, 2, 3), 1),
        Gate("h", "a", leak),
        line("b", "h", kernel(rng, 2, 3, 3), 1),
        Gate("k", "b", leak),
    )
    return ConvNet(shape=(2, 6), layers=layers, last=kernel(rng, 3, 12))


def residual(rng: np.random.Generator, leak: float) -> ConvNet:
    """A block with a skip."""
    layers = (
        line("a", "x", kernel(rng, 2, 2, 3), 1),
        Gate("h", "a", leak),
        line("b", "h", kernel(rng, 2, 2, 3), 1),
        Scale("c", "b", rng.integers(1, 8, 2) / 4),
        Gate("k", "c", leak),
        line("d", "k", kernel(rng, 2, 2, 3), 1),
        Add("e", "d", "h"),
        Gate("l", "e", leak),
    )
    return ConvNet(shape=(2, 6), layers=layers, last=kernel(rng, 3, 12))


def strided(rng: np.random.Generator, leak: float) -> ConvNet:
    """A block with a stride, and a projection beside it."""
    layers = (
        line("a", "x", kernel(rng, 2, 2, 3), 1),
        Gate("h", "a", leak),
        line("b", "h", kernel(rng, 3, 2, 3), 1, 2),
        Gate("k", "b", leak),
        line("d", "k", kernel(rng, 3, 3, 3), 1),
        line("p", "h", kernel(rng, 3, 2, 1), 0, 2),
        Add("e", "d", "p"),
        Gate("l", "e", leak),
    )
    return ConvNet(shape=(2, 6), layers=layers, last=kernel(rng, 3, 9))


def dilated(rng: np.random.Generator, leak: float) -> ConvNet:
    """No padding, then a dilation."""
    layers = (
        line("a", "x", kernel(rng, 2, 2, 2), 0),
        Gate("h", "a", leak),
        line("b", "h", kernel(rng, 2, 2, 3), 2, 1, 2),
        Gate("k", "b", leak),
    )
    return ConvNet(shape=(2, 6), layers=layers, last=kernel(rng, 3, 10))


def doubled(rng: np.random.Generator, leak: float) -> ConvNet:
    """Two padded convolutions without a gate between: a mask is needed."""
    layers = (
        line("a", "x", kernel(rng, 2, 2, 3), 1),
        line("b", "a", kernel(rng, 2, 2, 3), 1),
        Gate("k", "b", leak),
    )
    return ConvNet(shape=(2, 6), layers=layers, last=kernel(rng, 3, 12), masks=("a",))


def plane(rng: np.random.Generator, leak: float) -> ConvNet:
    """Two axes, even kernels, uneven padding, another stride for each axis."""
    layers = (
        Conv("a", "x", kernel(rng, 2, 1, 3, 2), ((1, 1), (1, 0)), (1, 1), (1, 1)),
        Gate("h", "a", leak),
        Conv("b", "h", kernel(rng, 2, 2, 2, 2), ((1, 0), (0, 0)), (1, 2), (1, 1)),
        Gate("k", "b", leak),
    )
    return ConvNet(shape=(1, 3, 4), layers=layers, last=kernel(rng, 3, 12))


NETS = {
    "chain": (chain, 8),
    "residual": (residual, 7),
    "strided": (strided, 8),
    "dilated": (dilated, 8),
    "doubled": (doubled, 8),
    "plane": (plane, 6),
}  #: with sides that are large enough
