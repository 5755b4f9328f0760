"""Gates and a service: what `lipcert gate --server` does instead of running a child.

By a policy of this machine the service proves bounds, and the gate itself stays here. By a policy
of the service's (`--remote-policy`) the service decides, and this machine decides once more. Either
way each certificate is checked by this machine's checker, against this machine's copy of the model,
so the service is not trusted with what a bound is; with a remote policy it is trusted with the
policy, unless that is named by its digest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import httpx

from service.child import Outcome
from service.client import Client, JobHasNoCertificate, ServiceRefusal
from service.failures import FAILED, REFUSED, failure, failure_of_job
from service.gate import Decision, Rule, decide, rules_of
from verifier.canonical_json import canonical_json, content_id
from verifier.errors import CheckRejected, JobFailed, RequestRefused
from verifier.request_json import request_json

if TYPE_CHECKING:
    from verifier.property import Request

Show: TypeAlias = Callable[[Mapping[str, object]], None]


def certify_at(client: Client, model: bytes, request: Request, show: Show) -> Outcome:
    """The best certificate that the service proves within the request's budget."""
    began = time.monotonic()

    def on_progress(job: Mapping[str, Any]) -> None:
        progress = job["progress"]
        phase = progress["phase"] or job["state"]
        show({**progress, "phase": phase, "seconds": time.monotonic() - began})

    try:
        return Outcome(certificate=client.certify(model, request_json(request), on_progress))
    except JobHasNoCertificate as ended:
        return Outcome(failure=failure_of_job(ended.job["state"], ended.job["error"]))
    except ServiceRefusal as refused:
        exit_code = REFUSED if refused.status < 500 else FAILED
        return Outcome(failure=failure(refused.problem, exit_code))
    except httpx.TransportError as error:
        text = f"the service cannot be reached: {error}"
        fix = "see whether it runs, and at which address"
        said = {"code": "unreachable", "title": "No answer.", "detail": text, "fix": fix}
        return Outcome(failure=failure(said, FAILED))
    except KeyboardInterrupt:
        return Outcome(interrupted=True)


@contextmanager
def calling(server: str | None) -> Generator[Client]:
    """A client of the service at this address, whose refusals are said as the command line's.

    Raises:
        RequestRefused: the service refuses.
        JobFailed: it cannot be reached, or has failed.
    """
    with Client(server) as client, said_here():
        yield client


@contextmanager
def said_here() -> Generator[None]:
    """Has what a service refuses raised as what the command line says.

    Raises:
        RequestRefused: the service refuses.
        JobFailed: it cannot be reached, or has failed.
    """
    try:
        yield
    except ServiceRefusal as refused:
        error = RequestRefused if refused.status < 500 else JobFailed
        raise error(f"{refused.code}: {refused.detail}", fix=refused.fix) from refused
    except httpx.TransportError as lost:
        fix = "see whether it runs, and at which address"
        raise JobFailed(f"the service cannot be reached: {lost}", fix=fix) from lost


@dataclass(frozen=True, slots=True)
class RemoteDecision:
    """A decision that the service and this machine have both come to."""

    decision: Decision
    policy: bytes  #: the canonical text of the policy


def decide_by(client: Client, model: bytes, reference: str, show: Show) -> RemoteDecision:
    """What the service decides by one of its policies, decided again here by its certificates.

    Args:
        client: the service.
        model: the model's bytes.
        reference: the policy: a name, name@version, or a digest.
        show: takes progress.

    Raises:
        RequestRefused: the service refuses, as for a policy that it does not have.
        JobFailed: the service cannot be reached, or what it says does not hold together.
    """
    began = time.monotonic()
    asked: list[str] = []

    def on_progress(gate: Mapping[str, Any]) -> None:
        asked[:] = [gate["id"]]
        seconds = time.monotonic() - began
        phase = f"gate: {gate['outcome']}"
        show({"phase": phase, "upper": None, "lower": None, "seconds": seconds})

    with said_here():
        policy = client.policy(reference)
        rules = _rules_of(policy, reference)
        try:
            gate = client.gate(model, f"{policy['name']}@{policy['version']}", on_progress)
        except KeyboardInterrupt:
            for gate_id in asked:  # nobody waits for it any more
                with suppress(ServiceRefusal, httpx.TransportError):
                    client.cancel_gate(gate_id)
            raise
        decision = _decided_again(client, model, rules, gate)
    return RemoteDecision(decision, canonical_json(policy["policy"]))


def _rules_of(policy: Mapping[str, Any], reference: str) -> tuple[Rule, ...]:
    """The rules of the service's policy, which has the digest that it is said to have."""
    digest = content_id(policy["policy"])
    if digest != policy["digest"] or (":" in reference and digest != reference):
        raise _broken(f"the policy's digest is {digest}, not the one that was asked for")
    return rules_of(policy["policy"])


def _decided_again(
    client: Client, model: bytes, rules: Sequence[Rule], gate: Mapping[str, Any]
) -> Decision:
    """The decision that the gate's certificates make here; it is the service's."""
    if [rule.name for rule in rules] != [rule["name"] for rule in gate["rules"]]:
        raise _broken("the gate's rules are not the policy's")
    if gate["outcome"] == "canceled":
        raise JobFailed("the gate was canceled", fix="put the model to the policy again")
    answers = iter(gate["rules"])

    def certify(_model: bytes, _request: Request, _show: Show | None) -> Outcome:
        answer = next(answers)
        if answer["certificate"] is None:
            return Outcome(failure=failure_of_job("failed", answer["error"]))
        return Outcome(certificate=client.certificate(answer["certificate"]))

    decision = decide(model, rules, None, certify)
    if decision.outcome != gate["outcome"]:
        said = f"the service's decision is {gate['outcome']}, that of its certificates here is"
        raise _broken(f"{said} {decision.outcome}")
    return decision


def _broken(detail: str) -> CheckRejected:
    return CheckRejected(detail, fix="report it, with the gate's id; the gate stays shut")
