"""Boxes of inputs: what they bound contains what is sampled, and trees of them converge."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from tests.exact import Pair
from verifier.certificate import EMPTY, JACOBIAN, TreeProof, Witness
from verifier.checker import check, entry_bounds, witness_value
from verifier.checker.graph import read_network
from verifier.checker.items import selection
from verifier.checker.tree import prove_tree
from verifier.methods.branch.box_bounds import Asked, bounded
from verifier.methods.branch.box_jacobian import Derivatives, Slopes
from verifier.methods.branch.box_search import BoxSearch
from verifier.methods.branch.box_values import Ends, Values
from verifier.methods.branch.boxes import Box, Cut
from verifier.methods.branch.entry_search import EntrySearch
from verifier.methods.domain import Domain
from verifier.methods.progress import Aim
from verifier.methods.propagation import forward_bounds
from verifier.network.graph import Network
from verifier.network.nodes import Elementwise
from verifier.norms import Metric, Norm, NormPair, Norms, WeightedPair, Weights
from verifier.onnx_import import load
from verifier.property import Budget, Each, Monotone, Property, Request
from verifier.regions import Ball, Bounded, CenterBox
from verifier.verify import verify

#: By activation the attributes and what stands beside its input.
ACTIVATIONS = ("Tanh", "Sigmoid", "Gelu", "Softplus", "Elu", "HardSwish", "HardSigmoid", "Clip")
PAIRS: tuple[Pair, ...] = (("linf", "linf"), ("l2", "l2"), ("l2", "linf"), ("l1", "l2"))
SIZES = (2, 5, 4, 2)


def model(activation: str, sizes: tuple[int, ...] = SIZES, seed: int = 0) -> bytes:
    """Dense layers in 1/16 with an activation, or a pair of them in turn, between."""
    rng = np.random.default_rng(seed)
    names = activation.split("-")
    nodes, constants, signal = [], dict[str, np.ndarray](), "x"
    for layer, (narrow, wide) in enumerate(pairwise(sizes)):
        constants[f"w{layer}"] = rng.integers(-24, 25, (wide, narrow)) / 16
        constants[f"b{layer}"] = rng.integers(-8, 9, wide) / 16
        gemm = helper.make_node("Gemm", [signal, f"w{layer}", f"b{layer}"], [f"v{layer}"])
        gemm.attribute.append(helper.make_attribute("transB", 1))
        nodes.append(gemm)
        signal = f"v{layer}"
        if layer < len(sizes) - 2:
            name = names[layer % len(names)]
            ends = ["least", "greatest"] if name == "Clip" else []
            nodes.append(helper.make_node(name, [signal, *ends], [f"z{layer}"]))
            signal = f"z{layer}"
    constants |= {"least": np.array(-0.5), "greatest": np.array(0.75)}
    used = {name for node in nodes for name in node.input}
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "boxes",
        [value("x", TensorProto.FLOAT, (1, sizes[0]))],
        [value(signal, TensorProto.FLOAT, (1, sizes[-1]))],
        [
            numpy_helper.from_array(v.astype(np.float32), k)
            for k, v in constants.items()
            if k in used
        ],
    )
    opset = helper.make_opsetid("", 20)
    return helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()


def asked_of(network: Network, region: Bounded, norms: NormPair) -> Asked:
    lowered = network.lowered("compare")
    entering = forward_bounds(lowered, region)
    known = {
        node.name: Ends(lower=entering[node.gate][0][None], upper=entering[node.gate][1][None])
        for node in lowered.nodes
        if isinstance(node, Elementwise)
    }
    return Asked(
        lowered=lowered,
        measured=lowered,
        domain=Domain.of(region, network.input_size),
        norm=norms,
        moving=torch.ones(network.input_size, dtype=torch.bool),
        known=known,
    )


def pair(norms: Pair) -> NormPair:
    return NormPair(Norm(norms[0]), Norm(norms[1]))


LINF = pair(("linf", "linf"))
REGION = CenterBox(center=(0.125, -0.25), radius=1.0)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_boxes_bound_what_enters_gates_and_the_jacobian(activation: str) -> None:
    network = load(model(activation)).require_network()
    asked = asked_of(network, REGION, LINF)
    random = torch.Generator().manual_seed(0)
    ends = torch.rand(2, 9, 2, dtype=torch.float64, generator=random) * 2 - 1
    ends = torch.tensor(REGION.center) + ends.sort(dim=0).values
    values = Values(asked.lowered, asked.domain, Ends(lower=ends[0], upper=ends[1]), asked.known)
    slopes = {node.name: Slopes.of(node, values.entering[node.name]) for node in asked.gates}
    rows = torch.eye(2, dtype=torch.float64)
    found = Derivatives(asked.lowered, values, slopes, rows.expand(9, 2, 2))
    lower, upper = found.entries(rows[None])
    sums = found.sums(lower, upper)
    share = torch.rand(50, 9, 2, dtype=torch.float64, generator=random)
    x = (ends[0] + (ends[1] - ends[0]) * share).requires_grad_(True)
    signals = asked.lowered.signals(x.flatten(0, 1))
    for node in asked.gates:
        entering = signals[node.source].unflatten(0, (50, 9))
        here = values.entering[node.name]
        assert bool((here.lower - 1e-9 <= entering).all() & (entering <= here.upper + 1e-9).all())
    out = signals[asked.lowered.output]
    jacobian = torch.stack(
        [torch.autograd.grad(out[:, i].sum(), x, retain_graph=True)[0] for i in range(2)], dim=2
    )
    assert bool((lower - 1e-9 <= jacobian).all() & (jacobian <= upper + 1e-9).all())
    assert bool((jacobian.abs().sum(dim=3) <= sums + 1e-9).all())


def test_what_smooth_boxes_lose_falls_with_the_square_of_their_size() -> None:
    network = load(model("Tanh")).require_network()
    for norms in (LINF, pair(("l2", "l2")), pair(("l2", "linf"))):
        asked = asked_of(network, REGION, norms)
        rows = torch.eye(2, dtype=torch.float64)
        losses: list[float] = []
        for size in (0.08, 0.02):
            lower = torch.tensor([0.25, 0.125], dtype=torch.float64)
            box = Box(item=0, lower=lower, upper=lower + size)
            grid = torch.cartesian_prod(*2 * [torch.linspace(0, size, 21, dtype=torch.float64)])
            steep = _greatest_slope(network, lower + grid, norms)
            losses.append(float(bounded(asked, [box], rows).bounds[0]) - steep)
        assert 0 <= losses[1] <= losses[0] / 6


def _greatest_slope(network: Network, points: torch.Tensor, norms: NormPair) -> float:
    x = points.requires_grad_(True)
    out = network.forward(x)
    rows = [torch.autograd.grad(column.sum(), x, retain_graph=True)[0] for column in out.T]
    jacobian = torch.stack(rows, dim=1)
    if norms.input is Norm.LINF:
        return float(jacobian.abs().sum(dim=2).max())
    if norms.output is Norm.LINF:
        return float(jacobian.norm(dim=2).max())
    return float(torch.linalg.matrix_norm(jacobian, 2).max())


def grown(content: bytes, asked: Property, leaves: int, gap: float = 0.08) -> BoxSearch:
    search = BoxSearch(load(content).require_network(), asked, Aim(gap=gap))
    search.start()
    while search.advance() and search.leaves < leaves:
        pass
    return search


def proved(content: bytes, asked: Property, search: BoxSearch) -> list[float]:
    """What the checker proves of every item."""
    network = read_network(content, ())
    chosen = selection(asked, network.input_size, network.output_size)
    proof = search.candidate().proof
    assert isinstance(proof, TreeProof)
    return [bound.upper() for bound in prove_tree(proof, network, asked, chosen)]


def steepest_secant(content: bytes, asked: Property, point: np.ndarray) -> Fraction:
    """The greatest proved quotient of some pairs near a point, as a rational."""
    rng = np.random.default_rng(3)
    found = Fraction(0)
    for step in rng.uniform(-1e-3, 1e-3, (6, SIZES[0])):
        x, y = (tuple((point + side * step).tolist()) for side in (0.0, 1.0))
        value = witness_value(content, asked, Witness(value=0.0, x=x, y=y))
        found = max(found, Fraction(value or 0.0))
    return found


REGIONS: dict[str, Bounded] = {
    "box": CenterBox(center=(0.125, -0.25), radius=0.5),
    "l2-ball": Ball(norm=Norm.L2, center=(0.125, -0.25), radius=0.5),
    "l1-ball": Ball(norm=Norm.L1, center=(0.125, -0.25), radius=0.75),
}
CASES: tuple[tuple[Pair, str], ...] = (
    (("linf", "linf"), "box"),
    (("linf", "linf"), "l1-ball"),
    (("l2", "l2"), "box"),
    (("l2", "l2"), "l2-ball"),
    (("l2", "linf"), "l1-ball"),
    (("l2", "linf"), "box"),
    (("l1", "l2"), "l2-ball"),
    (("l1", "l2"), "box"),
)


@pytest.mark.parametrize(("norms", "place"), CASES, ids=str)
def test_trees_of_boxes_are_sound_and_nearly_exact(norms: Pair, place: str) -> None:
    """Every case has an activation of its own, and a smooth one behind it."""
    content = model(f"{ACTIVATIONS[CASES.index((norms, place)) % len(ACTIVATIONS)]}-Tanh")
    asked = Property(scope="local", norm=pair(norms), region=REGIONS[place])
    search = grown(content, asked, leaves=60)
    candidate = search.candidate()
    (bound,) = proved(content, asked, search)
    point = np.array(candidate.points[0]) * 0.99 + np.array([0.125, -0.25]) * 0.01
    assert steepest_secant(content, asked, point) <= Fraction(bound)
    assert search.steepest[0] <= bound <= candidate.estimates[0] * (1 + 1e-3)
    assert bound <= search.steepest[0] * 1.2


WEIGHTED: tuple[Norms, ...] = (
    WeightedPair(weighting=Weights((0.5, 3.0)), plain=LINF),
    WeightedPair(weighting=Metric(((1.0, 0.5), (0.5, 2.0))), plain=pair(("l2", "l2"))),
)


@pytest.mark.parametrize("norms", WEIGHTED, ids=["weights", "matrix"])
def test_boxes_are_of_the_input_whatever_its_norm(norms: Norms) -> None:
    content = model("Sigmoid")
    asked = Property(scope="local", norm=norms, region=REGIONS["box"], outputs=Each())
    search = grown(content, asked, leaves=30)
    for bound, steep in zip(proved(content, asked, search), search.steepest, strict=True):
        assert steep <= bound <= steep * 1.2


def test_the_conductor_divides_boxes_where_gates_bend() -> None:
    content = model("Tanh", (2, 5, 1))
    asked = Property(scope="local", norm=LINF, region=REGIONS["box"])
    budget = Budget(seconds=20.0, gap=0.05)
    certificate = verify(content, Request(property=asked, budget=budget))
    assert isinstance(certificate.proof, TreeProof)
    assert check(certificate, content).valid
    assert certificate.lower_bound is not None
    assert certificate.claim.bound is not None
    assert certificate.claim.bound <= certificate.lower_bound.value * 1.2


@pytest.mark.parametrize("place", ["box", "l2-ball"])
def test_entries_of_the_jacobian_are_bounded_box_by_box(place: str) -> None:
    content = model("Tanh-Clip")
    asked = Property(kind="jacobian", scope="local", region=REGIONS[place])
    network = load(content).require_network()
    search = EntrySearch(network, asked, gap=0.05)
    search.start()
    whole = entry_bounds(content, asked, search.proof())
    while search.advance() and search.leaves < 80:
        pass
    proved = entry_bounds(content, asked, search.proof())
    assert np.all(proved.upper - proved.lower < whole.upper - whole.lower)
    random = torch.Generator().manual_seed(0)
    u = torch.rand(200, 2, dtype=torch.float64, generator=random) - 0.5
    x = (torch.tensor([0.125, -0.25]) + 0.7 * u).requires_grad_(True)
    out = network.forward(x)
    rows = [torch.autograd.grad(column.sum(), x, retain_graph=True)[0] for column in out.T]
    jacobian = torch.stack(rows, dim=1).numpy()
    assert np.all((proved.lower <= jacobian) & (jacobian <= proved.upper))


def test_a_sign_is_shown_box_by_box() -> None:
    """By lines over the whole region it is not: the derivative comes near to 0."""
    content = model("Tanh", (2, 5, 1), seed=5)
    sign = Monotone(input=0, output=0, direction="increasing")
    asked = Property(kind="monotone", scope="local", region=REGIONS["box"], monotone=sign)
    certificate = verify(content, Request(property=asked, budget=Budget(seconds=20.0)))
    assert check(certificate, content).valid
    assert isinstance(certificate.proof, TreeProof)
    assert certificate.verdict == "certified"
    (item,) = certificate.proof.items
    of_one = replace(item.trees[0], output=0)
    for trees in ((of_one,), (), item.trees * 2):
        altered = replace(certificate.proof, items=(replace(item, trees=trees),))
        assert not check(replace(certificate, proof=altered), content).valid


def test_a_box_outside_a_ball_is_empty() -> None:
    domain = Domain.of(REGIONS["l2-ball"], 2)
    lower, upper = domain.ends
    root = Box(item=0, lower=lower, upper=upper)
    right = root.divided(Cut(0, 0, 0.5))[1]
    corner = right.divided(Cut(0, 1, 0.125))[1]
    assert not right.emptied(domain)
    assert corner.emptied(domain)
    assert corner.kind == EMPTY
    assert corner.weights is not None
    assert corner.weights.tolist() == [0.375, 0.375]
    assert right.children is not None
    assert right.children[0].kind == JACOBIAN
