"""Gates of tiny networks: as ONNX, over the rationals, and as the sides that they have.

Each is added behind the last signal of a builder. `GRAIN`: what its size is a multiple of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise, permutations
from typing import TypeAlias

import numpy as np

from tests.exact import SCALAR, Exact, entrywise, fractions, leaky
from tests.random_networks import maxmin
from tests.tiny_networks import Matrix, Side, TinyBuilder, Unit, linear_side

Attach: TypeAlias = Callable[[TinyBuilder], None]

LEAK = 0.125
CLIP = (-0.5, 1.25)
#: Slopes that smooth functions reach, or come as near to as one likes; rounded inwards.
REACHED: Mapping[str, tuple[float, float]] = {
    "Elu": (0.0, 1.0),
    "Erf": (0.0, 1.128379167095),
    "Gelu": (-0.128904145184, 1.128904145184),
    "GeluTanh": (-0.128993068658, 1.128993068658),
    "HardSigmoid": (0.0, 0.2),
    "HardSwish": (-0.5, 1.5),
    "Mish": (-0.112526122388, 1.088498161251),
    "Selu": (0.0, 1.758099346342),
    "Sigmoid": (0.0, 0.25),
    "Silu": (-0.099839320128, 1.099839320128),
    "Softplus": (0.0, 1.0),
    "Softsign": (0.0, 1.0),
    "Tanh": (0.0, 1.0),
}


def _scalar(slopes: tuple[float, float], place: int) -> Unit:
    """One slope below 0, and one above."""
    below, above = slopes
    sides = linear_side([[below]], [[1.0]]), linear_side([[above]], [[-1.0]])
    return Unit((place,), (place,), sides)


def _scalars(b: TinyBuilder, source: str, slopes: Sequence[tuple[float, float]]) -> None:
    b.gate(source, [_scalar(each, place) for place, each in enumerate(slopes)])


def _two_slopes(op: str, slopes: tuple[float, float], **attributes: float) -> Attach:
    """A function that bends in 0 alone."""
    function = entrywise(leaky(LEAK) if op == "LeakyRelu" else SCALAR[op])

    def attach(b: TinyBuilder) -> None:
        source, size = b.last, b.size_of(b.last)
        b.node(op, [source], function, **attributes)
        _scalars(b, source, [slopes] * size)

    return attach


def _bent(b: TinyBuilder) -> None:
    """Leaky ReLU written as a choice; the exact twin of the test is what it tests."""
    source, size = b.last, b.size_of(b.last)
    (tested,) = b.node("Greater", [source, b.constant(0.0)], lambda x: x)
    b.node("Mul", [source, b.constant(LEAK)], lambda x: x * Fraction(LEAK))
    b.node("Where", [tested, source, b.last], entrywise(leaky(LEAK)))
    _scalars(b, source, [(LEAK, 1.0)] * size)


def _smooth(b: TinyBuilder) -> None:
    """Slopes between two that it comes near to: there are no pieces, but there are vertices."""
    names = sorted(REACHED)
    name = names[int(b.rng.integers(len(names)))]
    source, size, function = b.last, b.size_of(b.last), entrywise(SCALAR[name])
    match name:
        case "GeluTanh":
            b.node("Gelu", [source], function, approximate="tanh")
        case "Silu":
            b.node("Sigmoid", [source], entrywise(SCALAR["Sigmoid"]))
            b.merge("Mul", source, b.last, lambda x, _: function(x))
        case _:
            b.node(name, [source], function)
    b.block(name)
    units = [_scalar(REACHED[name], place) for place in range(size)]
    b.gate(source, units, is_straight=False)


def _prelu(b: TinyBuilder) -> None:
    source, size = b.last, b.size_of(b.last)
    slopes = b.rng.integers(-8, 17, b.shape[1:]) / 8
    exact = fractions(slopes)
    inputs = [source, b.constant(slopes)]
    b.node("PRelu", inputs, lambda x: np.where(x < Fraction(0), x * exact, x))
    _scalars(b, source, [(float(slope), 1.0) for slope in np.broadcast_to(slopes.ravel(), size)])


def _clip(b: TinyBuilder) -> None:
    source, size = b.last, b.size_of(b.last)
    lower, upper = (Fraction(end) for end in CLIP)
    inputs = [source, *(b.constant(end) for end in CLIP)]
    b.node("Clip", inputs, entrywise(lambda x: min(max(x, lower), upper)))

    def side(slope: float, offset: float, conditions: list[list[float]], *limits: float) -> Side:
        return Side(np.array([[slope]]), np.array([offset]), np.array(conditions), np.array(limits))

    sides = (
        side(0, CLIP[0], [[1.0]], CLIP[0]),
        side(1, 0, [[-1.0], [1.0]], -CLIP[0], CLIP[1]),
        side(0, CLIP[1], [[-1.0]], -CLIP[1]),
    )
    b.gate(source, [Unit((i,), (i,), sides) for i in range(size)])


def _maxmin(b: TinyBuilder) -> None:
    source, half = b.last, b.shape[1] // 2
    maxmin(b)
    sides = (
        linear_side([[1.0, 0.0], [0.0, 1.0]], [[-1.0, 1.0]]),
        linear_side([[0.0, 1.0], [1.0, 0.0]], [[1.0, -1.0]]),
    )
    b.gate(source, [Unit((i, i + half), (i, i + half), sides) for i in range(half)])


def channel_maxmin(b: TinyBuilder) -> None:
    """Pairs of channels, half of them apart, at every place."""
    source, half = b.last, b.size_of(b.last) // 2
    channels = b.shape[1] // 2
    left, right = b.node(
        "Split",
        [source],
        lambda x: x[:, :channels],
        lambda x: x[:, channels:],
        axis=1,
        num_outputs=2,
    )
    greatest = b.merge("Max", left, right, np.maximum)
    least = b.merge("Min", left, right, np.minimum)
    b.merge("Concat", greatest, least, lambda x, y: np.concatenate([x, y], axis=1), axis=1)
    sides = (
        linear_side([[1.0, 0.0], [0.0, 1.0]], [[-1.0, 1.0]]),
        linear_side([[0.0, 1.0], [1.0, 0.0]], [[1.0, -1.0]]),
    )
    b.gate(source, [Unit((i, i + half), (i, i + half), sides) for i in range(half)])


def _group_sort(k: int) -> Attach:
    def attach(b: TinyBuilder) -> None:
        source, n = b.last, b.shape[1]
        descending = bool(b.rng.integers(2))
        sign = -1 if descending else 1
        _reshape(b, 1, n // k, k)
        b.node(
            "TopK",
            [b.last, b.constant([k], np.int64)],
            lambda x: sign * np.sort(sign * x, axis=-1),
            lambda x: x,
            axis=-1,
            largest=int(descending),
            sorted=1,
        )
        _reshape(b, 1, n)
        sides = tuple(_order(list(order), sign) for order in permutations(range(k)))
        groups = (tuple(range(first, first + k)) for first in range(0, n, k))
        b.gate(source, [Unit(group, group, sides) for group in groups])

    return attach


def _order(order: list[int], sign: int) -> Side:
    """v[order] where that ascends (sign 1) or descends."""
    eye = np.eye(len(order))
    return linear_side(eye[order], [sign * (eye[i] - eye[j]) for i, j in pairwise(order)])


def _householder(b: TinyBuilder) -> None:
    direction = b.rng.normal(size=b.shape[1])
    mirror(b, np.round(64 * direction / np.linalg.norm(direction)) / 64)


def mirror(b: TinyBuilder, along: Matrix) -> None:
    """X - 2 along relu(along.x): the identity, or a reflection if `along` is a unit vector."""
    source, places = b.last, tuple(range(len(along)))
    exact = fractions(along[:, None])
    b.node("MatMul", [source, b.constant(along[:, None])], lambda x: x @ exact)
    b.node("Relu", [b.last], entrywise(SCALAR["Relu"]))
    b.node("MatMul", [b.last, b.constant(2 * along[None])], lambda x: x @ (2 * exact.T))
    b.merge("Sub", source, b.last, lambda x, y: x - y)
    eye = np.eye(len(along))
    turned = eye - 2 * np.outer(along, along)
    sides = linear_side(eye, along[None]), linear_side(turned, -along[None])
    b.gate(source, [Unit(places, places, sides)])


def _crelu(b: TinyBuilder) -> None:
    """[x+, x-]: one decision for two outputs."""
    source, n = b.last, b.shape[1]
    (positive,) = b.node("Relu", [source], entrywise(SCALAR["Relu"]))
    b.node("Neg", [source], lambda x: -x)
    b.node("Relu", [b.last], entrywise(SCALAR["Relu"]))
    b.merge("Concat", positive, b.last, lambda x, y: np.concatenate([x, y], axis=1), axis=1)
    sides = linear_side([[0.0], [-1.0]], [[1.0]]), linear_side([[1.0], [0.0]], [[-1.0]])
    b.gate(source, [Unit((i,), (i, i + n), sides) for i in range(n)])


def _extreme(op: str) -> Attach:
    """Max or Min of the two halves."""
    choose = np.maximum if op == "Max" else np.minimum
    sign = 1.0 if op == "Max" else -1.0

    def attach(b: TinyBuilder) -> None:
        source, half = b.last, b.shape[1] // 2
        left, right = b.node(
            "Split", [source], lambda x: x[:, :half], lambda x: x[:, half:], axis=1, num_outputs=2
        )
        b.merge(op, left, right, lambda x, y: choose(x, y))
        sides = (
            linear_side([[1.0, 0.0]], [[-sign, sign]]),
            linear_side([[0.0, 1.0]], [[sign, -sign]]),
        )
        b.gate(source, [Unit((i, i + half), (i,), sides) for i in range(half)])

    return attach


def _max_pool(b: TinyBuilder) -> None:
    """Windows of three that overlap."""
    source, n = b.last, b.shape[1]
    _reshape(b, 1, 1, n)
    b.node(
        "MaxPool",
        [b.last],
        lambda x: np.max([x[..., : n - 2], x[..., 1 : n - 1], x[..., 2:]], axis=0),
        kernel_shape=[3],
        strides=[1],
    )
    _reshape(b, 1, n - 2)
    b.gate(source, [_greatest((i, i + 1, i + 2), i) for i in range(n - 2)])


def max_pool(b: TinyBuilder) -> None:
    """Windows of two by two on an image with a row of padding above and a column behind."""
    b.block("maxpool2d")
    source, (_, channels, height, width) = b.last, b.shape
    places = np.arange(channels * height * width).reshape(channels, height, width)
    windows = [
        places[c, max(top, 0) : top + 2, left : left + 2].ravel().tolist()
        for c, top, left in np.ndindex(channels, height, width)
        for top in [top - 1]
    ]

    def greatest(x: Exact) -> Exact:
        flat = x.ravel()
        return np.array([flat[window].max() for window in windows]).reshape(x.shape)

    b.node("MaxPool", [source], greatest, kernel_shape=[2, 2], pads=[1, 0, 0, 1], strides=[1, 1])
    b.gate(source, [_greatest(tuple(window), k) for k, window in enumerate(windows)])


def _greatest(window: tuple[int, ...], place: int) -> Unit:
    """The greatest entry of a window."""
    eye = np.eye(len(window))
    sides = tuple(
        linear_side(eye[[i]], np.delete(eye, i, axis=0) - eye[i]) for i in range(len(window))
    )
    return Unit(window, (place,), sides)


def _reshape(b: TinyBuilder, *shape: int) -> None:
    b.node("Reshape", [b.last, b.constant(shape, np.int64)], _to_shape(shape))


def _to_shape(shape: tuple[int, ...]) -> Callable[[Exact], Exact]:
    return lambda x: x.reshape(shape)


#: Functions of every entry, of any shape.
ELEMENTWISE: Mapping[str, Attach] = {
    "abs": _two_slopes("Abs", (-1.0, 1.0)),
    "bent": _bent,
    "clip": _clip,
    "leaky": _two_slopes("LeakyRelu", (LEAK, 1.0), alpha=LEAK),
    "prelu": _prelu,
    "relu": _two_slopes("Relu", (0.0, 1.0)),
    "smooth": _smooth,
}
#: Those, and functions of a vector's groups.
GATES: Mapping[str, Attach] = {
    **ELEMENTWISE,
    "crelu": _crelu,
    "groupsort3": _group_sort(3),
    "groupsort4": _group_sort(4),
    "groupsort5": _group_sort(5),
    "householder": _householder,
    "max": _extreme("Max"),
    "maxmin": _maxmin,
    "maxpool": _max_pool,
    "min": _extreme("Min"),
}
#: The size of what enters, for those that do not take any.
GRAIN: Mapping[str, int] = {
    "groupsort3": 3,
    "groupsort4": 4,
    "groupsort5": 5,
    "max": 2,
    "maxmin": 2,
    "maxpool": 4,
    "min": 2,
}
