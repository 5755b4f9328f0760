"""A submission accepted: a job that was there before, an answer that is stored, or a new job."""

from sqlalchemy import Connection, select

from service.fit import require_fit
from service.limits import Limits
from service.problems import Problem, problem_of_stored
from service.quotas import (
    effective_limits,
    require_budget,
    require_memory,
    require_processor_time,
    require_room_in_queue,
)
from service.remedies import lifts
from service.settings import Settings
from service.store import certificates, jobs, models
from service.store.inserts import insert_if_new
from service.store.jobs import Job
from service.store.models import Model
from service.store.tables import idempotency
from service.submission import Submission
from service.webhook_rules import require_ready
from verifier.radius_json import Question


def require_usable(
    connection: Connection,
    tenant: str,
    submission: Submission,
    limits: Limits,
    *,
    to_stay: bool = False,
) -> Model:
    """The model of a submission, where it can be asked this, within the limits of one job.

    `to_stay`: see `models.find`.

    Raises:
        Problem: not-found; the importer's code, where the model was refused; invalid-request;
            too-large.
    """
    model = models.find(connection, tenant, submission.model, to_stay=to_stay)
    if model is None:
        raise Problem(
            "not-found",
            f"model {submission.model} is not stored here",
            fix="upload it with POST /v1/models",
        )
    refusal = model.error if model.state == "refused" else None
    if refusal is not None and not lifts(submission.members, str(refusal["code"])):
        raise problem_of_stored(refusal)
    require_budget(submission.request, limits)
    if model.summary is not None:
        require_fit(submission.request, model.summary)
        require_memory(submission.request, model.summary, limits)
    return model


def accept(
    connection: Connection,
    settings: Settings,
    tenant: str,
    submission: Submission,
    idempotency_key: str | None,
    now: int,
) -> Job:
    """The job of a submission: an earlier one under the same key, an answered one, or a new one.

    In the tenant's turn: whether a key is new and the queue has room must not change meanwhile.

    Raises:
        Problem: idempotency-key-reused, queue-full, quota-exceeded, and those of `require_usable`.
    """
    earlier = _earlier(connection, tenant, submission, idempotency_key)
    if earlier is not None:
        return earlier
    limits = effective_limits(connection, settings, tenant)
    require_usable(connection, tenant, submission, limits, to_stay=True)
    if submission.resumes is None:
        require_ready(connection, settings, tenant, submission.webhook)
    answer = _answer(connection, tenant, submission)
    if answer is not None and answer.certificate is not None:
        job_id = jobs.insert_answered(
            connection, submission.to_job(tenant), now, answer.certificate, answer
        )
    else:
        require_room_in_queue(connection, settings, tenant, limits)
        require_processor_time(connection, tenant, limits, now)
        job_id = jobs.insert_job(connection, submission.to_job(tenant), now, settings.max_attempts)
    if idempotency_key is not None:
        kept = {
            "tenant": tenant,
            "key": idempotency_key,
            "fingerprint": submission.fingerprint,
            "job": job_id,
            "created": now,
        }
        is_first = insert_if_new(connection, idempotency, kept)
        assert is_first, "a tenant's writers take turns"  # noqa: S101
    return _found(connection, tenant, job_id)


# --- parts ---------------------------------------------------------------------------------------


def _earlier(
    connection: Connection, tenant: str, submission: Submission, key: str | None
) -> Job | None:
    """The job that the same key brought before."""
    if key is None:
        return None
    row = connection.execute(
        select(idempotency.c.fingerprint, idempotency.c.job).where(
            idempotency.c.tenant == tenant, idempotency.c.key == key
        )
    ).one_or_none()
    if row is None:
        return None
    if row.fingerprint != submission.fingerprint:
        raise Problem("idempotency-key-reused", "another request was sent under this key")
    return _found(connection, tenant, row.job)


def _found(connection: Connection, tenant: str, job_id: str) -> Job:
    job = jobs.find(connection, tenant, job_id)
    assert job is not None, "the row is there: no job is ever deleted"  # noqa: S101
    return job


def _answer(connection: Connection, tenant: str, submission: Submission) -> Job | None:
    """A job that ended with an answer as good as this submission could get.

    That is one that reached the gap that is asked for, decided the target (which is part of the
    key), or had at least the budget: a loose bound of a short run answers no long request.
    """
    if submission.resumes is not None or submission.key is None:
        return None
    if isinstance(submission.request, Question):
        return None
    budget = submission.request.budget
    for job in certificates.answers(connection, tenant, submission.key):
        gap, theirs = job.progress["gap"], job.request["budget"]
        is_close = isinstance(gap, int | float) and gap <= budget.gap
        is_decided = job.verdict in ("certified", "violated")
        had_as_much = budget.seconds <= theirs["seconds"] and theirs["gap"] <= budget.gap
        if is_close or is_decided or had_as_much:
            return job
    return None
