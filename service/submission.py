"""A submission read: what is malformed is refused before anything is stored.

The request itself is read by `verifier.request_json`, a question about radii by
`verifier.radius_json`, as on the command line. What only a model can tell is `fit`'s to check, what
only the database can, `acceptance`'s.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from pydantic import ValidationError

from service.problems import Problem, problem_of, refused
from service.schemas.submissions import EnvelopeBody, ResumeBody
from service.store.jobs import Job, NewJob
from service.telemetry import current_trace
from service.times import time_text
from verifier.canonical_json import Json, canonical_json
from verifier.errors import LipcertError
from verifier.property import Request
from verifier.radius_json import Question, question_json
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
        Problem: not-resumable, checkpoint-expired, invalid-request.
    """
    if job.checkpoint_removed is not None:
        when, ended = time_text(job.checkpoint_removed), time_text(job.ended)
        raise Problem("checkpoint-expired", f"the job ended {ended}; it was removed {when}")
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
        raise refused("/model", f"the part `model` is {model}", "leave `model` out")
    chosen = model or envelope.model
    if chosen is None:
        raise refused("/model", "the member is missing", "give the id of an uploaded model")
    deadline = envelope.deadline
    return Submission(
        model=chosen,
        request=request,
        labels=envelope.labels,
        priority=envelope.priority,
        deadline=None if deadline is None else round(deadline.timestamp() * 1000),
        webhook=tuple(dict.fromkeys(envelope.webhook)),
    )


def _refuse_unknown_options(request: Request) -> None:
    known = OPTIONS[request.method]
    for name in request.options:
        if name not in known:
            raise refused(
                f"/options/{name}",
                f"method {request.method!r} has no option {name[:100]!r}",
                f"use one of {', '.join(known)}",
            )


def _invalid(error: ValidationError) -> Problem:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    pointer = "".join(f"/{part}" for part in first["loc"])
    return refused(pointer, first["msg"], "see GET /v1/schemas/request")


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
