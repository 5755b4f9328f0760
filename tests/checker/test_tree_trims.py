"""Trims of trees: what a search found is valid, and nothing that was altered proves less."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from functools import cache

import numpy as np
import pytest

from tests.attempts import BRANCH
from tests.tiny_networks import Box, TinyNetwork, lipschitz_constant
from tests.tiny_topologies import tiny_network
from verifier.certificate import ABOVE, BELOW, Certificate, Tree, TreeItem, TreeProof
from verifier.checker import check
from verifier.norms import Norm, NormPair
from verifier.property import Property
from verifier.regions import EndsBox

SEED = 1  #: a concatenation of LeakyReLU, whose tree has few trims, and one of each kind
LOWER, UPPER = -0.375, 0.25


@cache
def certified() -> tuple[TinyNetwork, Certificate]:
    """A network, and the certificate of a tree that has trims, of kinks and of intervals."""
    tiny = tiny_network(SEED)
    inputs = tiny.network.size
    region = EndsBox(lower=(LOWER,) * inputs, upper=(UPPER,) * inputs)
    asked = Property(scope="local", norm=NormPair(Norm.LINF, Norm.LINF), region=region)
    return tiny, BRANCH.answer(tiny.network.model, asked, seconds=10.0)


def trees() -> list[Tree]:
    proof = certified()[1].proof
    assert isinstance(proof, TreeProof)
    return list(proof.items[0].trees)


def with_tree(place: int, tree: Tree) -> Certificate:
    certificate = certified()[1]
    proof = certificate.proof
    assert isinstance(proof, TreeProof)
    changed = [tree if k == place else old for k, old in enumerate(trees())]
    item = TreeItem(rows=proof.items[0].rows, trees=tuple(changed))
    return replace(certificate, proof=replace(proof, items=(item,)))


def trims() -> list[tuple[int, int]]:
    """The tree and the place of every trim."""
    return [
        (place, node)
        for place, tree in enumerate(trees())
        for node, kind in enumerate(tree.kinds)
        if kind in (BELOW, ABOVE)
    ]


def exact() -> Fraction:
    tiny = certified()[0]
    ends = np.full(tiny.network.size, LOWER), np.full(tiny.network.size, UPPER)
    return lipschitz_constant(tiny, ("linf", "linf"), Box(*ends))


def is_valid(certificate: Certificate) -> bool:
    return check(certificate, certified()[0].network.model).valid


def test_a_tree_with_trims_of_both_sides_proves_the_constant() -> None:
    bound = certified()[1].claim.bound
    assert bound is not None
    assert is_valid(certified()[1])
    assert exact() <= Fraction(bound)
    assert bound <= float(exact()) * (1 + 1e-6)
    assert {trees()[place].kinds[node] for place, node in trims()} == {BELOW, ABOVE}
    assert any(np.any(tree.places != 0) for tree in trees())


def test_a_trim_on_its_other_side_is_rejected() -> None:
    for place, node in trims():
        kinds = list(trees()[place].kinds)
        kinds[node] = BELOW + ABOVE - kinds[node]
        assert not is_valid(with_tree(place, replace(trees()[place], kinds=tuple(kinds))))


def _moved(tree: Tree, node: int, share: float) -> Tree:
    """A trim farther inside."""
    before = tree.kinds[:node]
    divided = sum(before.count(kind) for kind in (0, BELOW, ABOVE))
    places = tree.places.copy()
    places[divided] += -share if tree.kinds[node] == BELOW else share
    return replace(tree, places=places)


EDITS: Mapping[str, Callable[[Tree, int], Tree]] = {
    "farther inside": lambda t, k: _moved(t, k, 1.0),
    "dropped": lambda t, k: replace(t, kinds=t.kinds[:k] + t.kinds[k + 1 :]),
    "twice": lambda t, k: replace(t, kinds=(*t.kinds[:k], t.kinds[k], *t.kinds[k:])),
    "become a cut": lambda t, k: replace(t, kinds=(*t.kinds[:k], 0, *t.kinds[k + 1 :])),
    "become an empty leaf": lambda t, k: replace(t, kinds=(*t.kinds[:k], 1, *t.kinds[k + 1 :])),
    "become the last node": lambda t, k: replace(t, kinds=t.kinds[: k + 1]),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_trim_that_was_altered_is_rejected(edit: str) -> None:
    for place, node in trims()[::3]:
        assert not is_valid(with_tree(place, EDITS[edit](trees()[place], node)))


@pytest.mark.parametrize("factor", [0.0, -1.0])
def test_trims_without_their_weights_are_rejected(factor: float) -> None:
    altered = [(place, tree) for place, tree in enumerate(trees()) if np.any(tree.weights)]
    assert altered
    for place, tree in altered:
        assert not is_valid(with_tree(place, replace(tree, weights=tree.weights * factor)))
