"""The services that tests talk to."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the children find the fakes by the same name

from service_process import FAKES, Service, free_port

from service.settings import Settings


def settings_in(folder: Path) -> Settings:
    """Limits small enough to be met in tests."""
    return replace(
        Settings(port=free_port(), data=folder / "data", entry_points=FAKES),
        slots=2,
        max_model_bytes=100_000,
        max_json_bytes=50_000,
        max_certificate_bytes=200_000,
        upload_idle_s=1.0,
        budget_grace_s=0.3,
        check_s=10.0,
        memory_bytes=2**30,
        sweep_s=0.2,
    )


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
