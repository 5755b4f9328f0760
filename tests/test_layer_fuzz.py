"""Recurrent layers, contractions, transforms, attention: no bound is below a Jacobian's norm.

The oracle is torch in float64, written from the specification. What the checker reads computes the
same values; and of each technique, everywhere and over a box, it proves no less than the norms of
Jacobians and the secants that are met there. LIPCERT_TESTS chooses how many.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import get_args

import numpy as np
import pytest
import torch
from torch.autograd.functional import jacobian

from tests.checker.evaluation import evaluate
from tests.exact import Pair, Size, norms_about
from tests.layers import LAYERS, Layer
from verifier.certificate import ForwardProof, ProductItem, ProductProof, PropagationProof, Single
from verifier.checker import check
from verifier.checker.graph import read_network
from verifier.checker.network import Network
from verifier.methods.items import items_of
from verifier.norms import Norm, NormPair
from verifier.onnx_import import load
from verifier.property import Property
from verifier.proving import Case, certify
from verifier.regions import CenterBox, Everywhere

EACH = {"quick": 4, "full": 100, "nightly": 2000}[os.environ.get("LIPCERT_TESTS", "quick")]
PAIRS: tuple[Pair, ...] = tuple((p, q) for p in get_args(Size) for q in get_args(Size))
PAIRS_WITHOUT_SIGNS: tuple[Pair, ...] = (("l2", "l2"), ("linf", "linf"), ("l1", "l1"), ("l1", "l2"))
MOST_SIGNS = 10
RADII = (2.0**-40, 0.0625, 1.0)
POINTS = 16
GLOBAL: tuple[Single, ...] = (
    ProductProof(patterns=(), items=(ProductItem(internal=Norm.L2, techniques=("balanced",)),)),
    ProductProof(patterns=(), items=(ProductItem(internal=Norm.LINF),)),
)
LOCAL: tuple[Single, ...] = (
    PropagationProof(patterns=(), forward=ForwardProof(technique="interval"), technique="interval"),
    PropagationProof(patterns=(), forward=ForwardProof(technique="linear"), technique="linear"),
)


@dataclass(frozen=True)
class _Question:
    """One layer, and where it is looked at."""

    layer: Layer
    points: np.ndarray
    asked: Property

    @property
    def steepest(self) -> float:
        """The greatest growth that is met: of Jacobians and of secants."""
        points = torch.tensor(self.points)
        jacobians = np.stack([jacobian(self.layer, point).numpy() for point in points])
        norm = self.asked.norm
        assert isinstance(norm, NormPair)
        found = float(norms_about(jacobians, (norm.input.value, norm.output.value)).max())
        values = torch.stack([self.layer(point) for point in points]).numpy()
        order = {Norm.L1: 1, Norm.L2: 2, Norm.LINF: np.inf}
        rise = np.linalg.norm(values[1:] - values[:-1], order[norm.output], axis=1)
        run = np.linalg.norm(self.points[1:] - self.points[:-1], order[norm.input], axis=1)
        far = run > 1e-3  # nearer, rounding of values counts
        return max(found, float((rise[far] / run[far]).max(initial=0.0)))


def _questions(layer: Layer, number: int, rng: np.random.Generator) -> Iterator[_Question]:
    # Norms that go through all signs of what enters or leaves are for few entries.
    is_small = max(layer.size, len(layer(torch.zeros(layer.size).double()))) <= MOST_SIGNS
    pairs = PAIRS if is_small else PAIRS_WITHOUT_SIGNS
    pair = pairs[number % len(pairs)]
    norm = NormPair(Norm(pair[0]), Norm(pair[1]))
    decades = 10.0 ** rng.uniform(-1, 1, (POINTS, 1))
    points = rng.normal(size=(POINTS, layer.size)) * decades
    yield _Question(layer, points, Property(norm=norm, region=Everywhere()))
    center, radius = rng.normal(size=layer.size), RADII[number % len(RADII)]
    region = CenterBox(center=tuple(center.tolist()), radius=radius)
    points = center + radius * rng.uniform(-1, 1, (POINTS, layer.size))
    yield _Question(layer, points, Property(scope="local", norm=norm, region=region))


def _proved(question: _Question, read: Network, proof: Single) -> float | None:
    """What the checker proves; None where no constant exists everywhere."""
    data, asked = question.layer.data, question.asked
    case = Case(
        model=data,
        model_id=f"sha256:{sha256(data).hexdigest()}",
        asked=asked,
        items=items_of(asked, read.output_size),
        patterns=(),
        target=None,
        producer={},
    )
    verdict = check(certify(case, proof, [1e300], None, None, []), data)
    if not verdict.valid:
        assert verdict.code == "not-lipschitz-globally"
        return None
    assert verdict.proved is not None
    (bound,) = verdict.proved
    # A claim just below it has no proof.
    less = bound * (1 - 2.0**-50)
    assert less == bound or not check(certify(case, proof, [less], None, None, []), data).valid
    return bound


@pytest.mark.parametrize("number", range(EACH))
@pytest.mark.parametrize("kind", LAYERS)
def test_no_bound_is_below_a_jacobian(kind: str, number: int) -> None:
    rng = np.random.default_rng([number, sorted(LAYERS).index(kind)])
    layer = LAYERS[kind](rng)
    data = layer.data
    assert load(data).blocked is None
    read = read_network(data)
    for x in rng.normal(size=(2, layer.size)):
        np.testing.assert_allclose(evaluate(read, x), layer(torch.tensor(x)), atol=1e-10, rtol=1e-9)
    for question in _questions(layer, number, rng):
        steepest = question.steepest
        for proof in GLOBAL if question.asked.scope == "global" else LOCAL:
            bound = _proved(question, read, proof)
            # Jacobians and secants are rounded themselves.
            assert bound is None or steepest * (1 - 1e-11) <= bound
