"""Mutants of real and hostile files: nothing but typed refusals, and no hang.

    python -m benchmarks.mutants FOLDER... [--scans 1000000] [--imports 10000] [--processes 2]

FOLDERs hold .onnx files. A mutant is a file after one to four changes: bits flipped, bytes set,
inserted, deleted or repeated, or its end taken from another file; half of them keep their length.
`--scans` go through the pre-scan and the graph's reader, and what those read through the checker's
reader too; `--imports` through the whole import, differential test included, in children with
limits of memory and processor time. Mutant k is the same in every run. What escapes is printed
with its number.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import signal
import struct
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from verifier.checker.reader import read_model
from verifier.errors import LipcertError
from verifier.onnx_import import load, prescan, reader
from verifier.property import Reading

LARGEST: Final = 2**12  #: bytes of a file that is mutated
HANG_S: Final = 10
BATCH: Final = 50  #: imports of one child
MEMORY: Final = 2**32
SHOWN: Final = 20
OK: Final = "read"


@dataclass(slots=True)
class Tally:
    """What became of mutants, and what should not have."""

    answers: Counter[str] = field(default_factory=Counter[str])
    escaped: list[str] = field(default_factory=list[str])
    slowest_s: float = 0.0

    def add(self, number: int, answer: str, seconds: float) -> None:
        """One mutant's answer: a code, or a sentence where it escaped."""
        self.slowest_s = max(self.slowest_s, seconds)
        if " " in answer:
            self.escaped.append(f"mutant {number}: {answer}")
            answer = "escaped"
        self.answers[answer] += 1

    def join(self, other: Tally) -> None:
        """Add what another process counted."""
        self.answers += other.answers
        self.escaped += other.escaped
        self.slowest_s = max(self.slowest_s, other.slowest_s)


def seeds(folders: Sequence[Path]) -> list[bytes]:
    """The files that are mutated, in order of their names."""
    paths = sorted(path for folder in folders for path in folder.glob("*.onnx"))
    files = [path.read_bytes() for path in paths if path.stat().st_size <= LARGEST]
    return [data for data in files if data]


def mutant(files: Sequence[bytes], number: int) -> bytes:
    """The mutant of this number."""
    rng = Random(number)  # noqa: S311 (no secret)
    data = bytearray(rng.choice(files))
    kinds = rng.choice((2, 6))
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(data) + 1)
        count = rng.choice((1, 1, 1, 2, 4, 16, 200))
        match rng.randrange(kinds):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                data[at : at + 1] = bytes(
                    [rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))]
                )
            case 2:
                data[at:at] = rng.randbytes(count)
            case 3:
                del data[at : at + count]
            case 4:
                data[at:at] = data[at : at + count]
            case 5:
                other = rng.choice(files)
                data[at:] = other[rng.randrange(len(other)) :]
            case _:
                continue  # beyond the end
        data = data or bytearray(b"\x08")
    return bytes(data)


def _late(_signal: int, _frame: object) -> None:
    raise TimeoutError(f"no answer within {HANG_S} s")


def _answer(data: bytes, *, whole: bool) -> str:
    """`read` or a code; a sentence for what escaped."""
    signal.alarm(HANG_S if not whole else 6 * HANG_S)
    try:
        if whole:
            load(data)
        else:
            _scanned(data)
    except LipcertError as refusal:
        return refusal.code
    except Exception as error:  # noqa: BLE001 (what is looked for)
        return f"{type(error).__name__}: {error}"[:200]
    finally:
        signal.alarm(0)
    return OK


def _scanned(data: bytes) -> None:
    """Both readers, the second one where the first one has read the file."""
    reading = Reading()
    reader.read(prescan.scan(data), reading)
    read_model(data, reading)


def scan(job: tuple[Sequence[bytes], int, int, int]) -> Tally:
    """Every `step`-th mutant through the readers."""
    files, first, count, step = job
    signal.signal(signal.SIGALRM, _late)
    tally = Tally()
    for number in range(first, count, step):
        data = mutant(files, number)
        began = time.perf_counter()
        tally.add(number, _answer(data, whole=False), time.perf_counter() - began)
    return tally


def imports(job: tuple[Sequence[bytes], int, int, int]) -> Tally:
    """Every `step`-th batch of mutants through the whole import, each batch in a child."""
    files, first, count, step = job
    tally = Tally()
    for start in range(first * BATCH, count, step * BATCH):
        waiting = range(start, min(start + BATCH, count))
        while waiting:  # a child that dies is followed by one for the rest
            done = list(_in_child(files, waiting))
            for number, answer, seconds in done:
                tally.add(number, answer, seconds)
            if len(done) < len(waiting):
                tally.add(waiting[len(done)], "the child died", 0.0)
            waiting = waiting[len(done) + 1 :]
    return tally


def _in_child(files: Sequence[bytes], numbers: Sequence[int]) -> Iterator[tuple[int, str, float]]:
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        os.close(read_end)
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (BATCH * HANG_S, BATCH * HANG_S))
        signal.signal(signal.SIGALRM, _late)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what libraries print
        for number in numbers:
            data = mutant(files, number)
            began = time.perf_counter()
            said = _answer(data, whole=True).encode()[:250]
            os.write(write_end, struct.pack("dB", time.perf_counter() - began, len(said)) + said)
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as answers:
        for number in numbers:
            head = answers.read(9)
            if len(head) < 9:
                break
            seconds, size = struct.unpack("dB", head)
            yield number, answers.read(size).decode(errors="replace"), seconds
    os.waitpid(child, 0)


def main() -> None:
    """Count, print, and fail where something escaped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--scans", type=int, default=1_000_000)
    parser.add_argument("--imports", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    files, failed = seeds(given.folders), False
    for work, count in ((scan, given.scans), (imports, given.imports)):
        began = time.perf_counter()
        jobs = [(files, first, count, given.processes) for first in range(given.processes)]
        whole = Tally()
        with multiprocessing.get_context("fork").Pool(given.processes) as pool:
            for tally in pool.imap_unordered(work, jobs):
                whole.join(tally)
        spent = time.perf_counter() - began
        lines = [
            f"{work.__name__}: {count:,} mutants of {len(files)} files in {spent:.0f} s",
            f"  slowest {1000 * whole.slowest_s:.0f} ms; escaped {len(whole.escaped)}",
            "  " + ", ".join(f"{code} {times}" for code, times in whole.answers.most_common()),
            *(f"  {line}" for line in whole.escaped[:SHOWN]),
        ]
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()
        failed = failed or bool(whole.escaped)
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
