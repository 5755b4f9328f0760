"""What the images and the compose file promise, read from them: nothing is built here."""

from pathlib import Path

import pytest
import yaml

from service.store.address import DatabaseUrl

DOCKER = Path(__file__).parents[2] / "docker"
FILES = {
    name: yaml.safe_load((DOCKER / name).read_text(encoding="utf-8"))
    for name in ("compose.yaml", "compose.sqlite.yaml")
}


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
    assert [line.endswith("'.[serve,postgres]'") for line in installs] == [True]


@pytest.mark.parametrize("file", FILES)
def test_ports_are_published_on_this_machine_only(file: str) -> None:
    ports = [port for one in FILES[file]["services"].values() for port in one.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


@pytest.mark.parametrize("file", FILES)
def test_containers_can_do_little(file: str) -> None:
    for container in FILES[file]["services"].values():
        assert container["read_only"] is True
        assert container["cap_drop"] == ["ALL"]
        assert container["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("file", FILES)
def test_what_reads_models_has_no_network_and_shares_the_blobs(file: str) -> None:
    services = FILES[file]["services"]
    assert services["worker"]["network_mode"] == "none"
    assert all("data:/data" in services[name]["volumes"] for name in ("api", "worker"))


def test_the_database_is_durable_and_its_password_is_a_secret() -> None:
    services = FILES["compose.yaml"]["services"]
    assert "database:/var/lib/postgresql/data" in services["database"]["volumes"]
    assert services["database"]["healthcheck"]["test"][1] == "pg_isready"
    assert services["api"]["depends_on"] == {"database": {"condition": "service_healthy"}}
    for name in ("api", "worker"):
        said = services[name]["environment"]
        assert DatabaseUrl.parse(said["LIPCERT_DATABASE_URL"]).password is None
        assert said["LIPCERT_DATABASE_PASSWORD_FILE"] == "/run/secrets/database_password"  # noqa: S105
    for container in services.values():
        assert container["secrets"] == ["database_password"]
