"""Whole ONNX graphs over the rationals, node by node: for the operators of product networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx.numpy_helper

from tests.exact import SCALAR, STEEP, Exact, entrywise, fractions, quotients

Inputs: TypeAlias = list[Any]  #: of arrays of Fractions; of integers where they are a shape
Attributes: TypeAlias = Mapping[str, Any]

_NODES: Mapping[str, Callable[[Inputs, Attributes], Exact]] = {
    "Add": lambda inputs, _: inputs[0] + inputs[1],
    "Div": lambda inputs, _: quotients(inputs[0], inputs[1]),
    "Identity": lambda inputs, _: inputs[0],
    "MatMul": lambda inputs, _: inputs[0] @ inputs[1],
    "Mul": lambda inputs, _: inputs[0] * inputs[1],
    "Pow": lambda inputs, _: inputs[0] ** int(inputs[1].item()),
    "Reshape": lambda inputs, _: inputs[0].reshape(inputs[1]),
    "Transpose": lambda inputs, attributes: inputs[0].transpose(attributes["perm"]),
}


def exact_output(data: bytes, x: Exact) -> Exact:
    """The graph's output at one flat point, flat."""
    graph = onnx.load_from_string(data).graph
    shape = [dimension.dim_value for dimension in graph.input[0].type.tensor_type.shape.dim]
    values: dict[str, Any] = {graph.input[0].name: x.reshape(shape)}
    for tensor in graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        values[tensor.name] = array if array.dtype == np.int64 else fractions(array)
    for node in graph.node:
        inputs = [values[name] for name in node.input]
        attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
        values[node.output[0]] = _apply(node.op_type, inputs, attributes)
    return values[graph.output[0].name].ravel()


def _apply(op: str, inputs: Inputs, attributes: Attributes) -> Exact:
    if op in _NODES:
        return _NODES[op](inputs, attributes)
    if attributes:
        raise NotImplementedError(f"{op} with {sorted(attributes)}")
    return entrywise({**SCALAR, **STEEP}[op])(inputs[0])
