"""Branch and bound goes on from what was stored, whole or in chunks, to the same constant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import cache, reduce
from itertools import pairwise

import numpy as np
import pytest

from tests.tiny_networks import Box, lipschitz_constant
from tests.tiny_topologies import tiny_network
from verifier.certificate import CUT, EMPTY, INEQUALITY, JACOBIAN, Candidate, Certificate
from verifier.checker import check
from verifier.checkpoint import Checkpoint, Growth, Node, Row, cut, join, read_checkpoint
from verifier.checkpoint.growth import folded
from verifier.errors import InvalidRequest
from verifier.methods import branch
from verifier.methods.items import items_of
from verifier.methods.progress import Aim, Step
from verifier.network.graph import Network
from verifier.norms import Norm, NormPair
from verifier.onnx_import import load
from verifier.property import Each, Property
from verifier.proving import Case, Unproved, prove
from verifier.regions import EndsBox

SEED = 6  #: of a tiny network with LeakyReLU; its tree has some parts that are empty
AIM = Aim(gap=1e-6)
EARLY = 2  #: rounds after which a search is stopped


@cache
def model() -> bytes:
    return tiny_network(SEED).network.model


@cache
def network() -> Network:
    return load(model()).require_network()


@cache
def asked() -> Property:
    size = network().input_size
    region = EndsBox(lower=(-0.375,) * size, upper=(0.25,) * size)
    norms = NormPair(Norm.LINF, Norm.LINF)
    return Property(scope="local", norm=norms, region=region)


@cache
def exact() -> Fraction:
    size = network().input_size
    box = Box(np.full(size, -0.375), np.full(size, 0.25))
    return lipschitz_constant(tiny_network(SEED), ("linf", "linf"), box)


@cache
def early() -> Growth:
    return branch.grown(network(), asked(), AIM, rounds=EARLY)


def stored(growth: Growth) -> Growth:
    """The growth as it is read again from its bytes."""
    data = Checkpoint.of("sha256:0", asked(), growth).to_bytes()
    assert data is not None
    return read_checkpoint(data).require("sha256:0", asked())


def proved(candidate: Candidate) -> Certificate | Unproved:
    case = Case(
        model=model(),
        model_id=load(model()).sha256,
        asked=asked(),
        items=items_of(asked(), network().output_size),
        patterns=network().patterns,
        target=None,
        producer={},
    )
    return prove(case, candidate, None, ())


def require_exact(growth: Growth) -> None:
    """The checker accepts the trees, and they bound the constant to 1e-6."""
    certificate = proved(branch.candidate_of(network(), asked(), growth))
    assert isinstance(certificate, Certificate)
    assert check(certificate, model()).valid
    assert certificate.claim.bound is not None
    assert exact() <= Fraction(certificate.claim.bound)
    assert certificate.claim.bound <= float(exact()) * (1 + 1e-6)


def test_a_search_goes_on_where_it_was_stopped() -> None:
    start = stored(early())
    later: list[Step] = []
    steps: list[Step] = []
    resumed = branch.grown(network(), asked(), replace(AIM, report=later.append), start)
    scratch = branch.grown(network(), asked(), replace(AIM, report=steps.append))
    require_exact(resumed)
    assert 1 < start.nodes
    assert resumed.nodes - start.nodes < scratch.nodes
    assert len(later) < len(steps)


def test_nothing_is_lost_in_what_is_stored() -> None:
    one, other = early(), stored(early())
    assert _facts(one) == _facts(other)
    assert np.array_equal(one.points, other.points)


def test_chunks_that_were_worked_on_apart_join_to_valid_trees() -> None:
    chunks = [stored(chunk) for chunk in cut(early(), 3)]
    assert len(chunks) == 3
    require_exact(join([branch.grown(network(), asked(), AIM, chunk) for chunk in chunks]))


@pytest.mark.parametrize("parts", [1, 3, 1000])
def test_chunks_alone_join_to_what_was_cut(parts: int) -> None:
    assert _facts(join(cut(early(), parts))) == _facts(early())


def test_a_missing_chunk_is_found_out() -> None:
    with pytest.raises(InvalidRequest, match="missing"):
        join(cut(early(), 3)[:-1])


def test_chunks_of_different_searches_do_not_join() -> None:
    chunks = cut(early(), 1000)
    first, second = next(
        (one, other)
        for one, other in pairwise(chunks)
        if any(
            a.node.split is not None and b.node.split is not None
            for a, b in zip(one.roots, other.roots, strict=True)
        )
    )
    moved = _altered(second, lambda node: node.split is not None, _moved)
    with pytest.raises(InvalidRequest, match="contradict"):
        join([first, moved])


def _facts(growth: Growth) -> list[tuple[object, ...]]:
    return [
        (
            node.kind,
            node.bound,
            node.split,
            None if node.row is None else node.row.gates.tolist() + node.row.inputs.tolist(),
            None if node.weights is None else node.weights.tolist(),
        )
        for root in growth.roots
        for node in root.node.preorder()
    ]


# --- Tampering -----------------------------------------------------------------------------------


def _altered(
    growth: Growth, chosen: Callable[[Node], bool], change: Callable[[Node], Node]
) -> Growth:
    """The growth with a change of the first node that is chosen, of any tree."""
    old = next(node for root in growth.roots for node in root.node.preorder() if chosen(node))

    def step(node: Node) -> Node | tuple[Node, Node]:
        if node is old or node.children is None:
            return change(node) if node is old else node
        return node.children

    def joined(node: Node, below: Node, above: Node) -> Node:
        return replace(node, children=(below, above))

    roots = (replace(root, node=folded(root.node, step, joined)) for root in growth.roots)
    return replace(growth, roots=tuple(roots))


def _moved(node: Node) -> Node:
    assert node.split is not None
    return replace(node, split=replace(node.split, place=node.split.place + 0.125))


def _halved(node: Node) -> Node:
    assert node.row is not None
    return replace(node, row=Row(node.row.gates * 0.5, node.row.inputs * 0.5))


def _emptied(growth: Growth) -> Growth:
    first = growth.roots[0].node.children
    assert first is not None
    return _altered(
        growth, lambda node: node is first[0], lambda _: Node(kind=EMPTY, weights=np.ones(1))
    )


def _cut_off(growth: Growth) -> Growth:
    """The first tree is said to be one part with one Jacobian."""
    row = next(node.row for node in growth.roots[0].node.preorder() if node.row is not None)
    return _altered(
        growth, lambda node: node.kind == CUT, lambda _: Node(kind=JACOBIAN, bound=0.01, row=row)
    )


#: What a lying checkpoint may say.
LIES: dict[str, Callable[[Growth], Growth]] = {
    "a bound": lambda g: _altered(
        g, lambda node: node.row is not None, lambda node: replace(node, bound=0.01)
    ),
    "one Jacobian": lambda g: _altered(
        g,
        lambda node: node.kind == INEQUALITY,
        lambda node: replace(node, kind=JACOBIAN, bound=0.01),
    ),
    "multipliers": lambda g: _altered(g, lambda node: node.kind == INEQUALITY, _halved),
    "a part is empty": _emptied,
    "no parts": _cut_off,
    "points": lambda g: replace(g, points=1e9 + g.points),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_checkpoint_proves_nothing_false(lie: str) -> None:
    """No certificate, or one of a true bound."""
    _require_true(stored(LIES[lie](early())))


def test_nor_does_a_search_that_goes_on_from_it() -> None:
    lies = (LIES["multipliers"], LIES["a part is empty"], LIES["points"])
    false = reduce(lambda growth, lie: lie(growth), lies, early())
    _require_true(branch.grown(network(), asked(), AIM, stored(false)))


def _require_true(growth: Growth) -> None:
    said = proved(branch.candidate_of(network(), asked(), growth))
    if isinstance(said, Certificate):
        assert said.claim.bound is not None
        assert exact() <= Fraction(said.claim.bound)


def test_a_lie_about_an_empty_part_is_refused_by_the_checker() -> None:
    false = branch.candidate_of(network(), asked(), _emptied(early()))
    assert isinstance(proved(false), Unproved)


STRANGE: dict[str, Callable[[Growth], Growth]] = {
    "a split": lambda g: _altered(g, lambda node: node.split is not None, _moved),
    "a tree": lambda g: replace(g, roots=g.roots[:-1]),
    "gates": lambda g: replace(g, gates=(*g.gates, "another")),
    "points": lambda g: replace(g, points=g.points[:, :-1]),
}


@pytest.mark.parametrize("how", STRANGE)
def test_what_is_not_of_the_question_is_refused(how: str) -> None:
    with pytest.raises(InvalidRequest, match="checkpoint"):
        branch.grown(network(), asked(), AIM, STRANGE[how](early()))


def test_another_question_is_refused() -> None:
    checkpoint = Checkpoint.of("sha256:0", asked(), early())
    with pytest.raises(InvalidRequest, match="model"):
        checkpoint.require("sha256:1", asked())
    with pytest.raises(InvalidRequest, match="property"):
        checkpoint.require("sha256:0", replace(asked(), outputs=Each()))
