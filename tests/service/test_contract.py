"""Pydantic, JSON Schema, dataclasses, `openapi.yaml` and the problem table say the same."""

import dataclasses
import re
import typing
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import service_fakes
from hypothesis import given
from pydantic import BaseModel, ValidationError
from service_process import Service

from service import docs_page, openapi
from service.app import describe_app
from service.problems import CATALOGUE
from service.routes.meta import SCHEMAS
from service.schemas.request import BudgetBody, PropertyBody, RequestBody
from service.schemas.submissions import EnvelopeBody, QuestionBody, SubmissionBody
from service.submission import OPTIONS
from tests.request_samples import ALONE, MIXED
from verifier.errors import RequestRefused, all_errors
from verifier.methods import lipsdp, propagation
from verifier.options import RunOptions
from verifier.property import Budget, Method, Property, Request
from verifier.radius import radii
from verifier.radius_json import Question, parse_question
from verifier.request_json import parse_request
from verifier.verify import verify

ROOT = Path(__file__).parents[2]


def test_the_document_in_the_repository_is_the_apps() -> None:
    """Regenerate with: python -m service.openapi > openapi.yaml."""
    kept = (ROOT / "openapi.yaml").read_text(encoding="utf-8")
    assert kept == openapi.text(describe_app())


def test_every_path_documents_its_problems() -> None:
    document = describe_app().openapi()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            text = str(operation["responses"])
            is_new = method == "put"  # what does not exist is made
            assert "{" not in path or is_new or "404" in text, f"{method} {path}"
            assert "HTTPValidationError" not in text, f"{method} {path}"


@pytest.mark.parametrize(
    ("body", "record", "more"),
    [
        (RequestBody, Request, set[str]()),
        (PropertyBody, Property, {"bind"}),
        (BudgetBody, Budget, set[str]()),
        (QuestionBody, Question, set[str]()),
    ],
)
def test_bodies_have_the_members_of_the_dataclasses(
    body: type[BaseModel], record: type[Any], more: set[str]
) -> None:
    assert set(body.model_fields) == {field.name for field in dataclasses.fields(record)} | more


def test_a_submission_is_a_request_in_an_envelope() -> None:
    expected = set(RequestBody.model_fields) | set(EnvelopeBody.model_fields)
    assert set(SubmissionBody.model_fields) == expected


def test_budgets_have_the_same_defaults() -> None:
    assert BudgetBody().model_dump() == dataclasses.asdict(Budget())


@given(value=MIXED)
def test_pydantic_and_the_reader_agree(value: dict[str, object]) -> None:
    assert _pydantic_accepts(value) == _reader_accepts(value)


@pytest.mark.parametrize("value", ALONE, ids=str)
def test_pydantic_and_the_reader_agree_on_a_member(value: dict[str, object]) -> None:
    assert _pydantic_accepts(value) == _reader_accepts(value)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"centers": [[0]]},
        {"centers": []},
        {"centers": [0]},
        {"centers": [[0]], "norm": "l2", "label": 1, "seconds": 2},
        {"centers": [[0]], "norm": "l1"},
        {"centers": [[0]], "label": True},
        {"centers": [[0]], "seconds": 0},
        {"centers": [[0]], "clip": {"lower": 0, "upper": 1}},
        {"centers": [[0]], "clip": {"lower": 0}},
        {"centers": [["0"]]},
        {"centers": [[0]], "radius": 1},
    ],
    ids=str,
)
def test_pydantic_and_the_reader_agree_on_radii(value: Any) -> None:  # noqa: ANN401 - JSON
    try:
        parse_question(value)
    except RequestRefused:
        is_read = False
    else:
        is_read = True
    assert _pydantic_accepts(value, QuestionBody) == is_read


def _pydantic_accepts(value: object, body: type[BaseModel] = RequestBody) -> bool:
    try:
        body.model_validate(value)
    except ValidationError:
        return False
    return True


def _reader_accepts(value: object) -> bool:
    try:
        parse_request(value)
    except RequestRefused:
        return False
    return True


def _schema(name: str) -> dict[str, Any]:
    import json

    return json.loads((SCHEMAS / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["request", "certificate", "policy"])
def test_schemas_are_published(service: Service, name: str) -> None:
    response = service.client.get(f"/v1/schemas/{name}")
    assert response.headers["content-type"] == "application/schema+json"
    assert response.json() == _schema(name)


def test_options_are_those_of_the_methods() -> None:
    kinds: dict[str, list[Any]] = {
        "auto": [RunOptions, lipsdp.Options, propagation.Options],
        "lipsdp": [RunOptions, lipsdp.Options],
        "product": [RunOptions],
        "propagation": [RunOptions, propagation.Options],
    }
    assert set(kinds) == set(typing.get_args(Method)) == set(OPTIONS)
    for method, classes in kinds.items():
        names = {field.name for kind in classes for field in dataclasses.fields(kind)}
        assert set(OPTIONS[method]) == names, method


def test_the_fakes_are_called_as_the_verifier_is() -> None:
    for fake, real in ((service_fakes.verify, verify), (service_fakes.radii, radii)):
        assert list(signature(fake).parameters)[1:] == list(signature(real).parameters)[1:]


def test_every_error_of_the_verifier_is_a_problem() -> None:
    assert {error.code for error in all_errors()} <= set(CATALOGUE)


@pytest.mark.parametrize("entry", CATALOGUE.values(), ids=lambda entry: entry.code)
def test_an_entry_is_well_formed(entry: Any) -> None:  # noqa: ANN401 - beartype reads the ids, too
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", entry.code)
    assert 400 <= entry.status < 600
    assert entry.title.endswith(".")
    assert entry.fix


def test_the_documentation_needs_nothing_from_elsewhere(service: Service) -> None:
    response = service.client.get("/docs")
    assert response.headers["content-security-policy"] == docs_page.POLICY
    assert "/v1/jobs/{job_id}/certificate" in response.text
    assert not re.search(r"<script|<link|<img|=.?https?://|@import|url\(", response.text)
    assert service.client.get("/openapi.json").json()["info"]["title"] == "lipcert"


def test_the_version_names_the_format(service: Service) -> None:
    assert service.client.get("/v1/version").json()["formats"] == ["lipcert/1"]
