"""From an upload to a certificate, over real HTTP and real processes."""

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
from service_fakes import model
from service_process import Service, eventually, problem

from verifier.certificate_json import certificate_id
from verifier.certificate_reader import parse_certificate


@pytest.fixture
def service(either_service: Service) -> Service:
    """Everything here holds on both databases."""
    return either_service


def test_a_model_becomes_a_certificate(service: Service) -> None:
    model_id = service.upload(model(["publish", 8.0]))
    job = service.submit(model_id, wait=20, target={"upper": 5.0})
    assert (job["state"], job["verdict"], job["progress"]["upper"]) == (
        "succeeded",
        "certified",
        4.0,
    )
    answer = service.client.get(f"/v1/jobs/{job['id']}/certificate")
    certificate = parse_certificate(answer.content)
    assert certificate_id(certificate) == job["certificate"]
    assert certificate.claim.model == model_id


def test_a_certificate_is_fetched_by_id_for_ever(service: Service) -> None:
    job = service.submit(service.upload(model("for ever")), wait=20)
    path = f"/v1/certificates/{job['certificate']}"
    first = service.client.get(path)
    assert first.headers["etag"] == f'"{job["certificate"]}"'
    assert "immutable" in first.headers["cache-control"]
    again = service.client.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert job["certificate"] in _ids(service.client.get("/v1/certificates"))
    assert problem(service.client.get(path, headers={"Accept": "image/png"}))["code"] == (
        "not-acceptable"
    )


def test_one_call_submits_the_model_and_the_request(service: Service) -> None:
    data = model("one call")
    response = service.client.post(
        "/v1/jobs",
        files={"model": ("m.onnx", data), "request": (None, json.dumps({"method": "product"}))},
        headers={"Prefer": "wait=20"},
    )
    job = response.json()
    assert (response.status_code, job["state"], job["method"]) == (200, "succeeded", "product")
    assert service.client.get(f"/v1/models/{job['model']}/content").content == data


def test_one_call_needs_no_request(service: Service) -> None:
    response = service.client.post("/v1/jobs", files={"model": ("m.onnx", model("defaults"))})
    assert response.status_code == 202
    assert response.json()["budget"] == {"seconds": 60.0, "gap": 0.01}
    assert service.ended(response.json()["id"])["state"] == "succeeded"


def test_an_equal_request_is_answered_from_what_is_stored(service: Service) -> None:
    model_id = service.upload(model("cache"))
    first = service.submit(model_id, wait=20)
    second = service.submit(model_id)
    assert (second["cached"], second["certificate"]) == (True, first["certificate"])
    assert [event["type"] for event in service.events(second["id"])] == ["state", "end"]


@pytest.mark.parametrize(
    "harder",
    [{"budget": {"seconds": 61}}, {"budget": {"gap": 0.001}}, {"target": {"upper": 2.0}}],
)
def test_a_loose_answer_does_not_answer_a_harder_request(
    service: Service, harder: dict[str, dict[str, float]]
) -> None:
    model_id = service.upload(model("loose"))
    service.submit(model_id, wait=20)
    assert not _submit(service, model_id, harder)["cached"]


def test_the_same_idempotency_key_brings_the_same_job(service: Service) -> None:
    body = {"model": service.upload(model("idempotent"))}
    headers = {"Idempotency-Key": "key-1"}
    first = service.client.post("/v1/jobs", json=body, headers=headers).json()
    second = service.client.post("/v1/jobs", json=body, headers=headers).json()
    assert first["id"] == second["id"]
    other = service.client.post("/v1/jobs", json={**body, "priority": 1}, headers=headers)
    assert problem(other)["code"] == "idempotency-key-reused"


def test_validate_only_stores_nothing(service: Service) -> None:
    model_id = service.upload(model("validate"))
    url = "/v1/jobs?validate_only=true"
    answer = service.client.post(url, json={"model": model_id, "method": "product"})
    assert (answer.json()["inputs"], answer.json()["outputs"]) == (3, 2)
    region = {"type": "box", "center": [0, 0], "radius": 1}
    refused = service.client.post(url, json={"model": model_id, "property": {"region": region}})
    assert problem(refused)["errors"][0]["pointer"] == "/property/region"
    assert service.client.get(f"/v1/jobs?model={model_id}").json()["items"] == []


def test_a_long_poll_answers_at_the_next_change(
    service: Service, tmp_path_factory: pytest.TempPathFactory
) -> None:
    gate = tmp_path_factory.mktemp("poll") / "gate"
    job = service.submit(service.upload(model(["wait-for", str(gate)])))
    url = f"/v1/jobs/{job['id']}"
    running = eventually(lambda: _running(service, job["id"]))
    quick = {"If-None-Match": running.headers["etag"], "Prefer": "wait=1"}
    unchanged = service.client.get(url, headers=quick)
    if unchanged.status_code == 200:  # progress came between the two requests
        unchanged = service.client.get(
            url, headers={**quick, "If-None-Match": unchanged.headers["etag"]}
        )
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    gate.touch()
    ended = service.client.get(url, headers={"Prefer": "wait=30"})
    assert ended.json()["state"] == "succeeded"
    assert ended.headers["preference-applied"] == "wait=30"
    assert "retry-after" not in ended.headers


def test_events_are_numbered_without_gaps_and_can_be_resumed(service: Service) -> None:
    job = service.submit(service.upload(model(["publish", 9.0])), wait=20)
    numbers, types = _stream(service, job["id"], {})
    assert numbers == list(range(1, len(numbers) + 1))
    assert types[0] == "state"
    assert types[-1] == "end"
    later, _ = _stream(service, job["id"], {"Last-Event-ID": "2"})
    assert later == numbers[2:]
    assert [event["seq"] for event in service.events(job["id"])] == numbers


def test_a_stream_follows_a_job_that_runs(
    service: Service, tmp_path_factory: pytest.TempPathFactory
) -> None:
    gate = tmp_path_factory.mktemp("stream") / "gate"
    job = service.submit(service.upload(model(["publish", 9.0], ["wait-for", str(gate)])))
    seen: list[str] = []
    with _connect(service, job["id"], {}) as response:
        for line in response.iter_lines():
            if line.startswith("event: "):
                seen.append(line.removeprefix("event: "))
            if '"upper":9.0' in line.replace(" ", ""):
                gate.touch()
    assert (seen[0], seen[-1]) == ("state", "end")


def test_branch_and_bound_tells_what_is_open(service: Service, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    steps = (["publish", 8.0], "divide", ["wait-for", str(gate)])
    job = service.submit(service.upload(model(*steps)))
    told = {"upper": 8.0, "lower": 1.0, "gap": 7.0, "phase": "branch: dividing"}
    expected = {**told, "open": 34, "done": 2, "eta_seconds": None}
    eventually(lambda: service.job(job["id"])["progress"] == expected)
    events = [event["data"] for event in service.events(job["id"])]
    assert expected in events
    gate.touch()
    service.ended(job["id"])


def test_lists_come_in_pages(service: Service) -> None:
    model_id = service.upload(model("pages"))
    made = [service.submit(model_id, labels={"n": str(n)}, wait=20)["id"] for n in range(5)]
    found: list[str] = []
    url = f"/v1/jobs?model={model_id}&limit=2"
    while url:
        response = service.client.get(url)
        found += _ids(response)
        url = response.links.get("next", {}).get("url", "")
    # Two that were made in the same millisecond stand in the order of their ids.
    created = [service.job(job_id)["created"] for job_id in found]
    assert (sorted(found), created) == (sorted(made), sorted(created, reverse=True))
    assert problem(service.client.get("/v1/jobs?cursor=!"))["code"] == "invalid-request"


def test_a_certificate_is_checked_again(service: Service) -> None:
    job = service.submit(service.upload(model("check again")), wait=20)
    certificate = service.client.get(f"/v1/jobs/{job['id']}/certificate").json()
    answer = _check(service, {"certificate": certificate}).json()
    said = {"valid": True, "digest": job["certificate"], "reason": "", "code": "valid"}
    assert answer == said | {"signature": None}


def test_an_altered_certificate_is_rejected(service: Service) -> None:
    job = service.submit(service.upload(model("altered")), wait=20)
    certificate = service.client.get(f"/v1/jobs/{job['id']}/certificate").json()
    certificate["claim"]["bound"] = 3.0
    answer = _check(service, {"certificate": certificate}).json()
    assert (answer["valid"], answer["code"]) == (False, "malformed")


def test_a_certificate_of_a_model_that_is_gone_is_not_checked(service: Service) -> None:
    model_id = service.upload(model("gone"))
    job = service.submit(model_id, wait=20)
    certificate = service.client.get(f"/v1/jobs/{job['id']}/certificate").json()
    assert service.client.delete(f"/v1/models/{model_id}").status_code == 204
    assert service.client.get(f"/v1/certificates/{job['certificate']}").status_code == 200
    assert problem(_check(service, {"certificate": certificate}))["code"] == "model-not-here"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "malformed-json"),
        (b'{"certificate": {}, "certificate": {}}', "malformed-json"),
        (b"{}", "invalid-request"),
        (b'{"certificate": {}, "extra": 1}', "invalid-request"),
        (b'{"certificate": {}, "model": 1}', "invalid-request"),
        (b" " * 200_001, "payload-too-large"),
    ],
)
def test_what_is_no_check_is_refused(service: Service, body: bytes, code: str) -> None:
    headers = {"Content-Type": "application/json"}
    response = service.client.post("/v1/certificates/check", content=body, headers=headers)
    assert problem(response)["code"] == code


def _submit(service: Service, model_id: str, members: Mapping[str, object]) -> dict[str, Any]:
    return service.client.post("/v1/jobs", json={"model": model_id, **members}).json()


def _check(service: Service, body: object) -> httpx.Response:
    return service.client.post("/v1/certificates/check", json=body)


def _ids(response: httpx.Response) -> list[str]:
    return [item["id"] for item in response.json()["items"]]


def _running(service: Service, job_id: str) -> httpx.Response | None:
    response = service.client.get(f"/v1/jobs/{job_id}")
    return response if response.json()["progress"]["phase"] else None


def _connect(
    service: Service, job_id: str, headers: dict[str, str]
) -> AbstractContextManager[httpx.Response]:
    accept = {"Accept": "text/event-stream", **headers}
    return service.client.stream("GET", f"/v1/jobs/{job_id}/events", headers=accept)


def _stream(service: Service, job_id: str, headers: dict[str, str]) -> tuple[list[int], list[str]]:
    with _connect(service, job_id, headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = list(response.iter_lines())
    numbers = [int(line.removeprefix("id: ")) for line in lines if line.startswith("id: ")]
    types = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    return numbers, types
