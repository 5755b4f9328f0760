"""The document of the contract: it is OpenAPI 3.1, and every body has an example that is one."""

import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from service import openapi
from service.app import describe_app
from service.openapi_examples import OF_MEDIA, OF_SCHEMA, bodies

DOCUMENT: dict[str, Any] = describe_app().openapi()
OPERATIONS = [
    (f"{method} {path}", operation)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
]


def test_it_is_openapi_3_1() -> None:
    assert DOCUMENT["openapi"].startswith("3.1")
    OPENAPI_31_VALIDATOR.validate(DOCUMENT)


def test_every_reference_leads_somewhere() -> None:
    """A body that only a route's `openapi_extra` names is listed in `service.app.BODIES`."""
    for reference in set(re.findall(r"'\$ref': '#/([^']+)'", str(DOCUMENT))):
        place: Any = DOCUMENT
        for name in reference.split("/"):
            place = place[name]


def test_every_body_has_an_example() -> None:
    """Those of `service.openapi_examples`."""
    bare = [body for _, body in bodies(DOCUMENT) if not body.keys() & {"example", "examples"}]
    assert [body["schema"] for body in bare] == []


@pytest.mark.parametrize("name", DOCUMENT["components"]["examples"])
def test_an_example_is_what_it_is_an_example_of(name: str) -> None:
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    Draft202012Validator(schema).validate(OF_SCHEMA[name])


def test_no_example_is_without_use() -> None:
    text = str(DOCUMENT)
    assert [name for name in OF_SCHEMA if f"/schemas/{name}'" not in text] == []
    assert [media for media in OF_MEDIA if f"'{media}'" not in text] == []


def test_what_is_made_leads_to_what_can_be_done_with_it() -> None:
    links = DOCUMENT["paths"]["/v1/jobs"]["post"]["responses"]["202"]["links"]
    assert {"get-jobs-job-id", "post-jobs-job-id-cancel", "get-jobs-job-id-events"} <= set(links)
    known = {operation["operationId"] for _, operation in OPERATIONS}
    assert {link["operationId"] for link in links.values()} <= known


def test_without_keys_none_is_needed() -> None:
    for path, operations in openapi.without_keys(DOCUMENT)["paths"].items():
        for method, operation in operations.items():
            needs = DOCUMENT["paths"][path][method].get("security")
            assert operation.get("security") == (None if needs is None else [{}, *needs])
