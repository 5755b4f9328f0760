"""The contract under thousands of calls: every check of schemathesis, without API keys and with.

    python -m benchmarks.contract [examples per operation and phase]

Starts a service for each, whose children verify by fakes, so that the calls meet every state that a
job can be in. Exits with 1 where a check failed, and prints what it said.
"""

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests/service"))  # the fakes, and what starts a service

import schemathesis_run  # noqa: E402 - found by the line above
from service_process import Service, settings_in  # noqa: E402

EXAMPLES = "40"


def main() -> int:
    """Run both; the exit code."""
    examples = sys.argv[1] if 1 < len(sys.argv) else EXAMPLES
    results = [_run(examples, with_keys=with_keys) for with_keys in (False, True)]
    sys.stdout.write(f"{sum(ran.cases for ran in results)} cases in all\n")
    return 0 if all(ran.is_clean for ran in results) else 1


def _run(examples: str, *, with_keys: bool) -> schemathesis_run.Ran:
    with tempfile.TemporaryDirectory() as folder:
        settings = replace(settings_in(Path(folder)), max_queued=100_000)
        service = Service(settings)
        try:
            key = schemathesis_run.make_key(service) if with_keys else None
            began = time.monotonic()
            ran = schemathesis_run.run(service, ("--max-examples", examples), key)
        finally:
            service.close()
    verdict = "clean" if ran.is_clean else f"NOT CLEAN\n{ran.said}"
    sys.stdout.write(
        f"{'with' if with_keys else 'without'} keys: {ran.cases} cases "
        f"in {time.monotonic() - began:.0f} s, {verdict}\n"
    )
    sys.stdout.flush()
    return ran


if __name__ == "__main__":
    sys.exit(main())
