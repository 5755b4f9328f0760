"""A deployment gate: a policy's rules, each certified, checked again here, and compared.

    version: 1
    rules:
      - name: global-l2
        property: {scope: global, norm: l2}
        max_bound: 10.0
        budget: {seconds: 60}
        on_undecided: fail        # fail (default) | warn

A rule passes only on a certificate that the independent checker accepts in this process, about
this model and this property, with bound <= max_bound. It fails on an exact witness above
max_bound, which the checker has evaluated too. Anything else is undecided, and stops the gate
unless the rule says `on_undecided: warn`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Generator, Hashable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

import yaml

from service import child
from service.child import Outcome
from service.failures import FAILED, REFUSED, Failure
from verifier.certificate import Certificate
from verifier.certificate_json import certificate_id
from verifier.certificate_reader import certificate_from_json
from verifier.certificate_shapes import MalformedCertificate
from verifier.errors import CheckRejected, InvalidRequest, RequestRefused
from verifier.property import Request
from verifier.request_json import parse_request, request_json

RuleOutcome: TypeAlias = Literal["pass", "fail", "undecided", "error"]
GateOutcome: TypeAlias = Literal["pass", "fail", "undecided"]
OnUndecided: TypeAlias = Literal["fail", "warn"]
Certify: TypeAlias = Callable[
    [bytes, Request, Callable[[Mapping[str, object]], None] | None], Outcome
]

POLICY_BYTES = 2**18
POLICY_DEPTH = 20
REQUEST_MEMBERS = frozenset({"property", "method", "options", "budget", "semantics"})
RULE_MEMBERS = frozenset({"name", "max_bound", "on_undecided", "allow_assumptions"})
ASSUMPTIONS = frozenset({"overridable-initializer"})  #: codes that there are
RULES = 200  #: the most that a policy may have
NAME_CHARACTERS = 200  #: of a rule's name
_UNFIT = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")  # no database keeps all of these
EXIT_CODES: Mapping[GateOutcome, int] = {"pass": 0, "fail": 1, "undecided": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What a rule compares a bound with, whatever the bound is of."""

    name: str
    max_bound: float
    on_undecided: OnUndecided = "fail"
    allow_assumptions: frozenset[str] = frozenset()  #: codes that a certificate may rest on


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule(Limit):
    """One line of a policy: the property's bound is to be at most `max_bound`."""

    request: Request  #: its target is `max_bound`


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleDecision:
    """What became of one rule."""

    name: str
    outcome: RuleOutcome
    max_bound: float
    reason: str
    is_blocking: bool  #: whether this outcome keeps the gate shut
    bound: float | None = None  #: proved and checked; None where there is none
    lower_bound: float | None = None  #: reached by the certificate's witness
    certificate: str | None = None  #: the certificate's id
    failure: Failure | None = None  #: why there is no certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What became of the policy."""

    model: str
    outcome: GateOutcome
    exit_code: int
    rules: tuple[RuleDecision, ...]


# --- The policy ----------------------------------------------------------------------------------


class _PolicyLoader(yaml.SafeLoader):
    """Safe YAML in which no mapping has one key twice."""

    def construct_mapping(
        self, node: yaml.MappingNode, deep: bool = False
    ) -> dict[Hashable, object]:
        members = super().construct_mapping(node, deep=deep)
        if len(members) != len(node.value):
            raise yaml.YAMLError("a mapping has one key twice")
        return members


def _refuse_costly(data: bytes) -> None:
    """Aliases grow without end when they are followed, and reading deep lists takes for ever."""
    depth = 0
    # The stub leaves the stream's type unknown.
    parse = cast("Callable[..., Iterable[object]]", yaml.parse)  # pyright: ignore[reportUnknownMemberType]
    for event in parse(data, yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        if POLICY_DEPTH < depth:
            raise yaml.YAMLError(f"it is nested more than {POLICY_DEPTH} deep")


def parse_policy(data: bytes) -> tuple[Rule, ...]:
    """The rules that a policy states, as YAML or JSON.

    Raises:
        InvalidRequest: the text is not a policy, or a member is unknown or out of range.
    """
    if POLICY_BYTES < len(data):
        raise _invalid("", f"has more than {POLICY_BYTES} bytes", "split the policy")
    try:
        _refuse_costly(data)
        value = yaml.load(data, Loader=_PolicyLoader)  # noqa: S506 - a SafeLoader, made stricter
    except (yaml.YAMLError, RecursionError, UnicodeError, ValueError, TypeError) as error:
        text = " ".join(str(error).split())
        raise _invalid("", f"cannot be read: {text}", "write plain YAML or JSON") from error
    return rules_of(value)


def rules_of(value: object) -> tuple[Rule, ...]:
    """The rules of a policy that has been read as JSON or YAML.

    Raises:
        InvalidRequest: the value is not a policy, or a member is unknown or out of range.
    """
    members = _members(value, "", frozenset({"version", "rules"}))
    version = members.get("version")
    if version != 1 or isinstance(version, bool):
        raise _invalid("/version", f"is {version!r}", "this version reads `version: 1`")
    rules = members.get("rules")
    if not isinstance(rules, list) or not rules or RULES < len(cast("list[object]", rules)):
        raise _invalid("/rules", "is not a list of rules", f"give 1 to {RULES} rules")
    parsed = tuple(_rule(rule, f"/rules/{i}") for i, rule in enumerate(cast("list[object]", rules)))
    if len({rule.name for rule in parsed}) != len(parsed):
        raise _invalid("/rules", "has two rules of one name", "give each rule its own name")
    return parsed


def policy_json(rules: Sequence[Rule]) -> dict[str, object]:
    """The policy that `rules_of` reads as these rules: its canonical form, every member present.

    But for `allow_assumptions` where it allows none: policies that never had it keep their digests.
    """
    return {
        "version": 1,
        "rules": [
            {
                "name": rule.name,
                **{
                    name: member
                    for name, member in sorted(request_json(rule.request).items())
                    if name in REQUEST_MEMBERS
                },
                "max_bound": rule.max_bound,
                "on_undecided": rule.on_undecided,
                **_allowances(rule),
            }
            for rule in rules
        ],
    }


def _allowances(rule: Rule) -> dict[str, list[str]]:
    codes = sorted(rule.allow_assumptions)
    return {"allow_assumptions": codes} if codes else {}


def _rule(value: object, at: str) -> Rule:
    members = _members(value, at, REQUEST_MEMBERS | RULE_MEMBERS)
    name = members.get("name")
    if not isinstance(name, str) or not name.strip():
        raise _invalid(f"{at}/name", f"is {name!r}", "give each rule a name")
    if NAME_CHARACTERS < len(name) or _UNFIT.search(name):
        fix = f"use at most {NAME_CHARACTERS} characters, none of them a control character"
        raise _invalid(f"{at}/name", "is not a name", fix)
    max_bound = members.get("max_bound")
    if isinstance(max_bound, bool) or not isinstance(max_bound, int | float) or not 0 <= max_bound:
        raise _invalid(f"{at}/max_bound", f"is {max_bound!r}", "give a number of 0 or more")
    on_undecided = members.get("on_undecided", "fail")
    if on_undecided not in ("fail", "warn"):
        raise _invalid(f"{at}/on_undecided", f"is {on_undecided!r}", "use fail or warn")
    asked = {key: members[key] for key in members if key in REQUEST_MEMBERS}
    _refuse_other_kinds(asked.get("property"), f"{at}/property/kind")
    try:
        request = parse_request({**asked, "target": {"upper": max_bound}})
    except RequestRefused as error:
        raise _invalid(at, error.detail, error.fix) from error
    return Rule(
        name=name,
        request=request,
        max_bound=float(max_bound),
        on_undecided=on_undecided,
        allow_assumptions=_allowed(members.get("allow_assumptions", []), f"{at}/allow_assumptions"),
    )


def _allowed(value: object, at: str) -> frozenset[str]:
    codes = cast("list[object]", value) if isinstance(value, list) else [value]
    if not ASSUMPTIONS.issuperset(codes):
        raise _invalid(at, f"is {value!r}", f"give a list of {', '.join(sorted(ASSUMPTIONS))}")
    return ASSUMPTIONS & {str(code) for code in codes}


def _refuse_other_kinds(asked: object, at: str) -> None:
    """A rule compares a bound, and only Lipschitz properties have one."""
    if isinstance(asked, Mapping):
        kind = cast("Mapping[object, object]", asked).get("kind", "lipschitz")
        if kind != "lipschitz":
            raise _invalid(at, f"is {kind!r}, which has no bound to compare", 'use "lipschitz"')


def _members(value: object, at: str, known: frozenset[str]) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise _invalid(at, "is not a mapping", "see the policy format in the README")
    members = cast("Mapping[object, object]", value)
    for name in members:
        if name not in known:
            raise _invalid(at, f"has the unknown member {name!r}", f"expected: {sorted(known)}")
    return cast("Mapping[str, object]", members)


def _invalid(at: str, detail: str, fix: str) -> InvalidRequest:
    return InvalidRequest(f"the policy{at and ', '}{at}: {detail}", fix=fix, pointer=at)


# --- The decision --------------------------------------------------------------------------------


def decide(
    model: bytes,
    rules: Sequence[Rule],
    on_progress: Callable[[Mapping[str, object]], None] | None = None,
    certify: Certify = child.certify,
) -> Decision:
    """Certifies, checks and compares every rule; the first that is interrupted ends the gate."""
    decisions: list[RuleDecision] = []
    for rule in rules:
        outcome = certify(model, rule.request, on_progress)
        if outcome.interrupted:
            raise KeyboardInterrupt
        decisions.append(_decide_rule(rule, model, outcome))
    return decision_of(_model_id(model), decisions)


def decision_of(model: str, decisions: Sequence[RuleDecision]) -> Decision:
    """What the decisions of all rules make of the policy, for the model of this id."""
    outcome = _outcome(decisions)
    return Decision(
        model=model,
        outcome=outcome,
        exit_code=_exit_code(outcome, decisions),
        rules=tuple(decisions),
    )


@contextmanager
def prover(server: str | None) -> Generator[Certify]:
    """What proves the bounds: a child of this process, or the service at this address."""
    if server is None:
        yield child.certify
        return
    # Here, not above: a gate without a service needs no client.
    from service.client import Client
    from service.remote import certify_at

    with Client(server) as client:
        yield lambda model, request, show: certify_at(client, model, request, show or _quiet)


def _quiet(_: Mapping[str, object]) -> None:
    """Progress that nobody looks at."""


def _decide_rule(rule: Rule, model: bytes, outcome: Outcome) -> RuleDecision:
    if outcome.certificate is None:
        return unanswered(rule, outcome.failure or uncounted("no certificate"))
    try:
        certificate = certificate_from_json(outcome.certificate)
    except MalformedCertificate as error:
        return unanswered(rule, uncounted(str(error)))
    if fault := _fault(rule, model, certificate):
        return unanswered(rule, uncounted(fault))
    lower = None if certificate.lower_bound is None else certificate.lower_bound.value
    return compared(rule, certificate_id(certificate), certificate.claim.bound, lower)


def compared(
    limit: Limit, certificate: str, bound: float | None, lower: float | None
) -> RuleDecision:
    """What becomes of a rule by a certificate that the checker has accepted.

    Args:
        limit: the rule.
        certificate: the id of the certificate, which is about the rule's model and property.
        bound: what it proves; None where that exceeds float64.
        lower: what its witness reaches; None where it has none.
    """
    answer: RuleOutcome
    if bound is not None and bound <= limit.max_bound:
        answer, reason = "pass", "the bound is proved and checked"
    elif lower is not None and limit.max_bound < lower:
        answer, reason = "fail", "a witness exceeds the limit"
    else:
        answer, reason = "undecided", "neither a proof nor a witness within the budget"
    return RuleDecision(
        name=limit.name,
        outcome=answer,
        max_bound=limit.max_bound,
        reason=reason,
        is_blocking=answer == "fail" or (answer == "undecided" and limit.on_undecided == "fail"),
        bound=bound,
        lower_bound=lower,
        certificate=certificate,
    )


def _fault(rule: Rule, model: bytes, certificate: Certificate) -> str | None:
    """Why a certificate does not count for a rule; None when it does."""
    from verifier.checker import check

    verdict = check(certificate, model)
    if not verdict.valid:
        return f"the checker rejected the certificate: {verdict.reason}"
    if certificate.claim.model != _model_id(model):
        return "the certificate is about another model"
    if certificate.claim.property != rule.request.property:
        return "the certificate is about another property"
    if certificate.claim.idealised and rule.request.semantics == "real":
        (first, *_) = certificate.claim.idealised
        return f"the certificate is of real-idealised semantics: {first.node!r} jumps in the file"
    return unallowed(rule, [(one.code, one.node) for one in certificate.claim.assumptions])


def unallowed(limit: Limit, assumed: Iterable[tuple[str, str]]) -> str | None:
    """Why a certificate that rests on these (code, node) does not count; None when it does."""
    for code, node in assumed:
        if code not in limit.allow_assumptions:
            return f"the certificate rests on an assumption: {code} ({node!r})"
    return None


def uncounted(detail: str) -> Failure:
    """Why a certificate does not count."""
    error = CheckRejected(detail, fix="report it, with the model and the policy")
    return Failure(error.to_json(), FAILED)


def unanswered(limit: Limit, failure: Failure) -> RuleDecision:
    """What becomes of a rule without a certificate that counts."""
    return RuleDecision(
        name=limit.name,
        outcome="error",
        max_bound=limit.max_bound,
        reason=f"{failure.error['title']} {failure.error['detail']}",
        is_blocking=True,
        failure=failure,
    )


def _outcome(decisions: Sequence[RuleDecision]) -> GateOutcome:
    blocking = {decision.outcome for decision in decisions if decision.is_blocking}
    if blocking & {"fail", "error"}:
        return "fail"
    return "undecided" if blocking else "pass"


def _exit_code(outcome: GateOutcome, decisions: Sequence[RuleDecision]) -> int:
    """1 when a rule is known to fail; else what kept a rule from an answer: 3 refused, 4 failed."""
    failures = [decision.failure for decision in decisions if decision.failure is not None]
    if not failures or any(decision.outcome == "fail" for decision in decisions):
        return EXIT_CODES[outcome]
    return REFUSED if any(f.exit_code == REFUSED for f in failures) else FAILED


def _model_id(model: bytes) -> str:
    return "sha256:" + hashlib.sha256(model).hexdigest()
