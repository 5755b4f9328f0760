"""The reader: what it takes, what it refuses with which code, and that nothing else escapes."""

import struct
import time
from contextlib import suppress

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.checker.shared import hostile, needs_shared
from verifier.checker.graph import read_network
from verifier.checker.reader import read_model
from verifier.checker.tensors import Tensor, read_tensor
from verifier.errors import (
    AmbiguousTensor,
    GraphCycle,
    LipcertError,
    ModelRefused,
    NonFiniteWeights,
    NotOnnx,
    TensorSizeMismatch,
    UnknownField,
)
from verifier.property import Reading


def model(*nodes: onnx.NodeProto, weights: dict[str, np.ndarray] | None = None) -> bytes:
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()],
    )
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return built.SerializeToString(deterministic=True)


WEIGHT = np.arange(16, dtype=np.float32).reshape(4, 4)
GOOD = model(helper.make_node("MatMul", ["x", "W"], ["y"]), weights={"W": WEIGHT})


def test_a_plain_model_is_read() -> None:
    found = read_model(GOOD, Reading())
    assert (found.opset, found.ends.inputs, found.ends.outputs) == (17, ("x",), ("y",))
    weight = found.constants["W"]
    assert isinstance(weight, Tensor)
    np.testing.assert_array_equal(weight.array, WEIGHT)
    assert found.nodes[0].op == "MatMul"
    assert found.ends.declared["x"].shape == (1, 4)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("float_data", [1.0, -2.5, 1e-42]),
        ("double_data", [1.0, -2.5, 5e-324]),
        ("int64_data", [1, -(2**62), 2**40]),
        ("int32_data", [1, -(2**31), 2**31 - 1]),
    ],
)
@pytest.mark.parametrize("raw", [False, True])
def test_tensors_are_exact_in_every_field(field: str, values: list[float], raw: bool) -> None:
    kind = {"float_data": 1, "double_data": 11, "int64_data": 7, "int32_data": 6}[field]
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    tensor = TensorProto(name="t", data_type=kind, dims=[len(values)])
    if raw:
        tensor.raw_data = np.array(values, dtype=dtype).tobytes()
    else:
        getattr(tensor, field).extend(values)
    name, found = read_tensor(memoryview(tensor.SerializeToString()))
    assert name == "t"
    assert isinstance(found, Tensor)
    assert found.array.tolist() == np.array(values, dtype=dtype).tolist()


def test_half_precision_is_widened_exactly() -> None:
    values = np.array([1.0, 0.1, 6e-8], dtype=np.float16)
    for proto in (
        numpy_helper.from_array(values, "h"),
        TensorProto(name="h", data_type=10, dims=[3], int32_data=values.view(np.uint16).tolist()),
    ):
        _, found = read_tensor(memoryview(proto.SerializeToString()))
        assert isinstance(found, Tensor)
        assert found.array.tolist() == values.astype(np.float64).tolist()


TWO = struct.pack("<2f", 1.0, 2.0)


@pytest.mark.parametrize(
    ("tensor", "error"),
    [
        (TensorProto(data_type=1, dims=[3], raw_data=TWO), TensorSizeMismatch),
        (TensorProto(data_type=1, dims=[-2, -1], raw_data=TWO), TensorSizeMismatch),
        (TensorProto(data_type=1, dims=[2**32, 2**32], raw_data=TWO), TensorSizeMismatch),
        (TensorProto(data_type=1, dims=[2], raw_data=TWO + b"\0"), TensorSizeMismatch),
        (TensorProto(data_type=1, dims=[2], raw_data=TWO, float_data=[1, 2]), AmbiguousTensor),
        (TensorProto(data_type=1, dims=[2], double_data=[1, 2]), AmbiguousTensor),
        (TensorProto(data_type=1, dims=[1], float_data=[float("nan")]), NonFiniteWeights),
        (TensorProto(data_type=1, dims=[1], float_data=[float("inf")]), NonFiniteWeights),
    ],
)
def test_tensors_with_two_readings_are_refused(
    tensor: TensorProto, error: type[LipcertError]
) -> None:
    with pytest.raises(error):
        read_tensor(memoryview(tensor.SerializeToString()))


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", NotOnnx),
        (GOOD + GOOD, NotOnnx),
        (GOOD[:-1], NotOnnx),
        (GOOD + b"\x08", NotOnnx),
        (GOOD + b"\x0b", NotOnnx),
        (GOOD + b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", NotOnnx),
        (GOOD + b"\xc2\xbb\x01\x00", UnknownField),
        (b"\x08\x88\x00" + GOOD[2:], NotOnnx),
    ],
    ids=["empty", "twice", "cut", "tag", "group", "long", "unknown", "over-long"],
)
def test_bytes_that_are_no_model_are_refused(data: bytes, error: type[LipcertError]) -> None:
    with pytest.raises(error):
        read_model(data, Reading())


def test_unsorted_nodes_are_sorted() -> None:
    data = model(helper.make_node("Relu", ["a"], ["y"]), helper.make_node("Neg", ["x"], ["a"]))
    assert [node.op for node in read_model(data, Reading()).nodes] == ["Neg", "Relu"]


def test_a_long_cycle_is_refused_without_recursion() -> None:
    nodes = [helper.make_node("Neg", [f"t{k}"], [f"t{(k + 1) % 1000}"]) for k in range(1000)]
    with pytest.raises(GraphCycle):
        read_model(model(*nodes, helper.make_node("Relu", ["x"], ["y"])), Reading())


#: What the checker answers where the importer has another code: it reads less, never more.
READS_LESS = {"not-checkable", "control-flow", "discontinuous-op"}
#: Calls that never end; an If that is folded.
ALSO = {
    "bomb__function_mutual_recursion.onnx": "expansion-too-large",
    "bomb__function_recursion.onnx": "expansion-too-large",
    "control__if_constant.onnx": "",
}


@needs_shared
@pytest.mark.parametrize("name", sorted(hostile()))
def test_hostile_files_are_refused_with_their_code(name: str) -> None:
    data, row = hostile()[name]
    started = time.process_time()
    try:
        read_network(data)
        code = ""
    except LipcertError as error:
        code = error.code
    assert code in (row["code"], ALSO.get(name)) or code in READS_LESS
    assert time.process_time() - started < 60  # with every call checked for its types


MUTATED = [GOOD, model(helper.make_node("Relu", ["x"], ["y"]))]


@given(
    which=st.sampled_from(MUTATED),
    place=st.integers(0, 200),
    change=st.one_of(
        st.binary(min_size=1, max_size=6), st.integers(1, 20).map(lambda count: -count)
    ),
    inserts=st.booleans(),
)
def test_mutants_raise_nothing_untyped(
    which: bytes, place: int, change: bytes | int, inserts: bool
) -> None:
    at = place % len(which)
    if isinstance(change, int):
        mutant = which[:at] + which[at - change :]
    else:
        mutant = which[:at] + change + which[at if inserts else at + len(change) :]
    with suppress(LipcertError):
        read_network(mutant)


@needs_shared
@pytest.mark.parametrize("seed", range(20))
def test_mutants_of_hostile_files_raise_nothing_untyped(seed: int) -> None:
    rng = np.random.default_rng(seed)
    small = [data for data, _ in hostile().values() if 0 < len(data) < 3000]
    for _ in range(100):
        mutant = bytearray(small[rng.integers(len(small))])
        for _ in range(rng.integers(1, 4)):
            mutant[rng.integers(len(mutant))] = rng.integers(256)
        with suppress(LipcertError):
            read_network(bytes(mutant))


@given(data=st.binary(max_size=64))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ModelRefused):
        read_model(data, Reading())
