"""One run of schemathesis against a service: all checks, the contract as the service serves it."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from service_process import Service

from service.access import parts_of
from service.store import keys
from service.store.engine import now_ms, open_database

HERE = Path(__file__).parent
CONFIG = HERE / "schemathesis.toml"


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run came to."""

    is_clean: bool
    cases: int
    said: str


def run(
    service: Service, arguments: Sequence[str], key: str | None = None, config: Path = CONFIG
) -> Ran:
    """Run what the arguments say; with a key, every call has it."""
    command = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"]
    parts = None if key is None else parts_of(key)
    environment = {
        **os.environ,
        "PYTHONPATH": str(HERE),
        "SCHEMATHESIS_HOOKS": "schemathesis_hooks",
        "LIPCERT_KEPT_KEY": "" if parts is None else parts[0],
    }
    command += ["--config-file", str(config), "run", f"{service.url}/openapi.json", "--no-color"]
    command += ["--generation-database", "none"]
    command += [] if key is None else ["--header", f"Authorization: Bearer {key}"]
    done = subprocess.run(
        [*command, *arguments], env=environment, check=False, capture_output=True, text=True
    )
    found = re.search(r"(\d+) generated", done.stdout)
    return Ran(done.returncode == 0, 0 if found is None else int(found[1]), done.stdout)


def make_key(service: Service) -> str:
    """A key of scope admin: from now on the service lets nobody in without one."""
    database = open_database(service.settings.database)
    with database.write() as connection:
        _, text = keys.add(
            connection, "default", scope="admin", label="", expires=None, now=now_ms()
        )
    database.close()
    return text
