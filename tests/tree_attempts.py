"""Trees of the tests' own search, as an attempt that soundness tests can ask for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from tests.checker.trees import tree_proof
from verifier.certificate import (
    INEQUALITY,
    JACOBIAN,
    Certificate,
    Claim,
    LmiRow,
    Tree,
    TreeItem,
    decimal_upper,
    log10_upper,
)
from verifier.checker import check
from verifier.checker.graph import read_network
from verifier.checker.lowering import lowered
from verifier.checker.network import Elementwise, Network
from verifier.norms import Norm, NormPair
from verifier.onnx_import import load
from verifier.property import Property

LEVEL = 1024.0  #: of an inequality of no effort: it holds for every Jacobian of length up to it


@dataclass(frozen=True)
class GrownTrees:
    """One item, all of whose gates are cut; the last cell of each tree by an inequality."""

    def __str__(self) -> str:
        return "trees"

    def answer(self, model: bytes, asked: Property, seconds: float = 0.5) -> Certificate:
        """A certificate that the checker accepts."""
        del seconds  # the trees are small
        patterns = load(model).require_network().patterns
        network = read_network(model, patterns)
        assert isinstance(asked.norm, NormPair)
        joint = asked.norm.output is not Norm.LINF
        outputs = (None,) if joint else tuple(range(network.output_size))
        proof = tree_proof(network, asked.place, [outputs])
        row = _row(network, asked.norm.input is Norm.LINF)
        trees = tuple(_with_inequality(tree) for tree in proof.items[0].trees)
        proof = replace(proof, patterns=patterns, items=(TreeItem(rows=(row,), trees=trees),))
        digest = "sha256:" + hashlib.sha256(model).hexdigest()
        claim = Claim(model=digest, property=asked, bound=1e-3, log10_bound=log10_upper(1e-3))
        word = check(Certificate(claim=claim, proof=proof), model)
        assert word.proved is not None, word.reason
        bound = decimal_upper(word.proved[0])
        claim = replace(claim, bound=bound, log10_bound=log10_upper(bound))
        return Certificate(claim=claim, proof=proof)


def _with_inequality(tree: Tree) -> Tree:
    last = len(tree.kinds) - 1 - tree.kinds[::-1].index(JACOBIAN)
    kinds = (*tree.kinds[:last], INEQUALITY, *tree.kinds[last + 1 :])
    return replace(tree, kinds=kinds, rows=(0,), levels=np.array([LEVEL]), scales=np.ones(1))


def _row(network: Network, from_linf: bool) -> LmiRow:
    small = lowered(network, "compare")
    sizes = {
        small.gates[node.name]: node.size
        for node in small.network.nodes
        if isinstance(node, Elementwise)
    }
    return LmiRow(
        output=None,
        level=LEVEL,
        input_multipliers=np.full(network.input_size, LEVEL) if from_linf else None,
        multipliers={name: np.zeros(size) for name, size in sizes.items()},
    )
