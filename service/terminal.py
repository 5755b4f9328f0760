"""What the command line says to people: progress, certificates, summaries, refusals.

Text from model files passes through `plain`: node names come from strangers, and a terminal obeys
control characters.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from verifier.checker import Interval, Verdict

LIST_ROWS = 20  #: rows of a list that are shown; the JSON has all


def plain(text: object) -> str:
    """One line without control characters."""
    return "".join(c if c.isprintable() else " " for c in str(text))


def say(text: str) -> None:
    """One line for people who wait: standard error."""
    typer.echo(f"lipcert: {plain(text)}", err=True)


def json_text(value: object) -> str:
    """Indented JSON, with a final newline."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def print_json(value: object) -> None:
    """A JSON value on standard output."""
    typer.echo(json_text(value), nl=False)


def print_refusal(error: Mapping[str, str | None], *, as_json: bool) -> None:
    """The refusal object on standard output, or one readable line on standard error."""
    if as_json:
        print_json({"error": dict(error)})
        return
    node = f" (node {error['node']!r})" if error.get("node") else ""
    detail = (error["detail"] or "").rstrip(".")
    say(f"{error['code']}: {detail}{node}. Fix: {error['fix']}")


@contextmanager
def progress_lines() -> Generator[Callable[[Mapping[str, object]], None]]:
    """Shows progress on standard error: one moving line on a terminal, plain lines elsewhere."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.markup import escape

        with Console(stderr=True).status("starting") as status:
            yield lambda progress: status.update(escape(_progress_text(progress)))
        return
    yield _Lines().show


class _Lines:
    """Plain lines: each new phase and each new bound, and otherwise one in five seconds."""

    def __init__(self) -> None:
        self.last: tuple[object, ...] = ()
        self.shown_s = 0.0

    def show(self, progress: Mapping[str, object]) -> None:
        news = (progress["phase"], progress["upper"], progress["lower"])
        now_s = time.monotonic()
        if news != self.last or self.shown_s + 5 < now_s:
            self.last, self.shown_s = news, now_s
            say(_progress_text(progress))


def _progress_text(progress: Mapping[str, object]) -> str:
    upper, lower = number(progress["upper"]), number(progress["lower"])
    seconds = cast("float", progress["seconds"])
    step = progress.get("iteration")
    phase = progress["phase"] if step is None else f"{progress['phase']}, step {step}"
    waiting = progress.get("open")
    phase = phase if waiting is None else f"{phase}, {waiting} open"
    return plain(f"{phase}: bound {upper}, lower bound {lower}, {seconds:.1f} s")


def _norm_text(norm: object) -> str:
    """A plain norm's name, or that it is weighted."""
    if isinstance(norm, str):
        return norm
    members = cast("Mapping[str, object]", norm)
    return f"{members['type']} weighted by {'a matrix' if 'matrix' in members else 'numbers'}"


def print_certificate(certificate: Mapping[str, object]) -> None:
    """What a certificate says, in a few lines on standard output."""
    claim = cast("Mapping[str, object]", certificate["claim"])
    proof = cast("Mapping[str, object]", certificate["proof"])
    rows = [
        *_answer_rows(certificate, claim),
        ("property", f"{claim['scope']} {_property_text(claim)}"),
        ("proof", f"{proof['kind']}, {certificate['soundness']}"),
        ("verdict", _verdict_text(certificate)),
        ("quantiles", _quantile_text(certificate)),
        ("model", claim["model"]),
        ("certificate", certificate["id"]),
    ]
    _print_rows([(name, value) for name, value in rows if value is not None])
    lines = _bound_lines(claim)
    for line in lines[:LIST_ROWS]:
        typer.echo(f"  {line}")
    if LIST_ROWS < len(lines):
        typer.echo(f"  and {len(lines) - LIST_ROWS} more, in the JSON")


def _quantile_text(certificate: Mapping[str, object]) -> str | None:
    """How the bounds of many centers are spread."""
    report = cast("Mapping[str, Mapping[str, object]]", certificate.get("report") or {})
    quantiles = report.get("quantiles")
    if quantiles is None:
        return None
    return ", ".join(f"{name} {number(value)}" for name, value in quantiles.items())


def _answer_rows(
    certificate: Mapping[str, object], claim: Mapping[str, object]
) -> list[tuple[str, object]]:
    """The numbers that answer the question."""
    lower = cast("Mapping[str, object] | None", certificate["lower_bound"])
    reached = None if lower is None else lower["value"]
    match claim["kind"]:
        case "lipschitz":
            log10 = f" (10^{number(claim['log10_bound'])})" if claim["bound"] is None else ""
            bound = f"{number(claim['bound'])}{log10}"
            return [("bound", bound), ("lower bound", number(reached))]
        case _:
            return [("refuted by", None if reached is None else f"a pair of slope {reached}")]


def _property_text(claim: Mapping[str, object]) -> str:
    """The kind, with what belongs to it."""
    match claim["kind"]:
        case "lipschitz":
            norm = cast("Mapping[str, object]", claim["norm"])
            return f"lipschitz, {_norm_text(norm['input'])} to {norm['output']}"
        case "monotone":
            sign = cast("Mapping[str, object]", claim["monotone"])
            return f"monotone, output {sign['output']} {sign['direction']} in input {sign['input']}"
        case kind:
            return str(kind)


def _bound_lines(claim: Mapping[str, object]) -> list[str]:
    """The bounds of a list, or the intervals of a matrix."""
    bounds = claim["bounds"]
    if isinstance(bounds, Mapping):
        matrix = cast("Mapping[str, Sequence[object]]", bounds)
        columns = cast("int", matrix["shape"][1])
        ends = zip(matrix["lower"], matrix["upper"], strict=True)
        return [
            f"entry [{place // columns}, {place % columns}]: {number(low)} to {number(high)}"
            for place, (low, high) in enumerate(ends)
        ]
    items = cast("Sequence[Mapping[str, object]] | None", bounds)
    return [f"{_item_text(item)}: {number(item['bound'])}" for item in items or ()]


def _item_text(item: Mapping[str, object]) -> str:
    names = ("center", "output", "margin")
    return ", ".join(f"{name} {item[name]}" for name in names if name in item)


def print_radii(answer: Mapping[str, object]) -> None:
    """The proved radius of every point, and how they are spread."""
    rings = cast("Sequence[Mapping[str, object]]", answer["radii"])
    _print_rows([("norm", answer["norm"]), ("model", answer["model"])])
    for ring in rings[:LIST_ROWS]:
        typer.echo(f"  center {ring['center']}, label {ring['label']}: radius {ring['radius']}")
    if LIST_ROWS < len(rings):
        typer.echo(f"  and {len(rings) - LIST_ROWS} more, in the JSON")
    if 1 < len(rings):
        quantiles = cast("Mapping[str, object]", answer["quantiles"])
        said = ", ".join(f"{name} {number(value)}" for name, value in quantiles.items())
        _print_rows([("quantiles", said)])


def all_proved(answer: Mapping[str, object]) -> bool:
    """Whether every point has a ball."""
    rings = cast("Sequence[Mapping[str, object]]", answer["radii"])
    return all(ring["certificate"] is not None for ring in rings)


def print_layers(certificate: Mapping[str, object]) -> None:
    """What the certificate's report says of the layers, as a table."""
    members = cast("Mapping[str, Sequence[Mapping[str, object]]]", certificate.get("report") or {})
    layers = members.get("layers", ())
    if not layers:
        typer.echo("no layers are reported: the product bound did not run")
        return
    rows = [("layer", "norm", "from the input", "to the output")]
    rows += [
        (
            plain(layer["node"]) or "(output)",
            *(number(layer[name]) for name in ("norm", "prefix", "suffix")),
        )
        for layer in layers
    ]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for row in rows:
        cells = zip(row, widths, strict=True)
        typer.echo("  ".join(cell.ljust(width) for cell, width in cells).rstrip())


def _verdict_text(certificate: Mapping[str, object]) -> str | None:
    target = cast("Mapping[str, object] | None", certificate["target"])
    if target is None:
        verdict = certificate["verdict"]
        return None if verdict is None else str(verdict)
    return f"{certificate['verdict']}, against the target {number(target['upper'])}"


def print_verdict(verdict: Verdict, signature: Mapping[str, object] | None) -> None:
    """The checker's word and who signed, in a few lines on standard output."""
    proved = None if verdict.proved is None else ", ".join(map(number, verdict.proved[:LIST_ROWS]))
    rows = [
        ("certificate", "valid" if verdict.valid else "rejected"),
        ("code", verdict.code),
        ("reason", verdict.reason),
        ("node", verdict.node),
        ("proved", proved),
        ("entries", None if verdict.entries is None else _span_text(verdict.entries)),
        ("signature", None if signature is None else _signature_text(signature)),
    ]
    _print_rows([(name, value) for name, value in rows if value])


def _signature_text(signature: Mapping[str, object]) -> str:
    keyid = f"key {signature['keyid']}"
    state = signature["state"]
    return f"{keyid}, not verified: no trusted keys given" if state is None else f"{keyid}, {state}"


def _span_text(entries: Interval) -> str:
    rows, columns = entries.lower.shape
    least, greatest = float(entries.lower.min()), float(entries.upper.max())
    return f"{rows} x {columns}, proved to lie within {least!r} and {greatest!r}"


def verdict_json(verdict: Verdict) -> dict[str, object]:
    """The checker's word as JSON: what it proved stands there also when it was claimed smaller."""
    proved = None
    if verdict.proved is not None:
        proved = [bound if math.isfinite(bound) else None for bound in verdict.proved]
    return {
        "valid": verdict.valid,
        "code": verdict.code,
        "reason": verdict.reason,
        "node": verdict.node,
        "proved": proved,
        "log10": verdict.log10,
        "entries": None if verdict.entries is None else _ends(verdict.entries),
    }


def _ends(entries: Interval) -> dict[str, object]:
    """The proved intervals of a matrix, row by row."""
    return {"lower": entries.lower.tolist(), "upper": entries.upper.tolist()}


def print_summary(summary: Mapping[str, object]) -> None:
    """What the importer understood: one line a member, lists indented below."""
    for name, value in summary.items():
        lines = _lines_below(value)
        if lines is None:
            typer.echo(f"{plain(name)}: {_inline(value)}")
        else:
            typer.echo("\n  ".join([f"{plain(name)}:", *lines]))


def _lines_below(value: object) -> list[str] | None:
    """A mapping's members, or the mappings of a list; None: the value fits on one line."""
    if isinstance(value, Mapping):
        members = cast("Mapping[str, object]", value).items()
        return [f"{plain(name)}: {_inline(item)}" for name, item in members]
    if isinstance(value, list):
        items = cast("list[object]", value)
        if items and isinstance(items[0], Mapping):
            return [_inline(item) for item in items]
    return None


def number(value: object) -> str:
    """A bound with all its digits: fewer could be a smaller number, which was not proved."""
    return "none" if value is None else plain(value)


def _inline(value: object) -> str:
    if isinstance(value, Mapping):
        members = cast("Mapping[str, object]", value).items()
        said = [f"{plain(name)} {_inline(item)}" for name, item in members if item is not None]
        return ", ".join(said)
    if isinstance(value, list):
        items = cast("list[object]", value)
        return ", ".join(_inline(item) for item in items) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value)


def _print_rows(rows: Sequence[tuple[str, object]]) -> None:
    width = max(len(name) for name, _ in rows) + 1
    for name, value in rows:
        typer.echo(f"{name:{width}} {plain(value)}")
