"""The parts of the interior-point method, each against a definition."""

from __future__ import annotations

import math

import pytest
import torch
from jaxtyping import Float64
from torch import Tensor

from tests.checker.shared import ROOT, needs_shared
from tests.methods.lipsdp_networks import NETWORKS, noise
from verifier.errors import JobFailed
from verifier.methods.lipsdp import interior_point
from verifier.methods.lipsdp import problem as problems
from verifier.methods.lipsdp.form import Form, form_of
from verifier.methods.lipsdp.inequality import Inequality, Point, ones
from verifier.methods.lipsdp.newton import Products, newton_factor
from verifier.methods.lipsdp.problem import Family, Scaled
from verifier.methods.lipsdp.repair import repaired
from verifier.methods.lipsdp.slopes import global_slopes
from verifier.methods.lipsdp.step_length import longest_step
from verifier.network.everywhere import everywhere
from verifier.onnx_import import load

KINDS = [(name, linf) for name in ("residual", "groupsort", "mixed_slopes") for linf in (0, 1)]


def scaled(form: Form, *selections: Float64[Tensor, "_ outputs"], linf: bool) -> Scaled:
    family = Family(form, inputs_in_linf=linf)
    return family.scaled(torch.stack(selections), family.support(selections[0]))


def never(_: int, values: Tensor, __: Tensor) -> Tensor:
    return torch.zeros_like(values, dtype=torch.bool)


def scaled_problem(name: str, linf: int) -> Scaled:
    network = NETWORKS[name]().lowered("keep")
    form = form_of(network, torch.arange(3), global_slopes(network))
    outputs = torch.eye(2, dtype=torch.float64)
    return scaled(form, outputs[:1] if linf else outputs, linf=bool(linf))[0]


def flat(point: Point) -> Float64[Tensor, " n"]:
    return torch.cat([point.level[None], point.gates, point.inputs])


def units(problem: Inequality) -> list[Point]:
    """The point of each coordinate direction."""
    count, inputs = problem.multipliers, len(problem.weights)
    eye = torch.eye(1 + count + inputs, dtype=torch.float64)
    return [Point(level=r[0], gates=r[1 : 1 + count], inputs=r[1 + count :]) for r in eye]


def definite(size: int, seed: int) -> Float64[Tensor, "n n"]:
    root = noise(torch.Generator().manual_seed(seed), size, size)
    return root @ root.T + torch.eye(size, dtype=torch.float64)


@pytest.mark.parametrize("size", [7, 150])
def test_longest_step_reaches_the_boundary(size: int) -> None:
    matrix = definite(size, 0)
    turn = noise(torch.Generator().manual_seed(1), size, size)
    direction = turn + turn.T
    step = longest_step(torch.linalg.cholesky(matrix), direction, accuracy=60)
    assert abs(float(torch.linalg.eigvalsh(matrix + step * direction)[0])) < 1e-3 * size
    assert longest_step(torch.linalg.cholesky(matrix), matrix) > 1e12


@pytest.mark.parametrize(("name", "linf"), KINDS)
def test_adjoint_is_the_transpose_of_the_linear_part(name: str, linf: int) -> None:
    problem = scaled_problem(name, linf).problem
    matrix = definite(problem.rows, 2)
    traces = [(matrix * problem.linear(unit)).sum() for unit in units(problem)]
    assert torch.allclose(flat(problem.adjoint(matrix)), torch.stack(traces))
    assert torch.allclose(flat(Products.of(problem, matrix).traces(problem)), torch.stack(traces))


@pytest.mark.parametrize(("name", "linf"), KINDS)
def test_newton_matrix_is_made_of_traces(name: str, linf: int) -> None:
    problem = scaled_problem(name, linf).problem
    dual, inverse = definite(problem.rows, 3), definite(problem.rows, 4)
    curvature = torch.ones_like(problem.weights)
    factor, holds = newton_factor(
        problem, Products.of(problem, dual), Products.of(problem, inverse), curvature
    )
    assert bool(holds)
    parts = [problem.linear(unit) for unit in units(problem)]
    expected = torch.stack(
        [torch.stack([(a * (dual @ b @ inverse)).sum() for b in parts]) for a in parts]
    )
    expected = (expected + expected.T) / 2
    first = 1 + problem.multipliers
    expected[first:, first:] += torch.diag(curvature)
    assert torch.allclose(factor @ factor.T, expected, rtol=1e-9)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "linear_only"])
def test_start_is_strictly_feasible_on_every_graph(name: str) -> None:
    network = NETWORKS[name]().lowered("keep")
    form = form_of(network, torch.arange(network.input_size), global_slopes(network))
    outputs = torch.eye(network.output_size, dtype=torch.float64)
    problem = scaled(form, outputs, linf=False)[0].problem
    start = ones(problem)
    raised = start.at_level(start.level * 1.01)
    assert 0 < float(torch.linalg.eigvalsh(problem.slack(raised))[0])
    assert abs(float(torch.linalg.eigvalsh(problem.slack(start))[0])) < 1e-9


@pytest.mark.parametrize(("name", "linf"), KINDS)
def test_a_hurried_start_is_feasible_too(name: str, linf: int) -> None:
    network = NETWORKS[name]().lowered("keep")
    form = form_of(network, torch.arange(3), global_slopes(network))
    outputs = torch.eye(2, dtype=torch.float64)[None, : 1 if linf else 2]
    family = Family(form, inputs_in_linf=bool(linf))
    problem = family.scaled(outputs, family.support(outputs[0]), hurried=True)[0].problem
    start = ones(problem)
    raised = start.at_level(start.level * 1.01)
    assert 0 < float(torch.linalg.eigvalsh(problem.slack(raised))[0])
    assert abs(float(torch.linalg.eigvalsh(problem.slack(start))[0])) < 1e-9


@pytest.mark.parametrize(("name", "linf"), KINDS)
def test_duality_gap_closes(name: str, linf: int) -> None:
    problem = scaled_problem(name, linf).problem[None]
    found = interior_point.solve(problem, gap=1e-7, iterations=60, watch=never)
    lower, value = float(found.lower), float(found.value)
    assert lower <= value <= lower * (1 + 1e-7)


@pytest.mark.parametrize("junk", [0.0, -1.0, math.nan, math.inf, 1e-9, 1e9])
@pytest.mark.parametrize(("name", "linf"), KINDS)
def test_repair_makes_anything_strictly_feasible(name: str, linf: int, junk: float) -> None:
    problem = scaled_problem(name, linf).problem
    start = ones(problem)
    gates = start.gates.clone()
    gates[::2] = junk
    point = Point(level=start.level * junk, gates=gates, inputs=start.inputs.clone())
    strict = repaired(problem, point, 0.0)
    assert 0 < float(strict.gates.min())
    assert 0 < float(torch.linalg.eigvalsh(problem.slack(strict))[0])


@needs_shared
def test_a_start_that_rounding_leaves_no_room_is_made_with_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Behind the five steps of a GRU the gates of a start span fifteen decades."""
    assert ROOT is not None
    data = (ROOT / "models/exports/rnn_gru.legacy.onnx").read_bytes()
    network = everywhere(load(data, differential=False).require_network()).lowered("keep")
    form = form_of(network, torch.arange(network.input_size), global_slopes(network))
    outputs = torch.eye(network.output_size, dtype=torch.float64)
    assert scaled(form, outputs, linf=False).unit.level.isfinite().all()
    monkeypatch.setattr(problems, "MORE_ROOM", ())
    with pytest.raises(JobFailed, match="range of float64"):
        scaled(form, outputs, linf=False)
