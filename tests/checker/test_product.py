from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from tests.checker.groups import FAMILIES
from tests.checker.oracles import dense_network, evaluate, rationals
from verifier.certificate import BlockNorm, FactorNorm, ProductItem, ProductProof
from verifier.checker.carry import Carried, push
from verifier.checker.composites import Composites
from verifier.checker.definite import NotProved
from verifier.checker.items import selection
from verifier.checker.lowering import lowered
from verifier.checker.maps import Dense
from verifier.checker.network import Network, Reflection
from verifier.checker.product import node_constant, prove_product
from verifier.errors import InvalidRequest
from verifier.norms import Norm, NormPair
from verifier.property import Each, Indices, Margins, Property
from verifier.regions import CenterBox


def bounds_of(
    whole: Network, asked: Property, internal: Norm, *, names: tuple[BlockNorm, ...] = ()
) -> list[float]:
    assert isinstance(asked.norm, NormPair)
    chosen = selection(asked, whole.input_size, whole.output_size)
    item = ProductItem(internal=internal, blocks=names)
    proof = ProductProof(patterns=(), items=(item,) * len(chosen.items))
    assert isinstance(asked.norm, NormPair)
    return [m.upper() for m in prove_product(proof, whole, asked.norm, chosen).bounds]


def squared(values: list[Fraction], norm: Norm) -> Fraction:
    match norm:
        case Norm.L1:
            return sum((abs(v) for v in values), Fraction(0)) ** 2
        case Norm.L2:
            return sum((v * v for v in values), Fraction(0))
        case Norm.LINF:
            return max(abs(v) for v in values) ** 2


@pytest.mark.parametrize("internal", list(Norm))
@pytest.mark.parametrize("family", FAMILIES)
def test_no_exact_quotient_exceeds_the_product(family: str, internal: Norm) -> None:
    rng = np.random.default_rng(21)
    whole = FAMILIES[family](rng)
    pairs = [(rationals(rng, 3), rationals(rng, 3)) for _ in range(15)]
    values = [(evaluate(whole, x)["y"], evaluate(whole, y)["y"]) for x, y in pairs]
    for given in Norm:
        for output in Norm:
            (bound,) = bounds_of(whole, Property(norm=NormPair(given, output)), internal)
            for (x, y), (f, g) in zip(pairs, values, strict=True):
                rise = squared([a - b for a, b in zip(f, g, strict=True)], output)
                run = squared([a - b for a, b in zip(x, y, strict=True)], given)
                assert rise <= Fraction(bound) ** 2 * run


@pytest.mark.parametrize("family", ["maxima", "minima"])
def test_lowered_maxima_are_bounded_too(family: str) -> None:
    rng = np.random.default_rng(22)
    whole = FAMILIES[family](rng)
    named = (BlockNorm(target="m#0", source="", norm=100.0),)
    (bound,) = bounds_of(whole, Property(), Norm.L2, names=named)
    for _ in range(30):
        x, y = rationals(rng, 3), rationals(rng, 3)
        f, g = evaluate(whole, x)["y"], evaluate(whole, y)["y"]
        rise = squared([a - b for a, b in zip(f, g, strict=True)], Norm.L2)
        run = squared([a - b for a, b in zip(x, y, strict=True)], Norm.L2)
        assert rise <= Fraction(bound) ** 2 * run


@pytest.mark.parametrize("pair", [(p, q) for p in Norm for q in Norm])
def test_a_linear_network_has_its_norm(pair: tuple[Norm, Norm]) -> None:
    """Closed forms are reached; the pairs without one are within sqrt(n)."""
    matrix = np.array([[3.0, -1.0], [0.5, 2.0], [0.0, 1.0]])
    (bound,) = bounds_of(dense_network([matrix]), Property(norm=NormPair(*pair)), Norm.L2)
    signs = np.array([[1.0, 1.0], [1.0, -1.0]])
    orders = {Norm.L1: 1, Norm.L2: 2, Norm.LINF: np.inf}
    angles = np.linspace(0, np.pi, 20001)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    ball = {Norm.L1: np.eye(2), Norm.L2: circle, Norm.LINF: signs}[pair[0]]
    exact = max(np.linalg.norm(matrix @ x, orders[pair[1]]) for x in ball)
    loose = pair in ((Norm.LINF, Norm.L1), (Norm.LINF, Norm.L2), (Norm.L2, Norm.L1))
    assert exact * (1 - 1e-8) <= bound <= exact * (2 if loose else 1 + 1e-7)


def test_items_select_rows_and_columns() -> None:
    matrix = np.array([[3.0, 4.0], [6.0, 8.0], [0.0, 1.0]])
    whole = dense_network([matrix])
    assert bounds_of(whole, Property(outputs=Each()), Norm.L2) == pytest.approx([5, 10, 1])
    assert bounds_of(whole, Property(outputs=Margins(((0, 2),))), Norm.L2) == pytest.approx(
        [math.sqrt(18)]
    )
    assert bounds_of(whole, Property(inputs=Indices((0,))), Norm.L2) == pytest.approx(
        [math.sqrt(45)]
    )
    assert bounds_of(whole, Property(outputs=Indices((2,))), Norm.L2) == pytest.approx([1])


@pytest.mark.parametrize(
    "asked",
    [
        Property(outputs=Indices((3,))),
        Property(outputs=Indices((0, 0))),
        Property(inputs=Indices((2,))),
        Property(outputs=Margins(((0, 0),))),
        Property(outputs=Margins(((0, 3),))),
        Property(scope="local", region=CenterBox(center=(0.0,), radius=1.0)),
    ],
)
def test_selections_beyond_the_network_are_refused(asked: Property) -> None:
    with pytest.raises(InvalidRequest):
        selection(asked, 2, 3)


def test_one_output_has_no_margin() -> None:
    with pytest.raises(InvalidRequest, match="two outputs"):
        selection(Property(outputs=Margins(None)), 2, 1)


def test_norms_of_what_the_network_has_not_change_nothing() -> None:
    whole = dense_network([np.eye(2), np.eye(2)])
    odd = (BlockNorm(target="nothing", source="h9", norm=0.0),)
    (bound,) = bounds_of(whole, Property(), Norm.L2, names=odd)
    assert 1.0 <= bound <= 1.0 + 1e-9


@pytest.mark.parametrize("norm", [0.0, 0.5, 0.999999, -1.0, 1e308])
def test_a_block_norm_below_the_truth_is_not_believed(norm: float) -> None:
    whole = dense_network([np.diag([1.0, 0.5])])
    hint = (BlockNorm(target="", source="", norm=norm),)
    (bound,) = bounds_of(whole, Property(), Norm.L2, names=hint)
    assert 1.0 <= bound


@pytest.mark.parametrize("norm", [0.0, 0.5, 0.999999, -1.0])
def test_a_factor_below_the_truth_is_not_believed(norm: float) -> None:
    whole = dense_network([np.diag([1.0, 0.5])])
    item = ProductItem(internal=Norm.L2, factors=(FactorNorm(node="z0", norm=norm),))
    proof = ProductProof(patterns=(), items=(item,))
    (bound,) = prove_product(
        proof, whole, NormPair(Norm.L2, Norm.L2), selection(Property(), 2, 2)
    ).bounds
    assert 1.0 <= bound.upper()


def test_another_number_of_items_is_refused() -> None:
    whole = dense_network([np.eye(2)])
    proof = ProductProof(patterns=(), items=())
    with pytest.raises(NotProved):
        prove_product(proof, whole, NormPair(Norm.L2, Norm.L2), selection(Property(), 2, 2))


@pytest.mark.parametrize("norm", list(Norm))
def test_a_reflection_of_a_long_vector_is_no_isometry(norm: Norm) -> None:
    """|I - 2vv'| is 2|v|^2 - 1 in l2 for |v| > 1; in l1 and linf it exceeds 1 for any v."""
    vectors = np.array([[0.6, 0.8], [1.5, 2.0]])
    node = Reflection(
        name="r",
        size=4,
        source="",
        slices=np.array([[0, 1], [2, 3]]),
        vectors=vectors,
        vector_error=np.zeros((2, 2)),
    )
    mirrors = [np.eye(2) - 2 * np.outer(v, v) for v in vectors]
    order = {Norm.L1: 1, Norm.L2: 2, Norm.LINF: np.inf}[norm]
    exact = max(float(np.linalg.norm(m, order)) for m in mirrors)
    assert exact * (1 - 1e-14) <= node_constant(node, norm).upper() <= exact * (1 + 1e-12)


def test_composites_agree_from_both_sides() -> None:
    """Through a skip, forwards and backwards, within their errors."""
    whole = lowered(FAMILIES["residual"](np.random.default_rng(1)), "compare").network
    found = Composites(whole)
    back = found.matrix("b", "h")
    ones = Carried(np.eye(4))
    first, second = (term.map for term in whole.nodes[2].terms)  # pyright: ignore[reportAttributeAccessIssue]
    assert np.array_equal(push(first, ones).value.T, back.value)
    assert found.sources("b") == ("h", "")
    through = push(second, push(whole.nodes[0].terms[0].map, Carried(np.eye(3))))  # pyright: ignore[reportAttributeAccessIssue]
    assert np.allclose(through.value.T, found.matrix("b", "").value)


def test_a_stored_matrix_is_read_off_exactly() -> None:
    matrix = np.random.default_rng(2).standard_normal((4, 3))
    assert push(Dense(matrix), Carried(np.eye(3))).error is None
    folded = push(Dense(matrix, np.full((4, 3), 1e-3)), Carried(np.eye(3)))
    assert folded.error is not None
    assert np.all(folded.error == 1e-3)
