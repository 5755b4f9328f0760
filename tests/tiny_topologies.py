"""Tiny random networks of every gate and of every topology, weights in eighths.

An image's gates are those that act on every entry; a vector's are all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import TypeAlias

import numpy as np

from tests.exact import Exact, correlated, fractions, mean, pooled, transposed
from tests.tiny_gates import ELEMENTWISE, GATES, GRAIN, max_pool
from tests.tiny_networks import MOST_VERTICES, Matrix, TinyBuilder, TinyNetwork

Draw: TypeAlias = Callable[[TinyBuilder, Sequence[str]], None]
Chosen: TypeAlias = Sequence[str]  # the names of the gates that a topology may use


def eighths(rng: np.random.Generator, *shape: int) -> Matrix:
    """Numbers whose products float64 holds."""
    return rng.integers(-12, 13, shape) / 8


# --- Affine parts --------------------------------------------------------------------------------


def gemm(b: TinyBuilder, weight: Matrix, bias: Matrix) -> str:
    """Weight x + bias."""
    exact, offset = (fractions(numbers.astype(np.float32)) for numbers in (weight, bias))
    inputs = [b.last, b.constant(weight), b.constant(bias)]
    return b.node("Gemm", inputs, lambda x: x @ exact.T + offset, transB=1)[0]


def _dense(b: TinyBuilder, rows: int) -> str:
    return gemm(b, eighths(b.rng, rows, b.shape[1]), eighths(b.rng, rows))


def _sum(b: TinyBuilder, left: str, right: str) -> str:
    return b.merge("Add", left, right, lambda x, y: x + y)


def _concat(b: TinyBuilder, left: str, right: str) -> str:
    return b.merge("Concat", left, right, lambda x, y: np.concatenate([x, y], axis=1), axis=1)


def _gate(b: TinyBuilder, name: str) -> str:
    b.block(name)
    GATES[name](b)
    return b.last


def _width(b: TinyBuilder, name: str) -> int:
    """A size that the gate takes, and that leaves few choices."""
    grain = GRAIN.get(name, 1)
    return max(grain, int(b.rng.integers(3, 6)) // grain * grain)


# --- Topologies of vectors -----------------------------------------------------------------------


def _chain(b: TinyBuilder, gates: Chosen) -> None:
    for name in gates:
        _dense(b, _width(b, name))
        _gate(b, name)
    _dense(b, 2)


def _residual(b: TinyBuilder, gates: Chosen) -> None:
    """S + W g(V s): the shortcut is the identity."""
    skip = _dense(b, 3)
    _dense(b, _width(b, gates[0]))
    _gate(b, gates[0])
    stream = _sum(b, skip, _dense(b, 3))
    b.to(stream)
    _dense(b, _width(b, gates[1]))
    _gate(b, gates[1])
    _sum(b, stream, _dense(b, 3))


def _projection(b: TinyBuilder, gates: Chosen) -> None:
    """U s + W g(V s), and a gate behind the sum."""
    stem = b.last
    _dense(b, _width(b, gates[0]))
    _gate(b, gates[0])
    width = _width(b, gates[1])
    branch = _dense(b, width)
    b.to(stem)
    _sum(b, _dense(b, width), branch)
    _gate(b, gates[1])
    _dense(b, 2)


def _dense_concat(b: TinyBuilder, gates: Chosen) -> None:
    """Every gate reads all signals so far."""
    for name in gates:
        before = b.last
        _dense(b, _width(b, name))
        _concat(b, before, _gate(b, name))
    _dense(b, 2)


def _consumers(b: TinyBuilder, gates: Chosen) -> None:
    """One gate that two branches read, and the output with it."""
    _dense(b, _width(b, gates[0]))
    shared = _gate(b, gates[0])
    _dense(b, _width(b, gates[1]))
    _gate(b, gates[1])
    left = _dense(b, 2)
    b.to(shared)
    right = _dense(b, 2)
    difference = b.merge("Sub", left, right, lambda x, y: x - y)
    b.to(shared)
    _concat(b, difference, _dense(b, 1))


def _unrolled(b: TinyBuilder, gates: Chosen) -> None:
    """z <- g(W z + U x), a few times with the same W and U: an implicit layer as exported."""
    name = gates[0]
    width = {"groupsort4": 4, "groupsort5": 5, "groupsort3": 3}.get(name, 2)
    leaving = {"crelu": 2 * width, "max": 1, "min": 1}.get(name, width)
    width, leaving = (4, 2) if name == "maxpool" else (width, leaving)
    drive, turn = eighths(b.rng, width, b.shape[1]), eighths(b.rng, width, leaving) / 2
    source, bias = b.last, eighths(b.rng, width)
    entering = gemm(b, drive, bias)
    _gate(b, name)
    each = b.choices
    for _ in range(int(b.rng.integers(2, 6))):
        before = b.last
        gemm(b, turn, np.zeros(width))
        _sum(b, entering, b.last)
        if MOST_VERTICES < b.choices * each:
            b.to(before)
            break
        _gate(b, name)
    _concat(b, source, b.last)
    _dense(b, 2)


# --- Topologies of images ------------------------------------------------------------------------


def _conv(b: TinyBuilder, channels: int, *, stride: int, pads: Sequence[tuple[int, int]]) -> str:
    axes = len(b.shape) - 2
    kernel = eighths(b.rng, channels, b.shape[1], *(2,) * axes)
    bias = eighths(b.rng, channels)
    exact, offset = fractions(kernel), fractions(bias)
    return b.node(
        "Conv",
        [b.last, b.constant(kernel), b.constant(bias)],
        lambda x: correlated(x, exact, offset, (stride,) * axes, pads),
        pads=[*(begin for begin, _ in pads), *(end for _, end in pads)],
        strides=[stride] * axes,
    )[0]


def _flat(b: TinyBuilder) -> None:
    b.node("Flatten", [b.last], lambda x: x.reshape(1, -1), axis=1)


def _conv1d(b: TinyBuilder, gates: Chosen) -> None:
    """Padding on one side or both, stride 1, then 2."""
    _conv(b, 1, stride=1, pads=[(1, int(b.rng.integers(2)))])
    _gate(b, gates[0])
    _conv(b, 2, stride=2, pads=[(int(b.rng.integers(2)), 1)])
    _gate(b, gates[1])
    _flat(b)
    _dense(b, 2)


def _conv2d(b: TinyBuilder, gates: Chosen) -> None:
    _conv(b, 2, stride=int(b.rng.integers(1, 3)), pads=[(0, 1), (1, 0)])
    _gate(b, gates[0])
    _conv(b, 1, stride=1, pads=[(1, 1), (0, 0)])
    _flat(b)
    _gate(b, gates[1])
    _dense(b, 2)


def _conv_residual(b: TinyBuilder, gates: Chosen) -> None:
    """A block with a padded convolution on both sides of its gate, and the identity."""
    skip = b.last
    _conv(b, 1, stride=1, pads=[(1, 0), (0, 1)])
    _gate(b, gates[0])
    _sum(b, skip, _conv(b, 1, stride=1, pads=[(0, 1), (1, 0)]))
    _gate(b, gates[1])
    _pool(b)


def _pool(b: TinyBuilder) -> None:
    size = b.shape[2] * b.shape[3]

    def average(x: Exact) -> Exact:
        return x.sum(axis=(2, 3), keepdims=True) / Fraction(size)

    b.node("GlobalAveragePool", [b.last], average)
    _flat(b)
    _dense(b, 2)


def _pools(b: TinyBuilder, gates: Chosen) -> None:
    """Windows that are partial at the border."""
    b.node(
        "AveragePool",
        [b.last],
        lambda x: pooled(x, (2, 2), 1, 1, mean),
        kernel_shape=[2, 2],
        pads=[1] * 4,
        count_include_pad=0,
    )
    _conv(b, 1, stride=1, pads=[(0, 0), (0, 0)])
    max_pool(b)
    _conv(b, 1, stride=1, pads=[(0, 0), (1, 0)])
    _gate(b, gates[0])
    _pool(b)


def _conv_transpose(b: TinyBuilder, gates: Chosen) -> None:
    _conv(b, 1, stride=2, pads=[(1, 1), (1, 0)])
    _gate(b, gates[0])
    kernel, bias = eighths(b.rng, 1, 1, 2, 2), eighths(b.rng, 1)
    exact, offset = fractions(kernel), fractions(bias)
    b.node(
        "ConvTranspose",
        [b.last, b.constant(kernel), b.constant(bias)],
        lambda x: transposed(x, exact, offset, (2, 1)),
        strides=[2, 1],
    )
    _flat(b)
    _dense(b, 3)
    _gate(b, gates[1])
    _dense(b, 2)


VECTORS: Mapping[str, Draw] = {
    "chain": _chain,
    "concat": _dense_concat,
    "consumers": _consumers,
    "projection": _projection,
    "residual": _residual,
    "unrolled": _unrolled,
}
IMAGES: Mapping[str, tuple[tuple[int, ...], Draw]] = {
    "conv1d": ((1, 1, 4), _conv1d),
    "conv2d": ((1, 1, 2, 3), _conv2d),
    "conv-residual": ((1, 1, 2, 3), _conv_residual),
    "pools": ((1, 1, 2, 3), _pools),
    "transpose": ((1, 1, 3, 2), _conv_transpose),
}


def tiny_network(seed: int) -> TinyNetwork:
    """The network of a seed: consecutive seeds go through all gates and topologies."""
    gates = sorted(GATES)
    kinds = [*sorted(VECTORS), *sorted(IMAGES)]
    kind = kinds[seed % len(kinds)]
    first = gates[seed // len(kinds) % len(gates)]
    for attempt in range(100):
        rng = np.random.default_rng([seed, attempt])
        tiny = _drawn(rng, kind, first)
        if tiny.vertices <= MOST_VERTICES:
            return tiny
    raise AssertionError("no draw is small enough")


def _drawn(rng: np.random.Generator, kind: str, first: str) -> TinyNetwork:
    if kind in IMAGES:
        shape, draw = IMAGES[kind]
        names = sorted(ELEMENTWISE)
        first = first if first in ELEMENTWISE else names[int(rng.integers(len(names)))]
    else:
        shape, draw = (1, int(rng.integers(2, 5))), VECTORS[kind]
        names = sorted(GATES)
    builder = TinyBuilder(rng, shape)
    builder.block(kind)
    draw(builder, [first, names[int(rng.integers(len(names)))]])
    return builder.tiny()


def chain(seed: int, sizes: tuple[int, ...], gates: tuple[str, ...]) -> TinyNetwork:
    """Gates between dense layers of eighths, `sizes` from input to output."""
    builder = TinyBuilder(np.random.default_rng(seed), (1, sizes[0]))
    for rows, name in zip(sizes[1:-1], gates, strict=True):
        _dense(builder, rows)
        _gate(builder, name)
    _dense(builder, sizes[-1])
    return builder.tiny()


def one_layer(gate: str, weight: Matrix, bias: Matrix, last: Matrix) -> TinyNetwork:
    """Last gate(weight x + bias)."""
    builder = TinyBuilder(np.random.default_rng(0), (1, weight.shape[1]))
    gemm(builder, weight, bias)
    _gate(builder, gate)
    gemm(builder, last, np.zeros(len(last)))
    return builder.tiny()


def _singles(numbers: list[list[float]]) -> Matrix:
    """What an ONNX file holds of them; products of two are exact in float64."""
    return np.array(numbers, dtype=np.float32).astype(np.float64)


def coupled() -> TinyNetwork:
    """Multipliers that couple neurons claim an l2 bound of 0.86496 for this network."""
    first = _singles([[-1.0379, 1.06128], [-0.47245, -0.21774]])
    return one_layer("relu", first, np.zeros(2), _singles([[0.60827, -0.88520]]))


COUPLED_CLAIM = 0.86496
COUPLED_SLOPE = 0.90293  #: and it has a slope of 0.902938
