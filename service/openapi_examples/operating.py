"""Keys, limits, the audit log, and what the service says of itself."""

from collections.abc import Mapping

from service.openapi_examples.common import CERTIFICATE, CREATED, Example, page

_KEY: Example = {
    "id": "Ab3dE6gH",
    "scope": "submit",
    "label": "ci",
    "created": CREATED,
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


_AUDIT_ENTRY: Example = {
    "tenant": "default",
    "seq": 17,
    "at": 1767323045678,
    "actor": "dispatcher",
    "action": "certificate.issued",
    "subject": CERTIFICATE,
    "details": {},
    "previous": "2d" * 32,
    "hash": "3f" * 32,
    "time": CREATED,
}

#: By the name of the schema.
OF_SCHEMA: Mapping[str, Example] = {
    "AuditListBody": {
        "items": [_AUDIT_ENTRY],
        "next_seq": 17,
        "head": {"seq": 17, "hash": "3f" * 32},
    },
    "HealthBody": {"status": "ok"},
    "KeyListBody": page(_KEY),
    "MadeKeyBody": {**_KEY, "key": f"lck_Ab3dE6gH_{'x' * 43}"},
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
    "ReadinessBody": {
        "status": "ready",
        "database": True,
        "backend": "sqlite",
        "migration": "0003",
        "blobs": True,
        "dispatcher": True,
        "executor": {"kind": "local", "running": 0, "threads": 1},
        "telemetry": "off",
        "sandbox": "full",
    },
    "UsageBody": {
        "tenant": "default",
        "limits": {
            "queued_jobs": {"limit": 20000, "used": 3},
            "budget_seconds": {"limit": 600, "used": None},
            "cpu_seconds_per_day": {
                "limit": None,
                "used": 812.5,
                "resets": "2026-01-03T00:00:00.000Z",
            },
        },
    },
    "VersionBody": {"version": "0.1.0", "formats": ["lipcert/1"]},
}
