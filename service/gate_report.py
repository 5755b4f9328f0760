"""A gate's decision as JSON, Markdown, JUnit XML and SARIF."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from verifier.version import VERSION

if TYPE_CHECKING:
    from service.gate import Decision, RuleDecision


def decision_json(decision: Decision) -> dict[str, object]:
    """The decision as JSON: flat numbers for every rule."""
    return {
        "model": decision.model,
        "outcome": decision.outcome,
        "rules": [
            {
                "name": rule.name,
                "outcome": rule.outcome,
                "max_bound": rule.max_bound,
                "bound": rule.bound,
                "lower_bound": rule.lower_bound,
                "certificate": rule.certificate,
                "reason": rule.reason,
                "error": None if rule.failure is None else dict(rule.failure.error),
            }
            for rule in decision.rules
        ],
    }


def markdown_text(decision: Decision) -> str:
    """The decision as a Markdown table, for the summary of a CI run."""
    lines = [
        f"## lipcert gate: {decision.outcome}",
        "",
        f"Model `{decision.model}`",
        "",
        "| rule | outcome | bound | at most | lower bound | reason |",
        "|---|---|---|---|---|---|",
    ]
    for rule in decision.rules:
        cells = (rule.name, rule.outcome, rule.bound, rule.max_bound, rule.lower_bound, rule.reason)
        lines.append("| " + " | ".join(map(_cell, cells)) + " |")
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    text = "-" if value is None else str(value)
    # Names come from models and policies: neither cells nor markup may end early.
    return "".join(f"\\{c}" if c in "\\|`*_<>[]" else c if c.isprintable() else " " for c in text)


def junit_text(decision: Decision) -> str:
    """The decision as JUnit XML: a test case for each rule."""
    blocked = [rule for rule in decision.rules if rule.is_blocking]
    errors = sum(rule.outcome == "error" for rule in blocked)
    counts = {
        "tests": str(len(decision.rules)),
        "failures": str(len(blocked) - errors),
        "errors": str(errors),
    }
    suite = ElementTree.Element("testsuite", {"name": "lipcert gate", **counts})
    for rule in decision.rules:
        case = ElementTree.SubElement(
            suite, "testcase", {"name": xml_text(rule.name), "classname": "lipcert.gate"}
        )
        if rule.is_blocking:
            tag = "error" if rule.outcome == "error" else "failure"
            message = xml_text(f"{rule.outcome}: {rule.reason}")
            ElementTree.SubElement(case, tag, {"type": rule.outcome, "message": message})
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def sarif_json(decision: Decision, uri: str) -> dict[str, object]:
    """The decision as SARIF 2.1.0: a rule for each of the policy's, a result for each decision.

    Args:
        decision: what became of the policy.
        uri: of the model's file, as the place that results are about.
    """
    rules = [
        {
            "id": rule.name,
            "shortDescription": {"text": f"the Lipschitz constant is at most {rule.max_bound}"},
        }
        for rule in decision.rules
    ]
    place = {"physicalLocation": {"artifactLocation": {"uri": uri}}}
    results = [
        {
            "ruleId": rule.name,
            "ruleIndex": number,
            # `level` is for failures; GitHub shows errors and warnings.
            "kind": "pass" if rule.outcome == "pass" else "fail",
            "level": _level(rule),
            "message": {"text": _message(rule)},
            "locations": [place],
        }
        for number, rule in enumerate(decision.rules)
    ]
    return sarif_log(rules, results)


def sarif_log(
    rules: Sequence[Mapping[str, object]], results: Sequence[Mapping[str, object]]
) -> dict[str, object]:
    """A SARIF 2.1.0 log of one run of lipcert."""
    driver = {"name": "lipcert", "version": VERSION, "rules": list(rules)}
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": list(results)}],
    }


def _level(rule: RuleDecision) -> str:
    if rule.outcome == "pass":
        return "none"
    return "error" if rule.is_blocking else "warning"


def _message(rule: RuleDecision) -> str:
    node = None if rule.failure is None else rule.failure.error.get("node")
    where = "" if node is None else f" (node {node})"
    proved = "none" if rule.bound is None else repr(rule.bound)
    return f"{rule.outcome}: {rule.reason}{where}; bound {proved}, at most {rule.max_bound!r}"


def xml_text(text: str) -> str:
    """XML has no way to write most control characters."""
    return "".join(c if c.isprintable() else " " for c in text)
