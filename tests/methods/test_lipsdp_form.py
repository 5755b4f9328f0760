"""The canonical form: it states the network's increments, and psis obey their constraints."""

from __future__ import annotations

import pytest
import torch

from tests.methods.lipsdp_networks import NETWORKS, noise, realised_psis
from verifier.errors import NotLipschitzGlobally, TooLarge
from verifier.methods.clock import Clock
from verifier.methods.lipsdp import Options, candidate
from verifier.methods.lipsdp.form import form_of, helmert
from verifier.methods.lipsdp.slopes import Slopes, global_slopes
from verifier.network.graph import Network
from verifier.network.linear_map import Identity
from verifier.network.nodes import Elementwise, Term, linear
from verifier.property import Property


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("seed", range(3))
def test_increments_of_two_inputs_are_those_of_the_form(name: str, seed: int) -> None:
    network = NETWORKS[name]().lowered("keep")
    slopes = global_slopes(network)
    form = form_of(network, torch.arange(network.input_size), slopes)
    generator = torch.Generator().manual_seed(seed)
    x, y = noise(generator, network.input_size), noise(generator, network.input_size)
    psi = realised_psis(network, slopes, x, y)
    xi = torch.cat([x - y, psi])
    outputs = network.forward(torch.stack([x, y]))
    assert torch.allclose(form.outflow @ xi, outputs[0] - outputs[1], atol=1e-12)
    entering = (form.inflow @ xi).square()
    room = torch.zeros(form.multipliers).double().index_add(0, form.owner, entering - psi.square())
    assert -1e-12 <= float(room.min()) if len(room) else True


def test_helmert_columns_are_an_orthonormal_basis_of_the_complement_of_ones() -> None:
    basis = helmert(5)
    assert torch.allclose(basis.T @ basis, torch.eye(4, dtype=torch.float64), atol=1e-15)
    assert torch.allclose(basis.sum(dim=0), torch.zeros(4, dtype=torch.float64), atol=1e-15)


def test_only_selected_inputs_vary() -> None:
    network = NETWORKS["relu_chain"]().lowered("keep")
    slopes = global_slopes(network)
    whole = form_of(network, torch.arange(3), slopes)
    part = form_of(network, torch.tensor([2, 0]), slopes)
    assert torch.allclose(part.inflow[:, :2], whole.inflow[:, [2, 0]])
    assert torch.allclose(part.outflow[:, 2:], whole.outflow[:, 3:])


def test_gate_with_one_slope_has_no_psi() -> None:
    network = NETWORKS["relu_chain"]().lowered("keep")
    slopes = global_slopes(network)
    (first, *rest) = slopes
    lower = slopes[first].lower.clone()
    lower[[1, 3]] = 1.0
    narrowed = slopes | {first: Slopes(lower, slopes[first].upper)}
    form = form_of(network, torch.arange(3), narrowed)
    arrays = form.by_gate(torch.ones(form.multipliers, dtype=torch.float64))
    assert arrays[first].tolist() == [1, 0, 1, 0, 1]
    assert all(arrays[gate].tolist() == [1] * 4 for gate in rest)


class _Square:
    """x^2: its slopes are unbounded."""

    size = 2

    def slope_range(self) -> tuple[torch.Tensor, torch.Tensor]:
        infinite = torch.full((2,), torch.inf, dtype=torch.float64)
        return -infinite, infinite


def test_unbounded_slopes_are_refused_by_name() -> None:
    network = Network(
        nodes=(Elementwise("square", "", _Square(), gate="square"),),  # pyright: ignore[reportArgumentType] (a part of one)
        input_size=2,
        output="square",
    )
    with pytest.raises(NotLipschitzGlobally) as refusal:
        candidate(network, Property(), Options(), Clock.start(10.0))
    assert refusal.value.node == "square"


def test_too_large_is_refused_before_it_is_built() -> None:
    network = Network(
        nodes=(linear("y", (Term("", Identity(7000)),)),), input_size=7000, output="y"
    )
    with pytest.raises(TooLarge):
        candidate(network, Property(), Options(), Clock.start(10.0))
