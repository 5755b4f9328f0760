"""The parts of branch and bound, each against an answer by other means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import linprog  # type: ignore[import-untyped] # scipy ships no types

from tests.tiny_topologies import chain, tiny_network
from verifier.methods.branch.bounding import bounded
from verifier.methods.branch.cells import increments, sides_of
from verifier.methods.branch.extremes import Polytopes, reached
from verifier.methods.branch.feasible import decide
from verifier.methods.branch.planes import planes
from verifier.methods.branch.points import Pool
from verifier.methods.branch.question import Question
from verifier.methods.branch.roots import roots
from verifier.methods.branch.tree import Cell
from verifier.methods.branch.trimming import trimmed
from verifier.norms import Norm, NormPair
from verifier.onnx_import import load
from verifier.property import Each, Property
from verifier.regions import EndsBox

SEEDS = (0, 1, 6, 43, 52)


def question(seed: int, norm: Norm = Norm.LINF) -> Question:
    """One task for each output."""
    tiny = tiny_network(seed)
    inputs = tiny.network.size
    region = EndsBox(lower=(-0.375,) * inputs, upper=(0.25,) * inputs)
    pair = NormPair(norm, norm)
    asked = Property(scope="local", norm=pair, region=region, outputs=Each())
    found = Question.of(load(tiny.network.model).require_network(), asked)
    assert found is not None
    return found


def bent(seed: int) -> Question:
    """Gates with two kinks, more than one of them within an interval."""
    tiny = chain(seed, (3, 6, 5, 2), ("clip", "clip"))
    region = EndsBox(lower=(-2.0,) * 3, upper=(3.0,) * 3)
    pair = NormPair(Norm.LINF, Norm.LINF)
    asked = Property(scope="local", norm=pair, region=region, outputs=Each())
    found = Question.of(load(tiny.network.model).require_network(), asked)
    assert found is not None
    assert len(found.kinks.first) < len(found.kinks.psi)
    return found


def points(about: Question, count: int = 101) -> torch.Tensor:
    random = torch.Generator().manual_seed(1)
    size = about.network.input_size
    return 2 * torch.rand(count, size, dtype=torch.float64, generator=random) - 1


@pytest.mark.parametrize("shape", [(7, 1), (13, 3), (11, 17), (3, 29)], ids=str)
def test_half_spaces_meet_or_contradict_each_other(shape: tuple[int, int]) -> None:
    rows, size = shape
    random = torch.Generator().manual_seed(rows)
    normal = torch.randn(31, rows, size, dtype=torch.float64, generator=random)
    shift = torch.rand(31, 1, dtype=torch.float64, generator=random) * 2 - 1.2
    offset = torch.rand(31, rows, dtype=torch.float64, generator=random) * shift * size**0.5
    answers = decide(normal, offset)
    assert bool((answers.has_point ^ answers.is_empty).all())
    for place in range(31):
        if answers.has_point[place]:
            point = answers.point[place]
            assert bool((normal[place] @ point < offset[place]).all())
            assert bool((point.abs() <= 1).all())
        else:
            weights = answers.weights[place]
            assert bool((0 <= weights).all())
            pulled = (normal[place].T @ weights).abs().sum()
            assert float(offset[place] @ weights + pulled) < 0


def test_decisions_are_those_of_a_general_solver() -> None:
    random = torch.Generator().manual_seed(2)
    normal = torch.randn(41, 9, 4, dtype=torch.float64, generator=random)
    offset = torch.randn(41, 9, dtype=torch.float64, generator=random) + 0.3
    answers = decide(normal, offset)
    for place in range(41):
        solved = linprog(
            np.zeros(4),
            A_ub=normal[place].numpy(),
            b_ub=offset[place].numpy(),
            bounds=[(-1, 1)] * 4,
        )
        assert bool(answers.has_point[place]) == (solved.status == 0)


@pytest.mark.parametrize("seed", SEEDS)
def test_jacobians_of_cells_are_those_of_their_points(seed: int) -> None:
    """With every gate's side known, Y over dx is the network's derivative."""
    about = question(seed)
    x = about.domain.center + about.domain.reach * points(about)
    sides = sides_of(about, x)
    rows = torch.cat([task.outflow for task in about.tasks])
    found = increments(
        about.form.inflow, rows.expand(len(x), *rows.shape), about.kinks.sigma(sides)
    ).outflow
    wanted = about.derivatives.jacobian(x)
    assert torch.allclose(found, wanted[:, :, about.varying.bool()], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0], ids=str)
@pytest.mark.parametrize("asked", [question, bent])
@pytest.mark.parametrize("seed", SEEDS)
def test_points_lie_within_the_planes_of_their_cells(
    asked: Callable[[int], Question], seed: int, share: float
) -> None:
    """Whichever of the sides are known: half of them, at random; in intervals of any width."""
    about = asked(seed)
    u = points(about)
    x = about.domain.center + about.domain.reach * u
    sides = sides_of(about, x)
    random = torch.Generator().manual_seed(3)
    kept = torch.rand(sides.shape, dtype=torch.float64, generator=random) < 0.5
    ends = torch.stack([about.values.least, about.values.greatest])
    t = entering(about, x)[:, None, :]
    near = torch.where(about.kinks.known, t + share * (ends - t), ends)
    found = planes(about, torch.where(kept, sides, 0.0), near)
    values = found.offset + (found.normal @ u[None, :, :, None])[..., 0]
    below, above = sides < 0, 0 < sides
    assert bool((-1e-9 <= values[0][below & found.usable[0]]).all())
    assert bool((-1e-9 <= values[1][above & found.usable[1]]).all())


def entering(about: Question, x: torch.Tensor) -> torch.Tensor:
    """What enters the gates, less their kinks."""
    signals = about.lowered.signals(x)
    z = [signals[gate.node.source][:, gate.entries] for gate in about.gates]
    return torch.cat(z, dim=1)[:, about.kinks.psi] - about.kinks.place


@pytest.mark.parametrize("asked", [question, bent])
@pytest.mark.parametrize("seed", SEEDS)
def test_no_point_of_a_cell_is_trimmed_off(asked: Callable[[int], Question], seed: int) -> None:
    """Cells of random sides, those of points that are not known to the pool among them."""
    about = asked(seed)
    pool = Pool(about)
    x = about.domain.center + about.domain.reach * points(about)
    t, known = entering(about, x), about.kinks.known
    cells: list[Cell] = []
    for place, sides in enumerate(sides_of(about, x)):
        cell = roots(about)[0] if place == 0 else replace(cells[0], parent=None, trims=[])
        walls = known & ((torch.arange(len(sides)) + place) % 3 == 0)
        cell.walls, cell.sides = walls, torch.where(walls, sides, 0.0)
        cells.append(cell)
    before = torch.stack([cell.ends for cell in cells]).clone()
    assert all(trimmed(about, pool, cells))
    after = torch.stack([cell.ends for cell in cells])
    assert bool((after[:, 0] <= t)[:, known].all())
    assert bool((t <= after[:, 1])[:, known].all())
    assert bool((before[:, 0] <= after[:, 0]).all() and (after[:, 1] <= before[:, 1]).all())
    sides = torch.stack([cell.sides for cell in cells])
    assert bool(((sides == 0) | (sides == sides_of(about, x))).all())


@pytest.mark.parametrize("shape", [(1, 3), (5, 4), (12, 16)], ids=str)
def test_functions_reach_as_far_as_a_general_solver_says(shape: tuple[int, int]) -> None:
    rows, size = shape
    random = torch.Generator().manual_seed(size)
    gradient = torch.randn(9, rows, size, dtype=torch.float64, generator=random)
    offset = torch.randn(9, rows, dtype=torch.float64, generator=random) + 0.2 * size**0.5
    cell = torch.arange(9).repeat(3)
    functions = torch.randn(27, size, dtype=torch.float64, generator=random)
    never = torch.full((27,), -torch.inf, dtype=torch.float64)
    found = reached(Polytopes(gradient=gradient, offset=offset), cell, functions, never)
    for place in range(27):
        own, shift = gradient[cell[place]], offset[cell[place]]
        solved = linprog(
            -functions[place].numpy(),
            A_ub=-own.numpy(),
            b_ub=shift.numpy(),
            bounds=[(-1, 1)] * size,
        )
        assert bool(found.is_empty[place]) == (solved.status == 2)
        pulled = found.weights[place] @ own
        if solved.status == 2:
            assert float(found.weights[place] @ shift + pulled.abs().sum()) < 0
        else:
            assert -1e-9 <= float(found.most[place]) + solved.fun <= 1e-5
    assert bool((0 <= found.weights).all())


@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L2])
@pytest.mark.parametrize("seed", SEEDS)
def test_what_a_child_inherits_is_what_its_parents_multipliers_prove(seed: int, norm: Norm) -> None:
    """The closed form of a fixed gate, against the inequality of the child itself."""
    about = question(seed, norm)
    root = max(roots(about), key=lambda cell: cell.bound)
    before = bounded(about, [root])
    gate = int(about.kinks.known.nonzero()[0])
    inherited = [
        float(before.bounds[0]) * float((1 - before.shares[side, 0, gate]).clamp(min=0)) ** 0.5
        for side in (0, 1)
    ]
    children = root.divided(gate)
    for child, bound in zip(children, inherited, strict=True):
        multipliers = before.multipliers[0]
        proved = _proved(about, child.sides, multipliers.gates, multipliers.inputs)
        assert abs(proved(root.task.outflow) - bound) <= 1e-7 * bound


def _proved(
    about: Question, sides: torch.Tensor, gates: torch.Tensor, inputs: torch.Tensor
) -> Callable[[torch.Tensor], float]:
    """sqrt(y'S^-1 y sum tau), S of the gates that are open."""

    def bound(outflow: torch.Tensor) -> float:
        found = increments(about.form.inflow, outflow[None], about.kinks.sigma(sides[None]))
        index = found.opened.index[0][found.opened.real[0]]
        rows = found.inflow[0][index]
        weights = gates[index]
        whole = torch.diag(torch.cat([inputs, weights])) - rows.T @ (weights[:, None] * rows)
        y = found.outflow[0, 0]
        square = float(y @ torch.linalg.solve(whole, y))
        return (square * (float(inputs.sum()) if about.norm.input is Norm.LINF else 1.0)) ** 0.5

    return bound
