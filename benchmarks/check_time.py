"""How long checking takes beside finding: `python -m benchmarks.check_time [SECONDS]`.

Wanted: checking takes at most a fifth of the time that finding took. `method s` is the share of the
method itself: without the import of the model and the search for a witness. Also measured: how long
the command `lipcert check` takes from start to end, on the smallest of the certificates.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.table import Table
from benchmarks.yardsticks import Case, answer, ratio, seconds_from_arguments
from verifier.certificate_json import certificate_text

EXAMPLES = Path(__file__).parents[1] / "examples"
CENTER = [0.5] * 64


def main() -> None:
    """Prints one row for each example and method, and the time of the command."""
    seconds = seconds_from_arguments(30.0)
    table = Table(
        case=40, proof=12, bound=12, find_s=10, method_s=10, check_s=10, ratio=10, bytes=9
    )
    smallest: tuple[int, Case, str] | None = None
    for case, method in questions():
        given = answer(case, seconds=seconds, method=method)
        if given.certificate is None:
            table.row([case.name, given.refusal, None, given.seconds, None, None, None, None])
            continue
        text = certificate_text(given.certificate)
        proof, attempts = given.certificate.proof.kind, given.certificate.attempts
        spent = sum(attempt.seconds for attempt in attempts)
        share = ratio(given.check_seconds, given.seconds)
        times = (given.seconds, spent, given.check_seconds, share)
        table.row([case.name, proof, given.bound, *times, str(len(text))])
        if smallest is None or len(text) < smallest[0]:
            smallest = len(text), case, text
    if smallest is not None:
        sys.stdout.write(f"lipcert check, start to end: {command_seconds(*smallest[1:]):.2f} s\n")


def questions() -> Iterator[tuple[Case, str]]:
    """Every example, globally and in a box, by each method that applies."""
    local = {
        "scope": "local",
        "norm": "linf",
        "region": {"type": "box", "center": CENTER, "radius": 0.03},
    }
    for path in sorted(EXAMPLES.glob("*.onnx")):
        for scope, methods in (("global", ("product", "lipsdp")), ("local", ("propagation",))):
            for method in methods:
                case = Case(
                    name=f"{path.stem} {scope} {method}",
                    model=path.read_bytes(),
                    request={"property": local if scope == "local" else {}},
                    best_known=None,
                    lower_bound=None,
                    product_bound=None,
                    peers=(),
                )
                yield case, method


def command_seconds(case: Case, text: str) -> float:
    """How long `lipcert check` takes: the best of five."""
    with tempfile.TemporaryDirectory() as folder:
        model, certificate = Path(folder, "model.onnx"), Path(folder, "certificate.json")
        model.write_bytes(case.model)
        certificate.write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "service.cli", "check", str(certificate)]
        times: list[float] = []
        for _ in range(5):
            started = time.perf_counter()
            subprocess.run(  # noqa: S603 - our own command
                [*command, "--model", str(model)], check=True, capture_output=True
            )
            times.append(time.perf_counter() - started)
        return min(times)


if __name__ == "__main__":
    main()
