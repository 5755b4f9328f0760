"""The importer: the bytes of an ONNX file in, a network out, or a refusal with its reason.

bytes -> prescan (own walk, every rule) -> graph (sorted; inputs bound, outputs chosen)
      -> build (constants folded, patterns recognised, operators converted)
      -> differential test against a run time on the original bytes, without dead nodes
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING

from verifier.onnx_import import prescan, reader
from verifier.property import Reading

if TYPE_CHECKING:
    from verifier.onnx_import.model import Model
    from verifier.onnx_import.values import Blocked

__all__ = ["Blocked", "Model", "load"]


def load(data: bytes, reading: Reading | None = None, *, differential: bool = True) -> Model:
    """The model in a file.

    Args:
        data: the bytes of the file. No path is ever opened.
        reading: what is bound, which outputs are meant; None: nothing, all.
        differential: whether the result is compared with a run time. Leaving it out is for
            tests of the other stages; what was not compared is not to be certified.

    Raises:
        ModelRefused: the file is not a model that can be read; code, node and fix say why.
        InvalidRequest: the reading names what the file does not have.
    """
    digest = hashlib.sha256(data).hexdigest()
    graph = reader.read(prescan.scan(data), reading or Reading())
    # torch takes a second to load: a file that is refused so far does not wait for it.
    from verifier.onnx_import.build import build
    from verifier.onnx_import.model import Model

    built = build(graph)
    if differential and built.network is not None:
        from verifier.onnx_import import differential as differential_test
        from verifier.onnx_import.living import living

        read = [port for port in built.outputs if port.is_read]
        run = living(data, graph, {port.name for port in read})
        differential_test.check(run, graph, built.network, read, built.grids)
    return Model(
        sha256=f"sha256:{digest}",
        network=None if built.blocked is not None else built.network,
        blocked=built.blocked,
        inputs=built.inputs,
        outputs=built.outputs,
        assumptions=graph.frozen,
        opset=graph.opset,
        dtype=graph.inputs[0].dtype,
        parameters=built.parameters,
        operators=dict(sorted(Counter(operator.op for operator in graph.operators).items())),
    )


def __getattr__(name: str) -> object:
    """The types that `load` returns, without loading torch before they are used."""
    if name == "Model":
        from verifier.onnx_import.model import Model

        return Model
    if name == "Blocked":
        from verifier.onnx_import.values import Blocked

        return Blocked
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
