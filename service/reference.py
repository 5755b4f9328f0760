"""The page of every endpoint and every problem, written from what the service itself goes by.

    python -m service.reference > docs/reference.md

writes the copy that is kept in the repository; a test keeps it equal.
"""

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from service.problems import CATALOGUE

Document = Mapping[str, Any]  # Any: the OpenAPI document's own nesting

HEAD = """# Reference

Written by `python -m service.reference`. The whole contract, with every member of every body, is
`openapi.yaml`; a running service has it at `/openapi.json`, and as a page at `/docs`.
"""


def page(document: Document) -> str:
    """The page, in Markdown."""
    return "\n".join([HEAD, *_endpoints(document), "", *_problems(), ""])


def _endpoints(document: Document) -> Iterator[str]:
    yield "## Endpoints"
    yield ""
    yield "| call | does | takes | answers |"
    yield "|---|---|---|---|"
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            cells = (
                f"`{method.upper()} {path}`",
                operation.get("description", "").splitlines()[0],
                ", ".join(_taken(operation)),
                ", ".join(operation["responses"]),
            )
            yield _row(*cells)


def _taken(operation: Document) -> Iterator[str]:
    """The names of parameters beside those in the path, and the types of bodies."""
    for parameter in operation.get("parameters", ()):
        if parameter["in"] != "path":
            yield f"`{parameter['name']}`"
    for media in operation.get("requestBody", {}).get("content", {}):
        yield f"`{media}`"


def _problems() -> Iterator[str]:
    yield "## Problems"
    yield ""
    yield "Every refusal is `application/problem+json` with one of these codes; its `detail` names"
    yield "what was met. The command line and failed jobs have the same codes. What may pass by"
    yield "itself is marked, and comes with `Retry-After`."
    yield ""
    yield "| code | status | what happened | what to do |"
    yield "|---|---|---|---|"
    for entry in CATALOGUE.values():
        again = ", passes" if entry.is_retryable else ""
        yield _row(f"`{entry.code}`", f"{entry.status}{again}", entry.title, entry.fix)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def main() -> None:
    """Write the page to standard output."""
    from service.app import describe_app

    sys.stdout.write(page(describe_app().openapi()))


if __name__ == "__main__":
    main()
