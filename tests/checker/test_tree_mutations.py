"""What is no tree, no cover, or no proof of a part is rejected."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from tests.checker.oracles import dense_network
from tests.checker.trees import FORWARD, tree_proof
from verifier.certificate import (
    ABOVE,
    BELOW,
    CUT,
    EMPTY,
    INEQUALITY,
    JACOBIAN,
    Certificate,
    Claim,
    LmiRow,
    PairCuts,
    Tree,
    TreeItem,
    TreeProof,
    decimal_upper,
    log10_upper,
)
from verifier.certificate_json import certificate_json
from verifier.certificate_reader import certificate_from_json
from verifier.certificate_shapes import MalformedCertificate
from verifier.checker.network import Network
from verifier.checker.verdict import Verdict, judge
from verifier.norms import Norm, NormPair
from verifier.property import Property
from verifier.regions import CenterBox, EndsBox

LINF = NormPair(Norm.LINF, Norm.LINF)
REFUSALS = ("proof-refuted", "bound-not-proved")
REGION = EndsBox(lower=(-0.375, -0.5), upper=(0.5, 0.625))
ASKED = Property(scope="local", norm=LINF, region=REGION)


@cache
def network() -> Network:
    """Two inputs, six ReLU, two outputs, in eighths: a tree of it has parts of both kinds."""
    rng = np.random.default_rng(5)
    first, last = rng.integers(-12, 13, (6, 2)) / 8, rng.integers(-12, 13, (2, 6)) / 8
    return dense_network([first, last], [rng.integers(-3, 4, 6) / 8, np.zeros(2)])


@cache
def true_proof() -> TreeProof:
    """All gates cut at 0, for both outputs."""
    return tree_proof(network(), REGION, [(0, 1)])


def claimed(proof: TreeProof, bound: float, asked: Property = ASKED) -> Certificate:
    model = "sha256:" + "0" * 64
    claim = Claim(model=model, property=asked, bound=bound, log10_bound=log10_upper(bound))
    return Certificate(claim=claim, proof=proof)


@cache
def true_bound() -> float:
    """What the true proof proves."""
    proved = judge(claimed(true_proof(), 1e-3), network()).proved
    assert proved is not None
    return decimal_upper(proved[0])


def word(proof: TreeProof) -> Verdict:
    """On the claim that the true proof proves."""
    return judge(claimed(proof, true_bound()), network())


def test_the_tree_is_valid_and_has_leaves_of_both_kinds() -> None:
    assert word(true_proof()).code == "valid"
    kinds = true_proof().items[0].trees[0].kinds
    assert {CUT, EMPTY, JACOBIAN} == set(kinds)
    less = claimed(true_proof(), np.nextafter(true_bound(), 0).item())
    assert judge(less, network()).code == "bound-not-proved"


Edit = Callable[[Tree], Tree]


def leaf(tree: Tree, kind: int) -> int:
    """The place of the first leaf of a kind."""
    return tree.kinds.index(kind)


def without(tree: Tree, place: int) -> Tree:
    return replace(tree, kinds=tree.kinds[:place] + tree.kinds[place + 1 :])


def with_kind(tree: Tree, place: int, kind: int) -> Tree:
    return replace(tree, kinds=(*tree.kinds[:place], kind, *tree.kinds[place + 1 :]))


def doubled(tree: Tree, kind: int) -> Tree:
    place = leaf(tree, kind)
    return replace(tree, kinds=(*tree.kinds[:place], kind, *tree.kinds[place:]))


def claimed_empty(tree: Tree, weight: float) -> Tree:
    """The last cell, whose cuts are all upper parts, with weights of its own."""
    place = len(tree.kinds) - 1
    while tree.kinds[place] != JACOBIAN:
        place -= 1
    return replace(
        with_kind(tree, place, EMPTY),
        weights=np.append(tree.weights, np.full(depth(tree, place), weight)),
    )


def depth(tree: Tree, place: int) -> int:
    """How many cuts are above a node."""
    above: list[bool] = []
    for kind in tree.kinds[:place]:
        if kind == CUT:
            above.append(False)
            continue
        while above and above[-1]:
            above.pop()
        above[-1] = True
    return len(above)


def with_weight(tree: Tree, value: float) -> Tree:
    weights = tree.weights.copy()
    weights[int(weights.argmax())] = value
    return replace(tree, weights=weights)


def swapped(tree: Tree) -> Tree:
    """The parts below the root exchanged: what is empty is claimed of the other side."""
    end = subtree(tree, 1)
    first, second = tree.kinds[1:end], tree.kinds[end:]
    cuts = first.count(CUT)
    order = [0, *range(1 + cuts, len(tree.gates)), *range(1, 1 + cuts)]
    return replace(
        tree,
        kinds=(CUT, *second, *first),
        gates=tuple(tree.gates[k] for k in order),
        entries=tuple(tree.entries[k] for k in order),
        places=tree.places[order],
    )


def subtree(tree: Tree, start: int) -> int:
    """Where the subtree that starts at a node ends."""
    missing = 1
    for place in range(start, len(tree.kinds)):
        missing += 1 if tree.kinds[place] == CUT else -1
        if missing == 0:
            return place + 1
    return len(tree.kinds)


EDITS: Mapping[str, Edit] = {
    "no nodes": lambda t: replace(t, kinds=()),
    "an empty leaf dropped": lambda t: without(t, leaf(t, EMPTY)),
    "a cell dropped": lambda t: without(t, leaf(t, JACOBIAN)),
    "the last leaf dropped": lambda t: without(t, len(t.kinds) - 1),
    "a cell twice": lambda t: doubled(t, JACOBIAN),
    "an empty leaf twice": lambda t: doubled(t, EMPTY),
    "a node after the end": lambda t: replace(t, kinds=(*t.kinds, JACOBIAN)),
    "a cut after the end": lambda t: replace(
        t,
        kinds=(*t.kinds, CUT, JACOBIAN, JACOBIAN),
        gates=(*t.gates, 0),
        entries=(*t.entries, 0),
        places=np.append(t.places, 0.0),
    ),
    "half a cover": lambda t: replace(t, kinds=t.kinds[: subtree(t, 1)]),
    "a cell claimed empty with weights 0": lambda t: claimed_empty(t, 0.0),
    "a cell claimed empty": lambda t: claimed_empty(t, 1.0),
    "all claimed empty": lambda t: replace(t, kinds=(EMPTY,), gates=(), entries=()),
    "the root claimed empty": lambda t: replace(
        t, kinds=(EMPTY,), gates=(), entries=(), places=np.zeros(0), weights=np.zeros(0)
    ),
    "weights 0": lambda t: replace(t, weights=np.zeros_like(t.weights)),
    "a weight 0": lambda t: with_weight(t, 0.0),
    "a weight negative": lambda t: with_weight(t, -1.0),
    "a weight nan": lambda t: with_weight(t, np.nan),
    "a weight infinite": lambda t: with_weight(t, np.inf),
    "a weight 1e308": lambda t: with_weight(t, 1e308),
    "a weight less": lambda t: replace(t, weights=t.weights[:-1]),
    "a weight more": lambda t: replace(t, weights=np.append(t.weights, 1.0)),
    "no weights": lambda t: replace(t, weights=np.zeros(0)),
    "another entry": lambda t: replace(t, entries=tuple((e + 1) % 6 for e in t.entries)),
    "an entry too great": lambda t: replace(t, entries=(6, *t.entries[1:])),
    "an entry negative": lambda t: replace(t, entries=(-1, *t.entries[1:])),
    "another gate": lambda t: replace(t, gates=(1, *t.gates[1:])),
    "a gate negative": lambda t: replace(t, gates=(-1, *t.gates[1:])),
    "a gate less": lambda t: replace(t, gates=t.gates[:-1]),
    "an entry less": lambda t: replace(t, entries=t.entries[:-1]),
    "a place less": lambda t: replace(t, places=t.places[:-1]),
    "a place nan": lambda t: replace(t, places=np.append(np.nan, t.places[1:])),
    "a place infinite": lambda t: replace(t, places=np.append(np.inf, t.places[1:])),
    "places far": lambda t: replace(t, places=t.places + 10.0),
    "sides exchanged": swapped,
    "a kind beyond": lambda t: with_kind(t, leaf(t, JACOBIAN), 6),
    "a cell become a trim": lambda t: with_kind(t, leaf(t, JACOBIAN), BELOW),
    "a cut become a trim": lambda t: with_kind(t, 0, ABOVE),
    "an empty leaf become a trim": lambda t: with_kind(t, leaf(t, EMPTY), BELOW),
    "a kind negative": lambda t: with_kind(t, leaf(t, JACOBIAN), -1),
    "an inequality of no row": lambda t: replace(
        with_kind(t, leaf(t, JACOBIAN), INEQUALITY),
        rows=(0,),
        levels=np.ones(1),
        scales=np.ones(1),
    ),
    "a row without an inequality": lambda t: replace(t, rows=(0,)),
    "another output": lambda t: replace(t, output=2),
    "an output negative": lambda t: replace(t, output=-1),
}


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("edit", EDITS)
def test_a_tree_that_was_altered_is_rejected(edit: str, place: int) -> None:
    trees = list(true_proof().items[0].trees)
    trees[place] = EDITS[edit](trees[place])
    altered = replace(true_proof(), items=(TreeItem(rows=(), trees=tuple(trees)),))
    assert word(altered).code in REFUSALS


@pytest.mark.parametrize("side", [-np.inf, np.inf])
def test_a_cut_one_bit_beside_the_kink_proves_less(side: float) -> None:
    """The parts at the cut keep both slopes of the gate."""
    trees = true_proof().items[0].trees
    moved = tuple(replace(t, places=np.nextafter(t.places, side)) for t in trees)
    verdict = word(replace(true_proof(), items=(TreeItem(rows=(), trees=moved),)))
    assert verdict.code in REFUSALS


PROOF_EDITS: Mapping[str, Callable[[TreeProof], TreeProof]] = {
    "a gate that is none": lambda p: replace(p, gates=("a0",)),
    "cuts of the input instead": lambda p: replace(p, gates=("",)),
    "no gates": lambda p: replace(p, gates=()),
    "no items": lambda p: replace(p, items=()),
    "two items": lambda p: replace(p, items=p.items * 2),
    "no trees": lambda p: replace(p, items=(TreeItem(rows=(), trees=()),)),
    "an output without a tree": lambda p: replace(
        p, items=(TreeItem(rows=(), trees=p.items[0].trees[:1]),)
    ),
    "one output twice": lambda p: replace(
        p, items=(TreeItem(rows=(), trees=p.items[0].trees[:1] * 2),)
    ),
}


@pytest.mark.parametrize("edit", PROOF_EDITS)
def test_a_proof_that_was_altered_is_rejected(edit: str) -> None:
    assert word(PROOF_EDITS[edit](true_proof())).code in REFUSALS


@pytest.mark.parametrize(
    "region",
    [
        EndsBox(lower=(-1.0, -1.0), upper=(1.0, 1.0)),
        EndsBox(lower=(0.5, 0.5), upper=(1.5, 1.5)),
        CenterBox(center=(-0.5, 0.25), radius=1.0),
    ],
)
def test_the_tree_of_another_region_is_rejected(region: CenterBox | EndsBox) -> None:
    asked = replace(ASKED, region=region)
    assert judge(claimed(true_proof(), true_bound(), asked), network()).code in REFUSALS


def test_a_tree_without_a_region_is_inconsistent() -> None:
    verdict = judge(claimed(true_proof(), true_bound(), Property(norm=LINF)), network())
    assert verdict.code == "inconsistent"


# --- Inequalities --------------------------------------------------------------------------------


def with_tree(**changes: object) -> Callable[[TreeProof], TreeProof]:
    def edit(proof: TreeProof) -> TreeProof:
        (item,) = proof.items
        trees = tuple(replace(tree, **changes) for tree in item.trees)
        return replace(proof, items=(replace(item, trees=trees),))

    return edit


def with_row(**changes: object) -> Callable[[TreeProof], TreeProof]:
    def edit(proof: TreeProof) -> TreeProof:
        (item,) = proof.items
        rows = tuple(replace(row, **changes) for row in item.rows)
        return replace(proof, items=(replace(item, rows=rows),))

    return edit


@cache
def mixed_proof() -> TreeProof:
    """The last cell of each tree by an inequality: 0 <= [[64, -J], [-J', 64 I]] for |J| <= 64."""
    row = LmiRow(
        output=0,
        level=1.0,
        input_multipliers=np.full(2, 32.0),
        multipliers={"h0": np.zeros(6)},
    )
    trees: list[Tree] = []
    for tree in true_proof().items[0].trees:
        last = len(tree.kinds) - 1 - tree.kinds[::-1].index(JACOBIAN)
        inequality = with_kind(tree, last, INEQUALITY)
        trees.append(
            replace(inequality, rows=(0,), levels=np.array([64.0]), scales=np.array([2.0]))
        )
    return replace(true_proof(), items=(TreeItem(rows=(row,), trees=tuple(trees)),))


MIXED_BOUND = 96 * (1 + 1e-12)  #: (64 + 2 . 64)/2, and its rounding


def test_an_inequality_bounds_a_cell() -> None:
    verdict = judge(claimed(mixed_proof(), MIXED_BOUND), network())
    assert verdict.code == "valid"
    assert verdict.proved is not None
    assert 96 <= verdict.proved[0]


NO_CUTS = PairCuts(first="", second="h0", first_entries=(), second_entries=(), weights=np.zeros(0))


def test_a_row_with_cuts_is_checked_alone() -> None:
    proof = with_row(cuts=(NO_CUTS,))(mixed_proof())
    assert judge(claimed(proof, MIXED_BOUND), network()).code == "valid"


def test_cuts_with_inputs_need_them_to_vary() -> None:
    fixed = replace(ASKED, region=EndsBox(lower=(-0.375, 0.625), upper=(0.5, 0.625)))
    proof = with_row(cuts=(NO_CUTS,))(mixed_proof())
    assert judge(claimed(proof, MIXED_BOUND, fixed), network()).code in REFUSALS


INEQUALITY_EDITS: Mapping[str, Callable[[TreeProof], TreeProof]] = {
    "the level far lower": with_tree(levels=np.array([1e-3])),
    "the level 0": with_tree(levels=np.zeros(1)),
    "the level negative": with_tree(levels=np.array([-64.0])),
    "the level nan": with_tree(levels=np.array([np.nan])),
    "a scale of 0": with_tree(scales=np.zeros(1)),
    "a scale negative": with_tree(scales=-np.ones(1)),
    "a scale nan": with_tree(scales=np.array([np.nan])),
    "a scale infinite": with_tree(scales=np.array([np.inf])),
    "a small scale": with_tree(scales=np.array([1e-5])),
    "another row": with_tree(rows=(1,)),
    "a row negative": with_tree(rows=(-1,)),
    "a level more": with_tree(levels=np.full(2, 64.0)),
    "a scale less": with_tree(scales=np.zeros(0)),
    "no gate has multipliers": with_row(multipliers={}),
    "multipliers of no gate": with_row(multipliers={"h0": np.zeros(6), "h1": np.zeros(6)}),
    "multipliers too few": with_row(multipliers={"h0": np.zeros(5)}),
    "multipliers negative": with_row(multipliers={"h0": -np.ones(6)}),
    "input multipliers too few": with_row(input_multipliers=np.full(1, 64.0)),
    "input multipliers 0": with_row(input_multipliers=np.zeros(2)),
    "input multipliers negative": with_row(input_multipliers=np.full(2, -64.0)),
    "signs of one output": with_row(output_multipliers=np.ones(2)),
    "cuts that are none": with_row(cuts=(NO_CUTS,), multipliers={}),
    "cuts, and input multipliers too few": with_row(
        cuts=(NO_CUTS,), input_multipliers=np.full(1, 32.0)
    ),
    "cuts of weights too few": with_row(cuts=(replace(NO_CUTS, first_entries=(0,)),)),
}


@pytest.mark.parametrize("edit", INEQUALITY_EDITS)
def test_an_inequality_that_was_altered_is_rejected(edit: str) -> None:
    altered = claimed(INEQUALITY_EDITS[edit](mixed_proof()), MIXED_BOUND)
    assert judge(altered, network()).code in REFUSALS


# --- Depth ---------------------------------------------------------------------------------------


def deep(cuts: int) -> TreeProof:
    """A chain of cuts at one place, each of whose lower parts is a leaf."""
    nothing = np.zeros(0)
    tree = Tree(
        output=None,
        kinds=(CUT, JACOBIAN) * cuts + (JACOBIAN,),
        gates=(0,) * cuts,
        entries=(0,) * cuts,
        places=np.linspace(-0.25, 0.25, cuts),
        weights=nothing,
        rows=(),
        levels=nothing,
        scales=nothing,
    )
    item = TreeItem(rows=(), trees=(tree,))
    return TreeProof(patterns=(), forward=FORWARD, gates=("h0",), items=(item,))


def test_a_hundred_thousand_nodes_in_a_chain_are_refused_at_once() -> None:
    start = time.process_time()
    verdict = judge(claimed(deep(50_000), 1e3), network())
    assert verdict.code == "proof-refuted"
    assert time.process_time() - start < 5


def test_a_chain_of_a_thousand_cuts_is_checked() -> None:
    assert judge(claimed(deep(1000), 1e3), network()).valid


@pytest.mark.parametrize("kind", [6, -1, 1.0, True, "1", None])
def test_the_reader_knows_six_kinds_of_nodes(kind: object) -> None:
    members = certificate_json(claimed(true_proof(), true_bound()))
    proof = members["proof"]
    assert isinstance(proof, dict)
    proof["items"][0]["trees"][0]["kinds"][0] = kind
    with pytest.raises(MalformedCertificate):
        certificate_from_json(members)
