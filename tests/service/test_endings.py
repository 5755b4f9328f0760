"""How a job can end other than well, and what it keeps: the best bound that was checked."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from service_fakes import model
from service_process import Service, eventually, exists, pids_in, problem


@pytest.fixture
def service(either_service: Service) -> Service:
    """Everything here holds on both databases."""
    return either_service


def test_cancel_stops_native_code_within_a_second_and_keeps_the_bound(
    service: Service, tmp_path: Path
) -> None:
    def cancel(number: int) -> tuple[str, float]:
        """A job, and the seconds from its cancel to its end."""
        workers = tmp_path / f"pids-{number}"
        steps = (["count", str(workers)], ["publish", 8.0], "hang")
        job = service.submit(service.upload(model(*steps, bound=2.0)))
        eventually(lambda: service.job(job["id"])["progress"]["upper"] == 8.0)
        (worker,) = pids_in(workers)
        began = time.monotonic()
        answer = service.client.post(f"/v1/jobs/{job['id']}/cancel")
        assert answer.status_code == 202
        ended = service.ended(job["id"])
        seconds = time.monotonic() - began
        assert not exists(worker)
        assert (ended["state"], ended["error"]) == ("canceled", None)
        return job["id"], seconds

    tries = iter(range(5))  # the best of some: other work on the machine may delay each
    job_id, seconds = cancel(next(tries))
    while 1.0 <= seconds:
        job_id, seconds = cancel(next(tries))
    certificate = service.client.get(f"/v1/jobs/{job_id}/certificate").json()
    assert certificate["claim"]["bound"] == 8.0
    assert service.client.post(f"/v1/jobs/{job_id}/cancel").status_code == 200


def test_a_job_that_waits_is_canceled_at_once(own_service: Callable[..., Service]) -> None:
    service = own_service(slots=1)
    first = service.submit(service.upload(model("hang")))
    second = service.submit(service.upload(model("never")))
    answer = service.client.post(f"/v1/jobs/{second['id']}/cancel")
    assert answer.json()["state"] == "canceled"
    response = service.client.get(f"/v1/jobs/{second['id']}/certificate")
    assert problem(response)["code"] == "not-found"
    service.client.post(f"/v1/jobs/{first['id']}/cancel")
    service.ended(first["id"])


def test_a_spent_budget_is_success_with_the_best_bound(service: Service) -> None:
    model_id = service.upload(model(["publish", 8.0], "hang"))
    asked = {"target": {"upper": 1.5}}
    job = service.submit(model_id, wait=20, budget={"seconds": 0.5}, **asked)
    if job["progress"]["upper"] is None:  # the machine is slow
        job = service.submit(model_id, wait=60, budget={"seconds": 20.0}, **asked)
    assert (job["state"], job["verdict"], job["progress"]["upper"]) == (
        "succeeded",
        "undecided",
        8.0,
    )


def test_a_spent_budget_without_a_bound_is_a_timeout(service: Service) -> None:
    job = service.submit(service.upload(model("hang")), wait=20, budget={"seconds": 0.2})
    assert (job["state"], job["error"]["code"]) == ("failed", "timeout")
    response = service.client.get(f"/v1/jobs/{job['id']}/certificate")
    assert (problem(response)["code"], response.status_code) == ("timeout", 404)


def test_nobody_waits_beyond_the_deadline(own_service: Callable[..., Service]) -> None:
    service = own_service(slots=1)
    blocked = service.upload(model("hang"))
    ended: dict[str, Any] = {"attempt": 0}
    for seconds in (1.5, 30.0):  # the second is for a machine that has not begun in the first
        soon = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
        running = service.submit(blocked, deadline=soon)
        waiting = service.submit(blocked, deadline=soon)
        assert service.ended(waiting["id"])["state"] == "expired"
        ended = service.ended(running["id"])
        if ended["attempt"] == 1:
            break
    assert ended["error"]["code"] == "timeout"


def test_a_function_that_jumps_fails_the_job_and_not_the_model(service: Service) -> None:
    model_id = service.upload(model("jump"))
    job = service.submit(model_id, wait=20)
    assert (job["state"], job["error"]["code"], job["error"]["node"]) == (
        "failed",
        "discontinuous-op",
        "sign_1",
    )
    assert service.client.get(f"/v1/models/{model_id}").json()["state"] == "ready"


def test_a_lying_method_gets_nowhere(service: Service) -> None:
    """The checker's word decides: 3.6 for a true 4.0 is never shown, and the true one is."""
    job = service.submit(service.upload(model(["publish", 3.6], bound=4.0)), wait=20)
    assert (job["state"], job["progress"]["upper"]) == ("succeeded", 4.0)
    shown = [event["data"].get("upper") for event in service.events(job["id"])]
    assert 3.6 not in shown


def test_a_rejected_result_fails_the_job(service: Service) -> None:
    job = service.submit(service.upload(model("lie")), wait=20)
    assert (job["state"], job["error"]["code"]) == ("failed", "check-rejected")


def test_a_certificate_of_another_question_is_no_answer(service: Service) -> None:
    job = service.submit(service.upload(model("other question")), wait=20)
    assert job["error"]["code"] == "check-rejected"
    assert "claim-mismatch" in job["error"]["detail"]


def test_what_the_checker_cannot_read_is_not_checkable(service: Service) -> None:
    job = service.submit(service.upload(model("not checkable")), wait=20)
    assert (job["error"]["code"], job["error"]["node"]) == ("not-checkable", "op_7")


@pytest.mark.parametrize("growth", ["grow", "grow-shared"])
def test_memory_beyond_the_limit_ends_the_attempt_and_keeps_the_bound(
    service: Service, growth: str
) -> None:
    """Private memory meets the process's own limit, shared memory the supervisor's watch."""
    steps = (["publish", 8.0], ["wait-s", 1.0], [growth, 2**30 + 2**28])
    model_id = service.upload(model(*steps))
    job = service.submit(model_id, wait=30)
    assert (job["state"], job["error"]["code"]) == ("failed", "resource-exhausted")
    assert job["progress"]["upper"] == 8.0


def test_a_defect_is_reported_with_its_place_and_not_retried(service: Service) -> None:
    job = service.submit(service.upload(model("crash")), wait=20)
    assert (job["error"]["code"], job["attempt"]) == ("internal-error", 1)
    assert "service_fakes" in job["error"]["detail"]


@pytest.mark.parametrize("noise", ["garbage", "oversized", "closed"])
def test_a_child_that_breaks_the_protocol_harms_only_its_job(service: Service, noise: str) -> None:
    job = service.submit(service.upload(model(noise)), wait=20)
    assert (job["state"], job["error"]["code"]) == ("failed", "worker-lost")
    assert service.submit(service.upload(model("after noise")), wait=20)["state"] == "succeeded"
