"""An example of every body in the contract; a test has each read by the schema that it is of."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

Document: TypeAlias = dict[str, Any]  # Any: the OpenAPI document's own nesting
Example: TypeAlias = dict[str, object]

REFERENCE = "#/components/schemas/"

_MODEL = f"sha256:{'3b' * 32}"
_CERTIFICATE = f"sha256:{'7c' * 32}"
_JOB = "8f14e45fceea167a5a36dedd4bea2543"
_CREATED, _ENDED = "2026-01-02T03:04:05.678Z", "2026-01-02T03:04:08.123Z"

_PROPERTY: Example = {
    "kind": "lipschitz",
    "scope": "global",
    "norm": {"input": "l2", "output": "l2"},
    "region": None,
    "inputs": "all",
    "outputs": "all",
}
_BUDGET: Example = {"seconds": 60.0, "gap": 0.01}
_TARGET: Example = {"upper": 10.0}

_MODEL_BODY: Example = {
    "id": _MODEL,
    "state": "ready",
    "size": 14840,
    "labels": {"team": "vision"},
    "created": _CREATED,
    "summary": {"opset": 17, "input": {"name": "x", "shape": [64], "size": 64}},
    "capabilities": {
        "lipsdp": {
            "global": {
                "available": False,
                "code": "not-lipschitz-globally",
                "node": "/exp",
                "reason": "exp has slopes of every size; over a region it has bounds",
            },
            "local": {"available": True, "code": None, "node": None, "reason": None},
        },
    },
    "error": None,
}

_JOB_BODY: Example = {
    "id": _JOB,
    "kind": "verify",
    "state": "succeeded",
    "verdict": "certified",
    "model": _MODEL,
    "property": _PROPERTY,
    "method": "auto",
    "options": {},
    "budget": _BUDGET,
    "target": _TARGET,
    "question": None,
    "radii": None,
    "labels": {"run": "nightly"},
    "priority": 0,
    "progress": {
        "upper": 1.25,
        "lower": 1.0,
        "gap": 0.25,
        "phase": "lipsdp",
        "open": None,
        "done": 12,
        "eta_seconds": None,
    },
    "attempt": 1,
    "created": _CREATED,
    "started": _CREATED,
    "ended": _ENDED,
    "deadline": None,
    "error": None,
    "certificate": _CERTIFICATE,
    "cached": False,
    "resumable": False,
    "resumed_from": None,
    "version": 7,
}

_RADII: Example = {
    "model": _MODEL,
    "norm": "linf",
    "radii": [{"center": 0, "label": 3, "radius": 0.05, "certificate": _CERTIFICATE}],
    "quantiles": {"min": 0.05, "median": 0.05, "p90": 0.05, "max": 0.05},
}

_CERTIFICATE_BODY: Example = {
    "format": "lipcert/1",
    "claim": {
        "model": _MODEL,
        **_PROPERTY,
        "semantics": "real",
        "bound": 1.25,
        "bound_hex": "0x1.4000000000000p+0",
        "log10_bound": 0.09691001300805642,
        "assumptions": [],
        "bounds": None,
    },
    "lower_bound": None,
    "target": _TARGET,
    "soundness": "rigorous",
    "verdict": "certified",
    "proof": {"kind": "product", "patterns": [], "items": []},
    "attempts": [],
    "producer": {"version": "0.1.0", "torch": "2.13.0", "seed": 0, "sandbox": "full"},
    "resources": {"seconds": 2.1},
}

_KEY: Example = {
    "id": "Ab3dE6gH",
    "scope": "submit",
    "label": "ci",
    "created": _CREATED,
    "expires": None,
    "revoked": None,
    "last_used": None,
}

_PROBLEM: Example = {
    "type": "/problems/invalid-request",
    "code": "invalid-request",
    "title": "The request is malformed, or asks for what does not exist.",
    "status": 422,
    "detail": "/property/norm: norm 'l3' is not supported",
    "fix": "use one of l1, l2, linf",
    "request_id": "0123456789abcdef",
    "errors": [{"pointer": "/property/norm", "detail": "norm 'l3' is not supported"}],
}


def _page(item: Example) -> Example:
    return {"items": [item], "next_cursor": None}


#: By the name of the schema.
OF_SCHEMA: Mapping[str, Example] = {
    "CertificateBody": _CERTIFICATE_BODY,
    "CertificateListBody": _page(
        {
            "id": _CERTIFICATE,
            "model": _MODEL,
            "kind": "lipschitz",
            "scope": "global",
            "size": 4096,
            "created": _ENDED,
            "bound": 1.25,
            "log10_bound": 0.09691001300805642,
            "lower": 1.0,
            "soundness": "rigorous",
            "proof": "product",
        }
    ),
    "CheckAnswerBody": {
        "valid": True,
        "digest": _CERTIFICATE,
        "reason": "the proof proves the claim",
        "code": "valid",
        "signature": None,
    },
    "CheckBody": {"certificate": _CERTIFICATE_BODY},
    "EnvelopeOfCertificateBody": {
        "payloadType": "application/vnd.in-toto+json",
        "payload": "eyJfdHlwZSI6ICJodHRwczovL2luLXRvdG8uaW8vU3RhdGVtZW50L3YxIn0=",
        "signatures": [{"keyid": "5e" * 32, "sig": "c2lnbmF0dXJl"}],
    },
    "EstimateBody": {
        "valid": True,
        "model": _MODEL,
        "request": {
            "property": _PROPERTY,
            "method": "auto",
            "options": {},
            "budget": _BUDGET,
            "target": None,
        },
        "inputs": 64,
        "outputs": 10,
    },
    "EventListBody": {
        "items": [{"seq": 1, "type": "state", "at": _CREATED, "data": {"state": "queued"}}],
        "next_seq": 1,
    },
    "HealthBody": {"status": "ok"},
    "JobBody": _JOB_BODY,
    "JobListBody": _page(_JOB_BODY),
    "KeyListBody": _page(_KEY),
    "MadeKeyBody": {**_KEY, "key": f"lck_Ab3dE6gH_{'x' * 43}"},
    "ModelBody": _MODEL_BODY,
    "ModelListBody": _page(_MODEL_BODY),
    "NewKeyBody": {"scope": "submit", "label": "ci", "expires": "2099-01-01T00:00:00Z"},
    "ProblemBody": _PROBLEM,
    "PublicKeysBody": {
        "keys": [
            {
                "keyid": "5e" * 32,
                "type": "ed25519",
                "public_key": "A" * 43 + "=",
                "not_before": None,
                "not_after": None,
            }
        ]
    },
    "RadiiBody": _RADII,
    "RadiusBody": {"model": _MODEL, "centers": [[0.0, 0.5]], "norm": "linf", "seconds": 30.0},
    "RadiusPartBody": {"centers": [[0.0, 0.5]], "norm": "linf", "seconds": 30.0},
    "ReadinessBody": {
        "status": "ready",
        "database": True,
        "migration": "0003",
        "blobs": True,
        "dispatcher": True,
        "executor": {"kind": "local", "running": 0, "threads": 1},
        "telemetry": "off",
        "sandbox": "full",
    },
    "ResumeBody": {"budget": {"seconds": 600.0}},
    "SubmissionBody": {
        "model": _MODEL,
        "property": {"scope": "global", "norm": "l2"},
        "budget": {"seconds": 60.0},
        "target": _TARGET,
        "labels": {"run": "nightly"},
    },
    "SubmissionPartBody": {"property": {"norm": "linf"}, "labels": {"run": "nightly"}},
    "VersionBody": {"version": "0.1.0", "formats": ["lipcert/1"]},
}

#: By media type, for bodies that are no JSON object of ours.
OF_MEDIA: Mapping[str, object] = {
    "application/octet-stream": "the bytes of an ONNX file",
    "application/onnx": "the bytes of an ONNX file",
    "application/schema+json": {"$schema": "https://json-schema.org/draft/2020-12/schema"},
    "application/x-onnx": "the bytes of an ONNX file",
    "text/event-stream": 'id: 1\nevent: state\ndata: {"seq": 1, "type": "state"}\n\n',
    "text/plain": "lipcert_dispatcher_up 1.0\n",
}


def add_examples(document: Document) -> None:
    """Give every body of the document its example; those of schemas as components."""
    used: set[str] = set()
    for media, body in bodies(document):
        names = list(_names(body.get("schema", {})))
        if media == "multipart/form-data":
            part = {"model": OF_MEDIA["application/octet-stream"], "request": OF_SCHEMA[names[0]]}
            body["example"] = part
        elif media in OF_MEDIA:
            body["example"] = OF_MEDIA[media]
        else:
            known = [name for name in names if name in OF_SCHEMA]
            used |= set(known)
            if known:
                body["examples"] = {n: {"$ref": f"#/components/examples/{n}"} for n in known}
    document["components"]["examples"] = {name: {"value": OF_SCHEMA[name]} for name in sorted(used)}


def bodies(document: Document) -> Iterator[tuple[str, Document]]:
    """(media type, media type object) of every body, asked for and answered."""
    for operations in document["paths"].values():
        for operation in operations.values():
            for holder in (operation.get("requestBody", {}), *operation["responses"].values()):
                yield from holder.get("content", {}).items()


def _names(schema: Mapping[str, Any]) -> Iterator[str]:
    """The names of the schemas that a body is one of."""
    if "$ref" in schema:
        yield str(schema["$ref"]).removeprefix(REFERENCE)
    for part in (*schema.get("anyOf", ()), *schema.get("properties", {}).values()):
        yield from _names(part)
