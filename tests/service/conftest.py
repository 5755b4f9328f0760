"""The services that tests talk to."""

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the children find the fakes by the same name

from service_process import Service, settings_in
from webhook_receiver import Receiver
from webhook_stage import Stage

from service.settings import Settings
from service.store.engine import open_database
from service.store.migrate import migrate


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service that many tests share; none of them may hurt it."""
    running = Service(settings_in(tmp_path_factory.mktemp("service")))
    yield running
    assert running.is_alive(), "a test has killed the service"
    running.close()


@pytest.fixture
def own_service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """A service of a test's own, to be hurt, with settings of its own."""
    running: list[Service] = []

    def start(**changes: object) -> Service:
        running.append(Service(replace(settings_in(tmp_path), **changes)))
        return running[-1]

    yield start
    for one in running:
        one.close()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a database at the newest schema, to be copied."""
    folder = tmp_path_factory.mktemp("empty")
    database = open_database(folder / "lipcert.db")
    migrate(database, folder / "lock")
    database.close()
    return folder / "lipcert.db"


@pytest.fixture
def stage(tmp_path: Path, empty_database: Path) -> Iterator[Stage]:
    """A database and a receiver of webhooks, without any process."""
    settings = Settings(data=tmp_path, webhooks=True, webhook_loopback=True, webhook_timeout_s=30.0)
    shutil.copyfile(empty_database, settings.database)
    database, receiver = open_database(settings.database), Receiver()
    yield Stage(settings, database, receiver)
    receiver.close()
    database.close()
