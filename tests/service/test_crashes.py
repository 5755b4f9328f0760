"""kill -9, in the middle of a job: nothing acknowledged is lost, nothing is done twice."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from service_fakes import model
from service_process import (
    Service,
    child_of,
    eventually,
    exists,
    kill,
    pids_in,
    processes,
    stored_in,
)

from service.store.address import DatabaseUrl

#: On PostgreSQL a dead dispatcher's jobs wait for the end of its leases, on SQLite they do not.
SHORT = {"lease_s": 3.0, "heartbeat_s": 0.5}


def _one_certificate(service: Service) -> bool:
    if service.settings.database_url is None:
        assert service.query("PRAGMA integrity_check") == [("ok",)]
    return service.query("SELECT count(*) FROM certificate") == [(1,)]


def test_a_killed_worker_is_replaced(own_service: Callable[..., Service], tmp_path: Path) -> None:
    service = own_service()
    log, gate = tmp_path / "pids", tmp_path / "gate"
    job = service.submit(service.upload(model(["count", str(log)], ["wait-for", str(gate)])))
    kill(pids_in(log, 1)[0])
    pids_in(log, 2)
    gate.touch()
    ended = service.ended(job["id"])
    assert (ended["state"], ended["attempt"]) == ("succeeded", 2)
    assert _one_certificate(service)


def test_a_job_that_kills_its_workers_is_given_up(service: Service, tmp_path: Path) -> None:
    log = tmp_path / "pids"
    data = model(["count", str(log)], ["publish", 8.0], ["wait-s", 0.5], "die")
    job = service.submit(service.upload(data), wait=30)
    assert (job["state"], job["error"]["code"], job["attempt"]) == ("failed", "worker-lost", 3)
    assert len(log.read_text().split()) == 3
    # What was checked before the end is kept.
    assert service.client.get(f"/v1/jobs/{job['id']}/certificate").json()["claim"]["bound"] == 8.0


def test_a_model_that_kills_its_readers_is_refused(service: Service) -> None:
    model_id = service.upload(model("die-reading"))
    answer = service.client.get(f"/v1/models/{model_id}").json()
    assert (answer["state"], answer["error"]["code"]) == ("refused", "worker-lost")


@pytest.mark.parametrize(
    ("place", "victim"),
    [("sqlite", "dispatcher"), ("sqlite", "forkserver"), ("postgresql", "dispatcher")],
    indirect=["place"],
)
def test_a_killed_process_of_the_service_is_started_again(
    own_service: Callable[..., Service], tmp_path: Path, place: Path | DatabaseUrl, victim: str
) -> None:
    service = own_service(**stored_in(place), **SHORT)
    log, gate = tmp_path / "pids", tmp_path / "gate"
    job = service.submit(service.upload(model(["count", str(log)], ["wait-for", str(gate)])))
    (worker,) = pids_in(log, 1)
    target = service.dispatcher()
    if victim == "forkserver":
        target = eventually(lambda: child_of(service.dispatcher(), "forkserver"))
    kill(target)
    eventually(lambda: not exists(worker))
    pids_in(log, 2)
    gate.touch()
    ended = service.ended(job["id"])
    assert (ended["state"], ended["attempt"]) == ("succeeded", 2)
    assert _one_certificate(service)
    assert service.is_alive()


@pytest.mark.parametrize(
    ("place", "is_sudden"),
    [("sqlite", True), ("sqlite", False), ("postgresql", True)],
    indirect=["place"],
)
def test_a_service_that_ended_picks_up_where_it_was(
    own_service: Callable[..., Service], tmp_path: Path, place: Path | DatabaseUrl, is_sudden: bool
) -> None:
    service = own_service(slots=1, **stored_in(place), **SHORT)
    log, gate = tmp_path / "pids", tmp_path / "gate"
    model_id = service.upload(model(["count", str(log)], ["wait-for", str(gate)], ["publish", 8.0]))
    jobs = [service.submit(model_id, labels={"n": str(n)})["id"] for n in range(3)]
    (worker,) = pids_in(log, 1)
    dispatcher = service.dispatcher()
    if is_sudden:
        service.kill()
    else:
        service.stop()
    eventually(lambda: not exists(worker) and not exists(dispatcher))
    service.restart()
    gate.touch()
    ended = [service.ended(job) for job in jobs]
    assert [job["state"] for job in ended] == ["succeeded"] * 3
    assert len({job["certificate"] for job in ended}) == 1
    assert _one_certificate(service)
    if not is_sudden:
        # An orderly stop gives the job back, and the attempt does not count against it.
        given_back = [event["data"].get("reason") for event in service.events(jobs[0])]
        assert "stopped" in given_back


def test_a_bound_that_was_checked_survives_the_dispatcher(
    own_service: Callable[..., Service], tmp_path: Path
) -> None:
    service = own_service()
    log = tmp_path / "pids"
    data = model(["count", str(log)], ["publish", 8.0], "hang", bound=2.0)
    job = service.submit(service.upload(data))
    eventually(lambda: service.job(job["id"])["progress"]["upper"] == 8.0)
    kill(service.dispatcher())
    pids_in(log, 2)
    service.client.post(f"/v1/jobs/{job['id']}/cancel")
    ended = service.ended(job["id"])
    assert (ended["state"], ended["progress"]["upper"]) == ("canceled", 8.0)
    assert ended["certificate"] is not None


def test_no_process_outlives_the_service(
    own_service: Callable[..., Service], tmp_path: Path
) -> None:
    service = own_service()
    log = tmp_path / "pids"
    service.submit(service.upload(model(["count", str(log)], "hang")))
    (worker,) = pids_in(log, 1)
    dispatcher = service.dispatcher()
    family = [worker, dispatcher, *(pid for pid, _ in processes(dispatcher))]
    kill(dispatcher)
    service.kill()
    # The worker holds the interpreter in native code: only the kernel can end it.
    eventually(lambda: not any(exists(pid) for pid in family))


def test_random_kills_lose_nothing(
    own_service: Callable[..., Service], tmp_path: Path, place: Path | DatabaseUrl
) -> None:
    service = own_service(max_attempts=1000, **stored_in(place), **SHORT)
    log, rng = tmp_path / "pids", random.Random(0)  # noqa: S311 - no secret
    steps = (["count", str(log)], ["wait-s", 0.05])
    models = [service.upload(model(*steps, bound=n + 1.0)) for n in range(12)]
    accepted: list[str] = []
    for model_id in models:
        accepted.append(service.submit(model_id)["id"])
        _kill_one_of(rng, service, log)
    ended = [service.ended(job) for job in accepted]
    assert [job["state"] for job in ended] == ["succeeded"] * 12
    assert [job["progress"]["upper"] for job in ended] == [n + 1.0 for n in range(12)]
    assert service.query("SELECT count(*) FROM certificate") == [(12,)]
    gaps = "SELECT job FROM job_event GROUP BY job HAVING max(seq) != count(*)"
    assert service.query(gaps) == []


def _kill_one_of(rng: random.Random, service: Service, log: Path) -> None:
    """Kill the worker that started last, and sometimes the dispatcher."""
    workers = log.read_text().split() if log.exists() else []
    if workers and exists(int(workers[-1])):
        kill(int(workers[-1]))
    if rng.random() < 0.25:
        kill(service.dispatcher())
