"""A gate asked for: its policy found, and a job for every rule through the one way that jobs take.

So quotas, the queue's limit and the stored answers of earlier jobs hold for gates as they do for
everyone. All of it is one transaction: a gate has all its jobs, or is not there.
"""

import hashlib
import re
from dataclasses import dataclass

from pydantic import ValidationError
from sqlalchemy import Connection

from service.acceptance import accept
from service.gate import Rule, rules_of
from service.problems import Problem, problem_of
from service.schemas.gates import GateSubmissionBody
from service.settings import Settings
from service.store import gates, policies
from service.store.gates import Gate
from service.store.policies import StoredPolicy
from service.submission import Submission
from verifier.canonical_json import canonical_json
from verifier.errors import LipcertError


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSubmission:
    """What a client asks for."""

    model: str
    policy: str  #: a name, name@version, or a digest

    @property
    def fingerprint(self) -> str:
        """The same for the same submission."""
        return hashlib.sha256(
            canonical_json({"model": self.model, "policy": self.policy})
        ).hexdigest()


def read_gate(members: object) -> GateSubmission:
    """The submission that a JSON value states.

    Raises:
        Problem: invalid-request.
    """
    try:
        body = GateSubmissionBody.model_validate(members)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        pointer = "".join(f"/{part}" for part in first["loc"])
        raise Problem("invalid-request", f"{pointer}: {first['msg']}", pointer=pointer) from error
    return GateSubmission(model=body.model, policy=body.policy)


def accept_gate(
    connection: Connection,
    settings: Settings,
    tenant: str,
    asked: GateSubmission,
    idempotency_key: str | None,
    now: int,
) -> Gate:
    """The gate of a submission: an earlier one under the same key, or a new one.

    Raises:
        Problem: idempotency-key-reused, not-found, and those of a job's submission.
    """
    gate_id = gates.new_id()
    if idempotency_key is not None:
        known = gates.claim_key(
            connection, tenant, idempotency_key, asked.fingerprint, gate_id, now
        )
        if known[0] != asked.fingerprint:
            raise Problem("idempotency-key-reused", "another request was sent under this key")
        if known[1] != gate_id:
            return _found(connection, tenant, known[1])
    policy = _policy(connection, tenant, asked.policy)
    parts = [
        (rule, accept(connection, settings, tenant, _job(rule, asked.model, gate_id), None, now).id)
        for rule in _rules(policy)
    ]
    return gates.add(connection, tenant, gate_id, asked.model, policy, parts, now)


def _policy(connection: Connection, tenant: str, reference: str) -> StoredPolicy:
    found = re.fullmatch(r"([^@:]+)(?:@([0-9]+))?", reference)
    if found is None:
        policy = policies.of_digest(connection, tenant, reference, is_usable=True)
    else:
        version = None if found[2] is None else int(found[2])
        policy = policies.find(connection, tenant, found[1], version)
    if policy is None:
        raise Problem(
            "not-found",
            f"there is no policy {reference}",
            fix="put it with PUT /v1/policies/{name}",
            pointer="/policy",
        )
    return policy


def _rules(policy: StoredPolicy) -> tuple[Rule, ...]:
    try:
        return rules_of(policy.document)
    except LipcertError as error:  # of another version, which took what this one does not
        raise problem_of(error) from error


def _job(rule: Rule, model: str, gate_id: str) -> Submission:
    return Submission(
        model=model, request=rule.request, labels={"gate": gate_id}, priority=0, deadline=None
    )


def _found(connection: Connection, tenant: str, gate_id: str) -> Gate:
    gate = gates.find(connection, tenant, gate_id)
    assert gate is not None, "the row is there: no gate is ever deleted"  # noqa: S101
    return gate
