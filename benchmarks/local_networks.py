"""Local bounds at larger sizes: `python -m benchmarks.local_networks [SECONDS] [CASE ...]`.

Wanted, linf to linf unless said otherwise: two strided convolutions and two dense layers on
3 x 32 x 32 within 20 s; a row of 3000 open gates within 3 minutes; six layers of 32 channels and a
small ResNet below the product within 5 minutes on 2 cores; with the yardsticks' folder, all rows of
784-256x3-10 at .1 at most 310 within 15 s (l2 to l2: 19.06), its convolutions at 8/255 at most 235.

Weights of the made ones are random (He). Where a bound is wanted it is the request's target: then
seconds are those of the whole run to the first bound of that quality. `cpu` is of this process, the
check after the run included.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from benchmarks.table import Table
from benchmarks.torus import Images, cnn
from benchmarks.yardsticks import Case, answer, cases, ratio

_UNASKED: Final = Case(
    name="", model=b"", request={}, best_known=None, lower_bound=None, product_bound=None, peers=()
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A network, what is asked of it, and what was wanted."""

    model: Callable[[], bytes]
    radius: float
    inputs: int = 3 * 32 * 32
    row: int | None = None  #: the one output that is asked about; None for all
    wanted: float | None = None


def strided() -> bytes:
    """Two strided convolutions of 8 and 16 channels and two dense layers on 3 x 32 x 32."""
    images = Images(32)
    signal = images.relu(images.conv("x", 3, 8, stride=2))
    signal = images.relu(images.conv(signal, 8, 16, stride=2))
    hidden = images.relu(images.dense(images.node("Flatten", signal), 16 * 8 * 8, 100))
    return images.classified(hidden, 100)


def small_resnet() -> bytes:
    """Three blocks of 16, 32 and 64 channels."""
    images = Images(32)
    signal, source = images.relu(images.conv("x", 3, 16)), 16
    for target in (16, 32, 64):
        stride = 1 if source == target else 2
        inner = images.relu(images.conv(signal, source, target, stride=stride))
        inner = images.conv(inner, target, target)
        skip = signal if source == target else images.conv(signal, source, target, 1, stride)
        signal, source = images.relu(images.node("Add", inner, skip)), target
    return images.classified(images.node("GlobalAveragePool", signal), source)


def wide() -> bytes:
    """Three hidden layers of 1024 on 784 inputs."""
    rng, sizes = np.random.default_rng(5), (784, 1024, 1024, 1024, 10)
    nodes, constants, signal = [], [], "x"
    for layer, (narrow, broad) in enumerate(pairwise(sizes)):
        weight = rng.standard_normal((broad, narrow)) * np.sqrt(2 / narrow)
        arrays = {f"w{layer}": weight, f"b{layer}": rng.standard_normal(broad) * 0.05}
        constants += [numpy_helper.from_array(a.astype(np.float32), k) for k, a in arrays.items()]
        nodes.append(helper.make_node("Gemm", [signal, *arrays], [f"v{layer}"], transB=1))
        nodes.append(helper.make_node("Relu", [f"v{layer}"], [f"z{layer}"]))
        signal = f"z{layer}"
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes[:-1],
        "wide",
        [value("x", TensorProto.FLOAT, (1, 784))],
        [value(f"v{len(sizes) - 2}", TensorProto.FLOAT, (1, 10))],
        constants,
    )
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()


MADE: Final[Mapping[str, Question]] = {
    "strided 1/255": Question(model=strided, radius=1 / 255, wanted=19.8),
    "strided 8/255": Question(model=strided, radius=8 / 255, wanted=26.2),
    "cnn 6 x 32": Question(model=cnn, radius=1 / 255),
    "resnet": Question(model=small_resnet, radius=1 / 255),
    "3000 gates, a row": Question(model=wide, radius=0.05, inputs=784, row=0, wanted=251.5),
}

#: Of the yardsticks' files and centers: the network, the radius, the output norm, what was wanted.
KNOWN: Final = (
    ("mlp_16_32_32_10", 8 / 255, "linf", 31.67),
    ("mlp_16_32_32_10", 0.1, "linf", 132.7),
    ("digits_64_32_32_10", 8 / 255, "linf", 280.26),
    ("digits_64_32_32_10", 0.1, "linf", 346.9),
    ("mlp_784_256x3_10", 8 / 255, "linf", 293.3),
    ("mlp_784_256x3_10", 0.1, "linf", 310.0),
    ("mlp_784_256x3_10", 0.1, "l2", 19.06),
    ("cnn_1x28x28", 8 / 255, "linf", 235.0),
    ("digits_tanh_64_32_32_10", 1 / 255, "linf", 73.2),
    ("digits_tanh_64_32_32_10", 8 / 255, "linf", 320.4),
    ("digits_tanh_64_32_32_10", 0.1, "linf", 566.2),
)


def made(question: Question) -> Case:
    """The case of a made network, around a point of noise."""
    center = np.random.default_rng(1).uniform(0.25, 0.75, question.inputs)
    asked = _local(center.tolist(), question.radius, "linf")
    if question.row is not None:
        asked["outputs"] = {"indices": [question.row]}
    request = {"property": asked} | _target(question.wanted)
    return replace(_UNASKED, model=question.model(), request=request)


def known() -> dict[str, tuple[Case, float | None]]:
    """The yardsticks' files at other radii, with what was wanted; none without the folder."""
    if "LIPCERT_SHARED" not in os.environ:
        return {}
    found: dict[str, tuple[Case, float | None]] = {}
    files = {case.name.partition("@")[0]: case for case in cases("local")}
    for name, radius, norm, wanted in KNOWN:
        center = files[name].request["property"]["region"]["center"]
        request = {"property": _local(center, radius, norm)} | _target(wanted)
        case = replace(files[name], request=request, peers=())
        found[f"{name}@{radius:.3g} {norm}"] = case, wanted
    return found


def _target(wanted: float | None) -> dict[str, Any]:
    return {} if wanted is None else {"target": {"upper": wanted}}


def _local(center: list[float], radius: float, norm: str) -> dict[str, Any]:
    region = {"type": "box", "center": center, "radius": radius}
    return {"scope": "local", "norm": norm, "region": region}


def main() -> None:
    """Prints one row for each case."""
    seconds = float(sys.argv[1]) if 1 < len(sys.argv) else 120.0
    every = {name: (made(question), question.wanted) for name, question in MADE.items()} | known()
    table = Table(case=38, bound=12, wanted=10, ratio=9, product=12, seconds=9, cpu=9, check=9)
    for name in sys.argv[2:] or every:
        case, wanted = every[name]
        begun = time.process_time()
        given = answer(case, seconds=seconds)
        spent = time.process_time() - begun
        attempts = () if given.certificate is None else given.certificate.attempts
        by_product = next((each.bound for each in attempts if each.method == "product"), None)
        bound = given.refusal or given.bound
        times = [given.seconds, spent, given.check_seconds]
        table.row([name, bound, wanted, ratio(given.bound, wanted), by_product, *times])


if __name__ == "__main__":
    main()
