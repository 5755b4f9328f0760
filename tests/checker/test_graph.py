"""The network that the checker reads, against onnxruntime; and what it does not read."""

# ruff: noqa: E501  (a case a line)

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.checker.evaluation import Runtime, evaluate
from tests.checker.shared import models, needs_shared
from verifier.checker.graph import read_network
from verifier.checker.network import Affine, Elementwise, Maximum
from verifier.errors import (
    CapabilityBlocked,
    DiscontinuousOp,
    DynamicShape,
    ExpansionTooLarge,
    InvalidAttribute,
    LipcertError,
    NonFiniteWeights,
    NotCheckable,
    ShapeMismatch,
    TrainingModeOp,
)

Attribute = int | float | str | list[int]


class Maker:
    """Builds small models whose output is `y`."""

    def __init__(self, shape: list[int | str], opset: int = 20) -> None:
        self.shape, self.opset = shape, opset
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}

    def node(self, op: str, inputs: str, outputs: str = "y", **attributes: Attribute) -> "Maker":
        """One more node; names are separated by commas."""
        made = helper.make_node(op, inputs.split(","), outputs.split(","))
        made.attribute.extend(helper.make_attribute(key, attributes[key]) for key in attributes)
        self.nodes.append(made)
        return self

    def weight(self, name: str, value: np.ndarray | list[int] | list[float] | float) -> "Maker":
        """One more initialiser: int64 for integers, else float32."""
        array = np.asarray(value)
        self.weights[name] = array.astype(np.int64 if array.dtype.kind == "i" else np.float32)
        return self

    def bytes(self) -> bytes:
        """The file."""
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(value, name) for name, value in self.weights.items()],
        )
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def _normal(*shape: int) -> np.ndarray:
    return _rng(sum(shape)).normal(size=shape)


IMAGE: list[int | str] = [1, 4, 6, 7]
MAKERS = {
    "add_broadcast": Maker([1, 3, 4]).node("Add", "x,c").weight("c", _normal(2, 1, 4)),
    "average_pool": Maker(IMAGE).node("AveragePool", "x", kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1]),
    "average_pool_ceil": Maker(IMAGE).node("AveragePool", "x", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
    "average_pool_pads": Maker(IMAGE).node("AveragePool", "x", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
    "batch_norm": Maker(IMAGE).node("BatchNormalization", "x,s,b,m,v").weight("s", _normal(4)).weight("b", _normal(4)).weight("m", _normal(4)).weight("v", np.abs(_normal(4)) + 0.1),
    "clip_opset_10": Maker([1, 5], 10).node("Clip", "x", min=-0.5, max=0.25),
    "clip_upper_only": Maker([1, 5]).node("Clip", "x,,h").weight("h", 0.25),
    "concat_constant": Maker([1, 3]).node("Concat", "x,c,x", axis=1).weight("c", _normal(1, 2)),
    "conv_1d": Maker([1, 2, 9]).node("Conv", "x,w,b", strides=[2], pads=[2, 1]).weight("w", _normal(3, 2, 4)).weight("b", _normal(3)),
    "conv_3d": Maker([1, 2, 4, 5, 3]).node("Conv", "x,w", pads=[1, 0, 0, 0, 1, 0]).weight("w", _normal(2, 2, 2, 3, 1)),
    "conv_groups": Maker(IMAGE).node("Conv", "x,w", group=2, dilations=[2, 1], pads=[1, 2, 0, 1]).weight("w", _normal(6, 2, 2, 3)),
    "conv_same_lower": Maker(IMAGE).node("Conv", "x,w", auto_pad="SAME_LOWER", strides=[2, 2]).weight("w", _normal(3, 4, 2, 4)),
    "conv_same_upper": Maker(IMAGE).node("Conv", "x,w", auto_pad="SAME_UPPER", strides=[2, 3]).weight("w", _normal(3, 4, 3, 2)),
    "conv_transpose": Maker(IMAGE).node("ConvTranspose", "x,w,b", strides=[2, 3], pads=[1, 0, 0, 1], output_padding=[1, 0]).weight("w", _normal(4, 3, 3, 2)).weight("b", _normal(3)),
    "conv_transpose_groups": Maker(IMAGE).node("ConvTranspose", "x,w", group=2, dilations=[2, 1]).weight("w", _normal(4, 3, 2, 3)),
    "conv_valid": Maker(IMAGE).node("Conv", "x,w", auto_pad="VALID").weight("w", _normal(3, 4, 3, 2)),
    "depth_to_space": Maker([1, 8, 2, 3]).node("DepthToSpace", "x", blocksize=2, mode="CRD"),
    "depth_to_space_dcr": Maker([1, 8, 2, 3]).node("DepthToSpace", "x", blocksize=2),
    "expand": Maker([1, 3]).node("Expand", "x,s").weight("s", [2, 4, 3]),
    "gather": Maker([1, 5, 2]).node("Gather", "x,i", axis=1).weight("i", np.array([[-1, 0], [2, 2]])),
    "gemm": Maker([3, 4]).node("Gemm", "x,w,c", alpha=0.3, beta=2.0, transA=1, transB=1).weight("w", _normal(5, 3)).weight("c", _normal(4, 1)),
    "gemm_constant_first": Maker([3, 4]).node("Gemm", "w,x", transB=1).weight("w", _normal(5, 4)),
    "gemm_signal_added": Maker([3, 4]).node("Gemm", "x,w,x").weight("w", _normal(4, 4)),
    "global_average_pool": Maker(IMAGE).node("GlobalAveragePool", "x"),
    "leaky_default": Maker([1, 5]).node("LeakyRelu", "x"),
    "matmul_3d": Maker([2, 3, 4]).node("MatMul", "x,w").weight("w", _normal(4, 5)),
    "matmul_leading_ones": Maker([3, 4]).node("MatMul", "x,w").weight("w", _normal(1, 1, 4, 5)),
    "matmul_left": Maker([2, 3, 4]).node("MatMul", "w,x").weight("w", _normal(5, 3)),
    "matmul_vector": Maker([2, 3, 4]).node("MatMul", "x,w").weight("w", _normal(4)),
    "max_constant": Maker([2, 3]).node("Max", "x,c").weight("c", _normal(3)),
    "max_of_five": Maker([1, 10]).node("Split", "x", "a,b,c,d,e", axis=1, num_outputs=5).node("Max", "a,b,c,d,e"),
    "max_pool": Maker(IMAGE).node("MaxPool", "x", kernel_shape=[3, 2], strides=[2, 2], pads=[1, 1, 1, 0], dilations=[2, 1]),
    "mean_axes_attribute": Maker([2, 3, 4], 13).node("ReduceMean", "x", axes=[0, -1], keepdims=0),
    "min_broadcast": Maker([2, 3]).node("Slice", "x,s,e", "a").node("Min", "a,x").weight("s", [0]).weight("e", [1]),
    "mish": Maker([1, 5]).node("Mish", "x"),
    "pad_constant": Maker([1, 3]).node("Pad", "x,p,v").weight("p", [0, 2, 1, -1]).weight("v", 1.5),
    "pad_edge": Maker(IMAGE).node("Pad", "x,p", mode="edge").weight("p", [0, 0, 9, 1, 0, 0, 0, 2]),
    "pad_reflect": Maker(IMAGE).node("Pad", "x,p", mode="reflect").weight("p", [0, 0, 5, 1, 0, 0, 2, 6]),
    "pad_wrap": Maker(IMAGE).node("Pad", "x,p", mode="wrap").weight("p", [0, 0, 2, 1, 0, 0, 0, 2]),
    "prelu": Maker([1, 3, 2]).node("PRelu", "x,s").weight("s", _normal(3, 1)),
    "reduce_max": Maker([2, 3, 4]).node("ReduceMax", "x,a", keepdims=0).weight("a", [2, 0]),
    "reduce_sum_all": Maker([2, 3]).node("ReduceSum", "x"),
    "reshape_zero": Maker([2, 3, 4]).node("Reshape", "x,s").weight("s", [0, -1]),
    "shrink": Maker([1, 6]).node("Shrink", "x", bias=0.5, lambd=0.5),
    "slice_backwards": Maker([2, 7]).node("Slice", "x,s,e,a,t").weight("s", [-1, 9]).weight("e", [-9, 1]).weight("a", [0, 1]).weight("t", [-1, -2]),
    "slice_opset_9": Maker([2, 7], 9).node("Slice", "x", axes=[1], starts=[2], ends=[100]),
    "space_to_depth": Maker([1, 2, 4, 6]).node("SpaceToDepth", "x", blocksize=2),
    "split_uneven": Maker([1, 7]).node("Split", "x", "a,b,y", axis=1, num_outputs=3),
    "squeeze_attribute": Maker([1, 3, 1, 2], 12).node("Squeeze", "x", axes=[0, -2]),
    "sub_from_constant": Maker([2, 3]).node("Sub", "c,x").weight("c", _normal(3)),
    "sum_of_three": Maker([2, 3]).node("Sum", "x,x,c").weight("c", _normal(2, 3)),
    "swish_by_hand": Maker([1, 5]).node("Mul", "x,k", "a").node("Sigmoid", "a", "b").node("Mul", "b,x").weight("k", 1.702),
    "tile": Maker([1, 3]).node("Tile", "x,r").weight("r", [2, 2]),
    "transpose": Maker([2, 3, 4]).node("Transpose", "x", perm=[2, 0, 1]),
    "unsqueeze": Maker([2, 3]).node("Unsqueeze", "x,a").weight("a", [0, -1]),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_operators_compute_what_onnxruntime_computes(name: str) -> None:
    data = MAKERS[name].bytes()
    assert Runtime(data).distance(read_network(data), _rng(), points=5) < 2e-6


#: What the checker says of the shared models that it does not read.
KNOWN = {"unsupported-dtype", "invalid-attribute"} | {
    "expansion-too-large", "ir-or-opset-unsupported", "training-mode-op", "shape-mismatch",
}  # fmt: skip


@needs_shared
@pytest.mark.parametrize("path", models(), ids=lambda path: path.stem)
def test_shared_models_compute_what_onnxruntime_computes(path: Path) -> None:
    data = path.read_bytes()
    try:
        network = read_network(data)
    except CapabilityBlocked:
        return
    except LipcertError as error:
        if error.code in KNOWN:
            return
        raise
    if path.stem == "bf16.dynamo":
        return  # ONNX Runtime has no kernels for it; the importer's test has onnx's own evaluator
    runtime = Runtime(data)
    tolerance = 3e-3 if runtime.kind is np.float16 else 5e-5
    points = 1 if network.input_size > 10_000 else 3
    assert runtime.distance(network, _rng(), points) < tolerance


def test_nodes_are_named_by_the_tensor_that_leaves_them() -> None:
    network = read_network(MAKERS["max_of_five"].bytes())
    gates = [node.name for node in network.nodes if isinstance(node, Elementwise)]
    assert gates == ["y#0", "y#1", "y#2", "y#3"]
    assert network.output == "y"


def test_what_the_output_does_not_need_is_ignored() -> None:
    maker = Maker([1, 4]).node("Sign", "x", "unused").node("Relu", "x")
    assert [node.name for node in read_network(maker.bytes()).nodes] == ["y"]


def test_a_symbolic_batch_is_one() -> None:
    assert read_network(Maker(["N", 3]).node("Relu", "x").bytes()).input_size == 3


def test_an_identity_has_no_node() -> None:
    network = read_network(Maker([1, 4]).node("Identity", "x").bytes())
    assert (network.nodes, network.output) == ((), "")
    np.testing.assert_array_equal(evaluate(network, np.arange(4.0)), np.arange(4.0))


def test_a_constant_output_is_an_affine_node_without_terms() -> None:
    network = read_network(Maker([1, 4]).node("Neg", "c").weight("c", [1.0, 2.0]).bytes())
    (node,) = network.nodes
    assert isinstance(node, Affine)
    assert (node.terms, node.bias.tolist()) == ((), [-1.0, -2.0])


def test_folded_scales_carry_their_error() -> None:
    """gamma / sqrt(var + eps) is rounded: E covers it, and is small."""
    (node,) = read_network(MAKERS["batch_norm"].bytes()).nodes
    assert isinstance(node, Affine)
    slack = node.terms[0].map.slack(np.ones((1, node.size)))
    size = node.terms[0].map.magnitudes(np.ones((1, node.size)))
    assert np.all(slack > 0)
    assert np.all(slack <= 1e-14 * size)
    assert np.all(node.bias_error > 0)


def test_dilated_max_pool_overlaps() -> None:
    """k = s = d = 3: windows share entries, so that ceil(k / s) = 1 would be false."""
    maker = Maker([1, 1, 20]).node("MaxPool", "x", kernel_shape=[3], strides=[3], dilations=[3])
    (node,) = read_network(maker.bytes()).nodes
    assert isinstance(node, Maximum)
    assert node.overlap == 3


@pytest.mark.parametrize(
    ("maker", "error"),
    [
        (Maker([1, 4]).node("Sign", "x"), DiscontinuousOp),
        (Maker([1, 4]).node("Shrink", "x", lambd=0.5, bias=0.0), DiscontinuousOp),
        (Maker([1, 4]).node("Cast", "x", to=7), DiscontinuousOp),
        (Maker([1, 4]).node("Pow", "x,p").weight("p", 0.0), NotCheckable),
        (Maker([1, 4]).node("Frobnicate", "x"), NotCheckable),
        (Maker(["N", "M"]).node("Relu", "x"), DynamicShape),
        (Maker([1, 4]).node("Relu", "x", alpha=1.0), InvalidAttribute),
        (Maker([1, 4]).node("Celu", "x", alpha=-1.0), InvalidAttribute),
        (Maker([1, 4]).node("HardSigmoid", "x", alpha=0.0), InvalidAttribute),
        (Maker([1, 4]).node("Clip", "x,h,l").weight("h", 1.0).weight("l", 0.0), InvalidAttribute),
        (Maker([1, 4], 13).node("Squeeze", "x", axes=[0]), InvalidAttribute),
        (Maker([1, 4]).node("Div", "x,c").weight("c", [1.0, 0.0, 1.0, 1.0]), NonFiniteWeights),
        (Maker([1, 4]).node("Add", "x,c").weight("c", _normal(3)), ShapeMismatch),
        (Maker([1, 4]).node("Expand", "x,s").weight("s", [2**20, 2**20, 4]), ExpansionTooLarge),
        (Maker([1, 4]).node("Dropout", "x,r,t").weight("r", 0.5).weight("t", 1.0), TrainingModeOp),
        (Maker([2, 4, 5, 5]).node("Conv", "x,w").weight("w", _normal(2, 4, 2, 2)), NotCheckable),
        (Maker([1, 4]).node("Relu", "x", "a#0").node("Split", "x", "a,b", axis=1, num_outputs=2)
         .node("Max", "a,b", "a").node("Add", "a,a"), LipcertError),
    ],
)  # fmt: skip
def test_what_is_not_read_is_refused_by_name(maker: Maker, error: type[LipcertError]) -> None:
    with pytest.raises(error) as caught:
        read_network(maker.bytes())
    assert caught.value.fix


def test_a_declared_shape_that_lies_is_refused() -> None:
    model = onnx.load_from_string(Maker([1, 4]).node("Relu", "x").bytes())
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, [7, 7]))
    with pytest.raises(ShapeMismatch):
        read_network(model.SerializeToString())


def test_folding_stops_before_it_is_large() -> None:
    maker = Maker([1, 1]).weight("t0", [1.0, 1.0])
    for k in range(40):
        maker = maker.node("Concat", f"t{k},t{k}", f"t{k + 1}", axis=0)
    with pytest.raises(ExpansionTooLarge):
        read_network(maker.node("Add", "x,t40").bytes())
