"""Runs of schemathesis against a service: all checks, the contract as the service serves it.

    python tests/service/schemathesis_run.py [examples per operation and phase]

makes a long one without API keys and a long one with them, and exits with 1 where a check failed.
The services' children verify by fakes, so that the calls meet every state that a job can be in.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from service_process import Service, settings_in

from service.access import parts_of
from service.store import keys
from service.store.coordination import now_ms
from service.store.engine import open_database

HERE = Path(__file__).parent
CONFIG = HERE / "schemathesis.toml"
EXAMPLES = "40"


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


def main() -> int:
    """Run both; the exit code."""
    examples = sys.argv[1] if 1 < len(sys.argv) else EXAMPLES
    results = [_long(examples, with_keys=with_keys) for with_keys in (False, True)]
    sys.stdout.write(f"{sum(ran.cases for ran in results)} cases in all\n")
    return 0 if all(ran.is_clean for ran in results) else 1


def _long(examples: str, *, with_keys: bool) -> Ran:
    with tempfile.TemporaryDirectory() as folder:
        service = Service(replace(settings_in(Path(folder)), max_queued=100_000))
        try:
            key = make_key(service) if with_keys else None
            began = time.monotonic()
            ran = run(service, ("--max-examples", examples), key)
        finally:
            service.close()
    sys.stdout.write(
        f"{'with' if with_keys else 'without'} keys: {ran.cases} cases in "
        f"{time.monotonic() - began:.0f} s, {'clean' if ran.is_clean else ran.said}\n"
    )
    sys.stdout.flush()
    return ran


if __name__ == "__main__":
    sys.exit(main())
