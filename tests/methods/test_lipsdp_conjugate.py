"""The Newton system by conjugate gradients: the one that is formed, and the same optimum."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.methods.lipsdp_networks import NETWORKS, Builder, noise
from verifier.methods.lipsdp import conjugate
from verifier.methods.lipsdp.conjugate import Conjugate, Effort, is_worth
from verifier.methods.lipsdp.form import form_of
from verifier.methods.lipsdp.inequality import Inequality, Point, ones
from verifier.methods.lipsdp.interior_point import solve
from verifier.methods.lipsdp.newton import Factored, Products
from verifier.methods.lipsdp.problem import Family
from verifier.methods.lipsdp.slopes import global_slopes
from verifier.network.elementwise import Relu
from verifier.network.graph import Network


def as_many_as_it_takes(_: Inequality) -> int:
    return 500


def never_worth(_: Inequality) -> bool:
    return False


def never(_: int, values: Tensor, __: Tensor) -> Tensor:
    return torch.zeros_like(values, dtype=torch.bool)


def many_inputs(inputs: int) -> Network:
    b = Builder(inputs, 3)
    last = b.gate(Relu, b.dense(7, b.gate(Relu, b.dense(5, ""))))
    b.dense(3, last)
    return b.network()


def of_rows(network: Network, rows: int) -> Inequality:
    """Each output by itself, linf inputs, side by side."""
    kept = network.lowered("keep")
    form = form_of(kept, torch.arange(kept.input_size), global_slopes(kept))
    selections = [row[None] for row in torch.eye(network.output_size, dtype=torch.float64)[:rows]]
    family = Family(form, inputs_in_linf=True)
    return family.scaled(torch.stack(selections), family.support(selections[0])).problem


def definite(batch: int, size: int, seed: int) -> Tensor:
    root = noise(torch.Generator().manual_seed(seed), batch * size, size).unflatten(0, (batch, -1))
    return root @ root.mT + torch.eye(size, dtype=torch.float64)


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("name", ["residual", "groupsort", "mixed_slopes", "many"])
def test_solution_is_that_of_the_formed_system(
    name: str, rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conjugate, "most_steps", as_many_as_it_takes)
    problem = of_rows(many_inputs(101) if name == "many" else NETWORKS[name](), 2)
    slack = definite(2, problem.rows, 3)
    dual = Products.of(problem, definite(2, problem.rows, 4))
    inverse = Products.of(problem, torch.linalg.inv(slack))
    curvature = torch.ones_like(problem.weights)
    right = Point(
        level=problem.weights.new_ones(2),
        gates=problem.weights.new_ones(2, problem.multipliers),
        inputs=torch.arange(problem.weights.numel()).double().cos().view_as(problem.weights),
    )
    formed = Factored.of(problem, dual, inverse, curvature)
    applied = Conjugate(problem, slack, (dual, inverse), curvature, Effort(rank=rank), 1e-12)
    assert bool(formed.holds.all())
    assert bool(applied.holds.all())
    expected, found = formed.solve(right), applied.solve(right)
    assert torch.allclose(found.inputs, expected.inputs, rtol=1e-6, atol=1e-8)
    assert torch.allclose(found.gates, expected.gates, rtol=1e-6, atol=1e-8)


def test_the_optimum_does_not_depend_on_how_the_system_is_solved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = of_rows(many_inputs(101), 3)
    assert is_worth(problem)
    applied = solve(problem, gap=1e-7, iterations=60, watch=never)
    monkeypatch.setattr("verifier.methods.lipsdp.interior_point.is_worth", never_worth)
    formed = solve(problem, gap=1e-7, iterations=60, watch=never)
    assert torch.allclose(applied.value, formed.value, rtol=1e-6)
    assert bool((applied.value < problem.objective(ones(problem))).all())


def test_a_run_gives_up_where_steps_cost_more_than_the_system() -> None:
    effort = Effort()
    effort.learn(steps=conjugate.GREATEST_RANK + 3, most=100)
    assert (effort.rank, effort.gives_up) == (2, False)
    effort.learn(steps=100, most=100)
    assert effort.gives_up
