"""Local functions and constant Ifs: what they are written out as, by importer and checker alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from onnx import AttributeProto, helper, numpy_helper

from tests.checker.evaluation import Runtime, evaluate
from tests.onnx_import.graphs import info, model, node, proto, serialised
from verifier.checker import check
from verifier.checker.graph import read_network
from verifier.errors import (
    ControlFlow,
    CustomOp,
    ExpansionTooLarge,
    GraphCycle,
    InvalidAttribute,
    LipcertError,
    OpsetUnsupported,
)
from verifier.network.nodes import Affine
from verifier.onnx_import import load
from verifier.request_json import parse_request
from verifier.verify import verify

EYE = np.eye(4, dtype=np.float32)


def function(name: str, nodes: list[Any], **more: Any) -> Any:  # noqa: ANN401 (protobuf classes)
    """A function f::name of a that leaves b."""
    opsets = [helper.make_opsetid("", more.pop("opset", 17)), helper.make_opsetid("f", 1)]
    ends = more.pop("inputs", ["a"]), more.pop("outputs", ["b"])
    return helper.make_function("f", name, *ends, nodes, opsets, **more)


def calling(nodes: list[Any], *functions: Any) -> bytes:  # noqa: ANN401 (protobuf classes)
    made = proto(nodes, {"W": 2 * EYE}, domains=["f"], outputs=[info("y", (1, 4))])
    made.functions.extend(functions)
    return serialised(made)


def call(name: str, inputs: list[str], outputs: list[str], **attributes: Any) -> Any:  # noqa: ANN401
    return helper.make_node(name, inputs, outputs, domain="f", **attributes)


def referring(op: str, attribute: str, outside: str) -> Any:  # noqa: ANN401 (a protobuf class)
    made = node(op, ["a"], ["b"])
    made.attribute.append(
        AttributeProto(name=attribute, type=AttributeProto.FLOAT, ref_attr_name=outside)
    )
    return made


SCALED = function(
    "scaled", [node("MatMul", ["a", "w"], ["t"]), node("Tanh", ["t"], ["b"])], inputs=["a", "w"]
)
TWICE = function("twice", [call("scaled", ["a", "w"], ["t"]), call("scaled", ["t", "w"], ["b"])],
                 inputs=["a", "w"])  # fmt: skip
LEAKY = function("leaky", [referring("LeakyRelu", "alpha", "slope")], attributes=["slope"])
FIXED = function(
    "fixed",
    [referring("LeakyRelu", "alpha", "slope")],
    attribute_protos=[helper.make_attribute("slope", 0.5)],
)
PASSING = function("passing", [node("Neg", ["a"], ["b"])], outputs=["b", "a"])

READ = {
    "nested functions": calling([call("twice", ["x", "W"], ["y"])], SCALED, TWICE),
    "an attribute of the call": calling([call("leaky", ["x"], ["y"], slope=0.25)], LEAKY),
    "an attribute left out": calling([call("leaky", ["x"], ["y"])], LEAKY),
    "a function's own attribute": calling([call("fixed", ["x"], ["y"])], FIXED),
    "a call twice": calling(
        [call("scaled", ["x", "W"], ["h"]), call("scaled", ["h", "W"], ["y"])], SCALED
    ),
}


def branch(nodes: list[Any], output: str, constants: dict[str, Any] | None = None) -> Any:  # noqa: ANN401
    weights = [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    return helper.make_graph(nodes, "b", [], [info(output, None)], weights)


def branching(condition: list[Any], constants: dict[str, Any], **branches: Any) -> bytes:  # noqa: ANN401
    relu = branch([node("Relu", ["x"], ["r"])], "r")
    halved = branch([node("Mul", ["x", "h"], ["m"])], "m", {"h": np.array(0.5, np.float32)})
    graphs = {"then_branch": relu, "else_branch": halved, **branches}
    return model(
        [*condition, node("If", ["c"], ["y"], **graphs)],
        constants,
        shape=("N", 4),
        outputs=[info("y", None)],
    )


COUNTED = [
    node("Shape", ["x"], ["s"]),
    node("Gather", ["s", "zero"], ["n"]),
    node("Equal", ["n", "four"], ["c"]),
]
NUMBERS = {"zero": np.array(1, np.int64), "four": np.array(4, np.int64)}


def twice() -> bytes:
    """Two Ifs whose branches call different signals by one name."""
    inner = {"h": np.array(0.5, np.float32)}
    first = branch([node("Mul", ["x", "h"], ["m"]), node("Relu", ["m"], ["r"])], "r", inner)
    second = branch([node("Mul", ["p", "h"], ["m"]), node("Tanh", ["m"], ["r"])], "r", inner)
    nodes = [
        node("If", ["c"], ["p"], then_branch=first, else_branch=first),
        node("If", ["c"], ["q"], then_branch=second, else_branch=second),
        node("Add", ["p", "q"], ["y"]),
    ]
    return model(nodes, {"c": np.array(True)})


def test_what_an_if_makes_has_names_of_its_own() -> None:
    """In both readings; names of the graph around it are refused."""
    network = load(twice()).require_network()
    gates = {"p/r", "q/r"}
    assert gates == {one.name for one in network.nodes if not isinstance(one, Affine)}
    assert gates <= {one.name for one in read_network(twice()).nodes}
    taken = [node("Neg", ["x"], ["y/r"]), node("If", ["c"], ["y"], **RELU)]
    for read in (load, read_network):
        with pytest.raises(LipcertError) as refusal:
            read(model([*taken, node("Add", ["y", "y/r"], ["z"])], {"c": np.array(True)},
                       outputs=[info("z", None)]))  # fmt: skip
        assert refusal.value.code in {"duplicate-name", "not-checkable"}


RELU = dict.fromkeys(("then_branch", "else_branch"), branch([node("Relu", ["x"], ["r"])], "r"))
READ.update(
    {
        "two Ifs that share names": twice(),
        "an If that holds": branching([], {"c": np.array(True)}),
        "an If that does not": branching([], {"c": np.array(False)}),
        "an If on a shape": branching(COUNTED, NUMBERS),
        "a branch that passes on": branching(
            [], {"c": np.array(True)}, then_branch=branch([node("Identity", ["x"], ["i"])], "i")
        ),
    }
)


@pytest.mark.parametrize("data", READ.values(), ids=READ.keys())
def test_both_readers_read_what_onnxruntime_runs(data: bytes) -> None:
    load(data)  # the differential test is in there
    assert Runtime(data).distance(read_network(data), np.random.default_rng(0), 3) < 1e-6


def test_what_is_written_out_is_named_alike_and_certified() -> None:
    data = READ["nested functions"]
    nodes = [item.name for item in load(data).require_network().nodes]
    assert nodes == ["y/t/t", "y/t", "y/b/t", "y"]
    asked = {"property": {}, "method": "lipsdp", "budget": {"seconds": 5}}
    found = verify(data, parse_request(asked))
    assert check(found, data).valid
    assert found.claim.bound == pytest.approx(4, rel=0.02)


REFUSED: dict[str, tuple[type[LipcertError], bytes]] = {
    "a function that calls itself": (
        GraphCycle,
        calling([call("g", ["x"], ["y"])], function("g", [call("g", ["a"], ["b"])])),
    ),
    "a function of another opset": (
        OpsetUnsupported,
        calling([call("g", ["x"], ["y"])], function("g", [node("Neg", ["a"], ["b"])], opset=16)),
    ),
    "two functions of one name": (CustomOp, calling([call("fixed", ["x"], ["y"])], FIXED, FIXED)),
    "a call of nothing": (CustomOp, calling([call("h", ["x"], ["y"])], FIXED)),
    "an attribute that it has not": (
        InvalidAttribute,
        calling([call("fixed", ["x"], ["y"], other=1.0)], FIXED),
    ),
    "calls a hundred deep": (
        ExpansionTooLarge,
        calling(
            [call("f99", ["x"], ["y"])],
            function("f0", [node("Neg", ["a"], ["b"])]),
            *(function(f"f{k + 1}", [call(f"f{k}", ["a"], ["b"])]) for k in range(99)),
        ),
    ),
    "an If on the input": (
        ControlFlow,
        branching(
            [
                node("ReduceSum", ["x"], ["t"], keepdims=0),
                node("Greater", ["t", "zero"], ["c"]),
            ],
            {"zero": np.array(0, np.float32)},
        ),
    ),
    "an If in an If": (
        ControlFlow,
        branching(
            [],
            {"c": np.array(True)},
            then_branch=branch(
                [
                    helper.make_node(
                        "If",
                        ["c"],
                        ["i"],
                        then_branch=branch([node("Abs", ["x"], ["q"])], "q"),
                        else_branch=branch([node("Abs", ["x"], ["p"])], "p"),
                    )
                ],
                "i",
            ),
        ),
    ),
}


@pytest.mark.parametrize(("refusal", "data"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_written_out_is_refused_by_both(
    refusal: type[LipcertError], data: bytes
) -> None:
    with pytest.raises(refusal):
        load(data)
    with pytest.raises(LipcertError):
        read_network(data)


def test_a_function_may_pass_its_input_on() -> None:
    made = [call("passing", ["x"], ["n", "p"]), node("Sub", ["n", "p"], ["y"])]
    data = calling(made, PASSING)
    x = np.array([-1.0, 0.0, 2.0, 3.0])
    np.testing.assert_array_equal(evaluate(read_network(data), x), -2 * x)
    found = load(data, differential=False).require_network()  # onnxruntime runs no such function
    np.testing.assert_array_equal(found.forward(torch.from_numpy(x[None]))[0].numpy(), -2 * x)


def test_elements_of_functions_may_be_left_out() -> None:
    optional = function("g", [node("Clip", ["a", "low"], ["b"])], inputs=["a", "low"])
    data = calling([call("g", ["x", ""], ["y"])], optional)
    x = np.array([-1.0, 0.0, 2.0, 3.0])
    np.testing.assert_array_equal(evaluate(read_network(data), x), x)
    assert load(data).require_network().output == "y"
