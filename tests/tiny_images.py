"""Tiny random convolutional networks of many shapes, made for tori: their borders are most of them.

One or two axes, strides, dilation, groups, padding that differs from side to side or is circular,
gates by entry or by pairs of channels, shortcuts, average pooling, and dense layers behind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from tests.exact import Exact, correlated, fractions
from tests.tiny_gates import GATES, channel_maxmin
from tests.tiny_networks import MOST_VERTICES, TinyBuilder, TinyNetwork
from tests.tiny_topologies import eighths, gemm

Part: TypeAlias = Callable[[TinyBuilder], bool]  #: whether it fits; if not, nothing is added

SCALARS = ("abs", "leaky", "prelu", "relu", "clip", "smooth")
MOST_ENTRIES = 12  #: of a signal


def tiny_image(seed: int) -> TinyNetwork:
    """The network of a seed."""
    for attempt in range(200):
        tiny = _drawn(np.random.default_rng([seed, attempt, 7]))
        if 2 <= tiny.vertices <= MOST_VERTICES:
            return tiny
    raise AssertionError("no draw is small enough")


def _drawn(rng: np.random.Generator) -> TinyNetwork:
    sizes = (int(rng.integers(3, 7)),) if rng.random() < 0.6 else (2, int(rng.integers(2, 4)))
    b = TinyBuilder(rng, (1, int(rng.integers(1, 3)), *sizes))
    parts = [_convolution, _convolution, _gate, _gate, _residual, _average, _wrapped]
    _convolution(b)
    for k in rng.integers(len(parts), size=int(rng.integers(2, 5))):
        parts[int(k)](b)
    b.node("Flatten", [b.last], lambda x: x.reshape(1, -1), axis=1)
    for _ in range(int(rng.integers(1, 3))):
        gemm(b, eighths(rng, 2, b.shape[1]), eighths(rng, 2))
        if rng.random() < 0.5:
            _scalar_gate(b)
    return b.tiny()


def _scalar_gate(b: TinyBuilder) -> None:
    name = SCALARS[int(b.rng.integers(len(SCALARS)))]
    b.block(name)
    GATES[name](b)


def _gate(b: TinyBuilder) -> bool:
    if b.shape[1] % 2 == 0 and b.rng.random() < 0.5:
        b.block("maxmin")
        channel_maxmin(b)
    else:
        _scalar_gate(b)
    return True


def _convolution(b: TinyBuilder) -> bool:
    rng, axes = b.rng, len(b.shape) - 2
    groups = 2 if b.shape[1] % 2 == 0 and rng.random() < 0.3 else 1
    channels = groups * int(rng.integers(1, 3))
    window, strides = rng.integers(1, 4, axes).tolist(), rng.integers(1, 3, axes).tolist()
    dilations = [int(rng.integers(1, 3)) if side == 2 else 1 for side in window]
    pads = [(int(begin), int(end)) for begin, end in rng.integers(0, 3, (axes, 2))]
    after = [
        (size + sum(pad) - dilation * (side - 1) - 1) // stride + 1
        for size, pad, dilation, side, stride in zip(
            b.shape[2:], pads, dilations, window, strides, strict=True
        )
    ]
    if min(after) < 1 or MOST_ENTRIES < channels * np.prod(after):
        return False
    b.block(f"conv{window}/{strides}*{dilations}+{pads}:{groups}")
    kernel, bias = eighths(rng, channels, b.shape[1] // groups, *window), eighths(rng, channels)
    _add_convolution(b, kernel, bias, strides, dilations, pads, groups)
    return True


def _add_convolution(
    b: TinyBuilder,
    kernel: np.ndarray,
    bias: np.ndarray,
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[tuple[int, int]],
    groups: int = 1,
) -> str:
    window = (d * (k - 1) + 1 for d, k in zip(dilations, kernel.shape[2:], strict=True))
    spread = np.zeros((*kernel.shape[:2], *window))
    spread[(slice(None), slice(None), *(slice(None, None, d) for d in dilations))] = kernel
    exact, offset = fractions(spread), fractions(bias)
    return b.node(
        "Conv",
        [b.last, b.constant(kernel), b.constant(bias)],
        lambda x: correlated(x, exact, offset, strides, pads, groups),
        pads=[*(begin for begin, _ in pads), *(end for _, end in pads)],
        strides=list(strides),
        dilations=list(dilations),
        group=groups,
    )[0]


def _same(b: TinyBuilder, channels: int) -> str:
    """A convolution of two that keeps the size: padding before or behind."""
    axes = len(b.shape) - 2
    pads = [(1, 0) if b.rng.random() < 0.5 else (0, 1) for _ in range(axes)]
    kernel = eighths(b.rng, channels, b.shape[1], *(2,) * axes)
    return _add_convolution(b, kernel, eighths(b.rng, channels), [1] * axes, [1] * axes, pads)


def _residual(b: TinyBuilder) -> bool:
    """S + conv(gate(conv(s))), or without the second convolution."""
    skip, channels = b.last, b.shape[1]
    b.block("residual")
    _same(b, channels)
    _scalar_gate(b)
    if b.rng.random() < 0.5:
        _same(b, channels)
    b.merge("Add", skip, b.last, lambda x, y: x + y)
    return True


def _average(b: TinyBuilder) -> bool:
    """Windows of two that count the padding."""
    axes = len(b.shape) - 2
    if min(b.shape[2:]) < 2:
        return False
    channels = b.shape[1]
    kernel = np.zeros((channels, channels, *(2,) * axes))
    kernel[range(channels), range(channels)] = 0.5**axes
    exact, offset = fractions(kernel), fractions(np.zeros(channels))
    pad = int(b.rng.integers(2))
    pads = [(pad, pad)] * axes
    if MOST_ENTRIES < channels * np.prod([size + 2 * pad - 1 for size in b.shape[2:]]):
        return False
    b.block(f"average+{pad}")
    b.node(
        "AveragePool",
        [b.last],
        lambda x: correlated(x, exact, offset, [1] * axes, pads),
        kernel_shape=[2] * axes,
        pads=[pad] * (2 * axes),
        strides=[1] * axes,
        count_include_pad=1,
    )
    return True


def _wrapped(b: TinyBuilder) -> bool:
    """Circular padding, then a convolution of two that keeps the size."""
    axes = len(b.shape) - 2
    b.block("circular")
    widths = [0, 0, *(1,) * axes, 0, 0, *(0,) * axes]

    def wrapped(x: Exact) -> Exact:
        return np.pad(x, [(0, 0), (0, 0), *((1, 0),) * axes], mode="wrap")

    b.node("Pad", [b.last, b.constant(widths, np.int64)], wrapped, mode="wrap")
    channels = b.shape[1]
    kernel = eighths(b.rng, channels, channels, *(2,) * axes)
    bias = eighths(b.rng, channels)
    _add_convolution(b, kernel, bias, [1] * axes, [1] * axes, [(0, 0)] * axes)
    return True
