"""Trees of closed cuts: sound for every cut, and exact where all gates are cut at their kinks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from tests.attempts import LIPSDP
from tests.checker.groups import FAMILIES
from tests.checker.oracles import affine, dense_network, evaluate
from tests.checker.oracles import network as network_of
from tests.checker.test_propagation import REGIONS, norm, points
from tests.checker.trees import FORWARD, tree_proof
from tests.exact import Pair, fractions, norm_below
from tests.tiny_networks import Box, TinyNetwork, lipschitz_constant, pieces
from tests.tiny_topologies import chain, tiny_network
from verifier.certificate import (
    CUT,
    EMPTY,
    INEQUALITY,
    JACOBIAN,
    GateLmiProof,
    LmiRow,
    Tree,
    TreeItem,
    TreeProof,
)
from verifier.checker import part_inequality
from verifier.checker.definite import NotProved
from verifier.checker.forward import forward_bounds
from verifier.checker.graph import read_network
from verifier.checker.items import selection
from verifier.checker.lowering import lowered
from verifier.checker.maps import Dense
from verifier.checker.network import Elementwise, Network, Term
from verifier.checker.propagation import prove_gate_lmi
from verifier.checker.scalars import Tanh, leaky
from verifier.checker.tree import prove_tree
from verifier.norms import Metric, Norm, NormPair, WeightedPair, Weights
from verifier.onnx_import import load
from verifier.property import Each, Indices, Margins, Property
from verifier.regions import Ball, Bounded, EndsBox

TINY: Mapping[str, Callable[[], TinyNetwork]] = {
    "relu": lambda: chain(1, (2, 5, 2), ("relu",)),
    "leaky": lambda: chain(8, (2, 5, 2), ("leaky",)),
    "maxmin": lambda: chain(9, (2, 6, 2), ("maxmin",)),
    "clip": lambda: chain(5, (2, 4, 2), ("clip",)),
    "deep": lambda: chain(4, (3, 4, 4, 2), ("relu", "maxmin")),
    "sort": lambda: chain(6, (3, 3, 3, 2), ("groupsort3", "abs")),
    "convolution": lambda: tiny_network(2),
    "image": lambda: tiny_network(8),
}
NORMS: tuple[Pair, ...] = (("linf", "linf"), ("l2", "l2"), ("l1", "l2"), ("l2", "linf"))
QUOTIENTS: tuple[Pair, ...] = (("linf", "linf"), ("l2", "l2"), ("l1", "l2"))
LOWER, UPPER = -0.375, 0.5
TIGHT = Fraction(1, 10**9)


@cache
def made(name: str) -> tuple[TinyNetwork, Network, EndsBox]:
    """The network twice, and its box."""
    tiny = TINY[name]()
    model = tiny.network.model
    network = read_network(model, load(model).require_network().patterns)
    inputs = network.input_size
    return tiny, network, EndsBox(lower=(LOWER,) * inputs, upper=(UPPER,) * inputs)


def pair(norms: Pair) -> NormPair:
    return NormPair(Norm(norms[0]), Norm(norms[1]))


def proved(proof: TreeProof, network: Network, asked: Property) -> list[Fraction]:
    chosen = selection(asked, network.input_size, network.output_size)
    return [Fraction(m.upper()) for m in prove_tree(proof, network, asked, chosen)]


# --- Exact where every gate is cut ---------------------------------------------------------------


@pytest.mark.parametrize("norms", NORMS, ids="-".join)
@pytest.mark.parametrize("name", TINY)
def test_a_tree_of_all_kinks_proves_the_constant(name: str, norms: Pair) -> None:
    tiny, network, region = made(name)
    asked = Property(scope="local", norm=pair(norms), region=region)
    each = (None,) if norms[1] == "l2" else tuple(range(network.output_size))
    (bound,) = proved(tree_proof(network, region, [each]), network, asked)
    box = Box(np.array(region.lower), np.array(region.upper))
    exact = lipschitz_constant(tiny, norms, box)
    assert exact <= bound <= exact * (1 + TIGHT)


@pytest.mark.parametrize("norms", [("linf", "l2"), ("linf", "l1"), ("l2", "l1")], ids="-".join)
@pytest.mark.parametrize("name", ["relu", "deep"])
def test_norms_without_a_closed_form_are_sound(name: str, norms: Pair) -> None:
    tiny, network, region = made(name)
    asked = Property(scope="local", norm=pair(norms), region=region)
    (bound,) = proved(tree_proof(network, region, [(None,)]), network, asked)
    box = Box(np.array(region.lower), np.array(region.upper))
    exact = lipschitz_constant(tiny, norms, box)
    assert exact <= bound <= exact * 2


@pytest.mark.parametrize("name", ["deep", "sort"])
def test_a_margin_is_exact(name: str) -> None:
    tiny, network, region = made(name)
    asked = Property(
        scope="local", norm=pair(("linf", "linf")), region=region, outputs=Margins(((1, 0),))
    )
    (bound,) = proved(tree_proof(network, region, [(0,)]), network, asked)
    box = Box(np.array(region.lower), np.array(region.upper))
    rows = [(j[1] - j[0]).reshape(1, -1) for j in pieces(tiny, box)]
    exact = max(norm_below(row, ("linf", "linf")) for row in rows)
    assert exact <= bound <= exact * (1 + TIGHT)


def test_outputs_each_and_inputs_chosen_are_exact() -> None:
    tiny, network, region = made("deep")
    asked = Property(
        scope="local",
        norm=pair(("l1", "linf")),
        region=region,
        outputs=Each(),
        inputs=Indices((2, 0)),
    )
    bounds = proved(tree_proof(network, region, [(0,), (None,)]), network, asked)
    box = Box(np.array(region.lower), np.array(region.upper))
    found = list(pieces(tiny, box))
    exact = [max(max(abs(j[i, 2]), abs(j[i, 0])) for j in found) for i in range(2)]
    assert all(e <= b <= e * (1 + TIGHT) for e, b in zip(exact, bounds, strict=True))


def test_a_weighted_norm_is_exact() -> None:
    tiny, network, region = made("deep")
    weights = (0.5, 3.0, 2.0)
    norms = WeightedPair(weighting=Weights(weights), plain=pair(("linf", "linf")))
    asked = Property(scope="local", norm=norms, region=region)
    (bound,) = proved(tree_proof(network, region, [(0, 1)]), network, asked)
    box = Box(np.array(region.lower), np.array(region.upper))
    inverse = fractions(np.ones(3)) / fractions(np.array(weights))
    exact = max(norm_below(j * inverse, ("linf", "linf")) for j in pieces(tiny, box))
    assert exact <= bound <= exact * (1 + TIGHT)


def test_a_matrix_norm_is_exact() -> None:
    """A diagonal one is that of weights."""
    _, network, region = made("deep")
    proof = tree_proof(network, region, [(None,)])
    weights = Weights((0.5, 3.0, 2.0))
    matrix = Metric(((0.25, 0.0, 0.0), (0.0, 9.0, 0.0), (0.0, 0.0, 4.0)))
    bounds = [
        proved(
            proof,
            network,
            Property(
                scope="local",
                norm=WeightedPair(weighting=each, plain=pair(("l2", "l2"))),
                region=region,
            ),
        )[0]
        for each in (weights, matrix)
    ]
    assert abs(bounds[0] - bounds[1]) <= bounds[0] * TIGHT


def layer(seed: int, sizes: tuple[int, int, int]) -> tuple[list[np.ndarray], np.ndarray, Network]:
    """Eighths, a bias, and ReLU between."""
    rng = np.random.default_rng(seed)
    weights = [rng.integers(-12, 13, (b, a)) / 8 for a, b in pairwise(sizes)]
    bias = rng.integers(-6, 7, sizes[1]) / 8
    return weights, bias, dense_network(weights, [bias, np.zeros(sizes[2])])


def test_an_l2_ball_is_exact() -> None:
    """The cells that a fine grid of the disc meets, and not those of the box around it."""
    (first, last), bias, network = layer(5, (2, 6, 2))
    disc = Ball(norm=Norm.L2, center=(0.125, -0.25), radius=0.5)
    around = EndsBox(lower=(-0.375, -0.75), upper=(0.625, 0.25))
    bounds = [
        proved(
            tree_proof(network, region, [(None,)]),
            network,
            Property(scope="local", norm=pair(("l2", "l2")), region=region),
        )[0]
        for region in (disc, around)
    ]
    angle, radius = np.meshgrid(np.linspace(0, 6.28, 300), np.linspace(0.01, 0.4999, 60))
    x = np.stack([0.125 + radius * np.cos(angle), -0.25 + radius * np.sin(angle)]).reshape(2, -1)
    met = np.unique((first @ x).T + bias > 0, axis=0)
    exact = max(norm_below(fractions(last * on) @ fractions(first), ("l2", "l2")) for on in met)
    assert exact <= bounds[0] <= exact * (1 + TIGHT)
    assert bounds[0] < bounds[1]


# --- Inequalities --------------------------------------------------------------------------------


def of_inequalities(kinds: int, cuts: Sequence[int], output: int | None, row: LmiRow) -> Tree:
    """A full tree that cuts gates of the first layer at 0, with the row's level at all leaves."""

    def nodes(depth: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        if depth == len(cuts):
            return (INEQUALITY,), ()
        below, entries = nodes(depth + 1)
        return (CUT, *below, *below), (cuts[depth], *entries, *entries)

    order, entries = nodes(0)
    leaves = order.count(INEQUALITY)
    assert leaves == kinds
    return Tree(
        output=output,
        kinds=order,
        gates=(0,) * len(entries),
        entries=entries,
        places=np.zeros(len(entries)),
        weights=np.zeros(0),
        rows=(0,) * leaves,
        levels=np.full(leaves, row.level),
        scales=np.ones(leaves),
    )


@pytest.mark.parametrize("norms", [("linf", "linf"), ("l2", "l2")], ids="-".join)
@pytest.mark.parametrize("name", ["deep", "relu"])
def test_parts_inherit_the_multipliers_of_the_region(name: str, norms: Pair) -> None:
    """With fewer gates of two slopes the same row proves the same, and no less."""
    tiny, network, region = made(name)
    asked = Property(scope="local", norm=pair(norms), region=region)
    proof = LIPSDP.answer(tiny.network.model, asked).proof
    assert isinstance(proof, GateLmiProof)
    chosen = selection(asked, network.input_size, network.output_size)
    (whole,) = prove_gate_lmi(proof, network, asked, chosen)
    small = lowered(network, "compare")
    first = next(n for n in small.network.nodes if isinstance(n, Elementwise))
    bounds = forward_bounds(network, small, region, proof.forward)[first.source]
    bent = np.flatnonzero((bounds.lower[0] < 0) & (0 < bounds.upper[0]))[:3].tolist()
    for cuts in (bent[:0], bent[:1], bent):
        trees: list[TreeItem] = []
        for item in proof.items:
            grown = [of_inequalities(2 ** len(cuts), cuts, row.output, row) for row in item.rows]
            numbered = [replace(t, rows=(k,) * len(t.rows)) for k, t in enumerate(grown)]
            trees.append(TreeItem(rows=item.rows, trees=tuple(numbered)))
        tree = TreeProof(
            patterns=(),
            forward=proof.forward,
            gates=(small.gates[first.name],),
            items=tuple(trees),
        )
        (bound,) = proved(tree, network, asked)
        assert bound <= Fraction(whole.upper()) * (1 + TIGHT)
        box = Box(np.array(region.lower), np.array(region.upper))
        assert lipschitz_constant(tiny, norms, box) <= bound


@pytest.mark.parametrize("norms", [("linf", "linf"), ("l2", "l2")], ids="-".join)
def test_many_parts_prove_what_each_does(norms: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least share of the levels that is accepted of all parts at once, and one by one."""
    tiny, network, region = made("deep")
    outputs = Indices((0,)) if norms[0] == "linf" else Indices((0, 1))
    asked = Property(scope="local", norm=pair(norms), region=region, outputs=outputs)
    found = LIPSDP.answer(tiny.network.model, asked).proof
    assert isinstance(found, GateLmiProof)
    row = found.items[0].rows[0]
    gate = next(iter(lowered(network, "compare").gates.values()))
    tree = of_inequalities(4, (0, 1), row.output, row)
    tree = replace(tree, scales=np.array([1.0, 1.125, 1.25, 1.0]))

    def least() -> float:
        low, high = 0.0, 4.0
        while low < high - 1e-9:
            share = (low + high) / 2
            lowered_tree = replace(tree, levels=tree.levels * share)
            item = TreeItem(rows=(row,), trees=(lowered_tree,))
            proof = TreeProof(patterns=(), forward=found.forward, gates=(gate,), items=(item,))
            low, high = (low, share) if _holds(proof, network, asked) else (share, high)
        return high

    together = least()
    monkeypatch.setattr(part_inequality, "bound_of_all", _shows_nothing)
    assert 0.1 < together < 2.0
    assert abs(together - least()) < 3e-9


def _shows_nothing(*_: object) -> None:
    """In the place of what shows many parts at once."""


def _holds(proof: TreeProof, network: Network, asked: Property) -> bool:
    try:
        return bool(proved(proof, network, asked))
    except NotProved:
        return False


# --- Sound wherever it is cut --------------------------------------------------------------------


def some_tree(
    rng: np.random.Generator, network: Network, region: Bounded, output: int | None
) -> tuple[tuple[str, ...], Tree]:
    """Cuts of any gate or input at any place within its bounds, all parts left to the Jacobian."""
    small = lowered(network, sorts="compare")
    signals = forward_bounds(network, small, region, FORWARD)
    sources = {"": ""} | {
        small.gates[n.name]: n.source for n in small.network.nodes if isinstance(n, Elementwise)
    }
    names = tuple(sources)
    kinds: list[int] = []
    cuts: list[tuple[int, int, float]] = []

    def grow(depth: int) -> None:
        if depth == 0 or rng.random() < 0.2:
            kinds.append(JACOBIAN)
            return
        gate = int(rng.integers(len(names)))
        bounds = signals[sources[names[gate]]]
        entry = int(rng.integers(bounds.lower.shape[1]))
        place = float(rng.uniform(bounds.lower[0, entry], bounds.upper[0, entry]))
        kinds.append(CUT)
        cuts.append((gate, entry, 0.0 if rng.random() < 0.5 else place))
        grow(depth - 1)
        grow(depth - 1)

    grow(4)
    gates, entries, places = zip(*cuts, strict=True) if cuts else ((), (), ())
    nothing = np.zeros(0)
    return names, Tree(
        output=output,
        kinds=tuple(kinds),
        gates=gates,
        entries=entries,
        places=np.array(places, dtype=np.float64),
        weights=nothing,
        rows=(),
        levels=nothing,
        scales=nothing,
    )


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_no_exact_quotient_exceeds_the_bound_of_any_tree(family: str, region: str) -> None:
    rng = np.random.default_rng(11)
    network = FAMILIES[family](rng)
    inside = points(REGIONS[region], rng, 6)
    values = [evaluate(network, x)["y"] for x in inside]
    for norms in QUOTIENTS:
        asked = Property(scope="local", norm=pair(norms), region=REGIONS[region])
        names, tree = some_tree(rng, network, REGIONS[region], None)
        item = TreeItem(rows=(), trees=(tree,))
        proof = TreeProof(patterns=(), forward=FORWARD, gates=names, items=(item,))
        (bound,) = proved(proof, network, asked)
        for x, f in zip(inside, values, strict=True):
            for y, g in zip(inside, values, strict=True):
                rise = [a - b for a, b in zip(f, g, strict=True)]
                run = [a - b for a, b in zip(x, y, strict=True)]
                assert norm(rise, Norm(norms[1])) <= bound**2 * norm(run, Norm(norms[0]))


def cuts_of_inputs(places: Sequence[float]) -> TreeProof:
    """A chain of cuts of the only input, ascending: every lower part is a leaf."""
    count = len(places)
    nothing = np.zeros(0)
    tree = Tree(
        output=0,
        kinds=(CUT, JACOBIAN) * count + (JACOBIAN,),
        gates=(0,) * count,
        entries=(0,) * count,
        places=np.array(places, dtype=np.float64),
        weights=nothing,
        rows=(),
        levels=nothing,
        scales=nothing,
    )
    item = TreeItem(rows=(), trees=(tree,))
    return TreeProof(patterns=(), forward=FORWARD, gates=("",), items=(item,))


def test_cuts_of_the_input_around_the_kinks_are_exact() -> None:
    """relu(2x) - 3 relu(x - 1/2) + relu(-x): slopes -1, 2 and -1, those in between at kinks."""
    first, last = np.array([[2.0], [1.0], [-1.0]]), np.array([[1.0, -3.0, 1.0]])
    network = dense_network([first, last], [np.array([0.0, -0.5, 0.0]), np.zeros(1)])
    region = EndsBox(lower=(-1.0,), upper=(1.0,))
    asked = Property(scope="local", norm=pair(("linf", "linf")), region=region)
    places = [-(2.0**-20), 2.0**-20, 0.5 - 2.0**-20, 0.5 + 2.0**-20]
    (bound,) = proved(cuts_of_inputs(places), network, asked)
    assert 2 <= bound <= 2 * (1 + TIGHT)
    assert 3 <= proved(cuts_of_inputs([]), network, asked)[0]


def test_cuts_of_the_input_converge_for_a_smooth_gate() -> None:
    """tanh(4x) - tanh(4x - 4): its slope is nowhere above 4."""
    first, last = np.array([[4.0], [4.0]]), np.array([[1.0, -1.0]])
    network = dense_network([first, last], [np.array([0.0, -4.0]), np.zeros(1)], Tanh())
    region = EndsBox(lower=(-1.0,), upper=(2.0,))
    asked = Property(scope="local", norm=pair(("linf", "linf")), region=region)
    exact = max(abs(_slope(x)) for x in np.linspace(-1, 2, 3001))
    (bound,) = proved(cuts_of_inputs(np.linspace(-1, 2, 400)[1:-1].tolist()), network, asked)
    assert exact <= float(bound) <= exact * 1.01


def _slope(x: float) -> float:
    return float(4 / np.cosh(4 * x) ** 2 - 4 / np.cosh(4 * x - 4) ** 2)


def test_a_coordinate_cut_to_a_point_does_not_vary_there() -> None:
    """x_0 + 100 x_1: what is left of x_1 = 0 between two cuts is bounded without x_1."""
    network = dense_network([np.array([[1.0, 100.0]])])
    region = EndsBox(lower=(0.5, -1.0), upper=(1.0, 1.0))
    asked = Property(scope="local", norm=pair(("linf", "linf")), region=region)
    proof = cuts_of_inputs([0.0, 0.0])
    (tree,) = proof.items[0].trees
    row = LmiRow(output=0, level=1.0, input_multipliers=np.array([1.0, 0.0]), multipliers={})
    one = np.array([1.001])
    pointed = replace(
        tree,
        kinds=(CUT, JACOBIAN, CUT, INEQUALITY, JACOBIAN),
        entries=(1, 1),
        rows=(0,),
        levels=one,
        scales=np.ones(1),
    )
    # First x_1 <= 0; of what is above, x_1 <= 0 is a point.
    (bound,) = proved(
        replace(proof, items=(TreeItem(rows=(row,), trees=(pointed,)),)), network, asked
    )
    assert 101 <= bound <= 101 * (1 + TIGHT)
    wide = replace(pointed, places=np.array([0.0, 2.0**-60]))
    with pytest.raises(NotProved):
        proved(replace(proof, items=(TreeItem(rows=(row,), trees=(wide,)),)), network, asked)


def test_a_point_of_the_only_input_has_no_slope() -> None:
    """Between two cuts at 0 nothing varies."""
    network = dense_network([np.array([[3.0]])])
    region = EndsBox(lower=(-1.0,), upper=(1.0,))
    asked = Property(scope="local", norm=pair(("linf", "linf")), region=region)
    (bound,) = proved(cuts_of_inputs([0.0, 0.0]), network, asked)
    assert 3 <= bound <= 3 * (1 + TIGHT)


@pytest.mark.parametrize(
    ("place", "weights", "is_shown"),
    [
        # In the disc x_0 + x_1 <= sqrt(2) < 1.4375.
        (1.4375, (0.0, 1.0), True),
        # 0.9 <= x_0 and 1.375 <= x_0 + x_1 is beyond it, for 2 x_0 + x_1 <= sqrt(5) < 2.275.
        (1.375, (0.0, 1.0), False),
        (1.375, (1.0, 1.0), True),
        # The point (0.9, 0.43) is not.
        (1.3125, (0.0, 1.0), False),
        (1.3125, (1.0, 1.0), False),
    ],
)
def test_a_part_of_a_ball_is_within_the_ball(
    place: float, weights: tuple[float, float], is_shown: bool
) -> None:
    network = dense_network([np.array([[1.0, 1.0]]), np.array([[1.0]])])
    disc = Ball(norm=Norm.L2, center=(0.0, 0.0), radius=1.0)
    asked = Property(scope="local", norm=pair(("linf", "linf")), region=disc)
    nothing = np.zeros(0)
    tree = Tree(
        output=0,
        kinds=(CUT, JACOBIAN, CUT, JACOBIAN, EMPTY),
        gates=(0, 1),
        entries=(0, 0),
        places=np.array([0.9, place]),
        weights=np.array(weights),
        rows=(),
        levels=nothing,
        scales=nothing,
    )
    item = TreeItem(rows=(), trees=(tree,))
    proof = TreeProof(patterns=(), forward=FORWARD, gates=("", "h0"), items=(item,))
    assert _holds(proof, network, asked) == is_shown


# --- Parts that touch a kink ---------------------------------------------------------------------


def test_a_gate_that_does_not_move_in_a_part_has_one_slope_there() -> None:
    """max(x, 0) is 0 or positive: of leaky(5) behind it the slope 5 is met nowhere."""
    nodes = [
        affine("v", 1, Term("", Dense(np.eye(1)))),
        Elementwise(name="z", size=1, source="v", function=leaky(0.0)),
        Elementwise(name="y", size=1, source="z", function=leaky(5.0)),
    ]
    net = network_of(nodes, 1)
    region = EndsBox(lower=(-1.0,), upper=(1.0,))
    asked = Property(scope="local", norm=pair(("linf", "linf")), region=region)
    tree = Tree(
        output=None,
        kinds=(CUT, JACOBIAN, JACOBIAN),
        gates=(0,),
        entries=(0,),
        places=np.zeros(1),
        weights=np.zeros(0),
        rows=(),
        levels=np.zeros(0),
        scales=np.zeros(0),
    )
    item = TreeItem(rows=(), trees=(tree,))
    proof = TreeProof(patterns=(), forward=FORWARD, gates=("y",), items=(item,))
    (bound,) = proved(proof, net, asked)
    assert 1 <= bound <= 1 + TIGHT
    moved = replace(item, trees=(replace(tree, places=np.array([2.0**-40])),))
    (bound,) = proved(replace(proof, items=(moved,)), net, asked)
    assert 1 <= bound <= 1 + TIGHT
