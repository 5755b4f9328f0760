"""The services and databases that tests talk to."""

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the children find the fakes by the same name

import postgres as postgres_server
import tenant_guard
from postgres import Postgres
from service_process import Service, settings_in
from webhook_receiver import Receiver
from webhook_stage import Stage

from service.settings import Settings
from service.store.address import DatabaseUrl
from service.store.database import Database
from service.store.engine import open_database
from service.store.migrate import migrate

tenant_guard.install()

BACKENDS = ("sqlite", "postgresql")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server that many tests share; who stops it, starts it again."""
    if postgres_server.binaries() is None:
        pytest.skip("PostgreSQL's server is not installed (Debian: postgresql)")
    with Postgres.start() as server:
        yield server


@pytest.fixture(scope="session")
def migrated_postgres(postgres: Postgres) -> str:
    """The name of a database at the newest schema, to make others like it."""
    name = postgres.new_database()
    database = open_database(DatabaseUrl.parse(postgres.url_of(name)))
    migrate(database, Path("/dev/null"))
    database.close()
    return name


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file at the newest schema, to copy."""
    folder = tmp_path_factory.mktemp("migrated")
    database = open_database(folder / "lipcert.db")
    migrate(database, folder / "lock")
    database.close()
    return folder / "lipcert.db"


@pytest.fixture
def url(postgres: Postgres, migrated_postgres: str) -> Iterator[DatabaseUrl]:
    """Where a PostgreSQL database of the test's own is, at the newest schema."""
    name = postgres.new_database(migrated_postgres)
    yield DatabaseUrl.parse(postgres.url_of(name))
    postgres.drop(name)


@pytest.fixture(params=BACKENDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | DatabaseUrl:
    """Where a database of the test's own is, at the newest schema: on each backend in turn."""
    if request.param == "sqlite":
        return Path(shutil.copy(request.getfixturevalue("migrated_sqlite"), tmp_path))
    return request.getfixturevalue("url")


@pytest.fixture
def store(place: Path | DatabaseUrl) -> Iterator[Database]:
    """A database of the test's own, at the newest schema: on each backend in turn."""
    opened = open_database(place)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service that many tests share; none of them may hurt it."""
    with closing(Service(settings_in(tmp_path_factory.mktemp("service")))) as running:
        yield running
        assert running.is_alive(), "a test has killed the service"


@pytest.fixture(scope="session")
def service_on_postgres(
    postgres: Postgres, migrated_postgres: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """The same on PostgreSQL."""
    url = DatabaseUrl.parse(postgres.url_of(postgres.new_database(migrated_postgres)))
    settings = settings_in(tmp_path_factory.mktemp("service-on-postgres"))
    with closing(Service(replace(settings, database_url=url))) as running:
        yield running
        assert running.is_alive(), "a test has killed the service"


@pytest.fixture(params=BACKENDS)
def either_service(request: pytest.FixtureRequest) -> Service:
    """The shared services, each in turn."""
    name = "service" if request.param == "sqlite" else "service_on_postgres"
    return request.getfixturevalue(name)


@pytest.fixture
def own_service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """A service of a test's own, to be hurt, with settings of its own."""
    with ExitStack() as running:

        def start(**changes: object) -> Service:
            one = Service(replace(settings_in(tmp_path), **changes))
            return running.enter_context(closing(one))

        yield start


@pytest.fixture
def stage(tmp_path: Path, store: Database) -> Iterator[Stage]:
    """A database and a receiver of webhooks, without any process: on each backend in turn."""
    settings = Settings(data=tmp_path, webhooks=True, webhook_loopback=True, webhook_timeout_s=30.0)
    with closing(Receiver()) as receiver:
        yield Stage(settings, store, receiver)
