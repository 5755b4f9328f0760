"""Jobs as a dispatcher sees them: claimed for a time, kept by heartbeats, finished once.

Any number of dispatchers may do so at the same time. Times are the database's
(`coordination.now_in`): a lease means the same on every machine.

`attempt` is the fencing token. Every write of an attempt names its owner, its number and the
state `running`: a dispatcher that stalled beyond its lease finds that no row matches, and stops.
Finishing is one transaction: state, verdict, certificate and last events together.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, func, or_, select, update

from service.limits import Limits
from service.store import audit, jobs, models, turns
from service.store.coordination import take_turn
from service.store.events import Event
from service.store.inserts import insert_if_new, insert_or_update
from service.store.jobs import Job, Kind, State
from service.store.tables import certificate, dispatcher, idempotency, job

IDEMPOTENCY_MS = 24 * 3600 * 1000
EVERYONES = Limits()
SEEN_MS = 15_000  #: a dispatcher that was not seen for longer is not there


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One attempt of one job: the right to write to its row until the lease lapses."""

    job: str
    tenant: str
    kind: Kind
    model: str
    request: Mapping[str, Any]  # Any: JSON that the service wrote itself
    owner: str
    attempt: int
    deadline: int | None
    incumbent: Mapping[str, Any] | None  #: the best checked bound of earlier attempts
    checkpoint: str | None  #: hex SHA-256 of what the last one left to go on from
    trace: str | None = None  #: the traceparent of the request that made the job

    def guards(self) -> list[ColumnElement[bool]]:
        """What has to hold for this attempt to write."""
        return [
            job.c.tenant == self.tenant,
            job.c.id == self.job,
            job.c.lease_owner == self.owner,
            job.c.attempt == self.attempt,
            job.c.state == "running",
        ]


def has_work(
    connection: Connection, now: int, kinds: Sequence[Kind], defaults: Limits = EVERYONES
) -> bool:
    """Whether a job of these kinds may be claimed; cheap, and without the write lock."""
    return connection.scalar(turns.next_job(now, kinds, defaults)) is not None


def claim(
    connection: Connection,
    owner: str,
    now: int,
    lease_ms: int,
    kinds: Sequence[Kind],
    defaults: Limits = EVERYONES,
) -> Claim | None:
    """The next job of these kinds, running under a lease; None where there is none.

    Args:
        connection: of a transaction.
        owner: who claims it.
        now: the time.
        lease_ms: how long the lease is.
        kinds: of jobs.
        defaults: the limits of tenants that have none of their own.
    """
    # Claims take turns: limits are of what runs, and whose turn it is depends on who was served.
    take_turn(connection, "claim")
    job_id = connection.scalar(turns.next_job(now, kinds, defaults))
    if job_id is None:
        return None
    row = jobs.change(
        connection,
        [job.c.id == job_id, turns.is_waiting(now)],
        {
            "state": "running",
            "attempt": job.c.attempt + 1,
            "lease_owner": owner,
            "lease_until": now + lease_ms,
            "started": func.coalesce(job.c.started, now),
        },
        [Event("state", {"state": "running"})],
        now,
    )
    if row is None:
        return None  # canceled since it was found
    turns.note_turn(connection, row["tenant"])
    return Claim(
        job=row["id"],
        tenant=row["tenant"],
        kind=row["kind"],
        model=row["model"],
        request=row["request"],
        owner=owner,
        attempt=row["attempt"],
        deadline=row["deadline"],
        incumbent=row["incumbent"],
        checkpoint=row["checkpoint"],
        trace=row["trace"],
    )


def heartbeat(connection: Connection, owner: str, working: Collection[str], until: int) -> None:
    """Extend the leases of the jobs that this dispatcher works on.

    No event, no version: nothing happened to the job.
    """
    connection.execute(
        update(job)
        .where(job.c.id.in_(working), job.c.lease_owner == owner, job.c.state == "running")
        .values(lease_until=until)
    )


def held(connection: Connection, owner: str) -> dict[str, tuple[int, bool]]:
    """The jobs that this dispatcher holds: their attempt, and whether to cancel it."""
    rows = connection.execute(
        select(job.c.id, job.c.attempt, job.c.cancel_requested).where(
            job.c.lease_owner == owner, job.c.state == "running"
        )
    )
    return {row.id: (row.attempt, row.cancel_requested) for row in rows}


def give_back_unknown(
    connection: Connection, owner: str, known: Collection[tuple[str, int]], now: int
) -> None:
    """Queue again what this dispatcher holds without knowing.

    That is a claim whose commit was not heard of, because the connection broke. `known`: (job,
    attempt) of what it works on.
    """
    for job_id, (attempt, is_canceled) in held(connection, owner).items():
        # A canceled one is left to its lease: the sweeper ends it, and would not find it queued.
        if (job_id, attempt) not in known and not is_canceled:
            jobs.change(
                connection,
                [
                    job.c.id == job_id,
                    job.c.lease_owner == owner,
                    job.c.attempt == attempt,
                    job.c.state == "running",
                    ~job.c.cancel_requested,
                ],
                {
                    "state": "queued",
                    "lease_owner": None,
                    "lease_until": None,
                    "max_attempts": job.c.max_attempts + 1,
                },
                [Event("state", {"state": "queued", "reason": "stopped"})],
                now,
            )


def report(
    connection: Connection,
    mine: Claim,
    progress: Mapping[str, object],
    incumbent: Mapping[str, object] | None,
    now: int,
) -> bool:
    """Write progress, and the bound that the checker has accepted; False: no longer ours."""
    values: dict[str, object] = {"progress": dict(progress)}
    if incumbent is not None:
        values["incumbent"] = dict(incumbent)
    events = [Event("progress", progress)]
    return jobs.change(connection, mine.guards(), values, events, now) is not None


def keep_checkpoint(connection: Connection, mine: Claim, digest: str | None) -> bool:
    """Write what the next attempt goes on from; False: not ours. No event: nothing is proved."""
    happened = update(job).where(*mine.guards()).values(checkpoint=digest)
    return connection.execute(happened).rowcount == 1


def needs_checkpoint(connection: Connection, tenant: str, digest: str) -> bool:
    """Whether any job could go on from it."""
    some = exists().where(job.c.tenant == tenant, job.c.checkpoint == digest)
    return connection.scalar(select(some)) or False


def finish(
    connection: Connection,
    mine: Claim,
    state: State,
    now: int,
    *,
    incumbent: Mapping[str, Any] | None = None,
    progress: Mapping[str, object] | None = None,
    error: Mapping[str, object] | None = None,
) -> bool:
    """End a job: state, verdict, certificate and events at once; False: not ours."""
    values = dict[str, object]() if progress is None else {"progress": dict(progress)}
    return _end(connection, mine.guards(), state, incumbent, error, now, values)


def finish_inspection(
    connection: Connection,
    mine: Claim,
    now: int,
    *,
    summary: Mapping[str, object] | None = None,
    error: Mapping[str, object] | None = None,
) -> bool:
    """End the reading of a model: the model is ready or refused; False: not ours."""
    state: State = "succeeded" if error is None else "failed"
    if not _end(connection, mine.guards(), state, None, error, now, {}):
        return False
    models.settle(connection, mine.tenant, mine.model, summary=summary, error=error, now=now)
    return True


def release(connection: Connection, mine: Claim, now: int, *, reason: str, again: bool) -> bool:
    """Give a job back to the queue; `again`: the attempt does not count. False: not ours."""
    values: dict[str, object] = {"state": "queued", "lease_owner": None, "lease_until": None}
    if again:
        values["max_attempts"] = job.c.max_attempts + 1
    happened = [Event("state", {"state": "queued", "reason": reason})]
    guards = [*mine.guards(), ~job.c.cancel_requested]
    if not again:
        guards.append(job.c.attempt < job.c.max_attempts)
    return jobs.change(connection, guards, values, happened, now) is not None


def cancel(connection: Connection, tenant: str, job_id: str, now: int) -> Job | None:
    """The job after the wish to cancel it: at once where it waits, else soon by its dispatcher.

    One that waits for another attempt keeps what the earlier ones have proved.
    """
    found = jobs.find(connection, tenant, job_id)
    if found is None or found.has_ended:
        return found
    guards = [job.c.tenant == tenant, job.c.id == job_id, job.c.state == found.state]
    wish = {"cancel_requested": True}
    if found.state == "queued":
        _end(connection, guards, "canceled", found.incumbent, None, now, wish)
    else:
        jobs.change(connection, [*guards, ~job.c.cancel_requested], wish, [], now)
    return jobs.find(connection, tenant, job_id)


def is_canceled(connection: Connection, mine: Claim) -> bool:
    """Whether someone wished this job away."""
    mine_now = select(job.c.cancel_requested).where(
        job.c.tenant == mine.tenant, job.c.id == mine.job
    )
    return connection.scalar(mine_now) or False


def lapse(connection: Connection, now: int) -> None:
    """End every lease: for the only dispatcher of a data directory, when it starts."""
    connection.execute(update(job).where(job.c.state == "running").values(lease_until=now - 1))


def sweep(connection: Connection, now: int, lost: Mapping[str, object]) -> None:
    """End what nobody will end: canceled or given up under a dead lease, expired in the queue."""
    lapsed = [job.c.state == "running", job.c.lease_until < now]
    # In order, and past what another dispatcher has locked: it sweeps, too.
    stale = select(job).where(*lapsed).order_by(job.c.id).with_for_update(skip_locked=True)
    for row in connection.execute(stale).mappings().all():
        guards, best = [job.c.id == row["id"], *lapsed], row["incumbent"]
        is_late = row["deadline"] is not None and row["deadline"] < now
        if row["cancel_requested"]:
            _end(connection, guards, "canceled", best, None, now, {})
        elif is_late and best is not None:
            _end(connection, guards, "succeeded", best, None, now, {})
        elif is_late or row["max_attempts"] <= row["attempt"]:
            _end(connection, guards, "failed", best, lost, now, {})
            if row["kind"] == "inspect":
                models.settle(
                    connection, row["tenant"], row["model"], summary=None, error=lost, now=now
                )
    late = [job.c.state == "queued", job.c.deadline < now]
    unwanted = (
        select(job.c.id, job.c.incumbent)
        .where(*late)
        .order_by(job.c.id)
        .with_for_update(skip_locked=True)
    )
    for row in connection.execute(unwanted).all():
        state: State = "expired" if row.incumbent is None else "succeeded"
        _end(connection, [job.c.id == row.id, *late], state, row.incumbent, None, now, {})
    connection.execute(delete(idempotency).where(idempotency.c.created < now - IDEMPOTENCY_MS))


def needs_sweep(connection: Connection, now: int) -> bool:
    """Whether `sweep` would find a job; cheap, and without the write lock."""
    lapsed = and_(job.c.state == "running", job.c.lease_until < now)
    late = and_(job.c.state == "queued", job.c.deadline < now)
    return connection.scalar(select(exists().where(or_(lapsed, late)))) or False


def announce(connection: Connection, owner: str, now: int, state: Mapping[str, object]) -> None:
    """Say that this dispatcher lives; the rows of those that do not are removed."""
    connection.execute(delete(dispatcher).where(dispatcher.c.seen < now - 600_000))
    row = {"owner": owner, "seen": now, "report": dict(state)}
    insert_or_update(connection, dispatcher, row)


def alive(connection: Connection, now: int) -> Mapping[str, object] | None:
    """What the dispatcher last said of its executor; None where none was seen lately."""
    return connection.scalar(
        select(dispatcher.c.report)
        .where(now - SEEN_MS < dispatcher.c.seen)
        .order_by(dispatcher.c.seen.desc())
        .limit(1)
    )


def retire(connection: Connection, owner: str) -> None:
    """Say that this dispatcher has stopped."""
    connection.execute(delete(dispatcher).where(dispatcher.c.owner == owner))


def _end(
    connection: Connection,
    guards: Sequence[ColumnElement[bool]],
    state: State,
    incumbent: Mapping[str, Any] | None,
    error: Mapping[str, object] | None,
    now: int,
    values: Mapping[str, object],
) -> bool:
    verdict = None if incumbent is None else incumbent["verdict"]
    certificate_id = None if incumbent is None else incumbent.get("id")
    row = jobs.change(
        connection,
        guards,
        {
            **values,
            "state": state,
            "incumbent": incumbent,
            "verdict": verdict,
            "certificate": certificate_id,
            "error": error,
            "ended": now,
            "lease_owner": None,
            "lease_until": None,
        },
        jobs.ended_events(state, verdict, certificate_id, error),
        now,
    )
    if row is None:
        return False
    for proof in accepted(incumbent):
        # The same proof of another run has the same id, and is the same certificate.
        proved: dict[str, object] = {
            "tenant": row["tenant"],
            "id": proof["id"],
            "blob": proof["blob"],
            "size": proof["size"],
            "model": row["model"],
            "kind": proof["kind"],
            "scope": proof["scope"],
            "summary": proof["summary"],
            "created": now,
        }
        if insert_if_new(connection, certificate, proved):
            _note_issue(connection, row, proof)
    return True


def _note_issue(connection: Connection, row: Mapping[str, Any], proof: Mapping[str, Any]) -> None:
    """Tell the audit log of a new certificate, and of the key that signed it."""
    tenant, subject, signer = row["tenant"], proof["id"], proof.get("signed_by")
    details = {"job": row["id"], "model": row["model"], "sha256": proof["blob"]}
    audit.append(connection, tenant, "dispatcher", "certificate.issued", subject, details)
    if signer is not None:
        signed = {**details, "keyid": signer}
        audit.append(connection, tenant, "dispatcher", "certificate.signed", subject, signed)


def accepted(incumbent: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """What the checker accepted: the one of a bound, or those of radii."""
    if incumbent is None:
        return []
    if "rings" in incumbent:
        return [ring for ring in incumbent["rings"] if ring is not None]
    return [incumbent]
