"""A certificate as JUnit XML and SARIF: one test case, or one result, that its target decides."""

from collections.abc import Mapping
from typing import Literal, TypeAlias
from xml.etree import ElementTree

from service.certificate_facts import Facts
from service.gate_report import sarif_log, xml_text
from service.links import place_of_model

Kind: TypeAlias = Literal["pass", "fail", "open", "informational"]

RULE = "lipcert/certificate"

#: SARIF's word for each verdict; without a target there is nothing to pass.
KINDS: Mapping[object, Kind] = {
    "certified": "pass",
    "violated": "fail",
    "undecided": "open",
    None: "informational",
}


def junit_of(facts: Facts) -> str:
    """One test case: it fails where the target was not shown to hold."""
    verdict = facts.members.get("verdict")
    has_failed = verdict in ("violated", "undecided")
    counts = {"tests": "1", "failures": str(int(has_failed)), "errors": "0"}
    suite = ElementTree.Element("testsuite", {"name": "lipcert certificate", **counts})
    name = {"name": xml_text(facts.subject), "classname": "lipcert.certificate"}
    case = ElementTree.SubElement(suite, "testcase", name)
    properties = ElementTree.SubElement(case, "properties")
    for key, value in _numbers(facts).items():
        entry = {"name": key, "value": xml_text(str(value))}
        ElementTree.SubElement(properties, "property", entry)
    if has_failed:
        message = {"type": str(verdict), "message": xml_text(_message(facts))}
        ElementTree.SubElement(case, "failure", message)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def sarif_of(facts: Facts, public_url: str | None = None) -> dict[str, object]:
    """One result: what is proved, and whether the target holds."""
    kind = KINDS[facts.members.get("verdict")]
    rule = {"id": RULE, "shortDescription": {"text": facts.subject}}
    uri = place_of_model(facts.stored.model, public_url)
    result = {
        "ruleId": RULE,
        "ruleIndex": 0,
        "kind": kind,
        "level": "error" if kind == "fail" else "none",
        "message": {"text": _message(facts)},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": uri}}}],
        "properties": _numbers(facts),
    }
    return sarif_log([rule], [result])


def _message(facts: Facts) -> str:
    verdict, target = facts.members.get("verdict"), facts.target
    asked = "" if target is None else f"; {verdict}: at most {target!r} was asked"
    return f"{facts.subject}: {facts.assertion}{asked}"


def _numbers(facts: Facts) -> dict[str, object]:
    """What tools read; members that do not apply are left out."""
    lower = facts.members["lower_bound"]
    numbers = {
        "certificate": facts.stored.id,
        "model": facts.stored.model,
        "bound": facts.claim["bound"],
        "log10_bound": facts.claim["log10_bound"],
        "lower_bound": None if lower is None else lower["value"],
        "target": facts.target,
        "soundness": facts.members["soundness"],
        "proof": facts.members["proof"]["kind"],
    }
    return {name: value for name, value in numbers.items() if value is not None}
