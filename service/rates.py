"""How often one may ask: a token bucket for each API key, and for each address that guesses keys.

    tokens(t) = min(rate * burst_s, tokens(t') + rate (t - t'))    a request takes one

Every API process counts by itself, in memory that is bounded: of too many buckets the one that was
not used for longest is forgotten, and would be full again soon. Reads and writes have buckets of
their own, so that a page that polls keeps nobody from submitting. Without keys nobody is counted:
the address is then this machine's own.

A valid key is let in however many wrong ones came from its address: behind a proxy that is
everyone's, and a stranger could lock all of them out.
"""

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from service.problems import Problem
from verifier.errors import InvalidRequest

MOST_BUCKETS = 10_000  #: of each kind

READS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Requests a second, on average; 0: no limit."""

    reads: float = 500.0  #: of one key
    writes: float = 100.0  #: of one key
    failures: float = 1.0  #: of one address: requests without a valid key
    burst_s: float = 10.0  #: seconds' worth of requests that may come at once, of keys
    failures_burst: float = 100.0  #: failures that may come at once


class Buckets:
    """Token buckets of one rate, by name."""

    def __init__(
        self, rate: float, size: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = rate
        self._size = max(size, 1.0)
        self._clock = clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._levels)

    def take(self, name: str) -> float:
        """0 where a token was taken; else the seconds until there is one."""
        if self._rate <= 0:
            return 0.0
        now = self._clock()
        level, then = self._levels.get(name, (self._size, now))
        level = min(self._size, level + self._rate * (now - then))
        is_enough = 1 <= level
        self._levels[name] = (level - 1 if is_enough else level, now)
        self._levels.move_to_end(name)
        if MOST_BUCKETS < len(self._levels):
            self._levels.popitem(last=False)
        return 0.0 if is_enough else (1 - level) / self._rate


class Throttle:
    """The buckets of one API process."""

    def __init__(self, rates: Rates, clock: Callable[[], float] = time.monotonic) -> None:
        self._reads = Buckets(rates.reads, rates.reads * rates.burst_s, clock)
        self._writes = Buckets(rates.writes, rates.writes * rates.burst_s, clock)
        self._failures = Buckets(rates.failures, rates.failures_burst, clock)

    def require_call(self, key_id: str, method: str) -> None:
        """Count a request with a valid key.

        Raises:
            Problem: rate-limited.
        """
        is_read = method in READS
        wait_s = (self._reads if is_read else self._writes).take(key_id)
        if wait_s:
            kind = "reads" if is_read else "writes"
            raise _limited(f"too many {kind} with key {key_id}", kind, wait_s)

    def require_failure(self, address: str) -> None:
        """Count a request without a valid key.

        Raises:
            Problem: rate-limited.
        """
        wait_s = self._failures.take(network_of(address))
        if wait_s:
            raise _limited("too many requests without a valid API key", "failures", wait_s)


def network_of(address: str) -> str:
    """What one stranger can choose addresses in: all of IPv4's, 64 bits of IPv6's."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:100]
    if parsed.version == 4:
        return str(parsed)
    return str(ipaddress.ip_network((parsed, 64), strict=False))


def parse_rates(text: str) -> Rates:
    """The rates that `name=number,name=number` states over the defaults.

    Raises:
        InvalidRequest: one of them does not exist.
    """
    said: dict[str, float] = {}
    for part in filter(None, text.split(",")):
        name, _, value = (piece.strip() for piece in part.partition("="))
        try:
            said[name] = float(value)
            Rates(**said)
        except (TypeError, ValueError) as error:
            raise InvalidRequest(
                f"rate {part[:100]!r} cannot be read",
                fix=f"give name=number, of {', '.join(Rates.__dataclass_fields__)}",
            ) from error
        if not 0 <= said[name] < math.inf:
            raise InvalidRequest(f"rate {name} is {value}", fix="give a number; 0: no limit")
    return Rates(**said)


def _limited(detail: str, kind: str, wait_s: float) -> Problem:
    headers = {"Retry-After": str(math.ceil(wait_s))}
    return Problem("rate-limited", detail, limit=kind, headers=headers)
