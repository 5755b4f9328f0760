"""Trees of boxes, altered: what is no cover, or no proof of a box, is rejected."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from tests.methods.test_branch_boxes import grown, model
from verifier.certificate import (
    CUT,
    EMPTY,
    INEQUALITY,
    JACOBIAN,
    Certificate,
    Claim,
    Tree,
    TreeItem,
    TreeProof,
    decimal_upper,
    log10_upper,
)
from verifier.checker.graph import read_network
from verifier.checker.network import Network
from verifier.checker.verdict import Verdict, judge
from verifier.norms import Norm, NormPair
from verifier.property import Property
from verifier.regions import Ball, CenterBox

CONTENT = model("Tanh-Clip", (2, 4, 3, 2))
REGION = Ball(norm=Norm.L2, center=(0.125, -0.25), radius=1.0)
ASKED = Property(scope="local", norm=NormPair(Norm.L2, Norm.LINF), region=REGION)
REFUSALS = ("proof-refuted", "bound-not-proved")


@cache
def network() -> Network:
    return read_network(CONTENT, ())


@cache
def true_proof() -> TreeProof:
    proof = grown(CONTENT, ASKED, leaves=60, gap=0.01).candidate().proof
    assert isinstance(proof, TreeProof)
    return proof


def claimed(proof: TreeProof, bound: float, asked: Property = ASKED) -> Certificate:
    model_id = "sha256:" + "0" * 64
    claim = Claim(model=model_id, property=asked, bound=bound, log10_bound=log10_upper(bound))
    return Certificate(claim=claim, proof=proof)


@cache
def true_bound() -> float:
    proved = judge(claimed(true_proof(), 1e-3), network()).proved
    assert proved is not None
    return decimal_upper(proved[0])


def word(proof: TreeProof, asked: Property = ASKED) -> Verdict:
    return judge(claimed(proof, true_bound(), asked), network())


def with_tree(tree: Tree) -> TreeProof:
    return replace(true_proof(), items=(TreeItem(rows=(), trees=(tree,)),))


def the_tree() -> Tree:
    return true_proof().items[0].trees[0]


def test_the_tree_is_valid_and_has_cuts_of_inputs_and_gates() -> None:
    assert word(true_proof()).code == "valid"
    less = claimed(true_proof(), np.nextafter(true_bound(), 0).item())
    assert judge(less, network()).code == "bound-not-proved"
    assert {CUT, EMPTY, JACOBIAN} == set(the_tree().kinds)
    assert 0 in the_tree().gates
    assert {0} < set(the_tree().gates)


def subtree(tree: Tree, start: int) -> int:
    """Where the subtree that starts at a node ends."""
    missing = 1
    for place in range(start, len(tree.kinds)):
        missing += 1 if tree.kinds[place] == CUT else -1
        if missing == 0:
            return place + 1
    return len(tree.kinds)


def pruned(tree: Tree, start: int) -> Tree:
    """A cut and all below it replaced by one leaf."""
    end = subtree(tree, start)
    inner = tree.kinds[start:end]
    first = tree.kinds[:start].count(CUT)
    last = first + inner.count(CUT)
    return replace(
        tree,
        kinds=(*tree.kinds[:start], JACOBIAN, *tree.kinds[end:]),
        gates=tree.gates[:first] + tree.gates[last:],
        entries=tree.entries[:first] + tree.entries[last:],
        places=np.delete(tree.places, slice(first, last)),
    )


def with_kind(tree: Tree, kind: int) -> Tree:
    place = tree.kinds.index(JACOBIAN)
    return replace(tree, kinds=(*tree.kinds[:place], kind, *tree.kinds[place + 1 :]))


def dropped(tree: Tree, kind: int) -> Tree:
    place = tree.kinds.index(kind)
    return replace(tree, kinds=tree.kinds[:place] + tree.kinds[place + 1 :])


EDITS: Mapping[str, Callable[[Tree], Tree]] = {
    "a box dropped": lambda t: dropped(t, JACOBIAN),
    "an empty box dropped": lambda t: dropped(t, EMPTY),
    "the last box dropped": lambda t: replace(t, kinds=t.kinds[:-1]),
    "half a cover": lambda t: replace(t, kinds=t.kinds[: subtree(t, 1)]),
    "a box twice": lambda t: replace(t, kinds=(*t.kinds, JACOBIAN)),
    "a box claimed empty": lambda t: with_kind(t, EMPTY),
    "a box of no inequality": lambda t: with_kind(t, INEQUALITY),
    "weights 0": lambda t: replace(t, weights=np.zeros_like(t.weights)),
    "weights negative": lambda t: replace(t, weights=-t.weights),
    "a weight less": lambda t: replace(t, weights=t.weights[:-1]),
    "an input beyond": lambda t: replace(t, entries=(9, *t.entries[1:])),
    "a gate beyond": lambda t: replace(t, gates=(9, *t.gates[1:])),
    "a place nan": lambda t: replace(t, places=np.append(np.nan, t.places[1:])),
    "all cuts far": lambda t: replace(t, places=t.places + 1e3),
    "all cuts a little beside": lambda t: replace(t, places=t.places + 0.25),
    "all below the first cut left out": lambda t: pruned(t, 1),
    "everything left out": lambda t: pruned(t, 0),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_tree_of_boxes_that_was_altered_is_rejected(edit: str) -> None:
    assert word(with_tree(EDITS[edit](the_tree()))).code in REFUSALS


@pytest.mark.parametrize(
    "region",
    [
        replace(REGION, radius=1.25),
        replace(REGION, center=(0.5, -0.25)),
        CenterBox(center=(0.125, -0.25), radius=1.0),
    ],
)
def test_the_boxes_of_another_region_are_rejected(region: Ball | CenterBox) -> None:
    assert word(true_proof(), replace(ASKED, region=region)).code in REFUSALS
