"""A fault at every SQL statement, commit and file-system call: nothing acknowledged is lost."""

import errno
import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

import pytest
import service_fakes
from fastapi import FastAPI
from fault_injection import Faults, Mode, watch_files
from little_service import HANGS, Clock, InstantChecker, LittleService
from service_process import processes
from sqlalchemy import Connection, Select, func, select
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection

from service import serve
from service.app import describe_app
from service.blobs import Blobs
from service.checking import Bench
from service.orphans import remove_orphans
from service.settings import EntryPoints, Settings
from service.storage_faults import problem_of_fault
from service.store.engine import open_database
from service.store.migrate import migrate
from service.store.tables import certificate, job, job_event, model

MODEL, OTHER = service_fakes.model(bound=4.0), service_fakes.model(bound=5.0)
WORK: dict[str, Any] = {"budget": {"seconds": 6000, "gap": 5.0}}
LONG: dict[str, Any] = {"budget": {"seconds": 6000, "gap": HANGS}}
DAYS_S = 2 * 24 * 3600


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return describe_app()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database of the newest schema."""
    folder = tmp_path_factory.mktemp("template")
    database = open_database(folder / "lipcert.db")
    migrate(database, folder / "lock")
    database.close()
    return folder / "lipcert.db"


def life(service: LittleService) -> dict[str, str]:
    """Everything that a service does once; what its clients were told, job by job."""
    service.begin()
    model_id = service.upload(MODEL)
    whole = service.submit("whole", model=model_id, **WORK)
    service.settle(lambda: service.row(whole).ended is not None)
    long = service.submit("long", model=model_id, **LONG)
    service.settle(lambda: service.row(long).checkpoint and service.row(long).incumbent)
    assert service.ask("POST", f"/v1/jobs/{long}/cancel").status_code in (200, 202)
    service.settle(lambda: service.row(long).ended is not None)
    resumed = service.submit("resumed", f"/v1/jobs/{long}/resume", **WORK)
    service.settle(lambda: service.row(resumed).ended is not None)
    past = "2020-01-01T00:00:00Z"
    late = service.submit("late", model=model_id, deadline=past, target={"upper": 1.0}, **WORK)
    service.settle(lambda: service.row(late).ended is not None)
    other = service.upload(OTHER)
    assert service.ask("DELETE", f"/v1/models/{other}").status_code in (204, 404)
    service.faults.is_on = False
    return {whole: "succeeded", long: "canceled", resumed: "succeeded", late: "expired"}


def audit(service: LittleService, told: dict[str, str]) -> None:
    """What has to hold after a life, whatever happened in it."""
    with service.database.read() as connection:
        jobs = {
            row.id: row for row in connection.execute(select(job).where(job.c.kind != "inspect"))
        }
        assert {job_id: row.state for job_id, row in jobs.items()} == told
        proved = {row.certificate for row in jobs.values() if row.certificate is not None}
        assert proved == set(connection.scalars(select(certificate.c.id)))
        assert len(proved) == 2
        assert list(connection.scalars(select(model.c.state))) == ["ready"]
        assert not list(connection.scalars(_with_gaps()))
        assert set(connection.scalars(_ends())) == {1}
        named = _named(connection)
    _age(service.settings.data)
    service.blobs.remove_stale()
    remove_orphans(service.database, service.blobs)
    files = {str(path.relative_to(service.settings.data)) for path in _files(service.settings.data)}
    assert files == named
    for path in _files(service.settings.data):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


@pytest.fixture
def service(
    app: FastAPI, template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LittleService]:
    """One whose calls are watched."""
    faults, clock = Faults(), Clock()
    clock.rule(monkeypatch)
    watch_files(monkeypatch, faults, tmp_path)
    little = LittleService(app, tmp_path / "data", template, faults, clock)
    yield little
    little.close()


@pytest.mark.parametrize("mode", get_args(Mode))
def test_a_fault_anywhere_loses_nothing(service: LittleService, mode: Mode) -> None:
    """A quiet life counts the calls; then one life for each, in which it fails."""
    audit(service, life(service))
    calls = list(service.faults.seen)
    assert 100 < len(set(calls))
    for number in points(calls, mode):
        service.faults.begin(mode, number)
        try:
            audit(service, life(service))
        except BaseException as error:
            error.add_note(f"{mode}: call {number}, {calls[number]}")
            raise


def test_a_stop_during_the_last_check_gives_the_job_back(
    service: LittleService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That nothing was checked yet is no rejection."""
    service.begin()
    job_id = service.submit("one", model=service.upload(MODEL), **WORK)
    with monkeypatch.context() as patch:
        patch.setattr(InstantChecker, "is_endless", True)
        service.settle(lambda: service.row(job_id).progress["phase"] is not None)
        for _ in range(5):
            service.dispatcher.turn()
        service.dispatcher.stop()
    assert service.row(job_id).state == "queued"
    service.reboot()
    service.settle(lambda: service.row(job_id).ended is not None)
    assert service.row(job_id).state == "succeeded"


@pytest.mark.parametrize(
    ("deaths", "state", "attempt"), [(2, "succeeded", 1), (7, "succeeded", 2), (99, "failed", 3)]
)
def test_a_check_whose_process_is_killed_is_made_again(
    service: LittleService, monkeypatch: pytest.MonkeyPatch, deaths: int, state: str, attempt: int
) -> None:
    """That it said nothing is no rejection, unless it never says anything."""
    service.begin()
    monkeypatch.setattr(InstantChecker, "deaths", iter([True] * deaths))
    job_id = service.submit("one", model=service.upload(MODEL), **WORK)
    service.settle(lambda: service.row(job_id).ended is not None)
    row = service.row(job_id)
    assert (row.state, row.attempt) == (state, attempt)
    assert (row.error or {"code": "check-rejected"})["code"] == "check-rejected"


def test_a_checker_that_died_while_it_waited_checks_nothing() -> None:
    bench = Bench(EntryPoints())
    with closing(bench):
        (waiting,) = [pid for pid, text in processes(os.getpid()) if "check_child" in text]
        os.kill(waiting, signal.SIGKILL)
        os.waitid(os.P_PID, waiting, os.WEXITED | os.WNOWAIT)
        with closing(bench.take()) as taken:
            assert taken.is_alive


def test_a_dispatcher_that_cannot_be_started_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Neither a machine without room for a process nor a process that dies at once ends it."""
    started = threading.Event()
    ways = iter(("no room", "dies at once"))
    real = subprocess.Popen

    def start(_command: list[str], **more: Any) -> Any:  # noqa: ANN401 - a process of text
        match next(ways, "lives"):
            case "no room":
                raise BlockingIOError(errno.EAGAIN, "no more processes")
            case "dies at once":
                return real([sys.executable, "-c", "import os; os.close(0)"], **more)
            case _:
                started.set()
                return real([sys.executable, "-c", "input(); input()"], **more)

    monkeypatch.setattr(serve, "RESTART_S", 0.0)
    monkeypatch.setattr(subprocess, "Popen", start)
    keeper = serve.Keeper(Settings(data=tmp_path), "dispatcher")
    keeper.start()
    assert started.wait(30)
    keeper.stop()


def test_bytes_that_come_again_do_not_replace_the_file(tmp_path: Path) -> None:
    """A child is enclosed with the file; another one of the same name is closed to it."""
    blobs, place = Blobs(tmp_path), tmp_path / "models" / "default" / "a"
    found: list[int] = []
    for _ in range(2):
        with blobs.draft() as draft:
            draft.write(MODEL)
            draft.flush()
            draft.keep(place)
        found.append(place.stat().st_ino)
    assert found[0] == found[1]
    assert list(blobs.temporary.iterdir()) == []


def _sqlite(code: int) -> OperationalError:
    error = sqlite3.OperationalError()
    error.sqlite_errorcode = code
    return OperationalError("", {}, error)


class _ServerSays(Exception):
    """As a driver of a server raises it."""

    def __init__(self, sqlstate: str | None) -> None:
        super().__init__()
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, ""), "storage-full"),
        (OSError(errno.EIO, ""), "storage-unavailable"),
        (FileNotFoundError(errno.ENOENT, ""), None),
        (_sqlite(sqlite3.SQLITE_FULL), "storage-full"),
        (_sqlite(sqlite3.SQLITE_BUSY_SNAPSHOT), "storage-unavailable"),
        (_sqlite(sqlite3.SQLITE_ERROR), None),
        (OperationalError("", {}, _ServerSays("53100")), "storage-full"),
        (OperationalError("", {}, _ServerSays(None)), "storage-unavailable"),
        (NoConnection(), "storage-unavailable"),
        (IntegrityError("", {}, Exception()), None),
    ],
    ids=repr,
)
def test_what_the_machine_refuses_is_no_defect(error: Exception, code: str | None) -> None:
    problem = problem_of_fault(error)
    assert (None if problem is None else problem.entry.code) == code


def points(calls: list[str], mode: Mode) -> list[int]:
    """The numbers of the calls to fail at.

    All of them in a nightly run; in a full one each line of the service once; in a quick one every
    16th of those, others in each mode.
    """
    profile = os.environ.get("LIPCERT_TESTS", "quick")
    if profile == "nightly":
        return list(range(len(calls)))
    first = {call: number for number, call in reversed(list(enumerate(calls)))}
    distinct = sorted(first.values())
    return distinct if profile == "full" else distinct[4 * get_args(Mode).index(mode) :: 16]


def _named(connection: Connection) -> set[str]:
    """The files that rows name."""
    models = [name.removeprefix("sha256:") for name in connection.scalars(select(model.c.id))]
    kept = connection.scalars(select(job.c.checkpoint).where(job.c.checkpoint.is_not(None)))
    return {
        *(f"models/default/{name}" for name in models),
        *(
            f"certificates/default/{name}"
            for name in connection.scalars(select(certificate.c.blob))
        ),
        *(f"checkpoints/default/{name}" for name in kept),
    }


def _files(data: Path) -> list[Path]:
    return [path for path in data.glob("*/**/*") if path.is_file()]


def _age(data: Path) -> None:
    """Have all files be old."""
    for path in _files(data):
        then = path.stat().st_mtime - DAYS_S
        os.utime(path, (then, then))


def _with_gaps() -> Select[str]:
    return (
        select(job_event.c.job)
        .group_by(job_event.c.job)
        .having(func.max(job_event.c.seq) != func.count())
    )


def _ends() -> Select[int]:
    return select(func.count()).where(job_event.c.type == "end").group_by(job_event.c.job)
