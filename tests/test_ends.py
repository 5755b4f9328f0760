"""Several inputs and outputs, bindings and frozen weights: one function, read twice, certified.

Importer and checker are compared with onnxruntime on the flat vectors, and with each other through
certificates: a claim is about what its own members say, and nothing else.
"""

from __future__ import annotations

from dataclasses import replace
from math import sqrt
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper

from tests.checker.evaluation import Runtime
from tests.onnx_import.graphs import floats, info, model, node, proto, serialised
from verifier.certificate import Assumption, Certificate
from verifier.checker import check
from verifier.checker.graph import read_network
from verifier.errors import (
    DiscontinuousOp,
    DtypeUnsupported,
    DynamicShape,
    InvalidRequest,
    LipcertError,
    OverridableInitializer,
    ShapeMismatch,
)
from verifier.onnx_import import load
from verifier.property import Bind, Indices, Names, Reading
from verifier.request_json import parse_request, property_json
from verifier.verify import inspect, verify

TWICE = np.diag([2.0, 3.0]).astype(np.float32)
#: y = relu(2 x_1, 3 x_2) + z, s = sign(x), w = 4 z
SEVERAL = model(
    [
        node("MatMul", ["x", "W"], ["a"]),
        node("Relu", ["a"], ["r"]),
        node("Add", ["r", "z"], ["y"]),
        node("Sign", ["x"], ["s"]),
        node("Mul", ["z", "f"], ["w"]),
    ],
    {"W": TWICE, "f": np.array(4.0, np.float32)},
    inputs=[info("x", ("N", 2)), info("z", ("N", 2))],
    outputs=[info("y", ("N", 2)), info("s", ("N", 2)), info("w", ("N", 2))],
)
SMOOTH = model(
    [
        node("Concat", ["x", "z"], ["c"], axis=1),
        node("Tanh", ["c"], ["y"]),
        node("Neg", ["z"], ["w"]),
    ],
    inputs=[info("x", (1, 2)), info("z", (1, 3))],
    outputs=[info("y", None), info("w", (1, 3))],
)


def bound_of(data: bytes, asked: dict[str, Any], **more: Any) -> float:  # noqa: ANN401 (JSON)
    """The bound of a certificate that the checker accepts."""
    found = certificate(data, asked, **more)
    assert found.claim.bound is not None
    return found.claim.bound


def certificate(data: bytes, asked: dict[str, Any], **more: Any) -> Certificate:  # noqa: ANN401
    """A checked certificate of the product method."""
    request = {"property": asked, "method": "product", "budget": {"seconds": 2}, **more}
    found = verify(data, parse_request(request))
    assert check(found, data).valid
    return found


def test_both_readers_compute_the_flat_function_of_all_ends() -> None:
    runtime = Runtime(SMOOTH)
    assert runtime.distance(read_network(SMOOTH), np.random.default_rng(0), points=5) < 1e-6
    x = np.linspace(-1.0, 1.0, 5)
    found = load(SMOOTH).require_network().forward(torch.from_numpy(x[None]))
    np.testing.assert_allclose(found[0].numpy(), runtime(x.astype(np.float32)), atol=1e-6)


def test_a_selection_needs_only_its_own_part_of_the_file() -> None:
    with pytest.raises(DiscontinuousOp, match="'s'"):
        load(SEVERAL).require_network()
    assert bound_of(SEVERAL, {"outputs": {"names": ["y"]}}) == pytest.approx(sqrt(10))
    assert bound_of(SEVERAL, {"outputs": {"names": ["w", "y"]}}) == pytest.approx(sqrt(17), rel=0.1)
    assert bound_of(SEVERAL, {"outputs": {"indices": [4]}}) == pytest.approx(4)
    only = {"outputs": {"names": ["y"]}, "inputs": {"indices": [2, 3]}}
    assert bound_of(SEVERAL, only) == pytest.approx(1)
    with pytest.raises(DiscontinuousOp):
        verify(SEVERAL, parse_request({"property": {"outputs": {"indices": [0, 2]}}}))


def test_inspect_shows_every_end_and_its_place() -> None:
    summary: dict[str, Any] = inspect(SEVERAL)
    assert [(end["name"], end["range"]) for end in summary["inputs"]] == [
        ("x", [0, 2]),
        ("z", [2, 4]),
    ]
    blocked = [(end["name"], end["range"], end["blocked"] is None) for end in summary["outputs"]]
    assert blocked == [("y", [0, 2], True), ("s", [2, 4], False), ("w", [4, 6], True)]
    assert summary["input"]["size"] == 4


def test_an_input_that_is_bound_is_a_constant() -> None:
    data = model(
        [node("Mul", ["x", "z"], ["y"])],
        inputs=[info("x", (1, 2)), info("z", (1, 2))],
        outputs=[info("y", (1, 2))],
    )
    asked = {"bind": {"values": {"z": [0.1, -5.0]}}}
    found = certificate(data, asked)
    assert found.claim.bound == pytest.approx(5)
    # The claim is about the bound values: with others the proof proves another number.
    other = replace(found.claim.property, bind=Bind(values=(("z", (0.1, 6.0)),)))
    forged = replace(found, claim=replace(found.claim, property=other))
    assert check(forged, data).code == "bound-not-proved"
    # 0.1 is the float32 number of that name, as it is to whoever runs the file.
    first = {**asked, "inputs": {"indices": [0]}}
    assert float(np.float32(0.1)) <= bound_of(data, first) < 0.1000001
    assert property_json(found.claim.property)["bind"] == {
        "shapes": {},
        "values": {"z": [0.1, -5.0]},
    }


def test_an_integer_input_can_be_bound_and_nothing_else() -> None:
    data = model(
        [node("Gather", ["x", "i"], ["y"], axis=1)],
        inputs=[info("x", (1, 3)), info("i", (2,), TensorProto.INT64)],
    )
    with pytest.raises(DtypeUnsupported, match="'i'"):
        load(data)
    assert bound_of(data, {"bind": {"values": {"i": [2, 2]}}}) == pytest.approx(sqrt(2))
    with pytest.raises(InvalidRequest, match="cannot hold"):
        load(data, Reading(bind=Bind(values=(("i", (0.5, 1.0)),))))


def test_symbolic_dimensions_are_bound_by_name() -> None:
    data = model([node("ReduceSum", ["x"], ["y"], keepdims=0)], shape=("N", "C"))
    with pytest.raises(DynamicShape, match="symbolic"):
        load(data)
    assert bound_of(data, {"bind": {"shapes": {"C": 9}}}) == pytest.approx(3)
    assert bound_of(data, {"bind": {"shapes": {"C": 2, "N": 8}}}) == pytest.approx(4)


@pytest.mark.parametrize(
    "reading",
    [
        Reading(bind=Bind(shapes=(("K", 2),))),
        Reading(bind=Bind(values=(("q", (1.0,)),))),
        Reading(bind=Bind(values=(("x", (1.0,)),))),
        Reading(bind=Bind(values=(("x", (1.0, 2.0)), ("z", (1.0, 1.0, 1.0))))),
        Reading(outputs=Names(("q",))),
    ],
)
def test_a_reading_that_does_not_fit_the_file_is_refused(reading: Reading) -> None:
    with pytest.raises(InvalidRequest):
        load(SMOOTH, reading)
    if not reading.bind.shapes:  # a symbol that nothing has changes nothing
        with pytest.raises(LipcertError):
            read_network(SMOOTH, reading=reading)


def overridable(ir: int) -> bytes:
    made = proto(
        [node("MatMul", ["x", "W"], ["y"])],
        {"W": TWICE},
        inputs=[info("x", (1, 2)), info("W", (2, 2))],
        ir=ir,
    )
    return serialised(made)


def test_weights_that_may_be_replaced_are_frozen_on_request_only() -> None:
    data = overridable(8)
    with pytest.raises(OverridableInitializer, match="'W'"):
        load(data)
    found = certificate(data, {}, options={"freeze_initializers": True})
    assert found.claim.bound == pytest.approx(3)
    assert found.claim.assumptions == (Assumption.of_weight("W", TWICE.astype(np.float64)),)
    silent = replace(found, claim=replace(found.claim, assumptions=()))
    assert check(silent, data).code == "overridable-initializer"
    other = Assumption.of_weight("W", np.eye(2))
    forged = replace(found, claim=replace(found.claim, assumptions=(other,)))
    assert check(forged, data).code == "assumptions-mismatch"
    # Bound by value it is an input that is held constant.
    assert bound_of(data, {"bind": {"values": {"W": [1, 0, 0, 1]}}}) == pytest.approx(1)


def test_in_ir_3_weights_are_listed_as_inputs_and_are_constants() -> None:
    data = overridable(3)
    assert certificate(data, {}).claim.assumptions == ()
    with pytest.raises(InvalidRequest, match="bind"):
        load(data, Reading(bind=Bind(values=(("W", (1.0, 0.0, 0.0, 1.0)),))))


def test_bfloat16_weights_are_read_exactly() -> None:
    weight = floats(4, 4)
    bits = weight.view(np.uint32) >> 16
    tensor = helper.make_tensor(
        "W", TensorProto.BFLOAT16, (4, 4), bits.astype("<u2").tobytes(), True
    )
    made = proto(
        [node("MatMul", ["x", "W"], ["y"])], inputs=[info("x", (1, 4), TensorProto.BFLOAT16)]
    )
    made.graph.output[0].type.tensor_type.elem_type = TensorProto.BFLOAT16
    made.graph.initializer.append(tensor)
    data = serialised(made)
    exact = (bits << 16).view(np.float32).astype(np.float64)
    for network in (load(data).require_network(),):
        np.testing.assert_array_equal(network.forward(torch.eye(4, dtype=torch.float64)), exact)
    assert bound_of(data, {}) == pytest.approx(np.linalg.norm(exact, 2))


def test_scikit_learns_probabilities_are_certified_without_its_labels() -> None:
    scaler = helper.make_node(
        "Scaler", ["x"], ["t"], domain="ai.onnx.ml", offset=[1.0, 2.0], scale=[3.0, 0.5]
    )
    zipped = helper.make_node(
        "ZipMap", ["p"], ["probabilities"], domain="ai.onnx.ml", classlabels_int64s=[0, 1]
    )
    label = node("ArgMax", ["p"], ["label"], axis=1)
    made = proto(
        [scaler, node("Cast", ["t"], ["p"], to=TensorProto.FLOAT), label, zipped],
        inputs=[info("x", (1, 2))],
        outputs=[info("label", None, TensorProto.INT64)],
        domains=["ai.onnx.ml"],
    )
    mapping = helper.make_map_type_proto(
        TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, ())
    )
    kind = helper.make_sequence_type_proto(mapping)
    made.graph.output.append(helper.make_value_info("probabilities", kind))
    data = serialised(made)
    assert bound_of(data, {"outputs": {"names": ["probabilities"]}}) == pytest.approx(3)
    with pytest.raises(DiscontinuousOp, match="ArgMax"):
        verify(data, parse_request({}))


def test_indices_choose_outputs_as_names_do() -> None:
    sizes = {"a": 2, "b": 3, "c": None}
    assert Reading(outputs=Names(("c",))).chosen(sizes) == {"c"}
    assert Reading(outputs=Indices((1,))).chosen(sizes) == {"a", "b", "c"}  # c may be anything
    assert Reading(outputs=Indices((1,))).chosen({"a": 2, "b": 3}) == {"a"}
    assert Reading(outputs=Indices((0, 4))).chosen({"a": 2, "b": 3}) == {"a", "b"}


def test_a_symbol_that_leads_no_input_may_be_any_number() -> None:
    """Index 1 is the second entry of `a`, which has five of them."""
    data = model(
        [
            node("Reshape", ["x", "form"], ["r"]),
            node("Mul", ["r", "hundred"], ["a"]),
            node("Identity", ["x"], ["y"]),
        ],
        {"form": np.array([5, 1]), "hundred": np.array(100.0, np.float32)},
        inputs=[info("x", ("N", 5))],
        outputs=[info("a", ("M", 1)), info("y", ("N", 5))],
    )
    assert bound_of(data, {"outputs": {"indices": [1]}}) == pytest.approx(100)


def test_a_symbol_that_leads_an_input_is_one() -> None:
    """So index 1 is the first entry of `y`, and what jumps in front of it is not looked at."""
    data = model(
        [
            node("ReduceSum", ["x"], ["s"]),
            node("Sign", ["s"], ["a"]),
            node("Identity", ["x"], ["y"]),
        ],
        inputs=[info("x", ("N", 5))],
        outputs=[info("a", ("N", 1)), info("y", ("N", 5))],
    )
    assert bound_of(data, {"outputs": {"indices": [1]}}) == pytest.approx(1)


@pytest.mark.parametrize("op", ["Relu", "Sign"])
def test_indices_are_not_counted_by_a_false_shape(op: str) -> None:
    """`a` has one entry, whatever is declared: index 1 is the first of `y`, and 2 the second."""

    def made(columns: int) -> bytes:
        return model(
            [
                node("ReduceSum", ["x"], ["s"]),
                node(op, ["s"], ["a"]),
                node("Mul", ["x", "d"], ["y"]),
            ],
            {"d": np.array([1.0, 100.0, 1.0], np.float32)},
            inputs=[info("x", ("N", 3))],
            outputs=[info("a", ("N", columns)), info("y", ("N", 3))],
        )

    asked = Reading(outputs=Indices((2,)))
    assert bound_of(made(1), {"outputs": {"indices": [2]}}) == pytest.approx(100)
    for reader in (load, read_network):
        with pytest.raises(ShapeMismatch, match="'a'"):
            reader(made(2), reading=asked)
    assert bound_of(made(2), {"outputs": {"names": ["y"]}}) == pytest.approx(100)


def test_indices_are_not_counted_by_a_symbol_that_is_another_number() -> None:
    """N is 1, as it leads the input; `a` has five rows, so that index 1 is one of them."""
    data = model(
        [
            node("Reshape", ["x", "form"], ["r"]),
            node("Mul", ["r", "hundred"], ["a"]),
            node("Identity", ["x"], ["y"]),
        ],
        {"form": np.array([5, 1]), "hundred": np.array(100.0, np.float32)},
        inputs=[info("x", ("N", 5))],
        outputs=[info("a", ("N", 1)), info("y", ("N", 5))],
    )
    three = model(
        [
            node("Reshape", ["x", "form"], ["a"]),
            node("Neg", ["x"], ["b"]),
            node("Identity", ["x"], ["y"]),
        ],
        {"form": np.array([5, 1])},
        inputs=[info("x", ("N", 5))],
        outputs=[info("a", ("N", 1)), info("b", ("N", 5)), info("y", ("N", 5))],
    )
    for reader in (load, read_network):
        with pytest.raises(ShapeMismatch, match="'a'"):
            reader(data, reading=Reading(outputs=Indices((1,))))
        # Where `a` is read too: index 6 is said to be of `y`, and is of `b`.
        with pytest.raises(ShapeMismatch, match="'a'"):
            reader(three, reading=Reading(outputs=Indices((0, 6))))


def test_indices_behind_what_cannot_be_read_are_refused() -> None:
    data = model(
        [node("Tan", ["x"], ["a"]), node("Neg", ["x"], ["y"])],
        inputs=[info("x", (1, 3))],
        outputs=[info("a", (1, 3)), info("y", (1, 3))],
    )
    with pytest.raises(DynamicShape, match="not known"):
        load(data, Reading(outputs=Indices((3,))))
    with pytest.raises(LipcertError):
        read_network(data, reading=Reading(outputs=Indices((3,))))
    assert bound_of(data, {"outputs": {"names": ["y"]}}) == pytest.approx(1)
