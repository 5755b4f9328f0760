"""A light load generator: asyncio on bare sockets, in processes beside the one that measures.

One request a connection at a time, kept alive. Costs a tenth of what a server spends on a request,
so that on a small machine it is the server that is measured.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any


@dataclass
class Measured:
    """What a load brought: seconds of each call, and how they were answered."""

    seconds: list[float] = field(default_factory=list[float])
    statuses: Counter[int] = field(default_factory=Counter[int])
    elapsed: float = 0.0

    def add(self, other: Measured) -> None:
        """Take another one's calls too, made at the same time."""
        self.seconds += other.seconds
        self.statuses += other.statuses
        self.elapsed = max(self.elapsed, other.elapsed)

    @property
    def rate(self) -> float:
        """Calls for each second."""
        return len(self.seconds) / self.elapsed if self.elapsed else 0.0

    def quantile(self, share: float) -> float:
        """The time within which this share of the calls was answered, in milliseconds."""
        ordered = sorted(self.seconds)
        return 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * share))]

    @property
    def has_5xx(self) -> bool:
        """Whether any answer blames the server."""
        return any(500 <= status for status in self.statuses)

    def __str__(self) -> str:
        return (
            f"{len(self.seconds)} calls, {self.rate:.0f}/s, p50 {self.quantile(0.5):.1f} ms, "
            f"p95 {self.quantile(0.95):.1f} ms, p99 {self.quantile(0.99):.1f} ms, "
            f"statuses {dict(self.statuses)}"
        )


def get(path: str, **headers: str) -> bytes:
    """The bytes of a GET request."""
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{more}\r\n".encode()


def post(path: str, members: Mapping[str, Any]) -> bytes:
    """The bytes of a POST request."""
    body = json.dumps(members).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def load(
    port: int,
    requests: Sequence[bytes],
    *,
    connections: int,
    seconds: float = 3600.0,
    is_endless: bool = True,
    processes: int = 1,
) -> Measured:
    """Send requests over so many connections: for some seconds, or each of them once."""
    shares = [requests[k::processes] for k in range(processes)]
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        found = pool.starmap(
            _run, [(port, share, connections // processes, seconds, is_endless) for share in shares]
        )
    total = Measured()
    for one in found:
        total.add(one)
    return total


def _run(
    port: int, requests: Sequence[bytes], connections: int, seconds: float, is_endless: bool
) -> Measured:
    return asyncio.run(hold(port, requests, connections, seconds, is_endless=is_endless))


async def hold(
    port: int,
    requests: Sequence[bytes],
    connections: int,
    seconds: float,
    *,
    is_endless: bool,
    answered: Callable[[bytes], None] = lambda _: None,
) -> Measured:
    """The same in this process and loop."""
    measured = Measured()
    began = time.perf_counter()
    source = cycle(requests) if is_endless else iter(requests)
    end = began + seconds
    calls = [_connection(port, source, end, measured, answered) for _ in range(connections)]
    await asyncio.gather(*calls)
    measured.elapsed = time.perf_counter() - began
    return measured


async def _connection(
    port: int,
    source: Iterator[bytes],
    end: float,
    measured: Measured,
    answered: Callable[[bytes], None],
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for request in source:
        began = time.perf_counter()
        if end < began:
            break
        writer.write(request)
        status, body = await _answer(reader)
        measured.seconds.append(time.perf_counter() - began)
        measured.statuses[status] += 1
        answered(body)
    writer.close()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head[9:12])
    _, found, rest = head.partition(b"content-length:")
    length = int(rest.split(b"\r\n", 1)[0]) if found and status != 304 else 0
    return status, await reader.readexactly(length)
