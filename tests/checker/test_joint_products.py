"""Slopes that follow what enters their gates: every product and every quotient is held."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest

from tests.checker.oracles import dense_network
from verifier.certificate import ForwardProof, PropagationProof
from verifier.checker import scalars
from verifier.checker.compounds import Elu, HardSwish, gelu
from verifier.checker.curves import Curve
from verifier.checker.intervals import Interval
from verifier.checker.items import selection
from verifier.checker.jacobian import product_lines
from verifier.checker.joint_products import joint_lines, slope_lines
from verifier.checker.network import Affine, Elementwise, Network
from verifier.checker.propagation import prove_propagation
from verifier.norms import Norm, NormPair
from verifier.property import Property
from verifier.regions import Ball, Bounded, CenterBox

CURVES: dict[str, Curve] = {
    "tanh": scalars.Tanh(),
    "sigmoid": scalars.Sigmoid(),
    "gelu": gelu(),
    "elu": Elu(0.5),
    "hard swish": HardSwish(),
    "relu": scalars.relu(),
    "clip": scalars.clip(-0.5, 0.25),
}
LINF = NormPair(Norm.LINF, Norm.LINF)


def intervals(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    center = rng.integers(-48, 49, count) / 16.0
    radius = 2.0 ** rng.integers(-40, 2, count)
    radius[:3] = 0.0
    return center - radius, center + radius


def exact(values: np.ndarray) -> list[Fraction]:
    return [Fraction(float(value)) for value in values]


@pytest.mark.parametrize("name", CURVES)
def test_every_slope_is_near_its_line(name: str) -> None:
    lower, upper = intervals(3, 24)
    found = slope_lines(CURVES[name], lower, upper)
    for share in np.linspace(0.0, 1.0, 23):
        z = np.clip(lower + (upper - lower) * share, lower, upper)
        # The true slopes lie within the enclosures; where one is narrow, either end is one.
        for slopes in CURVES[name].slopes(z):
            parts = map(exact, (slopes, z, found.tilt, found.low, found.high))
            for s, at, tilt, low, high in zip(*parts, strict=True):
                room = Fraction(2) ** -40
                assert low - room <= s - tilt * at <= high + room


@pytest.mark.parametrize("name", CURVES)
def test_lines_of_a_product_hold_for_every_slope_and_derivative(name: str) -> None:
    lower, upper = intervals(4, 12)
    rng = np.random.default_rng(5)
    ends = np.sort(rng.standard_normal((2, 3, 12)) * 10.0 ** rng.integers(-4, 5, 12), axis=0)
    slopes = Interval(*(end[None, :] for end in CURVES[name].slope_range_on(lower, upper)))
    entering, along = Interval(*ends), slope_lines(CURVES[name], lower, upper)
    lines = joint_lines(product_lines(slopes, entering), slopes, entering, along)
    assert lines.beside is not None
    parts = [lines.below, lines.above, lines.low, lines.high, lines.beside, *ends]
    for share in (0.0, 0.25, 0.5, 1.0):
        z = np.clip(lower + (upper - lower) * share, lower, upper)
        slope = CURVES[name].slopes(z)[0]
        for row in range(3):
            columns = zip(
                *(exact(part[row]) for part in parts), exact(z), exact(slope), strict=True
            )
            for below, above, low, high, beside, first, last, at, s in columns:
                # An enclosure's end is the slope but for its width.
                room = Fraction(2) ** -40 * max(abs(first), abs(last))
                for g in (first, last, (first + last) / 2):
                    product = s * g - beside * at
                    assert below * g + low - room <= product <= above * g + high + room


def smooth(name: str, seed: int) -> Network:
    """Three dense layers of quarters with the curve between them."""
    rng = np.random.default_rng(seed)
    sizes = (3, 5, 4, 2)
    weights = [rng.integers(-6, 7, (n, m)) / 4.0 for m, n in itertools.pairwise(sizes)]
    return dense_network(weights, scalar=CURVES[name])


def bound(network: Network, region: Bounded, technique: str, norm: NormPair = LINF) -> float:
    asked = Property(scope="local", norm=norm, region=region)
    jacobian = "joint" if technique == "joint" else "linear"
    proof = PropagationProof(
        patterns=(), forward=ForwardProof(technique="linear"), technique=jacobian
    )
    (found,) = prove_propagation(proof, network, asked, selection(asked, 3, 2))
    return found.upper()


def norms_at(network: Network, x: np.ndarray) -> float:
    """A lower estimate of the Jacobian's norm at x, by enclosed slopes."""
    values, tangents = {"": x}, {"": np.eye(3)}
    for node in network.nodes:
        if isinstance(node, Elementwise):
            assert isinstance(node.function, Curve)
            low, high = node.function.values(values[node.source])
            slope = node.function.slopes(values[node.source])[0]
            values[node.name] = (low + high) / 2
            tangents[node.name] = tangents[node.source] * slope
        else:
            assert isinstance(node, Affine)
            (term,) = node.terms
            values[node.name] = term.map.forward(values[term.source][None])[0] + node.bias
            tangents[node.name] = term.map.forward(tangents[term.source])
    return float(np.abs(tangents[network.output]).sum(axis=0).max())


@pytest.mark.parametrize("radius", [2.0**-40, 0.0625, 0.5])
@pytest.mark.parametrize("name", CURVES)
def test_no_jacobian_within_the_region_exceeds_the_bound(name: str, radius: float) -> None:
    network = smooth(name, 7)
    rng = np.random.default_rng(8)
    center = np.array([0.25, -0.125, 0.0625])
    regions = (
        CenterBox(center=tuple(center), radius=radius),
        Ball(norm=Norm.L2, center=tuple(center), radius=radius),
        Ball(norm=Norm.L1, center=tuple(center), radius=radius),
    )
    for region in regions:
        found = bound(network, region, "joint")
        for _ in range(40):
            x = center + radius * rng.uniform(-1, 1, 3)
            if region.contains(x.tolist()):
                assert norms_at(network, x) <= found


def test_slopes_that_follow_make_small_regions_tight() -> None:
    network = smooth("tanh", 9)
    center = (0.25, -0.125, 0.0625)
    region = CenterBox(center=center, radius=2.0**-6)
    truth = norms_at(network, np.array(center))
    chords, joint = (bound(network, region, technique) for technique in ("linear", "joint"))
    assert truth <= joint < chords


def test_a_point_has_its_own_jacobian() -> None:
    network = smooth("tanh", 9)
    center = (0.25, -0.125, 0.0625)
    region = CenterBox(center=center, radius=2.0**-40)
    truth = norms_at(network, np.array(center))
    assert truth <= bound(network, region, "joint") <= truth * (1 + 1e-9)
