"""Whose turn it is: no tenant starves another, none runs more than it may."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from service.limits import DAY_MS, Limits
from service.store import jobs, leases, limits
from service.store.engine import Database, open_database
from service.store.jobs import Kind, NewJob
from service.store.leases import Claim
from service.store.migrate import migrate
from service.store.tables import model

MODEL = f"sha256:{'a' * 64}"
NOW = 10 * DAY_MS


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A database in which two tenants have a model that is ready."""
    opened = open_database(tmp_path / "lipcert.db")
    migrate(opened, tmp_path / "lock")
    with opened.write() as connection:
        for tenant in ("large", "small"):
            connection.execute(
                insert(model).values(tenant=tenant, id=MODEL, size=1, state="ready", created=0)
            )
    yield opened
    opened.close()


def submit(database: Database, tenant: str, count: int = 1, **members: Any) -> str:  # noqa: ANN401 - a job's fields
    new = NewJob(tenant=tenant, model=MODEL, request={}, **members)
    with database.write() as connection:
        made = [jobs.insert_job(connection, new, NOW, 3) for _ in range(count)]
    return made[-1]


def claim(
    database: Database, defaults: Limits | None = None, kinds: tuple[Kind, ...] = jobs.ASKED
) -> Claim | None:
    with database.write() as connection:
        return leases.claim(connection, "one", NOW, 1000, kinds, defaults or Limits())


def served(database: Database, defaults: Limits | None = None) -> str | None:
    claimed = claim(database, defaults)
    return None if claimed is None else claimed.tenant


def finish(database: Database, claimed: Claim | None) -> None:
    assert claimed is not None
    with database.write() as connection:
        assert leases.finish(connection, claimed, "succeeded", NOW)


def set_limit(database: Database, tenant: str, **said: int | None) -> None:
    with database.write() as connection:
        limits.set_limits(connection, tenant, said)


def test_one_tenants_queue_does_not_starve_another_in_a_single_slot(database: Database) -> None:
    submit(database, "large", count=20)
    finish(database, claim(database))
    submit(database, "small", count=2)
    order: list[str] = []
    for _ in range(6):
        claimed = claim(database)
        finish(database, claimed)
        assert claimed is not None
        order.append(claimed.tenant)
    assert order == ["small", "large", "small", "large", "large", "large"]


def test_who_runs_fewer_jobs_is_served_first(database: Database) -> None:
    submit(database, "large", count=20)
    for _ in range(3):
        assert served(database) == "large"
    submit(database, "small", count=20)
    assert [served(database) for _ in range(4)] == ["small", "small", "small", "large"]


def test_uploads_are_read_in_turns_too(database: Database) -> None:
    submit(database, "large", count=5, kind="inspect")
    first = claim(database, kinds=("inspect",))
    submit(database, "small", kind="inspect")
    second = claim(database, kinds=("inspect",))
    assert first is not None
    assert second is not None
    assert (first.tenant, second.tenant) == ("large", "small")


def test_a_priority_decides_among_a_tenants_own_jobs_only(database: Database) -> None:
    submit(database, "large")
    urgent = submit(database, "large", priority=9)
    first = claim(database)
    assert first is not None
    assert first.job == urgent
    finish(database, first)
    submit(database, "large", priority=9, count=5)
    submit(database, "small", priority=-9)
    assert served(database) == "small"


def test_a_job_that_was_left_behind_comes_before_the_queue(database: Database) -> None:
    submit(database, "large")
    lost = claim(database)
    assert lost is not None
    submit(database, "large", priority=9)
    with database.write() as connection:
        leases.lapse(connection, NOW)
    again = claim(database)
    assert again is not None
    assert (again.job, again.attempt) == (lost.job, 2)


def test_a_tenant_at_its_limit_is_skipped(database: Database) -> None:
    set_limit(database, "large", running_jobs=1)
    submit(database, "large", count=3)
    submit(database, "small", count=3)
    assert [served(database) for _ in range(5)].count("large") == 1
    set_limit(database, "large", running_jobs=2)
    assert served(database) == "large"
    set_limit(database, "large", running_jobs=None)
    assert served(database) == "large"


def test_everyones_limit_holds_where_there_is_no_other(database: Database) -> None:
    everyones = Limits(running_jobs=1)
    submit(database, "large", count=3)
    assert served(database, everyones) == "large"
    assert served(database, everyones) is None
    with database.read() as connection:
        assert not leases.has_work(connection, NOW, jobs.ASKED, everyones)
        assert leases.has_work(connection, NOW, jobs.ASKED)
    set_limit(database, "large", running_jobs=2)
    assert served(database, everyones) == "large"


def test_reading_a_model_waits_for_no_limit(database: Database) -> None:
    set_limit(database, "large", running_jobs=0, cpu_seconds_per_day=0)
    submit(database, "large")
    submit(database, "large", kind="inspect")
    assert claim(database) is None
    claimed = claim(database, kinds=(*jobs.ASKED, "inspect"))
    assert claimed is not None
    assert claimed.kind == "inspect"


def test_a_day_that_is_used_up_ends_at_midnight(database: Database) -> None:
    set_limit(database, "large", cpu_seconds_per_day=3)
    submit(database, "large", count=2)
    with database.write() as connection:
        limits.charge(connection, "large", NOW - 1, 9000)  # yesterday
        limits.charge(connection, "large", NOW, 1999)
    assert served(database) == "large"
    with database.write() as connection:
        limits.charge(connection, "large", NOW, 1001)
        assert limits.cpu_ms(connection, "large", NOW) == 3000
    assert served(database) is None
    with database.write() as connection:
        assert leases.claim(connection, "one", NOW + DAY_MS, 1000, jobs.ASKED) is not None
