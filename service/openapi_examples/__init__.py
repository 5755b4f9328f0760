"""An example of every body in the contract; a test has each read by the schema that it is of."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from service.openapi_examples import gates, operating, webhooks, work
from service.openapi_examples.common import Example

Document: TypeAlias = dict[str, Any]  # Any: the OpenAPI document's own nesting

REFERENCE = "#/components/schemas/"

#: By the name of the schema.
OF_SCHEMA: Mapping[str, Example] = {
    **work.OF_SCHEMA,
    **gates.OF_SCHEMA,
    **webhooks.OF_SCHEMA,
    **operating.OF_SCHEMA,
}

#: By media type, for bodies that are no JSON object of ours.
OF_MEDIA: Mapping[str, object] = {
    "application/octet-stream": "the bytes of an ONNX file",
    "application/onnx": "the bytes of an ONNX file",
    "application/schema+json": {"$schema": "https://json-schema.org/draft/2020-12/schema"},
    "application/sarif+json": {"version": "2.1.0", "runs": []},
    "application/xml": '<testsuite name="lipcert" tests="1" failures="0" errors="0" />',
    "application/x-onnx": "the bytes of an ONNX file",
    "image/svg+xml": '<svg xmlns="http://www.w3.org/2000/svg" width="96" height="20" />',
    "text/event-stream": 'id: 1\nevent: state\ndata: {"seq": 1, "type": "state"}\n\n',
    "text/html": "<!doctype html><title>lipcert</title>",
    "text/markdown": "**The gate is open**: every bound is proved.\n",
    "text/plain": "lipcert_dispatcher_up 1.0\n",
}


def add_examples(document: Document) -> None:
    """Give every body of the document its example; those of schemas as components."""
    used: set[str] = set()
    for media, body in bodies(document):
        names = list(_names(body.get("schema", {})))
        if media == "multipart/form-data":
            part = {"model": OF_MEDIA["application/octet-stream"], "request": OF_SCHEMA[names[0]]}
            body["example"] = part
        elif media in OF_MEDIA:
            body["example"] = OF_MEDIA[media]
        else:
            known = [name for name in names if name in OF_SCHEMA]
            used |= set(known)
            if known:
                body["examples"] = {n: {"$ref": f"#/components/examples/{n}"} for n in known}
    document["components"]["examples"] = {name: {"value": OF_SCHEMA[name]} for name in sorted(used)}


def bodies(document: Document) -> Iterator[tuple[str, Document]]:
    """(media type, media type object) of every body, asked for and answered."""
    for operations in (*document["paths"].values(), *document["webhooks"].values()):
        for operation in operations.values():
            for holder in (operation.get("requestBody", {}), *operation["responses"].values()):
                yield from holder.get("content", {}).items()


def _names(schema: Mapping[str, Any]) -> Iterator[str]:
    """The names of the schemas that a body is one of."""
    if "$ref" in schema:
        yield str(schema["$ref"]).removeprefix(REFERENCE)
    for part in (*schema.get("anyOf", ()), *schema.get("properties", {}).values()):
        yield from _names(part)
