"""Jobs and radii as clients see them."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, cast

from service.blobs import Blobs
from service.context import time_text
from service.store.jobs import Job
from verifier.radius_json import RingJson, answer_json, unanswered

ASKED = ("property", "method", "options", "budget", "target")  #: members of a request


def job_json(job: Job) -> dict[str, object]:
    """A job on the wire."""
    request: Mapping[str, Any] = job.request if job.kind == "verify" else {}
    return {
        "id": job.id,
        "kind": job.kind,
        "state": job.state,
        "verdict": job.verdict,
        "model": job.model,
        **{name: request.get(name) for name in ASKED},
        "question": job.request if job.kind == "radius" else None,
        "radii": radii_json(job) if job.kind == "radius" else None,
        "labels": job.labels,
        "webhook": job.webhook or [],
        "priority": job.priority,
        "progress": job.progress,
        "attempt": job.attempt,
        "created": time_text(job.created),
        "started": time_text(job.started),
        "ended": time_text(job.ended),
        "deadline": time_text(job.deadline),
        "error": job.error,
        "certificate": job.certificate,
        "cached": job.cached,
        "resumable": job.is_resumable,
        "resumed_from": job.resumed_from,
        "version": job.version,
    }


def radii_json(job: Job) -> dict[str, object]:
    """The radii that the checker has accepted; certificates by id, once the job has ended."""
    none = unanswered(job.request["label"])
    rings = [
        none
        if ring is None
        else RingJson(
            label=ring["label"],
            radius=ring["radius"],
            certificate=ring["id"] if job.has_ended else None,
        )
        for ring in _rings(job)
    ]
    return answer_json(job.model, job.request["norm"], rings)


def radii_text(job: Job, blobs: Blobs) -> Iterator[bytes]:
    """The same in JSON text, with the certificates themselves in the place of their ids.

    In parts, no larger than a certificate: there may be many.
    """
    answer = radii_json(job)
    entries = cast("list[Mapping[str, object]]", answer.pop("radii"))
    yield json.dumps(answer).encode()[:-1] + b', "radii": ['
    comma = b""
    for entry, ring in zip(entries, _rings(job), strict=True):
        members = {name: entry[name] for name in ("center", "label", "radius")}
        yield comma + json.dumps(members).encode()[:-1] + b', "certificate": '
        yield b"null" if ring is None else _text(job, ring, blobs)
        yield b"}"
        comma = b", "
    yield b"]}"


def _rings(job: Job) -> list[Mapping[str, Any] | None]:
    """Of every center what the checker accepted."""
    if job.incumbent is None:
        return [None] * len(job.request["centers"])
    return job.incumbent["rings"]


def _text(job: Job, ring: Mapping[str, Any], blobs: Blobs) -> bytes:
    return blobs.place("certificates", job.tenant, ring["blob"]).read_bytes()
