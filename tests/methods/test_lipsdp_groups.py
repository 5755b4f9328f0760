"""Groups: the published constraint as an oracle that eliminating what groups keep never loses to.

Pauli et al. 2024 (arXiv 2401.14033) hold for increments v, z of a sorted or reflected signal, with
T = diag(lam) (x) I + diag(gam) (x) R, S = diag(nu) (x) R, P = diag(tau) (x) R, 0 <= lam,

    0 <= [v; z]' [[T - 2S, P + S], [P + S, -T - 2P]] [v; z],                             (1)

R = 11' for GroupSort, R = I - uu' for a reflection by the unit vector u.
"""

from __future__ import annotations

import math

import cvxpy as cp
import numpy as np
import pytest
import torch
from jaxtyping import Float64
from torch import Tensor

from tests.methods.lipsdp_networks import noise
from verifier.methods.clock import Clock
from verifier.methods.lipsdp import Options, candidate
from verifier.network.graph import Grouped, Network, Node
from verifier.network.grouped import Group, GroupSort, Householder
from verifier.network.linear_map import Dense
from verifier.network.nodes import Term, linear
from verifier.property import Property


def published_bound(
    weights: list[Float64[Tensor, "out in"]], kept: list[Float64[np.ndarray, "n n"]]
) -> float:
    """The least bound by (1) on a chain; kept[l] is R of every group of layer l."""
    sizes = [weights[0].shape[1], *(w.shape[0] for w in weights[:-1])]
    ends = np.cumsum([0, *sizes])
    level = cp.Variable(nonneg=True)
    pick = [np.eye(ends[-1])[ends[k] : ends[k + 1]] for k in range(len(sizes))]
    total = level * pick[0].T @ pick[0]
    output = weights[-1].numpy() @ pick[-1]
    total = total - output.T @ output
    for depth, keeps in enumerate(kept):
        groups, width = sizes[depth + 1] // len(keeps), len(keeps)
        lam = cp.Variable(groups, nonneg=True)
        # gam is left out: its form is half the difference of those of tau and nu.
        nu, tau = (cp.Variable(groups) for _ in range(2))
        entering, leaving = weights[depth].numpy() @ pick[depth], pick[depth + 1]
        for group in range(groups):
            rows = slice(group * width, (group + 1) * width)
            v, z = entering[rows], leaving[rows]
            vv, zz, cross = v.T @ keeps @ v, z.T @ keeps @ z, v.T @ keeps @ z
            both = cross + cross.T
            total = total - lam[group] * (v.T @ v - z.T @ z)
            total = total - nu[group] * (both - 2 * vv) - tau[group] * (both - 2 * zz)
    problem = cp.Problem(cp.Minimize(level), [total + total.T >> 0])
    problem.solve(solver=cp.CLARABEL)
    return math.sqrt(float(np.asarray(level.value)))


def chain(weights: list[Float64[Tensor, "out in"]], groups: list[Group]) -> Network:
    nodes: list[Node] = []
    source = ""
    for depth, weight in enumerate(weights):
        nodes.append(linear(f"v{depth}", (Term(source, Dense(weight)),)))
        source = f"v{depth}"
        if depth < len(groups):
            nodes.append(Grouped(f"z{depth}", source, groups[depth]))
            source = f"z{depth}"
    return Network(nodes=tuple(nodes), input_size=weights[0].shape[1], output=source)


def random_weights(seed: int) -> list[Float64[Tensor, "out in"]]:
    generator = torch.Generator().manual_seed(seed)
    return [noise(generator, *shape) for shape in ((6, 3), (6, 6), (2, 6))]


def own_bound(network: Network) -> float:
    return candidate(network, Property(), Options(), Clock.start(60.0)).estimates[0]


@pytest.mark.parametrize("count", [2, 3, 6])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
def test_sorting_is_never_looser_than_published(count: int, seed: int) -> None:
    weights = random_weights(seed)
    places = torch.arange(6).reshape(-1, count)
    own = own_bound(chain(weights, [GroupSort(places, places)] * 2))
    published = published_bound(weights, [np.ones((count, count))] * 2)
    assert own <= published * (1 + 1e-5)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
def test_mirrors_are_never_looser_than_published(seed: int) -> None:
    weights = random_weights(seed)
    slices = torch.arange(6).reshape(-1, 2)
    unit = torch.tensor([0.6, 0.8], dtype=torch.float64)
    own = own_bound(chain(weights, [Householder(slices, unit.expand(3, 2))] * 2))
    keeps = np.eye(2) - np.outer(unit, unit)
    assert own <= published_bound(weights, [keeps] * 2) * (1 + 1e-5)
