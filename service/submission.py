"""A submission read: what is malformed is refused before anything is stored.

The request itself is read by `verifier.request_json`, a question about radii by
`verifier.radius_json`, as on the command line. What only a model can tell (its number of inputs) is
checked here when the model has been read, else by the attempt.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from pydantic import ValidationError
from sqlalchemy import Connection, select

from service.limits import Limits
from service.problems import Problem, problem_of, problem_of_stored
from service.quotas import (
    effective_limits,
    require_budget,
    require_memory,
    require_processor_time,
    require_room_in_queue,
)
from service.remedies import lifts
from service.schemas.submissions import EnvelopeBody, ResumeBody
from service.settings import Settings
from service.store import certificates, jobs, models
from service.store.inserts import insert_if_new
from service.store.jobs import Job, NewJob
from service.store.models import Model
from service.store.tables import idempotency
from service.telemetry import current_trace
from service.webhook_rules import require_ready
from verifier.canonical_json import Json, canonical_json
from verifier.errors import LipcertError
from verifier.estimate import size_of
from verifier.property import Bind, Indices, Margins, Names, Request
from verifier.radius_json import Question, question_json, refuse_misfit
from verifier.regions import Everywhere
from verifier.request_json import parse_request, request_json
from verifier.version import VERSION

Members: TypeAlias = Mapping[str, object]

ENVELOPE = tuple(EnvelopeBody.model_fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What a client asks for, in canonical form."""

    model: str
    request: Request | Question
    labels: Mapping[str, str]
    priority: int
    deadline: int | None
    webhook: Sequence[str] = ()  #: ids of those to tell
    resumes: Job | None = None  #: the ended job that this one goes on from

    @property
    def members(self) -> dict[str, object]:
        """The request in JSON, every member present."""
        if isinstance(self.request, Question):
            return question_json(self.request)
        return request_json(self.request)

    @property
    def fingerprint(self) -> str:
        """The digest of everything that was asked: the same for the same submission."""
        return _digest(
            {
                "model": self.model,
                "request": self.members,
                "labels": dict(self.labels),
                "priority": self.priority,
                "deadline": self.deadline,
                **({"webhook": list(self.webhook)} if self.webhook else {}),
                **({} if self.resumes is None else {"resumed_from": self.resumes.id}),
            }
        )

    @property
    def key(self) -> str | None:
        """The digest of the question: budget and labels do not change what is asked.

        None for radii, which are not answered from what is stored.
        """
        if isinstance(self.request, Question):
            return None
        asked = self.members
        return _digest(
            {
                "model": self.model,
                "property": asked["property"],
                "method": asked["method"],
                "options": asked["options"],
                "target": asked["target"],
                "semantics": asked.get("semantics", "real"),
                "version": VERSION,
            }
        )

    def to_job(self, tenant: str) -> NewJob:
        """The job that this asks for."""
        return NewJob(
            tenant=tenant,
            model=self.model,
            kind="radius" if isinstance(self.request, Question) else "verify",
            request=self.members,
            labels=self.labels,
            webhook=self.webhook,
            priority=self.priority,
            deadline=self.deadline,
            key=self.key,
            resumes=self.resumes,
            trace=current_trace(),
        )


def read_resumption(job: Job, members: Members) -> Submission:
    """The submission of a job that goes on from another one's checkpoint, with another budget.

    Raises:
        Problem: not-resumable, invalid-request.
    """
    if not job.is_resumable:
        why = "left no checkpoint" if job.has_ended else f"is {job.state}"
        raise Problem("not-resumable", f"the job {why}")
    try:
        budget = ResumeBody.model_validate(members).budget.model_dump(exclude_unset=True)
        known = cast("Members", job.request["budget"])
        request = parse_request({**job.request, "budget": {**known, **budget}})
    except ValidationError as error:
        raise _invalid(error) from error
    except LipcertError as error:
        raise problem_of(error) from error
    return Submission(
        model=job.model,
        request=request,
        labels=job.labels,
        priority=job.priority,
        deadline=None,
        webhook=job.webhook or (),
        resumes=job,
    )


Read: TypeAlias = Callable[[object], Request | Question]


def read_request(members: object) -> Request:
    """The request that a JSON object states, with options that its method has.

    Raises:
        LipcertError, Problem: it is refused.
    """
    request = parse_request(members)
    _refuse_unknown_options(request)
    return request


def read_submission(members: Members, model: str | None, read: Read = read_request) -> Submission:
    """The submission that a JSON object states.

    Args:
        members: the request, and the members of the envelope around it.
        model: the one that came in the same body.
        read: reads the request; `parse_question` for one about radii.

    Raises:
        Problem: invalid-request, region-empty-interior.
    """
    outer = {name: value for name, value in members.items() if name in ENVELOPE}
    inner = {name: value for name, value in members.items() if name not in ENVELOPE}
    try:
        envelope = EnvelopeBody.model_validate(outer)
        request = read(inner)
    except ValidationError as error:
        raise _invalid(error) from error
    except LipcertError as error:
        raise problem_of(error) from error
    if model is not None and envelope.model not in (None, model):
        raise _refused("/model", f"the part `model` is {model}", "leave `model` out")
    chosen = model or envelope.model
    if chosen is None:
        raise _refused("/model", "the member is missing", "give the id of an uploaded model")
    deadline = envelope.deadline
    return Submission(
        model=chosen,
        request=request,
        labels=envelope.labels,
        priority=envelope.priority,
        deadline=None if deadline is None else round(deadline.timestamp() * 1000),
        webhook=tuple(dict.fromkeys(envelope.webhook)),
    )


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


def sizes(summary: Members) -> tuple[int | None, int | None]:
    """The numbers of inputs and outputs that a model's summary states."""
    return size_of(summary, "input"), size_of(summary, "output")


def require_fit(request: Request | Question, summary: Members) -> None:
    """Refuse what the model does not have.

    Raises:
        Problem: invalid-request.
    """
    inputs, outputs = sizes(summary)
    if isinstance(request, Request):
        if request.property.bind != Bind():
            return  # what is bound changes the sizes: the attempt tells
        _require_request(request, inputs, outputs)
        if isinstance(request.property.outputs, Names):
            _require_named(request.property.outputs.names, summary)
    elif request.bind == Bind() and inputs is not None and outputs is not None:
        try:
            refuse_misfit(request, inputs, outputs)
        except LipcertError as error:
            raise problem_of(error) from error


def _require_request(request: Request, inputs: int | None, outputs: int | None) -> None:
    asked = request.property.entries
    where = "/property/monotone" if asked.monotone else "/property/{}/indices"
    if inputs is not None:
        if not isinstance(asked.region, Everywhere) and asked.region.dimension != inputs:
            raise _refused(
                "/property/region",
                f"the region has {asked.region.dimension} coordinates, the model {inputs} inputs",
                f"give {inputs} numbers, in row-major order",
            )
        if isinstance(asked.inputs, Indices):
            _require_within(asked.inputs.indices, inputs, where.format("inputs"))
    if outputs is None:
        return
    match asked.outputs:
        case Indices(indices):
            _require_within(indices, outputs, where.format("outputs"))
        case Margins(pairs) if pairs is not None:
            flat = [index for pair in pairs for index in pair]
            _require_within(flat, outputs, "/property/outputs/margins")
        case _:
            pass  # all, each and all margins fit every model


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


def _refuse_unknown_options(request: Request) -> None:
    known = OPTIONS[request.method]
    for name in request.options:
        if name not in known:
            raise _refused(
                f"/options/{name}",
                f"method {request.method!r} has no option {name[:100]!r}",
                f"use one of {', '.join(known)}",
            )


def _require_named(names: Sequence[str], summary: Members) -> None:
    outputs = cast("Sequence[Members]", summary.get("outputs", ()))
    known = [str(output["name"]) for output in outputs]
    for name in names:
        if known and name not in known:
            raise _refused(
                "/property/outputs/names",
                f"the model has no output {name[:100]!r}",
                f"name one of {', '.join(known[:20])}",
            )


def _require_within(indices: Sequence[int], size: int, pointer: str) -> None:
    beyond = [index for index in indices if size <= index]
    if beyond:
        raise _refused(pointer, f"index {beyond[0]} is beyond {size - 1}", "count from 0")


def _refused(pointer: str, detail: str, fix: str) -> Problem:
    return Problem("invalid-request", f"{pointer}: {detail}", fix=fix, pointer=pointer)


def _invalid(error: ValidationError) -> Problem:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    pointer = "".join(f"/{part}" for part in first["loc"])
    return _refused(pointer, first["msg"], "see GET /v1/schemas/request")


def _digest(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(cast("Json", value))).hexdigest()


_RUN = ("freeze_initializers", "seed")
_LIPSDP = ("device", "gap", "iterations", "multipliers", "solver")
_PROPAGATION = ("branch", "steps", "technique")

#: What each method may be told; a test compares with the methods' own classes.
OPTIONS: Mapping[str, tuple[str, ...]] = {
    "auto": (*_LIPSDP, *_PROPAGATION, *_RUN),
    "lipsdp": (*_LIPSDP, *_RUN),
    "product": _RUN,
    "propagation": (*_PROPAGATION, *_RUN),
}
