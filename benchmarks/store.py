"""How fast jobs are taken, claimed and ended: `python -m benchmarks.store [JOBS]`.

On SQLite and on PostgreSQL (a server of its own, from the binaries that are installed), both with
every commit flushed to the disk. Wanted: from accepted to started in less than 50 ms on SQLite, and
in less than 100 ms on PostgreSQL, for 95 of 100 jobs.

accept/s    submissions by eight threads, as the API's: a job, its events, its idempotency key
claim/s     claimed and ended with a certificate, by one dispatcher, or by four at the same time
p50, p95    milliseconds from accepted to started in a whole service that has nothing else to do
"""

from __future__ import annotations

import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "service"))  # as the tests find them

from postgres import Postgres, binaries
from service_fakes import model
from service_process import Service, settings_in

from benchmarks.table import Table
from service.acceptance import accept
from service.serve import ready_database
from service.settings import TENANT, Settings
from service.store import leases, models
from service.store.address import DatabaseUrl
from service.store.coordination import now_in, take_turn
from service.store.database import Database
from service.submission import read_submission

MODEL = f"sha256:{'a' * 64}"
ACCEPTED: Mapping[str, Any] = {
    "blob": "b",
    "size": 1,
    "kind": "lipschitz",
    "scope": "global",
    "verdict": "undecided",
    "summary": {"bound": 2.0, "log10_bound": 0.4, "lower": 1.0},
}


def main() -> None:
    """Prints one row for each database."""
    count = int(sys.argv[1]) if 1 < len(sys.argv) else 400
    table = Table(database=12, accept_s=10, claim_s_of_1=12, claim_s_of_4=12, p50_ms=8, p95_ms=8)
    with tempfile.TemporaryDirectory() as folder:
        settings = settings_in(Path(folder) / "sqlite")
        table.row(["sqlite", *figures(settings, count)])
        if binaries() is None:
            sys.stdout.write("postgresql: the server is not installed\n")
            return
        with Postgres.start(durable=True) as server:
            url = DatabaseUrl.parse(server.url_of(server.new_database()))
            settings = replace(settings_in(Path(folder) / "postgresql"), database_url=url)
            table.row(["postgresql", *figures(settings, count)])


def figures(settings: Settings, count: int) -> list[float]:
    """The numbers of one row."""
    with ready_database(settings) as database:
        make_ready(database)
        accepted = rate(count, 8, accepting(database, settings))
        alone = rate(count // 2, 1, finishing(database, settings))
        together = rate(count // 2, 4, finishing(database, settings))
    with serving(settings) as service:
        waits = started_after_ms(service, 100)
    return [accepted, alone, together, statistics.median(waits), sorted(waits)[94]]


def make_ready(database: Database) -> None:
    """Store a model that jobs can be about."""
    with database.write() as connection:
        models.add(connection, TENANT, MODEL, 1, 0, 3)
        reading = leases.claim(connection, "reader", 0, 1000, ["inspect"])
        assert reading is not None, "it was queued by the line before"  # noqa: S101
        leases.finish_inspection(connection, reading, 0, summary={})


def rate(count: int, threads: int, work: Callable[[], None]) -> float:
    """How often `work` is done in a second."""
    with ThreadPoolExecutor(threads) as pool:
        began = time.perf_counter()
        for done in [pool.submit(work) for _ in range(count)]:
            done.result()
        return count / (time.perf_counter() - began)


def accepting(database: Database, settings: Settings) -> Callable[[], None]:
    """Take one submission, as POST /v1/jobs does."""

    def work() -> None:
        submission = read_submission({"model": MODEL}, None)
        with database.write() as connection:
            take_turn(connection, TENANT)
            now = now_in(connection)
            accept(connection, settings, TENANT, submission, secrets.token_hex(8), now)

    return work


def finishing(database: Database, settings: Settings) -> Callable[[], None]:
    """Claim one job and end it, as a dispatcher does, in two transactions."""
    lease_ms = round(settings.lease_s * 1000)

    def work() -> None:
        with database.write() as connection:
            now = now_in(connection)
            mine = leases.claim(connection, "one", now, lease_ms, ["verify"])
        assert mine is not None, "more were accepted than are claimed"  # noqa: S101
        proved = {**ACCEPTED, "id": f"sha256:{secrets.token_hex(32)}"}
        with database.write() as connection:
            now = now_in(connection)
            leases.finish(connection, mine, "succeeded", now, incumbent=proved)

    return work


@contextmanager
def serving(settings: Settings) -> Generator[Service]:
    """A whole service on an empty queue."""
    with ready_database(settings) as database, database.write() as connection:
        while (mine := leases.claim(connection, "one", 0, 1000, ["verify"])) is not None:
            leases.finish(connection, mine, "canceled", 0)
    service = Service(settings)
    yield service
    service.close()


def started_after_ms(service: Service, count: int) -> list[int]:
    """For `count` jobs, one after another, how long each waited."""
    made = service.upload(model("quick"))
    for number in range(count):
        service.submit(made, wait=30, labels={"n": str(number)}, budget={"seconds": 61 + number})
    # The model's id is hexadecimal, and ours.
    asked = f"SELECT started - created FROM job WHERE kind = 'verify' AND model = '{made}'"  # noqa: S608
    return [waited for (waited,) in service.query(asked)]


if __name__ == "__main__":
    main()
