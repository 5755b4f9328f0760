"""The queue's rules on the real database, without processes: fencing, leases, sweeping."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect

from service.gate import Limit, compared, decision_of
from service.store import certificates, events, gates, jobs, leases, models, policies
from service.store.database import Database
from service.store.engine import HEAD
from service.store.jobs import Job, NewJob
from service.store.leases import Claim
from service.store.migrate import MIGRATIONS, TooNew, migrate
from service.store.tables import metadata
from verifier.property import Request
from verifier.request_json import request_json

MODEL = f"sha256:{'a' * 64}"
TENANT = "default"
RC = "read committed"  # what a writer on PostgreSQL is to be
LOST: dict[str, Any] = {"code": "worker-lost", "title": "", "detail": "", "node": None, "fix": ""}
INCUMBENT: dict[str, Any] = {
    "id": "sha256:c",
    "blob": "b",
    "size": 1,
    "kind": "lipschitz",
    "scope": "global",
    "verdict": "undecided",
    "summary": {"bound": 2.0, "log10_bound": 0.4, "lower": 1.0},
}


@pytest.fixture
def database(store: Database) -> Database:
    """A database with a model that is ready."""
    with store.write() as connection:
        models.add(connection, TENANT, MODEL, 1, 0, 3)
        inspection = leases.claim(connection, "reader", 0, 1000, ["inspect"])
        assert inspection is not None
        leases.finish_inspection(connection, inspection, 0, summary={})
    return store


def submit(database: Database, **members: Any) -> str:  # noqa: ANN401 - a job's fields
    new = NewJob(tenant=TENANT, model=MODEL, request=request_json(Request()), **members)
    with database.write() as connection:
        return jobs.insert_job(connection, new, 0, 3)


def claim(database: Database, now: int = 0, owner: str = "one") -> Claim | None:
    with database.write() as connection:
        return leases.claim(connection, owner, now, 1000, ["verify"])


def find(database: Database, job_id: str) -> Job:
    with database.read() as connection:
        job = jobs.find(connection, TENANT, job_id)
    assert job is not None
    return job


def test_the_first_claimant_gets_the_job(database: Database) -> None:
    submit(database)
    assert claim(database) is not None
    assert claim(database) is None


def test_priority_comes_before_age(database: Database) -> None:
    submit(database)
    urgent = submit(database, priority=1)
    claimed = claim(database)
    assert claimed is not None
    assert claimed.job == urgent


def test_a_stalled_attempt_cannot_overwrite_its_successor(database: Database) -> None:
    job_id = submit(database)
    stalled, successor = claim(database), claim(database, now=1001, owner="two")
    assert stalled is not None
    assert successor is not None
    assert (stalled.attempt, successor.attempt) == (1, 2)
    with database.write() as connection:
        assert not leases.report(connection, stalled, {}, INCUMBENT, 1002)
        assert not leases.finish(connection, stalled, "failed", 1002, error=LOST)
        assert leases.finish(connection, successor, "succeeded", 1003, incumbent=INCUMBENT)
        assert not leases.finish(connection, successor, "failed", 1004, error=LOST)
    assert find(database, job_id).state == "succeeded"


def test_the_same_owner_is_fenced_by_its_attempt(database: Database) -> None:
    submit(database)
    first, second = claim(database), claim(database, now=1001)
    assert first is not None
    assert second is not None
    with database.write() as connection:
        assert not leases.report(connection, first, {}, None, 1002)
        assert leases.report(connection, second, {}, None, 1002)


def test_heartbeats_keep_a_lease(database: Database) -> None:
    kept, given_up = submit(database), submit(database)
    claim(database)
    claim(database)
    with database.write() as connection:
        leases.heartbeat(connection, "one", [kept], 5000)
    claimed = claim(database, now=1001, owner="two")
    assert claimed is not None
    assert claimed.job == given_up
    assert claim(database, now=1001, owner="two") is None


def test_the_end_is_one_transaction(database: Database) -> None:
    job_id = submit(database)
    mine = claim(database)
    assert mine is not None
    with suppress(KeyboardInterrupt), database.write() as connection:
        leases.finish(connection, mine, "succeeded", 1, incumbent=INCUMBENT)
        raise KeyboardInterrupt
    assert find(database, job_id).state == "running"
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM certificate").scalar() == 0


def test_the_sweeper_gives_up_after_the_last_attempt(database: Database) -> None:
    job_id = submit(database)
    for now in (0, 2000, 4000):
        mine = claim(database, now=now)
        assert mine is not None
        with database.write() as connection:
            leases.report(connection, mine, {"upper": 2.0}, INCUMBENT, now)
    assert claim(database, now=6000) is None
    with database.write() as connection:
        leases.sweep(connection, 6000, LOST)
    job = find(database, job_id)
    assert (job.state, job.error, job.certificate) == ("failed", LOST, INCUMBENT["id"])


def test_a_canceled_job_of_a_dead_dispatcher_is_not_run_again(database: Database) -> None:
    job_id = submit(database)
    claim(database)
    with database.write() as connection:
        leases.cancel(connection, TENANT, job_id, 1)
    assert claim(database, now=2000) is None
    with database.write() as connection:
        leases.sweep(connection, 2000, LOST)
    assert find(database, job_id).state == "canceled"


def _given_back(database: Database, **members: Any) -> str:  # noqa: ANN401 - a job's fields
    """A job in the queue again, of which an attempt has proved something."""
    job_id = submit(database, **members)
    mine = claim(database)
    assert mine is not None
    with database.write() as connection:
        leases.report(connection, mine, {}, INCUMBENT, 1)
        assert leases.release(connection, mine, 2, reason="stopped", again=True)
    return job_id


def test_a_canceled_job_that_waits_again_keeps_its_bound(database: Database) -> None:
    job_id = _given_back(database)
    with database.write() as connection:
        leases.cancel(connection, TENANT, job_id, 3)
        assert certificates.find(connection, TENANT, INCUMBENT["id"]) is not None
    job = find(database, job_id)
    assert (job.state, job.certificate) == ("canceled", INCUMBENT["id"])


def test_a_job_that_waits_again_beyond_its_deadline_succeeds(database: Database) -> None:
    job_id = _given_back(database, deadline=500)
    with database.write() as connection:
        leases.sweep(connection, 2000, LOST)
    job = find(database, job_id)
    assert (job.state, job.certificate) == ("succeeded", INCUMBENT["id"])


@pytest.mark.parametrize("incumbent", [None, INCUMBENT])
def test_a_job_left_behind_beyond_its_deadline_ends(
    database: Database, incumbent: dict[str, Any] | None
) -> None:
    job_id = submit(database, deadline=500)
    mine = claim(database)
    assert mine is not None
    with database.write() as connection:
        leases.report(connection, mine, {}, incumbent, 1)
    assert claim(database, now=2000) is None
    with database.write() as connection:
        leases.sweep(connection, 2000, LOST)
    assert find(database, job_id).state == ("failed" if incumbent is None else "succeeded")


def test_events_have_no_gaps(database: Database) -> None:
    job_id = submit(database)
    mine = claim(database)
    assert mine is not None
    with database.write() as connection:
        leases.report(connection, mine, {"upper": 1.0}, None, 1)
        leases.finish(connection, mine, "succeeded", 2, incumbent=INCUMBENT)
        found = events.after(connection, TENANT, job_id, 0, 100)
    assert [(event.seq, event.type) for event in found] == [
        (1, "state"),
        (2, "state"),
        (3, "progress"),
        (4, "state"),
        (5, "end"),
    ]


def test_another_tenant_sees_nothing(database: Database) -> None:
    job_id = submit(database)
    with database.write() as connection:
        assert jobs.find(connection, "other", job_id) is None
        assert models.find(connection, "other", MODEL) is None
        assert leases.cancel(connection, "other", job_id, 1) is None
        assert events.after(connection, "other", job_id, 0, 10) == []
    assert find(database, job_id).state == "queued"


def test_a_reader_cannot_write(database: Database) -> None:
    with pytest.raises(Exception, match=r"read-?only"), database.read() as connection:
        connection.exec_driver_sql("DELETE FROM job")


def test_a_commit_is_on_the_disk(database: Database) -> None:
    ask, asked, expected = {
        "sqlite": ("PRAGMA", ("journal_mode", "synchronous", "foreign_keys"), ["wal", 2, 1]),
        "postgresql": ("SHOW", ("transaction_isolation", "synchronous_commit"), [RC, "on"]),
    }[database.name]
    with database.write() as connection:
        found = [connection.exec_driver_sql(f"{ask} {name}").scalar() for name in asked]
    assert found == expected


def test_a_gate_is_decided_once(database: Database) -> None:
    """By the first of two who found it ripe; not at all where the transaction fails."""
    limit = Limit(name="one", max_bound=5.0)
    decision = decision_of(MODEL, [compared(limit, "sha256:c", 2.0, 1.0)])
    other = decision_of(MODEL, [compared(limit, "sha256:c", None, 6.0)])
    with database.write() as connection:
        policy = policies.add(connection, TENANT, "p", {"version": 1}, "sha256:d", 0)
        assert policy is not None
        job_id = jobs.insert_job(connection, NewJob(tenant=TENANT, model=MODEL, request={}), 0, 3)
        gate = gates.add(connection, TENANT, gates.new_id(), MODEL, policy, [(limit, job_id)], 0)
        assert gates.ripe(connection, 10) == []
        leases.cancel(connection, TENANT, job_id, 1)
        assert gates.ripe(connection, 10) == [gate]
    with suppress(KeyboardInterrupt), database.write() as connection:
        assert gates.decide(connection, gate, decision, [], None, 2)
        raise KeyboardInterrupt
    with database.write() as connection:
        assert gates.ripe(connection, 10) == [gate]
        assert gates.decide(connection, gate, decision, [], None, 2)
        assert not gates.decide(connection, gate, other, [], None, 3)
        assert gates.ripe(connection, 10) == []
        assert gates.find(connection, "other", gate.id) is None
        found = gates.find(connection, TENANT, gate.id)
    assert found is not None
    assert (found.outcome, found.decided, found.version) == ("pass", 2, 2)


def test_head_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


def test_the_migrations_make_the_tables(database: Database) -> None:
    with database.write() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, metadata) == []


def test_migrations_go_down_and_up_again(store: Database, tmp_path: Path) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with store.write() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        assert set(inspect(connection).get_table_names()) == {"alembic_version"}
    with ThreadPoolExecutor(2) as threads:  # two that start at the same time take turns
        for done in [threads.submit(migrate, store, tmp_path / "lock") for _ in range(2)]:
            done.result()
    with store.read() as connection:
        assert set(inspect(connection).get_table_names()) == {*metadata.tables, "alembic_version"}
    assert store.revision() == HEAD


def test_a_later_versions_data_is_refused(database: Database, tmp_path: Path) -> None:
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(TooNew, match="9999"):
        migrate(database, tmp_path / "lock")


def test_a_migrated_database_is_left_alone(database: Database, tmp_path: Path) -> None:
    migrate(database, tmp_path / "no-folder" / "lock")
    assert database.revision() == HEAD
    assert sqlite3.sqlite_version_info >= (3, 35)  # UPDATE ... RETURNING
