"""What only PostgreSQL has: writers at the same time, several dispatchers, a server that goes away.

What holds on both databases is tested on both: see the fixtures `place` and `either_service`.
"""

import asyncio
import base64
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, closing
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import pytest
from postgres import Postgres
from service_fakes import model
from service_process import Service, eventually, free_port, problem, processes, settings_in

from service.serve import prepare
from service.settings import Settings, from_environment
from service.store import coordination, jobs, leases, models
from service.store.address import DatabaseUrl
from service.store.coordination import now_in, take_turn, tell
from service.store.database import UNAVAILABLE, Database, News, Watch
from service.store.engine import open_database
from service.store.jobs import NewJob
from service.store.leases import Claim
from verifier.errors import InvalidRequest, RequestRefused

TENANT = "default"
MODEL = f"sha256:{'a' * 64}"
SECRET = "s3cr@t/word"  # noqa: S105 - the test's own


@pytest.fixture
def database(url: DatabaseUrl) -> Iterator[Database]:
    """A database of the test's own on PostgreSQL, at the newest schema."""
    opened = open_database(url)
    yield opened
    opened.close()


def submit(database: Database, count: int) -> list[str]:
    """Readings of models, which wait for nothing."""
    with database.write() as connection:
        made = [
            NewJob(tenant=TENANT, model=MODEL, request={}, kind="inspect") for _ in range(count)
        ]
        return [jobs.insert_job(connection, new, 0, 3) for new in made]


def claim(database: Database, owner: str = "one") -> Claim | None:
    with database.write() as connection:
        return leases.claim(connection, owner, now_in(connection), 30_000, ["inspect"])


# --- At the same time ----------------------------------------------------------------------------


def test_every_job_is_claimed_once(store: Database) -> None:
    """On both databases: six dispatchers, as fast as they can."""
    submitted = submit(store, 48)
    barrier = Barrier(6)

    def work(owner: str) -> list[str]:
        barrier.wait()
        return [mine.job for mine in iter(lambda: claim(store, owner), None)]

    with ThreadPoolExecutor(6) as threads:
        claimed = [job for found in threads.map(work, "abcdef") for job in found]
    assert sorted(claimed) == sorted(submitted)


def test_a_model_is_added_once(store: Database) -> None:
    barrier = Barrier(6)

    def add(_: int) -> bool:
        barrier.wait()
        with store.write() as connection:
            return models.add(connection, TENANT, MODEL, 1, 0, 3)[1]

    with ThreadPoolExecutor(6) as threads:
        assert sorted(threads.map(add, range(6))) == [False] * 5 + [True]
    with store.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM job").scalar() == 1


def test_an_idempotency_key_brings_one_job_however_often_it_comes(either_service: Service) -> None:
    service = either_service
    body = {"model": service.upload(model("at the same time"))}
    headers = {"Idempotency-Key": "at-the-same-time"}

    def post(_: int) -> str:
        answer = service.client.post("/v1/jobs", json=body, headers=headers)
        assert answer.status_code in (200, 202), answer.text
        return answer.json()["id"]

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(post, range(8)))) == 1


def test_no_job_is_queued_for_a_model_that_is_being_refused(database: Database) -> None:
    """Else it would wait for ever: those that wait have been failed already."""
    with database.write() as connection:
        models.add(connection, TENANT, MODEL, 1, 0, 3)
    reading = claim(database)
    assert reading is not None
    error = {"code": "worker-lost", "title": "", "detail": "", "node": None, "fix": ""}

    def refuse() -> None:
        with database.write() as connection:
            leases.finish_inspection(connection, reading, 1, error=error)

    with ThreadPoolExecutor(1) as threads:
        with database.write() as connection:
            models.find(connection, TENANT, MODEL, to_stay=True)
            refusal = threads.submit(refuse)
            new = NewJob(tenant=TENANT, model=MODEL, request={})
            job_id = jobs.insert_job(connection, new, 0, 3)
        refusal.result()
    with database.read() as connection:
        job = jobs.find(connection, TENANT, job_id)
    assert job is not None
    assert (job.state, job.error) == ("failed", error)


def test_turns_are_taken_one_after_another(database: Database) -> None:
    order: list[str] = []

    def second() -> None:
        with database.write() as connection:
            take_turn(connection, "a chain")
            order.append("second")

    with ThreadPoolExecutor(1) as threads:
        with database.write() as connection:
            take_turn(connection, "a chain")
            with database.write() as other:
                take_turn(other, "another chain")
            waiting = threads.submit(second)
            order.append("first")
        waiting.result()
    assert order == ["first", "second"]


def test_leases_are_in_the_databases_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dispatcher whose clock is an hour ahead takes nobody's job."""
    submit(database, 1)
    assert claim(database, "one") is not None
    with database.read() as connection:
        before = now_in(connection)
        monkeypatch.setattr(coordination, "now_ms", lambda: before + 3_600_000)
        assert now_in(connection) < before + 60_000
    assert claim(database, "two") is None


# --- News ----------------------------------------------------------------------------------------


def test_what_is_committed_is_news_in_whatever_order(database: Database) -> None:
    """The second writer commits first, a third one not at all: none is missed, none invented."""
    first, second, third = submit(database, 3)

    def write() -> None:
        with database.write() as early, database.write() as dropped:
            tell(early, first, is_work=False)
            tell(dropped, third, is_work=False)
            with database.write() as late:
                tell(late, second, is_work=False)
            dropped.rollback()

    async def listen() -> list[News]:
        async with aclosing(database.news(lambda: True)) as news:
            heard = [await anext(news)]  # that anything may have changed
            await asyncio.to_thread(write)
            return [*heard, await anext(news), await anext(news)]

    assert asyncio.run(listen()) == [None, [second], [first]]


def test_a_watch_hears_of_work_alone(database: Database) -> None:
    with closing(database.watch()) as watch:
        _hears_of_work_alone(watch, database)


def _hears_of_work_alone(watch: Watch, database: Database) -> None:
    assert watch.has_changed()  # before it listened there may have been something
    assert not watch.has_changed()
    submit(database, 1)
    eventually(watch.has_changed)
    with database.write() as connection:
        tell(connection, "progress", is_work=False)
        tell(connection, "queued", is_work=True)
    eventually(watch.has_changed)
    assert not watch.has_changed()


# --- A server that goes away ---------------------------------------------------------------------


def test_connections_are_made_again(postgres: Postgres, database: Database) -> None:
    watch = database.watch()
    assert watch.has_changed()
    assert database.revision() is not None
    postgres.interrupt()
    try:
        with pytest.raises(UNAVAILABLE):
            database.revision()
        assert not watch.has_changed()
    finally:
        postgres.resume()
    assert database.revision() is not None
    eventually(watch.has_changed)
    watch.close()


def test_a_claim_that_was_not_heard_of_is_given_back(database: Database) -> None:
    known, unknown = submit(database, 2)
    mine, lost = claim(database), claim(database)
    assert mine is not None
    assert lost is not None
    with database.write() as connection:
        leases.give_back_unknown(connection, "one", {(mine.job, mine.attempt)}, 0)
        assert list(leases.held(connection, "one")) == [mine.job]
    again = claim(database, "two")
    assert again is not None
    assert (again.job, again.attempt) == (lost.job, 2)
    assert {mine.job, lost.job} == {known, unknown}


def test_a_server_that_is_killed_costs_no_job(
    own_service: Callable[..., Service], postgres: Postgres, url: DatabaseUrl, tmp_path: Path
) -> None:
    """Two jobs run, two wait; the server is away while the first two end. All get their answer."""
    service = own_service(database_url=url)
    gate = tmp_path / "gate"
    model_id = service.upload(model(["publish", 8.0], ["wait-for", str(gate)]))
    made = [service.submit(model_id, labels={"n": str(n)})["id"] for n in range(4)]

    def bounds() -> list[float | None]:
        return [service.job(job)["progress"]["upper"] for job in made]

    # Which two is open: some may have been made in the same millisecond.
    eventually(lambda: bounds().count(8.0) == 2)
    postgres.kill()
    try:
        response = service.client.get(f"/v1/jobs/{made[0]}")
        assert (problem(response)["code"], response.status_code) == ("storage-unavailable", 503)
        assert response.headers["retry-after"] == "1"
        headers = {"Idempotency-Key": "while it was away"}
        body = {"model": model_id, "labels": {"n": "4"}}
        refused = service.client.post("/v1/jobs", json=body, headers=headers)
        assert refused.status_code == 503
        report = service.client.get("/readyz").json()
        assert (report["database"], report["backend"]) == (False, "postgresql")
        assert service.is_alive()
        gate.touch()
    finally:
        postgres.resume()
    accepted = service.client.post("/v1/jobs", json=body, headers=headers)
    ended = [service.ended(job) for job in [*made, accepted.json()["id"]]]
    assert [(job["state"], job["attempt"]) for job in ended[:4]] == [("succeeded", 1)] * 4
    assert len({job["certificate"] for job in ended}) == 1
    assert service.client.get("/readyz").status_code == 200


# --- Several dispatchers -------------------------------------------------------------------------


def test_dispatchers_share_the_work_and_outlive_each_other(
    own_service: Callable[..., Service], url: DatabaseUrl, tmp_path: Path
) -> None:
    gate, log = tmp_path / "gate", tmp_path / "pids"
    common = {"database_url": url, "slots": 1, "lease_s": 3.0, "heartbeat_s": 0.5}
    one, two = own_service(**common), own_service(**common, port=free_port())
    model_id = one.upload(model(["count", str(log)], ["wait-for", str(gate)]))
    made = [one.submit(model_id, labels={"n": str(n)})["id"] for n in range(2)]
    eventually(lambda: log.exists() and len(log.read_text().split()) == 2)
    owners = one.query("SELECT DISTINCT lease_owner FROM job WHERE state = 'running'")
    assert len(owners) == 2
    one.kill()
    eventually(lambda: len(log.read_text().split()) == 2 + 1 if gate.exists() else gate.touch())
    ended = [two.ended(job) for job in made]
    assert sorted(job["attempt"] for job in ended) == [1, 2]
    assert [job["state"] for job in ended] == ["succeeded"] * 2


# --- Values --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "/v1/jobs?model=%00",
        "/v1/certificates?model=%00",
        f"/v1/jobs/{'0' * 32}/events?after={2**31}",
        f"/v1/jobs?cursor={base64.urlsafe_b64encode(b'9223372036854775808 a').decode()}",
        f"/v1/jobs?cursor={base64.urlsafe_b64encode(b'1 nul' + bytes(1)).decode()}",
    ],
)
def test_what_no_row_can_have_is_a_refusal(service_on_postgres: Service, query: str) -> None:
    response = service_on_postgres.client.get(query)
    assert (problem(response)["code"], response.status_code) == ("invalid-request", 422)


JSON = {"Content-Type": "application/json"}


def test_labels_may_have_any_character_but_control(either_service: Service) -> None:
    body = {"model": either_service.upload(model("any character"))}
    for refused in ({"\0": ""}, {"a": "\0"}, {"a": "\ud800"}):
        text = json.dumps({**body, "labels": refused})
        answer = either_service.client.post("/v1/jobs", content=text, headers=JSON)
        assert (problem(answer)["code"], answer.status_code) == ("invalid-request", 422)
    text = json.dumps({**body, "labels": {"\u2028'": '"\u2028\U0001f600'}})
    headers = {**JSON, "Prefer": "wait=20"}
    job = either_service.client.post("/v1/jobs", content=text, headers=headers).json()
    assert (job["state"], job["labels"]) == ("succeeded", json.loads(text)["labels"])


# --- The address ---------------------------------------------------------------------------------


def test_the_password_is_shown_nowhere(
    service_on_postgres: Service, postgres: Postgres, capfd: pytest.CaptureFixture[str]
) -> None:
    service = service_on_postgres
    family = [service.process.pid, service.dispatcher()]
    commands = [text for pid in family for _, text in processes(pid)]
    commands += [Path(f"/proc/{pid}/cmdline").read_text() for pid in family]
    shown = [*commands, service.client.get("/readyz").text, str(service.settings)]
    assert not any(postgres.password in text for text in shown)
    wrong = DatabaseUrl.parse(postgres.url).with_password(SECRET)
    with pytest.raises(InvalidRequest, match="password authentication failed") as refusal:
        prepare(replace(service.settings, database_url=wrong))
    assert SECRET not in str(refusal.value)
    assert wrong.password is not None
    assert wrong.password not in str(refusal.value)
    assert "lipcert:***@" in str(refusal.value)
    assert postgres.password not in capfd.readouterr().err


def test_the_password_may_be_in_a_file(postgres: Postgres, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f"{postgres.password}\n")
    bare = postgres.url.replace(f":{postgres.password}@", "@")
    settings = from_environment(
        {
            "LIPCERT_DATA": str(tmp_path),
            "LIPCERT_DATABASE_URL": bare,
            "LIPCERT_DATABASE_PASSWORD_FILE": str(file),
        }
    )
    assert Settings.from_json(settings.to_json()) == settings
    assert settings.database == DatabaseUrl.parse(postgres.url)
    file.unlink()
    with pytest.raises(InvalidRequest, match="cannot be read"):
        open_database(settings.database)


@pytest.mark.parametrize(
    "text",
    [
        f"mysql://user:{SECRET}@host/database",
        f"user:{SECRET}@host",
        f"postgresql://[{SECRET}/database",
        f"postgresql://host/database?password={SECRET}",
        "postgresql://",
    ],
)
def test_what_is_no_address_is_refused_unread(text: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        DatabaseUrl.parse(text)
    assert SECRET not in str(refusal.value)


def test_a_password_is_quoted_and_concealed() -> None:
    address = DatabaseUrl.parse("postgresql://me@host:5432/name").with_password(SECRET)
    assert address.text == "postgresql://me:s3cr%40t%2Fword@host:5432/name"
    assert str(address) == "postgresql://me:***@host:5432/name"
    assert repr(address) == "DatabaseUrl(postgresql://me:***@host:5432/name)"
    assert address.conceal(f"no:\n {address.text}") == "no: postgresql://me:***@host:5432/name"


def test_a_password_on_the_command_line_is_refused() -> None:
    url = f"postgresql://me:{SECRET}@host/name".replace("@t/", "t")
    command = [sys.executable, "-m", "service.cli", "serve", "--database-url", url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert "LIPCERT_DATABASE_PASSWORD_FILE" in done.stderr
    assert "s3cr" not in done.stderr


def test_a_missing_driver_is_a_refusal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delitem(sys.modules, "service.store.postgres", raising=False)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    settings = replace(settings_in(tmp_path), database_url=DatabaseUrl.parse("postgresql://h/n"))
    with pytest.raises(RequestRefused, match="psycopg") as refusal:
        prepare(settings)
    assert "lipcert[postgres]" in refusal.value.fix
