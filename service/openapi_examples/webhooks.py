"""Webhooks, their deliveries, and what receivers are sent."""

from collections.abc import Mapping

from service.openapi_examples.common import (
    CERTIFICATE,
    CREATED,
    ENDED,
    JOB,
    MODEL,
    WEBHOOK,
    Example,
    page,
)

_WEBHOOK: Example = {
    "id": WEBHOOK,
    "url": "https://ci.example.org/lipcert",
    "events": ["job.finished", "gate.finished"],
    "jobs": "all",
    "label": "ci",
    "enabled": True,
    "disabled": None,
    "failing_since": None,
    "old_secret_until": None,
    "created": CREATED,
}

_DELIVERY: Example = {
    "id": "c20ad4d76fe97759aa27a0c99bff6710",
    "webhook": WEBHOOK,
    "event": "job.finished",
    "subject": JOB,
    "state": "delivered",
    "tries": 1,
    "due": None,
    "outcome": "delivered",
    "status": 204,
    "created": CREATED,
    "ended": ENDED,
}

#: By the name of the schema.
OF_SCHEMA: Mapping[str, Example] = {
    "DeliveryBody": _DELIVERY,
    "DeliveryListBody": page(_DELIVERY),
    "MadeWebhookBody": {**_WEBHOOK, "secret": f"whsec_{'A' * 43}="},
    "NewWebhookBody": {"url": "https://ci.example.org/lipcert", "label": "ci"},
    "WebhookBody": _WEBHOOK,
    "WebhookChangeBody": {"events": ["job.finished"], "enabled": True},
    "WebhookListBody": page(_WEBHOOK),
    "WebhookMessageBody": {
        "type": "job.finished",
        "timestamp": ENDED,
        "data": {
            "job": JOB,
            "kind": "verify",
            "model": MODEL,
            "state": "succeeded",
            "verdict": "certified",
            "bound": 1.25,
            "certificate": CERTIFICATE,
            "error": None,
            "links": {
                "job": f"/v1/jobs/{JOB}",
                "certificate": f"/v1/certificates/{CERTIFICATE}",
            },
        },
    },
}
