"""Gates as they are stored and seen: flat numbers for every rule, for tools that read no more."""

from collections.abc import Mapping, Sequence
from typing import Any

from service.context import time_text
from service.failures import Failure
from service.gate import Decision, RuleDecision
from service.store.gates import Gate, Rule


def result_json(rule: Rule, decided: RuleDecision) -> dict[str, object]:
    """What a gate's row keeps of a rule's decision."""
    started, ended = rule.job.started, rule.job.ended
    failure = decided.failure
    return {
        **_rule_json(rule),
        "outcome": decided.outcome,
        "bound": decided.bound,
        "lower_bound": decided.lower_bound,
        "margin": None if decided.bound is None else decided.max_bound - decided.bound,
        "seconds": None if started is None or ended is None else (ended - started) / 1000,
        "blocking": decided.is_blocking,
        "reason": decided.reason,
        "certificate": decided.certificate,
        "error": None if failure is None else dict(failure.error),
    }


def canceled_json(rule: Rule) -> dict[str, object]:
    """What a gate's row keeps of a rule that was not decided."""
    said = {"outcome": "canceled", "blocking": True, "reason": "the gate was canceled"}
    return {**_rule_json(rule), **said}


def summary_json(gate: Gate) -> dict[str, object]:
    """A gate in a list."""
    return {
        "id": gate.id,
        "outcome": gate.outcome,
        "exit_code": gate.exit_code,
        "model": gate.model,
        "policy": {
            "name": gate.policy,
            "version": gate.policy_version,
            "digest": gate.policy_digest,
        },
        "created": time_text(gate.created),
        "decided": time_text(gate.decided),
        "version": gate.version,
    }


def gate_json(gate: Gate, rules: Sequence[Rule]) -> dict[str, object]:
    """A gate on the wire; `rules`: of one that is pending, else they are in its row."""
    results = [_rule_json(rule) for rule in rules] if gate.results is None else gate.results
    return {**summary_json(gate), "rules": list(results)}


def decision_of_gate(gate: Gate, results: Sequence[Mapping[str, Any]]) -> Decision:
    """The decision that a gate's row keeps, for reports."""
    assert gate.outcome not in ("pending", "canceled"), "it has a decision"  # noqa: S101
    assert gate.exit_code is not None, "it has results"  # noqa: S101
    return Decision(
        model=gate.model,
        outcome=gate.outcome,
        exit_code=gate.exit_code,
        rules=tuple(_decided(result, gate.exit_code) for result in results),
    )


def _rule_json(rule: Rule) -> dict[str, object]:
    """A rule before its decision."""
    return {
        "name": rule.limit.name,
        "outcome": "pending",
        "max_bound": rule.limit.max_bound,
        "bound": None,
        "lower_bound": None,
        "margin": None,
        "seconds": None,
        "on_undecided": rule.limit.on_undecided,
        "blocking": None,
        "reason": "",
        "job": rule.job.id,
        "certificate": None,
        "error": None,
    }


def _decided(result: Mapping[str, Any], exit_code: int) -> RuleDecision:
    error = result["error"]
    return RuleDecision(
        name=result["name"],
        outcome=result["outcome"],
        max_bound=result["max_bound"],
        reason=result["reason"],
        is_blocking=result["blocking"],
        bound=result["bound"],
        lower_bound=result["lower_bound"],
        certificate=result["certificate"],
        failure=None if error is None else Failure(error, exit_code),
    )
