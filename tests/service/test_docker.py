"""What the images and the compose file promise, read from them: nothing is built here."""

import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import yaml
from service_process import ROOT, eventually, free_port

from service.store.address import DatabaseUrl

DOCKER = ROOT / "docker"
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
def test_webhooks_are_sent_by_a_container_that_reads_no_model(file: str) -> None:
    """From the image without the verifier's libraries, and only where it is asked for."""
    deliverer = FILES[file]["services"]["deliverer"]
    assert deliverer["profiles"] == ["webhooks"]
    assert deliverer["build"]["dockerfile"] == "docker/api.Dockerfile"
    assert deliverer["command"] == ["python", "-m", "service.deliverer", "--alone"]
    health = ["CMD", "python", "-m", "service.deliverer", "--is-alive"]
    assert deliverer["healthcheck"]["test"] == health
    said = FILES[file]["services"]["api"]["environment"]
    assert said["LIPCERT_WEBHOOKS"].endswith(":-off}")
    shared = ("LIPCERT_WEBHOOK_PORTS", "LIPCERT_WEBHOOK_HOSTS", "LIPCERT_PUBLIC_URL")
    assert [deliverer["environment"][name] for name in shared] == [said[name] for name in shared]


@pytest.mark.parametrize("name", ["api", "worker"])
def test_what_is_copied_is_there_and_not_ignored(name: str) -> None:
    allowed = (DOCKER / f"{name}.Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    copies = [line.split()[1:-1] for line in instructions(name) if line.startswith("COPY")]
    sources = [source for copy in copies for source in copy if not copy[0].startswith("--from")]
    assert {"verifier", "service", "constraints.txt"} <= set(sources)
    for source in sources:
        assert (DOCKER.parent / source).exists()
        assert f"!{source}" in allowed


@pytest.mark.parametrize("name", ["api", "worker"])
def test_an_image_is_built_of_named_versions(name: str) -> None:
    bases = [line.split()[1] for line in instructions(name) if line.startswith("FROM")]
    assert all(re.fullmatch(r"[^:]+:[0-9][^:]*", base) for base in bases), bases
    for line in instructions(name):
        assert "pip install" not in line or "-c constraints.txt" in line


def test_no_secret_is_written_down() -> None:
    """Neither in an image nor in the compose file, which names a variable or a file."""
    secret = re.compile(r"PASSWORD|SECRET|TOKEN|API_KEY")
    for name in ("api", "worker"):
        assert [line for line in instructions(name) if secret.search(line)] == []
    for service in [one for file in FILES.values() for one in file["services"].values()]:
        for variable, value in dict(service.get("environment", {})).items():
            assert not secret.search(variable) or variable.endswith("_FILE") or "${" in str(value)


@pytest.mark.parametrize("file", FILES)
def test_every_container_tells_its_health(file: str) -> None:
    """By its image where we build it, else in the compose file."""
    for container in FILES[file]["services"].values():
        assert "build" in container or "healthcheck" in container


def _command(name: str, instruction: str) -> list[str]:
    """The words of an instruction in JSON; `python` is this interpreter."""
    (line,) = [line for line in instructions(name) if line.startswith(instruction)]
    program, *arguments = json.loads(line[line.index("[") :])
    assert program == "python"
    return [sys.executable, *arguments]


def _environment(name: str, folder: Path, port: int) -> dict[str, str]:
    """What the image's ENV says, but for the place of the data and the address."""
    (line,) = [line for line in instructions(name) if line.startswith("ENV")]
    said = dict(word.split("=", 1) for word in line.split()[1:])
    mine = {"LIPCERT_DATA": str(folder), "LIPCERT_HOST": "127.0.0.1", "LIPCERT_PORT": str(port)}
    return {**os.environ, **said, "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **mine}


def test_the_commands_of_both_images_serve_together(tmp_path: Path) -> None:
    """What CMD and HEALTHCHECK say, run here: healthy when both run, and both end when told to."""
    port = free_port()

    def is_healthy(name: str) -> bool:
        command = [word.replace("8321", str(port)) for word in _command(name, "HEALTHCHECK")]
        environment = _environment(name, tmp_path, port)
        done = subprocess.run(command, env=environment, check=False, capture_output=True)
        return done.returncode == 0

    running: list[subprocess.Popen[bytes]] = []
    try:
        for name in ("api", "worker"):
            one = subprocess.Popen(_command(name, "CMD"), env=_environment(name, tmp_path, port))
            running.append(one)
            # The worker imports all that it certifies with before it says that it is there.
            eventually(partial(is_healthy, name), within_s=240.0, unless=partial(_has_ended, one))
    finally:
        ends = [_end(one) for one in running]
    assert ends == [0, 0]


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is not None


def _end(process: subprocess.Popen[bytes]) -> int:
    """The exit code of a process that is told to stop, as a container is."""
    process.terminate()
    try:
        return process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


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
