"""Small convolutional models, and the two networks of the size that the method is for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper, numpy_helper

from tests.oracles import to_bytes

Array: TypeAlias = npt.NDArray[np.float64]


class Model:
    """A model in the making; each method returns the tensor that leaves the new node."""

    def __init__(self, shape: Sequence[int], seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self._shape = tuple(shape)
        self._nodes: list[object] = []
        self._constants: list[object] = []

    def constant(self, value: npt.ArrayLike) -> str:
        name = f"c{len(self._constants)}"
        array = np.asarray(value)
        kept = array if array.dtype == np.int64 else array.astype(np.float32)
        self._constants.append(numpy_helper.from_array(kept, name))
        return name

    def node(self, op: str, *inputs: str, **attributes: object) -> str:
        name = f"t{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def conv(
        self,
        x: str,
        channels: tuple[int, int],
        width: int,
        *,
        pad: int = 0,
        axes: int = 2,
        groups: int = 1,
        **attributes: int,
    ) -> str:
        """From channels[0] to channels[1], He-initialised."""
        source, target = channels[0] // groups, channels[1]
        scale = np.sqrt(2 / (source * width**axes))
        weight = self.rng.standard_normal((target, source, *(width,) * axes)) * scale
        per_axis = {name: [value] * axes for name, value in attributes.items()}
        return self.node(
            "Conv", x, self.constant(weight), pads=[pad] * (2 * axes), group=groups, **per_axis
        )

    def batch_norm(self, x: str, channels: int) -> str:
        scale, spread = self.rng.uniform(0.5, 1.5, (2, channels))
        shift, mean = self.rng.standard_normal((2, channels))
        parts = (self.constant(part) for part in (scale, shift, mean, spread))
        return self.node("BatchNormalization", x, *parts)

    def maxmin(self, x: str, channels: int) -> str:
        """Of the first and the second half of the channels."""
        half = self.constant(np.array([channels // 2, channels - channels // 2]))
        name = f"t{len(self._nodes)}"
        ends = [name + "a", name + "b"]
        self._nodes.append(helper.make_node("Split", [x, half], ends, axis=1))
        greatest, least = self.node("Max", *ends), self.node("Min", *ends)
        return self.node("Concat", greatest, least, axis=1)

    def dense(self, x: str, inputs: int, outputs: int) -> str:
        weight = self.rng.standard_normal((inputs, outputs)) / np.sqrt(inputs)
        return self.node("MatMul", self.node("Flatten", x), self.constant(weight))

    def finished(self, output: str, outputs: int) -> bytes:
        return to_bytes(
            helper.make_graph(
                self._nodes,
                "torus",
                [helper.make_tensor_value_info("x", TensorProto.FLOAT, self._shape)],
                [helper.make_tensor_value_info(output, TensorProto.FLOAT, (1, outputs))],
                self._constants,
            )
        )


Block: TypeAlias = Callable[[Model, str], str]


def _chain(side: int, flat: int, blocks: Sequence[Block], *, channels: int = 1, axes: int = 2):  # noqa: ANN202 (a maker)
    def made(seed: int) -> bytes:
        model = Model((1, channels, *(side,) * axes), seed)
        signal = "x"
        for block in blocks:
            signal = block(model, signal)
        return model.finished(model.dense(signal, flat, 2), 2)

    return made


def conv(source: int, target: int, width: int = 3, **attributes: int) -> Block:
    return lambda model, x: model.conv(x, (source, target), width, **attributes)


def act(op: str, **attributes: float) -> Block:
    return lambda model, x: model.node(op, x, **attributes)


def norm(channels: int) -> Block:
    return lambda model, x: model.batch_norm(x, channels)


def maxmin(channels: int) -> Block:
    return lambda model, x: model.maxmin(x, channels)


def pool(op: str, width: int = 2, stride: int = 2, **attributes: int) -> Block:
    def block(model: Model, x: str) -> str:
        return model.node(op, x, kernel_shape=[width] * 2, strides=[stride] * 2, **attributes)

    return block


def residual(channels: int, projected: int = 0) -> Block:
    """X + W2 relu(W1 x), or with a projection and stride 2 on both branches."""

    def block(model: Model, x: str) -> str:
        target = projected or channels
        strides = 2 if projected else 1
        inner = model.conv(x, (channels, target), 3, pad=1, strides=strides)
        inner = model.conv(model.node("Relu", inner), (target, target), 3, pad=1)
        skip = model.conv(x, (channels, projected), 1, strides=2) if projected else x
        return model.node("Add", inner, skip)

    return block


relu = act("Relu")
leaky = act("LeakyRelu", alpha=0.8)

NETWORKS: Final[Mapping[str, Callable[[int], bytes]]] = {
    "one axis": _chain(
        5, 10, [conv(1, 2, pad=1, axes=1), relu, conv(2, 2, pad=1, axes=1), relu], axes=1
    ),
    "padded": _chain(4, 32, [conv(1, 2, pad=1), relu, conv(2, 2, pad=1), relu]),
    "unpadded": _chain(5, 2, [conv(1, 2), relu, conv(2, 2), relu]),
    "wide padding": _chain(3, 98, [conv(1, 2, pad=2), relu, conv(2, 2, pad=2), relu]),
    "strided": _chain(5, 18, [conv(1, 2, pad=1), relu, conv(2, 2, pad=1, strides=2), relu]),
    "strided twice": _chain(
        6, 8, [conv(1, 2, pad=1, strides=2), relu, conv(2, 2, pad=1, strides=2), relu]
    ),
    "dilated": _chain(4, 32, [conv(1, 2, pad=2, dilations=2), relu, conv(2, 2, pad=1), relu]),
    "leaky": _chain(4, 32, [conv(1, 2, pad=1), leaky, conv(2, 2, pad=1), leaky]),
    "two convolutions": _chain(
        4, 16, [conv(1, 2, pad=1), conv(2, 2, pad=1), relu, conv(2, 1, pad=1)]
    ),
    "normalised": _chain(4, 32, [conv(1, 2, pad=1), norm(2), relu, conv(2, 2, pad=1), norm(2)]),
    "normalised between": _chain(4, 16, [conv(1, 2, pad=1), norm(2), conv(2, 1, pad=1), relu]),
    "identity block": _chain(
        4, 32, [conv(1, 2, pad=1), relu, residual(2), relu, residual(2), relu]
    ),
    "projection block": _chain(4, 8, [conv(1, 2, pad=1), relu, residual(2, 2), relu]),
    "max-min": _chain(4, 32, [conv(1, 2, pad=1), maxmin(2), conv(2, 2, pad=1), maxmin(2)]),
    "average pool": _chain(4, 8, [conv(1, 2, pad=1), relu, pool("AveragePool"), conv(2, 2, pad=1)]),
    "padded average": _chain(
        4,
        32,
        [
            conv(1, 2, pad=1),
            relu,
            pool("AveragePool", 3, 1, pads=[1] * 4, count_include_pad=1),
            conv(2, 2, pad=1),
        ],
    ),
    "max pool": _chain(4, 8, [conv(1, 2, pad=1), relu, pool("MaxPool"), conv(2, 2, pad=1), relu]),
    "groups": _chain(4, 32, [conv(1, 2, pad=1), relu, conv(2, 2, pad=1, groups=2), act("Tanh")]),
    "dense tail": _chain(
        4,
        3,
        [
            conv(1, 2, pad=1),
            relu,
            lambda model, x: model.dense(x, 32, 3),
            relu,
        ],
    ),
    "global average": _chain(4, 2, [conv(1, 2, pad=1), relu, act("GlobalAveragePool")]),
}
