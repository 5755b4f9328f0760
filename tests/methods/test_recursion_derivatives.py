"""The recursion's derivatives against automatic ones, and what it stands for."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import Float64
from torch import Tensor

from tests.methods.lipsdp_networks import NETWORKS
from verifier.methods.lipsdp import global_slopes
from verifier.methods.recursion.closed import Rule, chosen, greatest_eigenvalue, normalised
from verifier.methods.recursion.curvature import curvature
from verifier.methods.recursion.descent import Landscape
from verifier.methods.recursion.frontier import backward, forward
from verifier.methods.recursion.idle import settled
from verifier.methods.recursion.objective import Objective
from verifier.methods.recursion.plan import Step, gated, steps_of

GATED = [name for name in NETWORKS if name != "linear_only"]


def start_of(name: str) -> tuple[tuple[Step, ...], Float64[Tensor, "n n"], list[Tensor]]:
    network = NETWORKS[name]().lowered("keep")
    start = torch.eye(network.input_size, dtype=torch.float64)
    steps = normalised(steps_of(network, global_slopes(network)), start)
    begun = chosen(steps, start, Rule(2.5, 0.5))
    assert begun is not None
    return steps, start, list(begun.scales)


def covariance(
    steps: tuple[Step, ...], start: Float64[Tensor, "n n"], flat: Float64[Tensor, " psis"]
) -> tuple[Float64[Tensor, "m m"], Float64[Tensor, ""]]:
    """The output's covariance and sum log det S, written out for automatic differentiation."""
    log_det, current = flat.new_zeros(()), start
    remaining = iter(flat.split([step.psis for step in gated(steps)]))
    for step in steps:
        if not step.psis:
            current = step.apply(step.apply(current).T)
            continue
        gate, scales = step.gated, next(remaining)
        across = gate.inflow(current[:, step.entrance])
        slack = torch.diag(scales) - gate.inflow(across[step.entrance].T)
        log_det = log_det + torch.linalg.slogdet(slack)[1]
        grown = current + across @ torch.linalg.inv(slack) @ across.T
        added = gate.noise(gate.noise(torch.diag(scales)).T) * step.scale**2
        current = step.apply(step.apply(grown).T)
        place = torch.zeros_like(current)
        place[step.exit, step.exit] = added
        current = current + place
    return current, log_det


@pytest.mark.parametrize("name", GATED)
def test_gradient(name: str) -> None:
    steps, start, scales = start_of(name)
    flat = torch.cat(scales).requires_grad_()
    weight = torch.arange(1.0, 5.0, dtype=torch.float64).reshape(2, 2)
    weight = weight @ weight.T
    outputs, _ = covariance(steps, start, flat)
    (wanted,) = torch.autograd.grad((outputs * weight).sum(), flat)
    run = forward(steps, start, scales, keeps=True)
    assert run is not None
    assert torch.allclose(run.covariance, outputs.detach(), rtol=1e-12)
    gradients, _ = backward(steps, run, weight)
    ours = torch.cat([each.felt - each.drawn for each in gradients])
    assert torch.allclose(ours, wanted, rtol=1e-9, atol=1e-12 * float(wanted.abs().max()))


@pytest.mark.parametrize("name", GATED)
def test_hessian_of_the_barrier(name: str) -> None:
    steps, start, scales = start_of(name)
    run = forward(steps, start, scales, keeps=True)
    assert run is not None
    unit = torch.eye(len(run.covariance), dtype=torch.float64)
    level = 1.5 * greatest_eigenvalue(run.covariance)

    def barrier(flat: Float64[Tensor, " psis"]) -> Float64[Tensor, ""]:
        outputs, log_det = covariance(steps, start, flat)
        return -log_det - torch.linalg.slogdet(level * unit - outputs)[1]

    flat = torch.cat(scales)
    wanted = torch.autograd.functional.hessian(barrier, flat)
    slope = torch.autograd.functional.jacobian(barrier, flat)
    assert isinstance(wanted, Tensor)
    assert isinstance(slope, Tensor)
    found = curvature(steps, run, unit, torch.linalg.inv(level * unit - run.covariance))
    assert torch.allclose(found.hessian, wanted, rtol=1e-8, atol=1e-11 * float(wanted.abs().max()))
    assert torch.allclose(found.gradient, slope, rtol=1e-8, atol=1e-11 * float(slope.abs().max()))


@pytest.mark.parametrize("kind", ["joint", "greatest", "sum"])
@pytest.mark.parametrize("name", ["branches", "groupsort", "mixed_slopes"])
def test_gradient_of_the_search(name: str, kind: str) -> None:
    steps, start, scales = start_of(name)
    rows = torch.tensor([[1.0, 0.5], [0.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    objective = Objective(rows, kind)  # pyright: ignore[reportArgumentType] (parametrised)
    where = settled(steps, start, scales, rows)
    inputs = torch.arange(len(start))
    landscape = Landscape(steps, start, objective, where, inputs)
    point = landscape.origin
    here = landscape.value(point, 7.0)
    assert here is not None
    moving = torch.nonzero(here.gradient).flatten()
    for i in moving.tolist():
        nudge = torch.zeros_like(point)
        nudge[i] = 1e-5
        ahead, behind = landscape.value(point + nudge, 7.0), landscape.value(point - nudge, 7.0)
        assert ahead is not None
        assert behind is not None
        slope = (ahead.log - behind.log) / 2e-5
        assert slope == pytest.approx(float(here.gradient[i]), rel=1e-4, abs=1e-8)
