"""A gate's certificates from a service: what `lipcert gate --server` runs instead of a child.

The gate itself stays here: each certificate is checked by this machine's checker, against this
machine's copy of the model, so the service is not trusted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import httpx

from service.child import FAILED, REFUSED, Outcome
from service.client import Client, JobHasNoCertificate, ServiceRefusal
from service.failures import failure, failure_of_job
from verifier.request_json import request_json

if TYPE_CHECKING:
    from verifier.property import Request


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
