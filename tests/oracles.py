"""Answers of independent origin for tests: no module of ours is imported here."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when onnxruntime is imported
import onnx
import onnxruntime
from jaxtyping import Float64
from onnx import helper

OPSET = 22
IR_VERSION = 10


def run_model(model: bytes, x: Float64[np.ndarray, "*shape"]) -> Float64[np.ndarray, "*out"]:
    """The only output of a float32 model with one input, by ONNX Runtime without optimisations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (out,) = session.run(None, {session.get_inputs()[0].name: x.astype(np.float32)})
    return np.asarray(out, dtype=np.float64)


def run_node(
    op: str,
    x: Float64[np.ndarray, "*shape"],
    constants: Sequence[float | Float64[np.ndarray, ...]] = (),
    attributes: Mapping[str, object] | None = None,
) -> Float64[np.ndarray, "*out"]:
    """What ONNX Runtime gives for a node of one data input, further constant inputs, one output."""
    tensors = [
        onnx.numpy_helper.from_array(np.asarray(value, dtype=np.float32), f"c{k}")
        for k, value in enumerate(constants)
    ]
    node = helper.make_node(op, ["x", *(t.name for t in tensors)], ["y"])
    node.attribute.extend(helper.make_attribute(*item) for item in (attributes or {}).items())
    graph = helper.make_graph(
        [node],
        op,
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        tensors,
    )
    return run_model(to_bytes(graph), x)


def to_bytes(graph: onnx.GraphProto) -> bytes:
    """The serialised model of a graph."""
    opset = helper.make_opsetid("", OPSET)
    return helper.make_model(
        graph, opset_imports=[opset], ir_version=IR_VERSION
    ).SerializeToString()
