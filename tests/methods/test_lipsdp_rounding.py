"""Increments that vanish to rounding only: the checker still has to be shown the inequality.

Each network has paths that cancel: their increments are 0, or what rounding leaves, and the error
that is proved of them is not 0. Multipliers over too many decades make it cover everything else.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from tests.methods.lipsdp_networks import NETWORKS
from tests.oracles import to_bytes
from verifier.methods.lipsdp.form import form_of
from verifier.methods.lipsdp.rounding import CertificateMatrix
from verifier.methods.lipsdp.slopes import global_slopes
from verifier.network.elementwise import Relu
from verifier.network.graph import Network
from verifier.network.linear_map import Dense
from verifier.network.nodes import Elementwise, Term, linear
from verifier.norms import Norm, NormPair
from verifier.property import Method, Property, Request
from verifier.verify import verify

PAIRS = (NormPair(Norm.L2, Norm.L2), NormPair(Norm.LINF, Norm.LINF))
RELU = "Relu"
#: (x0, x1) to (0, x1): the first by two paths that cancel, in float32 too.
FIRST_CANCELS = ([[0.5, 0.0], [2.0, 0.0], [0.0, 1.0]], [[2.0, -0.5, 0.0], [0.0, 0.0, 1.0]])
Layer = str | list[list[float]]
CASES: dict[str, Sequence[Layer]] = {
    "gate that nothing enters": (*FIRST_CANCELS, RELU, [[1e6, 1.0]]),
    "chain of gates that nothing enters": (
        *FIRST_CANCELS,
        *([RELU, [[1e3, 0.0], [0.0, 1.0]]] * 4),
        [[1.0, 1.0]],
    ),
    "gate that nothing reads": ([[1.0, 2.0], [0.0, 1.0]], RELU, *FIRST_CANCELS, [[1e3, 1.0]]),
    "input that nothing reads": (*FIRST_CANCELS, [[1e4, 1.0]], RELU, [[1.0], [2.0]]),
    "some of both": (
        *FIRST_CANCELS,
        RELU,
        [[1e4, 1.0], [1e-4, 0.5]],
        RELU,
        *FIRST_CANCELS,
        [[1e4, 1.0]],
    ),
}
CONSTANT: dict[str, Sequence[Layer]] = {
    "after affine maps": (FIRST_CANCELS[0], [[2.0, -0.5, 0.0]]),
    "after a gate": ([[1.0, 2.0], [0.0, 1.0]], RELU, *FIRST_CANCELS, [[1.0, 0.0]]),
    "before a gate": (*FIRST_CANCELS, RELU, [[1.0, 0.0]]),
}


def model_of(layers: Sequence[Layer]) -> bytes:
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    last, rows = "x", 2
    for place, layer in enumerate(layers):
        if isinstance(layer, str):
            nodes.append(helper.make_node(layer, [last], [f"s{place}"]))
        else:
            weight = np.array(layer, dtype=np.float32).T
            weights.append(onnx.numpy_helper.from_array(weight, f"w{place}"))
            nodes.append(helper.make_node("MatMul", [last, f"w{place}"], [f"s{place}"]))
            rows = weight.shape[1]
        last = f"s{place}"
    entering = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 2])
    leaving = helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, [1, rows])
    return to_bytes(helper.make_graph(nodes, "chain", [entering], [leaving], weights))


def bound_of(model: bytes, pair: NormPair, method: Method) -> float:
    bound = verify(model, Request(property=Property(norm=pair), method=method)).claim.bound
    assert bound is not None
    return bound


@pytest.mark.parametrize("pair", PAIRS, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_inequality_is_shown_where_paths_cancel(name: str, pair: NormPair) -> None:
    model = model_of(CASES[name])
    assert bound_of(model, pair, "lipsdp") <= bound_of(model, pair, "product") * (1 + 1e-3)


@pytest.mark.parametrize("pair", PAIRS, ids=str)
@pytest.mark.parametrize("name", CONSTANT)
def test_outputs_that_cancel_have_a_small_bound(name: str, pair: NormPair) -> None:
    assert bound_of(model_of(CONSTANT[name]), pair, "lipsdp") < 1e-6


@pytest.mark.parametrize("name", NETWORKS)
def test_noise_is_far_below_what_it_is_the_noise_of(name: str) -> None:
    kept = NETWORKS[name]().lowered("keep")
    form = form_of(kept, torch.arange(kept.input_size), global_slopes(kept))
    for value, noise in ((form.inflow, form.inflow_noise), (form.outflow, form.outflow_noise)):
        assert bool((0 <= noise).all())
        assert float(noise.norm()) <= 1e-12 * float(value.norm())


def test_what_rounding_leaves_does_not_enter_a_gate() -> None:
    first, second, third = 0.1, 0.7, 0.8

    def column(*entries: float) -> Dense:
        return Dense(torch.tensor([entries], dtype=torch.float64).T)

    row = torch.tensor([[first * second, -first * third]], dtype=torch.float64)
    nodes = (
        linear("u", (Term("", column(third, second)),)),
        linear("v", (Term("u", Dense(row)),)),
        Elementwise("z", "v", Relu(1), gate="z"),
    )
    network = Network(nodes=nodes, input_size=1, output="z")
    left = float(row[0, 0]) * third + float(row[0, 1]) * second
    assert 0 < abs(left) < 1e-16
    form = form_of(network, torch.arange(1), global_slopes(network))
    assert float(form.inflow.abs().max()) == 0
    assert abs(left) <= float(form.inflow_noise[0, 0]) < 1e-14


def test_loss_grows_with_noise_in_a_column_of_small_multiplier() -> None:
    def loss(least: float) -> float:
        diagonal = torch.tensor([1.0, least], dtype=torch.float64)
        rows = torch.tensor([[0.5, 0.0]], dtype=torch.float64)
        noise = torch.full_like(rows, 1e-16)
        none = diagonal.new_zeros(2)
        return CertificateMatrix(
            diagonal=diagonal,
            rows=rows,
            noise=noise,
            corner=None,
            border=none,
            border_noise=none,
        ).loss()

    assert loss(1.0) < 1e-14 < 1e-4 < loss(1e-26)
