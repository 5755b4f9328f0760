"""Every operator with a rule, in many attributes, against onnxruntime."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.onnx_import.cases import Case, case
from tests.onnx_import.graphs import floats, info, integers, model, node, run
from tests.onnx_import.lengths_and_states import LATER
from verifier.network.nodes import Affine
from verifier.onnx_import import load
from verifier.onnx_import.convert import RULES
from verifier.onnx_import.moves import MOVES

Array = np.ndarray


IMAGE = (2, 4, 7, 6)
ONE = np.array(1.5, np.float32)

ACTIVATIONS = [
    case("Abs"),
    case("Celu", alpha=0.7),
    case("Clip", [np.array(-0.5, np.float32), np.array(1.0, np.float32)]),
    case("Clip", opset=10, min=-0.25, max=2.0),
    case("Clip", opset=10),
    case("Cos"),
    case("Elu", alpha=1.5),
    case("Erf"),
    case("Gelu", opset=20),
    case("Gelu", opset=20, approximate="tanh"),
    case("HardSigmoid"),
    case("HardSigmoid", alpha=0.3, beta=0.25),
    case("HardSwish"),
    case("LeakyRelu"),
    case("LeakyRelu", alpha=1.5),
    case("Mish", opset=18),
    case("PRelu", [floats(3, 1)]),
    case("Relu"),
    case("Selu"),
    case("Selu", alpha=1.0, gamma=2.0),
    case("Shrink", lambd=0.5, bias=0.5),
    case("Sigmoid"),
    case("Sin"),
    case("Softplus"),
    case("Softsign"),
    case("Tanh"),
    case("ThresholdedRelu", alpha=0.0),
    Case("Gelu", domain="com.microsoft"),
]
AFFINE = [
    case("Add", [floats(4)]),
    case("Add", [floats(5, 1, 3, 1)], flipped=True),
    case("Sub", [floats(3, 4)]),
    case("Sub", [floats(3, 1)], flipped=True),
    Case("Sub", inputs=("x", "x")),
    Case("Add", inputs=("x", "x")),
    Case("Sum", inputs=("x", "c", "x"), constants={"c": floats(4)}),
    Case("Mean", inputs=("x", "c", "x"), constants={"c": floats(4)}),
    case("Mul", [floats(3, 1)]),
    case("Mul", [floats(4)], flipped=True),
    case("Div", [floats(2, 1, 1) + 3]),
    case("Neg"),
    case("MatMul", [floats(4, 5)]),
    case("MatMul", [floats(4)]),
    case("MatMul", [floats(5, 3)], flipped=True),
    case("MatMul", [floats(3)], flipped=True),
    case("MatMul", [floats(2, 4, 5)]),
    case("MatMul", [floats(5, 2, 4, 5)]),
    case("MatMul", [floats(1, 1, 4, 5)]),
    case("MatMul", [floats(2, 5, 3)], flipped=True),
    case("MatMul", [floats(4, 5)], (4,)),
    case("MatMul", [floats(4)], (4,)),
    case("MatMul", [floats(5, 4)], (4,), flipped=True),
    case("Gemm", [floats(4, 5), floats(5)], (3, 4)),
    case("Gemm", [floats(5, 4), floats(3, 1)], (3, 4), transB=1, alpha=0.5, beta=2.0),
    case("Gemm", [floats(3, 5)], (3, 4), transA=1),
    case("Gemm", [floats(5, 3)], (3, 4), flipped=True),
    case("Gemm", [floats(4, 5)], (3, 4), flipped=True, transA=1, transB=1, alpha=-1.5),
    Case(
        "Gemm",
        (3, 4),
        {"beta": 0.5},
        {"w": floats(4, 4)},
        ("x", "w", "x"),
    ),
    case("BatchNormalization", [floats(4), floats(4), floats(4), np.abs(floats(4))], IMAGE),
    case(
        "BatchNormalization",
        [floats(4), floats(4), floats(4), np.abs(floats(4))],
        (3, 4),
        epsilon=0.25,
        opset=15,
    ),
    case("ReduceSum", [integers(1)]),
    case("ReduceSum", [integers(-1, 0)], keepdims=0),
    case("ReduceSum", axes=[1], opset=11),
    case("ReduceMean", axes=[0, 2]),
    case("ReduceMean", keepdims=0),
    case("ReduceMean", [integers(1)], opset=18),
    case("ReduceMean", opset=18, noop_with_empty_axes=1),
    case("GlobalAveragePool", (), IMAGE),
    Case(
        "Concat", attributes={"axis": 1}, inputs=("x", "c", "x"), constants={"c": floats(2, 2, 4)}
    ),
    Case("Concat", attributes={"axis": -1}, inputs=("x", "x")),
    case("Cast", to=1),
    Case(
        "Scaler", (2, 3), {"offset": [1.0, 2.0, 3.0], "scale": [0.5, 2.0, 1.0]}, domain="ai.onnx.ml"
    ),
    Case("Scaler", (2, 3), {"offset": [1.0], "scale": [0.5]}, domain="ai.onnx.ml"),
]
MOVED = [
    case("Identity"),
    case("Dropout"),
    case("Dropout", opset=11, ratio=0.3),
    case("Reshape", [integers(4, -1)]),
    case("Reshape", [integers(0, 2, -1, 1)]),
    case("Flatten"),
    case("Flatten", axis=-1),
    case("Flatten", axis=0),
    case("Squeeze", [integers(1)], (2, 1, 3)),
    case("Squeeze", (), (2, 1, 3)),
    case("Squeeze", (), (2, 1, 3), opset=11, axes=[-2]),
    case("Unsqueeze", [integers(0, -1)]),
    case("Unsqueeze", opset=11, axes=[1]),
    case("Transpose"),
    case("Transpose", perm=[2, 0, 1]),
    case("Slice", [integers(1), integers(1000), integers(-1), integers(2)]),
    case("Slice", [integers(-1, 5), integers(-100, 0), integers(2, 1), integers(-1, -2)]),
    case("Slice", opset=9, starts=[0, -2], ends=[1, 1000], axes=[0, 2]),
    case("Gather", [np.array([[0, -1], [2, 2]], np.int64)], axis=1),
    case("Gather", [np.array(1, np.int64)], axis=-1),
    case("Split", [integers(1, 3)], axis=-1),
    case("Split", (), (4, 6), axis=1),
    case("Split", (), (4, 7), opset=18, axis=1, num_outputs=2),
    case("Split", opset=11, axis=2, split=[3, 1]),
    case("Expand", [integers(5, 1, 3, 4)], (3, 1)),
    case("Expand", [integers(1)]),
    case("Tile", [integers(1, 2, 3)]),
    case("DepthToSpace", (), (1, 8, 2, 3), blocksize=2),
    case("DepthToSpace", (), (1, 8, 2, 3), blocksize=2, mode="CRD"),
    case("SpaceToDepth", (), (1, 3, 4, 6), blocksize=2),
    case("Pad", [integers(0, 1, 0, 2, 0, 1)]),
    case("Pad", [integers(0, 1, 0, 0, -1, 1), ONE]),
    case("Pad", [integers(0, 1, 1, 0, 1, 1)], mode="reflect"),
    case("Pad", [integers(0, 1, 1, 0, 1, 1)], mode="edge"),
    case("Pad", [integers(0, 1, 1, 0, 2, 1)], mode="wrap", opset=19),
    case("Pad", opset=10, pads=[0, 0, 1, 0, 0, 2], value=0.5),
    Case(
        "Pad",
        inputs=("x", "p", "", "a"),
        constants={"p": integers(1, 2), "a": integers(-1)},
        opset=18,
    ),
]
WINDOWS = [
    case("Conv", [floats(5, 4, 3, 3)], IMAGE),
    case("Conv", [floats(5, 4, 3, 2), floats(5)], IMAGE, pads=[1, 0, 2, 1], strides=[2, 1]),
    case("Conv", [floats(6, 2, 3, 3), floats(6)], IMAGE, group=2, dilations=[2, 1]),
    case("Conv", [floats(4, 1, 3, 3)], IMAGE, group=4, kernel_shape=[3, 3]),
    case("Conv", [floats(5, 4, 2, 4)], IMAGE, auto_pad="SAME_UPPER"),
    case("Conv", [floats(5, 4, 2, 4)], IMAGE, auto_pad="SAME_LOWER", strides=[2, 2]),
    case("Conv", [floats(5, 4, 2, 3)], IMAGE, auto_pad="VALID"),
    case("Conv", [floats(3, 4, 3), floats(3)], (2, 4, 9), pads=[2, 1], strides=[2]),
    case("Conv", [floats(3, 2, 2, 3, 1)], (1, 2, 4, 5, 3)),
    case("ConvTranspose", [floats(4, 3, 3, 2), floats(3)], IMAGE),
    case(
        "ConvTranspose",
        [floats(4, 2, 3, 3)],
        IMAGE,
        strides=[2, 3],
        pads=[1, 0, 1, 2],
        output_padding=[1, 2],
        group=2,
    ),
    case("ConvTranspose", [floats(4, 3, 3)], (2, 4, 5), strides=[2], dilations=[2]),
    case("AveragePool", (), IMAGE, kernel_shape=[2, 3]),
    case("AveragePool", (), IMAGE, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]),
    case("AveragePool", (), IMAGE, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
    case("AveragePool", (), IMAGE, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
    case(
        "AveragePool",
        (),
        IMAGE,
        kernel_shape=[3, 3],
        strides=[2, 2],
        pads=[1, 1, 1, 1],
        ceil_mode=1,
        count_include_pad=1,
        opset=19,
    ),
    case("AveragePool", (), (1, 2, 9), kernel_shape=[2], dilations=[3], opset=19),
    case("AveragePool", (), IMAGE, kernel_shape=[3, 2], auto_pad="SAME_UPPER", strides=[2, 2]),
    case("MaxPool", (), IMAGE, kernel_shape=[2, 2], strides=[2, 2]),
    case("MaxPool", (), IMAGE, kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    case("MaxPool", (), IMAGE, kernel_shape=[2, 2], dilations=[3, 2]),
    case("MaxPool", (), IMAGE, kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1),
    case("MaxPool", (), IMAGE, kernel_shape=[3, 2], strides=[2, 2], auto_pad="SAME_LOWER"),
    case("MaxPool", (), (2, 2, 9), kernel_shape=[4], strides=[3]),
    case("GlobalMaxPool", (), IMAGE),
]
EXTREMES = [
    case("Max", [floats(4)]),
    case("Min", [floats(3, 1), floats(2, 3, 4, seed=1)]),
    case("ReduceMax", axes=[1]),
    case("ReduceMax", [integers(0, 2)], opset=18, keepdims=0),
    case("ReduceMin", axes=[-1], keepdims=0),
    case("ReduceMin"),
    Case("TopK", (3, 5), inputs=("x", "k"), outputs=("y", "i"), constants={"k": integers(5)}),
    Case(
        "TopK",
        (2, 4, 3),
        {"axis": 1, "largest": 0},
        {"k": integers(4)},
        ("x", "k"),
        ("y", "i"),
    ),
    Case("TopK", (3, 5), {"axis": 1}, {"k": integers(2)}, ("x", "k"), ("y", "i")),
    Case("TopK", (3, 5), {"axis": 1, "k": 5}, outputs=("y", "i"), opset=9),
]
PRODUCTS = [
    case("Exp"),
    case("Log"),
    case("Reciprocal"),
    case("Sqrt"),
    *(case("Pow", [np.array(power, np.float32)]) for power in (1, 2, 3, -2, 0.5, -0.5)),
    Case("Mul", inputs=("x", "x")),
    Case("Div", inputs=("x", "x")),
    case("Div", [floats(4)], flipped=True),
    Case("MatMul", (4,), inputs=("x", "x")),
    Case("MatMul", (3, 3), inputs=("x", "x")),
    Case("MatMul", (2, 3, 3), inputs=("x", "x")),
    Case(
        "Gemm",
        (3, 2),
        {"transA": 1, "alpha": 0.5, "beta": 2.0},
        {"c": floats(2)},
        ("x", "x", "c"),
    ),
    Case("Gemm", (2, 2), {"transB": 1}, inputs=("x", "x", "x")),
]
BLOCKS = [
    case("Softmax"),
    case("Softmax", axis=1),
    case("Softmax", opset=12),
    case("Softmax", axis=2, opset=11),
    case("Softmax", axis=0, opset=7),
    case("LogSoftmax", axis=-2),
    case("LogSoftmax", opset=9),
    case("LayerNormalization", [floats(4), floats(4, seed=1)]),
    case("LayerNormalization", [floats(3, 4)], axis=1, epsilon=0.25),
    case("LayerNormalization", [floats(4), floats(4, seed=1)], axis=-1, stash_type=1),
    case("RMSNormalization", [floats(4)], opset=23),
    case("RMSNormalization", [floats(1)], opset=23, axis=-2, epsilon=0.1),
    case("InstanceNormalization", [floats(4), floats(4, seed=1)], IMAGE),
    case("InstanceNormalization", [floats(3), floats(3, seed=1)], epsilon=0.5, opset=22),
    case("GroupNormalization", [floats(2), floats(2, seed=1)], IMAGE, opset=18, num_groups=2),
    case("GroupNormalization", [floats(4), floats(4, seed=1)], IMAGE, opset=21, num_groups=2),
]
CASES = [*ACTIVATIONS, *AFFINE, *MOVED, *WINDOWS, *EXTREMES, *PRODUCTS, *BLOCKS, *LATER]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_network_computes_what_onnxruntime_computes(case: Case) -> None:
    x = floats(*case.shape, seed=7) * 2
    split = case.op == "Split"
    second = [*case.outputs, "z"] if split else case.outputs
    data = replace(case, outputs=second).data

    network = load(data).require_network()

    expected = run(data, x)
    found = network.forward(torch.from_numpy(x.astype(np.float64)).reshape(1, -1))
    np.testing.assert_allclose(found.numpy()[0], expected.reshape(-1), rtol=1e-4, atol=1e-5)


def test_every_rule_has_a_case() -> None:
    tested = {f"{case.domain}::{case.op}" if case.domain else case.op for case in CASES}
    # What leaves a ZipMap is no tensor: it is tested with the ends of graphs.
    missing = (RULES.keys() | MOVES.keys()) - tested - {"ai.onnx.ml::ZipMap"}
    assert not missing


@pytest.mark.parametrize(("dtype", "number"), [("float16", 10), ("float32", 1), ("float64", 11)])
def test_every_float_type_is_read(dtype: str, number: int) -> None:
    from onnx import helper

    values = [helper.make_tensor_value_info(name, number, [1, 4]) for name in "xy"]
    data = model(
        [node("MatMul", ["x", "W"], ["y"])],
        {"W": floats(4, 4).astype(dtype)},
        inputs=values[:1],
        outputs=values[1:],
    )
    assert load(data).dtype == dtype


@pytest.mark.parametrize("op", ["Conv", "LSTM"])
def test_float64_is_tested_where_onnxruntime_has_no_kernel(op: str) -> None:
    """It says so of Conv when the file is loaded, and of LSTM when it is run."""
    weights = {"Conv": [(2, 2, 1)], "LSTM": [(1, 4, 2), (1, 4, 1)]}[op]
    attributes = {"hidden_size": 1} if op == "LSTM" else {}
    constants = {f"w{k}": floats(*form).astype(np.float64) for k, form in enumerate(weights)}
    ends = {"inputs": [info("x", (1, 2, 2), 11)], "outputs": [info("y", None, 11)]}
    data = model([node(op, ["x", *constants], ["y"], **attributes)], constants, **ends)
    assert load(data).require_network().output_size == {"Conv": 4, "LSTM": 2}[op]


def test_a_symbolic_batch_is_left_out_and_a_fixed_one_belongs_to_the_input() -> None:
    nodes = [node("Relu", ["x"], ["y"])]
    open_batch = load(model(nodes, shape=("N", 4)))
    fixed = load(model(nodes, shape=(3, 4)))
    assert (open_batch.inputs[0].shape, open_batch.require_network().input_size) == ((4,), 4)
    assert (fixed.inputs[0].shape, fixed.require_network().input_size) == ((3, 4), 12)


def test_nodes_are_named_by_the_tensors_that_leave_them() -> None:
    data = model(
        [node("MatMul", ["x", "W"], ["h"]), node("Relu", ["h"], ["r"]), node("Neg", ["r"], ["y"])],
        {"W": floats(4, 4)},
    )
    network = load(data).require_network()
    assert [node.name for node in network.nodes] == ["h", "r", "y"]
    assert network.nodes[0].sources == ("",)


def test_an_output_that_ignores_the_input_is_a_constant_node() -> None:
    data = model([node("Identity", ["W"], ["y"])], {"W": floats(1, 4)})
    network = load(data).require_network()
    (constant,) = network.nodes
    assert isinstance(constant, Affine)
    assert constant.terms == ()


def test_a_model_without_nodes_is_the_identity() -> None:
    network = load(model([], outputs=[info("x", (1, 4))])).require_network()
    assert (network.nodes, network.output) == ((), "")


def test_dead_branches_are_ignored() -> None:
    nodes = [node("Tan", ["x"], ["unused"]), node("Relu", ["x"], ["y"])]
    data = model(nodes)
    assert len(load(data).require_network().nodes) == 1


def test_unsorted_nodes_are_sorted() -> None:
    nodes = [node("Relu", ["a"], ["y"]), node("Abs", ["x"], ["a"])]
    assert [made.name for made in load(model(nodes)).require_network().nodes] == ["a", "y"]


def test_shape_arithmetic_is_folded_away() -> None:
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["n"], axis=0),
        node("Unsqueeze", ["n", "axes"], ["u"]),
        node("Concat", ["u", "rest"], ["t"], axis=0),
        node("Reshape", ["x", "t"], ["y"]),
    ]
    constants = {
        "zero": np.array(0, np.int64),
        "axes": integers(0),
        "rest": integers(-1, 2),
    }
    model_read = load(model(nodes, constants, shape=("N", 6)))
    assert len(model_read.require_network().nodes) == 1


@pytest.mark.parametrize(
    ("op", "code"),
    [
        ("Sign", "discontinuous-op"),
        ("Floor", "discontinuous-op"),
        ("Hardmax", "discontinuous-op"),
    ],
)
def test_what_has_no_constant_blocks_the_model_and_names_the_node(op: str, code: str) -> None:
    model_read = load(model([node(op, ["x"], ["h"]), node("Relu", ["h"], ["y"])]))
    assert model_read.network is None
    assert model_read.blocked is not None
    assert (model_read.blocked.code, model_read.blocked.node) == (code, "h")
    assert f"'node': 'h', 'code': '{code}'" in str(model_read.summary()["methods"])
    for method in model_read.capabilities().values():
        for told in method.values():
            assert (told["available"], told["code"], told["node"]) == (False, code, "h")


@pytest.mark.parametrize("op", ["Exp", "Log", "Reciprocal", "Sqrt"])
def test_what_has_no_global_constant_is_read_and_names_the_node(op: str) -> None:
    read = load(model([node(op, ["x"], ["h"]), node("Relu", ["h"], ["y"])]))
    assert read.network is not None
    assert read.unbounded is not None
    assert (read.unbounded.code, read.unbounded.node) == ("not-lipschitz-globally", "h")
    methods = read.summary()["methods"]
    assert isinstance(methods, dict)
    assert [methods[name]["applies"] for name in ("product", "lipsdp", "propagation")] == [
        False,
        True,
        True,
    ]
    assert methods["product"]["node"] == methods["lipsdp"]["node"] == "h"
    for method, scopes in read.capabilities().items():
        assert scopes["local"]["available"] == (method != "product")
        assert not scopes["global"]["available"]
        if method != "propagation":  # which bounds nothing globally, whatever the network
            assert scopes["global"]["code"] == "not-lipschitz-globally"
            assert scopes["global"]["node"] == "h"
