"""Branch and bound: exact constants of tiny networks, and what must hold of every tree."""

from __future__ import annotations

from fractions import Fraction
from functools import cache

import numpy as np
import pytest

from tests.attempts import BRANCH, bounds
from tests.exact import Pair
from tests.tiny_networks import Box, TinyNetwork, lipschitz_constant
from tests.tiny_topologies import chain, tiny_network
from verifier.certificate import TreeProof
from verifier.checker import check
from verifier.checker.graph import read_network
from verifier.checker.items import selection
from verifier.checker.tree import prove_tree
from verifier.methods import branch
from verifier.methods.clock import Clock
from verifier.methods.progress import Aim, Step
from verifier.norms import Norm, NormPair
from verifier.onnx_import import load
from verifier.property import All, Each, Outputs, Property
from verifier.regions import Ball, EndsBox

#: Seeds and norms by what they are: slopes above 1, sorts, mirrors, convolutions, residuals.
CONVERGING: dict[str, tuple[int, Pair]] = {
    "chain-maxmin": (0, ("l2", "l2")),
    "concat-leaky": (1, ("l2", "linf")),
    "conv-residual-leaky": (6, ("linf", "linf")),
    "conv2d-prelu": (52, ("l2", "l2")),
    "transpose-prelu": (43, ("linf", "linf")),
    "concat-crelu-maxpool": (23, ("linf", "linf")),
    "consumers-householder-leaky": (68, ("l2", "linf")),
    "unrolled-abs": (5, ("linf", "linf")),
    "consumers-sort": (2, ("linf", "linf")),
}
LOWER, UPPER = -0.375, 0.25
ALL = All()

tiny_of = cache(tiny_network)


def local(tiny: TinyNetwork, norms: Pair, share: float = 1.0, outputs: Outputs = ALL) -> Property:
    inputs = tiny.network.size
    region = EndsBox(lower=(LOWER * share,) * inputs, upper=(UPPER * share,) * inputs)
    norm = NormPair(Norm(norms[0]), Norm(norms[1]))
    return Property(scope="local", norm=norm, region=region, outputs=outputs)


def constant(tiny: TinyNetwork, norms: Pair, share: float = 1.0) -> Fraction:
    inputs = tiny.network.size
    lower, upper = np.full(inputs, LOWER * share), np.full(inputs, UPPER * share)
    return lipschitz_constant(tiny, norms, Box(lower, upper))


@pytest.mark.parametrize(("seed", "norms"), CONVERGING.values(), ids=CONVERGING)
def test_trees_converge_to_the_constant(seed: int, norms: Pair) -> None:
    tiny = tiny_of(seed)
    certificate = BRANCH.answer(tiny.network.model, local(tiny, norms), seconds=120.0)
    exact = constant(tiny, norms)
    (bound,) = bounds(certificate)
    assert bound is not None
    assert check(certificate, tiny.network.model).valid
    assert exact <= Fraction(bound)
    assert bound <= float(exact) * (1 + 1e-6)
    assert certificate.lower_bound is not None
    assert Fraction(certificate.lower_bound.value) <= exact


@pytest.mark.parametrize("norms", [("linf", "linf"), ("l2", "l2")], ids="-".join)
def test_gates_of_several_kinks_are_cut_at_each(norms: Pair) -> None:
    tiny = chain(5, (2, 5, 4, 2), ("clip", "clip"))
    asked = local(tiny, norms, 4.0)
    network = load(tiny.network.model).require_network()
    (found,) = branch.candidates(network, asked, Clock.start(60.0), Aim(gap=1e-7))
    assert isinstance(found.proof, TreeProof)
    places = {place for tree in found.proof.items[0].trees for place in tree.places.tolist()}
    assert 2 <= len(places)
    checked = read_network(tiny.network.model, found.proof.patterns)
    chosen = selection(asked, checked.input_size, checked.output_size)
    (bound,) = prove_tree(found.proof, checked, asked, chosen)
    exact = constant(tiny, norms, 4.0)
    assert exact <= Fraction(bound.upper()) <= exact * (1 + Fraction(1, 10**6))


@pytest.mark.parametrize("seed", [0, 1], ids=str)
def test_every_output_has_a_tree_of_its_own(seed: int) -> None:
    tiny = tiny_of(seed)
    asked = local(tiny, ("linf", "linf"), outputs=Each())
    certificate = BRANCH.answer(tiny.network.model, asked, seconds=10.0)
    assert isinstance(certificate.proof, TreeProof)
    assert check(certificate, tiny.network.model).valid
    assert [len(item.trees) for item in certificate.proof.items] == [1] * len(bounds(certificate))
    whole = max(bound for bound in bounds(certificate) if bound is not None)
    exact = constant(tiny, ("linf", "linf"))
    assert exact <= Fraction(whole)
    assert whole <= float(exact) * (1 + 1e-6)


@pytest.mark.parametrize("seed", [0, 5], ids=str)
def test_more_cells_have_no_larger_bound_than_the_whole_region(seed: int) -> None:
    """Any bound is enough: the whole region is the only leaf, and better ones follow from more."""
    tiny = tiny_of(seed)
    asked = local(tiny, ("linf", "linf"))
    network = load(tiny.network.model).require_network()
    (found,) = branch.candidates(network, asked, Clock.start(60.0), Aim(enough=1e9))
    certificate = BRANCH.answer(tiny.network.model, asked, seconds=10.0)
    (bound,) = bounds(certificate)
    assert bound is not None
    assert bound <= found.estimates[0] * (1 + 1e-9)
    assert float(constant(tiny, ("linf", "linf"))) <= found.estimates[0]


def test_a_part_of_a_region_has_no_larger_bound() -> None:
    tiny = tiny_of(0)
    inner, outer = (
        BRANCH.answer(tiny.network.model, local(tiny, ("linf", "linf"), share), seconds=10.0)
        for share in (0.5, 1.0)
    )
    assert inner.claim.bound is not None
    assert outer.claim.bound is not None
    assert inner.claim.bound <= outer.claim.bound * (1 + 1e-8)


@pytest.mark.parametrize("norm", [Norm.L1, Norm.L2], ids=str)
def test_balls_are_divided_as_their_boxes_are(norm: Norm) -> None:
    """A ball within the box: its bound is no larger, and not below the constant of a box in it."""
    tiny = tiny_of(1)
    inputs = tiny.network.size
    region = Ball(norm=norm, center=(0.0,) * inputs, radius=0.25)
    asked = Property(scope="local", norm=NormPair(Norm.LINF, Norm.LINF), region=region)
    certificate = BRANCH.answer(tiny.network.model, asked, seconds=10.0)
    assert check(certificate, tiny.network.model).valid
    (bound,) = bounds(certificate)
    assert bound is not None
    within = np.full(inputs, 0.25 / inputs)
    assert lipschitz_constant(tiny, ("linf", "linf"), Box(-within, within)) <= Fraction(bound)


def test_the_same_request_has_the_same_tree() -> None:
    tiny = tiny_of(5)
    asked = local(tiny, ("linf", "linf"))
    network = load(tiny.network.model).require_network()

    def found() -> tuple[tuple[float, ...], tuple[int, ...]]:
        (answer,) = branch.candidates(network, asked, Clock.start(60.0), Aim(gap=1e-6))
        assert isinstance(answer.proof, TreeProof)
        return answer.estimates, answer.proof.items[0].trees[0].kinds

    assert found() == found()


def test_steps_say_how_many_cells_are_open() -> None:
    tiny = tiny_of(5)
    network = load(tiny.network.model).require_network()
    steps: list[Step] = []
    aim = Aim(gap=1e-6, report=steps.append)
    list(branch.candidates(network, local(tiny, ("linf", "linf")), Clock.start(60.0), aim))
    waiting = [step.open or 0 for step in steps]
    assert [step.iteration for step in steps] == list(range(1, len(steps) + 1))
    assert max(waiting) > 1


@pytest.mark.parametrize("norms", [("l1", "l2"), ("l1", "linf")], ids="-".join)
def test_norms_without_inequalities_are_bounded_box_by_box(norms: Pair) -> None:
    tiny = tiny_of(5)
    certificate = BRANCH.answer(tiny.network.model, local(tiny, norms), seconds=3.0)
    exact = constant(tiny, norms)
    (bound,) = bounds(certificate)
    assert bound is not None
    assert check(certificate, tiny.network.model).valid
    assert exact <= Fraction(bound)
    assert bound <= float(exact) * 1.1


def test_everywhere_there_is_no_candidate() -> None:
    network = load(tiny_of(0).network.model).require_network()
    assert list(branch.candidates(network, Property(), Clock.start(5.0), Aim())) == []
