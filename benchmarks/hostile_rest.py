"""Hostile files through the REST API: `python -m benchmarks.hostile_rest [--mutants 10000]`.

Every file that `$LIPCERT_SHARED/hostile/make_hostile.py` makes, then mutants of those, of the small
models in `$LIPCERT_SHARED/models` and of models made here: bytes flipped, cut, inserted, spliced.
Wanted: the service lives, every model ends as ready or as refused with a code of the catalogue,
the hostile files as their manifest says, the p99 from upload to refused is < 500 ms, and the API's
memory stays flat. Exit code 1 where it is not so; times are only reported.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmarks.drill_questions import tiny_model
from benchmarks.http_load import Measured
from benchmarks.live_service import LiveService, resident_bytes, settings_for
from service.problems import CATALOGUE

BINARY = {"Content-Type": "application/octet-stream"}
LARGEST_SEED = 60_000  #: bytes of a file that mutants are made of
GIVEN_UP_S = 150.0
#: How valid files are refused that hold what nothing reads yet.
NOT_YET = ("control-flow", "several-inputs-or-outputs", "unsupported-op")


@dataclass
class Findings:
    """What became of the files."""

    states: Counter[str] = field(default_factory=Counter[str])
    codes: Counter[str] = field(default_factory=Counter[str])
    refused: Measured = field(default_factory=Measured)
    slowest: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])
    wrong: list[str] = field(default_factory=list[str])
    memory: list[int] = field(default_factory=list[int])


class Poster:
    """Uploads files and watches what becomes of them."""

    def __init__(self, service: LiveService, findings: Findings) -> None:
        self._client = httpx.Client(base_url=service.url, timeout=60.0)
        self._service = service
        self._findings = findings

    def post(self, name: str, data: bytes) -> str:
        """The code that a file is refused with; `ready` where it is not."""
        began = time.perf_counter()
        response = self._client.post("/v1/models", content=data, headers=BINARY)
        answer: Mapping[str, Any] = response.json()
        if response.status_code in (200, 201):
            answer = self._read(answer)
        elapsed = time.perf_counter() - began
        return self._note(name, response.status_code, answer, elapsed)

    def _read(self, model: Mapping[str, Any]) -> Mapping[str, Any]:
        """The model once it has been read, or at the end of all patience."""
        end = time.monotonic() + GIVEN_UP_S
        pause = 0.01
        while model["state"] == "received" and time.monotonic() < end:
            time.sleep(pause)
            pause = min(0.05, 1.2 * pause)
            model = self._client.get(f"/v1/models/{model['id']}").json()
        return model

    def _note(self, name: str, status: int, answer: Mapping[str, Any], elapsed: float) -> str:
        findings = self._findings
        state = answer["state"] if status in (200, 201) else f"answered {status}"
        error: Mapping[str, Any] = answer if status >= 400 else (answer["error"] or {})
        code = str(error.get("code", "ready"))
        findings.states[state] += 1
        if state != "ready":
            findings.codes[code] += 1
            findings.refused.seconds.append(elapsed)
            findings.slowest = sorted([*findings.slowest, (elapsed, name)])[-4:]
        is_typed = state == "ready" or (code in CATALOGUE and code != "internal-error")
        if state == "received" or 500 <= status or not is_typed:
            findings.wrong.append(f"{name}: {state} {error}")
        findings.memory.append(resident_bytes(self._service.pid))
        return code


def hostile_files(folder: Path) -> Sequence[tuple[Path, Mapping[str, Any]]]:
    """Every hostile file, with what the manifest says of it."""
    script = _shared() / "hostile" / "make_hostile.py"
    subprocess.run(  # noqa: S603 - the script that the operator's folder has
        [sys.executable, str(script), str(folder)], check=True, capture_output=True
    )
    entries = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return [(folder / entry["file"], entry) for entry in entries]


def mutants(seeds: Sequence[bytes], count: int, rng: random.Random) -> Iterator[bytes]:
    """Files that differ from the seeds in one of five ways, all of them different."""
    seen = {hashlib.sha256(seed).digest() for seed in seeds}
    while count:
        mutant = _mutant(rng.choice(seeds), rng.choice(seeds), rng)
        digest = hashlib.sha256(mutant).digest()
        if mutant and digest not in seen:
            seen.add(digest)
            count -= 1
            yield mutant


def _mutant(seed: bytes, other: bytes, rng: random.Random) -> bytes:
    data = bytearray(seed)
    place = rng.randrange(len(data) or 1)
    match rng.choice(("flip", "cut", "insert", "splice", "drop")):
        case "flip":
            for _ in range(rng.choice((1, 1, 2, 8))):
                if data:
                    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case "cut":
            del data[place:]
        case "insert":
            data[place:place] = rng.randbytes(rng.choice((1, 4, 64)))
        case "splice":
            data[place:] = other[rng.randrange(len(other) or 1) :]
        case _:
            del data[place : place + rng.choice((1, 2, 16, 256))]
    return bytes(data)


def seeds_of(hostile: Sequence[Path]) -> list[bytes]:
    """Small files to make mutants of."""
    models = sorted((_shared() / "models").glob("*.onnx"))
    small = [path for path in (*hostile, *models) if 0 < path.stat().st_size < LARGEST_SEED]
    return [path.read_bytes() for path in small] + [tiny_model(seed, "") for seed in range(20)]


def run(service: LiveService, given: argparse.Namespace, folder: Path) -> int:
    """All files, then all mutants; the exit code."""
    posed = hostile_files(folder)
    findings = Findings()
    first = Poster(service, findings)
    first.post("warm", tiny_model(0, "warm"))
    for path, entry in posed:
        code = first.post(path.name, path.read_bytes())
        if (code == "ready") != entry["imports"] and code not in NOT_YET:
            findings.wrong.append(f"{path.name}: {code}, the manifest says {entry['code']}")
    report("hostile files", findings)
    wrong, findings.wrong = findings.wrong, []
    findings.refused.seconds.clear()
    findings.slowest.clear()
    rng = random.Random(given.seed)  # noqa: S311 - no secret
    made = mutants(seeds_of([path for path, _ in posed]), given.mutants, rng)
    posters = [Poster(service, findings) for _ in range(given.clients)]
    with ThreadPoolExecutor(given.clients) as pool:
        jobs = (
            pool.submit(posters[number % given.clients].post, f"mutant {number}", data)
            for number, data in enumerate(made)
        )
        for job in _bounded(jobs, 4 * given.clients):
            job.result()
    report("mutants", findings)
    is_alive = service.is_ready()
    sys.stdout.write(f"the service {'lives' if is_alive else 'is dead'}\n")
    return 0 if is_alive and not wrong and not findings.wrong else 1


def _bounded(jobs: Iterator[Any], most: int) -> Iterator[Any]:
    """The same, started as they are awaited: only so many at a time."""
    waiting: list[Any] = []
    for job in jobs:
        waiting.append(job)
        if most <= len(waiting):
            yield waiting.pop(0)
    yield from waiting


def report(name: str, findings: Findings) -> None:
    """Print what was found so far."""
    memory = [round(used / 2**20) for used in findings.memory]
    half = memory[len(memory) // 2 :]
    refused = findings.refused
    lines = (
        f"{name}: {dict(findings.states)}",
        f"  codes {dict(findings.codes.most_common())}",
        f"  refused within p50 {refused.quantile(0.5):.0f} ms, p99 {refused.quantile(0.99):.0f} ms",
        f"  slowest {[f'{name} {1000 * seconds:.0f} ms' for seconds, name in findings.slowest]}",
        f"  API memory {memory[0]} MiB at first, at most {max(memory)}, in the second half "
        f"{min(half)} to {max(half)} (load average {os.getloadavg()[0]:.1f})",
        *(f"  WRONG {text[:300]}" for text in findings.wrong[:20]),
    )
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def _shared() -> Path:
    shared = os.environ.get("LIPCERT_SHARED")
    if shared is None:
        sys.exit("set LIPCERT_SHARED to the folder that holds hostile/ and models/")
    return Path(shared)


def main() -> int:
    """Run it on a service of its own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mutants", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        service = LiveService(settings_for(folder / "data", None, slots=2), folder / "log")
        try:
            service.wait_ready()
            return run(service, given, folder / "hostile")
        finally:
            service.stop()


if __name__ == "__main__":
    sys.exit(main())
