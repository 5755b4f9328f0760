"""What a request says beside the file: it lifts a refusal, and a gate wants to be told of it."""

import json
from typing import Any

import pytest
import yaml
from service_fakes import model
from service_process import Service, problem

from service.child import Outcome
from service.gate import decide, parse_policy
from service.remedies import lifts
from tests.test_ends import overridable
from verifier.certificate_json import certificate_json
from verifier.errors import InvalidRequest
from verifier.verify import verify

BOUND = {"property": {"bind": {"shapes": {"N": 4}}}}


def test_a_refusal_is_lifted_by_the_request_that_says_what_it_lacks(service: Service) -> None:
    model_id = service.upload(model("symbolic"))
    answer = service.client.get(f"/v1/models/{model_id}").json()
    assert (answer["state"], answer["error"]["code"]) == ("refused", "dynamic-shape")
    plain = service.client.post("/v1/jobs", json={"model": model_id})
    assert problem(plain)["code"] == "dynamic-shape"
    asked = service.client.post("/v1/jobs", json={"model": model_id, **BOUND})
    job = service.ended(asked.json()["id"])
    assert job["state"] == "succeeded"


def test_a_job_that_waits_for_its_model_is_not_failed_by_a_refusal_that_it_lifts(
    service: Service,
) -> None:
    files = {
        "model": ("m.onnx", model("symbolic", bound=5.0)),
        "request": (None, json.dumps(BOUND), "application/json"),
    }
    asked = service.client.post("/v1/jobs", files=files)
    assert service.ended(asked.json()["id"])["state"] == "succeeded"


def test_remedies_are_for_their_own_refusals() -> None:
    assert lifts(BOUND, "dynamic-shape")
    assert not lifts(BOUND, "overridable-initializer")
    assert lifts({"options": {"freeze_initializers": True}}, "overridable-initializer")
    assert lifts({"property": {"bind": {"values": {"i": [1]}}}}, "unsupported-dtype")
    assert not lifts({}, "dynamic-shape")
    assert not lifts(BOUND, "not-onnx")


@pytest.mark.parametrize(
    ("allowed", "outcome"), [([], "error"), (["overridable-initializer"], "pass")]
)
def test_a_gate_wants_assumptions_to_be_allowed(allowed: list[str], outcome: str) -> None:
    rule: dict[str, Any] = {
        "name": "frozen",
        "max_bound": 4,
        "method": "product",
        "options": {"freeze_initializers": True},
        "budget": {"seconds": 1},
        "allow_assumptions": allowed,
    }
    rules = parse_policy(yaml.safe_dump({"version": 1, "rules": [rule]}).encode())
    decision = decide(
        overridable(8),
        rules,
        certify=lambda data, request, _: Outcome(
            certificate=certificate_json(verify(data, request))
        ),
    )
    assert decision.rules[0].outcome == outcome


def test_an_assumption_that_there_is_not_cannot_be_allowed() -> None:
    policy = b"{version: 1, rules: [{name: a, max_bound: 1, allow_assumptions: [trust-me]}]}"
    with pytest.raises(InvalidRequest, match="allow_assumptions"):
        parse_policy(policy)
