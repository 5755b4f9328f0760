"""The contract as one page of HTML: every path, what it takes and what it answers.

Written by the server from the same document as /openapi.json; no script, nothing from elsewhere.
"""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from service.problems import CATALOGUE

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
code, pre { font-family: ui-monospace, monospace; font-size: 0.9em }
pre { background: #f4f4f4; padding: 0.7rem; overflow-x: auto }
summary { cursor: pointer; padding: 0.3rem 0 }
td { padding: 0 1rem 0.2rem 0; vertical-align: top }
"""

_STYLE_DIGEST = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()

POLICY = f"default-src 'none'; style-src 'sha256-{_STYLE_DIGEST}'; base-uri 'none'"

Document = Mapping[str, Any]  # Any: the OpenAPI document's own nesting


def render(document: Document) -> str:
    """The page."""
    return "".join(_page(document))


def _page(document: Document) -> Iterator[str]:
    info = document["info"]
    title = escape(f"{info['title']} {info['version']}")
    yield f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
    yield f"<style>{STYLE}</style><h1>{title}</h1><p>{escape(info.get('description', ''))}</p>"
    yield '<p>The same as a document: <a href="/openapi.json">/openapi.json</a></p>'
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield from _operation(method, path, operation)
    yield "<h2>Problems</h2><table>"
    for entry in CATALOGUE.values():
        code = escape(entry.code)
        yield f"<tr id=problem-{code}><td><code>{code}</code></td><td>{entry.status}</td>"
        yield f"<td>{escape(entry.title)} {escape(entry.fix)}</td></tr>"
    yield "</table><h2>Objects</h2>"
    for name, schema in document["components"]["schemas"].items():
        text = escape(json.dumps(schema, indent=2, ensure_ascii=False))
        yield f"<details id={escape(name)}><summary>{escape(name)}</summary>"
        yield f"<pre>{text}</pre></details>"


def _operation(method: str, path: str, operation: Document) -> Iterator[str]:
    yield f"<details><summary><code>{method.upper()} {escape(path)}</code> "
    yield f"{escape(operation.get('description', ''))}</summary><table>"
    for parameter in operation.get("parameters", ()):
        text = parameter.get("description") or parameter.get("schema", {}).get("type", "")
        yield _row(f"{parameter['in']} {parameter['name']}", text)
    for media, body in operation.get("requestBody", {}).get("content", {}).items():
        yield _row(f"body {media}", _named(body.get("schema", {})))
    for status, response in operation["responses"].items():
        bodies = response.get("content", {}).items()
        shapes = ", ".join(f"{media} {_named(body.get('schema', {}))}" for media, body in bodies)
        yield _row(status, f"{response.get('description', '')} {shapes}")
    yield "</table></details>"


def _row(head: str, text: str) -> str:
    return f"<tr><td><code>{escape(head)}</code></td><td>{escape(text)}</td></tr>"


def _named(schema: Document) -> str:
    """The name of a schema, where it has one."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(_named(part) for part in schema["anyOf"])
    return str(schema.get("type", ""))
