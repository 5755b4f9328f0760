"""Radii over HTTP: a job like any other, whose balls are those that the checker accepted."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from service_fakes import model
from service_process import Service, eventually, kill, pids_in, problem

from verifier.certificate_reader import certificate_from_json
from verifier.regions import CenterBox

CENTERS = [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]


def _submit(service: Service, data: bytes, wait: int = 0, **members: object) -> dict[str, Any]:
    body = {"model": service.upload(data), "centers": CENTERS, **members}
    headers = {"Prefer": f"wait={wait}"} if wait else {}
    response = service.client.post("/v1/radius", json=body, headers=headers)
    assert response.status_code in (200, 202), response.text
    assert response.headers["location"] == f"/v1/jobs/{response.json()['id']}"
    return response.json()


def _radii(job: dict[str, Any]) -> list[float]:
    return [ring["radius"] for ring in job["radii"]["radii"]]


def _waits_for_radii(service: Service, job_id: str, radii: list[float]) -> None:
    eventually(lambda: _radii(service.job(job_id)) == radii)


def test_every_center_has_its_largest_ball_with_its_certificate(service: Service) -> None:
    data = model(["ring", [0, 0.5]], ["ring", [1, 1.0]], ["ring", [1, 2.0]])
    job = _submit(service, data, wait=20, labels={"set": "two"})
    assert (job["kind"], job["state"], job["verdict"]) == ("radius", "succeeded", "certified")
    assert (job["property"], job["budget"], job["certificate"]) == (None, None, None)
    assert job["question"] == {
        "centers": CENTERS,
        "norm": "linf",
        "label": None,
        "clip": None,
        "seconds": 60.0,
    }
    assert _radii(job) == [0.5, 2.0]
    assert job["radii"]["quantiles"] == {"min": 0.5, "median": 0.5, "p90": 2.0, "max": 2.0}
    answer = service.client.get(f"/v1/jobs/{job['id']}/radii").json()
    for ring, short in zip(answer["radii"], job["radii"]["radii"], strict=True):
        certificate = certificate_from_json(ring["certificate"])
        region = certificate.claim.property.region
        assert isinstance(region, CenterBox)
        assert region.center == tuple(CENTERS[ring["center"]])
        assert region.radius == ring["radius"]
        stored = service.client.get(f"/v1/certificates/{short['certificate']}")
        assert stored.json() == ring["certificate"]
    assert problem(service.client.get(f"/v1/jobs/{job['id']}/certificate"))["code"] == "not-found"
    assert job["id"] in _listed(service)


def test_one_call_brings_the_model_along(service: Service) -> None:
    files = {
        "model": ("m.onnx", model(["ring", [0, 0.25]])),
        "request": (None, json.dumps({"centers": CENTERS[:1], "norm": "l2"})),
    }
    headers = {"Prefer": "wait=20", "Idempotency-Key": "radius"}
    job = service.client.post("/v1/radius", files=files, headers=headers).json()
    assert (job["state"], _radii(job)) == ("succeeded", [0.25])
    again = service.client.post("/v1/radius", files=files, headers=headers).json()
    assert again["id"] == job["id"]


def test_a_point_without_a_ball_is_undecided(service: Service) -> None:
    job = _submit(service, model(["ring", [0, 0.5]]), wait=20)
    assert (job["state"], job["verdict"], _radii(job)) == ("succeeded", "undecided", [0.5, 0.0])
    none = _submit(service, model("no ring"), wait=20, label=1)
    assert (none["state"], _radii(none)) == ("succeeded", [0.0, 0.0])
    assert [ring["label"] for ring in none["radii"]["radii"]] == [1, 1]


def test_a_ball_that_the_checker_refuses_is_none(service: Service) -> None:
    """The model's labels hold up to 1; a search that claims 3 gets nowhere."""
    lie = _submit(service, model(["ring", [0, 3.0]], bound=1.0), wait=20)
    assert (lie["state"], lie["error"]["code"]) == ("failed", "check-rejected")
    part = _submit(service, model(["ring", [0, 1.0]], ["ring", [0, 3.0]], bound=1.0), wait=20)
    assert part["radii"]["radii"][0]["radius"] in (0.0, 1.0)  # the first may not be checked at all


def test_a_ball_of_another_label_is_no_answer(service: Service) -> None:
    """The checker concludes label 0, and 1 was asked for."""
    job = _submit(service, model(["ring", [0, 0.5]]), wait=20, label=1)
    assert job["error"]["code"] == "check-rejected"
    assert "claim-mismatch" in job["error"]["detail"]


def test_cancel_keeps_the_radii(service: Service) -> None:
    job = _submit(service, model(["ring", [1, 0.5]], "hang"))
    unfinished = service.client.get(f"/v1/jobs/{job['id']}/radii")
    assert problem(unfinished)["code"] == "not-finished"
    _waits_for_radii(service, job["id"], [0.0, 0.5])
    service.client.post(f"/v1/jobs/{job['id']}/cancel")
    ended = service.ended(job["id"])
    assert (ended["state"], _radii(ended)) == ("canceled", [0.0, 0.5])
    answer = service.client.get(f"/v1/jobs/{job['id']}/radii").json()
    assert answer["radii"][1]["certificate"]["claim"]["kind"] == "lipschitz"


def test_a_spent_budget_keeps_the_radii(service: Service) -> None:
    job = _submit(service, model(["ring", [0, 0.5]], "hang"), wait=20, seconds=0.5)
    if job["state"] == "failed":  # the machine is slow
        job = _submit(service, model(["ring", [0, 0.5]], "hang"), wait=60, seconds=20.0)
    assert (job["state"], job["verdict"], _radii(job)) == ("succeeded", "undecided", [0.5, 0.0])
    none = _submit(service, model("hang"), wait=20, seconds=0.2)
    assert (none["state"], none["error"]["code"]) == ("failed", "timeout")
    assert problem(service.client.get(f"/v1/jobs/{none['id']}/radii"))["status"] == 404


def test_a_killed_worker_keeps_the_radii_for_the_next(
    own_service: Callable[..., Service], tmp_path: Path
) -> None:
    service, pids, gate = own_service(), tmp_path / "pids", tmp_path / "gate"
    steps = (["ring", [0, 0.5]], ["count", str(pids)], ["wait-for", str(gate)], ["ring", [1, 0.5]])
    job = _submit(service, model(*steps))
    _waits_for_radii(service, job["id"], [0.5, 0.0])
    kill(pids_in(pids)[0])
    eventually(lambda: service.job(job["id"])["attempt"] == 2)
    assert _radii(service.job(job["id"])) == [0.5, 0.0]
    gate.touch()
    ended = service.ended(job["id"])
    assert (ended["state"], _radii(ended)) == ("succeeded", [0.5, 0.5])


@pytest.mark.parametrize(
    ("members", "pointer"),
    [
        ({"centers": []}, "/centers"),
        ({"centers": [[0.0, 0.0]]}, "/centers"),
        ({"centers": [[0.0, 0.0, 0.0], [0.0]]}, "/centers/1"),
        ({"norm": "l1"}, "/norm"),
        ({"label": 2}, "/label"),
        ({"label": -1}, "/label"),
        ({"seconds": 0}, "/seconds"),
        ({"norm": "l2", "clip": {"lower": 0, "upper": 1}}, "/clip"),
        ({"clip": {"lower": 2, "upper": 3}}, "/centers/0"),
        ({"colour": 1}, "/colour"),
        ({"priority": "high"}, "/priority"),
    ],
)
def test_what_is_no_question_is_refused(
    service: Service, members: dict[str, object], pointer: str
) -> None:
    body = {"model": service.upload(model("refused radii")), "centers": CENTERS, **members}
    told = problem(service.client.post("/v1/radius", json=body))
    assert (told["code"], told["errors"][0]["pointer"]) == ("invalid-request", pointer)


def test_a_bound_has_no_radii(service: Service) -> None:
    job = service.submit(service.upload(model("bound")), wait=20)
    assert (job["kind"], job["question"], job["radii"]) == ("verify", None, None)
    assert problem(service.client.get(f"/v1/jobs/{job['id']}/radii"))["code"] == "not-found"


def _listed(service: Service) -> list[str]:
    response: httpx.Response = service.client.get("/v1/jobs?limit=200")
    return [job["id"] for job in response.json()["items"]]
