"""The importer: the bytes of an ONNX file in, a network out, or a refusal with its reason.

bytes -> prescan (own walk, every rule) -> graph (sorted, one input, one output)
      -> build (constants folded, patterns recognised, operators converted)
      -> differential test against onnxruntime on the original bytes
"""

from __future__ import annotations

import hashlib
from collections import Counter

from verifier.onnx_import import build, prescan, reader
from verifier.onnx_import import differential as differential_test
from verifier.onnx_import.model import Model
from verifier.onnx_import.values import Blocked

__all__ = ["Blocked", "Model", "load"]


def load(data: bytes, *, differential: bool = True) -> Model:
    """The model in a file.

    Args:
        data: the bytes of the file. No path is ever opened.
        differential: whether the result is compared with onnxruntime. Leaving it out is for
            tests of the other stages; what was not compared is not to be certified.

    Raises:
        ModelRefused: the file is not a model that can be read; code, node and fix say why.
    """
    digest = hashlib.sha256(data).hexdigest()
    graph = reader.read(prescan.scan(data))
    built = build.build(graph)
    if differential and built.network is not None:
        differential_test.check(data, graph, built.network, build.bound_shape(graph.input))
    return Model(
        sha256=f"sha256:{digest}",
        network=built.network,
        blocked=built.blocked,
        input_name=graph.input.name,
        input_shape=built.input_shape,
        output_name=graph.output.name,
        output_shape=built.output_shape,
        opset=graph.opset,
        dtype=graph.input.dtype,
        parameters=built.parameters,
        operators=dict(sorted(Counter(operator.op for operator in graph.operators).items())),
    )
