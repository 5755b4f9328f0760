"""A certificate as one page of HTML, to be read and printed. No script, nothing from elsewhere.

Names in it come from strangers' models: all text is escaped, and cut at a length.
"""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any, cast

from service.certificate_facts import Facts
from service.context import time_text

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem }
code, pre { font-family: ui-monospace, monospace; font-size: 0.9em; overflow-wrap: anywhere }
pre { background: #f4f4f4; padding: 0.7rem; white-space: pre-wrap }
table { border-collapse: collapse; width: 100%; margin-bottom: 1rem }
th, td { border-bottom: 1px solid #ccc; padding: 0.2rem 1rem 0.2rem 0; text-align: left;
  vertical-align: top }
@media print { body { margin: 0; max-width: none } tr { break-inside: avoid } }
"""

_STYLE_DIGEST = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()

POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_DIGEST}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)

CHARACTERS = 200  #: of one text that is shown
ROWS = 50  #: of one list

Members = Mapping[str, Any]  # Any: the certificate's own nesting


def page_of(facts: Facts) -> str:
    """The page."""
    return "".join(_page(facts))


def _page(facts: Facts) -> Iterator[str]:
    title = shown(facts.subject)
    yield "<!doctype html><html lang=en><meta charset=utf-8>"
    yield '<meta name=viewport content="width=device-width">'
    yield f"<title>lipcert: {title}</title><style>{STYLE}</style><h1>Certificate: {title}</h1>"
    yield f"<p>For this model, {shown(facts.assertion)}. The independent checker has accepted"
    yield " the proof, which anyone can check again.</p>"
    yield from _table("Answer", _answer(facts))
    yield from _table("Claim", facts.claim)
    yield from _list("Bounds", facts.claim.get("bounds"))
    yield from _list("Attempts", facts.members.get("attempts"))
    for heading in ("producer", "resources"):
        yield from _table(heading.capitalize(), facts.members.get(heading) or {})
    if not facts.is_whole:
        yield "<p>The certificate is large: its JSON tells the rest.</p>"
    yield from _again(facts)


def _answer(facts: Facts) -> Members:
    members, lower = facts.members, facts.members["lower_bound"]
    return {
        "bound": facts.claim["bound"],
        "lower bound, by a witness": None if lower is None else lower["value"],
        "target": facts.target,
        "verdict": members.get("verdict"),
        "soundness": members["soundness"],
        "proof": members["proof"]["kind"],
        "certificate": facts.stored.id,
        "stored": time_text(facts.stored.created),
    }


def _table(heading: str, members: Members) -> Iterator[str]:
    """A row for each member that applies."""
    yield f"<h2>{shown(heading)}</h2><table>"
    for name, value in members.items():
        if value is not None and name != "bounds":
            yield f"<tr><th scope=row>{shown(name)}<td><code>{shown(value)}</code>"
    yield "</table>"


def _list(heading: str, items: object) -> Iterator[str]:
    """A row for each item of a list of objects with the same members."""
    if not isinstance(items, list) or not items:
        return
    rows = cast("Sequence[Members]", items)
    names = list(rows[0])
    yield f"<h2>{shown(heading)}</h2><table><tr>"
    yield "".join(f"<th scope=col>{shown(name)}" for name in names)
    for row in rows[:ROWS]:
        yield "<tr>" + "".join(f"<td><code>{shown(row.get(name))}</code>" for name in names)
    yield "</table>"
    if ROWS < len(rows):
        yield f"<p>{len(rows) - ROWS} more are in the JSON.</p>"


def _again(facts: Facts) -> Iterator[str]:
    stored = facts.stored
    yield "<h2>Check it again</h2><pre>"
    for name, path in (
        ("certificate.json", f"certificates/{stored.id}"),
        ("model.onnx", f"models/{stored.model}/content"),
    ):
        yield f"curl -o {name} $LIPCERT_URL/v1/{shown(path)}\n"
    yield "lipcert check certificate.json --model model.onnx</pre></html>\n"


def shown(value: object) -> str:
    """A value as text that can stand anywhere in the page."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if CHARACTERS < len(text):
        text = text[: CHARACTERS - 1] + "…"
    return escape("".join(c if c.isprintable() else " " for c in text))
