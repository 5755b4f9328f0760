"""What a run time computes from a file: the other side of the differential test.

onnxruntime, all graph optimisation off and one thread. It has no kernels for bfloat16, and for
float64 not all: there the reference evaluator of the onnx package runs the file. Both get the
original bytes, after every rule of the pre-scan, and what nothing needs is cut out (`living`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import torch

from verifier.errors import ImportMismatch
from verifier.onnx_import import tensors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from verifier.onnx_import.reader import Graph

#: the values of the tensors of these names, for inputs by name
Evaluate: TypeAlias = "Callable[[list[str], Mapping[str, np.ndarray]], Sequence[Any]]"

SAMPLES: Final = 32
SEED: Final = 20_260_101
SCALES: Final = (  #: the samples in order, those of one kind and scale together
    *(range(place, place + 1) for place in range(3)),
    range(3, 8),
    *(range(start, start + 4) for start in range(8, SAMPLES, 4)),
)
_COARSEST_FIRST: Final = ("bfloat16", "float16", "float32", "float64")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Feed:
    """The test's inputs: as the file takes them, and as one flat vector each."""

    arrays: tuple[Mapping[str, np.ndarray], ...]  #: one for each sample, held inputs included
    inputs: Tensor  #: [samples, flat input], exactly what is fed
    dtype: str  #: the coarsest type in which the file computes

    @staticmethod
    def of(graph: Graph, *, is_restricted: bool) -> Feed:
        """Samples for a graph; half positive where a function is not defined everywhere."""
        sizes = [prod(declared.shape or ()) for declared in graph.inputs]
        rows = samples(sum(sizes), is_restricted=is_restricted)
        held = {name: _typed(value.array, value.dtype) for name, value in graph.fed.items()}
        fed: dict[str, np.ndarray] = {}
        start = 0
        for declared, size in zip(graph.inputs, sizes, strict=True):
            part = rows[:, start : start + size]
            typed = _typed(part, declared.dtype).reshape(SAMPLES, *(declared.shape or ()))
            rows[:, start : start + size] = typed.reshape(SAMPLES, size).astype(np.float64)
            fed[declared.name] = typed
            start += size
        return Feed(
            arrays=tuple(
                held | {name: values[row] for name, values in fed.items()} for row in range(SAMPLES)
            ),
            inputs=torch.from_numpy(rows),
            dtype=_coarsest(graph),
        )

    def rows(self, start: int, end: int) -> Feed:
        """Some of the samples."""
        return Feed(arrays=self.arrays[start:end], inputs=self.inputs[start:end], dtype=self.dtype)


def samples(size: int, *, is_restricted: bool) -> np.ndarray:
    """[32, size]: corners, then normal vectors, four of each scale; half positive on request."""
    rng = np.random.default_rng(SEED)
    corners = [np.zeros(size), np.ones(size), -np.ones(size)]
    corners += [rng.choice([-1.0, 1.0], size) for _ in range(5)]
    scales = np.repeat([1e-3, 0.1, 1.0, 3.0, 10.0, 100.0], 4)
    normal = rng.standard_normal((len(scales), size)) * scales[:, None]
    if is_restricted:
        normal[::2] = np.abs(normal[::2])
    return np.vstack([*corners, normal])


def run(data: bytes, feed: Feed, names: Sequence[str]) -> list[np.ndarray]:
    """Flat values of the named tensors for every sample, as a run time computes them.

    Raises:
        ImportMismatch: it does not run the file.
    """
    first: Exception | None = None
    for evaluator in _EVALUATORS.get(feed.dtype, (_onnxruntime,)):
        try:
            evaluate = evaluator(data)
            runs = [evaluate(list(names), sample) for sample in feed.arrays]
        except Exception as error:  # noqa: BLE001 (what libraries raise has no common type)
            first = first or error
            continue
        return [np.stack([_numbers(each[place]) for each in runs]) for place in range(len(names))]
    raise ImportMismatch(
        f"no run time runs the file ({type(first).__name__}), so that the import cannot be tested",
        fix="export the model so that onnxruntime runs it",
    ) from first


def _numbers(value: Any) -> np.ndarray:  # noqa: ANN401 (of run times)
    """A tensor's numbers; of a list of mappings those of each, in the order of their keys."""
    if isinstance(value, list):
        rows: list[dict[Any, float]] = value
        value = [[row[key] for key in sorted(row)] for row in rows]
    return np.asarray(value, np.float64).reshape(-1)


def _onnxruntime(data: bytes) -> Evaluate:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime as ort  # heavy, and of no use before this test

    ort.set_default_logger_severity(4)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return session.run


def _reference(data: bytes) -> Evaluate:
    import onnx
    from onnx.reference import ReferenceEvaluator

    session = ReferenceEvaluator(onnx.load_model_from_string(data))
    return lambda names, sample: list(session.run(names, dict(sample)))


def _typed(values: np.ndarray, dtype: str) -> np.ndarray:
    """The numbers in a type of the file, as run times take them."""
    if dtype != "bfloat16":
        return values.astype(dtype)
    import ml_dtypes  # a part of the onnx package's own needs

    return values.astype(np.float32).astype(ml_dtypes.bfloat16)


def _coarsest(graph: Graph) -> str:
    """The type of fewest digits that inputs, outputs or Casts have."""
    chosen = [declared for declared in graph.outputs if declared.name in graph.chosen]
    types = {declared.dtype for declared in (*graph.inputs, *chosen)}
    for operator in graph.operators:
        target = operator.attributes.get("to")
        if operator.op == "Cast" and isinstance(target, int) and target in tensors.ELEMENT_TYPES:
            types.add(tensors.ELEMENT_TYPES[target].name)
        if operator.op == "ai.onnx.ml::Scaler":
            types.add("float32")
    return next(name for name in _COARSEST_FIRST if name in types)


#: By type, where it is not onnxruntime alone; the next one where the one before has no kernel.
_EVALUATORS: Final[Mapping[str, tuple[Callable[[bytes], Evaluate], ...]]] = {
    "bfloat16": (_reference,),
    "float64": (_onnxruntime, _reference),
}
