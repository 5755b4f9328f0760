"""Small ONNX models for the importer's tests, written with onnx.helper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray


def node(op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> Any:  # noqa: ANN401 (any attribute)
    """One node."""
    return helper.make_node(op, list(inputs), list(outputs), **attributes)


def info(
    name: str, shape: Sequence[int | str | None] | None, dtype: int = TensorProto.FLOAT
) -> Any:  # noqa: ANN401 (a protobuf class)
    """A graph input or output."""
    return helper.make_tensor_value_info(name, dtype, None if shape is None else list(shape))


def proto(
    nodes: Sequence[Any],
    constants: Mapping[str, Array] | None = None,
    *,
    inputs: Sequence[Any] | None = None,
    outputs: Sequence[Any] | None = None,
    shape: Sequence[int | str | None] = (1, 4),
    opset: int = 17,
    ir: int = 8,
    domains: Sequence[str] = (),
) -> Any:  # noqa: ANN401 (a protobuf class)
    """A model with input x, output y (of unknown shape) unless others are given."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [info("x", shape)] if inputs is None else list(inputs),
        [info("y", None)] if outputs is None else list(outputs),
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    made = helper.make_model(graph, opset_imports=opsets)
    made.ir_version = ir
    return made


def model(nodes: Sequence[Any], constants: Mapping[str, Array] | None = None, **more: Any) -> bytes:  # noqa: ANN401 (as `proto`)
    """The bytes of such a model."""
    return serialised(proto(nodes, constants, **more))


def serialised(made: onnx.ModelProto) -> bytes:
    """The bytes of a model."""
    return made.SerializeToString()


def floats(*shape: int, seed: int = 0) -> Array:
    """Standard normal float32 numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def integers(*values: int) -> Array:
    """An int64 vector."""
    return np.array(values, np.int64)


def run(data: bytes, x: Array) -> Array:
    """What onnxruntime computes of one input, all optimisation off."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])
