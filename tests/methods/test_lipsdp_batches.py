"""Inequalities solved side by side: each as if it were alone, and ended when it may be."""

from __future__ import annotations

import math

import pytest
import torch
from jaxtyping import Float64
from torch import Tensor

from tests.methods.lipsdp_networks import NETWORKS, Builder
from verifier.methods.clock import Clock
from verifier.methods.items import items_of
from verifier.methods.lipsdp import Options, candidate, problem, rows
from verifier.methods.lipsdp.form import Form, form_of
from verifier.methods.lipsdp.inequality import Inequality, ones
from verifier.methods.lipsdp.interior_point import solve
from verifier.methods.lipsdp.panels import (
    mirrored,
    outer,
    panels_of,
    symmetric,
    times,
    upper_gram,
    upper_outer,
    upper_product,
)
from verifier.methods.lipsdp.problem import Family
from verifier.methods.lipsdp.slopes import global_slopes
from verifier.methods.progress import Aim, Step
from verifier.network.elementwise import Relu
from verifier.network.graph import Network
from verifier.norms import Norm, NormPair
from verifier.property import Each, Margins, Property

L2 = NormPair(Norm.L2, Norm.L2)
LINF = NormPair(Norm.LINF, Norm.LINF)


def wide(outputs: int, inputs: int = 5, seed: int = 3) -> Network:
    """A chain of nodes of several widths, so that panels differ."""
    b = Builder(inputs, seed)
    last = ""
    for width in (7, 11, 3):
        last = b.gate(Relu, b.dense(width, last))
    b.dense(outputs, last)
    return b.network()


def form_of_network(network: Network) -> Form:
    kept = network.lowered("keep")
    return form_of(kept, torch.arange(kept.input_size), global_slopes(kept))


def problems(network: Network, selections: list[Tensor], *, linf: bool) -> Inequality:
    family = Family(form_of_network(network), inputs_in_linf=linf)
    return family.scaled(torch.stack(selections), family.support(selections[0])).problem


def never(_: int, values: Tensor, __: Tensor) -> Tensor:
    return torch.zeros_like(values, dtype=torch.bool)


@pytest.mark.parametrize("linf", [False, True])
@pytest.mark.parametrize("batch", [2, 5])
def test_a_batch_is_its_members(batch: int, linf: bool) -> None:
    network = wide(batch)
    selections = [row[None] for row in torch.eye(batch, dtype=torch.float64)]
    gap = 1e-7
    together = solve(problems(network, selections, linf=linf), gap=gap, iterations=40, watch=never)
    for i, selection in enumerate(selections):
        alone = solve(
            problems(network, [selection], linf=linf), gap=gap, iterations=40, watch=never
        )
        assert float(together.value[i]) == pytest.approx(float(alone.value), rel=gap)
        assert torch.allclose(together.point.gates[i], alone.point.gates[0], rtol=1e-3)


@pytest.mark.parametrize("pair", [L2, LINF], ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_list_of_bounds_is_the_bounds_of_its_items(
    name: str, pair: NormPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, clock = NETWORKS[name](), Clock.start(60.0)
    asked = Property(norm=pair, outputs=Margins(pairs=((0, 1), (1, 0))))
    each = Property(norm=pair, outputs=Each())
    batched = [candidate(network, one, Options(), clock).estimates for one in (asked, each)]
    monkeypatch.setattr(rows, "_BATCH_ENTRIES", 1)
    singly = [candidate(network, one, Options(), clock).estimates for one in (asked, each)]
    for one, other in zip(batched, singly, strict=True):
        assert one == pytest.approx(other, rel=2e-6)


def test_ends_are_each_ones_own() -> None:
    """What is told to end stays at its start, and the others go on."""
    selections = [row[None] for row in torch.eye(3, dtype=torch.float64)]
    batch = problems(wide(3), selections, linf=False)

    def second(_: int, values: Tensor, __: Tensor) -> Tensor:
        return torch.arange(len(values)) == 1

    found = solve(batch, gap=1e-7, iterations=40, watch=second)
    whole = solve(batch, gap=1e-7, iterations=40, watch=never)
    assert torch.allclose(found.value[[0, 2]], whole.value[[0, 2]], rtol=1e-9)
    assert float(whole.value[1]) < float(found.value[1]) <= float(batch.objective(ones(batch))[1])


def test_steps_are_reported_and_a_bound_that_is_enough_ends_them() -> None:
    network, steps = wide(2), list[Step]()
    whole = candidate(
        network, Property(), Options(), Clock.start(60.0), Aim(report=steps.append)
    ).estimates[0]
    assert [step.iteration for step in steps] == list(range(1, len(steps) + 1))
    assert {step.phase for step in steps} == {"interior point"}
    gaps = [step.gap for step in steps if step.gap is not None]
    assert gaps[-1] < 1e-6 < gaps[0]
    fewer = list[Step]()
    aim = Aim(enough=whole * 1.05, report=fewer.append)
    bound = candidate(network, Property(), Options(), Clock.start(60.0), aim).estimates[0]
    assert whole < bound <= whole * 1.05
    assert len(fewer) < len(steps)


def test_only_the_greatest_output_is_solved_to_the_end() -> None:
    network = wide(3)
    asked = Property(norm=LINF)
    (bound,) = candidate(network, asked, Options(), Clock.start(60.0)).estimates
    each = Property(norm=LINF, outputs=Each())
    apart = candidate(network, each, Options(), Clock.start(60.0)).estimates
    assert bound == pytest.approx(max(apart), rel=2e-6)


def test_many_inputs_of_low_rank_are_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """101 inputs enter 7 gates: M is as wide as they are, F_0 as wide as the gates."""
    network, row = wide(2, inputs=101), torch.eye(2, dtype=torch.float64)[[0]]
    mixed = problems(network, [row], linf=True)
    assert mixed.mix is not None
    assert mixed.drive.shape[-1] == 7
    monkeypatch.setattr(problem, "_MANY_INPUTS", 1000)
    plain = problems(network, [row], linf=True)
    assert plain.mix is None
    point = ones(plain)
    assert torch.allclose(mixed.slack(point), plain.slack(point), atol=1e-13)
    matrix = plain.slack(point)
    assert torch.allclose(mixed.adjoint(matrix).inputs, plain.adjoint(matrix).inputs, atol=1e-13)


def staircase(
    nodes: list[int], outputs: int
) -> tuple[Float64[Tensor, "batch rows psis"], list[int]]:
    """A random C of such nodes, the last node first."""
    generator = torch.Generator().manual_seed(0)
    size = sum(nodes)
    spread = torch.randn(2, outputs + size, size, generator=generator, dtype=torch.float64)
    first = 0
    for count in nodes:
        spread[:, outputs + first :, first : first + count] = 0.0
        first += count
    return spread, nodes


@pytest.mark.parametrize("nodes", [[5], [2, 3], [60, 70, 50], [10, 20, 30, 150, 7]])
def test_products_that_skip_zeros_are_products(nodes: list[int]) -> None:
    spread, _ = staircase(nodes, outputs=3)
    panels = panels_of(nodes, 3)
    generator = torch.Generator().manual_seed(1)
    root = torch.randn(2, spread.shape[-2], spread.shape[-2], generator=generator).double()
    matrix = root + root.mT
    weights = torch.rand(2, 1, spread.shape[-1], generator=generator).double()
    image = times(matrix, spread, panels)
    assert torch.allclose(image, matrix @ spread)
    assert torch.allclose(mirrored(upper_gram(spread, image, panels)), spread.mT @ image)
    scaled = spread * weights
    assert torch.allclose(mirrored(upper_outer(spread, scaled, panels)), scaled @ spread.mT)
    assert torch.allclose(mirrored(upper_product(scaled, spread.mT)), scaled @ spread.mT)
    assert torch.allclose(outer(spread, image.mT, panels), spread @ image.mT)
    assert torch.allclose(symmetric(root.clone()), matrix / 2)


def test_expired_clock_still_bounds_every_item() -> None:
    network = wide(5)
    asked = Property(outputs=Each())
    rushed = candidate(network, asked, Options(), Clock.start(0.0)).estimates
    calm = candidate(network, asked, Options(), Clock.start(60.0)).estimates
    assert all(b <= a < math.inf for a, b in zip(rushed, calm, strict=True))
    assert len(rushed) == len(items_of(asked, 5))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("pair", [L2, LINF], ids=str)
def test_a_device_finds_what_the_cpu_finds(pair: NormPair) -> None:
    network, asked = wide(3), Property(norm=pair, outputs=Each())
    there = candidate(network, asked, Options(device="cuda"), Clock.start(60.0)).estimates
    here = candidate(network, asked, Options(device="cpu"), Clock.start(60.0)).estimates
    assert there == pytest.approx(here, rel=2e-6)
