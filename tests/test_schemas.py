"""The published JSON Schemas say what the readers do."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from jsonschema import Draft202012Validator

from tests.request_samples import ALONE, MIXED
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


@given(value=MIXED)
def test_schema_and_reader_agree(value: dict[str, Any]) -> None:
    assert REQUEST.is_valid(value) == _is_read(value)


@pytest.mark.parametrize("value", ALONE, ids=str)
def test_schema_and_reader_agree_on_a_member(value: dict[str, Any]) -> None:
    assert REQUEST.is_valid(value) == _is_read(value)


def _is_read(value: dict[str, Any]) -> bool:
    try:
        parse_request(value)
    except RequestRefused:
        return False
    return True
