"""Gates: a model against a policy. Each has a job for every rule, and is decided once.

    pending --decide--> pass | fail | undecided
    pending --cancel--> canceled

A gate is ripe when all its jobs have ended. Whoever finds a ripe one weighs it and calls `decide`:
that is one UPDATE guarded by `pending`, so that of several, or of one that crashed and was started
again, exactly one decides. Nothing is kept of the way there: what a crash leaves is a ripe gate.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

from sqlalchemy import Connection, delete, exists, insert, select, update

from service.failures import FAILED
from service.gate import Decision, GateOutcome, Limit
from service.store import audit, leases, outbox
from service.store.inserts import insert_if_new
from service.store.jobs import ENDED, Job, job_of
from service.store.paging import Columns, Page, Place, page_of
from service.store.policies import StoredPolicy
from service.store.tables import gate, gate_key, gate_rule, job

Outcome: TypeAlias = Literal["pending", "canceled"] | GateOutcome

KEY_MS = 24 * 3600 * 1000  #: how long an Idempotency-Key is remembered


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One row, as a reader sees it."""

    id: str
    tenant: str
    model: str
    policy: str
    policy_version: int
    policy_digest: str
    outcome: Outcome
    exit_code: int | None
    results: Sequence[Mapping[str, Any]] | None  # Any: JSON that the service wrote itself
    created: int
    decided: int | None
    version: int

    @property
    def is_decided(self) -> bool:
        """Whether the outcome can no longer change."""
        return self.outcome != "pending"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a gate: what its job's bound is compared with."""

    limit: Limit
    job: Job


ALLOWANCES = ("on_undecided", "allow_assumptions")
READ = [gate.c[name] for name in Gate.__dataclass_fields__]


def find(connection: Connection, tenant: str, gate_id: str) -> Gate | None:
    """The gate of this tenant, if there is one."""
    query = select(*READ).where(gate.c.tenant == tenant, gate.c.id == gate_id)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else _gate(cast("Columns", row))


def rules(connection: Connection, tenant: str, gate_id: str) -> list[Rule]:
    """The rules of a gate, in the order of its policy."""
    rows = connection.execute(
        select(job, *(gate_rule.c[name] for name in ("name", "max_bound", *ALLOWANCES)))
        .join(gate_rule, gate_rule.c.job == job.c.id)
        .where(gate_rule.c.tenant == tenant, gate_rule.c.gate == gate_id, job.c.tenant == tenant)
        .order_by(gate_rule.c.place)
    ).mappings()
    return [
        Rule(
            Limit(
                name=row["name"],
                max_bound=row["max_bound"],
                on_undecided=row["on_undecided"],
                allow_assumptions=frozenset(row["allow_assumptions"] or ()),
            ),
            job_of(cast("Columns", row)),
        )
        for row in rows
    ]


def page(
    connection: Connection, tenant: str, place: Place, filters: Mapping[str, str]
) -> Page[Gate]:
    """Gates, newest first; `filters` by model, policy or outcome."""
    query = select(*READ).where(gate.c.tenant == tenant)
    for name, value in filters.items():
        query = query.where(gate.c[name] == value)
    return page_of(connection, query, gate.c.created, gate.c.id, place, _gate)


def attestation(connection: Connection, tenant: str, gate_id: str) -> Mapping[str, Any] | None:
    """The signed decision, if there is one."""
    query = select(gate.c.attestation).where(gate.c.tenant == tenant, gate.c.id == gate_id)
    return connection.scalar(query)


def decided_among(connection: Connection, gate_ids: Sequence[str]) -> list[str]:
    """Those of some gates, of whatever tenants, that are decided."""
    query = select(gate.c.id).where(gate.c.id.in_(gate_ids), gate.c.outcome != "pending")
    return list(connection.scalars(query))


def new_id() -> str:
    """An id that no gate has."""
    return secrets.token_hex(16)


def claim_key(
    connection: Connection, tenant: str, key: str, fingerprint: str, gate_id: str, now: int
) -> tuple[str, str]:
    """(fingerprint, gate) that the key stands for: the given ones, where it is new."""
    old = delete(gate_key).where(gate_key.c.tenant == tenant, gate_key.c.created < now - KEY_MS)
    connection.execute(old)
    row: dict[str, object] = {
        "tenant": tenant,
        "key": key,
        "fingerprint": fingerprint,
        "gate": gate_id,
        "created": now,
    }
    if insert_if_new(connection, gate_key, row):
        return fingerprint, gate_id
    known = connection.execute(
        select(gate_key.c.fingerprint, gate_key.c.gate).where(
            gate_key.c.tenant == tenant, gate_key.c.key == key
        )
    ).one()
    return known.fingerprint, known.gate


def add(
    connection: Connection,
    tenant: str,
    gate_id: str,
    model: str,
    policy: StoredPolicy,
    parts: Sequence[tuple[Limit, str]],
    now: int,
) -> Gate:
    """A new gate, pending; `parts`: what each rule compares, and the id of its job."""
    connection.execute(
        insert(gate).values(
            id=gate_id,
            tenant=tenant,
            model=model,
            policy=policy.name,
            policy_version=policy.version,
            policy_digest=policy.digest,
            outcome="pending",
            created=now,
            version=1,
        )
    )
    for place, (limit, job_id) in enumerate(parts):
        connection.execute(
            insert(gate_rule).values(
                gate=gate_id,
                place=place,
                tenant=tenant,
                name=limit.name,
                max_bound=limit.max_bound,
                on_undecided=limit.on_undecided,
                allow_assumptions=sorted(limit.allow_assumptions) or None,
                job=job_id,
            )
        )
    made = find(connection, tenant, gate_id)
    assert made is not None, "a row that this transaction wrote"  # noqa: S101
    return made


def ripe(connection: Connection, limit: int) -> list[Gate]:
    """Pending gates of all tenants, the oldest first, whose jobs have all ended."""
    unfinished = exists().where(
        gate_rule.c.gate == gate.c.id,
        gate_rule.c.tenant == gate.c.tenant,
        job.c.id == gate_rule.c.job,
        job.c.tenant == gate_rule.c.tenant,
        job.c.state.not_in(ENDED),
    )
    rows = connection.execute(
        select(*READ)
        .where(gate.c.outcome == "pending", ~unfinished)
        .order_by(gate.c.created)
        .limit(limit)
    )
    return [_gate(cast("Columns", row)) for row in rows.mappings()]


def decide(
    connection: Connection,
    pending: Gate,
    decision: Decision,
    results: Sequence[Mapping[str, object]],
    attestation: Mapping[str, object] | None,
    now: int,
) -> bool:
    """Finish a gate; False where it has ended already."""
    signed = None if attestation is None else dict(attestation)
    return _end(
        connection,
        pending,
        decision.outcome,
        {"exit_code": decision.exit_code, "results": [*results], "attestation": signed},
        "dispatcher",
        now,
    )


def cancel(
    connection: Connection,
    pending: Gate,
    results: Sequence[Mapping[str, object]],
    actor: str,
    now: int,
) -> bool:
    """End a gate without a decision, and what its jobs still do; False where it has ended."""
    values = {"exit_code": FAILED, "results": [*results]}
    if not _end(connection, pending, "canceled", values, actor, now):
        return False
    for rule in rules(connection, pending.tenant, pending.id):
        leases.cancel(connection, pending.tenant, rule.job.id, now)
    return True


def _end(
    connection: Connection,
    pending: Gate,
    outcome: Outcome,
    values: Mapping[str, object],
    actor: str,
    now: int,
) -> bool:
    """Write the end of a gate; False where it has one.

    The one place where a gate ends: what has to happen exactly once with that is written here, in
    this transaction, where the row was pending.
    """
    written = (
        update(gate)
        .where(
            gate.c.tenant == pending.tenant, gate.c.id == pending.id, gate.c.outcome == "pending"
        )
        .values(outcome=outcome, decided=now, version=gate.c.version + 1, **values)
    )
    if connection.execute(written).rowcount != 1:
        return False
    told: dict[str, object] = {
        "model": pending.model,
        "policy": f"{pending.policy}@{pending.policy_version}",
        "policy_digest": pending.policy_digest,
        "outcome": outcome,
    }
    action = "gate.canceled" if outcome == "canceled" else "gate.decided"
    audit.append(connection, pending.tenant, actor, action, pending.id, told)
    message = {"gate": pending.id, **told, "links": {"gate": f"/v1/gates/{pending.id}"}}
    outbox.put(connection, pending.tenant, "gate.finished", pending.id, message, now)
    return True


def _gate(row: Columns) -> Gate:
    return Gate(**{name: row[name] for name in Gate.__dataclass_fields__})
