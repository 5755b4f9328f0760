"""Absolute products, joint norms, runs and layers: never below a realised quotient."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest

from tests.checker.groups import FAMILIES
from tests.checker.oracles import (
    affine,
    dense_network,
    evaluate,
    network,
    rationals,
)
from tests.checker.test_product import squared
from verifier.certificate import ProductItem, ProductProof, ProductTechnique
from verifier.checker import absolute, operator_norms
from verifier.checker.definite import NotProved
from verifier.checker.items import selection
from verifier.checker.layers import Layer
from verifier.checker.maps import Adjoint, Convolution, Dense, Diagonal, Gather, identity
from verifier.checker.network import Elementwise, Map, Network, Term
from verifier.checker.product import Product, prove_product
from verifier.checker.runs import run_norm
from verifier.checker.scalars import absolute as magnitude
from verifier.checker.scalars import relu
from verifier.norms import Norm, NormPair
from verifier.property import Indices, Property

TECHNIQUES: tuple[ProductTechnique, ...] = ("sums", "joint", "balanced", "absolute")
L2 = NormPair(Norm.L2, Norm.L2)


def proved(
    whole: Network,
    *techniques: ProductTechnique,
    pair: NormPair = L2,
    internal: Norm = Norm.L2,
    asked: Property | None = None,
) -> Product:
    chosen = selection(asked or Property(), whole.input_size, whole.output_size)
    item = ProductItem(internal=internal, techniques=techniques)
    return prove_product(
        ProductProof(patterns=(), items=(item,) * len(chosen.items)), whole, pair, chosen
    )


def bound_of(whole: Network, *techniques: ProductTechnique, pair: NormPair = L2) -> float:
    internal = pair.output
    return proved(whole, *techniques, pair=pair, internal=internal).bounds[0].upper()


@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize("family", FAMILIES)
def test_no_exact_quotient_exceeds_a_technique(family: str, technique: ProductTechnique) -> None:
    rng = np.random.default_rng(31)
    whole = FAMILIES[family](rng)
    pairs = [(rationals(rng, 3), rationals(rng, 3)) for _ in range(12)]
    values = [(evaluate(whole, x)["y"], evaluate(whole, y)["y"]) for x, y in pairs]
    for given, output in itertools.product(Norm, Norm):
        bound = bound_of(whole, technique, pair=NormPair(given, output))
        for (x, y), (f, g) in zip(pairs, values, strict=True):
            rise = squared([a - b for a, b in zip(f, g, strict=True)], output)
            run = squared([a - b for a, b in zip(x, y, strict=True)], given)
            assert rise <= Fraction(bound) ** 2 * run


@pytest.mark.parametrize("seed", range(10))
def test_no_gate_pattern_exceeds_a_technique(seed: int) -> None:
    """A residual network of |.|: every pattern of signs is a Jacobian of some other network."""
    rng = np.random.default_rng(seed)
    inner, outer = rng.standard_normal((3, 2)), rng.standard_normal((2, 3))
    whole = residual(inner, outer)
    jacobians = [
        np.eye(2) + outer @ np.diag(signs) @ inner for signs in itertools.product((-1, 1), repeat=3)
    ]
    for norm, order in ((Norm.L1, 1), (Norm.L2, 2), (Norm.LINF, np.inf)):
        truth = max(float(np.linalg.norm(j, order)) for j in jacobians)
        for technique in TECHNIQUES:
            assert truth <= bound_of(whole, technique, pair=NormPair(norm, norm)) * (1 + 1e-14)


def residual(inner: np.ndarray, outer: np.ndarray) -> Network:
    """X + outer |inner x|."""
    count = len(inner)
    return network(
        [
            affine("v", count, Term("", Dense(inner))),
            Elementwise(name="h", size=count, source="v", function=magnitude()),
            affine("y", len(outer), Term("", identity(len(outer))), Term("h", Dense(outer))),
        ],
        inner.shape[1],
    )


@pytest.mark.parametrize("norm", Norm)
def test_balanced_is_never_above_the_sum_of_paths(norm: Norm) -> None:
    rng = np.random.default_rng(5)
    for _ in range(10):
        whole = residual(rng.standard_normal((4, 3)), rng.standard_normal((3, 4)))
        pair = NormPair(norm, norm)
        sums, balanced = (bound_of(whole, t, pair=pair) for t in ("sums", "balanced"))
        assert balanced <= sums * (1 + 1e-7)
        assert bound_of(whole, *TECHNIQUES, pair=pair) <= balanced


def test_a_frame_is_measured_jointly() -> None:
    """Two branches of one input with |[A; B]| = 1 stay at 1, where the sum of paths says 2."""
    first, second = np.diag([0.6, 0.6]), np.diag([0.8, 0.8])
    index = np.arange(2)
    whole = network(
        [
            affine("a", 2, Term("", Dense(first))),
            affine("b", 2, Term("", Dense(second))),
            Elementwise(name="p", size=2, source="a", function=magnitude()),
            Elementwise(name="q", size=2, source="b", function=magnitude()),
            affine(
                "y",
                4,
                Term("p", Gather(np.concatenate([index, [-1, -1]]), 2)),
                Term("q", Gather(np.concatenate([[-1, -1], index]), 2)),
            ),
        ],
        2,
    )
    assert 1.0 <= bound_of(whole, "joint") <= 1 + 1e-9
    assert bound_of(whole, "sums") == pytest.approx(1.4)


@pytest.mark.parametrize("norm", Norm)
def test_a_network_of_one_sign_is_exact(norm: Norm) -> None:
    """Flips D_l with D_l W_l D_(l-1) >= 0: all gates on is the worst pattern, and is reached."""
    rng = np.random.default_rng(6)
    flips = [rng.choice([-1.0, 1.0], 4) for _ in range(2)]
    weights = [rng.random((4, 3)), rng.random((4, 4)), rng.random((2, 4))]
    signed = [
        np.diag(flips[0]) @ weights[0],
        np.diag(flips[1]) @ weights[1] @ np.diag(flips[0]),
        weights[2] @ np.diag(flips[1]),
    ]
    order = {Norm.L1: 1, Norm.L2: 2, Norm.LINF: np.inf}[norm]
    truth = float(np.linalg.norm(weights[2] @ weights[1] @ weights[0], order))
    bound = bound_of(
        dense_network(signed, scalar=magnitude()), "absolute", pair=NormPair(norm, norm)
    )
    assert truth * (1 - 1e-14) <= bound <= truth * (1 + 1e-9)


def test_many_rows_are_bounded_by_schurs_test(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(7)
    weights = [rng.random((5, 4)), rng.random((3, 5))]
    truth = float(np.linalg.norm(weights[1] @ weights[0], 2))
    monkeypatch.setattr(absolute, "CARRIED_ENTRIES", 0)
    bound = bound_of(dense_network(weights), "absolute")
    assert truth <= bound <= truth * (1 + 1e-9)


def test_absolute_products_know_selected_inputs() -> None:
    whole = dense_network([np.array([[3.0, 100.0], [4.0, 100.0]])])
    asked = Property(inputs=Indices((0,)))
    assert proved(whole, "absolute", asked=asked).bounds[0].upper() == pytest.approx(5.0)


def test_a_technique_that_does_not_apply_leaves_the_others() -> None:
    whole = dense_network([np.eye(2) * 1e200] * 3)
    with np.errstate(all="ignore"):
        with pytest.raises(NotProved):
            proved(whole, "absolute")
        bound = proved(whole, "sums", "absolute").bounds[0]
    assert bound.log10() == pytest.approx(600)
    with pytest.raises(NotProved):
        proved(whole)


def test_depth_two_thousand_and_norms_beyond_float64_keep_their_logarithm() -> None:
    weights = [np.eye(2) * 1e300] * 4 + [np.eye(2) * 3.0] * 1996
    log = proved(dense_network(weights), "sums").bounds[0].log10()
    assert log is not None
    assert 1200 + 1996 * np.log10(3) <= log <= (1200 + 1996 * np.log10(3)) * (1 + 1e-12)


# --- Layers --------------------------------------------------------------------------------------


def test_layers_tell_prefix_and_suffix() -> None:
    whole = dense_network([np.diag([2.0, 1.0]), np.diag([3.0, 1.0]), np.diag([5.0, 1.0])])
    layers = proved(whole, "sums").layers
    assert [layer.node for layer in layers] == ["h0", "h1", ""]
    numbers = [[m.upper() for m in (x.norm, x.prefix, x.suffix)] for x in layers]
    assert np.array(numbers) == pytest.approx(np.array([[2, 2, 15], [3, 6, 5], [5, 30, 1]]))


def test_an_error_at_a_layer_moves_the_output_by_its_suffix() -> None:
    rng = np.random.default_rng(8)
    weights = [rng.integers(-4, 5, (3, 3)) / 4 for _ in range(3)]
    whole = dense_network(weights)
    suffix = {layer.node: layer.suffix.upper() for layer in proved(whole, "sums").layers}
    rest = dense_network([np.eye(3), *weights[1:]])
    for _ in range(20):
        x, y = rationals(rng, 3), rationals(rng, 3)
        f, g = (evaluate(rest, point)[rest.output] for point in (x, y))
        rise = squared([a - b for a, b in zip(f, g, strict=True)], Norm.L2)
        run = squared([a - b for a, b in zip(x, y, strict=True)], Norm.L2)
        assert rise <= Fraction(suffix["h0"]) ** 2 * run


def test_layers_of_a_skip_add_up() -> None:
    layers: tuple[Layer, ...] = proved(residual(np.eye(2) * 2, np.eye(2) * 3), "sums").layers
    ((node, whole),) = [(x.node, x) for x in layers if x.node == ""]
    assert node == ""
    assert whole.prefix.upper() == pytest.approx(7.0)
    assert whole.norm.upper() == pytest.approx(np.sqrt(10.0))


# --- Runs ----------------------------------------------------------------------------------------


@pytest.fixture
def nothing_is_formed(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_rows: int, _columns: int) -> bool:
        return False

    monkeypatch.setattr(operator_norms, "is_formable", never)


def run_of(rng: np.random.Generator, *, wraps: bool, is_adjoint: bool) -> list[Map]:
    """Scales, a wrapped padding, a convolution or its adjoint, scales."""
    groups, stride, width = (int(rng.choice([1, 2])) for _ in range(3))
    width += 1
    kernel = rng.standard_normal((2 * groups, 2, width, width))
    side = 3 * stride
    padded = 2 * stride + width if wraps else side
    shape = (2 * groups, padded, padded)
    convolution = Convolution(
        kernel=kernel,
        error=None,
        in_shape=shape,
        pads=((0, 0), (0, 0)) if wraps else ((1, 2), (0, 1)),
        strides=(stride, stride),
        dilations=(1, 1),
        groups=groups,
    )
    core: Map = Adjoint(convolution) if is_adjoint else convolution
    before = np.repeat(rng.standard_normal(2 * groups), core.in_size // (2 * groups))
    after = np.repeat(rng.standard_normal(2 * groups), core.out_size // (2 * groups))
    maps: list[Map] = [Diagonal(before), identity(core.in_size), core, Diagonal(after)]
    if wraps:
        turned = (np.arange(padded) - 1) % side
        index = np.arange(2 * groups * side * side).reshape(-1, side, side)
        maps.insert(0, Gather(index[:, turned][:, :, turned].ravel(), index.size))
    return maps


def applied(maps: list[Map]) -> np.ndarray:
    rows = np.eye(maps[0].in_size)
    for linear in maps:
        rows = linear.forward(rows)
    return rows


@pytest.mark.usefixtures("nothing_is_formed")
@pytest.mark.parametrize(
    ("wraps", "is_adjoint", "loose"), [(False, False, 1.6), (False, True, 1.6), (True, False, 1.0)]
)
def test_no_run_exceeds_its_norm(wraps: bool, is_adjoint: bool, loose: float) -> None:
    """Circular padding is exact; zeros outside cost what the boundary of a tiny image costs."""
    rng = np.random.default_rng(9)
    for _ in range(25):
        maps = run_of(rng, wraps=wraps, is_adjoint=is_adjoint)
        truth = float(np.linalg.norm(applied(maps), 2))
        assert truth <= run_norm(maps, None).upper() * (1 + 1e-13)
        assert run_norm(maps, None).upper() <= truth * loose * (1 + 1e-9)


@pytest.mark.usefixtures("nothing_is_formed")
def test_other_paddings_cost_the_root_of_their_copies() -> None:
    """Reflection is no torus: the convolution's norm times sqrt(multiplicity)."""
    rng = np.random.default_rng(10)
    index = np.pad(np.arange(6), 1, mode="reflect")
    convolution = Convolution(
        kernel=rng.standard_normal((1, 1, 3)),
        error=None,
        in_shape=(1, 8),
        pads=((0, 0),),
        strides=(1,),
        dilations=(1,),
        groups=1,
    )
    maps: list[Map] = [Gather(index, 6), convolution]
    truth = float(np.linalg.norm(applied(maps), 2))
    alone = run_norm([convolution], None).upper()
    assert truth <= run_norm(maps, None).upper() <= alone * np.sqrt(2) * (1 + 1e-12)


@pytest.mark.usefixtures("nothing_is_formed")
def test_a_dense_weight_takes_scales() -> None:
    rng = np.random.default_rng(11)
    maps: list[Map] = [Dense(rng.standard_normal((4, 3))), Diagonal(rng.standard_normal(4))]
    truth = float(np.linalg.norm(applied(maps), 2))
    assert truth <= run_norm(maps, None).upper() <= truth * (1 + 1e-9)


def test_relu_has_its_range() -> None:
    """The families above mix signs; ReLU alone is what sign structure is usually about."""
    whole = dense_network([np.ones((2, 2)), np.ones((1, 2))], scalar=relu())
    assert 4 / np.sqrt(2) <= bound_of(whole, "absolute") <= 4 / np.sqrt(2) * (1 + 1e-9)
