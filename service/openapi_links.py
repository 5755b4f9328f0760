"""The contract's links: what an answer names, and the operations that take it.

Every operation that makes a thing has a link to each operation whose path has the thing's id; a
few more say what else of an answer leads on.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Operation: TypeAlias = tuple[str, str]  #: method and path
Document: TypeAlias = dict[str, Any]  # Any: the OpenAPI document's own nesting

ID = "$response.body#/id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """From an operation's answers to another operation, with what these have for it."""

    of: Operation
    to: Operation
    parameters: Mapping[str, str] = field(default_factory=dict[str, str])
    body: Mapping[str, str] | None = None


def add_links(document: Document) -> None:
    """Write the links into the answers of success."""
    for link in (*MORE, *_to_things(document)):
        method, path = link.to
        target = document["paths"][path][method]
        told: Document = {"operationId": target["operationId"]}
        if link.parameters:
            told["parameters"] = dict(link.parameters)
        if link.body is not None:
            told["requestBody"] = dict(link.body)
        for answer in _successes(document, link.of):
            answer.setdefault("links", {})[_name(method, path)] = told


def _to_things(document: Document) -> Iterator[Link]:
    """From the makers of every kind of thing to those that have its id in their path."""
    for parameter, makers in MADE_BY.items():
        for path, operations in document["paths"].items():
            if f"{{{parameter}}}" not in path:
                continue
            for method in operations:
                for maker in makers:
                    yield Link(of=maker, to=(method, path), parameters={parameter: ID})


def _successes(document: Document, operation: Operation) -> Iterator[Document]:
    method, path = operation
    for status, answer in document["paths"][path][method]["responses"].items():
        if status.startswith("2"):
            yield answer


def _name(method: str, path: str) -> str:
    """The link's name: the method and the words of the path. No two of an answer are alike."""
    words = [word.strip("{}") for word in path.removeprefix("/v1").split("/") if word]
    return "-".join([method, *words]).replace("_", "-")


#: The parameter of a path that names a thing, and what makes such things.
MADE_BY: Mapping[str, Sequence[Operation]] = {
    "gate_id": (("post", "/v1/gates"),),
    "job_id": (
        ("post", "/v1/jobs"),
        ("post", "/v1/jobs/{job_id}/resume"),
        ("post", "/v1/radius"),
    ),
    "key_id": (("post", "/v1/keys"),),
    "model_id": (("post", "/v1/models"), ("put", "/v1/models/{model_id}")),
    "webhook_id": (("post", "/v1/webhooks"),),
}

MORE: Sequence[Link] = (
    *(
        Link(of=maker, to=("post", path), body={"model": ID})
        for maker in MADE_BY["model_id"]
        for path in ("/v1/jobs", "/v1/radius")
    ),
    *(
        Link(
            of=("put", "/v1/policies/{policy_name}"),
            to=(method, "/v1/policies/{policy_name}"),
            parameters={"policy_name": "$response.body#/name"},
        )
        for method in ("get", "put", "delete")
    ),
    Link(
        of=("get", "/v1/gates/{gate_id}"),
        to=("get", "/v1/jobs/{job_id}"),
        parameters={"job_id": "$response.body#/rules/0/job"},
    ),
    Link(
        of=("get", "/v1/webhooks/{webhook_id}/deliveries"),
        to=("post", "/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver"),
        parameters={
            "webhook_id": "$response.body#/items/0/webhook",
            "delivery_id": "$response.body#/items/0/id",
        },
    ),
    Link(
        of=("get", "/v1/jobs/{job_id}"),
        to=("get", "/v1/certificates/{certificate_id}"),
        parameters={"certificate_id": "$response.body#/certificate"},
    ),
    Link(
        of=("get", "/v1/certificates"),
        to=("get", "/v1/certificates/{certificate_id}"),
        parameters={"certificate_id": "$response.body#/items/0/id"},
    ),
)
