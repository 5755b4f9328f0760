"""Derivatives by autograd, against each other and against differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.methods.toys import NETWORKS, dyadic
from tests.onnx_import.graphs import floats, model, node
from verifier.methods.derivatives import Derivatives, smoothed_rise
from verifier.methods.duality import attained_norm
from verifier.norms import Norm, NormPair
from verifier.onnx_import import load


@pytest.mark.parametrize("shape", NETWORKS)
def test_pulled_and_pushed_are_products_with_the_jacobian(shape: str) -> None:
    rng = np.random.default_rng(139)
    network = NETWORKS[shape](rng)
    derivatives = Derivatives(network, dyadic(rng, 3, 2))
    x = torch.from_numpy(rng.normal(size=(5, network.input_size)))
    s = torch.from_numpy(rng.normal(size=(5, 3)))
    d = torch.from_numpy(rng.normal(size=(5, network.input_size)))
    jacobian = derivatives.jacobian(x)
    pulled, pushed = derivatives.pulled(x, s), derivatives.pushed(x, d)
    assert torch.allclose(pulled, torch.einsum("bmn,bm->bn", jacobian, s), rtol=0, atol=1e-10)
    assert torch.allclose(pushed, torch.einsum("bmn,bn->bm", jacobian, d), rtol=0, atol=1e-10)


@pytest.mark.parametrize("shape", NETWORKS)
def test_narrow_windows_give_the_derivative(shape: str) -> None:
    rng = np.random.default_rng(149)
    network = NETWORKS[shape](rng)
    x = torch.from_numpy(rng.normal(size=(7, network.input_size)))
    d = torch.from_numpy(rng.normal(size=(7, network.input_size)))
    rise = smoothed_rise(network.lowered("compare"), x, d, 1e-5)
    expected = Derivatives(network, torch.eye(2, dtype=torch.float64)).pushed(x, d)
    assert torch.allclose(rise, expected, rtol=1e-6, atol=1e-6)


def test_a_constant_output_does_not_rise() -> None:
    data = model([node("Identity", ["W"], ["y"])], {"W": floats(1, 3)})
    lowered = load(data).require_network().lowered("compare")
    x = torch.ones(2, 4, dtype=torch.float64)
    assert torch.equal(smoothed_rise(lowered, x, x, 0.5), torch.zeros(2, 3, dtype=torch.float64))


@pytest.mark.parametrize("norm", [Norm.L1, Norm.L2, Norm.LINF], ids=str)
def test_where_there_is_no_derivative_none_is_attained(norm: Norm) -> None:
    jacobians = torch.tensor([[[torch.inf, 1.0]], [[3.0, torch.nan]], [[3.0, 4.0]]]).double()
    found = attained_norm(NormPair(norm, norm), jacobians).value
    assert found[:2].tolist() == [0.0, 0.0]
    assert found[2] > 0
