"""Why there is no certificate, as the command line and gates say it."""

from collections.abc import Mapping
from dataclasses import dataclass

from verifier.errors import JobFailed, LipcertError, all_errors

REFUSED, FAILED = 3, 4  #: exit codes

MEMBERS = ("code", "title", "detail", "node", "fix")  #: of a refusal on the command line

#: Codes of jobs that met no fault of the model or the question.
FAILURES = frozenset(
    {"canceled", "expired", "internal-error", *(error.code for error in all_errors(JobFailed))}
)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a run ended without its answer: the refusal object, and the exit code that it gives."""

    error: Mapping[str, str | None]
    exit_code: int


def failure_of(error: LipcertError) -> Failure:
    """The failure that an error makes: what a user can mend is refused, the rest failed."""
    return Failure(error.to_json(), FAILED if isinstance(error, JobFailed) else REFUSED)


def failure_of_job(state: str, error: Mapping[str, object] | None) -> Failure:
    """The failure that the end of a job was: its error, or that it was canceled or expired."""
    said = error or {"code": state, "title": f"The job was {state}."}
    return failure(said, FAILED if said.get("code") in FAILURES else REFUSED)


def failure(error: Mapping[str, object], exit_code: int) -> Failure:
    """A failure with the members that the command line has, whatever the service says."""
    members: dict[str, str | None] = {}
    for name in MEMBERS:
        value = error.get(name, "" if name in ("detail", "fix") else None)
        members[name] = None if value is None else str(value)
    return Failure(members, exit_code)
