"""Models, jobs and certificates."""

from collections.abc import Mapping

from service.openapi_examples.common import CERTIFICATE, CREATED, ENDED, JOB, MODEL, Example, page

PROPERTY: Example = {
    "kind": "lipschitz",
    "scope": "global",
    "norm": {"input": "l2", "output": "l2"},
    "region": None,
    "inputs": "all",
    "outputs": "all",
}
BUDGET: Example = {"seconds": 60.0, "gap": 0.01}
_TARGET: Example = {"upper": 10.0}

_MODEL_BODY: Example = {
    "id": MODEL,
    "state": "ready",
    "size": 14840,
    "labels": {"team": "vision"},
    "created": CREATED,
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
    "id": JOB,
    "kind": "verify",
    "state": "succeeded",
    "verdict": "certified",
    "model": MODEL,
    "property": PROPERTY,
    "method": "auto",
    "options": {},
    "budget": BUDGET,
    "target": _TARGET,
    "question": None,
    "radii": None,
    "labels": {"run": "nightly"},
    "webhook": [],
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
    "created": CREATED,
    "started": CREATED,
    "ended": ENDED,
    "deadline": None,
    "error": None,
    "certificate": CERTIFICATE,
    "cached": False,
    "resumable": False,
    "resumed_from": None,
    "version": 7,
}

_RADII: Example = {
    "model": MODEL,
    "norm": "linf",
    "radii": [{"center": 0, "label": 3, "radius": 0.05, "certificate": CERTIFICATE}],
    "quantiles": {"min": 0.05, "median": 0.05, "p90": 0.05, "max": 0.05},
}

_CERTIFICATE_BODY: Example = {
    "format": "lipcert/1",
    "claim": {
        "model": MODEL,
        **PROPERTY,
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

#: By the name of the schema.
OF_SCHEMA: Mapping[str, Example] = {
    "CertificateBody": _CERTIFICATE_BODY,
    "CertificateListBody": page(
        {
            "id": CERTIFICATE,
            "model": MODEL,
            "kind": "lipschitz",
            "scope": "global",
            "size": 4096,
            "created": ENDED,
            "bound": 1.25,
            "log10_bound": 0.09691001300805642,
            "lower": 1.0,
            "soundness": "rigorous",
            "proof": "product",
        }
    ),
    "CheckAnswerBody": {
        "valid": True,
        "digest": CERTIFICATE,
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
        "model": MODEL,
        "request": {
            "property": PROPERTY,
            "method": "auto",
            "options": {},
            "budget": BUDGET,
            "target": None,
        },
        "inputs": 64,
        "outputs": 10,
        "estimate": {
            "memory_bytes": 402653184,
            "seconds": 60.0,
            "bounds": 1,
            "weight_bytes": 29696,
            "output_bytes": 800,
            "batch_bytes": 5120,
            "inequality_rows": 96,
            "inequality_bytes": 2654208,
            "recursion_bytes": 786432,
        },
    },
    "EventListBody": {
        "items": [{"seq": 1, "type": "state", "at": CREATED, "data": {"state": "queued"}}],
        "next_seq": 1,
    },
    "JobBody": _JOB_BODY,
    "JobListBody": page(_JOB_BODY),
    "ModelBody": _MODEL_BODY,
    "ModelListBody": page(_MODEL_BODY),
    "RadiiBody": _RADII,
    "RadiusBody": {"model": MODEL, "centers": [[0.0, 0.5]], "norm": "linf", "seconds": 30.0},
    "RadiusPartBody": {"centers": [[0.0, 0.5]], "norm": "linf", "seconds": 30.0},
    "ResumeBody": {"budget": {"seconds": 600.0}},
    "SubmissionBody": {
        "model": MODEL,
        "property": {"scope": "global", "norm": "l2"},
        "budget": {"seconds": 60.0},
        "target": _TARGET,
        "labels": {"run": "nightly"},
    },
    "SubmissionPartBody": {"property": {"norm": "linf"}, "labels": {"run": "nightly"}},
}
