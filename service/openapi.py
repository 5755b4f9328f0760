"""The contract as a document: what FastAPI derives, and what only we can say.

    python -m service.openapi > openapi.yaml

writes the copy that is kept in the repository; a test keeps it equal to the app.
"""

import sys
from typing import Any, TypeAlias

import yaml
from fastapi import FastAPI
from pydantic import BaseModel

from service.openapi_examples import add_examples
from service.openapi_links import add_links
from service.problems import MEDIA_TYPE
from service.schemas.problems import ProblemBody
from service.schemas.webhooks import WebhookMessageBody

Responses: TypeAlias = dict[int | str, dict[str, Any]]  # Any: FastAPI's own type

_REASONS = {
    400: "Malformed body",
    401: "No valid API key",
    403: "Not allowed with this API key",
    404: "No such thing",
    405: "No such method",
    406: "No such representation",
    408: "The body stopped coming",
    409: "Not in this state",
    412: "Not in that version",
    413: "Too many bytes",
    415: "Another media type",
    416: "No such range",
    422: "Refused",
    429: "Too much at once",
    500: "A defect of lipcert",
    503: "Not now",
    504: "It took too long",
    507: "The disk is full",
}


def problems(*statuses: int) -> Responses:
    """Problem responses for these statuses."""
    reference = {"$ref": f"#/components/schemas/{ProblemBody.__name__}"}
    if 401 in statuses:  # who needs a key can ask too often
        statuses = (*statuses, 429)
    return {
        status: {
            "description": _REASONS[status],
            "content": {MEDIA_TYPE: {"schema": reference}},
        }
        for status in statuses
    }


def raw_body(*types: str) -> dict[str, Any]:
    """A body of bytes."""
    schema = {"type": "string", "format": "binary", "minLength": 1}
    return {"requestBody": {"required": True, "content": {t: {"schema": schema} for t in types}}}


def json_body(body: type[BaseModel], multipart: dict[str, Any] | None = None) -> dict[str, Any]:
    """A JSON body that the route reads itself, and perhaps a multipart one."""
    reference = {"$ref": f"#/components/schemas/{body.__name__}"}
    content: dict[str, Any] = {"application/json": {"schema": reference}}
    if multipart is not None:
        content["multipart/form-data"] = {
            "schema": multipart,
            "encoding": {"request": {"contentType": "application/json"}},
        }
    return {"requestBody": {"required": True, "content": content}}


def install(app: FastAPI, extra: tuple[type[BaseModel], ...]) -> None:
    """Have the app's document also name the models that its routes read by themselves."""
    derive = app.openapi

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = derive()
            named = schema.setdefault("components", {}).setdefault("schemas", {})
            for body in extra:
                _add(named, body)
            _drop_unused(schema, named)
            _drop_null_parameters(schema)
            schema["webhooks"] = {"message": {"post": _message()}}
            add_links(schema)
            add_examples(schema)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = document


def _add(named: dict[str, Any], body: type[BaseModel]) -> None:
    schema = body.model_json_schema(ref_template="#/components/schemas/{model}")
    for name, definition in schema.pop("$defs", {}).items():
        named.setdefault(name, definition)
    named.setdefault(body.__name__, schema)


def _message() -> dict[str, Any]:
    """What receivers of webhooks are sent, and what their answers mean."""
    headers = ("webhook-id", "webhook-timestamp", "webhook-signature")
    return {
        "operationId": "message",
        "description": "A message of Standard Webhooks; it may come more than once.",
        "parameters": [
            {"name": name, "in": "header", "required": True, "schema": {"type": "string"}}
            for name in headers
        ],
        **json_body(WebhookMessageBody),
        "responses": {
            "2XX": {"description": "received"},
            "410": {"description": "never again: the webhook is disabled"},
            "default": {"description": "not received: the message is sent again"},
        },
    }


def _drop_unused(schema: dict[str, Any], named: dict[str, Any]) -> None:
    """FastAPI names its own 422 body, which no route of ours answers."""
    for path in schema["paths"].values():
        for operation in path.values():
            answer = operation["responses"].get("422", {}).get("content", {})
            if MEDIA_TYPE not in answer:
                operation["responses"].pop("422", None)
            else:
                answer.pop("application/json", None)
    named.pop("HTTPValidationError", None)
    named.pop("ValidationError", None)


def _drop_null_parameters(schema: dict[str, Any]) -> None:
    """A query or header that is left out is not null: there is no way to write that."""
    for path in schema["paths"].values():
        for operation in path.values():
            for parameter in operation.get("parameters", ()):
                said = parameter["schema"]
                kept = [part for part in said.get("anyOf", ()) if part != {"type": "null"}]
                if len(kept) == 1:
                    del said["anyOf"]
                    said |= kept[0]


def without_keys(document: dict[str, Any]) -> dict[str, Any]:
    """The document of a service that has no API keys: a key may be sent, and none is needed."""
    paths: dict[str, Any] = {}
    for path, operations in document["paths"].items():
        paths[path] = {
            method: {**operation, "security": [{}, *operation["security"]]}
            if "security" in operation
            else operation
            for method, operation in operations.items()
        }
    return {**document, "paths": paths}


def text(app: FastAPI) -> str:
    """The document as YAML."""
    return yaml.safe_dump(app.openapi(), sort_keys=False, allow_unicode=True, width=100)


def main() -> None:
    """Write the document to standard output."""
    from service.app import describe_app

    sys.stdout.write(text(describe_app()))


if __name__ == "__main__":
    main()
