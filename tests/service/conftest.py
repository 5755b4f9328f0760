"""The services that tests talk to."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the children find the fakes by the same name

from service_process import Service, settings_in


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
