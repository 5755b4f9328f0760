"""What an import costs beside the onnx package's own reading: `python -m benchmarks.import_cost`.

Networks of 1 to 100 MB are made here (or given as files), and each is read twice, each time in a
child forked from a process that has everything loaded:

    onnx     onnx.load_model_from_string and onnx.checker.check_model
    lipcert  the whole import, with the differential test; and the parts of it

The ratio of processor seconds is to be at most 3, and the peak memory beside that of a child that
imports eight neurons (the pages of the libraries) at most 4 times the file. What takes longer is
listed at the end: 32 inputs in a run time and in torch are a floor for large convolutions.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from benchmarks.table import Table
from verifier.onnx_import import build, differential, load, prescan

MOST_TIME: Final = 3.0
MOST_MEMORY: Final = 4.0
LOADED: Final = (build, differential)  #: before the children are forked


@dataclass(frozen=True, slots=True)
class Cost:
    """Processor seconds and MiB of a child."""

    seconds: float
    mib: float


def main() -> None:
    """Prints the table; fails where something costs too much."""
    files: Mapping[str, bytes] = {
        path.stem: path.read_bytes() for path in map(Path, sys.argv[1:])
    } or {name: make() for name, make in MADE.items()}
    tiny = perceptron(8, 1)
    load(tiny)  # everything that is imported late is there
    table = Table(network=18, MiB=7, onnx_s=8, prescan=8, unproved=9, import_s=9, ratio=7, memory=7)
    least = cost(lambda: load(tiny))
    wrong: list[str] = []
    for name, data in files.items():
        size = len(data) / 2**20
        theirs, scan, bare, ours = (
            cost(lambda run=run, data=data: run(data))
            for run in (by_onnx, prescan.scan, without_test, load)
        )
        ratio = ours.seconds / theirs.seconds
        memory = (ours.mib - least.mib) / size
        if MOST_TIME < ratio or MOST_MEMORY < memory:
            wrong.append(name)
        table.row(
            [
                name,
                f"{size:.1f}",
                f"{theirs.seconds:.3f}",
                f"{scan.seconds:.3f}",
                f"{bare.seconds:.3f}",
                f"{ours.seconds:.3f}",
                f"{ratio:.1f}",
                f"{memory:.1f}",
            ]
        )
    sys.stdout.write(f"\nbeyond {MOST_TIME} or {MOST_MEMORY}: {', '.join(wrong) or 'nothing'}\n")


def by_onnx(data: bytes) -> None:
    """What the onnx package does to read a file."""
    onnx.checker.check_model(onnx.load_model_from_string(data))


def without_test(data: bytes) -> None:
    """The import but for the comparison with a run time."""
    load(data, differential=False)


def cost(run: Callable[[], object]) -> Cost:
    """What a child takes for it."""
    pid = os.fork()
    if pid == 0:
        try:
            run()
        finally:
            failed = sys.exc_info()[0] is not None
            os._exit(int(failed))
    _, status, used = os.wait4(pid, 0)
    if status:
        raise RuntimeError(f"the child ended with {status}")
    return Cost(max(used.ru_utime + used.ru_stime, 1e-4), used.ru_maxrss / 1024)


def perceptron(width: int, depth: int) -> bytes:
    """Square layers with ReLU."""
    nodes: list[Any] = []
    weights: list[Any] = []
    rng, last = np.random.default_rng(0), "x"
    for place in range(depth):
        matrix = rng.standard_normal((width, width)).astype(np.float32) / np.float32(width) ** 0.5
        weights.append(numpy_helper.from_array(matrix.astype(np.float32), f"w{place}"))
        nodes.append(helper.make_node("Gemm", [last, f"w{place}"], [f"z{place}"], transB=1))
        last = f"y{place}"
        nodes.append(helper.make_node("Relu", [f"z{place}"], [last]))
    return _serialised(nodes, weights, [1, width], last)


def convolutions(channels: int, depth: int, side: int) -> bytes:
    """Square convolutions of 3 by 3 with ReLU."""
    nodes: list[Any] = []
    weights: list[Any] = []
    rng, last = np.random.default_rng(0), "x"
    for place in range(depth):
        kernel = rng.standard_normal((channels, channels, 3, 3)) / (3 * channels**0.5)
        weights.append(numpy_helper.from_array(kernel.astype(np.float32), f"w{place}"))
        made = helper.make_node("Conv", [last, f"w{place}"], [f"z{place}"], pads=[1, 1, 1, 1])
        last = f"y{place}"
        nodes += [made, helper.make_node("Relu", [f"z{place}"], [last])]
    return _serialised(nodes, weights, [1, channels, side, side], last)


def _serialised(nodes: list[Any], weights: list[Any], shape: list[int], last: str) -> bytes:
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model.SerializeToString()


MADE: Final[Mapping[str, Callable[[], bytes]]] = {
    "dense 256x4": lambda: perceptron(256, 4),
    "dense 1024x3": lambda: perceptron(1024, 3),
    "dense 2048x3": lambda: perceptron(2048, 3),
    "dense 2048x6": lambda: perceptron(2048, 6),
    "conv 64x8, 8 by 8": lambda: convolutions(64, 8, 8),
    "conv 256x8, 8 by 8": lambda: convolutions(256, 8, 8),
}


if __name__ == "__main__":
    main()
