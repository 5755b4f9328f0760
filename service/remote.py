"""A gate's certificates from a service: what `lipcert gate --server` runs instead of a child.

The gate itself stays here: each certificate is checked by this machine's checker, against this
machine's copy of the model, so the service is not trusted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import httpx

from service.child import FAILED, REFUSED, Failure, Outcome
from service.client import Client, JobHasNoCertificate, ServiceRefusal
from verifier.errors import JobFailed, all_errors
from verifier.request_json import request_json

if TYPE_CHECKING:
    from verifier.property import Request

MEMBERS = ("code", "title", "detail", "node", "fix")  #: of a refusal on the command line


def certify_at(
    client: Client, model: bytes, request: Request, show: Callable[[Mapping[str, object]], None]
) -> Outcome:
    """The best certificate that the service proves within the request's budget."""
    began = time.monotonic()

    def on_progress(job: Mapping[str, Any]) -> None:
        progress = job["progress"]
        phase = progress["phase"] or job["state"]
        show({**progress, "phase": phase, "seconds": time.monotonic() - began})

    try:
        return Outcome(certificate=client.certify(model, request_json(request), on_progress))
    except JobHasNoCertificate as ended:
        error = ended.job["error"] or {"code": ended.code, "title": str(ended)}
        return _failed(error, FAILED if ended.code in _FAILURES else REFUSED)
    except ServiceRefusal as refused:
        return _failed(refused.problem, REFUSED if refused.status < 500 else FAILED)
    except httpx.TransportError as error:
        text = f"the service cannot be reached: {error}"
        fix = "see whether it runs, and at which address"
        return _failed(
            {"code": "unreachable", "title": "No answer.", "detail": text, "fix": fix}, FAILED
        )
    except KeyboardInterrupt:
        return Outcome(interrupted=True)


def _failed(error: Mapping[str, Any], exit_code: int) -> Outcome:
    members = {name: error.get(name, "" if name in ("detail", "fix") else None) for name in MEMBERS}
    return Outcome(failure=Failure(members, exit_code))


#: Codes of jobs that met no fault of the model or the question.
_FAILURES = {
    "canceled",
    "expired",
    "internal-error",
    *(error.code for error in all_errors(JobFailed)),
}
