"""Public networks, each in a child of its own: `python -m benchmarks.models FOLDER [NAME ...]`.

FOLDER holds ONNX files. Every one is imported (which compares it with onnxruntime), certified in l2
everywhere and over a box of radius 0.01 around a random point, and both certificates are checked
again by reading the file anew. A line has the bounds, the seconds and MiB of all that (beside what
an empty child has), and where there is no bound the code and the node. What is wrong is listed at
the end: a certificate that the checker rejects, a local bound above the global one, a child that
died. LIPCERT_SECONDS is the budget of a bound (10), LIPCERT_MIB the memory of a child (8192).
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime

from benchmarks.table import Table
from verifier import LipcertError, check, parse_request, verify
from verifier.errors import CapabilityBlocked, ModelRefused
from verifier.onnx_import import build, differential, load

RADIUS: Final = 0.01
LOADED: Final = (onnxruntime, build, differential)  #: before the children are forked


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a child has to say of a file."""

    imported: bool = False
    everywhere: float | None = None
    local: float | None = None
    codes: str = ""  #: of what has no bound, with its node
    wrong: str = ""
    seconds: float = 0.0
    import_s: float = 0.0
    mib: float = 0.0


def main() -> None:
    """Prints the table, and what is wrong."""
    folder, wanted = Path(sys.argv[1]), sys.argv[2:]
    paths = [
        path
        for path in sorted(folder.glob("*.onnx"))
        if not wanted or any(name in path.name for name in wanted)
    ]
    table = Table(file=34, imported=8, everywhere=12, local=12, s=7, import_s=8, MiB=6, answer=34)
    nothing = in_child(None).mib
    wrong: dict[str, str] = {}
    read = 0
    for path in paths:
        found = in_child(path.read_bytes())
        read += found.imported
        if found.wrong:
            wrong[path.stem] = found.wrong
        table.row(
            [
                path.stem,
                "yes" if found.imported else "no",
                found.everywhere,
                found.local,
                f"{found.seconds:.1f}",
                f"{found.import_s:.1f}",
                f"{max(found.mib - nothing, 0):.0f}",
                found.codes,
            ]
        )
    sys.stdout.write(f"\n{read} of {len(paths)} are read; {len(wrong)} are wrong\n")
    for name, what in wrong.items():
        sys.stdout.write(f"{name}: {what}\n")


def in_child(data: bytes | None) -> Found:
    """What a child finds; of no data, what one that does nothing has."""
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        os.close(reader)
        limit = int(os.environ.get("LIPCERT_MIB", "8192")) * 2**20
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        found = Found() if data is None else examined(data)
        os.write(writer, json.dumps(asdict(found)).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        told = stream.read()
    _, status, usage = os.wait4(pid, 0)
    mib = usage.ru_maxrss / 1024
    if not told:
        return Found(wrong=f"the child ended with {status}", mib=mib)
    members: Mapping[str, object] = {**json.loads(told), "mib": mib}
    return Found(**members)  # pyright: ignore[reportArgumentType] (as they were written)


def examined(data: bytes) -> Found:
    """Import, both bounds, both checks."""
    start = time.monotonic()
    try:
        model = load(data)
    except ModelRefused as refusal:
        return Found(codes=f"{refusal.code} {refusal.node}", seconds=time.monotonic() - start)
    import_s = time.monotonic() - start
    size = 0 if model.network is None else model.network.input_size
    centre = np.round(np.random.default_rng(0).uniform(0, 1, size), 3)
    box = {"type": "box", "center": centre.tolist(), "radius": RADIUS}
    everywhere, first, bad = certified(data, {"norm": "l2"})
    local, second, worse = certified(data, {"norm": "l2", "scope": "local", "region": box})
    codes = ", ".join(dict.fromkeys(code for code in (first, second) if code))
    wrong = bad or worse
    if everywhere is not None and local is not None and everywhere * (1 + 1e-9) < local:
        wrong = wrong or f"local {local!r} above global {everywhere!r}"
    return Found(
        imported=True,
        everywhere=everywhere,
        local=local,
        codes=codes,
        wrong=wrong,
        seconds=time.monotonic() - start,
        import_s=import_s,
    )


def certified(data: bytes, asked: Mapping[str, object]) -> tuple[float | None, str, str]:
    """The bound, or the code and node that there is instead; and what is wrong with it."""
    seconds = float(os.environ.get("LIPCERT_SECONDS", "10"))
    try:
        found = verify(data, parse_request({"property": asked, "budget": {"seconds": seconds}}))
    except LipcertError as error:
        is_answer = isinstance(error, CapabilityBlocked)
        return None, f"{error.code} {error.node or ''}", "" if is_answer else str(error)
    verdict = check(found, data)
    return found.claim.bound, "", "" if verdict.valid else f"rejected: {verdict.reason}"


if __name__ == "__main__":
    main()
