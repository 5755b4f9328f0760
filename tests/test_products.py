"""Networks that multiply, divide and exponentiate signals: bounds over regions, and their proofs.

Jacobians are sampled and ascended in float64; what is compared with a bound is the growth between
two points there, evaluated exactly. LIPCERT_TESTS=quick | full | nightly.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
import torch

from tests.attempts import BRANCH, FIRST_ORDER, LIPSDP, PRODUCT, PROPAGATION, Attempt
from tests.exact import fractions, growth_below
from tests.exact_graph import exact_output
from tests.mutations import CHANGES, mutants
from tests.onnx_import.graphs import model, node
from tests.product_networks import INPUTS, KINDS, bounded_network, product_network
from verifier.certificate import Certificate, decimal_upper, log10_upper
from verifier.certificate_json import certificate_text
from verifier.checker import check
from verifier.errors import NotLipschitzGlobally, NotLipschitzOnRegion
from verifier.methods.clock import Clock
from verifier.methods.duality import attained_norm
from verifier.methods.propagation import Options, candidate
from verifier.network.graph import Network
from verifier.norms import Norm, NormPair
from verifier.onnx_import import load
from verifier.property import Budget, Property, Request
from verifier.regions import Ball, CenterBox, Region
from verifier.verify import verify

NETWORKS = {"quick": 10, "full": 200, "nightly": 4000}[os.environ.get("LIPCERT_TESTS", "quick")]
PAIRS = [NormPair(p, q) for p in Norm for q in Norm]
TINY = 2.0**-40


def _region(seed: int, radius: float) -> Region:
    center = tuple(np.random.default_rng([seed, 5]).standard_normal(INPUTS).tolist())
    if seed % 3 == 2:
        return Ball(norm=(Norm.L2, Norm.L1)[seed % 2], center=center, radius=radius)
    return CenterBox(center=center, radius=radius)


def _asked(seed: int, radius: float) -> Property:
    return Property(scope="local", norm=PAIRS[seed % 9], region=_region(seed, radius))


def _points(region: Region, count: int, seed: int) -> torch.Tensor:
    """Points of the region, its corners among them."""
    rng = np.random.default_rng([seed, 6])
    assert isinstance(region, Ball | CenterBox)
    center, radius = np.array(region.center), region.radius
    steps = rng.uniform(-1, 1, (count, INPUTS))
    if isinstance(region, Ball):
        order = 2 if region.norm is Norm.L2 else 1
        steps /= np.maximum(1.0, np.linalg.norm(steps, order, axis=1, keepdims=True))
    else:
        steps[::2] = np.sign(steps[::2])
    return torch.from_numpy(center + radius * steps * (1 - 1e-12))


def _norms(
    network: Network, pair: NormPair, points: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Norms that the Jacobians reach, differentiable by the points, and along which steps."""
    rows = [
        torch.autograd.grad(
            network.forward(points)[:, row].sum(), points, create_graph=True, materialize_grads=True
        )[0]
        for row in range(network.output_size)
    ]
    jacobians = torch.stack(rows, dim=1)
    with torch.no_grad():
        reached = attained_norm(pair, jacobians.detach())
    steps = _directions(pair, jacobians.detach(), reached.functional)
    return ((reached.functional[:, None] @ jacobians).squeeze(1) * steps).sum(dim=1), steps


def _directions(pair: NormPair, jacobians: torch.Tensor, functional: torch.Tensor) -> torch.Tensor:
    """The unit steps along which functionals of the outputs rise most."""
    pulled = (functional[:, None] @ jacobians).squeeze(1)
    match pair.input:
        case Norm.LINF:
            return pulled.sign()
        case Norm.L2:
            return torch.nn.functional.normalize(pulled)
        case Norm.L1:
            steepest = pulled.abs().argmax(dim=1, keepdim=True)
            return torch.zeros_like(pulled).scatter(1, steepest, pulled.gather(1, steepest).sign())


@dataclass(frozen=True, slots=True)
class Reached:
    """The greatest norm of sampled and ascended Jacobians, and where."""

    norm: float
    point: np.ndarray
    step: np.ndarray  #: of length 1; along it the outputs grow most

    def growth(self, data: bytes, asked: Property) -> Fraction:
        """A number that |f(x) - f(y)| / |x - y| is not below, with x and y in the region."""
        assert isinstance(asked.region, Ball | CenterBox)
        assert isinstance(asked.norm, NormPair)
        center = fractions(asked.region.center)
        # Away from the boundary, by more than the step is long.
        x = center + (fractions(self.point) - center) * (1 - Fraction(1, 2**20))
        run = fractions(self.step) * Fraction(_radius(asked.region)) / 2**24
        rise = exact_output(data, x + run) - exact_output(data, x)
        return growth_below(rise, run, (asked.norm.input.value, asked.norm.output.value))


def _reached(data: bytes, asked: Property, seed: int) -> Reached:
    network = load(data, differential=False).require_network()
    assert isinstance(asked.region, Ball | CenterBox)
    assert isinstance(asked.norm, NormPair)
    points = _points(asked.region, 64, seed)
    best = Reached(0.0, points[0].numpy(), np.eye(INPUTS)[0])
    for turn in range(6):
        points = points.detach().requires_grad_(True)
        norms, steps = _norms(network, asked.norm, points)
        found = norms.detach()
        at = int(found.argmax())
        if best.norm < float(found[at]):
            step = steps[at].detach().numpy()
            best = Reached(float(found[at]), points[at].detach().numpy(), step)
        if turn == 5 or not norms.requires_grad:
            break
        (uphill,) = torch.autograd.grad(norms.sum(), points, materialize_grads=True)
        points = points.detach() + 0.3 * _radius(asked.region) * uphill.sign()
        points = _within(asked.region, points)
    return best


def _radius(region: Ball | CenterBox) -> float:
    assert isinstance(region.radius, float)
    return region.radius


def _within(region: Ball | CenterBox, points: torch.Tensor) -> torch.Tensor:
    center = torch.tensor(region.center, dtype=torch.float64)
    steps = (points - center) / _radius(region)
    if isinstance(region, Ball):
        order = 2 if region.norm is Norm.L2 else 1
        length = torch.linalg.vector_norm(steps, order, dim=1, keepdim=True)
        steps = steps / length.clamp(min=1.0)
    return center + _radius(region) * steps.clamp(-1, 1) * (1 - 1e-12)


@cache
def _certified(seed: int, radius: float, method: str) -> tuple[Certificate, bytes, Property]:
    data, asked = product_network(seed), _asked(seed, radius)
    attempt = {"propagation": PROPAGATION, "lipsdp": LIPSDP}[method]
    return attempt.answer(data, asked, seconds=0.5), data, asked


@pytest.mark.parametrize("seed", range(NETWORKS))
def test_no_jacobian_exceeds_the_bound(seed: int) -> None:
    method = ("propagation", "lipsdp")[seed // 2 % 2]
    certificate, data, asked = _certified(seed, 0.125, method)
    assert certificate.claim.bound is not None
    growth = _reached(data, asked, seed).growth(data, asked)
    assert 0 < growth <= Fraction(certificate.claim.bound)
    assert check(certificate_text(certificate).encode(), data).valid


@pytest.mark.parametrize("seed", range(0, NETWORKS, 4))
def test_sampled_outputs_lie_within_the_forward_bounds(seed: int) -> None:
    """The output's interval is the sum over a unit step: read as f(x) - f(c) <= L |x - c|."""
    certificate, data, asked = _certified(seed, 0.125, "propagation")
    assert isinstance(asked.region, Ball | CenterBox)
    assert isinstance(asked.norm, NormPair)
    assert certificate.claim.bound is not None
    center = fractions(asked.region.center)
    here = exact_output(data, center)
    for point in _points(asked.region, 12, seed).numpy():
        run = fractions(point) - center
        norms = (asked.norm.input.value, asked.norm.output.value)
        growth = growth_below(exact_output(data, center + run) - here, run, norms)
        assert growth <= Fraction(certificate.claim.bound)


@pytest.mark.parametrize("seed", range(10))
def test_around_a_point_the_bound_is_the_jacobians_norm(seed: int) -> None:
    """All entries of a row in linf: there propagation loses nothing but rounding."""
    norm = NormPair(Norm.LINF, Norm.LINF)
    region = CenterBox(center=(0.3, -0.7, 0.45), radius=TINY)
    asked = Property(scope="local", norm=norm, region=region)
    data = product_network(seed)
    certificate = PROPAGATION.answer(data, asked)
    assert certificate.claim.bound is not None
    reached = _reached(data, asked, seed)
    assert reached.growth(data, asked) <= Fraction(certificate.claim.bound)
    assert certificate.claim.bound <= reached.norm * (1 + 1e-6)


@pytest.mark.parametrize("seed", sorted({*range(10)} - {KINDS.index("root")}))
def test_a_region_within_a_region_has_no_larger_bound(seed: int) -> None:
    """By intervals, which are monotone in what they start from, and of elementwise gates alone."""
    network = load(product_network(seed), differential=False).require_network()
    found: list[float] = []
    for radius in (0.2, 0.1, 0.01):
        region = CenterBox(center=(0.2, -0.4, 0.1), radius=radius)
        asked = Property(scope="local", norm=PAIRS[seed % 9], region=region)
        options = Options(technique="interval")
        found += candidate(network, asked, options, Clock.start(5.0)).estimates
    assert found == sorted(found, reverse=True)


def test_many_centers_have_the_bounds_of_each() -> None:
    from verifier.methods.propagation import batched

    network = load(product_network(1), differential=False).require_network()
    parts = [_asked(0, radius) for radius in (0.1, 0.2)]
    together = batched(network, parts)
    options = Options(technique="interval")
    alone = [candidate(network, part, options, Clock.start(5.0)) for part in parts]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one.estimates, other.estimates, rtol=1e-12)


@pytest.mark.parametrize("change", [*CHANGES])
@pytest.mark.parametrize(("seed", "method"), [(1, "propagation"), (7, "lipsdp")])
def test_no_tampered_proof_proves_less_than_is_reached(seed: int, method: str, change: str) -> None:
    certificate, data, asked = _certified(seed, 0.125, method)
    below = decimal_upper(_reached(data, asked, seed).norm * (1 - 1e-6))
    claim = replace(certificate.claim, bound=below, log10_bound=log10_upper(below))
    proofs = list(mutants(certificate.proof, CHANGES[change]))
    for proof in proofs[:: max(1, len(proofs) // 3)]:
        changed = replace(certificate, claim=claim, proof=proof, lower_bound=None)
        assert not check(changed, data).valid


def test_a_lying_bound_is_rejected() -> None:
    certificate, data, _ = _certified(0, 0.125, "propagation")
    assert certificate.claim.bound is not None
    low = decimal_upper(certificate.claim.bound * 0.999)
    claim = replace(certificate.claim, bound=low, log10_bound=log10_upper(low))
    assert not check(replace(certificate, claim=claim, lower_bound=None), data).valid


@pytest.mark.parametrize(("seed", "method"), [(0, PRODUCT), (1, LIPSDP), (2, FIRST_ORDER)])
def test_products_of_bounded_factors_have_global_bounds(seed: int, method: Attempt) -> None:
    data, norm = bounded_network(seed), PAIRS[(4 * seed) % 9]
    certificate = method.answer(data, Property(norm=norm), seconds=2.0)
    assert certificate.claim.bound is not None
    for radius in (0.5, 3.0, 30.0):
        somewhere = Property(
            scope="local", norm=norm, region=CenterBox(center=(0.0,) * INPUTS, radius=radius)
        )
        growth = _reached(data, somewhere, seed).growth(data, somewhere)
        assert 0 < growth <= Fraction(certificate.claim.bound)
    assert check(certificate_text(certificate).encode(), data).valid
    assert load(data).unbounded is None


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("wave", "residual")])
def test_everywhere_the_node_is_named_and_a_region_advised(kind: str) -> None:
    request = Request(property=Property(norm=PAIRS[0]), budget=Budget(seconds=5.0))
    with pytest.raises(NotLipschitzGlobally) as refusal:
        verify(product_network(KINDS.index(kind), steps=1), request)
    assert refusal.value.node
    assert "region" in refusal.value.fix


@pytest.mark.parametrize("op", ["Log", "Reciprocal", "Sqrt"])
def test_a_region_that_leaves_the_domain_is_refused_by_the_nodes_name(op: str) -> None:
    data = model([node(op, ["x"], ["y"])], shape=(1, 3))
    region = CenterBox(center=(1.0, 0.5, 2.0), radius=0.75)
    asked = Property(scope="local", norm=PAIRS[0], region=region)
    with pytest.raises(NotLipschitzOnRegion) as refusal:
        verify(data, Request(property=asked, budget=Budget(seconds=5.0)))
    assert refusal.value.node == "y"
    assert "[-0.25, 1.25]" in refusal.value.detail
    inside = replace(asked, region=CenterBox(center=(1.0, 0.5, 2.0), radius=0.25))
    assert (
        verify(data, Request(property=inside, budget=Budget(seconds=5.0))).claim.bound is not None
    )


@pytest.mark.parametrize("norm", [Norm.L1, Norm.L2])
def test_branching_leaves_products_to_propagation(norm: Norm) -> None:
    asked = replace(_asked(0, 0.125), norm=NormPair(norm, norm))
    certificate = BRANCH.answer(product_network(0), asked)
    assert certificate.proof.kind == "propagation"
