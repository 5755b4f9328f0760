"""Operators on integers: those on numbers between DequantizeLinear and QuantizeLinear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from tests.checker.evaluation import evaluate
from tests.onnx_import.graphs import floats, model, node
from verifier import check, parse_request, verify
from verifier.certificate import Certificate
from verifier.checker.graph import read_network
from verifier.errors import DiscontinuousOp, InvalidAttribute, LipcertError
from verifier.onnx_import import load
from verifier.property import Reading

IDEAL = Reading(idealises=True)
FOREIGN = "com.microsoft"
FIRST, LAST = ["s", "z"], ["t", "u"]
GRIDS: Mapping[str, np.ndarray] = {
    "s": np.array(0.03, np.float32),
    "z": np.array(120, np.uint8),
    "t": np.array(0.07, np.float32),
    "u": np.array(100, np.uint8),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """An operator on integers, and the one on numbers."""

    op: str
    plain: str
    domain: str = FOREIGN
    weight: np.ndarray | None = None  #: integers that are the second operand
    steps: np.ndarray = field(default_factory=lambda: np.array(0.02, np.float32))
    zeros: np.ndarray = field(default_factory=lambda: np.array(3, np.uint8))
    axis: int | None = None
    bias: int = 0  #: its entries
    shape: Sequence[int] = (1, 4)
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    own: Mapping[str, Any] = field(default_factory=dict[str, Any])  #: of the one on integers
    leads: bool = False  #: whether what leaves comes first
    counts: bool = True  #: whether integers leave

    @property
    def numbers(self) -> dict[str, np.ndarray]:
        """The constants of both files."""
        bias = np.arange(-3, self.bias - 3, dtype=np.int32) * 300
        found = {**GRIDS, **({} if not self.bias else {"b": bias})}
        return found if self.weight is None else {
            **found, "w": self.weight, "ws": self.steps, "wz": self.zeros
        }  # fmt: skip

    @property
    def integral(self) -> bytes:
        """On integers."""
        weight = [] if self.weight is None else ["w", "ws", "wz"]
        inputs = ["q", *FIRST, *weight]
        if self.op == "QGemm":
            inputs += ["b" if self.bias else "", *(LAST if self.counts else ())]
        elif self.leads:
            inputs = [*LAST, *inputs]
        else:
            inputs += [*LAST, *(["b"] if self.bias else [])]
        made = node(self.op, inputs, ["p" if self.counts else "y"], domain=self.domain,
                    **self.attributes, **self.own)  # fmt: skip
        nodes = [node("QuantizeLinear", ["x", *FIRST], ["q"]), made]
        nodes += [node("DequantizeLinear", ["p", *LAST], ["y"])] if self.counts else []
        return self._file(nodes, self.numbers)

    @property
    def twin(self) -> bytes:
        """On numbers, which are rounded before and after."""
        numbers = self.numbers
        nodes = [
            node("QuantizeLinear", ["x", *FIRST], ["q"]),
            node("DequantizeLinear", ["q", *FIRST], ["d"]),
        ]
        if self.weight is not None:
            along = {} if self.axis is None else {"axis": self.axis}
            nodes.append(node("DequantizeLinear", ["w", "ws", "wz"], ["v"], **along))
        if self.bias:
            step = np.broadcast_to(self.steps.astype(np.float64) * GRIDS["s"], (self.bias,))
            numbers["b"] = numbers["b"] * step.astype(np.float64)
            numbers["b"] = numbers["b"].astype(np.float32)
        operands = ["d", *([] if self.weight is None else ["v"]), *(["b"] if self.bias else [])]
        last = "m" if self.counts else "y"
        nodes.append(node(self.plain, operands, [last], **self.attributes))
        if self.counts:
            nodes.append(node("QuantizeLinear", ["m", *LAST], ["p"]))
            nodes.append(node("DequantizeLinear", ["p", *LAST], ["y"]))
        return self._file(nodes, numbers)

    def _file(self, nodes: Sequence[Any], numbers: Mapping[str, np.ndarray]) -> bytes:
        return model(nodes, numbers, shape=self.shape, opset=13, domains=(FOREIGN,))


RNG = np.random.default_rng(0)
MATRIX = RNG.integers(0, 256, size=(4, 3)).astype(np.uint8)
ROWS = floats(3) ** 2 / 50 + np.float32(0.001)
ZEROS = np.zeros(3, np.int8)
KERNEL = RNG.integers(-128, 128, size=(3, 2, 2, 2)).astype(np.int8)
IMAGE = (1, 2, 4, 4)
CASES: Mapping[str, Case] = {
    "matrix": Case(op="QLinearMatMul", plain="MatMul", domain="", weight=MATRIX),
    "columns": Case(
        op="QLinearMatMul", plain="MatMul", domain="", weight=MATRIX.view(np.int8), steps=ROWS,
        zeros=ZEROS, axis=1,
    ),
    "gemm": Case(op="QGemm", plain="Gemm", weight=MATRIX, bias=3),
    "gemm with steps of its own": Case(
        op="QGemm", plain="Gemm", weight=MATRIX.T.copy().view(np.int8), steps=ROWS, zeros=ZEROS,
        axis=0, bias=3, attributes={"transB": 1},
    ),
    "gemm to numbers": Case(op="QGemm", plain="Gemm", weight=MATRIX, bias=3, counts=False),
    "convolution": Case(
        op="QLinearConv", plain="Conv", domain="", weight=KERNEL, steps=ROWS, zeros=ZEROS, axis=0,
        bias=3, shape=IMAGE, attributes={"pads": [1, 0, 1, 0], "strides": [2, 1]},
    ),
    "sum": Case(op="QLinearAdd", plain="Add", weight=MATRIX[:, 0].copy()),
    "multiples": Case(op="QLinearMul", plain="Mul", weight=MATRIX[:, 0].copy()),
    "concatenation": Case(
        op="QLinearConcat", plain="Concat", leads=True, attributes={"axis": 1},
        weight=MATRIX.reshape(1, 12)[:, :5].copy(),
    ),
    "sigmoid": Case(op="QLinearSigmoid", plain="Sigmoid"),
    "leaky": Case(op="QLinearLeakyRelu", plain="LeakyRelu", attributes={"alpha": 0.3}),
    "mean": Case(op="QLinearGlobalAveragePool", plain="GlobalAveragePool", shape=IMAGE),
    "pool": Case(
        op="QLinearAveragePool", plain="AveragePool", shape=IMAGE,
        attributes={"kernel_shape": [2, 2], "strides": [1, 2]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_operator_on_numbers(name: str) -> None:
    case = CASES[name]
    network, twin = (load(d, IDEAL).require_network() for d in (case.integral, case.twin))
    theirs = read_network(case.integral, (), IDEAL)
    points = np.random.default_rng(1).normal(size=(20, network.input_size)) * 2
    expected = twin.forward(torch.tensor(points)).numpy()
    np.testing.assert_allclose(network.forward(torch.tensor(points)).numpy(), expected, rtol=1e-6)
    found = np.stack([evaluate(theirs, point) for point in points])
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert [one.node for one in network.idealised] == sorted(["q", "p"] if case.counts else ["q"])
    assert network.idealised == twin.idealised


@pytest.mark.parametrize("name", ["convolution", "gemm to numbers", "sum", "concatenation"])
def test_it_is_certified_on_request_alone(name: str) -> None:
    data = CASES[name].integral
    with pytest.raises(DiscontinuousOp):
        verify(data, parse_request({"method": "product"}))
    found: Certificate = verify(
        data, parse_request({"method": "product", "semantics": "real-idealised"})
    )
    assert check(found, data).valid


def changed(name: str, **more: Any) -> bytes:  # noqa: ANN401 (members of a case)
    return Case(**{**vars(CASES[name]), **more}).integral


def of_two(op: str, *inputs: str, **more: np.ndarray) -> bytes:
    """An operator on integers of x and others."""
    nodes = [
        node("QuantizeLinear", ["x", *FIRST], ["q"]),
        node(op, inputs, ["p"], domain=FOREIGN if op != "QLinearConv" else ""),
        node("DequantizeLinear", ["p", *LAST], ["y"]),
    ]
    return model(nodes, {**GRIDS, "w": MATRIX, **more}, opset=13, domains=(FOREIGN,))


WIDE = {"w": MATRIX.astype(np.int32), "b": np.zeros(3, np.int64)}
REFUSED: Mapping[str, bytes] = {
    "a product of signals": of_two("QLinearMul", "q", *FIRST, "q", *FIRST, *LAST),
    "numbers beside integers": of_two("QLinearAdd", "q", *FIRST, "x", *FIRST, *LAST),
    "another step than its operand's": CASES["sigmoid"].integral.replace(
        b"\x01q\n\x01s\n\x01z\n\x01t", b"\x01q\n\x01t\n\x01z\n\x01t"
    ),
    "a factor": changed("gemm", own={"alpha": 2.0}),
    "channels at the end": changed("mean", own={"channels_last": 1}),
    "steps along another axis": changed("sum", steps=ROWS, zeros=ZEROS),
    "a later step of 0": of_two("QLinearSigmoid", "q", *FIRST, *LAST, t=np.array(0, np.float32)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_another_function_is_refused(name: str) -> None:
    with pytest.raises(LipcertError) as refused:
        load(REFUSED[name], IDEAL).require_network()
    assert refused.value.code in ("discontinuous-op", "unsupported-op", "invalid-attribute")
    assert refused.value.node == "p" or refused.value.code == "discontinuous-op"
    if name != "a product of signals":  # the checker reads more
        with pytest.raises(LipcertError):
            read_network(REFUSED[name], (), IDEAL)


ILL_FORMED = {
    "a weight of 32 bits": of_two("QGemm", "q", *FIRST, "w", *FIRST, "", *LAST, w=WIDE["w"]),
    "a bias of 64 bits": of_two("QGemm", "q", *FIRST, "w", *FIRST, "b", *LAST, b=WIDE["b"]),
    "steps that do not fit": of_two(
        "QGemm", "q", *FIRST, "w", "v", "z", "", *LAST, v=np.ones(2, np.float32)
    ),
}


@pytest.mark.parametrize("name", ILL_FORMED)
def test_what_no_run_time_takes_is_not_read(name: str) -> None:
    with pytest.raises(LipcertError):
        load(ILL_FORMED[name], IDEAL).require_network()
    with pytest.raises(LipcertError):
        read_network(ILL_FORMED[name], (), IDEAL)


SHORT: Mapping[str, bytes] = {
    "no zero point": of_two("QLinearSigmoid", "q", *FIRST, "t"),
    "no zero point of what enters": of_two("QLinearLeakyRelu", "q", "s", "", *LAST),
    "a part without a step": of_two("QLinearConcat", *LAST, "q", "", "z", "w", *FIRST),
}


@pytest.mark.parametrize("name", SHORT)
@pytest.mark.parametrize("idealises", [True, False])
def test_operands_that_are_left_out_never_reach_a_run_time(name: str, idealises: bool) -> None:
    """Onnxruntime 1.31.1 ends the process over them."""
    with pytest.raises(InvalidAttribute) as refused:
        load(SHORT[name], Reading(idealises=idealises))
    assert refused.value.node == "p"
    with pytest.raises(LipcertError):
        read_network(SHORT[name], (), Reading(idealises=idealises))
