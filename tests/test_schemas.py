"""The published JSON Schemas say what the readers do."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from verifier.errors import RequestRefused
from verifier.property import Request
from verifier.request_json import parse_request, request_json

ROOT = Path(__file__).parents[1]
EXAMPLE = json.loads((ROOT / "examples/request_local.json").read_text(encoding="utf-8"))


def validator(name: str) -> Draft202012Validator:
    text = (ROOT / f"verifier/schemas/{name}.json").read_text(encoding="utf-8")
    return Draft202012Validator(json.loads(text))


REQUEST = validator("request")


@pytest.mark.parametrize("name", ["certificate", "policy", "request"])
def test_schema_is_a_schema(name: str) -> None:
    Draft202012Validator.check_schema(validator(name).schema)


@pytest.mark.parametrize(
    "value",
    [
        {},
        EXAMPLE,
        request_json(Request()),
        request_json(parse_request(EXAMPLE)),
        {"property": {"norm": "linf", "outputs": {"margins": [[0, 1]]}}, "target": {"upper": 0}},
        {"property": {"region": {"type": "ball", "norm": "l2", "center": [0], "radius": 1}}},
    ],
)
def test_schema_accepts_a_request_that_the_reader_accepts(value: Any) -> None:  # noqa: ANN401 - JSON
    assert parse_request(value)
    REQUEST.validate(value)


MEMBERS = {
    "method": [None, "magic", "auto", 3],
    "options": [[], {"a": []}, {"a": 1}],
    "budget": [None, {"seconds": 0}, {"gap": -1}, {"second": 1}, {"gap": 0}],
    "target": [3, {}, {"upper": -1}, {"upper": "1"}, {"upper": 1}, None],
    "property": [
        [],
        {"kind": "jacobian"},
        {"kind": "jacobian", "norm": None, "outputs": {"indices": [1]}},
        {"kind": "jacobian", "outputs": {"margins": "all"}},
        {"region": {"type": "box", "centers": [[0, 1], [1, 0]], "radius": 0.5}},
        {
            "region": {
                "type": "box",
                "centers": [[0.5]],
                "radius": 0.5,
                "clip": {"lower": 0, "upper": 1},
            }
        },
        {"region": {"type": "ball", "norm": "l1", "centers": [[0]], "radius": 1}},
        {"region": {"type": "box", "centers": [], "radius": 1}},
        {"region": {"type": "box", "centers": [0], "radius": 1}},
        {"kind": "jacobian", "region": {"type": "box", "centers": [[0]], "radius": 1}},
        {"kind": "monotone"},
        {"kind": "monotone", "monotone": {"input": 0, "output": 1, "direction": "decreasing"}},
        {"kind": "monotone", "monotone": {"input": 0, "output": 1, "direction": "down"}},
        {
            "kind": "monotone",
            "monotone": {"input": 0, "output": 1, "direction": "decreasing"},
            "inputs": {"indices": [0]},
        },
        {"monotone": {"input": 0, "output": 1, "direction": "decreasing"}},
        {"norm": None},
        {"norm": "l0"},
        {"norm": {"input": "l1"}},
        {"norm": {"input": {"type": "l1", "weights": [1, 2]}, "output": "l2"}},
        {"norm": {"input": {"type": "l1", "weights": [0]}, "output": "l2"}},
        {"norm": {"input": {"type": "l1", "matrix": [[1]]}, "output": "l2"}},
        {"norm": {"input": {"type": "l2", "matrix": [[1]]}, "output": "l2"}},
        {"norm": {"input": {"type": "l2"}, "output": "l2"}},
        {"norm": {"input": "l2", "output": {"type": "l2", "weights": [1]}}},
        {"inputs": {"indices": []}},
        {"outputs": {"each": False}},
        {"outputs": {"margins": [[1]]}},
        {"region": {"type": "box", "center": [0], "radius": 0}},
        {"region": {"type": "box", "center": [], "radius": 1}},
        {"region": {"type": "ball", "center": [0], "radius": 1}},
        {"norm": "l1"},
    ],
}


@given(
    value=st.fixed_dictionaries(
        {}, optional={name: st.sampled_from(values) for name, values in MEMBERS.items()}
    )
)
def test_schema_and_reader_agree(value: dict[str, Any]) -> None:
    try:
        parse_request(value)
    except RequestRefused:
        is_read = False
    else:
        is_read = True
    assert REQUEST.is_valid(value) == is_read
