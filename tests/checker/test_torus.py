"""Torus proofs: circular convolutions stand for the file's, masks are asked for, no bad scales."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from fractions import Fraction

import mpmath
import numpy as np
import pytest

from tests.checker.oracles import evaluate, rationals
from tests.checker.tori import (
    NETS,
    Add,
    Conv,
    ConvNet,
    Gate,
    OnTorus,
    Scale,
    circular,
    line,
    on_torus,
)
from tests.methods.torus_networks import NETWORKS
from verifier.certificate import Certificate, Claim, TorusProof, decimal_upper, log10_upper
from verifier.certificate_json import certificate_text
from verifier.certificate_reader import parse_certificate
from verifier.checker import check
from verifier.checker.arithmetic import UNIT
from verifier.checker.definite import NotProved
from verifier.checker.graph import read_network
from verifier.checker.items import selection
from verifier.checker.maps import Convolution
from verifier.checker.phases import Frequencies, roots_of_unity
from verifier.checker.taps import taps_of, wraps_badly
from verifier.checker.torus import prove_torus
from verifier.methods import torus
from verifier.methods.clock import Clock
from verifier.methods.lipsdp import Options
from verifier.norms import Norm, NormPair
from verifier.onnx_import import load
from verifier.property import Each, Property

L2 = NormPair(Norm.L2, Norm.L2)


def attempt(
    net: ConvNet, sides: tuple[int, ...], found: OnTorus, asked: Property | None = None
) -> list[float]:
    """The bounds that the scales prove."""
    whole = read_network(net.model())
    wanted = asked or Property(norm=L2)
    assert isinstance(wanted.norm, NormPair)
    chosen = selection(wanted, whole.input_size, whole.output_size)
    proof = TorusProof(patterns=(), sides=sides, scales=found.scales, masks=found.masks)
    return [m.upper() for m in prove_torus(proof, whole, wanted.norm, chosen)]


def made(kind: str, seed: int = 0, leak: float = 0.0) -> tuple[ConvNet, tuple[int, ...]]:
    """A network and its sides."""
    build, side = NETS[kind]
    net = build(np.random.default_rng(seed), leak)
    return net, (side,) * (len(net.shape) - 1)


def slope_at(net: ConvNet, rng: np.random.Generator) -> float:
    """|J|_2 at some point of the file's network, by direct convolutions."""
    size = math.prod(net.shape)
    x, rows = rng.standard_normal(net.shape), np.eye(size).reshape(*net.shape, size)
    signals = {"x": (x, rows)}
    for layer in net.layers:
        x, rows = signals[layer.source]
        match layer:
            case Conv():
                x, rows = direct(x[..., None], layer)[..., 0], direct(rows, layer)
            case Gate():
                slope = np.where(x > 0, 1.0, layer.leak)
                x, rows = x * slope, rows * slope[..., None]
            case Add():
                x, rows = x + signals[layer.other][0], rows + signals[layer.other][1]
            case Scale():
                factor = layer.factor.reshape(-1, *(1,) * (x.ndim - 1))
                x, rows = x * factor, rows * factor[..., None]
        signals[layer.name] = (x, rows)
    return float(np.linalg.norm(net.last @ rows.reshape(-1, size), 2))


def direct(x: np.ndarray, layer: Conv) -> np.ndarray:
    """The file's convolution of [channels, *places, n], by the checker's map, row by row."""
    linear = convolution(layer, x.shape[:-1])
    flat = linear.forward(x.reshape(-1, x.shape[-1]).T)
    return flat.T.reshape(*linear.out_shape, x.shape[-1])


def convolution(layer: Conv, shape: tuple[int, ...]) -> Convolution:
    return Convolution(
        kernel=layer.kernel,
        error=None,
        in_shape=shape,
        pads=layer.pads,
        strides=layer.strides,
        dilations=layer.dilations,
        groups=layer.groups,
    )


@pytest.mark.parametrize("leak", [0.0, 0.8])
@pytest.mark.parametrize("kind", NETS)
def test_bound_is_what_the_scales_stand_for_and_never_below_a_slope(kind: str, leak: float) -> None:
    """Slopes [.8, 1] are widened to [0, 1]: on the torus they would bring back what is outside."""
    net, sides = made(kind, 0, leak)
    found = on_torus(net, sides)
    (bound,) = attempt(net, sides, found)
    assert found.bound * (1 - 1e-10) <= bound <= found.bound * (1 + 1e-8)
    rng = np.random.default_rng(0)
    assert max(slope_at(net, rng) for _ in range(40)) <= bound


@pytest.mark.parametrize("kind", NETS)
def test_no_exact_quotient_exceeds_a_bound(kind: str) -> None:
    net, sides = made(kind, 3)
    (bound,) = attempt(net, sides, on_torus(net, sides))
    whole = read_network(net.model())
    rng = np.random.default_rng(3)
    for _ in range(6):
        x, y = rationals(rng, whole.input_size), rationals(rng, whole.input_size)
        ends = (evaluate(whole, point)[whole.output] for point in (x, y))
        rise = sum(((a - b) ** 2 for a, b in zip(*ends, strict=True)), Fraction(0))
        run = sum(((a - b) ** 2 for a, b in zip(x, y, strict=True)), Fraction(0))
        assert rise <= Fraction(bound) ** 2 * run


def test_every_item_and_other_norms() -> None:
    net, sides = made("residual", 1)
    found = on_torus(net, sides)
    roots = np.sqrt(np.diag(found.covariance))
    assert attempt(net, sides, found, Property(outputs=Each(), norm=L2)) == pytest.approx(roots)
    (bound,) = attempt(net, sides, found, Property(norm=NormPair(Norm.LINF, Norm.LINF)))
    assert bound == pytest.approx(np.sqrt(12) * roots.max())


@pytest.mark.parametrize("name", NETWORKS)
def test_two_readings_of_a_file_prove_the_same(name: str) -> None:
    """The search has a structure, symbols and a recursion of its own; MaxMin and pools included."""
    model = NETWORKS[name](1)
    searched = load(model, differential=False).network
    assert searched is not None
    asked = Property(norm=L2)
    found = next(torus.candidates(searched, asked, Options(), Clock.start(0.0)))
    whole = read_network(model, found.proof.patterns)
    chosen = selection(asked, whole.input_size, whole.output_size)
    assert isinstance(found.proof, TorusProof)
    (bound,) = prove_torus(found.proof, whole, L2, chosen)
    assert bound.upper() == pytest.approx(found.estimates[0], rel=1e-9)


def test_a_certificate_is_checked_with_the_file_alone() -> None:
    net, sides = made("doubled")
    found, model = on_torus(net, sides), net.model()
    (bound,) = (decimal_upper(b) for b in attempt(net, sides, found))
    proof = TorusProof(patterns=(), sides=sides, scales=found.scales, masks=found.masks)
    claim = Claim(
        model="sha256:" + hashlib.sha256(model).hexdigest(),
        property=Property(norm=L2),
        bound=bound,
        log10_bound=log10_upper(bound),
    )
    text = certificate_text(Certificate(claim=claim, proof=proof))
    assert check(parse_certificate(text), model).valid
    lower = replace(claim, bound=bound / 2, log10_bound=log10_upper(bound / 2))
    assert check(Certificate(claim=lower, proof=proof), model).code == "bound-not-proved"
    small = replace(proof, sides=(6,))
    assert check(Certificate(claim=claim, proof=small), model).code == "proof-refuted"


# --- The size rule -------------------------------------------------------------------------------


def random_convolution(rng: np.random.Generator) -> tuple[Conv, int] | None:
    """A convolution of one axis, and its input's size; None where nothing leaves."""
    width, dilation, stride = (int(rng.integers(1, n)) for n in (5, 4, 4))
    pads = (int(rng.integers(0, 4)), int(rng.integers(0, 4)))
    size = int(rng.integers(1, 7))
    if size + sum(pads) < dilation * (width - 1) + 1:
        return None
    weights = rng.integers(1, 9, (1, 1, width)).astype(np.float64)
    return Conv("a", "x", weights, (pads,), (stride,), (dilation,)), size


def test_a_torus_that_is_accepted_gives_the_file_s_convolution() -> None:
    """Circular, then the window, is the direct convolution; a refusal is right, too."""
    rng = np.random.default_rng(0)
    accepted = refused = 0
    for _ in range(1000):
        drawn = random_convolution(rng)
        if drawn is None:
            continue
        layer, size = drawn
        side = int(rng.integers(1, 14))
        linear = convolution(layer, (1, size))
        steps = taps_of(linear, (1, size), linear.out_shape)
        assert steps is not None
        # Anything may stand outside of the window where the signal's support is the whole torus.
        clean = bool(rng.integers(0, 2))
        support = (np.arange(side) < size) | (not clean)
        is_bad = wraps_badly(steps[0], (size,), (support,))
        if side < size or side % layer.strides[0]:
            assert is_bad
            continue
        x = np.where(support, rng.integers(1, 9, side), 0.0)
        count = linear.out_spatial[0]
        wrapped = circular(x[None, :, None], layer)[0, :, 0]
        whole = direct(x[None, :size, None], layer)[0, :, 0]
        equal = len(wrapped) >= count and np.array_equal(wrapped[:count], whole)
        assert equal == (not is_bad)
        accepted, refused = accepted + equal, refused + (not equal)
    assert accepted > 100
    assert refused > 100


@pytest.mark.parametrize("kind", NETS)
def test_sides_that_are_too_small_or_odd_are_refused(kind: str) -> None:
    net, sides = made(kind)
    found = on_torus(net, sides)
    for bad in (net.shape[1] - 1, 0, 1, 10**9):
        with pytest.raises(NotProved):
            attempt(net, (bad,) * len(sides), found)
    with pytest.raises(NotProved, match="axes"):
        attempt(net, (*sides, 8), found)
    if kind in ("strided", "plane"):
        with pytest.raises(NotProved, match="torus is too small"):
            attempt(net, (9,) * len(sides), found)
    if kind == "chain":
        with pytest.raises(NotProved, match="torus is too small"):
            attempt(net, (6,), found)


def test_a_torus_too_small_would_claim_less_than_the_truth() -> None:
    """Why the size rule is there: a wrap can cancel what the file's network lets through."""
    layer = Conv("a", "x", np.array([[[-1.0, 1.0, 0.0]]]), ((1, 1),), (1,), (1,))
    circle = circular(np.ones((1, 2, 1)), layer)
    assert not np.any(circle)
    assert np.any(direct(np.ones((1, 2, 1)), layer))


# --- Masks ---------------------------------------------------------------------------------------


def test_a_mask_that_is_missing_is_refused() -> None:
    net, sides = made("doubled")
    found = on_torus(net, sides)
    with pytest.raises(NotProved, match="mask is missing"):
        attempt(net, sides, replace(found, masks={}))


def test_without_padding_no_mask_is_needed() -> None:
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((2, 2, 3)) for _ in range(2)]
    layers = (line("a", "x", weights[0], 0), line("b", "a", weights[1], 0), Gate("k", "b"))
    net = ConvNet(shape=(2, 7), layers=layers, last=rng.standard_normal((2, 6)))
    found = on_torus(net, (7,))
    (bound,) = attempt(net, (7,), found)
    assert bound == pytest.approx(found.bound)
    assert max(slope_at(net, rng) for _ in range(60)) <= bound


def test_a_mask_more_is_harmless() -> None:
    net, sides = made("chain")
    more = replace(net, masks=("a", "h"))
    found = on_torus(more, sides)
    (bound,) = attempt(net, sides, found)
    assert bound == pytest.approx(found.bound)


@pytest.mark.parametrize("name", ["y", "flat", "nothing", "x"])
def test_masks_of_what_is_no_tensor_are_refused(name: str) -> None:
    net, sides = made("chain")
    found = on_torus(net, sides)
    with pytest.raises(NotProved):
        attempt(net, sides, replace(found, masks={name: np.ones(3)}))


# --- Scales --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", NETS)
def test_scales_that_are_too_small_are_rejected(kind: str) -> None:
    net, sides = made(kind)
    found, least = on_torus(net, sides), on_torus(net, sides, 1.0)
    name = next(iter(found.scales)) if not found.masks else "a"
    of = "masks" if found.masks else "scales"
    for share in (1 - 1e-9, 0.5, 1e-6):
        arrays = {**getattr(found, of), name: getattr(least, of)[name] * share}
        with pytest.raises(NotProved, match="scales are too small"):
            attempt(net, sides, replace(found, **{of: arrays}))


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf, 0.0, 1e-308, 1e308])
@pytest.mark.parametrize("of", ["scales", "masks"])
def test_scales_out_of_range_are_rejected(of: str, bad: float) -> None:
    net, sides = made("doubled")
    found = on_torus(net, sides)
    name, array = next(iter(getattr(found, of).items()))
    arrays = {**getattr(found, of), name: np.array([bad, *array[1:]])}
    with pytest.raises(NotProved):
        attempt(net, sides, replace(found, **{of: arrays}))


@pytest.mark.parametrize("change", ["missing", "unknown", "short", "long", "by entry"])
def test_scales_of_the_wrong_gates_are_rejected(change: str) -> None:
    net, sides = made("chain")
    found = on_torus(net, sides)
    scales = dict(found.scales)
    match change:
        case "missing":
            del scales["h"]
        case "unknown":
            scales["z"] = np.ones(3)
        case "short":
            scales["h"] = scales["h"][1:]
        case "long":
            scales["h"] = np.append(scales["h"], 1.0)
        case _:
            scales["h"] = np.repeat(scales["h"], 6)
    with pytest.raises(NotProved):
        attempt(net, sides, replace(found, scales=scales))


# --- The transform -------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [1, 2, 3, 5, 8, 12, 40, 97])
def test_roots_of_unity_are_within_their_error(side: int) -> None:
    with mpmath.workprec(200):
        for k, root in enumerate(roots_of_unity(side)):
            angle = 2 * mpmath.pi * k / side
            assert abs(mpmath.mpf(root.real) - mpmath.cos(angle)) <= UNIT
            assert abs(mpmath.mpf(root.imag) - mpmath.sin(angle)) <= UNIT


@pytest.mark.parametrize("sides", [(1,), (4,), (5,), (3, 4), (2, 2), (5, 3)])
def test_frequencies_come_in_pairs(sides: tuple[int, ...]) -> None:
    found = Frequencies.of(sides)
    assert sum(found.weights) == math.prod(sides)
    every = np.stack(np.unravel_index(np.arange(math.prod(sides)), sides), axis=1)
    place, is_opposite = found.places_of(every)
    sign = np.where(is_opposite, -1, 1)[:, None]
    assert np.array_equal(sign * found.chosen[place] % sides, every)
