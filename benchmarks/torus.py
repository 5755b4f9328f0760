"""Convolutional networks at their size: `python -m benchmarks.torus [SECONDS] [CASE ...]`.

Wanted, on 2 cores: ResNet-18 of width 64 on 32 x 32 input: the greedy bound in under a minute and a
better, proved one within 30 minutes; six layers of 32 channels within 20 s; the sizes of VGG and
LipConvNet within 10 minutes; never above the product.

Weights are random (He) with batch normalisation. `first` is the greedy bound and `last` the best
one within SECONDS; each is proved by the checker, and `check` is how long the last took.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper, numpy_helper

from benchmarks.table import Table
from verifier.certificate import Candidate, Certificate
from verifier.methods import product, torus
from verifier.methods.clock import Clock
from verifier.methods.items import items_of
from verifier.methods.lipsdp import Options
from verifier.onnx_import import load
from verifier.property import Property
from verifier.proving import Case, prove

ASKED: Final = Property()


class Images:
    """A model of images in the making; each method returns the tensor that leaves the new node."""

    def __init__(self, side: int) -> None:
        self._rng = np.random.default_rng(0)
        self._side = side
        self._nodes: list[NodeProto] = []
        self._constants: list[TensorProto] = []

    def _constant(self, value: npt.ArrayLike) -> str:
        name = f"c{len(self._constants)}"
        array = np.asarray(value)
        kept = array if array.dtype == np.int64 else array.astype(np.float32)
        self._constants.append(numpy_helper.from_array(kept, name))
        return name

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:  # noqa: ANN401 (of every type that ONNX has)
        """One operator."""
        name = f"t{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def conv(self, x: str, source: int, target: int, width: int = 3, stride: int = 1) -> str:
        """With padding that keeps the size, and batch normalisation."""
        scale = np.sqrt(2 / (source * width**2))
        weight = self._rng.standard_normal((target, source, width, width)) * scale
        pads, strides = [width // 2] * 4, [stride] * 2
        made = self.node("Conv", x, self._constant(weight), pads=pads, strides=strides)
        gain, spread = self._rng.uniform(0.5, 1.5, (2, target))
        shift, mean = self._rng.standard_normal((2, target))
        parts = [self._constant(part) for part in (gain, shift, mean, spread)]
        return self.node("BatchNormalization", made, *parts)

    def relu(self, x: str) -> str:
        """Max(x, 0)."""
        return self.node("Relu", x)

    def maxmin(self, x: str, channels: int) -> str:
        """Of the first and the second half of the channels."""
        name = f"t{len(self._nodes)}"
        ends = [f"{name}a", f"{name}b"]
        half = self._constant(np.array([channels // 2] * 2))
        self._nodes.append(helper.make_node("Split", [x, half], ends, axis=1))
        greatest, least = self.node("Max", *ends), self.node("Min", *ends)
        return self.node("Concat", greatest, least, axis=1)

    def dense(self, x: str, source: int, target: int) -> str:
        """A dense layer of flat entries."""
        weight = self._rng.standard_normal((source, target)) * np.sqrt(2 / source)
        return self.node("MatMul", x, self._constant(weight))

    def classified(self, x: str, entries: int) -> bytes:
        """The model with ten outputs."""
        weight = self._rng.standard_normal((entries, 10)) / np.sqrt(entries)
        output = self.node("MatMul", self.node("Flatten", x), self._constant(weight))
        shape = (1, 3, self._side, self._side)
        graph = helper.make_graph(
            self._nodes,
            "images",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, (1, 10))],
            self._constants,
        )
        opset = helper.make_opsetid("", 17)
        return helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()


def cnn() -> bytes:
    """Six layers of 32 channels on 32 x 32."""
    images, signal, source = Images(32), "x", 3
    for layer in range(6):
        signal = images.relu(images.conv(signal, source, 32, stride=2 if layer in {2, 4} else 1))
        source = 32
    return images.classified(signal, 32 * 8 * 8)


def resnet18(width: int) -> Callable[[], bytes]:
    """The network for 32 x 32 images."""

    def made() -> bytes:
        images = Images(32)
        signal, source = images.relu(images.conv("x", 3, width)), width
        for block in range(8):
            target = width * 2 ** (block // 2)
            stride = 2 if source != target else 1
            inner = images.relu(images.conv(signal, source, target, stride=stride))
            inner = images.conv(inner, target, target)
            skip = signal
            if source != target:
                skip = images.conv(signal, source, target, 1, stride)
            signal, source = images.relu(images.node("Add", inner, skip)), target
        return images.classified(images.node("GlobalAveragePool", signal), source)

    return made


def vgg11() -> bytes:
    """With max pooling, on 32 x 32."""
    images, signal, source = Images(32), "x", 3
    for target, pools in ((64, 1), (128, 1), (256, 0), (256, 1), (512, 0), (512, 1), (512, 0)):
        signal = images.relu(images.conv(signal, source, target))
        source = target
        if pools:
            signal = images.node("MaxPool", signal, kernel_shape=[2, 2], strides=[2, 2])
    return images.classified(signal, 512 * 2 * 2)


def lipconvnet() -> bytes:
    """Ten layers of max-min, from 32 channels to 256."""
    images, signal, source = Images(32), "x", 3
    for layer in range(10):
        target = 32 * 2 ** (layer // 3)
        signal = images.conv(signal, source, target, stride=2 if layer in {3, 6, 9} else 1)
        signal, source = images.maxmin(signal, target), target
    return images.classified(signal, 256 * 4 * 4)


CASES: Final[Mapping[str, Callable[[], bytes]]] = {
    "cnn 6 x 32": cnn,
    "resnet18 16": resnet18(16),
    "lipconvnet": lipconvnet,
    "vgg11": vgg11,
    "resnet18 64": resnet18(64),
}


def timed(candidates: Iterator[Candidate]) -> Iterator[tuple[Candidate, float]]:
    """Each candidate, and the seconds of search until it was there."""
    spent, since = 0.0, time.perf_counter()
    for candidate in candidates:
        spent += time.perf_counter() - since
        yield candidate, spent
        since = time.perf_counter()


def measured(model: bytes, seconds: float) -> list[float | str | None]:
    """The row of a model: product, first and last bound, their seconds, the last check's."""
    imported = load(model, differential=False)
    network = imported.require_network()
    case = Case(
        model=model,
        model_id=imported.sha256,
        asked=ASKED,
        items=items_of(ASKED, network.output_size),
        patterns=network.patterns,
        target=None,
        producer={},
    )
    search = torus.candidates(network, ASKED, Options(), Clock.start(seconds))
    found = list(timed(search))
    started = time.perf_counter()
    bounds: list[float | None] = []
    for candidate in (product.candidate(network, ASKED), found[0][0], found[-1][0]):
        started = time.perf_counter()
        outcome = prove(case, candidate, None, ())
        bounds.append(outcome.claim.bound if isinstance(outcome, Certificate) else None)
    checked = time.perf_counter() - started
    by_product, first, last = bounds
    return [by_product, first, found[0][1], last, found[-1][1], checked]


def main() -> None:
    """Prints one row for each case."""
    seconds = float(sys.argv[1]) if 1 < len(sys.argv) else 60.0
    table = Table(case=14, product=12, first=12, seconds=9, last=12, total=9, check=9)
    for name in sys.argv[2:] or CASES:
        table.row([name, *measured(CASES[name](), seconds)])


if __name__ == "__main__":
    main()
