"""What the images and the compose file promise, read from them: nothing is built here."""

from pathlib import Path
from typing import Any

import pytest
import yaml

DOCKER = Path(__file__).parents[2] / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))


def instructions(name: str) -> list[str]:
    text = (DOCKER / f"{name}.Dockerfile").read_text(encoding="utf-8").replace("\\\n", "")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("name", ["api", "worker"])
def test_images_run_without_root_and_tell_their_health(name: str) -> None:
    last_stage = instructions(name)
    last_stage = last_stage[max(i for i, s in enumerate(last_stage) if s.startswith("FROM")) :]
    assert "USER 10001" in last_stage
    assert any(line.startswith("HEALTHCHECK") for line in last_stage)
    assert not any("ADD http" in line for line in last_stage)


def test_the_api_image_holds_nothing_that_reads_models() -> None:
    installs = [line for line in instructions("api") if "pip install" in line]
    assert [line.endswith("'.[serve]'") for line in installs] == [True]


def test_ports_are_published_on_this_machine_only() -> None:
    ports = [port for one in COMPOSE["services"].values() for port in one.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


@pytest.mark.parametrize("name", ["api", "worker", "deliverer"])
def test_containers_can_do_little(name: str) -> None:
    container = COMPOSE["services"][name]
    assert container["read_only"] is True
    assert container["cap_drop"] == ["ALL"]
    assert container["security_opt"] == ["no-new-privileges:true"]


def test_the_worker_has_no_network() -> None:
    assert COMPOSE["services"]["worker"]["network_mode"] == "none"


def test_webhooks_are_sent_by_a_container_that_reads_no_model() -> None:
    """From the image without the verifier's libraries, and only where it is asked for."""
    deliverer = COMPOSE["services"]["deliverer"]
    assert deliverer["profiles"] == ["webhooks"]
    assert deliverer["build"]["dockerfile"] == "docker/api.Dockerfile"
    assert deliverer["command"] == ["python", "-m", "service.deliverer", "--alone"]
    assert COMPOSE["services"]["api"]["environment"]["LIPCERT_WEBHOOKS"].endswith(":-off}")
