"""The gate: what a policy may say, and what each answer makes of a rule."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

import verifier.checker
from service.child import Outcome
from service.failures import FAILED, REFUSED, Failure, failure_of
from service.gate import Decision, decide, parse_policy
from service.gate_report import decision_json, junit_text, markdown_text, sarif_json
from service.links import place_of_file
from verifier.certificate import (
    Certificate,
    Claim,
    Idealised,
    ProductProof,
    Witness,
    log10_upper,
    verdict_of,
)
from verifier.certificate_json import certificate_json
from verifier.checker import Verdict
from verifier.errors import InvalidRequest, NotLipschitzGlobally, WorkerLost
from verifier.property import Request

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "verifier/schemas/policy.json").read_text(encoding="utf-8"))
MODEL = b"a model"
MODEL_ID = "sha256:" + hashlib.sha256(MODEL).hexdigest()

RULE = {"name": "one", "property": {"norm": "l2"}, "max_bound": 10.0}

Progress = Callable[[Mapping[str, object]], None] | None


def policy(*rules: Mapping[str, object]) -> bytes:
    return json.dumps({"version": 1, "rules": list(rules)}).encode()  # JSON is YAML


def answer(
    bound: float,
    lower: float = 0.5,
    model: str = MODEL_ID,
    idealised: tuple[Idealised, ...] = (),
) -> Callable[[bytes, Request, Progress], Outcome]:
    """A run that ends with a certificate of this bound and lower bound."""

    def certify(_: bytes, request: Request, __: Progress = None) -> Outcome:
        witness = Witness(value=lower, x=(0.0,), y=(1.0,))
        certificate = Certificate(
            claim=Claim(
                model=model,
                property=request.property,
                bound=bound,
                log10_bound=log10_upper(bound),
                idealised=idealised,
            ),
            proof=ProductProof(patterns=(), items=()),
            lower_bound=witness,
            target=request.target,
            verdict=verdict_of(bound, witness, request.target),
        )
        return Outcome(certificate=certificate_json(certificate))

    return certify


@pytest.fixture
def accepting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checker that accepts everything: these tests are about the comparison."""
    verdict = Verdict(valid=True, code="valid", reason="", proved=None, log10=None)

    def check(*_: object) -> Verdict:
        return verdict

    monkeypatch.setattr(verifier.checker, "check", check)


@pytest.mark.usefixtures("accepting")
@pytest.mark.parametrize(
    ("said", "outcome"), [({}, "fail"), ({"semantics": "real-idealised"}, "pass")]
)
def test_idealised_nodes_count_only_where_the_rule_says_so(
    said: dict[str, object], outcome: str
) -> None:
    one = Idealised(node="y", pattern="folded-mirror", absolute=0.0, relative=1e-7)
    rules = parse_policy(policy({**RULE, **said}))
    assert decide(MODEL, rules, certify=answer(9.0, idealised=(one,))).outcome == outcome


@pytest.mark.usefixtures("accepting")
@pytest.mark.parametrize(
    ("bound", "lower", "outcome", "code"),
    [
        (9.0, 0.5, "pass", 0),
        (10.0, 0.5, "pass", 0),
        (11.0, 0.5, "undecided", 2),
        (12.0, 11.0, "fail", 1),
    ],
)
def test_bound_is_compared(bound: float, lower: float, outcome: str, code: int) -> None:
    decision = decide(MODEL, parse_policy(policy(RULE)), certify=answer(bound, lower))
    assert (decision.outcome, decision.exit_code) == (outcome, code)
    assert decision.rules[0].bound == bound


@pytest.mark.usefixtures("accepting")
def test_undecided_may_warn_instead() -> None:
    rules = parse_policy(policy({**RULE, "on_undecided": "warn"}))
    decision = decide(MODEL, rules, certify=answer(11.0))
    assert (decision.outcome, decision.exit_code) == ("pass", 0)
    assert decision.rules[0].outcome == "undecided"


@pytest.mark.usefixtures("accepting")
def test_certificate_about_another_model_does_not_count() -> None:
    certify = answer(1.0, model="sha256:" + "0" * 64)
    decision = decide(MODEL, parse_policy(policy(RULE)), certify=certify)
    assert (decision.outcome, decision.exit_code) == ("fail", FAILED)


@pytest.mark.usefixtures("accepting")
def test_certificate_about_another_property_does_not_count() -> None:
    def certify(model: bytes, request: Request, show: Progress = None) -> Outcome:
        return answer(1.0)(model, replace(Request(), target=request.target), show)

    rules = parse_policy(policy({**RULE, "property": {"norm": "linf"}}))
    assert decide(MODEL, rules, certify=certify).exit_code == FAILED


def test_certificate_that_the_checker_rejects_does_not_count() -> None:
    """The proof is empty and the model is no model: whoever claims 1.0 is not believed."""
    decision = decide(MODEL, parse_policy(policy(RULE)), certify=answer(1.0))
    assert (decision.outcome, decision.exit_code) == ("fail", FAILED)
    assert decision.rules[0].outcome == "error"


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (failure_of(NotLipschitzGlobally("x^2", fix="give a region", node="n")), REFUSED),
        (failure_of(WorkerLost("gone", fix="again")), FAILED),
        (None, FAILED),
    ],
)
def test_run_without_certificate_keeps_the_gate_shut(failure: Failure | None, code: int) -> None:
    def certify(_: bytes, __: Request, ___: Progress = None) -> Outcome:
        return Outcome(failure=failure)

    decision = decide(MODEL, parse_policy(policy(RULE)), certify=certify)
    assert (decision.outcome, decision.exit_code) == ("fail", code)


@pytest.mark.usefixtures("accepting")
def test_known_failure_outweighs_an_error() -> None:
    def certify(model: bytes, request: Request, show: Progress = None) -> Outcome:
        if request.target == 1.0:
            return answer(3.0, 2.0)(model, request, show)
        return Outcome(failure=failure_of(WorkerLost("gone", fix="again")))

    rules = parse_policy(policy(RULE, {**RULE, "name": "two", "max_bound": 1.0}))
    assert decide(MODEL, rules, certify=certify).exit_code == 1


def test_interrupted_gate_gives_no_decision() -> None:
    def certify(_: bytes, __: Request, ___: Progress = None) -> Outcome:
        return Outcome(interrupted=True)

    with pytest.raises(KeyboardInterrupt):
        decide(MODEL, parse_policy(policy(RULE)), certify=certify)


def test_policy_of_the_interface_is_read() -> None:
    rules = parse_policy(b"""
        version: 1
        rules:
          - name: global-l2
            property: {scope: global, norm: l2}
            max_bound: 10.0
            budget: {seconds: 60}
            on_undecided: fail        # fail (default) | warn
        """)
    assert rules[0].request == Request(target=10.0)
    assert (rules[0].name, rules[0].max_bound, rules[0].on_undecided) == ("global-l2", 10.0, "fail")


def test_example_policy_is_read() -> None:
    assert len(parse_policy((ROOT / "examples/policy.yaml").read_bytes())) == 2


MALFORMED = {
    "empty": b"",
    "list": b"[]",
    "binary": b"\x00\x01",
    "not utf-8": b"\xff\xfe\xff",
    "unclosed": b"{version: 1",
    "deep": b"[" * 20_000,
    "alias": b"version: 1\nrules: [&a {name: x, max_bound: 1}, *a]",
    "tag": b"!!python/object/apply:os.system [echo]",
    "repeated key": b"version: 1\nversion: 1\nrules: [{name: x, max_bound: 1}]",
    "version": b"version: 2\nrules: [{name: x, max_bound: 1}]",
    "version true": b"version: true\nrules: [{name: x, max_bound: 1}]",
    "no rules": b"version: 1\nrules: []",
    "two documents": b"version: 1\n---\nversion: 1",
    "unknown member": b"version: 1\nrules: [{name: x, max_bound: 1}]\nextra: 1",
    "unknown rule member": policy({**RULE, "max": 1}),
    "no name": policy({"max_bound": 1}),
    "long name": policy({**RULE, "name": "x" * 201}),
    "control character": policy({**RULE, "name": "a\x00b"}),
    "half a character": policy({**RULE, "name": "\ud800"}),
    "no max_bound": policy({"name": "x"}),
    "negative": policy({**RULE, "max_bound": -1}),
    "nan": policy({**RULE, "max_bound": float("nan")}),
    "infinite": policy({**RULE, "max_bound": float("inf")}),
    "text for a number": policy({**RULE, "max_bound": "10"}),
    "boolean for a number": policy({**RULE, "max_bound": True}),
    "on_undecided": policy({**RULE, "on_undecided": "pass"}),
    "property": policy({**RULE, "property": {"norm": "l9"}}),
    "property kind": policy({**RULE, "property": []}),
    "budget": policy({**RULE, "budget": {"seconds": 0}}),
    "region": policy({**RULE, "property": {"region": {"type": "box", "center": [0], "radius": 0}}}),
    "same name": policy(RULE, RULE),
    "large": b"#" * (2**20 + 1),
}


def test_rule_without_a_bound_is_refused_by_its_kind() -> None:
    rule = {**RULE, "property": {"kind": "jacobian"}}
    with pytest.raises(InvalidRequest, match="no bound to compare"):
        parse_policy(policy(rule))


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_policy_is_refused(case: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_policy(MALFORMED[case])
    assert "\n" not in str(caught.value)


@given(text=st.text(alphabet="version: 1\nrules-{}[]&*!?|>'\"#name,ax_bound", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        rules = parse_policy(text.encode())
    except InvalidRequest:
        return
    assert rules


def test_schema_accepts_what_the_reader_accepts() -> None:
    value = yaml.safe_load((ROOT / "examples/policy.yaml").read_bytes())
    assert Draft202012Validator(SCHEMA).is_valid(value)


@pytest.mark.parametrize(
    "case",
    [
        "no name",
        "long name",
        "no max_bound",
        "negative",
        "unknown rule member",
        "on_undecided",
        "budget",
    ],
)
def test_schema_refuses_what_the_reader_refuses(case: str) -> None:
    assert not Draft202012Validator(SCHEMA).is_valid(yaml.safe_load(MALFORMED[case]))


@pytest.fixture
def decision(accepting: None) -> Decision:  # noqa: ARG001 - it patches the checker
    rules = parse_policy(policy(RULE, {**RULE, "name": "a|b<c>\u202e", "max_bound": 1.0}))
    return decide(MODEL, rules, certify=answer(3.0))


def test_report_as_json_has_flat_numbers(decision: Decision) -> None:
    rules = decision_json(decision)["rules"]
    assert isinstance(rules, list)
    assert rules[0]["outcome"] == "pass"
    assert (rules[0]["bound"], rules[0]["max_bound"]) == (3.0, 10.0)
    assert json.dumps(rules)


def test_report_as_markdown_keeps_its_table(decision: Decision) -> None:
    lines = markdown_text(decision).splitlines()
    assert lines[0] == "## lipcert gate: undecided"
    assert "a\\|b\\<c\\> " in lines[-1]
    assert lines[-1].replace("\\|", "").count("|") == 7


def test_report_as_junit_counts(decision: Decision) -> None:
    suite = ElementTree.fromstring(junit_text(decision))  # noqa: S314 - written a line ago
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "1", "0")
    assert suite.findall("testcase/failure")[0].get("type") == "undecided"


@pytest.mark.usefixtures("accepting")
@pytest.mark.parametrize(
    ("bound", "lower", "on_undecided", "kind", "level"),
    [
        (9.0, 0.5, "fail", "pass", "none"),
        (11.0, 10.5, "fail", "fail", "error"),
        (11.0, 0.5, "fail", "fail", "error"),
        (11.0, 0.5, "warn", "fail", "warning"),
    ],
)
def test_sarif_says_what_to_look_at(
    bound: float,
    lower: float,
    on_undecided: str,
    kind: str,
    level: str,
) -> None:
    rules = parse_policy(policy({**RULE, "on_undecided": on_undecided}))
    decision = decide(MODEL, rules, certify=answer(bound, lower))
    report = sarif_json(decision, place_of_file("a model.onnx"))
    (run,) = json.loads(json.dumps(report))["runs"]
    (result,) = run["results"]
    assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"] == "one"
    assert (result["kind"], result["level"]) == (kind, level)
    (place,) = result["locations"]
    assert place["physicalLocation"]["artifactLocation"]["uri"] == "a%20model.onnx"
    assert report["version"] == "2.1.0"
