"""What a run time is given: the original bytes, without what nothing needs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.onnx_import.graphs import floats, info, node, proto, serialised
from verifier.errors import OpUnsupported
from verifier.onnx_import import differential, load, runtime
from verifier.property import Names, Reading


def test_no_run_time_sees_what_nothing_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a node, of no rule here, whose result nothing reads; not an output that is not chosen."""
    nodes = [
        node("Einsum", ["x", "W"], ["unused"], equation="...ij,...j->...i"),
        node("Relu", ["x"], ["y"]),
        node("CumSum", ["x", "axis"], ["z"]),
    ]
    constants = {"W": floats(2, 2, 4), "axis": np.array(0)}
    made = proto(nodes, constants, outputs=[info("y", None), info("z", None)])
    seen: list[bytes] = []

    def run(data: bytes, feed: runtime.Feed, names: Sequence[str]) -> list[np.ndarray]:
        seen.append(data)
        return runtime.run(data, feed, names)

    monkeypatch.setattr(differential, "run", run)
    load(serialised(made), Reading(outputs=Names(("y",))))
    (data,) = seen
    ran = onnx.load_model_from_string(data)
    assert [item.op_type for item in ran.graph.node] == ["Relu"]
    assert [item.name for item in ran.graph.output] == ["y"]
    del made.graph.node[2], made.graph.node[0], made.graph.output[1]
    assert ran == made


def test_what_a_function_computes_for_nothing_needs_a_rule() -> None:
    nodes = [
        node("CumSum", ["a", "axis"], ["unused"]),
        node("Relu", ["a"], ["o"]),
    ]
    opset = [helper.make_opsetid("", 17)]
    body = helper.make_function("local", "F", ["a", "axis"], ["o"], nodes, opset)
    made = proto(
        [node("F", ["x", "i"], ["y"], domain="local")], {"i": np.array(0)}, domains=("local",)
    )
    made.functions.append(body)
    with pytest.raises(OpUnsupported, match="CumSum"):
        load(serialised(made))
    del made.functions[0].node[0]
    assert len(load(serialised(made)).require_network().nodes) == 1
