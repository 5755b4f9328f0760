"""Requests: what is stated comes back as stated, and what is malformed is pointed at."""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.errors import InvalidRequest, RegionEmptyInterior, RequestRefused
from verifier.norms import Metric, Norm, NormPair, WeightedPair, Weighting, Weights
from verifier.property import All, Budget, Each, Indices, Margins, Monotone, Request
from verifier.regions import Ball, CenterBox, Centers, Everywhere
from verifier.request_json import parse_property, parse_request, property_json, request_json

Object = Mapping[str, Any]  # Any: JSON, right and wrong alike

BOX = {"type": "box", "center": [0.5, 0.25], "radius": 0.125}

CENTERS = "/property/region/centers"
MANY = {"type": "box", "centers": [[0.5, 0.25], [1, 0]], "radius": 0.125}

numbers = st.floats(min_value=-100, max_value=100)
norms = st.sampled_from(["l1", "l2", "linf"])
vectors = st.lists(numbers, min_size=3, max_size=3)
radii = st.one_of(
    st.floats(min_value=0.01, max_value=2),
    st.lists(st.floats(min_value=0.01, max_value=2), min_size=3, max_size=3),
)
regions = st.one_of(
    st.fixed_dictionaries({"type": st.just("box"), "center": vectors, "radius": radii}),
    st.fixed_dictionaries(
        {
            "type": st.just("ball"),
            "norm": norms,
            "center": vectors,
            "radius": st.floats(min_value=0.01, max_value=2),
        }
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("box"),
            "lower": st.just([0.0, 0.0, 0.0]),
            "upper": st.just([1.0, 0.0, 2.0]),
            "clip": st.just({"lower": -1.0, "upper": 1.5}),
        }
    ),
)
outputs = st.sampled_from(
    ["all", {"indices": [0, 2]}, {"each": True}, {"margins": "all"}, {"margins": [[0, 1], [2, 0]]}]
)
requests = st.fixed_dictionaries(
    {
        "property": st.fixed_dictionaries(
            {
                "scope": st.just("local"),
                "norm": st.fixed_dictionaries({"input": norms, "output": norms}),
                "region": regions,
                "inputs": st.sampled_from(["all", {"indices": [1]}]),
                "outputs": outputs,
            }
        ),
        "method": st.sampled_from(["auto", "product", "lipsdp", "propagation"]),
        "options": st.dictionaries(st.text(min_size=1), st.one_of(numbers, st.booleans())),
        "budget": st.fixed_dictionaries(
            {"seconds": st.floats(min_value=0.1, max_value=100), "gap": st.just(0.0)}
        ),
        "target": st.one_of(st.none(), st.fixed_dictionaries({"upper": st.just(2.5)})),
    }
)


RISES = {"input": 1, "output": 0, "direction": "increasing"}
RISING = {"kind": "monotone", "monotone": RISES}


def signed(**members: object) -> Object:
    """A request whose sign has some members of its own."""
    return {"property": {"kind": "monotone", "monotone": {**RISES, **members}}}


def weighted(norm: object) -> Object:
    """A request in this norm of inputs."""
    return {"property": {"norm": {"input": norm, "output": "l2"}}}


def test_defaults_are_those_of_the_interface() -> None:
    request = parse_request({})
    assert request == Request()
    assert request.property.norm == NormPair(Norm.L2, Norm.L2)
    assert (request.property.scope, request.property.region) == ("global", Everywhere())
    assert request.property.inputs == request.property.outputs == All()
    assert (request.method, request.budget) == ("auto", Budget(seconds=60.0, gap=0.01))
    assert request.target is None


@given(value=requests)
def test_request_survives_its_json(value: Object) -> None:
    request = parse_request(value)
    assert parse_request(json.loads(json.dumps(request_json(request)))) == request


@given(value=requests)
def test_canonical_property_is_a_fixed_point(value: Object) -> None:
    canonical = property_json(parse_property(value["property"]))
    assert property_json(parse_property(canonical)) == canonical


def test_one_norm_stands_for_both() -> None:
    assert parse_property({"norm": "linf"}).norm == NormPair(Norm.LINF, Norm.LINF)


def test_region_makes_the_question_local() -> None:
    asked = parse_property({"region": BOX})
    assert asked.scope == "local"
    assert asked.region == CenterBox(center=(0.5, 0.25), radius=0.125)


@pytest.mark.parametrize(
    "region",
    [
        {**MANY, "clip": {"lower": 0.0, "upper": 1.0}},
        {**MANY, "radius": [0.5, 0.0]},
        {"type": "ball", "norm": "l2", "centers": [[0.5], [1.0]], "radius": 2.0},
    ],
)
def test_many_centers_survive_their_json(region: Object) -> None:
    asked = parse_property({"region": region})
    assert isinstance(asked.region, Centers)
    assert [list(part.center) for part in asked.region.parts] == region["centers"]
    canonical = property_json(asked)
    assert parse_property(json.loads(json.dumps(canonical))) == asked
    assert canonical["region"] == region


def test_the_empty_one_of_many_regions_is_refused() -> None:
    region = {**MANY, "centers": [[0.5, 0.5], [3, 3]], "clip": {"lower": 0, "upper": 1}}
    with pytest.raises(RegionEmptyInterior):
        parse_property({"region": region})


@pytest.mark.parametrize(
    "value", [{"kind": "jacobian", "outputs": {"indices": [2]}}, RISING, {**RISING, "region": BOX}]
)
def test_kinds_without_a_norm_survive_their_json(value: Object) -> None:
    """The norm has no effect there, so that no two requests of one meaning differ by it."""
    asked = parse_property({**value, "norm": "linf"})
    canonical = property_json(asked)
    assert (canonical["kind"], canonical["norm"]) == (value["kind"], None)
    assert ("monotone" in canonical) == ("monotone" in value)
    assert parse_property(canonical) == asked == parse_property(value)


def test_a_sign_is_about_one_input_and_one_output() -> None:
    asked = parse_property(RISING)
    assert asked.monotone == Monotone(input=1, output=0, direction="increasing")
    assert (asked.entries.inputs, asked.entries.outputs) == (Indices((1,)), Indices((0,)))
    with pytest.raises(ValueError, match="monotone"):
        replace(asked, kind="jacobian")


@pytest.mark.parametrize(
    ("value", "parsed"),
    [
        ({"indices": [3, 1]}, Indices((3, 1))),
        ({"each": True}, Each()),
        ({"margins": "all"}, Margins(None)),
        ({"margins": [[0, 1]]}, Margins(((0, 1),))),
    ],
)
def test_outputs_are_read(value: Object, parsed: object) -> None:
    assert parse_property({"outputs": value}).outputs == parsed


@pytest.mark.parametrize(
    ("given", "weighting"),
    [
        ({"type": "linf", "weights": [1, 2.5]}, Weights((1.0, 2.5))),
        ({"type": "l2", "matrix": [[2, -1], [-1, 2]]}, Metric(((2.0, -1.0), (-1.0, 2.0)))),
    ],
)
def test_weighted_norms_are_read_and_written(given: Object, weighting: Weighting) -> None:
    asked = parse_property({"norm": {"input": given, "output": "l1"}})
    assert asked.norm == WeightedPair(NormPair(Norm(str(given["type"])), Norm.L1), weighting)
    assert property_json(asked)["norm"] == {"input": given, "output": "l1"}


def test_badly_scaled_matrix_is_still_a_norm() -> None:
    """What counts is how far from singular P is after scaling, not the size of its entries."""
    matrix = [[1e20, 1.0], [1.0, 1e-18]]
    assert parse_property({"norm": {"input": {"type": "l2", "matrix": matrix}, "output": "l2"}})


def test_code_that_knows_plain_pairs_only_fails_on_weighted_ones() -> None:
    """Weights that are forgotten would make a false bound: there is no `input` to go on with."""
    pair = WeightedPair(NormPair(Norm.L2, Norm.L2), Weights((2.0,)))
    assert not hasattr(pair, "input")


def test_matrix_of_another_norm_is_no_pair() -> None:
    with pytest.raises(ValueError, match="l2"):
        WeightedPair(NormPair(Norm.LINF, Norm.L2), Metric(((1.0,),)))


def test_ball_is_read() -> None:
    region = {"type": "ball", "norm": "l1", "center": [1], "radius": 2}
    assert parse_property({"region": region}).region == Ball(
        norm=Norm.L1, center=(1.0,), radius=2.0
    )


@pytest.mark.parametrize(
    ("value", "pointer"),
    [
        ([], ""),
        ({"modle": 1}, "/modle"),
        ({"method": "magic"}, "/method"),
        ({"method": ["auto"]}, "/method"),
        ({"options": {"a": [1]}}, "/options/a"),
        ({"budget": {"seconds": 0}}, "/budget/seconds"),
        ({"budget": {"seconds": float("nan")}}, "/budget/seconds"),
        ({"budget": {"seconds": True}}, "/budget/seconds"),
        ({"budget": {"seconds": 10**400}}, "/budget/seconds"),
        ({"budget": {"gap": -1}}, "/budget/gap"),
        ({"target": {"upper": -1}}, "/target/upper"),
        ({"target": 3}, "/target"),
        ({"property": {"kind": "convex"}}, "/property/kind"),
        ({"property": {"kind": "monotone"}}, "/property/monotone"),
        ({"property": {"monotone": RISES}}, "/property/monotone"),
        ({"property": {"norm": None}}, "/property/norm"),
        (signed(input=-1), "/property/monotone/input"),
        (signed(output=1.0), "/property/monotone/output"),
        (signed(direction="up"), "/property/monotone/direction"),
        (signed(strict=True), "/property/monotone/strict"),
        ({"property": {**RISING, "inputs": {"indices": [0]}}}, "/property/monotone"),
        ({"property": {"kind": "jacobian", "norm": "l3"}}, "/property/norm"),
        ({"property": {"kind": "jacobian", "outputs": {"each": True}}}, "/property/outputs"),
        ({"property": {"kind": "jacobian"}, "target": {"upper": 1}}, "/target"),
        ({"property": RISING, "method": "lipsdp"}, "/method"),
        ({"property": {"norm": "l3"}}, "/property/norm"),
        ({"property": {"norm": {"input": "l2"}}}, "/property/norm/output"),
        ({"property": {"norm": {"input": [], "output": "l2"}}}, "/property/norm/input"),
        (weighted({"type": "l2"}), "/property/norm/input"),
        (weighted({"type": "l2", "weights": [1], "matrix": [[1]]}), "/property/norm/input"),
        (weighted({"weights": [1]}), "/property/norm/input/type"),
        (weighted({"type": "l4", "weights": [1]}), "/property/norm/input/type"),
        (weighted({"type": "l2", "weights": 1}), "/property/norm/input/weights"),
        (weighted({"type": "l1", "weights": []}), "/property/norm/input/weights"),
        (weighted({"type": "l1", "weights": [1, 0]}), "/property/norm/input/weights/1"),
        (weighted({"type": "l1", "weights": [-1, 1]}), "/property/norm/input/weights/0"),
        (weighted({"type": "l1", "weights": [1e-200]}), "/property/norm/input/weights/0"),
        (weighted({"type": "l1", "weights": [float("nan")]}), "/property/norm/input/weights/0"),
        (weighted({"type": "linf", "matrix": [[1]]}), "/property/norm/input/type"),
        (weighted({"type": "l2", "matrix": [1]}), "/property/norm/input/matrix/0"),
        (weighted({"type": "l2", "matrix": [[1, 0]]}), "/property/norm/input/matrix/0"),
        (weighted({"type": "l2", "matrix": [[1, 0], [0.5, 1]]}), "/property/norm/input/matrix/0/1"),
        (weighted({"type": "l2", "matrix": [[1, 2], [2, 1]]}), "/property/norm/input/matrix"),
        (weighted({"type": "l2", "matrix": [[1, 1], [1, 1]]}), "/property/norm/input/matrix"),
        (weighted({"type": "l2", "matrix": [[0]]}), "/property/norm/input/matrix"),
        (weighted({"type": "l2", "matrix": [["1"]]}), "/property/norm/input/matrix/0/0"),
        ({"property": {"scope": "local"}}, "/property/region"),
        ({"property": {"scope": "global", "region": BOX}}, "/property/region"),
        ({"property": {"scope": "everywhere"}}, "/property/scope"),
        ({"property": {"region": {"type": "cone"}}}, "/property/region/type"),
        ({"property": {"region": {**BOX, "center": "c.npy"}}}, "/property/region/center"),
        ({"property": {"region": {**BOX, "center": [1, "2"]}}}, "/property/region/center/1"),
        ({"property": {"region": {**BOX, "radius": [1]}}}, "/property/region/radius"),
        ({"property": {"region": {**BOX, "lower": [0, 0]}}}, "/property/region/lower"),
        ({"property": {"region": {"type": "box"}}}, "/property/region/lower"),
        ({"property": {"region": {"type": "box", "centers": [[1]]}}}, "/property/region/radius"),
        ({"property": {"region": {**MANY, "centers": []}}}, "/property/region/centers"),
        (
            {"property": {"region": {**MANY, "centers": [[1], [1, 2]]}}},
            "/property/region/centers/1",
        ),
        ({"property": {"region": {**MANY, "center": [1, 2]}}}, "/property/region/center"),
        ({"property": {"region": {**MANY, "lower": [1, 2]}}}, "/property/region/lower"),
        ({"property": {"kind": "jacobian", "region": MANY}}, "/property/region/centers"),
        ({"property": {"inputs": {"indices": []}}}, "/property/inputs/indices"),
        ({"property": {"inputs": {"indices": [1, 1]}}}, "/property/inputs/indices"),
        ({"property": {"outputs": {"indices": [-1]}}}, "/property/outputs/indices/0"),
        ({"property": {"outputs": {"each": False}}}, "/property/outputs/each"),
        ({"property": {"outputs": {"each": True, "margins": "all"}}}, "/property/outputs"),
        ({"property": {"outputs": {"margins": [[1, 2, 3]]}}}, "/property/outputs/margins/0"),
        ({"property": {"bind": {"shapes": {"n": 0}}}}, "/property/bind/shapes/n"),
    ],
)
def test_malformed_request_is_refused_with_a_pointer(value: object, pointer: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_request(value)
    assert caught.value.pointer == pointer
    assert caught.value.fix


@pytest.mark.parametrize(
    "region",
    [
        {**BOX, "radius": 0},
        {**BOX, "radius": -1},
        {**BOX, "radius": [0, 0]},
        {**BOX, "radius": [1, -1]},
        {"type": "ball", "norm": "l2", "center": [0], "radius": 0},
        {"type": "box", "lower": [1], "upper": [0]},
    ],
)
def test_region_without_two_points_is_refused(region: Object) -> None:
    with pytest.raises(RegionEmptyInterior):
        parse_request({"property": {"region": region}})


JUNK = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                re.findall(
                    r"\w+",
                    "property method options budget target scope norm region inputs outputs type"
                    " center radius lower upper clip weights matrix input output indices each"
                    " margins seconds gap",
                )
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)


@given(value=JUNK)
def test_any_json_is_read_or_refused(value: object) -> None:
    """Nothing but a refusal leaves the reader, whatever the JSON."""
    with suppress(RequestRefused):
        assert isinstance(parse_request(value), Request)
