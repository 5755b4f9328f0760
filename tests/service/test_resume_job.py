"""Branch and bound over HTTP that was stopped goes on from what it left."""

import math
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from service_fakes import model
from service_process import Service, eventually, kill, pids_in, problem

from service.settings import from_environment
from service.store.engine import open_database
from service.store.retention import forget_checkpoints
from verifier.errors import InvalidRequest

LEFT = ["keep", "half a tree"]


def _resume(service: Service, job_id: str, wait: int = 20, **budget: float) -> httpx.Response:
    return service.client.post(
        f"/v1/jobs/{job_id}/resume", json={"budget": budget}, headers={"Prefer": f"wait={wait}"}
    )


def _checkpoints(service: Service) -> set[str]:
    folder = service.settings.data / "checkpoints" / "default"
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def _is_kept(service: Service, name: str) -> bool:
    return name in _checkpoints(service)


def _stopped(service: Service, *steps: object, **members: object) -> dict[str, Any]:
    """A job that has a bound, left a checkpoint, and ran out of its time."""
    model_id = service.upload(model(*steps, ["publish", 8.0], LEFT, "hang"))
    job = service.submit(model_id, wait=20, budget={"seconds": 0.7}, **members)
    if job["progress"]["upper"] is None:  # the machine is slow
        job = service.submit(model_id, wait=60, budget={"seconds": 20.0}, **members)
    return job


def test_a_spent_budget_can_be_continued(service: Service) -> None:
    first = _stopped(service, labels={"run": "1"})
    assert (first["state"], first["resumable"], first["resumed_from"]) == ("succeeded", True, None)
    second = _resume(service, first["id"], seconds=30).json()
    assert (second["state"], second["progress"]["upper"]) == ("succeeded", 4.0)
    assert second["resumed_from"] == first["id"]
    assert second["budget"] == {"seconds": 30.0, "gap": 0.01}
    assert (second["property"], second["labels"]) == (first["property"], first["labels"])
    assert service.job(first["id"])["progress"]["upper"] == 8.0


def test_what_was_proved_before_stands(service: Service) -> None:
    """The second run proves nothing in its time, and has the first one's certificate."""
    first = _stopped(service, "hang-resumed")
    second = _resume(service, first["id"], seconds=0.3).json()
    assert (second["state"], second["certificate"]) == ("succeeded", first["certificate"])
    assert second["progress"]["upper"] == 8.0


def test_a_checkpoint_that_is_refused_is_not_used(service: Service) -> None:
    """It may be another version's: the work begins anew."""
    first = _stopped(service, "refuse-checkpoint")
    second = _resume(service, first["id"], seconds=0.7).json()
    assert (second["state"], second["error"], second["resumable"]) == ("succeeded", None, True)


def test_a_canceled_job_can_be_continued(service: Service, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    steps = (["publish", 8.0], LEFT, ["wait-for", str(gate)])
    job = service.submit(service.upload(model(*steps)))
    refused = _resume(service, job["id"], wait=0)
    assert problem(refused)["code"] == "not-resumable"
    eventually(lambda: service.job(job["id"])["progress"]["upper"] == 8.0)
    service.client.post(f"/v1/jobs/{job['id']}/cancel")
    ended = service.ended(job["id"])
    assert (ended["state"], ended["resumable"]) == ("canceled", True)
    assert _resume(service, job["id"]).json()["progress"]["upper"] == 4.0


def test_a_killed_worker_s_next_attempt_goes_on(
    own_service: Callable[..., Service], tmp_path: Path
) -> None:
    service, pids = own_service(), tmp_path / "pids"
    job = service.submit(service.upload(model(LEFT, ["count", str(pids)], "hang")))
    eventually(lambda: len(_checkpoints(service)) == 1)
    kill(pids_in(pids)[0])
    ended = service.ended(job["id"])
    assert (ended["state"], ended["attempt"], ended["progress"]["upper"]) == ("succeeded", 2, 4.0)
    assert len(pids.read_text().split()) == 1


def test_only_the_newest_checkpoint_is_kept(own_service: Callable[..., Service]) -> None:
    service = own_service()
    first = _stopped(service)
    (name,) = _checkpoints(service)
    third = service.submit(
        service.upload(model(["publish", 8.0], LEFT, ["wait-s", 0.3], ["keep", "more"], "hang")),
        wait=20,
        budget={"seconds": 1.0},
    )
    assert third["resumable"]
    assert len(_checkpoints(service)) == 2  # the first job's, and the newest of this one
    assert _is_kept(service, name)
    assert service.job(first["id"])["resumable"]


def test_an_old_checkpoint_is_removed_and_said_to_be(own_service: Callable[..., Service]) -> None:
    """What ended a moment ago is kept for a day, and not for less than the moment."""
    service = own_service()
    first = _stopped(service, "hang-resumed", labels={"n": "old"})
    with closing(open_database(service.settings.database)) as database:
        for days in (math.inf, 1.0):
            forget_checkpoints(database, days)
            assert service.job(first["id"]) == first
        forget_checkpoints(database, 0.0)
    later = service.job(first["id"])
    assert (later["resumable"], later["version"]) == (False, first["version"] + 1)
    refused = _resume(service, first["id"])
    assert (problem(refused)["code"], refused.status_code) == ("checkpoint-expired", 409)


@pytest.mark.parametrize("text", ["-1", "nan", "soon"])
def test_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="CHECKPOINT_DAYS"):
        from_environment({"LIPCERT_CHECKPOINT_DAYS": text})
    assert from_environment({"LIPCERT_CHECKPOINT_DAYS": "0.5"}).checkpoint_days == 0.5


def test_a_reached_gap_leaves_nothing(own_service: Callable[..., Service]) -> None:
    service = own_service()
    job = service.submit(service.upload(model(LEFT)), wait=20, budget={"gap": 5.0})
    assert (job["state"], job["resumable"]) == ("succeeded", False)
    assert _checkpoints(service) == set()
    assert problem(_resume(service, job["id"]))["code"] == "not-resumable"


def test_too_large_a_checkpoint_is_none(own_service: Callable[..., Service]) -> None:
    service = own_service(max_checkpoint_bytes=5)
    assert not _stopped(service)["resumable"]
    assert _checkpoints(service) == set()


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"budget": {"seconds": 0}}, "/budget/seconds"),
        ({"budget": {"minutes": 1}}, "/budget/minutes"),
        ({"method": "product"}, "/method"),
    ],
)
def test_what_is_no_budget_is_refused(
    service: Service, body: dict[str, object], pointer: str
) -> None:
    job = _stopped(service)
    told = problem(service.client.post(f"/v1/jobs/{job['id']}/resume", json=body))
    assert (told["code"], told["errors"][0]["pointer"]) == ("invalid-request", pointer)


def test_radii_are_not_resumed(service: Service) -> None:
    body = {"model": service.upload(model("radii")), "centers": [[0.0, 0.0, 0.0]]}
    headers = {"Prefer": "wait=20"}
    job = service.client.post("/v1/radius", json=body, headers=headers).json()
    assert problem(_resume(service, job["id"]))["code"] == "not-resumable"
    unknown = _resume(service, os.urandom(16).hex())
    assert problem(unknown)["code"] == "not-found"
