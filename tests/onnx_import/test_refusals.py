"""Every refusal of the importer: its code, its node, and words that say what to do."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.onnx_import.graphs import floats, info, integers, model, node, proto, serialised
from verifier.checker.graph import read_network
from verifier.errors import ExpansionTooLarge, LipcertError, ModelRefused
from verifier.onnx_import import load, prescan

EYE = np.eye(4, dtype=np.float32)
TIMES = [node("MatMul", ["x", "W"], ["y"])]
RELU = [node("Relu", ["x"], ["y"])]
GOOD = model(TIMES, {"W": EYE})
IMAGE = {"inputs": [info("x", (1, 2, 8, 8))]}
ONES = {"W": np.ones((2, 2, 3, 3), np.float32)}


def varint(number: int) -> bytes:
    out = b""
    while True:
        byte, number = number & 127, number >> 7
        out += bytes([byte | (128 if number else 0)])
        if not number:
            return out


def field(number: int, payload: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def changed(change: Callable[[Any], object], **more: Any) -> bytes:  # noqa: ANN401 (as `proto`)
    """The good model after a change."""
    made = proto(TIMES, {"W": EYE}, **more)
    change(made)
    return serialised(made)


def with_weight(**fields: Any) -> bytes:  # noqa: ANN401 (fields of a protobuf message)
    """The good model with another weight."""

    def change(made: Any) -> None:  # noqa: ANN401 (a protobuf class)
        weight = made.graph.initializer[0]
        weight.Clear()
        weight.name = "W"
        weight.data_type = fields.pop("data_type", TensorProto.FLOAT)
        weight.dims.extend(fields.pop("dims", [4, 4]))
        weight.float_data.extend(fields.pop("float_data", []))
        for name, value in fields.items():
            setattr(weight, name, value)

    return changed(change)


def external(made: Any) -> None:  # noqa: ANN401 (a protobuf class)
    made.graph.initializer[0].data_location = TensorProto.EXTERNAL


def external_in_constant() -> bytes:
    tensor = numpy_helper.from_array(EYE, "c")
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "neighbour.bin"
    return model([node("Constant", [], ["W"], value=tensor), *TIMES])


def loop_node() -> bytes:
    ends = [info("i", (), TensorProto.INT64), info("c", (), TensorProto.BOOL)]
    body = helper.make_graph([node("Identity", ["c"], ["d"])], "t", ends, [info("d", ())])
    return model([node("Loop", ["n", ""], ["y"], body=body)], {"n": np.array(3)})


def function(name: str, body: list[str], domain: str = "f") -> Any:  # noqa: ANN401 (a protobuf class)
    names = ["a", *(f"t{i}" for i in range(len(body) - 1)), "b"]
    nodes = [
        helper.make_node(op, [names[i]], [names[i + 1]], domain="f" if op != "Neg" else "")
        for i, op in enumerate(body)
    ]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    return helper.make_function(domain, name, ["a"], ["b"], nodes, opsets)


def with_functions(*functions: Any) -> bytes:  # noqa: ANN401 (protobuf classes)
    return changed(lambda made: made.functions.extend(functions), domains=["f"])


def doubled(levels: int) -> list[Any]:
    names = ["o", *(f"k{i}" for i in range(levels))]
    return [node("Concat", [left, left], [right], axis=0) for left, right in pairwise(names)]


def norm(**more: Any) -> bytes:  # noqa: ANN401 (attributes)
    variance = more.pop("variance", 1.0)
    constants = {name: np.ones(4, np.float32) for name in "sbm"}
    constants["v"] = np.full(4, variance, np.float32)
    return model([node("BatchNormalization", ["x", *"sbmv"], ["y"], **more)], constants)


def conv(**attributes: Any) -> bytes:  # noqa: ANN401 (attributes)
    return model([node("Conv", ["x", "W"], ["y"], **attributes)], ONES, **IMAGE)


CASES: dict[str, tuple[str, bytes]] = {
    "nothing": ("not-onnx", b""),
    "text": ("not-onnx", b"this is not a model\n" * 10),
    "half a file": ("not-onnx", GOOD[: len(GOOD) // 2]),
    "two files": ("not-onnx", GOOD + GOOD),
    "groups": ("not-onnx", GOOD + b"\xa3\x06" * 100),
    "an endless varint": ("not-onnx", b"\x08" + b"\xff" * 11),
    "an appended zip": ("unknown-field", GOOD + field(3000, b"PK")),
    "21,000 empty nodes": ("too-many-nodes", b"\x08\x08" + field(7, b"\x0a\x00" * 21_000)),
    "external weights": ("external-data", changed(external)),
    "external data in a Constant": ("external-data", external_in_constant()),
    "dimensions that lie": ("tensor-size-mismatch", with_weight(raw_data=b"\0" * 60)),
    "data too long": ("tensor-size-mismatch", with_weight(raw_data=b"\0" * 68)),
    "negative dimensions": (
        "tensor-size-mismatch",
        with_weight(dims=[-4, -4], raw_data=b"\0" * 64),
    ),
    "dimensions that overflow": ("tensor-size-mismatch", with_weight(dims=[1 << 32, 1 << 32])),
    "nothing times very much": ("tensor-size-mismatch", with_weight(dims=[0, 1 << 62])),
    "nothing times too much": ("tensor-size-mismatch", with_weight(dims=[0, 1 << 31, 1 << 31])),
    "data twice": ("ambiguous-tensor", with_weight(raw_data=b"\0" * 64, float_data=[1.0] * 16)),
    "an unknown element type": ("unsupported-dtype", with_weight(data_type=999)),
    "bfloat16": ("unsupported-dtype", with_weight(data_type=16, raw_data=b"\0" * 32)),
    "nan": ("non-finite-weights", model(TIMES, {"W": EYE * np.nan})),
    "infinity": ("non-finite-weights", model(TIMES, {"W": np.full((4, 4), np.inf, np.float32)})),
    "a nan attribute": ("non-finite-weights", norm(epsilon=float("nan"))),
    "negative variance": ("non-finite-weights", norm(variance=-1.0)),
    "division by a constant 0": (
        "non-finite-weights",
        model([node("Div", ["x", "d"], ["y"])], {"d": np.array([1, 0, 1, 1], np.float32)}),
    ),
    "mixed float types": ("unsupported-dtype", model(TIMES, {"W": np.eye(4)})),
    "control flow": ("control-flow", loop_node()),
    "a function that takes Relu's name": (
        "custom-op",
        with_functions(function("Relu", ["Neg"], domain="")),
    ),
    "a function that calls itself": ("graph-cycle", with_functions(function("g", ["g"]))),
    "functions that grow": (
        "expansion-too-large",
        with_functions(
            function("f0", ["Neg"]), *(function(f"f{i + 1}", [f"f{i}"] * 2) for i in range(20))
        ),
    ),
    "opset 999": ("ir-or-opset-unsupported", model(RELU, opset=999)),
    "opset 6": ("ir-or-opset-unsupported", model(RELU, opset=6)),
    "IR 999": ("ir-or-opset-unsupported", model(RELU, ir=999)),
    "no opset": (
        "ir-or-opset-unsupported",
        changed(lambda made: made.ClearField("opset_import")),
    ),
    "a foreign operator": (
        "custom-op",
        model([helper.make_node("Sorted", ["x"], ["y"], domain="my.ops")], domains=["my.ops"]),
    ),
    "an operator that does not exist": ("unsupported-op", model([node("Foo", ["x"], ["y"])])),
    "an operator without a rule": (
        "unsupported-op",
        model([node("Det", ["x"], ["y"])], shape=(2, 2)),
    ),
    "random numbers": (
        "non-deterministic-op",
        model([node("RandomNormalLike", ["x"], ["n"]), node("Add", ["x", "n"], ["y"])]),
    ),
    "an unsorted TopK": (
        "non-deterministic-op",
        model([node("TopK", ["x", "k"], ["y", "i"], sorted=0)], {"k": integers(4)}),
    ),
    "batch norm in training": ("training-mode-op", norm(training_mode=1)),
    "dropout in training": (
        "training-mode-op",
        model(
            [node("Dropout", ["x", "r", "t"], ["y"])],
            {"r": np.array(0.5, np.float32), "t": np.array(True)},
        ),
    ),
    "a weight that is an input": (
        "overridable-initializer",
        changed(lambda made: made.graph.input.append(info("W", (4, 4)))),
    ),
    "an input listed twice": (
        "duplicate-name",
        model(RELU, inputs=[info("x", (1, 4)), info("x", (1, 4))]),
    ),
    "every dimension symbolic": ("dynamic-shape", model(RELU, shape=("N", "C"))),
    "no shape": ("dynamic-shape", model(RELU, inputs=[info("x", None)])),
    "no output": ("empty-model", model(RELU, outputs=[])),
    "a stack of matrices in Gemm": (
        "unsupported-op",
        model([node("Gemm", ["x", "W"], ["y"], transA=1)], {"W": floats(3, 5, 1)}, shape=(3, 4)),
    ),
    "no entry of an output": (
        "empty-model",
        model([node("Slice", ["x", "i", "i", "i"], ["y"])], {"i": integers(1)}),
    ),
    "no entry of an input": ("empty-model", model(RELU, shape=(0, 4))),
    "a value made twice": (
        "duplicate-name",
        model([*RELU, node("Abs", ["x"], ["y"])]),
    ),
    "a weight given twice": (
        "duplicate-name",
        changed(lambda made: made.graph.initializer.append(made.graph.initializer[0])),
    ),
    "an undefined operand": ("undefined-name", model([node("Add", ["x", "nope"], ["y"])])),
    "a cycle": (
        "graph-cycle",
        model([node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"]), *RELU]),
    ),
    "control characters in a name": (
        "invalid-name",
        model([helper.make_node("Relu", ["x"], ["y"], name="../\x00\n")]),
    ),
    "a very long name": (
        "invalid-name",
        model([helper.make_node("Relu", ["x"], ["y"], name="A" * 300)]),
    ),
    "an unknown attribute": (
        "invalid-attribute",
        model([node("Relu", ["x"], ["y"], colour=1)]),
    ),
    "stride 0": ("invalid-attribute", conv(strides=[0, 0])),
    "group 0": ("invalid-attribute", conv(group=0)),
    "a kernel shape that lies": ("invalid-attribute", conv(kernel_shape=[5, 5])),
    "enormous padding": ("expansion-too-large", conv(pads=[2**30] * 4)),
    "crossed limits": (
        "invalid-attribute",
        model(
            [node("Clip", ["x", "l", "u"], ["y"])],
            {"l": np.array(1, np.float32), "u": np.array(-1, np.float32)},
        ),
    ),
    "two unknown sizes": (
        "invalid-attribute",
        model([node("Reshape", ["x", "s"], ["y"])], {"s": integers(-1, -1)}),
    ),
    "an axis that does not exist": (
        "invalid-attribute",
        model([node("Concat", ["x", "x"], ["y"], axis=9)]),
    ),
    "an index out of range": (
        "invalid-attribute",
        model([node("Gather", ["x", "i"], ["y"], axis=1)], {"i": integers(99)}),
    ),
    "sizes that do not fit": ("shape-mismatch", model(TIMES, {"W": floats(5, 4)})),
    "a declared shape that lies": (
        "shape-mismatch",
        model(RELU, outputs=[info("y", (7, 7))]),
    ),
    "a declared type that lies": (
        "shape-mismatch",
        model(RELU, outputs=[info("y", (1, 4), TensorProto.INT64)]),
    ),
    "a constant that doubles 40 times": (
        "expansion-too-large",
        model(
            [
                *doubled(40),
                node("ReduceSum", ["k39"], ["r"], keepdims=0),
                node("Add", ["x", "r"], ["y"]),
            ],
            {"o": floats(4)},
        ),
    ),
    "a Tile of the input": (
        "expansion-too-large",
        model([node("Tile", ["x", "r"], ["y"])], {"r": integers(1 << 20, 1 << 14)}),
    ),
    "a Range of 2^36": (
        "expansion-too-large",
        model(
            [
                node("Range", ["a", "b", "d"], ["c"]),
                node("ReduceSum", ["c"], ["r"], keepdims=0),
                node("Add", ["x", "r"], ["y"]),
            ],
            {
                name: np.array(value, np.float32)
                for name, value in zip("abd", (0, 1e11, 1), strict=True)
            },
        ),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_read_is_refused_by_its_code(case: str) -> None:
    code, data = CASES[case]
    with pytest.raises(ModelRefused) as refusal:
        load(data)
    assert refusal.value.code == code
    assert refusal.value.fix


def test_a_file_beyond_the_cap_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prescan, "MAX_BYTES", 100)
    with pytest.raises(LipcertError) as refusal:
        load(GOOD)
    assert refusal.value.code == "file-too-large"


def test_the_node_of_a_refusal_is_named() -> None:
    data = model([helper.make_node("Tan", ["x"], ["y"], name="head")])
    with pytest.raises(ModelRefused) as refusal:
        load(data)
    assert refusal.value.node == "head"


@pytest.mark.parametrize("seed", range(200))
def test_damaged_bytes_are_refused_or_read_and_never_crash(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = bytearray(GOOD)
    for place in rng.integers(0, len(data), 3):
        data[place] = rng.integers(0, 256)
    with suppress(ModelRefused):
        load(bytes(data), differential=False)


MANY = [1] * 40


@pytest.mark.parametrize(
    "data",
    [
        model([node("Relu", ["x"], ["y"])], shape=MANY),
        model([node("Add", ["x", "c"], ["y"])], {"c": np.ones(MANY, np.float32)}),
        model([node("Reshape", ["x", "s"], ["y"])], {"s": integers(*MANY, 4)}),
        model(
            [node("ConstantOfShape", ["s"], ["t"]), node("Add", ["x", "t"], ["y"])],
            {"s": integers(*MANY, 4)},
        ),
        model([node("Unsqueeze", ["x", "a"], ["y"])], {"a": integers(*range(40))}),
    ],
    ids=["input", "weight", "reshape", "made", "unsqueeze"],
)
def test_more_axes_than_run_times_can_count_are_refused_by_both(data: bytes) -> None:
    for read in (load, read_network):
        with pytest.raises(LipcertError) as refusal:
            read(data)
        assert refusal.value.code in {"expansion-too-large", "invalid-attribute", "shape-mismatch"}


def test_calls_of_nothing_are_counted() -> None:
    """Each function calls the one before twice, and the first holds no node."""
    made = proto([helper.make_node("f29", ["x"], ["y"], domain="f")], domains=["f"])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    for place in range(30):
        body = [
            helper.make_node(f"f{place - 1}", [source], [result], domain="f")
            for source, result in (("a", "t"), ("t", "b"))
        ]
        nodes = body if place else []
        made.functions.append(helper.make_function("f", f"f{place}", ["a"], ["b"], nodes, opsets))
    with pytest.raises(ExpansionTooLarge):
        load(serialised(made))
