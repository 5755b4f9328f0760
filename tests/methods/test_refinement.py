"""Refinement: never below a Jacobian at a vertex, better than LipSDP, and it stops when told."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from jaxtyping import Float64
from torch import Tensor

from tests.methods.lipsdp_networks import NETWORKS, Builder, vertex_jacobians
from verifier.certificate import Candidate, LmiProof
from verifier.methods import lipsdp
from verifier.methods.clock import Clock
from verifier.methods.items import items_of
from verifier.methods.progress import Aim
from verifier.methods.refinement import candidates, vertex_maximum, vertices
from verifier.methods.refinement.tier import form_of_property
from verifier.network.elementwise import Relu
from verifier.network.graph import Network
from verifier.norms import Norm, NormPair
from verifier.property import Each, Margins, Outputs, Property

PAIRS = [NormPair(i, o) for i in Norm for o in Norm]
SMALL = ["relu_chain", "residual", "maxmin", "householder", "mixed_slopes", "groupsort"]
CLOCK = 60.0


@cache
def jacobians(name: str) -> Float64[Tensor, "vertices outputs inputs"]:
    """Every vertex where there are few, else 512 of them."""
    return torch.stack(list(vertex_jacobians(form_of_property(NETWORKS[name](), Property()), 512)))


@cache
def base_of(name: str) -> Candidate:
    return lipsdp.candidate(NETWORKS[name](), Property(), lipsdp.Options(), Clock.start(CLOCK))


def norm(matrices: Float64[Tensor, "vertices m n"], pair: NormPair) -> float:
    """The greatest operator norm, for pairs that are easy: by rows, by columns, or spectral."""
    match pair:
        case NormPair(Norm.L2, Norm.L2):
            return float(torch.linalg.matrix_norm(matrices, 2).max())
        case NormPair(Norm.L1, Norm.L2):
            return float(matrices.norm(dim=1).max())
        case NormPair(Norm.L1, _):
            columns = matrices.abs()
            return float((columns.sum(1) if pair.output is Norm.L1 else columns).max())
        case NormPair(_, Norm.LINF):
            rows = matrices.norm(dim=2) if pair.input is Norm.L2 else matrices.abs().sum(dim=2)
            return float(rows.max())
        case _:
            signs = torch.tensor([[1.0, 1.0, 1.0], [1, 1, -1], [1, -1, 1], [-1, 1, 1]]).double()
            if pair.input is Norm.LINF:
                return float(
                    (matrices @ signs.T).norm(dim=1, p=1 if pair.output is Norm.L1 else 2).max()
                )
            turned = torch.tensor([[1.0, 1.0], [1, -1]]).double() @ matrices
            return float(turned.norm(dim=2).max())


@pytest.mark.parametrize("pair", PAIRS, ids=lambda p: f"{p.input}-{p.output}")
@pytest.mark.parametrize("name", ["relu_chain", "residual", "maxmin", "householder"])
def test_the_vertex_search_finds_the_maximum(name: str, pair: NormPair) -> None:
    whole = norm(jacobians(name), pair)
    form = form_of_property(NETWORKS[name](), Property())
    rows = torch.eye(2, dtype=torch.float64)
    found = vertices.search(form, rows, pair, rounds=4, clock=Clock.start(CLOCK))
    assert found == pytest.approx(whole, rel=1e-9)


@pytest.mark.parametrize("name", NETWORKS)
def test_no_bound_is_below_a_vertex(name: str) -> None:
    reached = norm(jacobians(name), NormPair(Norm.L2, Norm.L2))
    network, base = NETWORKS[name](), base_of(name)
    estimate = vertex_maximum(network, Property(), Clock.start(CLOCK))
    assert reached <= estimate * (1 + 1e-9)
    least = base.estimates[0]
    for found in refined(network, Property(), base):
        assert found.estimates[0] < least
        least = found.estimates[0]
    assert estimate * (1 - 1e-9) <= least


def refined(network: Network, asked: Property, base: Candidate, limit: int = 5) -> list[Candidate]:
    clock = Clock.start(CLOCK)
    return list(candidates(network, asked, lipsdp.Options(), clock, base=base, limit=limit))


def chain(depth: int, width: int, groups: int | None, seed: int) -> Network:
    """Dense layers with ReLU, or sorted in groups."""
    b = Builder(3, seed)
    signal = ""
    for _ in range(depth):
        signal = b.dense(width, signal)
        signal = b.gate(Relu, signal) if groups is None else b.sort(groups, signal)
    b.dense(2, signal)
    return b.network()


@pytest.mark.parametrize(("depth", "width", "groups"), [(5, 6, 2), (4, 4, None), (2, 6, 3)])
def test_the_gap_to_the_vertices_closes(depth: int, width: int, groups: int | None) -> None:
    """On tiny networks, most of what LipSDP leaves: strictly tighter on deep MaxMin chains."""
    network = chain(depth, width, groups, 0)
    base = lipsdp.candidate(network, Property(), lipsdp.Options(), Clock.start(CLOCK))
    reached = vertex_maximum(network, Property(), Clock.start(CLOCK))
    (*_, best) = refined(network, Property(), base, 8)
    assert reached * (1 - 1e-9) <= best.estimates[0]
    assert best.estimates[0] / reached - 1 <= 0.5 * (base.estimates[0] / reached - 1)


@pytest.mark.parametrize("outputs", [Each(), Margins(None)])
def test_every_item_of_a_list_is_refined(outputs: Outputs) -> None:
    network = chain(4, 4, None, 3)
    asked = Property(outputs=outputs)
    base = lipsdp.candidate(network, asked, lipsdp.Options(), Clock.start(CLOCK))
    (*_, best) = refined(network, asked, base)
    form = form_of_property(network, asked)
    l2 = NormPair(Norm.L2, Norm.L2)
    for item, before, after in zip(items_of(asked, 2), base.estimates, best.estimates, strict=True):
        reached = vertices.search(form, item.rows, l2, rounds=4, clock=Clock.start(CLOCK))
        assert reached * (1 - 1e-9) <= after <= before
    assert math.fsum(best.estimates) < math.fsum(base.estimates)


def test_the_largest_output_is_refined_for_linf() -> None:
    network = chain(4, 4, None, 4)
    asked = Property(norm=NormPair(Norm.L2, Norm.LINF))
    base = lipsdp.candidate(network, asked, lipsdp.Options(), Clock.start(CLOCK))
    reached = vertex_maximum(network, asked, Clock.start(CLOCK))
    (*_, best) = refined(network, asked, base)
    assert reached * (1 - 1e-9) <= best.estimates[0] < base.estimates[0]


def test_nothing_is_sought_where_enough_is_known_or_the_clock_has_run_out() -> None:
    network = chain(4, 4, None, 0)
    base = lipsdp.candidate(network, Property(), lipsdp.Options(), Clock.start(CLOCK))
    enough = Aim(enough=base.estimates[0])
    options = lipsdp.Options()
    assert not list(candidates(network, Property(), options, Clock.start(CLOCK), enough, base=base))
    assert not list(candidates(network, Property(), options, Clock.start(0.0), base=base))


def test_a_round_is_the_last_when_its_bound_is_enough() -> None:
    network = chain(4, 4, None, 0)
    base = lipsdp.candidate(network, Property(), lipsdp.Options(), Clock.start(CLOCK))
    first, *others = refined(network, Property(), base)
    assert others
    aim = Aim(enough=first.estimates[0])
    clock = Clock.start(CLOCK)
    found = list(candidates(network, Property(), lipsdp.Options(), clock, aim, base=base))
    assert len(found) <= 2
    assert found[-1].estimates[0] <= first.estimates[0] * (1 + 1e-6)


def test_rows_are_those_of_the_base_but_for_what_was_refined() -> None:
    network = chain(2, 6, 3, 0)
    base = lipsdp.candidate(network, Property(), lipsdp.Options(), Clock.start(CLOCK))
    (*_, best) = refined(network, Property(), base)
    assert isinstance(base.proof, LmiProof)
    assert isinstance(best.proof, LmiProof)
    (before,), (after,) = base.proof.items[0].rows, best.proof.items[0].rows
    assert before.multipliers.keys() == after.multipliers.keys() == after.sort_blocks.keys()
    assert after.level < before.level
