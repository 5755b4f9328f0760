"""Policies over REST: versions that never change, found by name, number and digest."""

import json
from typing import Any

import httpx
import pytest
import yaml
from service_process import Service, problem

from service.gate import policy_json, rules_of
from verifier.canonical_json import content_id

RULE = {"name": "one", "property": {"norm": "l2"}, "max_bound": 5.0}


def policy(**changes: object) -> dict[str, object]:
    return {"version": 1, "rules": [{**RULE, **changes}]}


def put(service: Service, name: str, value: object, **headers: str) -> httpx.Response:
    return service.client.put(f"/v1/policies/{name}", json=value, headers=headers)


def test_a_change_is_a_new_version_and_a_repetition_is_none(service: Service) -> None:
    first, again = put(service, "versions", policy()), put(service, "versions", policy())
    second = put(service, "versions", policy(max_bound=6))
    back = put(service, "versions", policy())
    answers = [first, again, second, back]
    assert [answer.status_code for answer in answers] == [201, 200, 201, 201]
    assert [answer.json()["version"] for answer in answers] == [1, 1, 2, 3]
    assert [answer.headers["etag"] for answer in answers] == ['"1"', '"1"', '"2"', '"3"']
    assert first.json()["digest"] == back.json()["digest"] != second.json()["digest"]
    path = "/v1/policies/versions"
    assert service.client.get(path).json() == back.json()
    assert service.client.get(f"{path}?version=2").json() == second.json()
    assert service.client.get(f"/v1/policies/{second.json()['digest']}").json() == second.json()
    assert service.client.get(path, headers={"If-None-Match": '"3"'}).status_code == 304
    assert service.client.get(first.headers["location"]).json() == first.json()


def test_yaml_and_json_of_one_policy_are_one_version(service: Service) -> None:
    said = put(service, "formats", policy(max_bound=1e5)).json()
    text = yaml.safe_dump({"rules": policy(max_bound=100000)["rules"], "version": 1})
    headers = {"Content-Type": "application/yaml"}
    answer = service.client.put("/v1/policies/formats", content=text, headers=headers)
    assert (answer.status_code, answer.json()) == (200, said)
    # Whoever has the policy can compute its digest.
    assert content_id(said["policy"]) == said["digest"]
    assert policy_json(rules_of(said["policy"])) == said["policy"]


def test_a_stale_change_is_refused(service: Service) -> None:
    assert put(service, "stale", policy(), **{"If-Match": "*"}).status_code == 412
    assert put(service, "stale", policy(), **{"If-None-Match": "*"}).status_code == 201
    assert put(service, "stale", policy(max_bound=6), **{"If-Match": '"0", "1"'}).status_code == 201
    for stale in ({"If-Match": '"1"'}, {"If-None-Match": "*"}):
        refused = put(service, "stale", policy(max_bound=7), **stale)
        assert problem(refused)["code"] == "precondition-failed"
        assert refused.status_code == 412
    path, stale = "/v1/policies/stale", {"If-Match": '"1"'}
    assert service.client.delete(path, headers=stale).status_code == 412
    assert service.client.get(path).json()["policy"]["rules"][0]["max_bound"] == 6


def test_a_deleted_policy_is_hidden_and_stays(service: Service) -> None:
    stored = put(service, "deleted", policy(max_bound=0.25)).json()
    path = "/v1/policies/deleted"
    assert service.client.delete(path).status_code == 204
    for gone in (service.client.get(path), service.client.get(f"{path}?version=1")):
        assert problem(gone)["code"] == "not-found"
    assert service.client.delete(path).status_code == 404
    kept = service.client.get(f"/v1/policies/{stored['digest']}").json()
    assert kept["policy"] == stored["policy"]
    assert kept["deleted"] is not None
    # A number is never given twice.
    assert put(service, "deleted", policy(max_bound=0.25)).json()["version"] == 2


def test_policies_are_listed_in_their_newest_versions(service: Service) -> None:
    for name in ("list-a", "list-b", "list-a"):
        put(service, name, policy(name=name, max_bound=len(listed(service))))
    newest = {item["name"]: item["version"] for item in listed(service)}
    assert (newest["list-a"], newest["list-b"]) == (2, 1)
    page = service.client.get("/v1/policies?limit=1")
    assert len(page.json()["items"]) == 1
    following = service.client.get(page.links["next"]["url"]).json()["items"]
    assert following != page.json()["items"]


def listed(service: Service) -> list[dict[str, Any]]:
    return service.client.get("/v1/policies?limit=200").json()["items"]


@pytest.mark.parametrize(
    ("value", "pointer"),
    [
        (policy(property={"norm": "l3"}), "/rules/0"),
        (policy(options={"stepz": 1}), "/options/stepz"),
        (policy(name="\x07"), "/rules/0/name"),
        ([], ""),
    ],
    ids=str,
)
def test_what_is_no_policy_is_refused(value: object, pointer: str, service: Service) -> None:
    said = problem(put(service, "refused", value))
    assert (said["code"], said["errors"][0]["pointer"]) == ("invalid-request", pointer)
    assert service.client.get("/v1/policies/refused").status_code == 404


def test_hostile_bodies_are_refused(service: Service) -> None:
    path = "/v1/policies/hostile"
    for kind, text, status in (
        ("application/yaml", "a: &a [x]\nb: *a", 422),
        ("application/json", '{"version": 1, "version": 1}', 400),
        ("application/xml", "<policy/>", 415),
        ("application/json", json.dumps(policy(name="x" * 2**18)), 413),
        ("application/json", json.dumps(policy(options={"seed": 2**60 + 1})), 422),
        ("application/json", json.dumps(policy(options={"solver": "\ud800"})), 422),
    ):
        answer = service.client.put(path, content=text, headers={"Content-Type": kind})
        assert answer.status_code == status, text[:100]
        problem(answer)
