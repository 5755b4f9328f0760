"""Everything that HTTP answers instead of what was asked: RFC 9457, from one table.

The table at the bottom has a row for each code: those of the service itself, and those of
`verifier.errors`, which keep their code, title, detail, node and fix on the way out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from verifier.errors import (
    CapabilityBlocked,
    FileTooLarge,
    InvalidRequest,
    JobFailed,
    LipcertError,
    ModelRefused,
    OutOfBudget,
    RequestRefused,
    all_errors,
)

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row of the catalogue."""

    code: str  #: kebab-case, never changes
    status: int
    title: str
    fix: str  #: what the user can do, where the place that raised does not say more
    is_retryable: bool = False


class Problem(Exception):
    """An answer to a request that cannot be had; one handler turns it into a response."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        fix: str | None = None,
        node: str | None = None,
        pointer: str | None = None,
        limit: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.entry = CATALOGUE[code]
        self.status = self.entry.status
        self.detail = detail
        self.fix = self.entry.fix if fix is None else fix
        self.node = node
        self.pointer = pointer
        self.limit = limit
        self.headers = dict(headers or {})
        if self.entry.is_retryable:
            self.headers.setdefault("Retry-After", "1")

    def to_json(self, request_id: str) -> dict[str, object]:
        """The members on the wire; those that do not apply are left out."""
        members: dict[str, object] = {
            "type": f"/problems/{self.entry.code}",
            "code": self.entry.code,
            "title": self.entry.title,
            "status": self.status,
            "detail": self.detail,
            "fix": self.fix,
            "request_id": request_id,
        }
        if self.node is not None:
            members["node"] = self.node
        if self.limit is not None:
            members["limit"] = self.limit
        if self.pointer is not None:
            members["errors"] = [{"pointer": self.pointer, "detail": self.detail}]
        return members


def problem_of(error: LipcertError) -> Problem:
    """The problem that says what an error of the verifier says."""
    pointer = error.pointer if isinstance(error, InvalidRequest) else None
    return Problem(error.code, error.detail, fix=error.fix, node=error.node, pointer=pointer)


def problem_of_stored(error: Mapping[str, object]) -> Problem:
    """The problem that says what a stored error of a job or model says."""
    node, pointer = error.get("node"), error.get("pointer")
    code = str(error["code"])
    return Problem(
        code if code in CATALOGUE else "internal-error",
        str(error["detail"]),
        fix=str(error["fix"]),
        node=None if node is None else str(node),
        pointer=None if pointer is None else str(pointer),
    )


def _status(error: type[LipcertError]) -> int:
    if issubclass(error, FileTooLarge):
        return 413
    if issubclass(error, OutOfBudget):
        return 504
    if issubclass(error, ModelRefused | CapabilityBlocked | RequestRefused):
        return 422
    return 500


def _of_verifier() -> list[Entry]:
    return [
        Entry(
            code=error.code,
            status=_status(error),
            title=(error.__doc__ or "").splitlines()[0],
            fix="see `detail`",
            is_retryable=issubclass(error, JobFailed) and issubclass(error, OutOfBudget),
        )
        for error in all_errors()
    ]


OF_SERVICE: Sequence[Entry] = (
    Entry(
        code="digest-mismatch",
        status=422,
        title="The bytes do not have the digest that was announced.",
        fix="send the bytes again, or compute their SHA-256 again",
    ),
    Entry(
        code="forbidden",
        status=403,
        title="The API key does not allow this.",
        fix="use a key of the scope that `detail` names",
    ),
    Entry(
        code="gate-canceled",
        status=409,
        title="The gate was canceled: there is no decision.",
        fix="put the model to the policy again: POST /v1/gates",
    ),
    Entry(
        code="host-refused",
        status=403,
        title="The Host header names another host.",
        fix="use http://127.0.0.1 or http://localhost with the service's port",
    ),
    Entry(
        code="idempotency-key-reused",
        status=422,
        title="The Idempotency-Key was used for another request.",
        fix="use a new key for a new request",
    ),
    Entry(
        code="internal-error",
        status=500,
        title="A defect of lipcert.",
        fix="report it, with `request_id`",
    ),
    Entry(
        code="malformed-json",
        status=400,
        title="The body is not JSON.",
        fix="send strict JSON in UTF-8: no NaN, no Infinity, no key twice",
    ),
    Entry(
        code="malformed-multipart",
        status=400,
        title="The multipart body cannot be read.",
        fix="send the parts `model` and `request`, each once",
    ),
    Entry(
        code="method-not-allowed",
        status=405,
        title="The resource does not have this method.",
        fix="see /openapi.json for the methods of each path",
    ),
    Entry(
        code="model-in-use",
        status=409,
        title="A job that has not ended needs the model.",
        fix="cancel the job, or wait for its end",
    ),
    Entry(
        code="model-not-here",
        status=404,
        title="The model that the certificate is about is not stored here.",
        fix="upload it with POST /v1/models first",
    ),
    Entry(
        code="model-not-ready",
        status=409,
        title="The model has not been read yet.",
        fix="wait until its state is `ready`",
        is_retryable=True,
    ),
    Entry(
        code="not-acceptable",
        status=406,
        title="No representation that the Accept header allows.",
        fix="accept application/json",
    ),
    Entry(
        code="not-finished",
        status=409,
        title="It has not ended.",
        fix="wait for its end: GET the job or gate with `Prefer: wait=60`",
        is_retryable=True,
    ),
    Entry(
        code="not-found",
        status=404,
        title="There is no such thing.",
        fix="check the path and the id",
    ),
    Entry(
        code="checkpoint-expired",
        status=409,
        title="What the job left to go on from is gone.",
        fix="ask anew, with the larger budget: POST /v1/jobs; the operator decides how long "
        "checkpoints are kept (LIPCERT_CHECKPOINT_DAYS)",
    ),
    Entry(
        code="not-resumable",
        status=409,
        title="The job has nothing to go on from.",
        fix="wait for its end; only branch and bound that has not reached its gap can be resumed",
    ),
    Entry(
        code="not-signed",
        status=409,
        title="The service had no key to sign with.",
        fix="start it with --signing-key, and ask for another gate",
    ),
    Entry(
        code="origin-refused",
        status=403,
        title="The request comes from another site's page.",
        fix="call the service from a program, or from its own pages",
    ),
    Entry(
        code="payload-too-large",
        status=413,
        title="The body has more bytes than allowed.",
        fix="send less, or have the operator raise the limit",
    ),
    Entry(
        code="precondition-failed",
        status=412,
        title="It is not in the version that the request names.",
        fix="GET it, look at what has changed, and send If-Match with its ETag",
    ),
    Entry(
        code="queue-full",
        status=503,
        title="Too many jobs wait.",
        fix="try again later",
        is_retryable=True,
    ),
    Entry(
        code="quota-exceeded",
        status=429,
        title="The tenant has what it may have.",
        fix="delete what is not needed, wait for jobs to end, or ask the operator for more",
        is_retryable=True,
    ),
    Entry(
        code="rate-limited",
        status=429,
        title="Too many requests.",
        fix="wait as long as Retry-After says",
        is_retryable=True,
    ),
    Entry(
        code="range-not-satisfiable",
        status=416,
        title="The file has no such part.",
        fix="ask for bytes that it has; `Content-Range` says how many those are",
    ),
    Entry(
        code="request-timeout",
        status=408,
        title="The body stopped coming.",
        fix="send it again",
        is_retryable=True,
    ),
    Entry(
        code="storage-full",
        status=507,
        title="The service's disk is full.",
        fix="send it again later; the operator has to make room",
        is_retryable=True,
    ),
    Entry(
        code="storage-unavailable",
        status=503,
        title="The service's database or disk does not answer now.",
        fix="send it again; with an Idempotency-Key the same job comes, if it was made already",
        is_retryable=True,
    ),
    Entry(
        code="unauthorized",
        status=401,
        title="The request has no valid API key.",
        fix="send `Authorization: Bearer lck_...` with a key that is neither expired nor revoked",
    ),
    Entry(
        code="unsupported-media-type",
        status=415,
        title="The body's type is not one that is read here.",
        fix="see /openapi.json for the types of each path",
    ),
    Entry(
        code="webhook-disabled",
        status=409,
        title="The webhook is disabled.",
        fix='enable it first: PATCH it with {"enabled": true}',
    ),
    Entry(
        code="webhook-target-refused",
        status=422,
        title="Webhooks may not go there.",
        fix="give an https URL of a public host, on a port that the operator allows",
    ),
    Entry(
        code="webhooks-off",
        status=403,
        title="This service has no webhooks.",
        fix="poll or stream the job, or have the operator start the service with --webhooks",
    ),
)

CATALOGUE: Mapping[str, Entry] = {
    entry.code: entry for entry in sorted([*_of_verifier(), *OF_SERVICE], key=lambda e: e.code)
}


def refused(pointer: str, detail: str, fix: str) -> Problem:
    """The refusal of one member of a body."""
    return Problem("invalid-request", f"{pointer}: {detail}", fix=fix, pointer=pointer)
