"""Limits of tenants and rates of keys: what is too much is refused by the limit's name."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from service_fakes import model
from service_process import Service, eventually, problem, settings_in

from service import cli
from service.limits import NAMES, NO_LIMIT, Limits, parse_limit, parse_limits
from service.problems import Problem
from service.rates import MOST_BUCKETS, Buckets, Rates, Throttle, network_of, parse_rates
from service.serve import ready_database
from service.settings import Settings, from_environment
from service.store import audit, keys
from service.store import limits as store
from service.store.coordination import now_ms
from verifier.errors import InvalidRequest

BINARY = {"Content-Type": "application/octet-stream"}
RATES = Rates(reads=500.0, writes=1.0, failures=0.001, burst_s=10.0, failures_burst=3.0)


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with keys, whose tenants get limits of their own."""
    settings = replace(settings_in(tmp_path_factory.mktemp("limited")), rates=RATES)
    key_of(settings, "nobody")
    with closing(Service(settings)) as running:
        yield running


def key_of(settings: Settings, tenant: str, **said: int) -> str:
    """A new key of a tenant, which gets these limits."""
    with ready_database(settings) as database, database.write() as connection:
        if said:
            store.set_limits(connection, tenant, said)
        now = now_ms()
        return keys.add(connection, tenant, scope="admin", label="", expires=None, now=now)[1]


def client_of(service: Service, tenant: str, **said: int) -> httpx.Client:
    key = key_of(service.settings, tenant, **said)
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.Client(base_url=service.url, headers=headers, timeout=60.0)


def upload(client: httpx.Client, data: bytes) -> str:
    answer = client.post("/v1/models", content=data, headers=BINARY)
    assert answer.status_code in (200, 201), answer.text
    name = answer.json()["id"]
    eventually(lambda: client.get(f"/v1/models/{name}").json()["state"] == "ready")
    return name


def exceeded(answer: httpx.Response, limit: str) -> int:
    """The seconds after which to try again what this limit did not allow."""
    told = problem(answer)
    assert (answer.status_code, told["code"], told["limit"]) == (429, "quota-exceeded", limit)
    assert limit in told["detail"]
    return int(answer.headers["retry-after"])


def test_models_have_to_fit_in_number_and_size(limited: Service) -> None:
    with client_of(limited, "few", models=1, model_bytes=1000) as client:
        first = upload(client, model("first"))
        more = client.post("/v1/models", content=model("second"), headers=BINARY)
        assert exceeded(more, "models") >= 1
        assert client.post("/v1/models", content=model("first"), headers=BINARY).status_code == 200
        large = client.post("/v1/models", content=b" " * 1001, headers=BINARY)
        assert (problem(large)["code"], problem(large)["limit"]) == (
            "payload-too-large",
            "model_bytes",
        )
        assert client.delete(f"/v1/models/{first}").status_code == 204
        upload(client, model("second"))
    room = len(model("first")) + 1
    with client_of(limited, "little", stored_bytes=room) as client:
        upload(client, model("first"))
        more = client.post("/v1/models", content=model("second"), headers=BINARY)
        assert exceeded(more, "stored_bytes") >= 1


def test_jobs_have_to_fit_into_queue_day_and_budget(limited: Service) -> None:
    said = {"running_jobs": 0, "queued_jobs": 1, "budget_seconds": 60, "waiters": 0}
    with client_of(limited, "busy", **said) as client:
        name = upload(client, model())
        long = client.post("/v1/jobs", json={"model": name, "budget": {"seconds": 61}})
        assert (long.status_code, problem(long)["limit"]) == (422, "budget_seconds")
        assert problem(long)["errors"][0]["pointer"] == "/budget/seconds"

        # Whoever may not wait has made the job all the same.
        prefer = {"Prefer": "wait=20"}
        job = client.post("/v1/jobs", json={"model": name}, headers=prefer)
        assert (job.status_code, job.json()["state"]) == (202, "queued")
        assert "preference-applied" not in job.headers
        path = f"/v1/jobs/{job.json()['id']}"
        assert exceeded(client.get(path, headers=prefer), "waiters") >= 1
        stream = client.get(f"{path}/events", headers={"Accept": "text/event-stream"})
        assert exceeded(stream, "waiters") >= 1

        assert exceeded(client.post("/v1/jobs", json={"model": name}), "queued_jobs") >= 1
        assert client.post(f"{path}/cancel").status_code == 202
        with ready_database(limited.settings) as database, database.write() as connection:
            store.set_limits(connection, "busy", {"cpu_seconds_per_day": 5, "queued_jobs": 9})
            store.charge(connection, "busy", now_ms(), 5000)
        retry_s = exceeded(client.post("/v1/jobs", json={"model": name}), "cpu_seconds_per_day")
        assert 1 <= retry_s <= 86_400
        used = client.get("/v1/usage").json()
    assert used["tenant"] == "busy"
    assert set(used["limits"]) == set(NAMES)
    assert used["limits"]["queued_jobs"] == {"limit": 9, "used": 0}
    assert used["limits"]["models"] == {"limit": None, "used": 1}
    day = used["limits"]["cpu_seconds_per_day"]
    assert (day["limit"], day["used"]) == (5, 5.0)
    assert day["resets"].endswith("T00:00:00.000Z")


def test_an_attempt_is_charged_and_has_the_tenants_memory(limited: Service) -> None:
    with client_of(limited, "hungry", memory_bytes=2**28) as client:
        name = upload(client, model(["grow", 2**29]))
        body, prefer = {"model": name}, {"Prefer": "wait=20"}
        job = client.post("/v1/jobs", json=body, headers=prefer).json()
        assert job["error"]["code"] == "resource-exhausted", job
        assert "256 MiB" in job["error"]["detail"]
        used = client.get("/v1/usage").json()["limits"]["cpu_seconds_per_day"]["used"]
        assert 0 < used < 20


def test_what_cannot_fit_is_refused_before_it_is_stored(limited: Service) -> None:
    sizes = {"signals": 10, "widest": 4, "inequality_rows": 4, "convolutions": False}
    said = {"parameters": 9, "sizes": sizes}
    with client_of(limited, "narrow", memory_bytes=2**30) as client:
        name = upload(client, model(summary=said))
        body = {"model": name, "method": "lipsdp"}
        answer = client.post("/v1/jobs?validate_only=true", json=body)
        assert answer.status_code == 200, answer.text
        expected = answer.json()["estimate"]
        assert (expected["inequality_rows"], expected["bounds"]) == (7, 1)
        assert expected["memory_bytes"] > 10**8

        wide = upload(client, model(outputs=20_000, summary=said))
        for path in ("/v1/jobs?validate_only=true", "/v1/jobs"):
            refused = client.post(path, json={"model": wide})
            assert (refused.status_code, problem(refused)["code"]) == (422, "too-large")
            assert "20000 selections of 20000 outputs takes 3.2 GB" in problem(refused)["detail"]
        assert client.get("/v1/jobs").json()["items"] == []
        some = {"model": wide, "property": {"outputs": {"indices": [1]}}}
        assert client.post("/v1/jobs?validate_only=true", json=some).status_code == 200


def _refused_for_its_rate(client: httpx.Client) -> httpx.Response | None:
    answer = client.post("/v1/jobs", json={})
    return answer if answer.status_code == 429 else None


def test_a_key_that_writes_too_often_has_to_wait_and_may_read(limited: Service) -> None:
    with client_of(limited, "hasty") as client:
        assert client.post("/v1/jobs", json={}).status_code == 422
        # Ten at once, then one in a second: however slow the calls are, they are quicker.
        late = eventually(lambda: _refused_for_its_rate(client))
        assert problem(late)["code"] == "rate-limited"
        assert int(late.headers["retry-after"]) >= 1
        assert client.get("/v1/jobs").status_code == 200


def test_who_guesses_keys_is_stopped_and_nobody_else(limited: Service) -> None:
    guess = {"Authorization": f"Bearer lck_00000000_{'A' * 43}"}
    answers = [limited.client.get("/v1/jobs", headers=guess) for _ in range(6)]
    assert {answer.status_code for answer in answers} == {401, 429}
    assert problem(answers[-1])["code"] == "rate-limited"
    with client_of(limited, "honest") as client:
        assert client.get("/v1/jobs").status_code == 200


def test_the_audit_log_tells_what_was_done(limited: Service) -> None:
    with client_of(limited, "watched", queued_jobs=7) as client:
        name = upload(client, model())
        job = client.post("/v1/jobs", json={"model": name}, headers={"Prefer": "wait=20"}).json()
        made = client.post("/v1/keys", json={"scope": "read"}).json()["id"]
        client.delete(f"/v1/keys/{made}")
        client.delete(f"/v1/models/{name}")
        log = client.get("/v1/audit").json()
        (page,) = client.get("/v1/audit", params={"after": 2, "limit": 1}).json()["items"]
        admin = next(row for row in log["items"] if row["action"] == "key.created")["subject"]
    assert page == log["items"][2]
    assert log["head"] == {"seq": 6, "hash": log["items"][-1]["hash"]}
    assert [(row["actor"], row["action"], row["subject"]) for row in log["items"]] == [
        ("operator", "limits.changed", "watched"),
        ("operator", "key.created", admin),
        ("dispatcher", "certificate.issued", job["certificate"]),
        (f"key:{admin}", "key.created", made),
        (f"key:{admin}", "key.revoked", made),
        (f"key:{admin}", "model.deleted", name),
    ]
    assert log["items"][0]["details"] == {"queued_jobs": 7}
    with ready_database(limited.settings) as database, database.read() as connection:
        assert audit.fault(connection, "watched") is None


# --- Without processes ---------------------------------------------------------------------------


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    now = 0.0
    buckets = Buckets(2.0, 4.0, clock=lambda: now)
    assert [buckets.take("a") for _ in range(5)] == [0, 0, 0, 0, 0.5]
    assert buckets.take("b") == 0
    now = 0.5
    assert [buckets.take("a") for _ in range(2)] == [0, 0.5]
    now = 100.0
    assert [buckets.take("a") > 0 for _ in range(5)] == [False] * 4 + [True]


def test_buckets_take_bounded_memory() -> None:
    buckets = Buckets(1.0, 1.0, clock=lambda: 0.0)
    for name in range(MOST_BUCKETS + 5):
        buckets.take(str(name))
    assert len(buckets) == MOST_BUCKETS


def test_a_rate_of_0_is_none_and_reads_and_writes_are_apart() -> None:
    throttle = Throttle(Rates(reads=0.0, writes=0.1, burst_s=10.0), clock=lambda: 0.0)
    for _ in range(100):
        throttle.require_call("key", "GET")
    throttle.require_call("key", "POST")
    throttle.require_call("another", "POST")
    with pytest.raises(Problem, match="writes") as caught:
        throttle.require_call("key", "DELETE")
    assert caught.value.headers["Retry-After"] == "10"


@pytest.mark.parametrize(
    ("address", "network"),
    [("192.0.2.7", "192.0.2.7"), ("2001:db8::7", "2001:db8::/64"), ("", ""), ("unix", "unix")],
)
def test_a_stranger_is_known_by_network(address: str, network: str) -> None:
    assert network_of(address) == network


@pytest.mark.parametrize("text", ["modles=1", "models=-1", "models=1.5", "models", "models=9e9"])
def test_a_limit_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_limit(text)


@pytest.mark.parametrize("text", ["reeds=1", "reads=-1", "reads=nan", "reads=inf", "reads"])
def test_a_rate_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_rates(text)


def test_limits_and_rates_come_from_the_environment() -> None:
    assert parse_limits("models=3, waiters=none") == Limits(models=3, waiters=NO_LIMIT)
    environment = {"LIPCERT_LIMITS": "queued_jobs=2", "LIPCERT_RATES": "reads=5,writes=0"}
    settings = from_environment(environment)
    assert settings.limits == Limits(queued_jobs=2)
    assert settings.rates == Rates(reads=5.0, writes=0.0)
    assert Settings.from_json(settings.to_json()) == settings


def test_the_operator_sets_limits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ["--data", str(tmp_path)]
    said = ["--limit", "models=3", "--limit", "waiters=none", *folder]
    assert cli.run(["tenants", "set", "acme", *said]) == 0
    assert cli.run(["tenants", "list", *folder]) == 0
    assert capsys.readouterr().out == "acme  models=3, waiters=none\n"
    assert cli.run(["tenants", "set", "acme", "--limit", "waiters=default", *folder]) == 0
    assert cli.run(["tenants", "set", "acme", "--limit", "wheels=4", *folder]) == 3
    assert cli.run(["tenants", "show", "acme", *folder]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split() == ["models", "limit", "3", "used", "0"]
    assert shown[-1].split() == ["waiters", "limit", "2000"]
    assert cli.run(["audit", "verify", *folder]) == 0
