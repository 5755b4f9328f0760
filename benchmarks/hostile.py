"""The hostile files against their manifest: answer, time and memory of each, in a child of its own.

    python -m benchmarks.hostile FOLDER [--bounds]

FOLDER holds the files and `manifest.json`. A child is forked from a process that has torch and
onnxruntime loaded, as the service's children are, with an empty working folder, 2 GiB of memory and
10 s of processor time; memory is what its peak exceeds that of a child that does nothing. What
deviates is listed. `--bounds` also certifies the accepted files, two seconds each, and compares
with `true_l2`, which no bound may be below.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnxruntime

from verifier.certificate import Certificate
from verifier.errors import LipcertError, ModelRefused
from verifier.onnx_import import build, differential, load
from verifier.request_json import parse_request
from verifier.verify import verify

LARGE: Final = 2**20  #: bytes from which a file may take a second
QUANTILE: Final = 0.99
LOADED: Final = (onnxruntime, build, differential)  #: before the children are forked


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a child said of one file."""

    imports: bool
    code: str  #: "" where it was read, and nothing is blocked
    seconds: float  #: of processor time: other programs do not count
    memory_bytes: int
    end: int  #: of the child: 0, or a signal


def answer(data: bytes) -> tuple[bool, str]:
    """Whether the file is read, and the code that it or its capability has."""
    try:
        model = load(data)
    except ModelRefused as refusal:
        return False, refusal.code
    reason = model.blocked or model.unbounded
    return True, "" if reason is None else reason.code


def in_child(data: bytes | None) -> Answer:
    """The answer of a child; of no data that of one that does nothing."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        os.close(read_end)
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            resource.setrlimit(resource.RLIMIT_DATA, (2**31, 2**31))
            resource.setrlimit(resource.RLIMIT_CPU, (10, 10))
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            said = (True, "") if data is None else answer(data)
            os.write(write_end, json.dumps(said).encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as answers:
        text = answers.read()
    _, status, used = os.wait4(child, 0)
    imports, code = json.loads(text) if text else (False, "died")
    return Answer(
        imports=imports,
        code=code,
        seconds=used.ru_utime + used.ru_stime,
        memory_bytes=used.ru_maxrss * 1024,
        end=status,
    )


def deviation(entry: Mapping[str, object], found: Answer) -> str | None:
    """What is not as the manifest says; None where all is."""
    is_accepted = entry["expected"] == "accept"
    expected = {""} if is_accepted else {str(entry["code"])}
    if is_accepted and entry["code"] == "not-checkable":
        expected.add("not-checkable")
    if found.end or found.imports != entry["imports"] or found.code not in expected:
        said = found.code or "read"
        wanted = " or ".join(sorted(code or "read" for code in expected))
        return f"{said} instead of {wanted}" + (f", status {found.end}" if found.end else "")
    return None


def bound_of(data: bytes) -> Certificate | str:
    """A certificate, or why there is none."""
    try:
        return verify(data, parse_request({"budget": {"seconds": 2}}))
    except LipcertError as error:
        return error.code


def _bound_line(entry: Mapping[str, object], data: bytes) -> tuple[str, bool]:
    """What is certified, and whether it is wrong."""
    found, true = bound_of(data), entry["true_l2"]
    if isinstance(found, str):
        return f"{entry['file']}: {found}", entry["code"] != found
    bound = found.claim.bound
    is_below = isinstance(true, float) and bound is not None and bound < true
    return f"{entry['file']}: {bound!r}, true {true!r}", is_below


def main() -> None:
    """Compare, print, and fail where a file deviates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bounds", action="store_true")
    given = parser.parse_args()
    entries = json.loads((given.folder / "manifest.json").read_text())
    idle = in_child(None)
    small: list[tuple[float, str]] = []
    large: list[tuple[float, str]] = []
    memory: list[tuple[int, str]] = []
    wrong = 0
    for entry in entries:
        data = (given.folder / entry["file"]).read_bytes()
        found = in_child(data)
        said = deviation(entry, found)
        if said is not None:
            wrong += 1
            sys.stdout.write(f"{entry['file']}: {said}\n")
        if entry["expected"] == "refuse":
            (small if len(data) < LARGE else large).append((found.seconds, entry["file"]))
            memory.append((found.memory_bytes - idle.memory_bytes, entry["file"]))
        if given.bounds and entry["expected"] == "accept":
            line, is_wrong = _bound_line(entry, data)
            sys.stdout.write(line + (" WRONG" if is_wrong else "") + "\n")
            wrong += is_wrong
    small.sort()
    sys.stdout.write(
        f"{len(entries)} files, {wrong} deviate\n"
        f"refusals: median {1000 * small[len(small) // 2][0]:.0f} ms, p99 "
        f"{1000 * small[int(QUANTILE * len(small))][0]:.0f} ms, slowest {small[-3:]}\n"
        f"of 1 MB and more: slowest {max(large)}\n"
        f"memory beyond an idle child: greatest {max(memory)}\n"
    )
    raise SystemExit(wrong > 0)


if __name__ == "__main__":
    main()
