"""Policies and gates."""

from collections.abc import Mapping

from service.openapi_examples.common import (
    CERTIFICATE,
    CREATED,
    ENDED,
    GATE,
    JOB,
    MODEL,
    POLICY,
    Example,
    page,
)
from service.openapi_examples.work import BUDGET, PROPERTY

_POLICY_NAME: Example = {
    "name": "production",
    "version": 2,
    "digest": POLICY,
    "created": CREATED,
}

_RULE: Example = {
    "name": "smooth everywhere",
    "property": {**PROPERTY, "monotone": None, "bind": {"shapes": {}, "values": {}}},
    "method": "auto",
    "options": {},
    "budget": BUDGET,
    "max_bound": 10.0,
    "on_undecided": "fail",
}

_SUMMARY: Example = {
    "id": GATE,
    "outcome": "pass",
    "exit_code": 0,
    "model": MODEL,
    "policy": {"name": "production", "version": 2, "digest": POLICY},
    "created": CREATED,
    "decided": ENDED,
    "version": 2,
}

_DECIDED_RULE: Example = {
    "name": "smooth everywhere",
    "outcome": "pass",
    "max_bound": 10.0,
    "bound": 1.25,
    "lower_bound": 1.0,
    "margin": 8.75,
    "seconds": 2.1,
    "on_undecided": "fail",
    "blocking": False,
    "reason": "1.25 <= 10",
    "job": JOB,
    "certificate": CERTIFICATE,
    "error": None,
}

#: By the name of the schema.
OF_SCHEMA: Mapping[str, Example] = {
    "GateBody": {**_SUMMARY, "rules": [_DECIDED_RULE]},
    "GateListBody": page(_SUMMARY),
    "GateSubmissionBody": {"model": MODEL, "policy": "production"},
    "PolicyBody": {
        **_POLICY_NAME,
        "deleted": None,
        "policy": {"version": 1, "rules": [_RULE]},
    },
    "PolicyDocumentBody": {
        "version": 1,
        "rules": [{"name": "smooth everywhere", "property": {"norm": "l2"}, "max_bound": 10.0}],
    },
    "PolicyListBody": page(_POLICY_NAME),
}
