"""Radii: no point of a proved ball has another label, and no tampered certificate proves one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from tests.exact import fractions
from tests.onnx_import.graphs import info, node
from tests.onnx_import.graphs import model as graph_model
from tests.random_networks import maxmin, relu
from tests.tiny_networks import TinyBuilder, TinyNetwork
from tests.tiny_topologies import gemm
from verifier.certificate import Certificate
from verifier.certificate_json import certificate_text
from verifier.checker import check_radius
from verifier.errors import InvalidRequest
from verifier.norms import Norm, NormPair
from verifier.property import All, Indices, Margins, Property
from verifier.quantiles import quantiles_of
from verifier.radius import Radii, Ring, radii
from verifier.radius_json import Question, parse_question, question_json
from verifier.regions import Ball, CenterBox, Clip, Region

NORMS = (Norm.LINF, Norm.L2)
SIZE = 3


@cache
def network(seed: int) -> TinyNetwork:
    rng = np.random.default_rng([seed, 41])
    builder = TinyBuilder(rng, (1, SIZE))
    for size in (6, 4, 3):
        gemm(builder, rng.normal(size=(size, builder.shape[1])), rng.normal(size=size))
        if size != 3:
            (relu if seed % 2 else maxmin)(builder)
    return builder.tiny()


@cache
def answer(seed: int, norm: Norm) -> Radii:
    center = tuple(np.random.default_rng([seed, 42]).normal(size=SIZE).tolist())
    question = Question(centers=(center,), norm=norm, seconds=2.5)
    return radii(network(seed).network.model, question)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("seed", range(4))
def test_no_point_of_the_ball_has_another_label(seed: int, norm: Norm) -> None:
    """Samples, all corners and, step by step, the worst of them pushed on, in rationals."""
    found, tiny = answer(seed, norm), network(seed)
    (ring,), rng = found.rings, np.random.default_rng(seed)
    assert ring.certificate is not None
    assert check_radius(certificate_text(ring.certificate).encode(), tiny.network.model).valid
    center = np.array(found.question.centers[0])
    corners = np.array(np.meshgrid(*[[-1.0, 1.0]] * SIZE)).reshape(SIZE, -1).T
    offsets = np.concatenate((corners, rng.normal(size=(60, SIZE)), rng.uniform(-1, 1, (20, SIZE))))
    order = np.inf if norm is Norm.LINF else 2
    lengths = np.linalg.norm(offsets, order, axis=1, keepdims=True)
    for offset in offsets / lengths * (1 - 1e-12):
        values = tiny.network(fractions(center + ring.radius * offset))
        assert max(range(len(values)), key=lambda k: values[k]) == ring.label


@pytest.mark.parametrize("norm", NORMS)
def test_a_linear_network_reaches_the_distance_to_its_plane(norm: Norm) -> None:
    """f_0 - f_1 = 3 x_0 - 4 x_1 + 10 at 0: distance 10/7 in linf, 2 in l2."""
    builder = TinyBuilder(np.random.default_rng(0), (1, 2))
    gemm(builder, np.array([[3.0, 0.0], [0.0, 4.0]]), np.array([10.0, 0.0]))
    model = builder.finished().model
    (ring,) = radii(model, Question(centers=((0.0, 0.0),), norm=norm, seconds=5.0)).rings
    truth = 10 / 7 if norm is Norm.LINF else 2.0
    assert ring.label == 0
    assert truth * (1 - 2e-3) <= ring.radius < truth


def test_a_label_that_is_not_the_greatest_has_no_ball() -> None:
    found = answer(1, Norm.LINF)
    other = (found.rings[0].label + 1) % 3
    question = replace(found.question, label=other, seconds=2.0)
    (ring,) = radii(network(1).network.model, question).rings
    assert (ring.label, ring.radius, ring.certificate) == (other, 0.0, None)


def test_what_a_question_binds_is_bound() -> None:
    """y = w x, the second axis without a name, w an input that is held constant."""
    x, w = info("x", (1, None)), info("w", (2, 2))
    data = graph_model([node("MatMul", ["x", "w"], ["y"])], inputs=[x, w])
    bind = {"shapes": {"x[1]": 2}, "values": {"w": [3.0, 0.0, 0.0, 4.0]}}
    question = parse_question({"centers": [[2.0, 0.0]], "norm": "l2", "seconds": 2.0, "bind": bind})
    assert parse_question(question_json(question)) == question
    (ring,) = radii(data, question).rings
    assert ring.certificate is not None
    assert check_radius(ring.certificate, data).valid
    # 3 x_0 - 4 x_1 at (2, 0): 6/5 from its plane.
    assert 1.2 * (1 - 2e-3) <= ring.radius < 1.2


def test_many_points_have_one_answer_each_and_quantiles() -> None:
    centers = tuple(map(tuple, np.random.default_rng(3).normal(size=(3, SIZE)).tolist()))
    clip = Clip(lower=-4.0, upper=4.0)
    question = Question(centers=centers, norm=Norm.LINF, clip=clip, seconds=2.5)
    kept = dict[int, Ring]()
    found = radii(network(2).network.model, question, on_ring=kept.__setitem__)
    members = found.to_json()
    assert kept == {place: ring for place, ring in enumerate(found.rings) if ring.radius}
    listed = members["radii"]
    assert isinstance(listed, list)
    sizes = sorted(entry["radius"] for entry in listed)
    expected = {"min": sizes[0], "median": sizes[1], "p90": sizes[2], "max": sizes[2]}
    assert members["quantiles"] == expected


# --- Tampering -----------------------------------------------------------------------------------


def _asked(certificate: Certificate, **changes: object) -> Certificate:
    asked = replace(certificate.claim.property, **changes)  # pyright: ignore[reportArgumentType]
    return replace(certificate, claim=replace(certificate.claim, property=asked))


def _region(certificate: Certificate) -> CenterBox:
    region = certificate.claim.property.region
    assert isinstance(region, CenterBox)
    return region


def _wider(certificate: Certificate) -> Certificate:
    region = _region(certificate)
    assert isinstance(region.radius, float)
    return _asked(certificate, region=replace(region, radius=4 * region.radius))


def _as_ball(certificate: Certificate) -> Region:
    region = _region(certificate)
    assert isinstance(region.radius, float)
    return Ball(norm=Norm.L2, center=region.center, radius=region.radius)


def _fewer(certificate: Certificate) -> Certificate:
    claim = certificate.claim
    assert isinstance(claim.property.outputs, Margins)
    assert claim.property.outputs.pairs is not None
    asked = replace(claim.property, outputs=Margins(claim.property.outputs.pairs[:1]))
    return replace(
        certificate, claim=replace(claim, property=asked, bounds=(claim.bounds or ())[:1])
    )


SPOILT: dict[str, Callable[[Certificate], Certificate]] = {
    "radius": _wider,
    "ball of another norm": lambda c: _asked(c, region=_as_ball(c)),
    "radii": lambda c: _asked(c, region=replace(_region(c), radius=(0.01,) * SIZE)),
    "some inputs": lambda c: _asked(c, inputs=Indices((0, 1))),
    "other norm": lambda c: _asked(c, norm=NormPair(Norm.L2, Norm.LINF)),
    "all outputs": lambda c: _asked(c, outputs=All()),
    "fewer margins": _fewer,
    "bound": lambda c: replace(c, claim=replace(c.claim, bound=1e-9)),
}


@pytest.mark.parametrize("how", SPOILT)
def test_spoilt_certificate_proves_no_ball(how: str) -> None:
    (ring,) = answer(1, Norm.LINF).rings
    assert ring.certificate is not None
    assert check_radius(ring.certificate, network(1).network.model).valid
    assert not check_radius(SPOILT[how](ring.certificate), network(1).network.model).valid


def test_true_bounds_on_too_large_a_ball_prove_no_label() -> None:
    """The certificate is valid, and the conclusion is not: the margins' bounds reach too far."""
    from verifier.property import Budget, Request
    from verifier.verify import verify

    (ring,) = answer(1, Norm.LINF).rings
    assert ring.certificate is not None
    region = replace(_region(ring.certificate), radius=10.0)
    asked: Property = replace(ring.certificate.claim.property, region=region)
    wide = verify(network(1).network.model, Request(property=asked, budget=Budget(seconds=3.0)))
    said = check_radius(wide, network(1).network.model)
    assert not said.valid
    assert "may reach" in said.reason


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"centers": [[0.0]], "norm": "l1"},
        {"centers": [[0.0]], "label": -1},
        {"centers": [[0.0]], "seconds": 0},
        {"centers": [[0.0]], "norm": "l2", "clip": {"lower": 0, "upper": 1}},
        {"centers": [[0.0]], "colour": 1},
        {"centers": [[0.0], [0.0, 1.0]]},
        {"centers": [[2.0]], "clip": {"lower": 0, "upper": 1}},
    ],
)
def test_malformed_question_is_refused(value: object) -> None:
    with pytest.raises(InvalidRequest):
        parse_question(value)


def test_a_question_is_read_as_it_is_written() -> None:
    clip = Clip(lower=-1.0, upper=1.0)
    question = Question(centers=((0.5, 0.25),), label=1, clip=clip, seconds=2.0)
    assert parse_question(question_json(question)) == question


@pytest.mark.parametrize("members", [{"label": 3}, {"centers": ((0.0,),)}])
def test_what_the_model_does_not_have_is_refused(members: dict[str, object]) -> None:
    question = replace(answer(1, Norm.LINF).question, **members)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidRequest):
        radii(network(1).network.model, question)


def test_quantiles_are_numbers_of_the_list() -> None:
    said = quantiles_of([3.0, 1.0, 2.0, float("inf")])
    assert said == {"min": 1.0, "median": 2.0, "p90": None, "max": None}
