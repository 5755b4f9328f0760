"""Quantised files: refused, or on request certified as the function without the rounding."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from math import sqrt
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper

from tests.checker.evaluation import evaluate
from tests.onnx_import.graphs import floats, info, model, node, proto, run, serialised
from tests.quantised import KINDS, RANGES, Grid, random_network
from verifier import check, parse_request, verify
from verifier.certificate import Certificate, Idealised
from verifier.checker.graph import read_network
from verifier.errors import (
    CapabilityBlocked,
    DiscontinuousOp,
    ImportMismatch,
    LipcertError,
    ModelRefused,
    TensorSizeMismatch,
)
from verifier.onnx_import import differential, load, prescan, reader
from verifier.onnx_import.build import build
from verifier.property import Reading

EACH = {"quick": 2, "full": 100, "nightly": 2000}[os.environ.get("LIPCERT_TESTS", "quick")]
IDEAL = Reading(idealises=True)
STEP, ZERO = np.float32(0.3), np.array(100, np.uint8)
NUMBERS: Mapping[str, np.ndarray] = {"s": np.array(STEP), "z": ZERO}
PAIR = [
    node("QuantizeLinear", ["x", "s", "z"], ["q"]),
    node("DequantizeLinear", ["q", "s", "z"], ["y"]),
]


def certified(data: bytes, semantics: str = "real-idealised", method: str = "product") -> Any:  # noqa: ANN401 (a certificate with a bound)
    return verify(data, parse_request({"method": method, "semantics": semantics}))


# --- What is certified ---------------------------------------------------------------------------


def test_a_pair_is_a_clip_and_half_a_step() -> None:
    data = model(PAIR, NUMBERS)
    with pytest.raises(DiscontinuousOp, match="QuantizeLinear") as refused:
        certified(data, "real")
    assert "real-idealised" in refused.value.fix
    found: Certificate = certified(data)
    assert found.claim.bound is not None
    assert 1 <= found.claim.bound < 1 + 1e-8
    assert check(found, data).valid
    (one,) = found.claim.idealised
    assert (one.node, one.pattern, one.relative) == ("q", "quantise-dequantise", 0.0)
    half = sqrt(4) * float(STEP) / 2
    assert half <= one.absolute <= half * (1 + 1e-8)


def test_the_deviation_is_reached_and_not_exceeded() -> None:
    data = model(PAIR, NUMBERS)
    network = load(data, IDEAL).require_network()
    middle = float(STEP) * 0.5 * (1 + 1e-6)
    for x in (np.full((1, 4), middle), floats(1, 4) * 9, floats(1, 4, seed=1) * 90):
        given = x.astype(np.float32)
        ours = network.forward(torch.tensor(given, dtype=torch.float64)).numpy()
        # What the run time counts, times the step: without the rounding of their product.
        counts = np.rint(run(data, given).astype(np.float64) / float(STEP))
        off = np.linalg.norm(counts * float(STEP) - ours)
        assert off <= network.idealised[0].absolute
        assert off > 0.99 * network.idealised[0].absolute or x[0, 0] != middle


@pytest.mark.parametrize("seed", range(EACH))
@pytest.mark.parametrize("opset", KINDS)
def test_random_networks_are_read_alike_and_no_bound_is_below(opset: int, seed: int) -> None:
    rng = np.random.default_rng([opset, seed])
    made = random_network(rng, opset)
    ours, theirs = load(made.data, IDEAL).require_network(), read_network(made.data, (), IDEAL)
    points = rng.normal(size=(40, made.size)) * rng.uniform(0.1, 4.0, size=(40, 1))
    values = np.stack([made.smooth(point) for point in points])
    near = 1e-10 * (1 + np.abs(values).max())
    assert np.abs(ours.forward(torch.tensor(points)).numpy() - values).max() < near
    assert np.abs(np.stack([evaluate(theirs, x) for x in points]) - values).max() < near
    steepest = max(np.linalg.norm(made.jacobian(point), 2) for point in points)
    methods = ("product", "lipsdp") if opset == 21 else ("product",)
    for method in methods if seed == 0 else ():
        found = certified(made.data, method=method)
        assert steepest <= found.claim.bound
        assert check(found, made.data).valid


def moved(start: str, end: str) -> list[Any]:
    """Nodes that place and choose entries."""
    return [
        node("Transpose", [start], ["t"], perm=[0, 1, 3, 2]),
        node("MaxPool", ["t"], ["m"], kernel_shape=[2, 2], pads=[1, 0, 0, 0]),
        node("Concat", ["m", "m"], ["c"], axis=1),
        node("Flatten", ["c"], [end]),
    ]


def test_integers_may_be_moved_and_chosen() -> None:
    back = node("DequantizeLinear", ["f", "s", "z"], ["y"])
    data = model([PAIR[0], *moved("q", "f"), back], NUMBERS, shape=(1, 1, 3, 3))
    ours, theirs = load(data, IDEAL).require_network(), read_network(data, (), IDEAL)
    x = floats(9) * 30
    values = ours.forward(torch.tensor(x.astype(np.float64))[None])[0].numpy()
    np.testing.assert_allclose(evaluate(theirs, x.astype(np.float64)), values)
    smooth = Grid(STEP, 100, "uint8").smooth(x).astype(np.float32).reshape(1, 1, 3, 3)
    expected = run(model(moved("x", "y"), shape=(1, 1, 3, 3)), smooth)
    np.testing.assert_allclose(expected[0], values, rtol=1e-6)
    assert check(certified(data), data).valid


def test_integers_may_be_kept_within_limits() -> None:
    """As quantisers write a range of 7 bits."""
    limits = {"l": np.array(80, np.uint8), "u": np.array(127, np.uint8)}
    clip = node("Clip", ["q", "l", "u"], ["c"])
    back = node("DequantizeLinear", ["c", "s", "z"], ["y"])
    data = model([PAIR[0], clip, back], {**NUMBERS, **limits})
    ours, theirs = load(data, IDEAL).require_network(), read_network(data, (), IDEAL)
    x = np.linspace(-40.0, 40.0, 4 * 50).reshape(50, 4)
    expected = x.clip(-20 * float(STEP), 27 * float(STEP))
    np.testing.assert_array_equal(ours.forward(torch.tensor(x)).numpy(), expected)
    np.testing.assert_array_equal(np.stack([evaluate(theirs, row) for row in x]), expected)
    assert check(certified(data), data).valid
    floats_for_limits = {name: array.astype(np.float32) for name, array in limits.items()}
    for broken in (floats_for_limits, {"l": limits["u"], "u": limits["l"]}):
        crossed = model([PAIR[0], clip, back], {**NUMBERS, **broken})
        with pytest.raises(LipcertError):
            load(crossed, IDEAL).require_network()
        with pytest.raises(LipcertError):
            read_network(crossed, (), IDEAL)


def test_files_of_onnxruntime_s_own_quantiser(tmp_path: Any) -> None:  # noqa: ANN401 (a path)
    quantization = pytest.importorskip("onnxruntime.quantization")
    nodes = [
        node("Conv", ["x", "k", "b"], ["c"], pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["r"]),
        node("MaxPool", ["r"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", ["m"], ["f"]),
        node("Gemm", ["f", "w", "d"], ["y"]),
    ]
    weights = {"k": floats(3, 1, 3, 3), "b": floats(3), "w": floats(12, 2), "d": floats(2)}
    source, made = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    ends = [info("y", (1, 2))]
    source.write_bytes(model(nodes, weights, shape=(1, 1, 4, 4), outputs=ends, opset=13))
    rows = iter([{"x": floats(1, 1, 4, 4, seed=seed)} for seed in range(8)])

    def get_next(_: object) -> Mapping[str, np.ndarray] | None:
        return next(rows, None)

    rows_of = type("Rows", (quantization.CalibrationDataReader,), {"get_next": get_next})
    quantization.quantize_static(source, made, rows_of(), per_channel=True)
    found: Certificate = certified(made.read_bytes())
    assert {one.pattern for one in found.claim.idealised} == {"quantise-dequantise"}
    assert len(found.claim.idealised) >= 4
    assert check(found, made.read_bytes()).valid


# --- Constants -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", RANGES)
@pytest.mark.parametrize("axis", [None, 0, -1])
def test_constants_are_rounded_and_counted_as_run_times_do(kind: str, axis: int | None) -> None:
    rng = np.random.default_rng(0)
    count = 1 if axis is None else (3, 4)[axis]
    steps = 2.0 ** rng.integers(-3, 3, size=count)  # halves of such are exact: ties
    zeros = rng.integers(*RANGES[kind], size=count).astype(kind)
    step, zero = steps.astype(np.float32), zeros
    if axis is None:
        step, zero = step.reshape(()), zero.reshape(())
    weight = (rng.integers(-300, 300, size=(3, 4)) / 2).astype(np.float32)
    along = {} if axis is None else {"axis": axis}
    nodes = [
        node("QuantizeLinear", ["w", "s", "z"], ["q"], **along),
        node("DequantizeLinear", ["q", "s", "z"], ["d"], **along),
        node("Add", ["x", "d"], ["y"]),
    ]
    data = model(nodes, {"w": weight, "s": step, "z": zero}, shape=(3, 4), opset=21)
    expected = run(data, np.zeros((3, 4), np.float32)).ravel()
    ours, theirs = load(data).require_network(), read_network(data)
    nothing = torch.zeros(1, 12, dtype=torch.float64)
    np.testing.assert_array_equal(ours.forward(nothing)[0].numpy(), expected)
    np.testing.assert_array_equal(evaluate(theirs, np.zeros(12)), expected)


def test_beside_a_tie_the_nearest_integer_is_taken() -> None:
    """Where the quotient is a half up to the last bit of float32; exactly, by rationals."""
    rng = np.random.default_rng(0)
    step = np.float32(rng.uniform(0.01, 3.0))
    middles = (rng.integers(-120, 120, size=40) + 0.5) * step
    near = np.concatenate(
        [np.nextafter(middles.astype(np.float32), np.float32(up)) for up in (-999, 999)]
    )
    near = np.concatenate([near, middles.astype(np.float32)])
    exact = [round(Fraction(float(x)) / Fraction(float(step))) * float(step) for x in near]
    nodes = [
        node("QuantizeLinear", ["w", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        node("Add", ["x", "d"], ["y"]),
    ]
    numbers = {"w": near, "s": np.array(step), "z": np.array(0, np.int8)}
    data = model(nodes, numbers, shape=(120,))
    network = load(data, differential=False).require_network()
    found = network.forward(torch.zeros(1, 120, dtype=torch.float64))[0].numpy()
    np.testing.assert_array_equal(found, exact)
    np.testing.assert_array_equal(evaluate(read_network(data), np.zeros(120)), exact)


@pytest.mark.parametrize("kind", [TensorProto.INT4, TensorProto.UINT4])
@pytest.mark.parametrize("raw", [True, False])
def test_two_numbers_of_four_bits_lie_in_a_byte(kind: int, raw: bool) -> None:
    numbers = (np.arange(15) * 7 % 16 - 8 * (kind == TensorProto.INT4)).reshape(3, 5)
    stored: Any = helper.make_tensor("q", kind, (3, 5), numbers.ravel())
    if raw:
        packed = bytes(stored.int32_data)
        del stored.int32_data[:]
        stored.raw_data = packed
    nodes = [node("DequantizeLinear", ["q", "s"], ["d"]), node("Add", ["x", "d"], ["y"])]
    made = proto(nodes, {"s": np.array(STEP)}, shape=(3, 5), opset=21, ir=10)
    made.graph.initializer.append(stored)
    data = serialised(made)
    expected = (numbers * float(STEP)).ravel()
    np.testing.assert_allclose(run(data, np.zeros((3, 5), np.float32)).ravel(), expected, 1e-6)
    found = load(data).require_network().forward(torch.zeros(1, 15, dtype=torch.float64))
    np.testing.assert_array_equal(found[0].numpy(), expected)
    np.testing.assert_array_equal(evaluate(read_network(data), np.zeros(15)), expected)
    del made.graph.initializer[-1].dims[:]
    made.graph.initializer[-1].dims.extend([3, 6])  # a byte too few
    for read in (load, read_network):
        with pytest.raises(TensorSizeMismatch):
            read(serialised(made))


def test_blocks_of_constants_have_steps_of_their_own() -> None:
    numbers = {
        "q": np.arange(-10, 10, dtype=np.int8).reshape(2, 10),
        "s": floats(2, 4),
        "z": np.arange(8, dtype=np.int8).reshape(2, 4),
    }
    nodes = [
        node("DequantizeLinear", ["q", "s", "z"], ["d"], axis=1, block_size=3),
        node("Add", ["x", "d"], ["y"]),
    ]
    data = model(nodes, numbers, shape=(2, 10), opset=21)
    spread = [numbers[name].repeat(3, axis=1)[:, :10].astype(np.float64) for name in ("s", "z")]
    expected = ((numbers["q"] - spread[1]) * spread[0]).ravel()
    network = load(data).require_network()
    found = network.forward(torch.zeros(1, 20, dtype=torch.float64))[0].numpy()
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(evaluate(read_network(data), np.zeros(20)), expected)


# --- What is refused -----------------------------------------------------------------------------


def after(*nodes: Any, **numbers: Any) -> bytes:  # noqa: ANN401 (nodes and arrays)
    """A quantised x, and what is done with it."""
    parts = {**NUMBERS, "w": np.full((4, 4), 3, np.uint8), "t": np.array(2, np.int32), **numbers}
    return model([PAIR[0], *nodes], parts, opset=21, ir=10)


def pair(opset: int = 21, zero: Any = ZERO, **numbers: Any) -> bytes:  # noqa: ANN401 (arrays)
    return model(PAIR, {**NUMBERS, "z": zero, **numbers}, opset=opset, ir=10)


def dequantised(name: str, **numbers: Any) -> bytes:  # noqa: ANN401 (arrays)
    """The integers by that name as numbers."""
    return after(
        node("DequantizeLinear", [name, "s2", "z2"], ["y"]),
        **{"s2": NUMBERS["s"], "z2": ZERO, **numbers},
    )


def jumping(*nodes: Any) -> bytes:  # noqa: ANN401 (nodes)
    return after(*nodes, node("DequantizeLinear", ["u", "s", "z"], ["y"]))


REFUSED: Mapping[str, tuple[bytes, str, str]] = {
    "a step of 0": (pair(s=np.array(0, np.float32)), "invalid-attribute", "q"),
    "a negative step": (pair(s=np.array(-1, np.float32)), "invalid-attribute", "q"),
    "an infinite step": (pair(s=np.array(np.inf, np.float32)), "non-finite-weights", "s"),
    "steps along an axis": (
        pair(s=np.ones(4, np.float32), zero=np.zeros(4, np.uint8)),
        "discontinuous-op",
        "q",
    ),
    "a zero point of 32 bits": (pair(zero=np.array(0, np.int32)), "discontinuous-op", "q"),
    "a step of another type": (pair(s=np.array(1, np.float16)), "discontinuous-op", "q"),
    "another step": (dequantised("q", s2=np.array(0.31, np.float32)), "discontinuous-op", "y"),
    "another zero point": (dequantised("q", z2=np.array(99, np.uint8)), "discontinuous-op", "y"),
    "integers alone": (
        model(
            PAIR[:1], NUMBERS, outputs=[info("q", (1, 4), TensorProto.UINT8)]
        ),
        "unsupported-dtype",
        "q",
    ),
    "their sign": (jumping(node("Relu", ["q"], ["u"])), "discontinuous-op", "u"),
    "a conversion": (
        after(node("Cast", ["q"], ["y"], to=TensorProto.FLOAT)),
        "discontinuous-op",
        "y",
    ),
    "their products": (
        after(
            node("MatMulInteger", ["q", "w"], ["p"]),
            node("Cast", ["p"], ["y"], to=TensorProto.FLOAT),
        ),
        "discontinuous-op",
        "p",
    ),
    "other integers beside them": (
        jumping(node("Concat", ["q", "w"], ["u"], axis=0)), "discontinuous-op", "u"
    ),
    "zeros around them": (
        after(
            node("Pad", ["q", "p"], ["u"]),
            node("DequantizeLinear", ["u", "s", "z"], ["y"]),
            p=np.array([0, 1, 0, 1]),
        ),
        "discontinuous-op",
        "u",
    ),
    "a step that follows the input": (
        model(
            [
                node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
                node("DequantizeLinear", ["q", "s", "z"], ["y"]),
            ]
        ),
        "discontinuous-op",
        "q",
    ),
    "a step that is computed from it": (
        model(
            [node("ReduceMax", ["x"], ["s"], keepdims=0), *PAIR],
            {"z": ZERO},
        ),
        "discontinuous-op",
        "q",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_pair_is_refused_with_its_node(name: str) -> None:
    data, code, where = REFUSED[name]
    with pytest.raises(LipcertError) as refused:
        load(data, IDEAL).require_network()
    assert isinstance(refused.value, (ModelRefused, CapabilityBlocked))
    assert (refused.value.code, refused.value.node) == (code, where)
    assert refused.value.fix
    with pytest.raises(LipcertError):
        read_network(data, (), IDEAL)


@pytest.mark.parametrize("name", REFUSED)
def test_of_the_file_itself_nothing_is_claimed(name: str) -> None:
    with suppress(ModelRefused):
        blocked = load(REFUSED[name][0]).blocked
        assert blocked is not None
        assert blocked.code == "discontinuous-op"
    with pytest.raises(LipcertError):
        read_network(REFUSED[name][0])


def constant(op: str = "DequantizeLinear", opset: int = 21, **given: Any) -> bytes:  # noqa: ANN401 (arrays and attributes)
    """A constant by one operator, added to x."""
    numbers = {"c": np.ones(4, np.int8), "s": np.array(STEP), "z": np.array(1, np.int8)}
    numbers |= {name: value for name, value in given.items() if isinstance(value, np.ndarray)}
    own = {name: value for name, value in given.items() if isinstance(value, int)}
    made = node(op, ["c", "s", *(["z"] if given.get("z", 1) is not None else [])], ["d"], **own)
    add = node("Add", ["x", "d"], ["y"])
    quantised = op == "QuantizeLinear"
    back = [node("DequantizeLinear", ["d", "s"], ["e"]), node("Add", ["x", "e"], ["y"])]
    return model([made, *(back if quantised else [add])], numbers, shape=(4,), opset=opset)


def of_signal(op: str, **own: int) -> bytes:
    """The same operator on x itself."""
    made = node(op, ["x", "s"], ["d"], **own)
    return model([made, node("DequantizeLinear", ["d", "s"], ["y"])], NUMBERS, opset=21)


WHOLE = np.ones(4, np.float32)
ILL_FORMED: Mapping[str, bytes] = {
    "integers of 64 bits": constant(c=np.ones(4, np.int64), z=None),
    "a zero point of another type": constant(z=np.array(1, np.uint8)),
    "another type than the step's": constant(opset=23, output_dtype=int(TensorProto.FLOAT16)),
    "steps that do not fit": constant(s=np.ones(3, np.float32), z=None, axis=0),
    "blocks that do not fit": constant(s=np.ones(3, np.float32), z=None, axis=0, block_size=2),
    "blocks of less than nothing": constant(z=None, axis=0, block_size=-1),
    "an axis beyond": constant(s=WHOLE, z=None, axis=1),
    "a step of float64": constant(s=np.array(0.3)),
    "a step of 0": constant("QuantizeLinear", c=WHOLE, s=np.array(0, np.float32)),
    "halves in single steps": constant("QuantizeLinear", c=WHOLE.astype(np.float16)),
    "floats of 8 bits": constant("QuantizeLinear", c=WHOLE, z=None, output_dtype=17),
    "two types": constant("QuantizeLinear", c=WHOLE, output_dtype=int(TensorProto.UINT8)),
    "numbers that are no integers": of_signal("DequantizeLinear"),
    "integers for steps": after(node("DequantizeLinear", ["w", "q"], ["y"])),
    "blocks of a signal": of_signal("QuantizeLinear", block_size=2),
}


@pytest.mark.parametrize("name", ILL_FORMED)
def test_neither_reading_takes_what_is_ill_formed(name: str) -> None:
    for read in (lambda: load(ILL_FORMED[name], IDEAL).require_network(),
                 lambda: read_network(ILL_FORMED[name], (), IDEAL)):  # fmt: skip
        with pytest.raises(LipcertError):
            read()


def test_what_may_be_left_out_or_said_twice() -> None:
    """Neither blocks without zero points nor a precision change what is counted."""
    blocks = constant(s=np.array([1, 2], np.float32), z=None, axis=0, block_size=2)
    twice = constant("QuantizeLinear", 23, c=WHOLE, z=None, output_dtype=int(TensorProto.INT8))
    for data, expected in ((blocks, [1, 1, 2, 2]), (twice, [float(STEP) * 3] * 4)):
        network = load(data, differential=False).require_network()
        found = network.forward(torch.zeros(1, 4, dtype=torch.float64))[0].numpy()
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(evaluate(read_network(data), np.zeros(4)), expected)


def test_rounding_inside_of_a_function_is_not_compared_and_so_refused() -> None:
    domains = [helper.make_opsetid("", 21)]
    body = helper.make_function("f", "Half", ["x", "s", "z"], ["y"], PAIR, domains)
    made = proto([node("Half", ["x", "s", "z"], ["y"], domain="f")], NUMBERS, opset=21, ir=10,
                 domains=("f",))  # fmt: skip
    made.functions.append(body)
    with pytest.raises(ImportMismatch, match="inside of a function"):
        load(serialised(made), IDEAL)


FORGED: Mapping[str, Callable[[Idealised], list[Idealised]]] = {
    "half of it": lambda one: [replace(one, absolute=one.absolute / 2)],
    "nothing": lambda _: [],
    "another node": lambda one: [replace(one, node="y")],
    "another pattern": lambda one: [replace(one, pattern="folded-mirror")],
}


@pytest.mark.parametrize("forgery", FORGED)
def test_a_claim_that_hides_the_rounding_is_rejected(forgery: str) -> None:
    data = model(PAIR, NUMBERS)
    found: Certificate = certified(data)
    listed = tuple(FORGED[forgery](found.claim.idealised[0]))
    verdict = check(replace(found, claim=replace(found.claim, idealised=listed)), data)
    assert not verdict.valid
    assert verdict.code in ("discontinuous-op", "idealised-mismatch")


# --- The differential test -----------------------------------------------------------------------

EYE = [node("MatMul", ["d", "w"], ["y"])]
CHAIN = [
    PAIR[0],
    node("DequantizeLinear", ["q", "s", "z"], ["d"]),
    node("DequantizeLinear", ["v", "t", "u"], ["w"]),
    node("MatMul", ["d", "w"], ["m"]),
    node("QuantizeLinear", ["m", "s2", "z2"], ["p"]),
    node("DequantizeLinear", ["p", "s2", "z2"], ["y"]),
]
RIGHT: Mapping[str, np.ndarray] = {
    **NUMBERS,
    "v": np.arange(-8, 8, dtype=np.int8).reshape(4, 4),
    "t": np.array(0.02, np.float32),
    "u": np.array(1, np.int8),
    "s2": np.array(0.05, np.float32),
    "z2": np.array(-3, np.int8),
}
MISREAD: Mapping[str, Mapping[str, np.ndarray]] = {
    "a step": {"s": np.array(STEP * np.float32(1.004))},
    "a zero point": {"z": np.array(101, np.uint8)},
    "a later step": {"s2": np.array(0.0502, np.float32)},
    "a later zero point": {"z2": np.array(-2, np.int8)},
    "the range": {"z": np.array(100, np.int8)},
    "the step of a weight": {"t": np.array(0.0201, np.float32)},
    "the zero point of a weight": {"u": np.array(0, np.int8)},
}


def compare(data: bytes, other: bytes) -> None:
    """One file, as the network that another one is."""
    graph = reader.read(prescan.scan(other), IDEAL)
    built = build(graph)
    assert built.network is not None
    differential.check(data, graph, built.network, built.outputs, built.grids)


@pytest.mark.parametrize("name", MISREAD)
def test_the_differential_test_keeps_the_rounding_and_forgives_no_step(name: str) -> None:
    right, wrong = model(CHAIN, RIGHT), model(CHAIN, {**RIGHT, **MISREAD[name]})
    compare(right, right)
    with pytest.raises(ImportMismatch):
        compare(right, wrong)
