"""What a tenant may use: one whole number for each limit, and what to say where it is met.

The operator's settings say what holds for every tenant, the database what holds for one of them
instead. Knows no database.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from verifier.errors import InvalidRequest

#: The greatest whole number that every JSON reader gets right; 1000 times that fits a BIGINT.
NO_LIMIT = 2**53 - 1

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The most of everything that one tenant may have or ask for."""

    models: int = NO_LIMIT  #: stored
    stored_bytes: int = NO_LIMIT  #: of all its models
    model_bytes: int = NO_LIMIT  #: of one model; the service has a limit of its own, too
    queued_jobs: int = 20_000  #: waiting, uploads to be read among them
    running_jobs: int = NO_LIMIT  #: at one time; the others wait
    cpu_seconds_per_day: int = NO_LIMIT  #: from midnight to midnight UTC; then its jobs wait
    budget_seconds: int = NO_LIMIT  #: of one job
    memory_bytes: int = NO_LIMIT  #: of one job; the service has a limit of its own, too
    waiters: int = 2_000  #: long polls and event streams of one API key, in one API process


NAMES = tuple(field.name for field in dataclasses.fields(Limits))


def limited(limits: Limits, said: Mapping[str, int]) -> Limits:
    """The limits, with what is said instead; names that are unknown say nothing."""
    known = {name: value for name, value in said.items() if name in NAMES}
    return dataclasses.replace(limits, **known)


def parse_limit(text: str) -> tuple[str, int | None]:
    """The name and the number of `name=number`; None for `name=default`.

    Raises:
        InvalidRequest: there is no such limit, or no such number.
    """
    name, _, value = text.partition("=")
    name, value = name.strip(), value.strip()
    if name not in NAMES:
        raise InvalidRequest(
            f"limit {name[:100]!r} does not exist", fix=f"use one of {', '.join(NAMES)}"
        )
    if value == "default":
        return name, None
    if value == "none":
        return name, NO_LIMIT
    if not value.isdecimal() or NO_LIMIT < int(value):
        raise InvalidRequest(
            f"limit {name} = {value[:100]!r} is no number",
            fix="give a whole number, `none` or `default`",
        )
    return name, int(value)


def parse_limits(text: str) -> Limits:
    """The limits that `name=number,name=number` states over the defaults.

    Raises:
        InvalidRequest: one of them does not exist.
    """
    said = [parse_limit(part) for part in text.split(",") if part.strip()]
    return limited(Limits(), {name: value for name, value in said if value is not None})


def shown(value: int) -> int | None:
    """A limit on the wire: null where there is none."""
    return None if value == NO_LIMIT else value
